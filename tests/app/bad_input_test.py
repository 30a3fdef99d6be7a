"""What goes wrong with inputs and outputs: one line that names the place, the right exit code, and the older output intact."""
import json
import os
import resource
import shutil
import struct
import subprocess
import unittest

import numpy as np

from lmq_harness import LMQ, STORIES, LmqTest, bf16, environment, read_safetensors, run, sha256, write_safetensors


class BadInput(LmqTest):
    def setUp(self):
        super().setUp()
        self.out = self.at("out.h5")
        self.older()

    def older(self):
        with open(self.out, "wb") as file:
            file.write(b"an older result")

    def quantize(self, source, *more, **how):
        return run("quantize", source, "-o", self.out, "--progress", "none", "--resume", "never", "--force", *more, **how)

    def refused_and_older_stays(self, done, code, *words):
        self.refused(done, code, *words)
        with open(self.out, "rb") as file:
            self.assertEqual(file.read(), b"an older result")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("out.h5.") and not n.endswith("lmq-work")])

    def test_nan_is_refused_with_its_place_or_kept(self):
        values = np.random.default_rng(1).standard_normal((3, 70, 50)).astype(np.float32)
        for ranks in (0, 3):
            for bad, dtype in ((np.nan, "BF16"), (np.inf, "F32"), (-np.inf, "F32")):
                broken = values.copy()
                broken[1, 33, 7] = bad
                source = self.at("nan.safetensors")
                encode = bf16 if dtype == "BF16" else lambda v: v
                write_safetensors(source, {"good.weight": (dtype, (70, 50), encode(values[0])),
                                           "bad.weight": (dtype, values.shape, encode(broken))})
                self.refused_and_older_stays(self.quantize(source, ranks=ranks), 65, "bad.weight", str((1 * 70 + 33) * 50 + 7))
                self.ok(self.quantize(source, "--nonfinite", "keep", ranks=ranks))
                kept = {t["name"]: t for t in json.loads(run("inspect", self.out, "--json").out)["tensors"]}
                self.assertEqual(kept["bad.weight"]["method"], "raw")
                self.assertNotEqual(kept["good.weight"]["method"], "raw")
                self.ok(run("verify", self.out, "--against", source))
                self.older()

    def test_weights_as_large_as_floats_go_are_quantized_or_refused_by_name(self):
        most = np.finfo(np.float32).max
        rng = np.random.default_rng(5)
        normal = rng.standard_normal((64, 64)).astype(np.float32)
        outlier = normal.copy()
        outlier[0, 0], outlier[1, 1] = most, -most
        huge = {"normal": normal / np.abs(normal).max() * most, "outlier": outlier, "signs": np.where(normal > 0, most, -most)}
        wanted = ([], ["--bits", 12], ["--method", "ecsq-uniform", "--rate", 4], ["--method", "ecsq-uniform", "--rate", 4, "--cuts", "plain"],
                  ["--method", "waterfill", "--rate", 4], ["--method", "uniform", "--levels", 17, "--level-type", "f16"])
        for name, values in huge.items():
            source = self.at(name + ".safetensors")
            write_safetensors(source, {"w": ("F32", values.shape, values.astype("<f4"))})
            for options in wanted:
                with self.subTest(values=name, options=options):
                    self.older()
                    done = self.quantize(source, *options)
                    if done.code == 0:
                        self.ok(run("verify", self.out, "--against", source))
                    else:
                        self.refused_and_older_stays(done, 64)
                        self.assertRegex(done.err, "tensor 'w': its weights are too large|cannot be reached")

    def test_odd_tensors_pass_through(self):
        random = np.random.default_rng(2)
        source = self.at("odd.safetensors")
        tensors = {
            "scalar": ("F32", (), np.float32(3.5).tobytes()),
            "empty": ("F32", (0,), b""),
            "empty.matrix": ("BF16", (0, 64), b""),
            "ints": ("I64", (5,), np.arange(5).tobytes()),
            "flags": ("BOOL", (7,), bytes([1, 0, 1, 1, 0, 0, 1])),
            "bytes": ("U8", (4096,), bytes(range(256)) * 16),
            "one": ("F16", (1, 1), np.float16(0.5).tobytes()),
            "constant": ("F32", (64, 64), np.full((64, 64), 0.25, np.float32)),
            "zeros": ("BF16", (64, 64), bytes(8192)),
            "gewichte/größe/重み.w": ("F32", (40, 41), random.standard_normal((40, 41)).astype(np.float32)),
            "name with spaces \u00e9 'quoted' \"twice\"": ("F32", (33, 40), random.standard_normal((33, 40)).astype(np.float32)),
            "subnormal": ("F32", (64, 32), (random.standard_normal((64, 32)) * 1e-41).astype(np.float32)),
            "huge": ("F32", (64, 32), (random.standard_normal((64, 32)) * 1e37).astype(np.float32)),
            "double": ("F64", (64, 32), random.standard_normal((64, 32))),
            "tall": ("F16", (2000, 1), random.standard_normal((2000, 1)).astype(np.float16)),
            "five": ("F32", (3, 2, 4, 5, 20), random.standard_normal((3, 2, 4, 5, 20)).astype(np.float32)),
        }
        write_safetensors(source, tensors)
        for method in ("kmeans", "uniform"):
            for granularity in (["--granularity", "tensor"], ["--granularity", "row"], ["--group", "16"]):
                with self.subTest(method=method, granularity=granularity):
                    self.ok(self.quantize(source, "--method", method, *granularity))
                    self.ok(run("verify", self.out, "--against", source))
        self.ok(run("export", self.out, "--to", "safetensors", "-o", self.at("x.safetensors")))
        back, _ = read_safetensors(self.at("x.safetensors"))
        for name, (dtype, shape, blob) in tensors.items():
            self.assertEqual(back[name][:2], (dtype, shape))
        for name in ("scalar", "empty", "ints", "flags", "bytes", "constant", "zeros"):
            self.assertEqual(back[name][2], bytes(tensors[name][2]), name)

    def test_names_that_hdf5_cannot_hold_side_by_side_are_refused(self):
        blob = np.zeros((40, 40), np.float32)
        for names, words in ((("a", "a/b"), ("a/b",)), (("a//b",), ("a//b",)), (("lmq/x",), ("lmq",)), (("/a",), ("/a",))):
            with self.subTest(names=names):
                source = self.at("names.safetensors")
                write_safetensors(source, {name: ("F32", (40, 40), blob) for name in names})
                self.refused_and_older_stays(self.quantize(source), 69, *words)

    def test_a_broken_checkpoint_is_refused_with_what_was_found(self):
        good = self.small_checkpoint()
        with open(good, "rb") as file:
            content = file.read()
        source = self.at("broken.safetensors")
        for what, bytes_ in (("cut", content[:-1]), ("longer", content + b"x"), ("no header", content[:5]), ("empty", b""),
                             ("length", struct.pack("<Q", 1 << 60) + content[8:]), ("text", b"hello world, this is no checkpoint")):
            with self.subTest(what=what):
                with open(source, "wb") as file:
                    file.write(bytes_)
                done = self.quantize(source)
                self.assertIn(done.code, (65, 69), done)
                self.refused_and_older_stays(done, done.code, "broken.safetensors")
        folder = self.at("nothing")
        os.mkdir(folder)
        done = self.quantize(folder)
        self.assertIn(done.code, (65, 66, 69), done)
        self.refused_and_older_stays(done, done.code, "nothing")

    def test_an_output_that_cannot_be_is_refused_before_any_work(self):
        source = self.small_checkpoint()
        before = sha256(source)
        shutil.copytree(STORIES, self.at("model"))
        shard = self.at("model", "model.safetensors")
        os.symlink(source, self.at("link.h5"))
        for out, code, words in ((source, 64, ["input"]), (self.at("link.h5"), 64, ["input"]), (self.folder, 73, ["folder"]),
                                 (self.at("no", "x.h5"), 73, ["does not exist"]), (os.path.join(self.out, "x.h5"), 73, ["out.h5"]),
                                 ("/proc/x.h5", 73, ["/proc"]), ("/dev/null", 73, ["/dev/null"])):
            with self.subTest(out=out):
                self.refused(run("quantize", source, "-o", out, "--progress", "none"), code, *words)
        self.refused(run("quantize", self.at("model"), "-o", shard), 64, "input")
        self.refused_and_older_stays(self.quantize(source, "--json", self.at("no", "r.json")), 73, "--json")
        self.refused_and_older_stays(self.quantize(source, "--json", self.out), 64, "--json")
        self.refused_and_older_stays(self.quantize(source, "--work-dir", source), 73, "--work-dir")
        self.assertEqual(before, sha256(source))

    def test_a_recipe_that_cannot_apply_is_refused_with_its_word(self):
        source = self.small_checkpoint()
        for text, words in (('{"rules": [', ("recipe.json",)), ('{"rulez": []}', ("rulez", "rules")),
                            ('{"rules": [{"match": "*", "levels": 1}]}', ("levels",))):
            with open(self.at("recipe.json"), "w") as file:
                file.write(text)
            self.refused_and_older_stays(self.quantize(source, "--recipe", self.at("recipe.json"), ranks=2 if "z" in text else 0), 64, *words)

    def test_importance_of_wrong_numbers_or_shape_is_refused_with_its_tensor(self):
        source = self.small_checkpoint()
        importance = self.at("importance.safetensors")
        ones = np.ones(48, np.float32)
        for values, shape, words in ((-ones, (48,), ["block.0.weight"]), (ones * np.nan, (48,), ["block.0.weight"]),
                                     (ones[:47], (47,), ["block.0.weight"])):
            write_safetensors(importance, {"block.0.weight": ("F32", shape, values)})
            self.refused_and_older_stays(self.quantize(source, "--importance", importance), 65, *words)

    def full(self, source, limit):
        """The run under a limit of file size: writes beyond it fail as on a full disk."""
        def lower():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        done = subprocess.run([LMQ, "quantize", source, "-o", self.out, "--progress", "none", "--levels", "256"], env=environment(), preexec_fn=lower,
                              stdin=subprocess.DEVNULL, capture_output=True)
        from lmq_harness import Finished
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def test_running_out_of_space_leaves_the_older_file(self):
        source = self.small_checkpoint(rows=512, cols=512)
        for limit in (0, 4096, 100_000, 300_000, 500_000):
            with self.subTest(limit=limit):
                done = self.full(source, limit)
                self.assertIn(done.code, (73, 74), done)
                self.refused_and_older_stays(done, done.code, "out.h5")
        self.ok(self.quantize(source, "--levels", "256"))
        self.ok(run("verify", self.out, "--against", source))

    def test_a_full_disk_is_said_and_a_smaller_file_still_fits(self):
        disk = self.at("disk")
        os.mkdir(disk)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True).returncode != 0:
            self.skipTest("a small tmpfs cannot be mounted here")
        self.addCleanup(subprocess.run, ["umount", "-l", disk])
        source = self.small_checkpoint(rows=512, cols=512)
        out = os.path.join(disk, "out.h5")
        self.refused(run("quantize", source, "-o", out, "--levels", "256", "--progress", "none", ranks=2), 74, "disk")
        self.assertFalse([n for n in os.listdir(disk) if n != "out.h5.lmq-work"])
        shutil.rmtree(out + ".lmq-work")
        self.ok(run("quantize", source, "-o", out, "--levels", "2", "--work-dir", self.at("work"), "--progress", "none"))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        self.refused(run("quantize", source, "-o", out, "--levels", "2", "--progress", "none"), 73, "disk")
        self.ok(run("verify", out, "--against", source))


if __name__ == "__main__":
    unittest.main()
