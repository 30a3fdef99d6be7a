"""What goes out in other formats is what the file holds: the same values where the format has them, the best ones where it is told to."""
import json
import os
import shutil
import subprocess
import sys
import unittest

import h5py
import numpy as np

from lmq_harness import SHARDED, STORIES, ExportsTest, LmqTest, bf16, read_safetensors, run, sha256, source_tensors, widen, write_safetensors

RANDOM = np.random.default_rng(23)


class Safetensors(LmqTest):
    def test_every_tensor_comes_back(self):
        path, out = self.at("out.h5"), self.at("dequantized")
        self.ok(run("quantize", SHARDED, "-o", path, "--levels", "16", "--progress", "none"))
        inspected = {t["name"]: t for t in json.loads(self.ok(run("inspect", path, "--json")).out)["tensors"]}
        self.ok(run("export", path, "--to", "safetensors", "-o", out, "--source", SHARDED))
        self.assertEqual(sorted(os.listdir(out)), sorted(os.listdir(SHARDED)))
        total = 0
        with open(os.path.join(out, "model.safetensors.index.json")) as file:
            index = json.load(file)
        for shard in sorted(n for n in os.listdir(SHARDED) if n.endswith(".safetensors")):
            before, _ = read_safetensors(os.path.join(SHARDED, shard))
            after, _ = read_safetensors(os.path.join(out, shard))
            self.assertEqual(set(before), set(after))
            for name, (dtype, shape, blob) in before.items():
                self.assertEqual((dtype, shape), after[name][:2])
                self.assertEqual(index["weight_map"][name], shard)
                total += len(blob)
                if inspected[name]["method"] == "raw":
                    self.assertEqual(blob, after[name][2])
                    continue
                values = widen(dtype, blob)
                error = np.sqrt(np.sum((values - widen(dtype, after[name][2])) ** 2) / np.sum(values ** 2))
                self.assertAlmostEqual(error, inspected[name]["relative_error"], delta=0.01)
                self.assertLessEqual(len(np.unique(np.frombuffer(after[name][2], "<u2"))), 16)
        self.assertEqual(index["metadata"]["total_size"], total)
        check = subprocess.run([sys.executable, os.path.join(os.path.dirname(__file__), "check_export.py"), out], capture_output=True)
        self.assertIn(check.returncode, (0, 77), check)

    def test_one_file_equals_the_shards_and_plain_hdf5(self):
        path, out, single = self.at("out.h5"), self.at("folder"), self.at("single.safetensors")
        self.ok(run("quantize", SHARDED, "-o", path, "--levels", "4", "--granularity", "row", "--progress", "none"))
        self.ok(run("export", path, "--to", "safetensors", "-o", out))
        self.ok(run("export", path, "--to", "safetensors", "-o", single))
        one, _ = read_safetensors(single)
        self.assertEqual(source_tensors(out), one)
        plugin = os.environ.get("LMQ_PLUGIN")
        if not plugin or not os.path.isdir(plugin) or not any(n.endswith(".so") for n in os.listdir(plugin)):
            self.skipTest("no HDF5 filter to read with")
        os.environ["HDF5_PLUGIN_PATH"] = plugin
        import h5py
        with h5py.File(path) as file:
            for name, (dtype, shape, blob) in one.items():
                if file[name].chunks is None:  # kept
                    continue
                self.assertEqual(bf16(file[name][()]).tobytes(), blob, name)

    def test_an_export_replaces_an_export_and_nothing_else(self):
        source = self.small_checkpoint()
        path, out = self.at("out.h5"), self.at("model")
        self.ok(run("quantize", source, "-o", path, "--progress", "none"))
        for _ in range(2):
            self.ok(run("export", path, "--to", "safetensors", "-o", out + "/"))
            self.ok(run("export", path, "--to", "safetensors", "-o", self.at("one.safetensors")))
        before = sha256(source)
        self.refused(run("export", path, "--to", "safetensors", "-o", source), 73, "small.safetensors")
        self.refused(run("export", path, "--to", "safetensors", "-o", self.folder), 73, "safetensors")
        shutil.copy(source, os.path.join(out, "other.safetensors"))
        self.refused(run("export", path, "--to", "safetensors", "-o", out), 73, "other.safetensors")
        self.refused(run("export", path, "--to", "safetensors", "-o", path), 73, "out.h5")
        self.refused(run("export", path, "--to", "safetensors", "-o", self.at("none", "x.safetensors")), 73, "none")
        self.assertEqual(before, sha256(source))
        self.assertFalse([n for n in os.listdir(self.folder) if "partial" in n])

    def test_fp8_config_loses_its_quantization(self):
        source, model = self.at("model"), self.at("out")
        os.mkdir(source)
        shutil.copy(self.small_checkpoint(), os.path.join(source, "model.safetensors"))
        config = {"architectures": ["X"], "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}, "z": 1}
        with open(os.path.join(source, "config.json"), "w") as file:
            json.dump(config, file)
        self.ok(run("quantize", source, "-o", self.at("q.h5"), "--progress", "none"))
        self.ok(run("export", self.at("q.h5"), "--to", "safetensors", "-o", model, "--source", source))
        with open(os.path.join(model, "config.json")) as file:
            self.assertEqual(json.load(file), {"architectures": ["X"], "z": 1})
        self.assertEqual(sorted(os.listdir(model)), ["config.json", "model.safetensors"])

    def test_block_scaled_fp8_comes_back_with_its_scales_folded_in(self):
        source, out = self.at("model"), self.at("out")
        os.mkdir(source)
        random = np.random.default_rng(8)
        patterns = random.integers(0, 0x7E, (300, 200)).astype(np.uint8) | (random.integers(0, 2, (300, 200)) << 7).astype(np.uint8)
        scales = (2.0 ** random.integers(-9, -5, (3, 2))).astype(np.float32)
        write_safetensors(os.path.join(source, "model.safetensors"), {
            "x.weight": ("F8_E4M3", (300, 200), patterns), "x.weight_scale_inv": ("F32", (3, 2), scales),
            "norm.weight": ("BF16", (200,), bf16(np.ones(200)))})
        with open(os.path.join(source, "config.json"), "w") as file:
            json.dump({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, file)
        exponent, mantissa = (patterns >> 3) & 15, patterns & 7
        values = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10.0), mantissa * 2.0 ** -9) * np.where(patterns >> 7, -1, 1)
        values *= np.repeat(np.repeat(scales, 128, 0), 128, 1)[:300, :200]
        self.ok(run("quantize", source, "-o", self.at("q.h5"), "--levels", "256", "--progress", "none"))
        self.ok(run("verify", self.at("q.h5"), "--against", source))
        done = self.ok(run("export", self.at("q.h5"), "--to", "safetensors", "-o", out, "--source", source))
        self.assertIn("BF16 now", done.out)
        tensors, _ = read_safetensors(os.path.join(out, "model.safetensors"))
        self.assertEqual(set(tensors), {"x.weight", "norm.weight"})
        dtype, shape, blob = tensors["x.weight"]
        self.assertEqual((dtype, shape), ("BF16", (300, 200)))
        error = np.sqrt(np.sum((widen(dtype, blob).reshape(shape) - values) ** 2) / np.sum(values ** 2))
        self.assertLess(error, 0.02)


