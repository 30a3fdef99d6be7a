"""The output is a function of checkpoint, recipe and importance: one SHA-256 for any ranks, threads and instruction set; and
what report, table and inspect say of it is one thing."""
import json
import os
import shutil
import unittest

import numpy as np

from lmq_harness import SHARDED, STORIES, LmqTest, bf16, ctest, layouts, read_safetensors, run, sha256, source_tensors, widen, write_safetensors

# Methods with some of their options; every one runs at every granularity, with importance, on any number of ranks. Every method
# with options by default: methods_test.py.
SPARSE = [["--method", "sls-l1", "--lambda-relative", "0.3", "--assign", "cells", "--counting", "values"],
          ["--method", "sls-l1", "--offset", "penalised"], ["--method", "sls-l1l2", "--lambda2-relative", "-0.5"],
          ["--method", "sls-l0", "--zero", "exact"], ["--method", "sls-l0", "--lambda-relative", "0.001", "--zero", "first"],
          ["--method", "sls-iter", "--max-error", "0.2"], ["--method", "sls-cluster", "--seed", "7", "--restarts", "2"]]
GRANULARITIES = [["--granularity", "model"], ["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"]]


class Sameness(LmqTest):
    def quantize(self, source, name, *arguments, **how):
        path = self.at(name)
        self.ok(run("quantize", source, "-o", path, "--resume", "never", "--progress", "none", *arguments, **how))
        self.assertFalse(os.path.exists(path + ".lmq-work"), "the work directory is gone after success")
        digest = sha256(path)
        return path, digest

    def one_digest(self, source, arguments, over):
        digests = {}
        for ranks, threads, isa in over:
            extra = {"LMQ_ISA": isa} if isa else {}
            path, digest = self.quantize(source, "out.h5", *arguments, "--threads", threads, ranks=ranks, **extra)
            digests[(ranks, threads, isa)] = digest
        self.assertEqual(len(set(digests.values())), 1, digests)
        return path

    @ctest(cost=10)
    def test_a_model_is_the_same_file_on_any_ranks_threads_and_instruction_set(self):
        for turn, method in enumerate(("uniform", "kmeans")):
            for place, granularity in enumerate(GRANULARITIES):
                with self.subTest(method=method, granularity=granularity):
                    arguments = ["--method", method, "--levels", "8", *granularity]
                    path = self.one_digest(STORIES, arguments, layouts(turn + place, (2, 1, ""), (3, 2, ""), (5, 1, "")))
                    self.ok(run("verify", path, "--against", STORIES))
        self.one_digest(STORIES, ["--levels", "16"], [(0, 2, ""), (1, 1, ""), (2, 2, "baseline")])

    @ctest(cost=25)
    def test_sparse_least_squares_is_the_same_file_on_any_ranks_threads_and_instruction_set(self):
        source = self.small_checkpoint()
        random = np.random.default_rng(6)
        importance = self.at("importance.safetensors")
        write_safetensors(importance, {"block.0.weight": ("F32", (48,), random.random(48, np.float32)),
                                       "block.1.weight": ("F32", (64, 48), random.random((64, 48), np.float32))})
        for turn, method in enumerate(SPARSE):
            for place, granularity in enumerate(GRANULARITIES):
                with self.subTest(method=method, granularity=granularity):
                    arguments = [*method, *granularity]
                    ranks = 2 if (turn + place) % 2 else 0
                    self.one_digest(source, arguments, [(0, 2, ""), (ranks, 1, "baseline")])
                    path = self.one_digest(source, [*arguments, "--importance", importance], [(0, 1, ""), (0, 2, "baseline")])
                    self.ok(run("verify", path, "--against", source, "--importance", importance))
            with self.subTest(method=method):
                path = self.one_digest(STORIES, method, [(0, 2, ""), (1, 1, ""), (2, 1, "baseline"), (3, 1, "")][turn % 3:turn % 3 + 2])
                self.ok(run("verify", path, "--against", STORIES))

    @ctest(cost=20)
    def test_signs_and_ternaries_are_the_same_file_on_any_ranks_threads_and_instruction_set(self):
        for turn, method in enumerate((["binary-1"], ["ternary"], ["ternary", "--sides", "asymmetric"], ["binary-2"], ["binary-k", "--levels", "8"],
                       ["binary-k", "--levels", "16", "--mode", "greedy"],
                       ["binary-1", "--scale", "rank1"], ["ternary", "--scale", "cheapest"], ["binary-k", "--levels", "4", "--coder", "planes"])):
            for place, granularity in enumerate((["--granularity", "tensor"], ["--granularity", "row"], ["--group", "48"])):
                if "--scale" in method and granularity[1] == "tensor":
                    continue   # refused: bad_input_test
                with self.subTest(method=method, granularity=granularity):
                    path = self.one_digest(STORIES, ["--method", *method, *granularity], layouts(turn + place, (1, 1, ""), (2, 1, ""), (3, 2, "")))
                    self.ok(run("verify", path, "--against", STORIES))

    @ctest(cost=20)
    def test_entropy_constrained_levels_are_the_same_file_on_any_ranks_threads_and_instruction_set(self):
        for turn, arguments in enumerate((["--method", "ecsq", "--rate", "2.5"], ["--method", "ecsq", "--slope", "0.02", "--granularity", "row"],
                          ["--method", "ecsq-iter", "--lengths", "huffman", "--coder", "huffman", "--levels", "8"],
                          ["--method", "ecsq-uniform", "--rate", "3.2", "--granularity", "row"],
                          ["--method", "ecsq-uniform", "--levels", "8", "--granularity", "model"])):
            with self.subTest(arguments=arguments):
                path = self.one_digest(STORIES, arguments, layouts(turn, (2, 1, ""), (3, 2, "baseline")))
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

    def large_checkpoint(self, rows=1100):
        """Tensors of two units (of 2^22 weights, so 2,500 rows are three), in four types, one of them a stack of experts."""
        random = np.random.default_rng(3)
        draw = lambda *shape: random.standard_normal(shape, np.float32) * np.float32(0.02)
        path = self.at("large.safetensors")
        write_safetensors(path, {
            "wide.weight": ("BF16", (rows, 4096), bf16(draw(rows, 4096))),
            "single.weight": ("F32", (4300, 1024), draw(4300, 1024)),
            "experts.weight": ("F16", (6, 300, 800), draw(6, 300, 800).astype("<f2")),
            "double.weight": ("F64", (40, 50), random.standard_normal((40, 50))),
            "norm.weight": ("F32", (4096,), draw(4096)),
        })
        return path

    @ctest(cost=40)
    def test_tensors_of_several_units_are_the_same_file_on_any_ranks_threads_and_instruction_set(self):
        source = self.large_checkpoint()
        one_type = self.at("one_type.json")   # one codebook serves one type
        with open(one_type, "w") as file:
            json.dump({"rules": [{"match": "[des]*", "keep": True}, {"match": "*", "levels": 5, "granularity": "model"}]}, file)
        for arguments in (["--method", "kmeans", "--levels", "16"], ["--recipe", one_type], ["--method", "uniform", "--granularity", "row"],
                          ["--method", "sls-l1"], ["--method", "sls-l0", "--zero", "exact"]):
            with self.subTest(arguments=arguments):
                path = self.one_digest(source, arguments, layouts(0, (3, 1, "")))
                self.ok(run("verify", path, "--against", source, ranks=2))
        self.refused(run("quantize", source, "-o", path, "--granularity", "model"), 64, "double.weight", "model")

    @ctest(cost=20)
    def test_a_size_is_shared_out_the_same_by_any_ranks(self):
        source = self.large_checkpoint(rows=2500)
        for arguments, bits in ((["--bits", "3.3"], 3.3), (["--bits", "4.6", "--granularity", "row"], 4.6)):
            with self.subTest(arguments=arguments):
                path = self.one_digest(source, arguments, layouts(0, (3, 1, "")))
                self.ok(run("verify", path, "--against", source, ranks=2))
                weights = sum(tensor["weights"] for tensor in json.loads(self.ok(run("inspect", path, "--json")).out)["tensors"])
                size = os.path.getsize(path)
                self.assertLessEqual(size, bits * weights / 8)
                self.assertGreater(size, 0.98 * bits * weights / 8)   # steps of levels are coarse for so few tensors

    def test_importance_changes_the_file_and_it_is_the_same_on_any_ranks_threads_and_instruction_set(self):
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


if __name__ == "__main__":
    unittest.main()
