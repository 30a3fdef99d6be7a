"""Checkpoints as they lie on people's disks: quantized already, linked, ambiguous, of other kinds; and exports that stay the model."""
import json
import os
import shutil
import struct
import unittest

import numpy as np

from lmq_harness import LmqTest, bf16, read_safetensors, run, write_safetensors

RANDOM = np.random.default_rng(5)


def matrix(rows, cols):
    return ("BF16", (rows, cols), bf16(RANDOM.standard_normal((rows, cols)) * 0.02))


def f32(*shape):
    return ("F32", shape, np.abs(RANDOM.standard_normal(shape)).astype("<f4") + np.float32(0.001))


def integers(dtype, *shape):
    return (dtype, shape, RANDOM.integers(0, 100, shape).astype({"I32": "<i4", "I8": "i1", "U8": "u1", "U32": "<u4"}[dtype]))


def fp8(*shape):
    return ("F8_E4M3", shape, RANDOM.integers(1, 0x78, shape).astype("u1"))


class InputsTest(LmqTest):
    def folder_of(self, name, tensors, config=None, **files):
        os.makedirs(self.at(name), exist_ok=True)
        write_safetensors(self.at(name, "model.safetensors"), tensors, {"format": "pt"})
        if config is not None:
            self.text(name, "config.json", json.dumps(config))
        return self.at(name)

    def text(self, folder, name, content=""):
        os.makedirs(os.path.dirname(self.at(folder, name)), exist_ok=True)
        with open(self.at(folder, name), "w") as file:
            file.write(content)

    def quantize(self, source, *more, **how):
        return run("quantize", source, "-o", self.at("out.h5"), "--progress", "none", "--resume", "never", "--json", self.at("out.json"), *more, **how)

    def reasons(self):
        with open(self.at("out.json")) as file:
            return {tensor["name"]: tensor.get("reason", "") for tensor in json.load(file)["tensors"] if tensor["method"] in ("raw", "keep", "kept")}


