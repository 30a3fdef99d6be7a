"""Learned grids end to end: Gram matrices of inputs decide codes by row and group, the same file on any ranks; weights that lie
on a grid come back as they are; what contradicts itself is refused in one line."""
import json
import os
import tempfile
import unittest

import numpy as np

from lmq_harness import STORIES, LmqTest, curvature, read_safetensors, run, sha256, widen, write_safetensors

LAYERS = {"block.0.weight": (96, 64), "block.1.weight": (40, 80)}


class Learned(LmqTest):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(3)
        self.source, self.grams, self.columns = (self.at(name) for name in ("x.safetensors", "gram.safetensors", "columns.safetensors"))
        self.weights = {name: (random.standard_t(5, shape) * 0.02).astype(np.float32) for name, shape in LAYERS.items()}
        self.gram = {name: curvature(random, shape[1]) for name, shape in LAYERS.items()}
        write_safetensors(self.source, {name: ("F32", w.shape, w) for name, w in self.weights.items()})
        write_safetensors(self.grams, {f"{name}.gram": ("F32", g.shape, g) for name, g in self.gram.items()})
        write_safetensors(self.columns, {f"{name}.columns": ("F32", (len(g),), np.diagonal(g).copy()) for name, g in self.gram.items()})

    def quantize(self, *arguments, source=None, ranks=0, **extra):
        out = self.at("out.h5")
        self.ok(run("quantize", source or self.source, "-o", out, *arguments, "--resume", "never", "--progress", "none", ranks=ranks, **extra))
        return out

    def decoded(self, out):
        folder = os.path.join(tempfile.mkdtemp(dir=self.folder), "export.safetensors")
        self.ok(run("export", out, "--to", "safetensors", "-o", folder))
        path = folder if os.path.isfile(folder) else os.path.join(folder, "model.safetensors")
        return {name: widen(dtype, blob).reshape(shape) for name, (dtype, shape, blob) in read_safetensors(path)[0].items()}

    def losses(self, out):
        """tr(E S E^T) / tr(W S W^T) of each layer."""
        found = self.decoded(out)
        result = []
        for name, w in self.weights.items():
            w, s, e = w.astype(np.float64), self.gram[name].astype(np.float64), found[name] - w
            result.append(np.sum(e @ s * e) / np.sum(w @ s * w))
        return np.asarray(result)

    def test_a_gram_matrix_lowers_the_layer_loss_and_the_file_is_the_same_on_any_layout(self):
        for granularity in (["--granularity", "row"], ["--group", "32"]):
            for method in ("learned", "cpq", "gptq"):
                with self.subTest(method=method, granularity=granularity):
                    arguments = ["--method", method, "--levels", "8", *granularity]
                    by_gram = self.losses(self.quantize(*arguments, "--importance", self.grams))
                    found = {sha256(self.at("out.h5"))}
                    self.ok(run("verify", self.at("out.h5"), "--against", self.source, "--importance", self.grams))
                    for ranks, threads, isa in ((0, 1, "baseline"), (2, 1, ""), (3, 2, "")):
                        extra = {"LMQ_ISA": isa} if isa else {}
                        found.add(sha256(self.quantize(*arguments, "--importance", self.grams, "--threads", threads, ranks=ranks, **extra)))
                    self.assertEqual(len(found), 1)
                    by_columns = self.losses(self.quantize(*arguments, "--importance", self.columns))
                    bound = 1.0 if method == "cpq" else 0.8
                    self.assertTrue(np.all(by_gram < bound * by_columns), (by_gram, by_columns))

    def test_a_tensors_one_grid_is_verified_with_the_same_file(self):
        for granularity in ("tensor", "model"):
            with self.subTest(granularity=granularity):
                out = self.quantize("--method", "learned", "--levels", "8", "--granularity", granularity, "--importance", self.grams)
                self.ok(run("verify", out, "--against", self.source, "--importance", self.grams))

    def test_descent_and_free_logits_are_had_by_options_and_lower_the_loss(self):
        arguments = ["--method", "cpq", "--levels", "4", "--granularity", "row", "--importance", self.grams]
        plain = self.losses(self.quantize(*arguments))
        for more in (["--descent", "3"], ["--backward", "lsq"], ["--backward", "free-logits"], ["--backward", "mean"]):
            with self.subTest(more=more):
                self.assertTrue(np.all(self.losses(self.quantize(*arguments, *more)) < plain * 1.02))
        dropped = self.quantize(*arguments, "--drop", "0.2", "--drop-by", "bits", "--seed", "3")
        self.assertTrue(np.all(self.losses(dropped) < 1))

    def test_gptq_looks_at_rows_by_itself_and_says_where_no_matrix_is_known(self):
        one = self.at("one.safetensors")
        write_safetensors(one, {"block.0.weight.gram": ("F32", (64, 64), self.gram["block.0.weight"])})
        for file, granularity, words in ((self.grams, [], None), (one, [], ["1 of 2", "block.1.weight"]), (self.columns, [], ["2 of 2"]),
                                         (None, [], ["2 of 2"]), (self.grams, ["--granularity", "tensor"], ["2 of 2", "rows"])):
            with self.subTest(words=words):
                weighted = [*granularity, *(["--importance", file] if file else [])]
                done = self.ok(run("quantize", self.source, "-o", self.at("out.h5"), "--method", "gptq", *weighted, "--resume", "never"))
                notes = [line for line in done.err.splitlines() if "nearest level" in line]
                self.assertEqual(len(notes), words is not None, done.err)
                for word in words or []:
                    self.assertIn(word, notes[0])
        plain = self.losses(self.quantize("--method", "gptq", "--importance", self.columns))
        for more in ([], ["--order", "natural"], ["--damping-inputs", "0.1"], ["--zero-point", "free"]):
            with self.subTest(more=more):
                self.assertTrue(np.all(self.losses(self.quantize("--method", "gptq", "--importance", self.grams, *more)) < plain))

    def test_free_levels_by_a_gram_matrix_lower_the_loss_and_the_file_is_the_same_on_any_layout(self):
        arguments = ["--method", "kmeans", "--levels", "8"]
        by_columns = self.losses(self.quantize(*arguments, "--granularity", "row", "--importance", self.columns))
        for granularity in ([], ["--group", "32"]):
            with self.subTest(granularity=granularity):
                full = [*arguments, "--curvature", "full", *granularity, "--importance", self.grams]
                self.assertTrue(np.all(self.losses(self.quantize(*full)) < 0.8 * by_columns))
                found = {sha256(self.at("out.h5"))}
                self.ok(run("verify", self.at("out.h5"), "--against", self.source, "--importance", self.grams))
                for ranks, threads, isa in ((0, 1, "baseline"), (2, 1, ""), (3, 2, "")):
                    found.add(sha256(self.quantize(*full, "--threads", threads, ranks=ranks, **({"LMQ_ISA": isa} if isa else {}))))
                self.assertEqual(len(found), 1)
        refused = ["quantize", self.source, "-o", self.at("bad.h5"), *arguments, "--curvature", "full"]
        self.refused(run(*refused, "--granularity", "tensor"), 64, "--granularity", "row")
        self.refused(run(*refused, "--zero", "on"), 64, "zero")

    def test_weights_on_their_grid_come_back_exactly(self):
        random = np.random.default_rng(9)
        steps = {"a.weight": 0.0123291015625, "b.weight": 0.25}
        tensors = {name: (step * random.integers(-4, 4, (24, 40))).astype(np.float32) for name, step in steps.items()}
        source = self.at("grid.safetensors")
        write_safetensors(source, {name: ("F32", w.shape, w) for name, w in tensors.items()})
        for method in ("cpq", "learned", "gptq"):
            for granularity in ("tensor", "row"):
                with self.subTest(method=method, granularity=granularity):
                    found = self.decoded(self.quantize("--method", method, "--levels", "8", "--granularity", granularity, source=source))
                    for name, w in tensors.items():
                        np.testing.assert_array_equal(found[name], w)

    def test_bad_input_is_refused_in_one_line(self):
        for arguments, code, words in (
                (["--levels", "1"], 64, ["levels"]), (["--levels", "257"], 64, ["levels"]), (["--bits", "0"], 64, ["bits"]),
                (["--noise", "0"], 64, ["noise"]), (["--drop", "1"], 64, ["drop"]), (["--backward", "sideways"], 64, ["backward", "cpq"]),
                (["--drop", "0.1", "--backward", "mean"], 64, ["drop", "lsq"])):
            with self.subTest(arguments=arguments):
                self.refused(run("quantize", self.source, "-o", self.at("bad.h5"), "--method", "cpq", *arguments), code, *words)
        self.assertFalse(os.path.exists(self.at("bad.h5")))
        good = self.gram["block.0.weight"]
        lopsided, holed, small = good.copy(), good.copy(), good[:60, :60]
        lopsided[3, 5] += 1
        holed[2, 2] = np.nan
        for matrix, words in ((lopsided, ["symmetric", "block.0.weight"]), (holed, ["block.0.weight"]), (small, ["block.0.weight"])):
            with self.subTest(words=words):
                bad = self.at("bad.safetensors")
                write_safetensors(bad, {"block.0.weight.gram": ("F32", matrix.shape, matrix.copy())})
                done = run("quantize", self.source, "-o", self.at("bad.h5"), "--method", "learned", "--granularity", "row", "--importance", bad)
                self.refused(done, 65, *words)

    def test_groups_wider_than_a_row_constant_layers_and_single_columns_end_well(self):
        source = self.at("odd.safetensors")
        write_safetensors(source, {"flat.weight": ("F32", (8, 16), np.full((8, 16), 0.375, np.float32)),
                                   "thin.weight": ("F32", (50, 1), np.linspace(-1, 1, 50, dtype=np.float32)),
                                   "zero.weight": ("F32", (4, 4), np.zeros((4, 4), np.float32))})
        for method in ("cpq", "learned", "gptq"):
            for granularity in (["--group", "128"], ["--granularity", "row"], ["--granularity", "tensor"]):
                with self.subTest(method=method, granularity=granularity):
                    found = self.decoded(self.quantize("--method", method, "--levels", "4", *granularity, source=source))
                    np.testing.assert_array_equal(found["flat.weight"], np.full((8, 16), 0.375))
                    np.testing.assert_array_equal(found["zero.weight"], np.zeros((4, 4)))
                    self.assertTrue(np.all(np.isfinite(found["thin.weight"])))

    def test_a_budget_is_met_and_one_below_the_smallest_width_is_refused(self):
        for method in ("learned", "cpq", "gptq"):
            with self.subTest(method=method):
                out = self.at("out.h5")
                self.ok(run("quantize", self.source, "-o", out, "--method", method, "--bits", "6", "--resume", "never"))
                weights = sum(rows * cols for rows, cols in LAYERS.values())
                self.assertLessEqual(os.path.getsize(out), 6 * weights / 8)
                self.refused(run("quantize", self.source, "-o", self.at("no.h5"), "--method", method, "--target-size", "100"), 64, "at least")

    def test_widths_of_whole_bits_are_shared_out_and_the_file_is_the_same_on_any_layout(self):
        weights = sum(rows * cols for rows, cols in LAYERS.values())
        for method, how, more in (("learned", "exact", []), ("cpq", "lagrangian", ["--steps", "5"]), ("kmeans", "dropbits", []), ("uniform", "uniform", [])):
            with self.subTest(method=method, how=how):
                arguments = ["--method", method, "--bits", "6", "--bit-allocation", how, *more]
                found = {sha256(self.quantize(*arguments))}
                self.assertLessEqual(os.path.getsize(self.at("out.h5")), 6 * weights / 8)
                levels = {self.levels_of(name) for name in LAYERS}
                self.assertLessEqual(levels, {2, 4, 8, 16, 32, 64, 128, 256})
                if how == "uniform":
                    self.assertEqual(len(levels), 1)
                self.ok(run("verify", self.at("out.h5"), "--against", self.source))
                for ranks in (2, 3):
                    found.add(sha256(self.quantize(*arguments, "--threads", "1", ranks=ranks)))
                self.assertEqual(len(found), 1)

    def levels_of(self, name):
        """Levels of a tensor's codebooks in out.h5, which are all as many."""
        lines = self.ok(run("inspect", self.at("out.h5"), "--codebook", name)).out.splitlines()
        return max(len(line.split()) - 2 for line in lines if not line.startswith("#"))

    def test_no_allocation_loses_more_than_one_width_for_all_at_its_bytes(self):
        """By what is in the files: e H e^T with a Gram matrix, squares as a budget compares them without."""
        random = np.random.default_rng(17)
        weights = {f"{i}.weight": (random.standard_t(4, (24, 48)) * 0.02 * 2.0**(i % 3)).astype(np.float32) for i in range(6)}
        grams = {name: (4.0**(i % 4) * curvature(random, 48)).astype(np.float32) for i, name in enumerate(weights)}
        source, file = self.at("six.safetensors"), self.at("six_grams.safetensors")
        write_safetensors(source, {name: ("F32", w.shape, w) for name, w in weights.items()})
        write_safetensors(file, {f"{name}.gram": ("F32", h.shape, h) for name, h in grams.items()})
        for more in (["--importance", file], []):
            def cost(found, name):
                w, h = weights[name].astype(np.float64), grams[name].astype(np.float64)
                e = found[name] - w
                if not more:
                    return np.sum(e * e) * np.mean(w * w) ** -0.375
                return np.sum(e @ (h + 0.003 * np.mean(np.diagonal(h)) * np.eye(len(h))) * e)
            loss, size = {}, 0
            for how in ("uniform", "exact", "lagrangian", "dropbits"):
                wanted = ["--target-size", size] if size else ["--bits", "6"]
                out = self.quantize("--method", "learned", "--granularity", "row", *wanted, "--bit-allocation", how, *more, source=source)
                size = size or os.path.getsize(out) + 16  # the longer names of the others
                self.assertLessEqual(os.path.getsize(out), size)
                found = self.decoded(out)
                loss[how] = sum(cost(found, name) for name in weights)
            for how, found in loss.items():
                with self.subTest(more=more, how=how):
                    self.assertLessEqual(found, loss["uniform"] * (1 + 1e-6), loss)
            if more:
                self.assertLess(loss["exact"], 0.8 * loss["uniform"])

    def test_exact_is_never_above_lagrangian_nor_that_above_uniform_at_the_bits_uniform_spends(self):
        def expected(source, method, how, size):
            return json.loads(self.ok(run("plan", source, "--method", method, "--coder", "fixed", "--target-size", size, "--bit-allocation", how, "--json")).out)
        for source, method in ((STORIES, "uniform"), (self.source, "learned")):
            weights = json.loads(self.ok(run("plan", source, "--json")).out)["weights"]
            for bits in (3, 6):
                with self.subTest(method=method, bits=bits):
                    uniform = expected(source, method, "uniform", weights * (bits + 1) // 8 + 40000)
                    size = uniform["estimated_output_bytes"] * 10005 // 10000 + 1  # a plan aims a little below
                    losses = [expected(source, method, how, size)["expected_loss"] for how in ("exact", "lagrangian", "uniform")]
                    self.assertEqual(losses[2], uniform["expected_loss"])
                    self.assertLessEqual(losses[0], losses[1])
                    self.assertLessEqual(losses[1], losses[2])

    def test_bad_allocations_are_refused_in_one_line(self):
        for arguments, words in ((["--bit-allocation", "exact"], ["--bit-allocation exact", "say bits or a size"]), (["--bits", "9", "--bit-allocation", "exact"], ["--bits 9", "1 to 8"]),
                                 (["--bits", "0.9", "--bit-allocation", "uniform"], ["--bits 0.9", "1 to 8"]),
                                 (["--bits", "4", "--bit-allocation", "fair"], ["fair", "exact"]),
                                 (["--bits", "4", "--bit-allocation", "exact", "--method", "ecsq"], ["ecsq", "slope", "learned"]),
                                 (["--bits", "4", "--bit-allocation", "exact", "--method", "waterfill"], ["waterfill", "slope"]),
                                 (["--target-size", "100", "--bit-allocation", "exact"], ["at least"])):
            with self.subTest(arguments=arguments):
                self.refused(run("quantize", self.source, "-o", self.at("no.h5"), *arguments), 64, *words)

    def test_each_expert_of_a_stack_has_its_matrix(self):
        random = np.random.default_rng(5)
        weight = (random.standard_t(5, (3, 40, 32)) * 0.02).astype(np.float32)
        grams = np.stack([curvature(random, 32) for _ in range(3)]).astype(np.float32)
        stack, source = self.at("stack.safetensors"), self.at("experts.safetensors")
        write_safetensors(source, {"experts.up": ("F32", weight.shape, weight)})
        write_safetensors(stack, {"experts.up.gram": ("F32", grams.shape, grams)})
        for method in ("learned", "cpq"):
            for granularity in (["--granularity", "row"], ["--group", "8"]):
                with self.subTest(method=method, granularity=granularity):
                    arguments = ["--method", method, "--levels", "8", *granularity, "--importance"]
                    whole = self.decoded(self.quantize(*arguments, stack, source=source))["experts.up"]
                    self.ok(run("verify", self.at("out.h5"), "--against", source, "--importance", stack))
                    self.assertEqual(sha256(self.at("out.h5")), sha256(self.quantize(*arguments, stack, "--threads", "1", source=source, ranks=2)))
                    for expert in range(3):
                        one, gram = self.at("one.safetensors"), self.at("one_gram.safetensors")
                        write_safetensors(one, {"w": ("F32", weight[expert].shape, weight[expert].copy())})
                        write_safetensors(gram, {"w.gram": ("F32", grams[expert].shape, grams[expert].copy())})
                        np.testing.assert_array_equal(self.decoded(self.quantize(*arguments, gram, source=one))["w"], whole[expert])
        for spoil, words in ((lambda g: g.__setitem__((1, 2, 3), 9), ["symmetric"]), (lambda g: g.__setitem__((2, 0, 0), np.inf), ["experts.up"])):
            bad = grams.copy()
            spoil(bad)
            write_safetensors(stack, {"experts.up.gram": ("F32", bad.shape, bad)})
            self.refused(run("quantize", source, "-o", self.at("bad.h5"), "--method", "learned", "--granularity", "row", "--importance", stack), 65, "experts.up", *words)

    def test_a_plan_counts_the_matrix_and_the_time(self):
        arguments = ["plan", self.source, "--method", "learned", "--granularity", "row", "--json"]
        plain = json.loads(self.ok(run(*arguments)).out)
        weighed = json.loads(self.ok(run(*arguments, "--importance", self.grams)).out)
        self.assertGreater(weighed["estimated_seconds"], plain["estimated_seconds"])


if __name__ == "__main__":
    unittest.main()
