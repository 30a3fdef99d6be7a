"""The file as people and tools read it: what it weighs, what h5py and HDF5's tools say, older versions, damage."""
import json
import os
import random
import shutil
import subprocess
import unittest

import numpy as np

from lmq_harness import DATA, SHARDED, STORIES, STORIES_F32, LmqTest, bf16, ctest, run, sha256, write_safetensors

GOLDEN = os.path.join(DATA, "version1")
METADATA = ("metadata", "side")


def ledger(path):
    done = run("inspect", path, "--json")
    assert done.code == 0, done
    return json.loads(done.out)["ledger"]


class Size(LmqTest):
    def test_all_but_records_and_raw_tensors_takes_less_than_270_bytes_a_tensor(self):
        for source, most in ((SHARDED, 270), (STORIES, 270)):
            path = self.at("out.h5")
            self.ok(run("quantize", source, "-o", path, "--progress", "none"))
            purposes = ledger(path)
            tensors = len(json.loads(run("inspect", path, "--json").out)["tensors"])
            beside = sum(purposes[name] for name in METADATA)
            self.assertLess(beside / tensors, most, purposes)
            self.assertEqual(sum(purposes.values()), os.path.getsize(path))

    def test_plan_says_the_size_within_1_percent(self):
        fixed = ["--levels", 16, "--coder", "fixed"]
        cases = [["--method", "uniform", *fixed], ["--method", "kmeans", "--granularity", "row", *fixed],
                 ["--method", "kmeans", "--granularity", "group", "--group", 32, *fixed], ["--method", "kmeans", "--granularity", "model", *fixed],
                 [], ["--method", "uniform"], ["--method", "kmeans"], ["--method", "kmeans", "--granularity", "row"], ["--method", "asq"],
                 ["--method", "kmeans", "--granularity", "model"], ["--method", "uniform", "--granularity", "group", "--group", 32],
                 ["--method", "ecsq", "--rate", 3], ["--method", "waterfill", "--rate", 3], ["--method", "binary-2"]]
        for source in (SHARDED, STORIES):
            for words in cases:
                self.compare_with_plan(source, words)

    def test_plan_says_the_size_within_1_percent_of_codebooks_as_large_as_codes(self):
        wide = ["--method", "kmeans", "--levels", 256]
        for source in (SHARDED, STORIES_F32, self.pruned()):
            self.compare_with_plan(source, wide)
        self.compare_with_plan(SHARDED, [*wide, "--granularity", "row"])

    def test_plan_says_the_size_within_1_percent_of_a_part_of_large_tensors(self):
        rng = np.random.default_rng(9)
        path = self.at("large.safetensors")
        write_safetensors(path, {f"w{i}": ("F32", (2048, 2304), rng.standard_normal((2048, 2304)).astype("<f4") * .02) for i in range(2)})
        for words in (["--method", "kmeans", "--levels", 256], ["--method", "uniform"]):
            self.compare_with_plan(path, words)

    def test_plan_says_the_size_within_1_percent_of_a_model_that_needs_less_than_is_asked_for(self):
        for words in (["--bits", 20], ["--target-size", "10M"]):
            plan = self.compare_with_plan(self.pruned(), words)
            self.assertLess(plan["estimated_output_bytes"], plan["target_bytes"] * .9, words)

    def pruned(self):
        """Matrices of which a tenth is left, as pruning leaves them."""
        rng = np.random.default_rng(4)
        path = self.at("pruned.safetensors")
        values = {name: (rng.standard_normal(shape) * (rng.random(shape) < .1)).astype("<f4") for name, shape in (("a", (300, 400)), ("b", (64, 500)))}
        write_safetensors(path, {name: ("F32", of.shape, of) for name, of in values.items()})
        return path

    def compare_with_plan(self, source, words):
        """What plan says of the file and of its tensors is what quantize makes; the plan."""
        path = self.at("out.h5")
        self.ok(run("quantize", source, *words, "-o", path, "--progress", "none"))
        plan = json.loads(self.ok(run("plan", source, *words, "--json")).out)
        self.assertAlmostEqual(plan["estimated_output_bytes"] / os.path.getsize(path), 1, delta=0.01, msg=(source, words))
        stored = {t["name"]: t for t in json.loads(run("inspect", path, "--json").out)["tensors"]}
        for tensor in plan["tensors"]:
            if tensor["treatment"] == "quantize":
                self.assertAlmostEqual(tensor["expected_bits_per_weight"], stored[tensor["name"]]["bits_per_weight"], delta=.2, msg=(words, tensor))
        return plan

    def test_what_a_method_does_not_spend_is_said_by_plan_and_by_quantize(self):
        words = [SHARDED, "--method", "binary-1", "--bits", 6]
        for done in (run("plan", *words), run("quantize", *words, "-o", self.at("out.h5"))):
            self.assertRegex(" ".join((self.ok(done).err + done.out).split()), "that were asked for are used: this method spends no more")
        for done in (run("plan", SHARDED, "--bits", 40), run("quantize", SHARDED, "--bits", 40, "-o", self.at("out.h5"))):
            self.assertRegex(" ".join((self.ok(done).err + done.out).split()), "are used: this model needs no more")
        groups = [SHARDED, "--method", "kmeans", "--granularity", "group", "--group", 32, "--bits", 5]
        for done in (run("plan", *groups), run("quantize", *groups, "-o", self.at("out.h5"))):
            self.assertRegex(" ".join((self.ok(done).err + done.out).split()), "because groups of 32 have codebooks of their own")

    def test_quiet_leaves_warnings_of_quality(self):
        quiet = ["-o", self.at("out.h5"), "-q"]
        said = self.ok(run("quantize", SHARDED, "--rate", 1, *quiet)).err
        self.assertRegex(said, "^lmq: warning: a mean SNR of [0-9.]+ dB over the tensors: below 18.5 dB")
        self.assertEqual(said.count("\n"), 1, said)
        self.assertEqual(self.ok(run("quantize", SHARDED, "--bits", 40, *quiet)).err, "")
        groups = self.ok(run("quantize", SHARDED, "--method", "kmeans", "--granularity", "group", "--group", 32, "--bits", 5, *quiet)).err
        self.assertRegex(groups, "^lmq: warning: a mean SNR of [0-9.]+ dB")  # codes of 1 bit
        self.assertEqual(groups.count("\n"), 1, groups)

    def test_a_size_asked_for_is_met(self):
        path = self.at("out.h5")
        for size in (300_000, 450_000):
            self.ok(run("quantize", SHARDED, "-o", path, "--target-size", str(size), "--progress", "none"))
            self.assertLessEqual(os.path.getsize(path), size)
            self.assertGreater(os.path.getsize(path), 0.995 * size)