class QuantizedAlready(InputsTest):
    def test_packed_weights_are_kept_with_all_that_belongs_to_them(self):
        source = self.folder_of("gptq", {
            "l.down_proj.qweight": integers("I32", 64, 256), "l.down_proj.qzeros": integers("I32", 16, 32),
            "l.down_proj.scales": ("F16", (16, 256), np.full((16, 256), 0.01, "<f2")), "lm_head.weight": matrix(64, 64)},
            {"quantization_config": {"quant_method": "gptq", "bits": 4}})
        for ranks in (0, 2):
            done = self.ok(self.quantize(source, ranks=ranks))
            self.assertIn("1 weight is quantized already", done.err)
            self.assertIn("says gptq", done.err)
            self.assertIn("start from the unquantized model", done.err)
            self.assertEqual(self.reasons()["l.down_proj.scales"], "belongs to the quantized 'l.down_proj.qweight'")
        self.ok(run("verify", self.at("out.h5"), "--against", source))
        self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("back"), "--source", source))
        before, after = read_safetensors(os.path.join(source, "model.safetensors"))[0], read_safetensors(self.at("back", "model.safetensors"))[0]
        for name in before:
            if name != "lm_head.weight":
                self.assertEqual(before[name], after[name], name)
        with open(self.at("back", "config.json")) as file:  # it still describes what is there
            self.assertIn("quantization_config", json.load(file))

    def test_with_nothing_left_to_quantize_it_is_not_the_size_that_is_at_fault(self):
        source = self.folder_of("all", {"l.down_proj.qweight": integers("I32", 64, 256), "l.down_proj.qzeros": integers("I32", 16, 32),
                                        "l.down_proj.scales": ("F16", (16, 256), np.full((16, 256), 0.01, "<f2"))})
        for size in ([], ["--bits", "4"], ["--target-size", "1M"], ["--rate", "3"]):
            self.refused(self.quantize(source, *size), 69, "nothing is left to quantize")

    def test_tables_of_packed_weights_are_kept_whatever_they_are_called(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        packed = {"a.indices": integers("I32", 4, 16, 64), "a.centroids.weight": half(4, 512), "a.res_centroids.weight": half(4, 512),
                  "b.dense_weights": integers("I32", 64, 64), "b.first_order_matrix": half(64, 64),
                  "c.weight": integers("I32", 64, 64), "c.tables": half(256, 8), "d.Qidxs": integers("I32", 64, 16), "d.codebook.grid": half(256, 8),
                  "f.weight.int_data": integers("I8", 64, 512), "f.weight.scale": half(64, 64), "f.weight.zero_point": half(64, 64)}
        plain = {"e.position_ids": integers("I32", 2, 512), "e.words": half(64, 64), "e.parts.weight": half(64, 64)}
        self.ok(self.quantize(self.folder_of("m", {**packed, **plain}, {"quantization_config": {"quant_method": "any"}})))
        reasons = self.reasons()
        self.assertEqual([name for name in packed if not reasons.get(name) and packed[name][0] == "F16"], [])
        self.assertEqual([name for name in plain if name in reasons and plain[name][0] == "F16"], [])

    def test_a_word_in_another_part_of_the_name_tells_a_companion(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        packed = {"weights.0": integers("U8", 64, 64), "scales.0": half(64, 64), "codes.x.q": integers("U8", 64, 64), "scales.x.q": half(64, 64),
                  "layers.1.q": integers("U8", 64, 64), "scales.layers.1.q": half(64, 64), "v.centroids": half(4, 2048),
                  "v.indices": ("I64", (4000,), RANDOM.integers(0, 99, 4000).astype("<i8"))}
        plain = {"scales.2.other": half(64, 64), "q.weight": half(64, 64), "b.bias_index": ("I64", (64, 64), np.zeros((64, 64), "<i8")), "b.biases_of": half(64, 64),
                 "d.attention_biases": half(64, 64), "d.attention_bias_idxs": ("I64", (64, 64), np.zeros((64, 64), "<i8"))}
        self.ok(self.quantize(self.folder_of("m", {**packed, **plain})))
        reasons = self.reasons()
        self.assertEqual([name for name in packed if packed[name][0] == "F16" and "belongs to" not in reasons.get(name, "")], [])
        self.assertEqual([name for name in plain if name in reasons and plain[name][0] == "F16"], [])

    def test_integers_beside_a_weight_of_floats_or_without_a_scale_are_no_packed_weights(self):
        matrix = lambda *shape: ("F32", shape, RANDOM.standard_normal(shape).astype("<f4"))
        plain = {"conv.edge_index": integers("I32", 2, 4000), "conv.weight": matrix(64, 64), "body.faces": integers("I32", 3000, 3), "body.posedirs": matrix(207, 300),
                 "emb.vocab": integers("I32", 64, 8), "emb.weight": matrix(64, 64), "fc.pruned": integers("U8", 64, 64), "fc.weight": matrix(64, 64),
                 "attn.attention_bias_idxs": integers("I32", 64, 64), "attn.attention_biases": matrix(8, 640), "table.lookup": integers("I32", 64, 64), "table.bias": matrix(64, 64)}
        done = self.ok(self.quantize(self.folder_of("m", plain)))
        self.assertNotIn("quantized already", done.err)
        self.assertEqual([name for name in plain if plain[name][0] == "F32" and name in self.reasons()], [])
        packed = {"l.indices": ("I64", (1, 64, 64), RANDOM.integers(0, 99, 4096).astype("<i8")), "l.centroids.weight": matrix(4, 2048), "l.res_centroids.weight": matrix(4, 512)}
        done = self.ok(self.quantize(self.folder_of("p", {**packed, "n.weight": matrix(64, 64)})))
        self.assertIn("quantized already", done.err)
        self.assertEqual([name for name in packed if name not in self.reasons()], [])

    def test_a_description_of_quantized_weights_that_are_not_found_is_said(self):
        self.assertIn("says that weights are quantized (any), but none is found",
                      self.ok(run("plan", self.folder_of("m", {"a.weight": matrix(64, 64)}, {"quantization_config": {"quant_method": "any"}}))).err)

    def test_nothing_but_packed_weights_is_refused_and_can_be_looked_at_and_kept(self):
        source = self.folder_of("packed", {"p.weight": integers("U32", 64, 8), "p.scales": matrix(64, 32), "p.biases": matrix(64, 32)})
        for ranks in (0, 2):
            self.refused(self.quantize(source, ranks=ranks), 69, "nothing is left to quantize", "start from the unquantized model")
        self.refused(run("plan", source), 69, "nothing is left to quantize")
        self.ok(run("inspect", source))
        self.assertFalse(os.path.exists(self.at("out.h5")))

    def test_fp8_without_a_known_scale_is_refused_unless_told_plain(self):
        source = self.folder_of("fp8", {"a.weight": fp8(64, 64), "b.weight": matrix(64, 64)})
        self.refused(self.quantize(source), 69, "a.weight", "without a known scale", "--fp8 plain", "start from the unquantized model")
        self.refused(run("plan", source), 69, "a.weight")
        self.ok(run("inspect", source))
        self.ok(self.quantize(source, "--fp8", "plain"))
        self.ok(run("verify", self.at("out.h5"), "--against", source))
        self.text(".", "keep.json", '{"rules": [{"match": "a.*", "keep": true}]}')
        self.ok(self.quantize(source, "--recipe", self.at("keep.json")))
        self.assertIn("a.weight", self.reasons())
        self.text(".", "plain.json", '{"fp8": "plain"}')
        self.ok(self.quantize(source, "--recipe", self.at("plain.json")))

    def test_scales_by_other_names_and_shapes_are_folded(self):
        for leaf, shape in (("a.scale", (2, 2)), ("a.scale_weight", ()), ("a.weight_scale", (1, 256)), ("a.weight_scale_inv", (2, 2))):
            source = self.folder_of("named", {"a.weight": fp8(256, 256), leaf: f32(*shape)})
            self.ok(self.quantize(source))
            self.ok(run("verify", self.at("out.h5"), "--against", source))
            self.assertNotIn("a.weight", self.reasons())

    def test_blocks_of_zeros_may_have_the_scale_zero(self):
        values, scales = RANDOM.integers(1, 0x78, (256, 256)).astype("u1"), np.full((2, 2), 0.5, "<f4")
        values[:128, :128], scales[0, 0] = 0, 0
        source = self.folder_of("zero", {"a.weight": ("F8_E4M3", (256, 256), values), "a.weight_scale_inv": ("F32", (2, 2), scales)})
        self.ok(self.quantize(source))
        values[5, 7] = 0x38
        self.folder_of("zero", {"a.weight": ("F8_E4M3", (256, 256), values), "a.weight_scale_inv": ("F32", (2, 2), scales)})
        self.refused(self.quantize(source), 65, "a.weight", str(5 * 256 + 7), "its scale")


class Folders(InputsTest):
    def test_links_are_followed(self):
        os.makedirs(self.at("blobs"))
        for i in (1, 2):
            write_safetensors(self.at("blobs", f"b{i}"), {f"l{i}.weight": matrix(64, 64)})
        os.makedirs(self.at("farm"))
        for i in (1, 2):
            os.symlink(self.at("blobs", f"b{i}"), self.at("farm", f"model-0000{i}-of-00002.safetensors"))
        os.symlink("farm", self.at("door"))
        for source in ("farm", "door"):
            self.ok(self.quantize(self.at(source)))
            self.ok(run("verify", self.at("out.h5"), "--against", self.at(source)))
        os.makedirs(self.at("hub", "snapshots"))   # a hub's cache: named at its top it says where the weights are
        os.symlink(self.at("farm"), self.at("hub", "snapshots", "abc"))
        self.refused(run("plan", self.at("hub")), 66, "weights lie in snapshots/abc/: name one of them")
        os.rename(self.at("out.h5"), self.at("hub", "out.h5"))
        self.refused(run("plan", self.at("hub")), 69, "out.h5 is an HDF5 file that lmq wrote")
        os.remove(self.at("blobs", "b2"))
        for named in (self.at("farm"), self.at("farm", "model-00002-of-00002.safetensors")):
            self.refused(run("plan", named), 66, "model-00002-of-00002.safetensors:", f"a link to {self.at('blobs', 'b2')}, which is not there")

    def test_an_old_index_beside_a_newer_file_is_a_question(self):
        source = self.folder_of("two", {"x.weight": matrix(64, 64)})
        write_safetensors(self.at("two", "model-00001-of-00001.safetensors"), {"x.weight": matrix(64, 64)})
        self.text("two", "model.safetensors.index.json", json.dumps({"weight_map": {"x.weight": "model-00001-of-00001.safetensors"}}))
        self.refused(self.quantize(source), 64, "model.safetensors", "name the one that is meant")
        self.ok(self.quantize(self.at("two", "model.safetensors")))

    def test_what_is_not_used_is_named(self):
        source = self.at("m")
        os.makedirs(source)
        for i in (1, 2):
            write_safetensors(self.at("m", f"model-0000{i}-of-00002.safetensors"), {f"l{i}.weight": matrix(64, 64)})
        self.text("m", "model.safetensors.index.json", json.dumps({"weight_map": {f"l{i}.weight": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}))
        write_safetensors(self.at("m", "mtp.safetensors"), {"mtp.weight": matrix(64, 64)})
        self.assertIn("mtp.safetensors", self.ok(self.quantize(source)).err)
        self.assertIn("is one of 2 shards", self.ok(self.quantize(self.at("m", "model-00001-of-00002.safetensors"))).err)

    def test_bytes_of_no_kind_are_named_as_such_and_damage_as_damage(self):
        for name, start in (("noise", b"\x9d\x11\xfe\x83" * 40), ("ff", b"\xff" * 1000), ("words", b"\x84\x01\x02\x03" * 40)):
            with open(self.at(name), "wb") as file:
                file.write(start)
            self.refused(run("inspect", self.at(name)), 69, "no kind of file that is known", "expected a checkpoint (safetensors,", "GGUF", "HDF5")
        with open(self.small_checkpoint(), "rb") as file:
            good = file.read()
        for damaged in (good[:7] + b"\x01" + good[8:], good[:8] + b"z" + good[9:], good[:100]):   # length, first letter, cut off
            with open(self.at("damaged"), "wb") as file:
                file.write(damaged)
            self.refused(run("inspect", self.at("damaged")), 65, "damaged")

    def test_shards_may_lie_in_folders_of_their_own_but_not_outside(self):
        for i in (1, 2):
            os.makedirs(self.at("m", f"part{i}"))
            write_safetensors(self.at("m", f"part{i}", f"model-0000{i}-of-00002.safetensors"), {f"x{i}": matrix(64, 64)})
        def index(first):
            self.text("m", "model.safetensors.index.json", json.dumps(
                {"weight_map": {"x1": first, "x2": "part2/model-00002-of-00002.safetensors"}}))
        index("part1/model-00001-of-00002.safetensors")
        for ranks in (0, 2):
            self.ok(self.quantize(self.at("m"), ranks=ranks))
        self.ok(run("verify", self.at("out.h5"), "--against", self.at("m")))
        self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", self.at("m")))
        self.assertEqual(sorted(os.listdir(self.at("x"))), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                                                            "model.safetensors.index.json"])
        write_safetensors(self.at("out.safetensors"), {"x1": matrix(64, 64)})
        for path in ("../out.safetensors", "part1/../../out.safetensors", self.at("out.safetensors"), "part1//model.safetensors", "./part1/a",
                     "part1/", "/"):
            index(path)
            self.refused(run("plan", self.at("m")), 65, "x1", "in the index's folder or below it")

    def test_wrong_kinds_of_file_are_named_with_what_to_do(self):
        small = self.small_checkpoint()
        self.ok(run("quantize", small, "-o", self.at("ours.h5"), "--progress", "none"))
        self.refused(self.quantize(self.at("ours.h5")), 69, "an HDF5 file that lmq wrote", "lmq export")
        for name, content, words in (("x.onnx", b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x80", "an ONNX model"),
                                     ("x.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 40, "a TensorFlow Lite model"),
                                     ("b.onnx", b"\x08\x08:\x80\x01\x0a\x05" + b"\0" * 40, "an ONNX model"),
                                     ("x.mlmodel", b"\x08\x04\x12\x1a\x0a\x05input\x12\x11" + b"\0abc" * 30, "a Core ML model"),
                                     ("saved_model.pb", b"\x08\x01\x12\x84\x01\x12\x05serve\x0a" + b"\0abc" * 30, "a TensorFlow SavedModel"),
                                     ("frozen.pb", b"\x0a\x2e\x0a\x05input\x12\x0bPlaceholder" + b"\0abc" * 30, "a frozen TensorFlow graph"),
                                     ("x.index", b"\0\0\x06\x08" + b"abc\0" * 90 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "the index of a TensorFlow checkpoint"),
                                     ("x.msgpack", b"\x82\xa6params\x82" + b"\x81" * 90, "MessagePack (a Flax checkpoint)"),
                                     ("x.engine", b"ftrt" + b"\0" * 90, "a TensorRT engine"), ("x.mat", b"MATLAB 5.0 MAT-file, x" + b" " * 90, "a MATLAB file"),
                                     ("old.bin", b"fmgg" + b"\1\0\0\0" * 50, "a GGMF file"), ("x.bz2", b"BZh91AY&SY" + b"\x99" * 90, "a bzip2 file"),
                                     ("x.xz", b"\xfd7zXZ\0" + b"\x99" * 90, "an xz file"), ("x.rar", b"Rar!\x1a\x07" + b"\x99" * 90, "a RAR archive"),
                                     ("xet", b"# xet version 0\nfilesize = 1\n", "a Xet pointer"), ("net.xml", b'<net name="x">' + b"<layer/>" * 30, "OpenVINO"),
                                     ("notes.txt", b"just some words\n", "a text file"), ("page", b"<html>401</html>", "an HTML page"),
                                     ("page2", b"\n \n<!doctype HTML>\n<html>" + b"x" * 400, "an HTML page"), ("gone", b"Entry not found", "a download that failed")):
            with open(self.at(name), "wb") as file:
                file.write(content)
            self.refused(self.quantize(self.at(name)), 69, name, words)

    def test_a_shard_named_alone_is_told_by_the_index_beside_it_or_by_its_name(self):
        for folder, names in (("under", ("model_1_of_2", "model_2_of_2")), ("zero", ("consolidated.00.of2", "consolidated.01.of2")), ("any", ("a", "b"))):
            os.makedirs(self.at(folder))
            shards = [name + ".safetensors" for name in names]
            for i, shard in enumerate(shards):
                write_safetensors(self.at(folder, shard), {f"l{i}.weight": matrix(64, 64)})
            said = self.ok(run("plan", self.at(folder, shards[1]))).err
            if folder == "any":
                self.assertEqual(said, "")
            else:
                self.assertIn("is one of 2 shards, and the others are not used: name the folder", said)
                self.assertEqual(json.loads(self.ok(run("plan", self.at(folder), "--json")).out)["units"], 2)
            self.text(folder, "broken.index.json", "{")
            self.text(folder, "whole.safetensors.index.json", json.dumps({"weight_map": {f"l{i}.weight": shard for i, shard in enumerate(shards)}}))
            for shard in shards:
                self.assertIn("is one of 2 shards, and the others are not used: name whole.safetensors.index.json for the whole model",
                              self.ok(run("plan", self.at(folder, shard))).err)
            self.ok(run("plan", self.at(folder, "whole.safetensors.index.json")))
            os.remove(self.at(folder, shards[1]))
            os.remove(self.at(folder, "whole.safetensors.index.json"))
            os.remove(self.at(folder, "broken.index.json"))
            if folder != "any":
                self.refused(run("plan", self.at(folder)), 66, shards[1] + ": the shard is missing")

    def test_advice_on_shards_can_be_followed(self):
        os.makedirs(self.at("mixed"))
        for i in (1, 2):
            write_safetensors(self.at("mixed", f"model-0000{i}-of-00002.safetensors"), {f"l{i}.weight": matrix(64, 64)})
        write_safetensors(self.at("mixed", "extra.safetensors"), {"q.weight": matrix(64, 64)})
        self.refused(run("inspect", self.at("mixed")), 64, "extra.safetensors", "a folder of its own")
        self.assertIn("a folder of their own", self.ok(run("inspect", self.at("mixed", "model-00001-of-00002.safetensors"))).err)
        os.remove(self.at("mixed", "extra.safetensors"))
        self.assertIn("name the folder", self.ok(run("inspect", self.at("mixed", "model-00001-of-00002.safetensors"))).err)
        self.text("mixed", "pytorch_model.bin", "x")
        self.text("mixed", "training_args.bin", "x")
        said = self.ok(run("inspect", self.at("mixed"))).err
        self.assertIn("not used, because safetensors lie there: pytorch_model.bin", said)
        self.assertNotIn("training_args", said)
        os.makedirs(self.at("pipeline"))
        os.rename(self.at("mixed"), self.at("pipeline", "transformer"))
        self.refused(run("inspect", self.at("pipeline")), 66, "transformer/: name one of them")

    def test_numbered_names_of_two_sets_are_not_one_model(self):
        for folder, names in (("twice", ("model-1-of-2", "model-2-of-2", "model-00001-of-00002")), ("width", ("model-1-of-2", "model-02-of-2"))):
            os.makedirs(self.at(folder))
            for i, name in enumerate(names):
                write_safetensors(self.at(folder, name + ".safetensors"), {f"l{i}.weight": matrix(64, 64)})
            self.refused(run("plan", self.at(folder)), 64, "of different sets")
        os.makedirs(self.at("plain"))
        for i in range(1, 11):   # without zeros before them numbers have one digit and two
            write_safetensors(self.at("plain", f"model-{i}-of-10.safetensors"), {f"l{i}.weight": matrix(64, 64)})
        self.assertEqual(json.loads(self.ok(run("plan", self.at("plain"), "--json")).out)["units"], 10)

    def test_shards_that_nobody_puts_together_are_no_whole_model(self):
        import h5py
        os.makedirs(self.at("keras"))
        shards = [f"model_0000{i}.weights.h5" for i in (0, 1)]
        for i, shard in enumerate(shards):
            with h5py.File(self.at("keras", shard), "w") as file:
                file[f"layers/d{i}/vars/0"] = np.ones((64, 64), "<f4") * np.arange(64, dtype="<f4")
        self.text("keras", "model.weights.json", json.dumps({"weight_map": {f"/layers/d{i}/vars": shard for i, shard in enumerate(shards)}}))
        for named in ("keras", "keras/model.weights.json"):
            self.refused(run("plan", self.at(named)), 69, "2 shards", "model.weights.json", "save the model as one file")
        self.assertIn("is one of 2 shards, and the others are not used: model.weights.json names them", self.ok(run("plan", self.at("keras", shards[1]))).err)
        os.rename(self.at("keras", shards[0]), self.at("keras", "x_1_of_2.h5"))
        self.assertIn("is one of 2 shards", self.ok(run("plan", self.at("keras", "x_1_of_2.h5"))).err)
        self.text("keras", "model.weights.json", json.dumps({"weight_map": {"/layers/d/vars": ["x_1_of_2.h5", shards[1]]}}))
        for named in ("keras", "keras/model.weights.json"):
            self.refused(run("plan", self.at(named)), 69, "2 shards", "model.weights.json", "save the model as one file")
        os.makedirs(self.at("slices"))
        for i in (0, 1):
            slice_ = self.at("slices", f"consolidated.0{i}.safetensors")
            write_safetensors(slice_, {"l.weight": matrix(64, 64)})
            said = self.ok(run("plan", slice_)).err
            self.assertEqual("is one of 2 shards, and the others are not used: each may hold a slice" in said, i == 1, said)

    def test_slices_of_every_tensor_are_no_checkpoints_to_choose_from(self):
        for names in (("consolidated.00.pth", "consolidated.01.pth"), ("consolidated.00.safetensors", "consolidated.01.safetensors"),
                      ("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt")):
            folder = self.at("of_" + names[0])
            os.makedirs(folder)
            for name in names:
                write_safetensors(os.path.join(folder, name), {"l.weight": matrix(64, 64)})
            self.refused(run("plan", folder), 69, "2 files like " + names[0], "a slice of every tensor", "convert the model to safetensors")

    def test_a_tensor_in_several_shards_is_told_from_one_in_a_list_of_one(self):
        folder = self.folder_of("lists", {"a.weight": matrix(64, 64)})
        for shards, words in (((["model.safetensors"]), None), (["model.safetensors", "b.safetensors"], "found 2 shards, expected one"),
                              ([], "tensor 'a.weight': found an empty list"), ([["x"]], "found an array, expected a file name")):
            self.text("lists", "model.safetensors.index.json", json.dumps({"weight_map": {"a.weight": shards}}))
            shutil.copy(self.at("lists", "model.safetensors"), self.at("lists", "b.safetensors"))
            if words is None:
                os.remove(self.at("lists", "b.safetensors"))
                self.ok(run("plan", folder))
            else:
                self.refused(run("plan", folder), 65, "weight_map", words)

    def test_a_folder_of_another_kind_is_named_as_its_file_is(self):
        for name, content, words in (("model.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 90, "a TensorFlow Lite model"), ("saved_model.pb", b"\x08\x01\x12\x20" + b"\x0a" * 90, "a TensorFlow SavedModel"),
                                     ("model.onnx", b"\x08\x07\x12\x07pytorch" + b"\x1a" * 90, "an ONNX model"), ("flax_model.msgpack", b"\x82\xa5model\x81\xa1a\x01" + b"\xc1" * 9, "a Flax checkpoint")):
            os.makedirs(self.at("of_" + name))
            with open(self.at("of_" + name, name), "wb") as file:
                file.write(content)
            self.refused(run("plan", self.at("of_" + name, name)), 69, words)
            self.refused(run("plan", self.at("of_" + name)), 69, name + " is", words)

    def test_verify_and_export_say_what_a_wrong_file_is(self):
        small = self.small_checkpoint()
        self.text(".", "notes.txt", "just some words\n")
        for words in (("verify",), ("export", "--to", "safetensors", "-o", self.at("x"))):
            for path, found in ((small, "a safetensors file"), (self.at("notes.txt"), "a text file")):
                self.refused(run(words[0], path, *words[1:]), 69, found, "lmq quantize")
        with open(self.at("binary"), "wb") as file:
            file.write(b"\x89HDF\r\n\x1a\n" + b"\0" * 90)
        self.refused(run("plan", small, "--recipe", self.at("binary")), 64, "an HDF5 file", "a recipe in JSON")

    def test_a_scale_that_is_no_number_keeps_the_pair_when_asked(self):
        source = self.folder_of("nan", {"a.weight": fp8(128, 128), "a.weight_scale_inv": ("F32", (1, 1), np.full((1, 1), np.nan, "<f4")),
                                        "b.weight": matrix(64, 64)})
        self.refused(self.quantize(source), 65, "--tensor 'a.weight=keep'")
        for words in (("--nonfinite", "keep"), ("--tensor", "a.weight=keep")):
            self.ok(self.quantize(source, *words))
            self.ok(run("verify", self.at("out.h5"), "--against", source))
            self.assertIn("a.weight", self.reasons())

    def test_a_size_that_nobody_asked_for_refuses_nothing(self):
        source = self.folder_of("m", {"q.weight": matrix(64, 64), "embed.weight": matrix(500, 64)})
        write_safetensors(self.at("stats.safetensors"), {"q.weight.columns": f32(64)})
        for ranks in (1, 2):
            done = self.ok(run("quantize", source, "-o", self.at("out.h5"), "--force", "--resume", "never", "--tensor", "embed*=keep",
                               "--importance", self.at("stats.safetensors"), ranks=ranks))
            self.assertIn("4 bits a weight cannot be reached", done.err)
        self.refused(run("quantize", source, "-o", self.at("two.h5"), "--tensor", "embed*=keep", "--bits", 4,
                         "--importance", self.at("stats.safetensors")), 64, "cannot be reached with this recipe: at least")

    def test_deep_and_huge_texts_have_one_clear_line(self):
        small, deep = self.small_checkpoint(), "[" * 150000 + "]" * 150000
        self.text("d", "model.safetensors.index.json", '{"a":' + deep + ',"weight_map":{}}')
        self.refused(self.quantize(self.at("d")), 65, "nests deeper than 64 levels")
        self.text(".", "recipe.json", '{"rules":' + deep + "}")
        self.refused(self.quantize(small, "--recipe", self.at("recipe.json")), 64, "nested deeper")
        self.text(".", "recipe.json", json.dumps({"rules": [{"match": str(i), "keep": True} for i in range(65537)]}))
        self.refused(self.quantize(small, "--recipe", self.at("recipe.json")), 64, "at most 65536 rules")


class Importance(InputsTest):
    def imatrix(self, entries):
        out = struct.pack("<i", len(entries))
        for name, values in entries.items():
            out += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, len(values)) + np.asarray(values, "<f4").tobytes()
        with open(self.at("imatrix"), "wb") as file:
            file.write(out)
        return self.at("imatrix")

    def test_statistics_of_the_text_go_to_the_text_decoder_alone(self):
        text, tower = "model.language_model.layers.0.mlp.gate_proj.weight", "visual.blocks.0.mlp.gate_proj.weight"
        path = self.imatrix({"blk.0.ffn_gate.weight": np.arange(1, 65)})
        for shape in ((160, 48), (64, 64)):
            source = self.folder_of("vl", {text: matrix(64, 64), tower: matrix(*shape)})
            done = self.ok(self.quantize(source, "--importance", path))
            self.assertIn(f"importance: nothing for {tower}", done.err)
            with open(self.at("out.json")) as file:
                self.assertEqual(list(json.load(file)["importance"]["tensors"]), [text])
            self.ok(run("verify", self.at("out.h5"), "--against", source, "--importance", path))

    def test_what_an_imatrix_speaks_of_is_named_rightly(self):
        tower, gate = "visual.blocks.0.mlp.gate_proj.weight", "layers.0.mlp.gate_proj.weight"
        path = self.imatrix({"blk.0.ffn_gate.weight": np.arange(1, 65)})
        done = self.quantize(self.folder_of("tower", {tower: matrix(64, 64)}), "--importance", path)
        self.refused(done, 65, "nothing in it belongs to the checkpoint", "speak of a text decoder, and the checkpoint has none", tower)
        self.assertNotIn("note:", done.err)   # nothing is chosen for a run that is refused
        done = self.quantize(self.folder_of("stranger", {"x.weight": matrix(64, 64)}), "--importance", path)
        self.refused(done, 65, "found 1 tensor such as 'blk.0.ffn_gate.weight'")
        done = self.quantize(self.folder_of("two", {gate: matrix(64, 64), "model." + gate: matrix(64, 64)}), "--importance", path)
        self.refused(done, 69, "blocks below no prefix, 'model'")
        # What belongs to kept tensors alone refuses nothing.
        kept = self.folder_of("kept", {"model." + gate: matrix(64, 64), "model.layers.0.self_attn.q_proj.weight": matrix(64, 64)})
        done = self.ok(self.quantize(kept, "--importance", path, "--tensor", "*gate*=keep"))
        self.assertIn("importance: nothing for model.layers.0.self_attn.q_proj.weight", done.err)

    def test_what_a_recipe_keeps_is_not_compared_with_the_importance(self):
        a, b = "model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.gate_proj.weight"
        source = self.folder_of("m", {a: matrix(64, 64), b: matrix(64, 48)})
        path = self.imatrix({"blk.0.ffn_gate.weight": np.arange(1, 65), "blk.1.ffn_gate.weight": np.arange(1, 65)})
        self.refused(self.quantize(source, "--importance", path), 65, b, "a recipe that keeps the tensor")
        self.text(".", "keep.json", json.dumps({"rules": [{"match": b, "keep": True}]}))
        for ranks in (0, 2):
            self.ok(self.quantize(source, "--importance", path, "--recipe", self.at("keep.json"), ranks=ranks))
        self.ok(run("verify", self.at("out.h5"), "--against", source, "--importance", path))

    def test_square_stacks_get_their_inputs_right(self):
        name = "model.layers.0.mlp.experts.down_proj"
        weights = np.repeat(RANDOM.standard_normal((4, 64, 64)), 1, 0) * 0.02
        heavy = np.where(np.arange(64) < 8, 1e6, 1).astype("<f4")
        path = self.imatrix({"blk.0.ffn_down_exps.weight": np.tile(heavy, 4)})
        source = self.folder_of("oss", {name: ("BF16", (4, 64, 64), bf16(weights)),
                                        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 64, 128), bf16(RANDOM.standard_normal((4, 64, 128))))})
        self.ok(self.quantize(source, "--importance", path))
        with open(self.at("out.json")) as file:
            self.assertEqual(json.load(file)["importance"]["tensors"][name]["kind"], "rows")
        alone = self.folder_of("alone", {name: ("BF16", (4, 64, 64), bf16(weights))})
        self.refused(self.quantize(alone, "--importance", path), 69, name, "nothing says which axis")
        self.text("alone", "config.json", json.dumps({"model_type": "other_moe"}))
        self.refused(self.quantize(alone, "--importance", path), 69, name, "of model_type 'other_moe' that is not known", "keep it by a recipe")
        self.text("alone", "config.json", json.dumps({"model_type": "gpt_oss"}))
        self.ok(self.quantize(alone, "--importance", path))


class Exports(InputsTest):
    def test_the_folder_stays_the_model(self):
        source = self.folder_of("m", {"model.embed.weight": matrix(64, 64)}, {"auto_map": {"AutoModel": "modeling_x.X"}})
        texts = ["configuration_x.py", "modeling_x.py", "tokenizer.json", "tokenizer.model", "merges.txt", "vocab.bpe", "chat_template.jinja",
                 "LICENSE", "README.md", "spiece.spm", "1_Pooling/config.json", "2_Dense/model.safetensors"]
        for name in texts:
            self.text("m", name, name)
        for name in ("training_args.bin", "pytorch_model.bin", "onnx/model.onnx", ".gitattributes"):
            self.text("m", name, name)
        os.symlink("LICENSE", self.at("m", "LICENSE.link"))
        self.ok(self.quantize(source))
        for _ in range(2):  # and again over itself
            done = self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", source))
            for name in texts:
                with open(self.at("x", name)) as file:
                    self.assertEqual(file.read(), name)
            self.assertIn("left out: onnx/model.onnx, pytorch_model.bin, training_args.bin", done.out)
        found = {os.path.relpath(os.path.join(folder, name), self.at("x")) for folder, _, names in os.walk(self.at("x")) for name in names}
        self.assertEqual(found, {*texts, "config.json", "model.safetensors", "LICENSE.link"})

    def test_index_name_and_metadata_of_each_shard_stay(self):
        os.makedirs(self.at("t"))
        stem = "diffusion_pytorch_model"
        for i, metadata in ((1, {"format": "pt"}), (2, {"format": "pt", "extra": "1"})):
            write_safetensors(self.at("t", f"{stem}-0000{i}-of-00002.safetensors"), {f"l{i}.weight": matrix(64, 64)}, metadata)
        weight_map = {f"l{i}.weight": f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2)}
        for index in (f"{stem}.safetensors.index.json", None):
            if index:
                self.text("t", index, json.dumps({"weight_map": weight_map}))
            else:
                os.remove(self.at("t", f"{stem}.safetensors.index.json"))
            self.ok(self.quantize(self.at("t")))
            self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("tx"), "--source", self.at("t")))
            self.assertEqual(sorted(os.listdir(self.at("tx"))), sorted([*weight_map.values(), f"{stem}.safetensors.index.json"]))
            metadata = read_safetensors(self.at("tx", f"{stem}-00002-of-00002.safetensors"))[1]
            self.assertEqual((metadata["format"], metadata["extra"]), ("pt", "1"))
            self.assertNotIn("extra", read_safetensors(self.at("tx", f"{stem}-00001-of-00002.safetensors"))[1])

    def test_one_diffusion_file_needs_no_index(self):
        os.makedirs(self.at("t"))
        write_safetensors(self.at("t", "diffusion_pytorch_model.safetensors"), {"a.weight": matrix(64, 64)})
        self.ok(self.quantize(self.at("t")))
        self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("tx")))
        self.assertEqual(os.listdir(self.at("tx")), ["diffusion_pytorch_model.safetensors"])

    def test_no_description_of_weights_that_are_gone(self):
        described = {"model_type": "x", "text_config": {"quantization_config": {"quant_method": "compressed-tensors"}, "n": 1},
                     "quantization_config": {"quant_method": "modelopt"}, "compression_config": {"format": "x"}}
        source = self.folder_of("m", {"a.weight": fp8(256, 128), "a.weight_scale": f32(256, 1)}, described)
        self.text("m", "hf_quant_config.json", json.dumps({"quantization": {"quant_algo": "FP8"}}))
        self.ok(self.quantize(source))
        done = self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", source))
        self.assertIn("without their quantization_config, which no longer holds: config.json", done.out)
        self.assertIn("left out: hf_quant_config.json", done.out)
        self.assertEqual(sorted(os.listdir(self.at("x"))), ["config.json", "model.safetensors"])
        with open(self.at("x", "config.json")) as file:
            self.assertEqual(json.load(file), {"model_type": "x", "text_config": {"n": 1}})

    def test_descriptions_go_from_lists_other_files_and_beside_numbers_of_python(self):
        gone, config = {"quantization_config": {"quant_method": "fp8"}}, '{"limit": [0.0, Infinity, -Infinity, NaN], "text": "NaN, \\"Infinity", "parts": [%s]}'
        source = self.folder_of("m", {"a.weight": fp8(256, 128), "a.weight_scale": f32(256, 1)})
        self.text("m", "config.json", config % json.dumps({**gone, "n": 1}))
        for name in ("transformer/config.json", "llm_config.json"):
            self.text("m", name, json.dumps({**gone, "n": 2}))
        for name in ("quantize_config.json", "transformer/hf_quant_config.json"):
            self.text("m", name, json.dumps({"bits": 8}))
        self.text("m", "bad.json", '{"quantization_config": ')
        self.ok(self.quantize(source))
        done = self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", source))
        self.assertIn("no longer holds: config.json, llm_config.json, transformer/config.json", done.told)
        self.assertIn("left out: quantize_config.json, transformer/hf_quant_config.json", done.out)
        self.assertIn("no JSON although they speak of quantized weights, which are no more: bad.json", done.told)
        with open(self.at("x", "config.json")) as file:
            self.assertEqual(repr(json.load(file)), repr(json.loads(config % json.dumps({"n": 1}))))
        for name in ("transformer/config.json", "llm_config.json"):
            with open(self.at("x", name)) as file:
                self.assertEqual(json.load(file), {"n": 2})


