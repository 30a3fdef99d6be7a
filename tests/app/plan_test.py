"""What `lmq plan` and --dry-run say before anything is made: the table, sizes, simulated runs, curves of levels against error."""
import json
import os
import unittest

import numpy as np

from lmq_harness import SHARDED, STORIES, LmqTest, bf16, read_safetensors, run, widen, write_safetensors


class Plan(LmqTest):
    def test_a_run_is_simulated_for_each_number_of_ranks(self):
        said = json.loads(self.ok(run("plan", STORIES, "--bits", "4", "--threads", "1", "--simulate", "1,2,100", "--json")).out)["simulated"]
        self.assertEqual([one["ranks"] for one in said], [1, 2, 100])
        self.assertEqual(said[0]["efficiency"], 1)
        for one in said:
            self.assertGreater(one["results"], 0)
            self.assertAlmostEqual(one["seconds"], one["computing_seconds"] + one["writing_seconds"], 6)
            self.assertTrue(0 < one["least_busy"] <= one["busy"] <= 1, one)

    def test_plan_prints_a_table_and_json_and_touches_nothing(self):
        text = self.ok(run("plan", SHARDED, "--levels", "8", "--ranks", "4", "--threads", "2")).out
        for word in ("srun ", "mpirun -np 4", "--levels 8", "memory per rank", "model.embed_tokens.weight"):
            self.assertIn(word, text)
        plan = json.loads(self.ok(run("plan", SHARDED, "--levels", "5", "--granularity", "model", "--ranks", "3", "--json")).out)
        self.assertEqual(plan["memory_per_rank_bytes"], sum(plan["memory"].values()))
        self.assertEqual(plan["units"], sum(t["units"] for t in plan["tensors"]))
        self.assertEqual(len(plan["tensors"]), 47)
        self.assertGreater(plan["estimated_seconds"], 0)
        self.assertGreater(plan["estimated_output_bytes"], 0)
        self.assertIn("--levels 5", plan["srun"])
        for tensor in plan["tensors"]:
            self.assertIn("reason" if tensor["treatment"] != "quantize" else "levels", tensor)

    def test_a_dry_run_prints_the_plan_and_touches_nothing(self):
        words = [SHARDED, "--levels", "8", "--json", "-"]
        dry = json.loads(self.ok(run("quantize", *words, "--dry-run")).out)
        self.assertEqual(dry, json.loads(self.ok(run("plan", *words)).out))
        both = json.loads(self.ok(run("quantize", *words, "--dry-run", "-o", self.at("x.h5"), ranks=2)).out)
        self.assertEqual(both["ranks"], 2)
        self.assertEqual(both["plan_digest"], dry["plan_digest"])
        self.assertEqual(os.listdir(self.folder), [])

    def test_a_plan_knows_what_groups_and_stochastic_rounding_make_of_a_size(self):
        random = np.random.default_rng(6)
        source = self.at("m.safetensors")
        write_safetensors(source, {f"layers.{i}.weight": ("BF16", (128, 256), bf16(random.standard_normal((128, 256)) * 2.0 ** -i)) for i in range(5)})
        for method in (["--method", "asq"], ["--method", "asq", "--granularity", "row"], ["--method", "kmeans", "--granularity", "group", "--group", "64"],
                       ["--method", "uniform", "--granularity", "group", "--group", "64"], ["--method", "kmeans", "--granularity", "row"]):
            with self.subTest(method=method):
                plan = json.loads(self.ok(run("plan", source, *method, "--bits", "4", "--json")).out)
                self.ok(run("quantize", source, "-o", self.at("out.h5"), "--quiet", *method, "--bits", "4"))
                self.assertAlmostEqual(plan["estimated_output_bytes"] / os.path.getsize(self.at("out.h5")), 1, delta=0.02)
                stored = {t["name"]: t for t in json.loads(run("inspect", self.at("out.h5"), "--json").out)["tensors"]}
                off = sorted(t["expected_snr_db"] + 20 * np.log10(stored[t["name"]]["relative_error"]) for t in plan["tensors"])
                self.assertAlmostEqual(off[2], 0, delta=1, msg=off)  # but for tensors whose levels closed the last gap

    def test_a_plan_obeys_the_size_that_is_asked_for(self):
        random = np.random.default_rng(5)
        source = self.at("m.safetensors")
        write_safetensors(source, {f"layers.{i}.weight": ("BF16", (1024, 512), bf16(random.standard_normal((1024, 512)) * 2.0 ** -i)) for i in range(4)})
        weights = 4 * 1024 * 512
        for method in (["--method", "kmeans"], ["--method", "ecsq"], []):
            for size in (["--bits", "2.5"], ["--target-size", "900K"]):
                with self.subTest(method=method, size=size):
                    plan = json.loads(self.ok(run("plan", source, *method, *size, "--json")).out)
                    self.assertEqual(plan, json.loads(self.ok(run("quantize", source, *method, *size, "--dry-run", "--json")).out))
                    target = weights * 2.5 / 8 if size[0] == "--bits" else 900 << 10
                    self.assertEqual(plan["target_bytes"], target)
                    self.assertLessEqual(plan["estimated_output_bytes"], target)
                    self.ok(run("quantize", source, "-o", self.at("out.h5"), "--quiet", *method, *size))
                    self.assertAlmostEqual(plan["estimated_output_bytes"] / os.path.getsize(self.at("out.h5")), 1, 1)
                    stored = {t["name"]: t for t in json.loads(run("inspect", self.at("out.h5"), "--json").out)["tensors"]}
                    for tensor in plan["tensors"]:
                        done = stored[tensor["name"]]
                        step = 0.6 if method == ["--method", "kmeans"] else 0.15   # a level more or less, or any slope
                        self.assertAlmostEqual(tensor["expected_bits_per_weight"], done["bits_per_weight"], delta=step)
                        self.assertAlmostEqual(tensor["expected_snr_db"], -20 * np.log10(done["relative_error"]), delta=6 * step)
                    self.assertIn("SNR dB", self.ok(run("plan", source, *method, *size)).out)
        across = json.loads(self.ok(run("quantize", source, "--bits", "2.5", "--dry-run", "--json", ranks=3)).out)
        alone = json.loads(self.ok(run("plan", source, "--bits", "2.5", "--json")).out)
        self.assertEqual(across["tensors"], alone["tensors"])
        # What cannot be is refused with one number, whoever is asked for whatever; and that can be.
        sizes = set()
        for words in (["plan", source], ["quantize", source, "-o", self.at("no.h5")], ["quantize", source, "--dry-run"]):
            for size in ("20K", "25000", "30KB"):
                done = run(*words, "--method", "kmeans", "--target-size", size)
                self.refused(done, 64, "cannot be reached", "at least ")
                sizes.add(done.err.split("at least ")[1].split()[0])
        self.assertEqual(len(sizes), 1, sizes)
        self.ok(run("quantize", source, "-o", self.at("yes.h5"), "--quiet", "--method", "kmeans", "--target-size", *sizes))
        self.assertLessEqual(os.path.getsize(self.at("yes.h5")), int(*sizes))

    def test_weighted_errors_are_shown_where_there_is_importance(self):
        importance = self.at("importance.safetensors")
        write_safetensors(importance, {"model.layers.0.mlp.up_proj.weight": ("F32", (64,), np.arange(1, 65, dtype=np.float32).tobytes())})
        done = self.ok(run("quantize", STORIES, "-o", self.at("w.h5"), "--progress", "none", "--importance", importance, "--importance-damping", "0", "--json", self.at("r.json")))
        self.assertIn("weighted dB", done.out)
        self.assertIn("least SNR by importance: model.layers.0.mlp.up_proj.weight (", done.err)
        with open(self.at("r.json")) as file:
            report = {t["name"]: t.get("weighted_error") for t in json.load(file)["tensors"]}
        stored = {t["name"]: t.get("weighted_error") for t in json.loads(run("inspect", self.at("w.h5"), "--json").out)["tensors"]}
        self.assertEqual(report, stored)
        self.assertEqual([name for name, error in stored.items() if error], ["model.layers.0.mlp.up_proj.weight"])
        self.ok(run("export", self.at("w.h5"), "--to", "safetensors", "-o", self.at("w.safetensors"), "--quiet"))
        name = "model.layers.0.mlp.up_proj.weight"
        weights, values = (widen(d, blob).reshape(shape).astype(np.float64) for d, shape, blob in
                           (read_safetensors(file)[0][name] for file in (os.path.join(STORIES, "model.safetensors"), self.at("w.safetensors"))))
        line = next(t for t in json.loads(run("inspect", self.at("w.h5"), "--json").out)["tensors"] if t["name"] == name)
        h = np.arange(1, 65, dtype=np.float64)
        self.assertAlmostEqual(line["weighted_energy"] / (h * weights ** 2).sum(), 1, 4)
        self.assertAlmostEqual(line["weighted_error"] / (h * (weights - values) ** 2).sum(), 1, 1)
        self.ok(run("quantize", STORIES, "-o", self.at("w.h5"), "--progress", "none"))
        self.assertNotIn("weighted", self.ok(run("inspect", self.at("w.h5"))).out)

    def test_a_curve_prints_levels_against_error_for_every_method(self):
        name = "model.layers.0.mlp.up_proj.weight"
        text = self.ok(run("plan", STORIES, "--curve", name)).out
        for word in (name, "distinct values", "signal to noise", "entropy", "kmeans", "sls-l1l2", "sls-cluster", " 256"):
            self.assertIn(word, text)
        path = json.loads(self.ok(run("plan", STORIES, "--curve", name, "--json")).out)
        self.assertTrue(path["exact"])
        self.assertEqual(path["weights"], 172 * 64)
        curves = {curve["method"]: curve["points"] for curve in path["methods"]}
        best = {p["levels"]: p["squared_error"] for p in curves["kmeans"]}
        self.assertEqual(sorted(best), list(range(2, 257)))
        for method in ("uniform", "sls-l1", "sls-l1l2", "sls-l0", "sls-iter", "sls-cluster"):
            self.assertEqual([p["levels"] for p in curves[method]], list(range(2, 257)))
            for point in curves[method]:
                self.assertGreaterEqual(point["squared_error"], best[point["levels"]] * (1 - 1e-6))
                self.assertLessEqual(2 ** point["entropy_bits"], point["codebook_levels"] * (1 + 1e-9))
        # What quantize then does is what the path said.
        for method in ("sls-l1", "kmeans", "sls-cluster"):
            self.ok(run("quantize", STORIES, "-o", self.at("q.h5"), "--method", method, "--levels", "12", "--progress", "none"))
            done = next(t for t in json.loads(run("inspect", self.at("q.h5"), "--json").out)["tensors"] if t["name"] == name)
            self.assertAlmostEqual(done["squared_error"] / curves[method][10]["squared_error"], 1, 5)
        single = json.loads(self.ok(run("plan", STORIES, "--curve", name, "--method", "sls-l0", "--zero", "exact", "--json")).out)
        self.assertEqual([curve["method"] for curve in single["methods"]], ["sls-l0"])
        for point in single["methods"][0]["points"]:
            self.assertGreaterEqual(point["squared_error"], best[point["levels"]] * (1 - 1e-6))
        weighted = self.at("importance.safetensors")
        write_safetensors(weighted, {name: ("F32", (64,), np.arange(64, dtype=np.float32).tobytes())})
        importance = json.loads(self.ok(run("plan", STORIES, "--curve", name, "--method", "kmeans", "--importance", weighted, "--json")).out)
        self.assertNotEqual(importance["energy"], path["energy"])
        self.refused(run("plan", STORIES, "--curve", "model.layers.0.mlp.up_proj"), 64, "did you mean", name)


if __name__ == "__main__":
    unittest.main()
