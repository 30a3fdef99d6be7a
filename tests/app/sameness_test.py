"""The output is a function of checkpoint, recipe and importance: one SHA-256 for any ranks, threads and instruction set; and
what was written is what verify, export and plain HDF5 programs read."""
import json
import os
import shutil
import subprocess
import sys
import unittest

import numpy as np

from lmq_harness import SHARDED, STORIES, LmqTest, bf16, read_safetensors, run, sha256, widen, write_safetensors

# Methods with some of their options; every one runs at every granularity, with importance, on any number of ranks. Every method
# with options by default: methods_test.py.
SPARSE = [["--method", "sls-l1", "--lambda-relative", "0.3", "--assign", "cells", "--counting", "values"],
          ["--method", "sls-l1", "--offset", "penalised"], ["--method", "sls-l1l2", "--lambda2-relative", "-0.5"],
          ["--method", "sls-l0", "--zero", "exact"], ["--method", "sls-l0", "--lambda-relative", "0.001", "--zero", "first"],
          ["--method", "sls-iter", "--max-error", "0.2"], ["--method", "sls-cluster", "--seed", "7", "--restarts", "2"]]
GRANULARITIES = [["--granularity", "model"], ["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"]]


def source_tensors(folder):
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(folder, name))[0])
    return tensors