class Outlived(InputsTest):
    """What told of FP8 weights goes from an export once their scales are folded in, and stays while they are kept."""
    TENSORS = {"scaled_fp8": ("F8_E4M3", (2,), bytes(2)), "a.weight": fp8(128, 128), "a.scale_weight": f32(), "a.scale_input": f32(),
               "a.bias": f32(128), "b.weight": matrix(64, 64), "c.weight": fp8(128, 128), "c.weight_scale": f32(1), "c.input_scale": f32(1),
               "c.comfy_quant": ("U8", (4,), b"{}  ")}
    METADATA = {"format": "pt", "quantization_config": "{}", "_quantization_metadata": "{}", "quantization": "fp8", "QuantMethod": "x",
                "modelspec.quant": "y", "modelspec.title": "quantum"}
    GONE = ["a.scale_input", "c.comfy_quant", "c.input_scale", "scaled_fp8"]

    def setUp(self):
        super().setUp()
        self.source = self.at("fp8.safetensors")
        write_safetensors(self.source, self.TENSORS, self.METADATA)

    def export(self, source, form, path):
        done = self.ok(run("export", source, "--to", form, "-o", self.at(path)))
        return done.told, json.loads(self.ok(run("export", source, "--to", form, "-o", self.at(path), "--json", "-")).out)

    def test_where_scales_are_folded_in(self):
        self.ok(self.quantize(self.source))
        told, report = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, metadata = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), ["a.bias", "a.weight", "b.weight", "c.weight"])
        self.assertEqual(sorted(metadata), ["QuantMethod", "format", "lmq_export", "modelspec.title"])
        self.assertIn(", ".join(self.GONE), told)
        self.assertIn("_quantization_metadata, modelspec.quant, quantization, quantization_config", told)
        self.assertEqual((report["left_out_tensors"], report["tensors"]), (self.GONE, 4))
        self.export(self.at("out.h5"), "safetensors", "folder")
        self.assertEqual(sorted(read_safetensors(self.at("folder", "fp8.safetensors"))[0]), sorted(tensors))
        for form, path in (("gguf", "x.gguf"), ("hdf5", "x.h5")):
            for source in (self.at("out.h5"), self.source):
                told, report = self.export(source, form, path)
                self.assertEqual((report["left_out_tensors"], report["tensors"]), (self.GONE, 4))
                self.assertIn("scaled_fp8", told)

    def test_the_marker_stays_while_one_of_them_is_kept(self):
        self.ok(self.quantize(self.source, "--tensor", "c.*=keep"))
        self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, _ = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), ["a.bias", "a.weight", "b.weight", "c.comfy_quant", "c.input_scale", "c.weight", "c.weight_scale", "scaled_fp8"])

    def test_metadata_tells_of_those_that_are_kept_and_no_more_of_others(self):
        told = json.dumps({"layers": {"a": {"format": "float8_e4m3fn"}, "c": {"format": "float8_e4m3fn"}}, "version": 1})
        write_safetensors(self.source, self.TENSORS, {"_quantization_metadata": told, "quantization": "fp8"})
        self.ok(self.quantize(self.source, "--tensor", "c.weight=keep"))
        said, _ = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        metadata = read_safetensors(self.at("x.safetensors"))[1]
        self.assertEqual(metadata["quantization"], "fp8")
        self.assertEqual(json.loads(metadata["_quantization_metadata"]), {"layers": {"c": {"format": "float8_e4m3fn"}}, "version": 1})
        self.assertNotIn("no longer hold", said)

    def test_where_they_are_kept_or_there_were_none(self):
        self.ok(self.quantize(self.source, "--tensor", "[ac].weight=keep"))
        told, report = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, metadata = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), sorted(self.TENSORS))
        self.assertEqual(sorted(metadata), sorted([*self.METADATA, "lmq_export"]))
        self.assertEqual(report["left_out_tensors"], [])
        self.assertNotIn("no longer hold", told)
        write_safetensors(self.source, {"scaled_fp8": ("F32", (2,), bytes(8)), "a.weight": matrix(64, 64), "a.input_scale": f32(1)})
        self.ok(self.quantize(self.source))
        self.assertEqual(self.export(self.at("out.h5"), "safetensors", "x.safetensors")[1]["tensors"], 3)

if __name__ == "__main__":
    unittest.main()
