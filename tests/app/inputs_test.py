"""Checkpoints as they lie on people's disks: linked, ambiguous, of other kinds; and exports that stay the model."""
import json
import os
import shutil
import struct
import unittest

import numpy as np

from inputs_harness import RANDOM, InputsTest, f32, fp8, integers, matrix
from lmq_harness import bf16, read_safetensors, run, write_safetensors


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
        self.assertEqual(sorted(os.listdir(self.at("x"))), ["model.safetensors.index.json", "part1", "part2"])
        write_safetensors(self.at("out.safetensors"), {"x1": matrix(64, 64)})
        for path in ("../out.safetensors", "part1/../../out.safetensors", self.at("out.safetensors"), "part1/", "/"):
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

    def test_a_path_may_be_written_with_parts_that_lead_nowhere(self):
        os.makedirs(self.at("m", "sub"))
        write_safetensors(self.at("m", "sub", "x.safetensors"), {"a.weight": matrix(64, 64)})
        for said in ("./sub/x.safetensors", "sub//x.safetensors", "sub/./x.safetensors", ".//sub/x.safetensors"):
            self.text("m", "model.safetensors.index.json", json.dumps({"weight_map": {"a.weight": said}}))
            self.ok(self.quantize(self.at("m")))
        for said in ("sub/../sub/x.safetensors", "/sub/x.safetensors", "//sub/x.safetensors", "..", ".", "", "./", "sub/x.safetensors/"):
            self.text("m", "model.safetensors.index.json", json.dumps({"weight_map": {"a.weight": said}}))
            self.refused(run("plan", self.at("m")), 65, "expected a file in the index's folder or below it", f"'{said}'")

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

    def test_a_part_alone_takes_no_statistics_of_a_text(self):
        """Where a part's own names say nothing, its model type does, or how it calls its layers."""
        path = self.imatrix({"blk.0.attn_q.weight": np.arange(1, 65), "blk.0.ffn_gate.weight": np.arange(1, 65)})
        q = "layers.0.self_attn.q_proj.weight"
        for name, kind, said in (("encoder." + q, "siglip_vision_model", "siglip_vision_model"), (q, "siglip_vision_model", "siglip_vision_model"),
                                 ("blocks.0.mlp.gate_proj.weight", "qwen2_5_vl_vision", "qwen2_5_vl_vision"), ("encoder." + q, None, ""),
                                 ("model.decoder." + q, "whisper", "an encoder and a decoder"), ("model.decoder." + q, "bart", "an encoder and a decoder")):
            source = self.folder_of("part", {name: matrix(64, 64)}, kind and {"model_type": kind})
            self.refused(self.quantize(source, "--importance", path), 65, "speak of a text decoder, and the checkpoint has none", said, name)
            shutil.rmtree(source)
        for name, config in (("model.decoder." + q, {"model_type": "bart", "is_encoder_decoder": False}), ("model.decoder." + q, {"model_type": "opt"}), (q, {"model_type": "llama"})):
            self.ok(self.quantize(self.folder_of("text", {name: matrix(64, 64)}, config), "--importance", path))

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


if __name__ == "__main__":
    unittest.main()