class Sameness(LmqTest):
    def quantize(self, source, name, *arguments, **how):
        path = self.at(name)
        self.ok(run("quantize", source, "-o", path, "--resume", "never", "--progress", "none", *arguments, **how))
        self.assertFalse(os.path.exists(path + ".lmq-work"), "the work directory is gone after success")
        digest = sha256(path)
        return path, digest

    def one_digest(self, source, arguments, layouts):
        digests = {}
        for ranks, threads, isa in layouts:
            extra = {"LMQ_ISA": "baseline"} if isa == "baseline" else {}
            path, digest = self.quantize(source, "out.h5", *arguments, "--threads", threads, ranks=ranks, **extra)
            digests[(ranks, threads, isa)] = digest
        self.assertEqual(len(set(digests.values())), 1, digests)
        return path

    def test_sample_any_ranks_threads_and_instruction_set(self):
        layouts = [(0, 1, ""), (0, 2, ""), (0, 2, "baseline"), (2, 1, ""), (3, 2, ""), (5, 1, "")]
        for method in ("uniform", "kmeans"):
            for granularity in GRANULARITIES:
                with self.subTest(method=method, granularity=granularity):
                    arguments = ["--method", method, "--levels", "8", *granularity]
                    path = self.one_digest(STORIES, arguments, layouts)
                    self.ok(run("verify", path, "--against", STORIES))
        self.one_digest(STORIES, ["--levels", "16"], [(0, 2, ""), (1, 1, ""), (2, 2, "baseline")])

    def test_other_methods_any_ranks_threads_and_instruction_set(self):
        source = self.small_checkpoint()
        random = np.random.default_rng(6)
        importance = self.at("importance.safetensors")
        write_safetensors(importance, {"block.0.weight": ("F32", (48,), random.random(48, np.float32)),
                                       "block.1.weight": ("F32", (64, 48), random.random((64, 48), np.float32))})
        for method in SPARSE:
            for granularity in GRANULARITIES:
                with self.subTest(method=method, granularity=granularity):
                    arguments = [*method, *granularity]
                    self.one_digest(source, arguments, [(0, 2, ""), (0, 1, "baseline"), (2, 1, "")])
                    path = self.one_digest(source, [*arguments, "--importance", importance], [(0, 1, ""), (0, 2, "baseline")])
                    self.ok(run("verify", path, "--against", source, "--importance", importance))
            with self.subTest(method=method):
                path = self.one_digest(STORIES, method, [(0, 2, ""), (1, 1, ""), (2, 1, "baseline"), (3, 1, "")])
                self.ok(run("verify", path, "--against", STORIES))

    def test_binary_methods(self):
        layouts = [(0, 2, ""), (1, 1, "baseline"), (2, 1, ""), (3, 2, "")]
        for method in (["binary-1"], ["ternary"], ["ternary", "--sides", "asymmetric"], ["binary-2"], ["binary-k", "--levels", "8"],
                       ["binary-k", "--levels", "16", "--mode", "greedy"],
                       ["binary-1", "--scale", "rank1"], ["ternary", "--scale", "cheapest"], ["binary-k", "--levels", "4", "--coder", "planes"]):
            for granularity in (["--granularity", "tensor"], ["--granularity", "row"], ["--group", "48"]):
                if "--scale" in method and granularity[1] == "tensor":
                    continue   # refused: bad_input_test
                with self.subTest(method=method, granularity=granularity):
                    path = self.one_digest(STORIES, ["--method", *method, *granularity], layouts)
                    self.ok(run("verify", path, "--against", STORIES))

    def test_entropy_constrained_methods(self):
        layouts = [(0, 1, ""), (2, 1, ""), (3, 2, "baseline")]
        for arguments in (["--method", "ecsq", "--rate", "2.5"], ["--method", "ecsq", "--slope", "0.02", "--granularity", "row"],
                          ["--method", "ecsq-iter", "--lengths", "huffman", "--coder", "huffman", "--levels", "8"],
                          ["--method", "ecsq-uniform", "--rate", "3.2", "--granularity", "row"],
                          ["--method", "ecsq-uniform", "--levels", "8", "--granularity", "model"]):
            with self.subTest(arguments=arguments):
                path = self.one_digest(STORIES, arguments, layouts)
                self.ok(run("verify", path, "--against", STORIES))
        source = self.large_checkpoint()
        path = self.one_digest(source, ["--method", "ecsq-uniform", "--rate", "3"], [(0, 2, ""), (3, 1, "")])
        self.ok(run("verify", path, "--against", source))
        for tensor in json.loads(self.ok(run("inspect", path, "--json")).out)["tensors"]:
            if tensor["weights"] > 1 << 20:
                self.assertLess(tensor["bits_per_weight"], 3.006, tensor)
                self.assertGreater(tensor["bits_per_weight"], 2.98, tensor)
                self.assertLess(tensor["relative_error"], 10 ** (-16.4 / 20), tensor)
        self.refused(run("quantize", STORIES, "-o", path, "--method", "ecsq", "--rate", "3", "--lambda", "1"), 64, "rate", "lambda")

    def test_pruned_weights_stay_pruned(self):
        random = np.random.default_rng(11)
        weights = random.standard_normal((256, 512), np.float32)
        weights[np.abs(weights) < 1.5] = 0
        source = self.at("pruned.safetensors")
        write_safetensors(source, {"w.weight": ("F32", weights.shape, weights), "b.weight": ("BF16", weights.shape, bf16(weights))})
        for method in (["kmeans", "--levels", "8"], ["ecsq", "--rate", "1.2"], ["ecsq-iter", "--rate", "1.2"], ["ecsq-uniform", "--rate", "1.2"]):
            for granularity in (["--granularity", "tensor"], ["--granularity", "row"]):
                with self.subTest(method=method, granularity=granularity):
                    path = self.one_digest(source, ["--method", *method, *granularity], [(0, 1, ""), (2, 1, "baseline")])
                    out = self.at("back")
                    shutil.rmtree(out, ignore_errors=True)
                    self.ok(run("export", path, "--to", "safetensors", "-o", out))
                    for dtype, _, blob in source_tensors(out).values():
                        back = widen(dtype, blob).reshape(weights.shape)
                        self.assertTrue((back[weights == 0] == 0).all())
                        self.assertLess(np.mean((back - weights) ** 2), 0.05 * np.mean(weights ** 2))

    def large_checkpoint(self):
        """Tensors of several units, in four types, one of them a stack of experts."""
        random = np.random.default_rng(3)
        draw = lambda *shape: random.standard_normal(shape, np.float32) * np.float32(0.02)
        path = self.at("large.safetensors")
        write_safetensors(path, {
            "wide.weight": ("BF16", (2500, 4096), bf16(draw(2500, 4096))),
            "single.weight": ("F32", (4300, 1024), draw(4300, 1024)),
            "experts.weight": ("F16", (6, 300, 800), draw(6, 300, 800).astype("<f2")),
            "double.weight": ("F64", (40, 50), random.standard_normal((40, 50))),
            "norm.weight": ("F32", (4096,), draw(4096)),
        })
        return path

    def test_tensors_of_several_units(self):
        source = self.large_checkpoint()
        layouts = [(0, 2, ""), (0, 1, "baseline"), (3, 1, "")]
        one_type = self.at("one_type.json")   # one codebook serves one type
        with open(one_type, "w") as file:
            json.dump({"rules": [{"match": "[des]*", "keep": True}, {"match": "*", "levels": 5, "granularity": "model"}]}, file)
        for arguments in (["--method", "kmeans", "--levels", "16"], ["--recipe", one_type], ["--method", "uniform", "--granularity", "row"],
                          ["--method", "sls-l1"], ["--method", "sls-l0", "--zero", "exact"]):
            with self.subTest(arguments=arguments):
                path = self.one_digest(source, arguments, layouts)
                self.ok(run("verify", path, "--against", source, ranks=2))
        self.refused(run("quantize", source, "-o", path, "--granularity", "model"), 64, "double.weight", "model")

    def test_a_size_is_shared_out_the_same_by_any_ranks(self):
        source = self.large_checkpoint()
        layouts = [(0, 2, ""), (0, 1, "baseline"), (3, 1, "")]
        for arguments, bits in ((["--bits", "3.3"], 3.3), (["--bits", "4.6", "--granularity", "row"], 4.6)):
            with self.subTest(arguments=arguments):
                path = self.one_digest(source, arguments, layouts)
                self.ok(run("verify", path, "--against", source, ranks=2))
                weights = sum(tensor["weights"] for tensor in json.loads(self.ok(run("inspect", path, "--json")).out)["tensors"])
                size = os.path.getsize(path)
                self.assertLessEqual(size, bits * weights / 8)
                self.assertGreater(size, 0.98 * bits * weights / 8)   # steps of levels are coarse for so few tensors

    def test_importance(self):
        source = self.small_checkpoint()
        random = np.random.default_rng(5)
        importance = self.at("importance.safetensors")
        write_safetensors(importance, {
            "block.0.weight": ("F32", (48,), random.random(48, np.float32)),
            "block.1.weight": ("F32", (64, 48), random.random((64, 48), np.float32)),
        })
        digests = set()
        for granularity in (["--granularity", "tensor"], ["--granularity", "row"]):
            path = self.one_digest(source, ["--importance", importance, *granularity], [(0, 1, ""), (0, 2, "baseline"), (2, 1, "")])
            digests.add(sha256(path))
            self.ok(run("verify", path, "--against", source, "--importance", importance))
            self.ok(run("verify", path, "--against", source))
            other = run("verify", path, "--against", source, "--importance", source)
            self.assertIn(other.code, (1, 65), other)
            plain, digest = self.quantize(source, "plain.h5", *granularity)
            digests.add(digest)
        self.assertEqual(len(digests), 4)

    def test_the_file_does_not_know_where_it_was_made(self):
        copy = self.at("elsewhere", "copy")
        shutil.copytree(SHARDED, copy)
        _, here = self.quantize(SHARDED, "here.h5")
        _, there = self.quantize(copy, "there.h5", "--work-dir", self.at("work"), "--memory", "8G")
        _, index = self.quantize(os.path.join(copy, "model.safetensors.index.json"), "index.h5")
        self.assertEqual({here}, {there, index})
        with open(self.at("here.h5"), "rb") as file:
            content = file.read()
        for word in (self.folder, SHARDED, os.uname().nodename):
            if len(word) > 4:
                self.assertNotIn(word.encode(), content)

    def test_options_and_the_equal_recipe_give_the_same_file(self):
        recipe = self.at("recipe.json")
        _, options = self.quantize(STORIES, "a.h5", "--method", "kmeans", "--levels", "12", "--granularity", "row")
        inspected = json.loads(self.ok(run("inspect", self.at("a.h5"), "--json")).out)
        with open(recipe, "w") as file:
            json.dump(inspected["recipe"], file)
        _, written = self.quantize(STORIES, "b.h5", "--recipe", recipe)
        self.assertEqual(options, written)

    def test_json_report_table_and_inspect_agree(self):
        path, report_path = self.at("out.h5"), self.at("report.json")
        done = self.ok(run("quantize", SHARDED, "-o", path, "--levels", "8", "--json", report_path, "--progress", "none", ranks=2))
        with open(report_path) as file:
            report = json.load(file)
        inspected = json.loads(self.ok(run("inspect", path, "--json")).out)
        size = os.path.getsize(path)
        self.assertEqual(report["totals"]["file_bytes"], size)
        self.assertEqual(sum(inspected["ledger"].values()), size)
        self.assertEqual(report["recipe"], inspected["recipe"])
        self.assertEqual(report["plan_digest"], inspected["plan_digest"])
        self.assertEqual(report["tensors"], inspected["tensors"])
        self.assertEqual(report["totals"], inspected["totals"])
        source = source_tensors(SHARDED)
        self.assertEqual({t["name"] for t in report["tensors"]}, set(source))
        for tensor in report["tensors"]:
            self.assertEqual(tuple(tensor["shape"]), source[tensor["name"]][1])
            if tensor["method"] == "raw":
                self.assertTrue(tensor["reason"])
            else:
                self.assertAlmostEqual(tensor["bits_per_weight"], 8 * tensor["stored_bytes"] / tensor["weights"])
                self.assertLess(tensor["relative_error"], 0.25)
        quantized = [tensor for tensor in report["tensors"] if tensor["method"] != "raw"]
        ratio = sum(t["source_bytes"] for t in quantized) / sum(t["stored_bytes"] for t in quantized)
        self.assertAlmostEqual(report["totals"]["quantized_ratio"], ratio)
        self.assertAlmostEqual(report["totals"]["ratio"], report["totals"]["source_bytes"] / size)
        self.assertIn("bits per weight", done.out)
        self.assertIn("bits per weight", self.ok(run("inspect", path)).out)
        self.assertIn(f"compression ratio {ratio:.2f} ", self.ok(run("inspect", path)).out)

    def test_inspect_prints_the_codebooks_that_the_values_are_made_of(self):
        random, source = np.random.default_rng(8), self.at("books.safetensors")
        write_safetensors(source, {"single.weight": ("F32", (4300, 1024), random.standard_normal((4300, 1024), np.float32)),
                                   "norm.weight": ("F32", (64,), random.standard_normal(64, np.float32))})
        for arguments, group in ((["--granularity", "tensor"], 0), (["--granularity", "row"], 1024), (["--group", "300"], 300),
                                 (["--method", "uniform", "--group", "300"], 300)):
            path, _ = self.quantize(source, "books.h5", "--levels", "4", *arguments)
            self.ok(run("export", path, "--to", "safetensors", "-o", self.at("plain.safetensors")))
            name, (rows, cols) = "single.weight", (4300, 1024)
            dtype, _, blob = read_safetensors(self.at("plain.safetensors"))[0][name]
            values = widen(dtype, blob).reshape(rows, cols)
            listed = json.loads(self.ok(run("inspect", path, "--codebook", name, "--json")).out)
            with self.subTest(arguments=arguments):
                self.assertEqual((listed["name"], listed["group"]), (name, group))
                width = group or cols
                places = [(0, 0)] if group == 0 else [(row, at) for row in range(rows) for at in range(0, cols, width)]
                self.assertEqual([(book["row"], book["column"]) for book in listed["codebooks"]], places)
                for book in listed["codebooks"][::97]:
                    row, at = book["row"], book["column"]
                    part = values if group == 0 else values[row, at:at + width]
                    levels = np.float32(book["levels"])
                    self.assertEqual(set(np.float32(part).ravel()) - set(levels), set())
                text = self.ok(run("inspect", path, "--codebook", name)).out.splitlines()
                numbers = [[float(word) for word in line.split()] for line in text if not line.startswith("#")]
                self.assertEqual(numbers, [[b["row"], b["column"], *b["levels"]] for b in listed["codebooks"]])
        path, _ = self.quantize(source, "books.h5", "--method", "binary-2", "--granularity", "row")
        listed = json.loads(self.ok(run("inspect", path, "--codebook", name, "--json")).out)
        self.assertEqual(listed["stored_as"], "bases")
        for book in listed["codebooks"][::211]:
            first, second = np.float32(book["numbers"])
            self.assertEqual(sorted(np.float32(book["levels"])), sorted(np.float32([s * first + t * second for s in (-1, 1) for t in (-1, 1)])))
        self.refused(run("inspect", path, "--codebook", "norm.weight"), 64, "norm.weight", "not quantized")
        self.refused(run("inspect", path, "--codebook", "singel.weight"), 64, "did you mean single.weight?")
        self.refused(run("inspect", source, "--codebook", name), 64, "not written by lmq")


