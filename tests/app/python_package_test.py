"""The Python package reads what the program wrote: values, codes, a state dictionary, a loader for vLLM."""
import os
import sys
import types
import unittest
from unittest import mock

import h5py
import numpy as np

from lmq_harness import STORIES, ExportsTest, bf16, read_safetensors, widen, write_safetensors


RANDOM = np.random.default_rng(23)


class PythonPackage(ExportsTest):
    """python/lmq, beside h5py and the program."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
        import lmq
        cls.lmq = lmq

    def test_values_are_those_of_the_export_bit_for_bit_on_any_threads(self):
        for how in ((), ("--method", "kmeans", "--granularity", "group", "--levels", 8), ("--method", "binary-2", "--granularity", "row")):
            ours = self.quantized(STORIES, "q.h5", *how)
            self.export(ours, "safetensors", "q.safetensors")
            plain = read_safetensors(self.at("q.safetensors"))[0]
            for threads in (1, 3):
                with self.lmq.load(ours, threads) as file:
                    self.assertEqual(set(file), set(plain))
                    for name, (dtype, shape, blob) in plain.items():
                        tensor = file[name]
                        self.assertEqual((tensor.shape, tensor.get_dtype()), (shape, dtype))
                        self.assertEqual(tensor.numpy().astype(np.float64).tobytes(), widen(dtype, blob).tobytes(), name)

    def test_codes_and_codebooks_give_the_values_back(self):
        for how, group in (((), None), (("--method", "kmeans", "--granularity", "row", "--levels", 8), 0),
                           (("--method", "uniform", "--granularity", "group", "--group", 16, "--levels", 8), 16),
                           (("--method", "binary-2", "--granularity", "group", "--group", 16), 16)):
            ours = self.quantized(STORIES, "q.h5", *how)
            name = "model.layers.0.mlp.down_proj.weight"
            codes, books = self.lmq.codes(ours, name)
            with self.lmq.load(ours) as file:
                values = file[name].floats()
            if group is None:
                got = books[codes]
            else:
                rows, columns = np.indices(codes.shape)
                got = books[rows, columns // group if group else 0 * columns, codes]
            self.assertEqual(got.tobytes(), values.tobytes(), how)

    def test_codes_of_a_trellis_are_whole_numbers_of_steps(self):
        ours = self.quantized(STORIES, "q.h5", "--bits", 4)
        shapes = {"wide": (9, 3000), "tall": (3000, 9), "stack.experts": (3, 20, 30)}
        write_safetensors(self.at("wide.safetensors"), {name: ("F32", shape, RANDOM.standard_normal(shape).astype("<f4").tobytes())
                                                        for name, shape in shapes.items()})
        other = self.quantized(self.at("wide.safetensors"), "wide.h5", "--method", "waterfill", "--rate", 5)
        count = 0
        for path in (ours, other):
            with self.lmq.load(path) as file:
                found = {name: file[name].floats() for name in file if file[name].method == "waterfill"}
            for name, values in found.items():
                codes, steps = self.lmq.codes(path, name)
                self.assertEqual((codes.dtype, codes.shape), (np.int32, values.shape))
                np.testing.assert_array_equal(steps.values(codes), values, name)
            count += len(found)
        self.assertGreater(count, 20)
        from lmq import trellis
        for record in (b"", b"LMQR\x04", b"LMQR\x03" + bytes(30), b"LMQR\x04" + b"\xff" * 30):
            with self.assertRaises(ValueError):
                trellis.fields(record)

    def test_info_says_recipe_source_and_tensors(self):
        ours = self.quantized(STORIES, "q.h5")
        info = self.lmq.info(ours)
        self.assertEqual(info["provenance"]["format"], "safetensors")
        self.assertEqual(len(info["tensors"]), 47)
        self.assertEqual(info["file_bytes"], os.path.getsize(ours))
        self.assertIn("rules", info["recipe"])

    def test_h5py_reads_quantized_tensors_once_the_package_is_there(self):
        ours = self.quantized(STORIES, "q.h5")
        with h5py.File(ours) as file, self.lmq.load(ours) as lazy:
            name = "model.embed_tokens.weight"
            np.testing.assert_array_equal(file[name][()], lazy[name].floats())

    def test_damage_and_other_files_are_said(self):
        ours = self.quantized(STORIES, "q.h5", "--method", "kmeans", "--levels", 16)
        with self.lmq.load(ours) as file:
            record = bytearray(file["model.embed_tokens.weight"].record(0))
        record[60] ^= 1
        from lmq import plugin
        with self.assertRaises(ValueError):
            plugin.decode(bytes(record), 512 * 64)
        with h5py.File(self.at("other.h5"), "w") as file:
            file["x"] = bf16(np.ones(3))
        with self.assertRaises(ValueError):
            self.lmq.load(self.at("other.h5"))

    def test_vllm_gets_a_load_format(self):
        """Against the interface: a loader is made from a load configuration, and asked to download and to load."""
        loaders, given = {}, {}
        package = types.ModuleType("vllm.model_executor.model_loader")

        class BaseModelLoader:
            def __init__(self, load_config):
                self.load_config = load_config
        package.BaseModelLoader = BaseModelLoader
        package.register_model_loader = lambda name: lambda kind: loaders.setdefault(name, kind)
        outer = {name: types.ModuleType(name) for name in ("vllm", "vllm.model_executor")}
        from lmq import vllm_loader
        with mock.patch.dict(sys.modules, {**outer, package.__name__: package}):
            vllm_loader.register()
        self.quantized(STORIES, "q.h5")
        model = types.SimpleNamespace(load_weights=given.update)
        config = types.SimpleNamespace(model=self.folder)
        for extra in ({}, {"file": "q.h5"}, {"file": self.at("q.h5")}):
            loader = loaders["lmq"](types.SimpleNamespace(model_loader_extra_config=extra))
            loader.download_model(config)
            given.clear()
            with mock.patch.object(self.lmq.Tensor, "torch", self.lmq.Tensor.numpy):  # torch may not be there
                loader.load_weights(model, config)
            self.assertEqual(len(given), 47)
        with self.assertRaises(FileNotFoundError):
            loaders["lmq"](types.SimpleNamespace(model_loader_extra_config={"file": "none.h5"})).download_model(config)
        self.quantized(STORIES, "other.h5")
        with self.assertRaisesRegex(ValueError, "2 .h5 files"):
            loaders["lmq"](types.SimpleNamespace(model_loader_extra_config=None)).download_model(config)

    def test_a_state_dict_streams_into_a_model(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no torch")
        ours = self.quantized(STORIES, "q.h5")
        self.export(ours, "safetensors", "q.safetensors")
        plain = read_safetensors(self.at("q.safetensors"))[0]
        for name, tensor in self.lmq.state_dict(ours).items():
            self.assertEqual(tensor[...].dtype, torch.bfloat16)
            self.assertEqual(tensor[...].view(torch.uint8).numpy().tobytes(), plain[name][2], name)


if __name__ == "__main__":
    unittest.main()
