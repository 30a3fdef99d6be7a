"""Unbiased stochastic rounding as a user meets it: one file per seed, whatever the ranks; averages that are unbiased; draws that
are those of the seed in the file."""
import json
import os
import unittest

import numpy as np

from lmq_harness import STORIES, LmqTest, bf16, ctest, layouts, run, sha256, write_safetensors

METHODS = ("asq", "asq-ip-worst", "asq-ip-mean")
GRANULARITIES = [["--granularity", "model"], ["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"]]


class Stochastic(LmqTest):
    def quantize(self, source, *arguments, name="out.h5", ranks=0, **environment):
        path = self.at(name)
        self.ok(run("quantize", source, "-o", path, "--resume", "never", "--progress", "none", *arguments, ranks=ranks,
                    **environment))
        return path, sha256(path)

    def one_digest(self, turn, source, *arguments):
        digests = set()
        for ranks, threads, isa in layouts(turn, (2, 2, ""), (3, 1, "")):
            extra = {"LMQ_ISA": isa} if isa else {}
            path, digest = self.quantize(source, *arguments, "--threads", threads, ranks=ranks, **extra)
            digests.add(digest)
        self.assertEqual(len(digests), 1, arguments)
        return path, digests.pop()

    @ctest(cost=15)
    def test_one_file_for_a_seed_and_another_for_another(self):
        for turn, method in enumerate(METHODS):
            for place, granularity in enumerate(GRANULARITIES):
                with self.subTest(method=method, granularity=granularity):
                    arguments = ["--method", method, "--levels", "8", *granularity]
                    path, digest = self.one_digest(turn + place, STORIES, *arguments, "--seed", "5")
                    done = self.ok(run("verify", path, "--against", STORIES, "--repeat", "4"))
                    self.assertIn("mean of 4", done.out)
                    self.assertLessEqual(max(map(len, done.out.splitlines())), 80)
                    self.assertNotEqual(digest, self.quantize(STORIES, *arguments, "--seed", "6", name="other.h5")[1])
                    self.assertEqual(json.loads(self.ok(run("inspect", path, "--json")).out)["recipe"]["rules"][-1]["seed"], 5)

    def test_every_bit_of_a_seed_counts_from_command_line_and_recipe_to_the_file(self):
        values = set()
        for seed in (2 ** 63, 2 ** 63 + 1):
            recipe = self.at("recipe.json")
            with open(recipe, "w") as file:
                json.dump({"rules": [{"match": "*", "method": "asq", "levels": 4, "seed": seed}]}, file)
            for arguments in (["--method", "asq", "--levels", "4", "--seed", seed], ["--recipe", recipe],
                              ["--tensor", f"*=asq,levels=4,seed={seed}"]):
                with self.subTest(seed=seed, arguments=arguments):
                    path, _ = self.quantize(STORIES, *arguments)
                    self.assertIn(seed, [rule.get("seed") for rule in json.loads(self.ok(run("inspect", path, "--json")).out)["recipe"]["rules"]])
                    self.ok(run("verify", path, "--against", STORIES, "--repeat", "1"))   # the codes are those of the seed
                    exported = self.at("exported.safetensors")
                    self.ok(run("export", path, "--to", "safetensors", "-o", exported))
                    values.add(sha256(exported))
                    os.remove(exported)
        self.assertEqual(len(values), 2)
        for wrong in ("18446744073709551616", "-1", "0.5", "1e30"):
            done = run("quantize", STORIES, "-o", self.at("x.h5"), "--method", "asq", "--seed", wrong)
            self.refused(done, 64, "--seed", "a whole number, 0 to 18446744073709551615")

    def checkpoint(self):
        random = np.random.default_rng(3)
        path = self.at("large.safetensors")
        draw = lambda *shape: random.standard_normal(shape, np.float32) * np.float32(0.02)
        write_safetensors(path, {"wide.weight": ("BF16", (1100, 4096), bf16(draw(1100, 4096))),
                                 "single.weight": ("F32", (4300, 1024), draw(4300, 1024)),
                                 "half.weight": ("F16", (600, 800), draw(600, 800).astype("<f2"))})
        return path

    @ctest(cost=25)
    def test_tensors_of_several_units_are_the_same_file_on_any_ranks_halves_as_levels_too(self):
        source = self.checkpoint()
        for turn, arguments in enumerate((["--method", "asq", "--levels", "16"], ["--method", "asq-ip-worst", "--levels", "8"],
                          ["--method", "asq", "--levels", "16", "--level-type", "f16"],
                          ["--method", "asq", "--levels", "6", "--slack", "0.01"], ["--method", "asq", "--levels", "7", "--grid", "200"])):
            with self.subTest(arguments=arguments):
                path, _ = self.one_digest(turn, source, *arguments)
                self.ok(run("verify", path, "--against", source, "--repeat", "3", ranks=2))

    def test_importance_is_the_inputs_second_moment_for_the_mean_only(self):
        source = self.small_checkpoint()
        random = np.random.default_rng(5)
        importance = self.at("importance.safetensors")
        write_safetensors(importance, {name: ("F32", (48,), random.random(48, np.float32) ** 4)
                                       for name in ("block.0.weight", "block.1.weight")})
        for method in METHODS:
            levels = []
            for extra in ([], ["--importance", importance]):
                path, _ = self.quantize(source, "--method", method, "--levels", "8", "--granularity", "row", *extra)
                self.ok(run("verify", path, "--against", source, "--repeat", "2"))
                levels.append(self.ok(run("inspect", path, "--codebook", "block.0.weight")).out)
            self.assertEqual(levels[0] == levels[1], method != "asq-ip-mean", method)

    def test_the_error_of_the_mean_falls_like_one_over_the_draws(self):
        path, _ = self.quantize(STORIES, "--method", "asq", "--levels", "4")
        means = {}
        for repeat in (1, 10, 100):
            lines = self.ok(run("verify", path, "--against", STORIES, "--repeat", repeat)).out.splitlines()
            at = lines.index("model.embed_tokens.weight")   # a long name has a line of its own
            cells = lines[at + 1].split()
            means[repeat] = float(cells[2])
            self.assertLess(abs(float(cells[5])), 5)
        for repeat in (10, 100):
            self.assertAlmostEqual(means[repeat] * repeat / means[1], 1, delta=0.1)

    def test_nearest_rounding_has_no_draws_and_bad_options_are_refused(self):
        path, _ = self.quantize(STORIES, "--levels", "4")
        self.assertIn("no tensor was rounded at random", self.ok(run("verify", path, "--against", STORIES, "--repeat", "2")).out)
        self.refused(run("verify", path, "--repeat", "2"), 64, "--repeat", "--against")
        self.refused(run("verify", path, "--against", STORIES, "--repeat", "0"), 64, "repeat")
        for arguments in (["--seed", "-1"], ["--seed", "1.5"], ["--grid", "1"], ["--slack", "-0.1"], ["--levels", "1"]):
            done = run("quantize", STORIES, "-o", self.at("x.h5"), "--method", "asq", *arguments)
            self.assertEqual(done.code, 64, done)
        self.refused(run("quantize", STORIES, "-o", self.at("x.h5"), "--method", "kmeans", "--seed", "3"), 64, "seed")

    def test_constant_tiny_and_huge_tensors_come_back_without_an_error_that_levels_need_not_make(self):
        path = self.at("odd.safetensors")
        huge = np.array([[-3.4028235e38, 3.4028235e38, 0, 1] * 8] * 40, np.float32)
        write_safetensors(path, {"constant.weight": ("F32", (64, 32), np.full((64, 32), -0.25, np.float32)),
                                 "zero.weight": ("BF16", (64, 32), bf16(np.zeros((64, 32)))),
                                 "few.weight": ("F32", (64, 32), np.tile(np.float32([1, 2, 3, 4]), (64, 8))),
                                 "huge.weight": ("F32", (40, 32), huge),
                                 "tiny.weight": ("F32", (64, 32), (np.arange(2048).reshape(64, 32) * 1e-43).astype(np.float32)),
                                 "empty.weight": ("F32", (0, 32), b"")})
        for method in METHODS:
            for granularity in (["--granularity", "tensor"], ["--granularity", "row", "--level-type", "f32"]):
                out, _ = self.quantize(path, "--method", method, "--levels", "8", *granularity)
                self.ok(run("verify", out, "--against", path, "--repeat", "3"))
                tensors = {t["name"]: t for t in json.loads(self.ok(run("inspect", out, "--json")).out)["tensors"]}
                for name in ("constant.weight", "zero.weight", "few.weight", "huge.weight"):
                    self.assertEqual(tensors[name]["squared_error"], 0, name)


if __name__ == "__main__":
    unittest.main()