class Export(LmqTest):
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


class Verify(LmqTest):
    def setUp(self):
        super().setUp()
        self.source = self.small_checkpoint()
        self.path = self.at("out.h5")
        self.ok(run("quantize", self.source, "-o", self.path, "--levels", "8", "--progress", "none"))

    def test_another_original_is_a_difference(self):
        other = self.small_checkpoint("other.safetensors", seed=2)
        done = run("verify", self.path, "--against", other)
        self.assertEqual(done.code, 1, done)
        self.assertIn("block.0.weight", done.out)
        tensors, _ = read_safetensors(self.source)
        dtype, shape, blob = tensors["norm.weight"]
        for change, word in [
            ({"norm.weight": (dtype, shape, blob[:-1] + bytes([blob[-1] ^ 1]))}, "norm.weight"),
            ({"norm.weight": (dtype, (6, 8), blob)}, "shape"),
            ({"norm.weight": ("F16", shape, blob)}, "F16"),
            ({"extra.weight": (dtype, shape, blob)}, "extra.weight"),
        ]:
            write_safetensors(other, {**tensors, **change})
            done = run("verify", self.path, "--against", other, ranks=2)
            self.assertEqual(done.code, 1, done)
            self.assertIn(word, done.told)
            self.assertEqual(json.loads(run("verify", self.path, "--against", other, "--json").out)["differences"].__len__(), 1)
        del tensors["norm.weight"]
        write_safetensors(other, tensors)
        self.assertEqual(run("verify", self.path, "--against", other).code, 1)

    def test_no_flipped_bit_goes_unseen_and_none_is_a_crash(self):
        with open(self.path, "rb") as file:
            content = file.read()
        random = np.random.default_rng(9)
        broken = self.at("broken.h5")
        unseen = 0
        for at in random.integers(0, len(content), 60):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(random.integers(0, 8))
            with open(broken, "wb") as file:
                file.write(flipped)
            done = run("verify", broken, "--against", self.source)
            self.assertIn(done.code, (0, 1, 65, 66, 69, 74), (at, done))
            unseen += done.code == 0   # padding of HDF5's own metadata
        self.assertLess(unseen, 20)
        for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
            with open(broken, "wb") as file:
                file.write(content[:length])
            self.assertNotIn(run("verify", broken).code, (0, -6, -11, 70), length)

    def test_records_and_raw_bytes_are_all_covered(self):
        """A flip inside any unit's stored bytes is found, and named."""
        os.environ.pop("HDF5_PLUGIN_PATH", None)
        import h5py
        places = []
        with h5py.File(self.path) as file:
            places += [("norm.weight", file["norm.weight"].id.get_offset(), file["norm.weight"].id.get_storage_size())]
            for name in ("block.0.weight", "block.1.weight"):
                info = file[name].id.get_chunk_info(0)
                places.append((name, info.byte_offset, info.size))
        with open(self.path, "rb") as file:
            content = file.read()
        for name, offset, size in places:
            for at in (offset, offset + size // 2, offset + size - 1):
                flipped = bytearray(content)
                flipped[at] ^= 0x10
                with open(self.at("broken.h5"), "wb") as file:
                    file.write(flipped)
                done = run("verify", self.at("broken.h5"))
                self.assertEqual(done.code, 1, done)
                self.assertIn(name, done.told)
                self.assertNotEqual(run("export", self.at("broken.h5"), "--to", "safetensors", "-o", self.at("x.safetensors")).code, 0)
                self.assertFalse(os.path.exists(self.at("x.safetensors")))


if __name__ == "__main__":
    unittest.main()