class Reading(LmqTest):
    def large(self):
        """A checkpoint large enough for its tensors to have attributes."""
        rng = np.random.default_rng(5)
        path = self.at("large.safetensors")
        write_safetensors(path, {"w": ("BF16", (1024, 1024), bf16(rng.standard_normal((1024, 1024)) * .02)),
                                 "norm": ("BF16", (1024,), bf16(np.ones(1024)))})
        return path

    def test_h5py_finds_method_and_bits_as_plain_python_values(self):
        import h5py
        path = self.at("out.h5")
        self.ok(run("quantize", self.large(), "-o", path, "--method", "kmeans", "--levels", 16, "--progress", "none"))
        with h5py.File(path) as file:
            self.assertEqual(file["w"].attrs["lmq_method"], "kmeans")
            self.assertEqual(file["norm"].attrs["lmq_method"], "raw")
            bits = 8 * file["w"].id.get_storage_size() / file["w"].size
            self.assertEqual(file["w"].attrs["lmq_bits_per_weight"], bits)
            self.assertEqual(list(file.attrs["lmq_format"]), [2, 0])

    def test_h5py_reads_recipe_table_and_codebooks(self):
        import h5py
        path = self.at("out.h5")
        self.ok(run("quantize", STORIES, "-o", path, "--method", "kmeans", "--bits", 3, "--progress", "none"))
        said = {tensor["name"]: tensor for tensor in json.loads(run("inspect", path, "--json").out)["tensors"]}
        with h5py.File(path) as file:
            json.loads(file["lmq/recipe"].asstr()[0])
            json.loads(file["lmq/provenance"].asstr()[0])
            table = json.loads(file["lmq/tensors"].asstr()[0])["tensors"]
            books = file["lmq/codebooks"][...]
            self.assertEqual(table["name"], sorted(said))
            for i, name in enumerate(table["name"]):
                self.assertEqual(table["method"][i], said[name]["method"])
                self.assertEqual(file[name].shape, tuple(table["shape"][i]))
                if table["method"][i] == "raw":
                    continue
                self.assertEqual(table["squared_error"][i], said[name]["squared_error"])
                self.assertAlmostEqual(table["bits_per_weight"][i], said[name]["bits_per_weight"], delta=1e-4)
                levels = books[table["codebook"][i]]
                levels = levels[~np.isnan(levels)]
                shown = json.loads(run("inspect", path, "--codebook", name, "--json").out)["codebooks"][0]["numbers"]
                self.assertEqual([np.float32(x) for x in shown], list(levels))

    def test_h5dump_shows_the_recipe_as_text(self):
        if not shutil.which("h5dump"):
            self.skipTest("no h5dump")
        path = self.at("out.h5")
        self.ok(run("quantize", STORIES, "-o", path, "--progress", "none"))
        text = subprocess.run(["h5dump", "-d", "/lmq/recipe", path], capture_output=True, text=True, check=True).stdout
        self.assertIn("min_elements", text)
        text = subprocess.run(["h5dump", "-d", "/lmq/tensors", path], capture_output=True, text=True, check=True).stdout
        self.assertIn("model.layers.0.self_attn.q_proj.weight", text.replace('"\n   (0): "', ""))

    def test_a_copy_that_h5repack_packed_anew_is_named_as_such(self):
        if not shutil.which("h5repack"):
            self.skipTest("no h5repack")
        path, copy = self.at("a.h5"), self.at("b.h5")
        self.ok(run("quantize", STORIES, "-o", path, "--levels", "16", "--progress", "none"))
        subprocess.run(["h5repack", "-f", "GZIP=4", path, copy], check=True, capture_output=True,
                       env={**os.environ, "HDF5_PLUGIN_PATH": os.environ["LMQ_PLUGIN"]})
        self.refused(run("verify", copy), 69, "found 1 filter (deflate (gzip)), expected that of lmq", "h5repack -f", "start from the file that lmq made")

    def test_a_copy_that_h5repack_stripped_is_named_as_such(self):
        if not shutil.which("h5repack"):
            self.skipTest("no h5repack")
        path, copy = self.at("out.h5"), self.at("plain.h5")
        self.ok(run("quantize", STORIES, "-o", path, "--progress", "none"))
        for layout in (["-l", "CONTI"], []):
            subprocess.run(["h5repack", "-f", "NONE", *layout, path, copy], check=True, capture_output=True,
                           env=dict(os.environ, HDF5_PLUGIN_PATH=os.environ["LMQ_PLUGIN"]))
            for words in (("verify", copy), ("inspect", copy), ("export", copy, "--to", "safetensors", "-o", self.at("x"))):
                self.refused(run(*words), 65, "the filter was stripped")