class Hdf5(ExportsTest):
    def test_plain_hdf5_has_the_bits_of_the_safetensors_export(self):
        ours = self.quantized(STORIES, "q.h5")
        self.export(ours, "safetensors", "q.safetensors")
        for _ in range(2):  # an export replaces an export
            self.export(ours, "hdf5", "plain.h5")
        plain = read_safetensors(self.at("q.safetensors"))[0]
        with h5py.File(self.at("plain.h5")) as file:
            for name, (dtype, shape, blob) in plain.items():
                self.assertEqual(file[name].shape, shape)
                self.assertEqual(file[name].id.get_create_plist().get_nfilters(), 0)
                self.assertEqual(file[name][()].astype(np.float64).reshape(-1).tobytes(), widen(dtype, blob).tobytes())

    def test_keras_weights_keep_their_groups_and_names_quantized_and_exported(self):
        w = RANDOM.standard_normal((64, 48)).astype("<f4")
        with h5py.File(self.at("model.weights.h5"), "w") as file:
            file.create_dataset("layers/dense/vars/0", data=w)
            file.create_dataset("layers/dense/vars/1", data=w[0])
        ours = self.quantized(self.at("model.weights.h5"), "model-q4.weights.h5")
        self.export(ours, "hdf5", "back.h5")
        os.environ["HDF5_PLUGIN_PATH"] = os.environ["LMQ_PLUGIN"]
        h5py.h5pl.prepend(os.environ["LMQ_PLUGIN"].encode())
        with h5py.File(ours) as quantized, h5py.File(self.at("back.h5")) as back:
            for file in (quantized, back):
                self.assertEqual(list(file["layers/dense/vars"]), ["0", "1"])
            np.testing.assert_array_equal(quantized["layers/dense/vars/0"][()], back["layers/dense/vars/0"][()])
            np.testing.assert_array_equal(back["layers/dense/vars/1"][()], w[0])


if __name__ == "__main__":
    unittest.main()
