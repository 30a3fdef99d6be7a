"""Exports stay the model: files, indexes and metadata come along, and nothing describes weights that are gone."""
import json
import os
import shutil
import unittest

import numpy as np

from inputs_harness import InputsTest, f32, fp8, integers, matrix
from lmq_harness import bf16, read_safetensors, run, write_safetensors


class Exports(InputsTest):
    def test_the_folder_stays_the_model(self):
        source = self.folder_of("m", {"model.embed.weight": matrix(64, 64)}, {"auto_map": {"AutoModel": "modeling_x.X"}})
        texts = ["configuration_x.py", "modeling_x.py", "tokenizer.json", "tokenizer.model", "merges.txt", "vocab.bpe", "chat_template.jinja",
                 "LICENSE", "README.md", "spiece.spm", "1_Pooling/config.json", "2_Dense/model.safetensors"]
        for name in texts:
            self.text("m", name, name)
        for name in ("training_args.bin", "pytorch_model.bin", "onnx/model.onnx", ".gitattributes", ".git/HEAD", "checkpoint-500/model.safetensors",
                     "runs/events.out.tfevents.1", "code/__pycache__/x.pyc", "log/events.out.tfevents.2"):
            self.text("m", name, name)
        self.text("m", "code/x.py", "code/x.py")
        texts.append("code/x.py")
        os.symlink("LICENSE", self.at("m", "LICENSE.link"))
        os.symlink(".", self.at("m", "self"))
        os.symlink("../..", self.at("m", "code", "up"))
        self.ok(self.quantize(source))
        for _ in range(2):  # and again over itself
            done = self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", source))
            for name in texts:
                with open(self.at("x", name)) as file:
                    self.assertEqual(file.read(), name)
            self.assertIn("left out: .git, .gitattributes, checkpoint-500, code/__pycache__, code/up, log/events.out.tfevents.2, onnx/model.onnx, "
                          "pytorch_model.bin, runs, self, training_args.bin", " ".join(done.out.split()))
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

    def test_shards_below_stay_there_and_the_index_keeps_what_else_it_says(self):
        for folder, name in (("p1", "a.weight"), ("p2", "b.weight")):
            os.makedirs(self.at("t", folder))
            write_safetensors(self.at("t", folder, "model.safetensors"), {name: matrix(64, 64)})
        weight_map = {"a.weight": "p1/model.safetensors", "b.weight": "./p2//model.safetensors"}
        self.text("t", "model.safetensors.index.json", json.dumps({"metadata": {"total_size": 16384, "total_parameters": 8192, "note": "x"}, "weight_map": weight_map}))
        self.ok(self.quantize(self.at("t")))
        for _ in range(2):
            self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("tx"), "--source", self.at("t")))
            with open(self.at("tx", "model.safetensors.index.json")) as file:
                self.assertEqual(json.load(file), {"metadata": {"total_size": 16384, "total_parameters": 8192, "note": "x"},
                                                   "weight_map": {"a.weight": "p1/model.safetensors", "b.weight": "p2/model.safetensors"}})
            self.assertEqual(list(read_safetensors(self.at("tx", "p2", "model.safetensors"))[0]), ["b.weight"])
        self.ok(run("inspect", self.at("tx")))
        write_safetensors(self.at("tx", "p1", "model.safetensors"), {"mine": matrix(64, 64)})
        self.refused(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("tx")), 73, "p1/model.safetensors", "no earlier export")

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

    def test_fp8_that_is_kept_beside_folded_weights_becomes_what_it_stands_for(self):
        """Loaders scale FP8 by the configuration, which goes once any weight is folded: kept ones would be read without their scales."""
        e4m3 = lambda codes: np.where(codes >> 3, (1 + (codes & 7) / 8) * 2.0 ** ((codes >> 3).astype(int) - 7), (codes & 7) / 8 * 2.0 ** -6)
        for block, shape in (((128, 128), (2, 3)), ((64, 64), (3, 5))):
            codes, scales = fp8(shape[0] * 64 + 5, 300), f32(-(-(shape[0] * 64 + 5) // block[0]), -(-300 // block[1]))
            codes = ("F8_E4M3", codes[1], np.minimum(codes[2], 0x70))
            tensors = {"a.weight": fp8(256, 128), "a.weight_scale_inv": f32(-(-256 // block[0]), -(-128 // block[1])), "k.weight": codes, "k.weight_scale_inv": scales,
                       "k.input_scale": f32(1), "n.weight": matrix(64, 64)}
            source = self.folder_of("m", tensors, {"torch_dtype": "float8_e4m3fn", "quantization_config": {"quant_method": "fp8", "weight_block_size": list(block)}})
            meant = (e4m3(codes[2]) * np.kron(scales[2], np.ones(block))[:codes[1][0], :300]).astype("<f4")
            self.ok(self.quantize(source, "--tensor", "k.*=keep"))
            for form, path in (("safetensors", "x"), ("hdf5", "x.hdf5"), ("gguf:f32", "x.gguf")):
                done = self.ok(run("export", self.at("out.h5"), "--to", form, "-o", self.at(path), *(["--source", source] if form == "safetensors" else [])))
                self.assertNotIn("warning", done.err)
                self.assertNotIn("k.weight_scale_inv", self.ok(run("inspect", self.at(path))).out)
            found = read_safetensors(self.at("x", "model.safetensors"))[0]
            self.assertEqual(sorted(found), ["a.weight", "k.weight", "n.weight"])
            self.assertEqual((found["k.weight"][0], found["k.weight"][2]), ("BF16", bf16(meant).tobytes()))
            with open(self.at("x", "config.json")) as file:
                self.assertEqual(json.load(file), {"torch_dtype": "bfloat16"})
            # Where nothing is folded, everything is as it was.
            self.ok(self.quantize(source, "--tensor", "[ak].*=keep"))
            self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("y"), "--source", source))
            self.assertEqual(sorted(read_safetensors(self.at("y", "model.safetensors"))[0]), sorted(tensors))
            with open(self.at("y", "config.json")) as file:
                self.assertEqual(json.load(file)["torch_dtype"], "float8_e4m3fn")
            for path in ("x", "y", "m"):
                shutil.rmtree(self.at(path))

    def test_packed_weights_that_nothing_describes_any_more_are_said(self):
        source = self.folder_of("m", {"a.weight": fp8(256, 128), "a.weight_scale": f32(256, 1), "p.qweight": integers("I32", 64, 256), "p.scales": matrix(16, 256)},
                                {"quantization_config": {"quant_method": "mixed"}})
        self.ok(self.quantize(source))
        done = self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("x"), "--source", source))
        self.assertIn("1 weight stays quantized by another tool, such as 'p.qweight', and nothing describes that any more", done.err)

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


if __name__ == "__main__":
    unittest.main()