class VersionOne(LmqTest):
    """tests/data/version1/output.h5 was written by the first version of the format."""
    PATH = os.path.join(GOLDEN, "output.h5")

    def test_it_is_read_checked_and_exported_as_ever(self):
        shown = json.loads(self.ok(run("inspect", self.PATH, "--json")).out)
        self.assertEqual(shown["plan_digest"], "bdd4a0d2793af2c0383ae6a7342f57cc")
        self.assertEqual({tensor["name"]: tensor["method"] for tensor in shown["tensors"]},
                         {"a.weight": "ecsq", "b.rows": "kmeans", "c/groups": "uniform", "d.uniform": "uniform", "flags": "raw",
                          "m.one": "kmeans", "m.two": "kmeans", "norm": "raw", "nothing": "raw"})
        self.assertEqual(sum(shown["ledger"].values()), os.path.getsize(self.PATH))
        self.ok(run("verify", self.PATH, "--against", os.path.join(GOLDEN, "model.safetensors")))
        out = self.at("out.safetensors")
        self.ok(run("export", self.PATH, "--to", "safetensors", "-o", out))
        self.assertIn("0 ", self.ok(run("inspect", self.PATH, "--codebook", "m.one")).out)

    def test_the_same_values_come_from_both_versions(self):
        recipe = self.at("recipe.json")
        with open(recipe, "w") as file:
            json.dump(json.loads(run("inspect", self.PATH, "--json").out)["recipe"], file)
        again, old, new = self.at("again.h5"), self.at("old.safetensors"), self.at("new.safetensors")
        self.ok(run("quantize", os.path.join(GOLDEN, "model.safetensors"), "-o", again, "--recipe", recipe, "--progress", "none"))
        self.ok(run("export", self.PATH, "--to", "safetensors", "-o", old))
        self.ok(run("export", again, "--to", "safetensors", "-o", new))
        self.assertEqual(sha256(old), sha256(new))


class Damage(LmqTest):
    """Whatever a flip does, a program says one line and ends by itself; no flip goes by unseen."""

    def flips(self, path, count, seed):
        with open(path, "rb") as file:
            good = file.read()
        rng = random.Random(seed)
        damaged = self.at("damaged.h5")
        for _ in range(count):
            bytes_ = bytearray(good)
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(bytes_))
                bytes_[at] ^= 1 << rng.randrange(8) if rng.random() < .7 else rng.randrange(1, 256)
            with open(damaged, "wb") as file:
                file.write(bytes_)
            yield damaged, bytes(bytes_) != good

    def check(self, path, count, seed, sees_all):
        for number, (damaged, differs) in enumerate(self.flips(path, count, seed)):
            others = (("inspect", damaged), ("export", damaged, "--to", "safetensors", "-o", self.at("out.safetensors")))
            for words in (("verify", damaged), others[number % 2]):
                done = run(*words, timeout=60)
                # 69: what was hit says that it is a file of ours at all.
                self.assertIn(done.code, (0, 1, 65, 69) if words[0] == "verify" else (0, 65, 69), done)
                if done.code in (65, 69):
                    self.assertEqual(len(done.err.splitlines()), 1, done)
                self.assertTrue(all(line.startswith("lmq: ") for line in done.err.splitlines()), done)
                if words[0] == "verify" and sees_all and differs:
                    self.assertNotEqual(done.code, 0, done)

    @ctest(cost=15)
    def test_flips_of_a_file_of_ours_are_all_found(self):
        path, recipe = self.at("out.h5"), self.at("recipe.json")
        with open(recipe, "w") as file:
            json.dump(json.loads(run("inspect", VersionOne.PATH, "--json").out)["recipe"], file)
        self.ok(run("quantize", os.path.join(GOLDEN, "model.safetensors"), "-o", path, "--recipe", recipe, "--progress", "none"))
        self.check(path, 120, 1, True)

    @ctest(cost=15)
    def test_flips_of_version_1_end_with_a_line(self):
        self.check(VersionOne.PATH, 120, 2, False)

    def test_a_file_cut_anywhere_is_refused(self):
        path, cut = self.at("out.h5"), self.at("cut.h5")
        self.ok(run("quantize", os.path.join(GOLDEN, "model.safetensors"), "-o", path, "--progress", "none"))
        with open(path, "rb") as file:
            good = file.read()
        for size in [*range(0, len(good), len(good) // 25), len(good) - 1]:
            with open(cut, "wb") as file:
                file.write(good[:size])
            done = run("verify", cut)
            self.assertIn(done.code, (1, 65, 69), (size, done))


if __name__ == "__main__":
    unittest.main()
