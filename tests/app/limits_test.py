"""Limits of the shell and streams that end: an error is said, nothing is half done, what is finished stays a success."""
import json
import os
import re
import resource
import subprocess
import unittest

import numpy as np

from lmq_harness import SHARDED, LmqTest, bf16, command, environment, run, write_safetensors

IO = 74
PEAK_MEMORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/peak-memory")


def limited(*arguments, before=None, **streams):
    """A run for whose process `before` is called before it starts."""
    done = subprocess.run(command(arguments), stdin=subprocess.DEVNULL, env=environment(), preexec_fn=before, timeout=120,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
    return done.returncode, (done.stderr or b"").decode()


class Limits(LmqTest):
    def test_a_limit_on_file_sizes_is_an_error_that_leaves_nothing_half_done(self):
        source = self.small_checkpoint(rows=512, cols=512)
        for limit in (1, 1000, 20_000, 120_000, 150_000):
            code, error = limited("quantize", source, "-o", self.at("out.h5"), "--levels", "16", "--granularity", "row",
                                  before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            self.assertEqual(code, IO, error)
            self.assertIn("ulimit -f", error)
            left = set(os.listdir(self.folder)) - {"small.safetensors", "out.h5.lmq-work"}
            self.assertEqual(left, set())
        self.ok(run("quantize", source, "-o", self.at("out.h5"), "--levels", "16", "--granularity", "row"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["out.h5", "small.safetensors"])

    def test_too_few_file_descriptors_are_named_as_such(self):
        source, made = self.small_checkpoint(), self.at("made.h5")
        self.ok(run("quantize", source, "-o", made))
        commands = (("quantize", source, "-o", self.at("out.h5")), ("quantize", os.path.dirname(source), "-o", self.at("out.h5")),
                    ("verify", made), ("inspect", made), ("plan", source), ("export", made, "--to", "gguf", "-o", self.at("x.gguf")))
        for words in commands:
            codes = set()
            for limit in (4, 5, 6, 7, 8, 9, 10, 12, 16, 23):
                code, error = limited(*words, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
                codes.add(code)
                if code == 127:   # the system's loader did not get as far as the program
                    continue
                with self.subTest(words=words[0], limit=limit):
                    self.assertIn(code, (0, IO), error)
                    if code == IO:
                        self.assertIn("Too many open files", error)
                        self.assertIn("ulimit -n", error)
                    self.assertEqual([name for name in os.listdir(self.folder) if "lock" in name or ".part-" in name], [])
            self.assertIn(0, codes)
            self.assertIn(IO, codes)

    def peak_of(self, *arguments):
        """Peak resident bytes of a run that ends well. A child begins with its parent's peak: a small one starts it."""
        done = subprocess.run([PEAK_MEMORY, self.at("peak"), *command(arguments)], stdin=subprocess.DEVNULL,
                              env=environment(), timeout=120, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.at("peak.0")) as file:
            return int(file.read())

    def peak_of_verify(self, *arguments):
        """Of `lmq verify`, which finds no difference."""
        return self.peak_of("verify", *arguments)

    def test_a_run_stays_below_what_plan_says_and_not_far_below(self):
        rng = np.random.default_rng(5)
        small = {f"t{i:03}": ("BF16", [32, 48], bf16(rng.standard_normal((32, 48)))) for i in range(1000)}
        write_safetensors(self.at("small.safetensors"), small)
        write_safetensors(self.at("few.safetensors"), dict(list(small.items())[:40]))
        long = {"w": ("F32", [2, 1 << 18], rng.standard_normal((2, 1 << 18), dtype=np.float32).tobytes())}
        write_safetensors(self.at("long.safetensors"), long)
        for name, *options in (("small",), ("small", "-m", "kmeans", "--granularity", "row"), ("long",),
                               ("long", "-m", "kmeans", "--granularity", "row"), ("long", "--bits", 3),
                               ("few", "-m", "kmeans", "--granularity", "row", "--bits", 5)):
            job = [self.at(name + ".safetensors"), "--threads", 1, *options]
            planned = json.loads(self.ok(run("plan", *job, "--json")).out)["memory_per_rank_bytes"]
            peak = self.peak_of("quantize", *job, "-o", self.at("out.h5"), "--memory", planned, "--quiet")
            self.assertLessEqual(peak, planned, (name, options))
            self.assertLessEqual(planned, 2 * peak, (name, options))

    def test_verify_reads_the_list_of_codebooks_once(self):
        try:
            import h5py
        except ImportError:
            self.skipTest("h5py is not here")
        source, out = self.at("m.safetensors"), self.at("m.h5")
        rng = np.random.default_rng(6)
        write_safetensors(source, {f"t{i}": ("F32", [64, 64], rng.standard_normal((64, 64), dtype=np.float32).tobytes())
                                   for i in range(5)})
        self.ok(run("quantize", source, "-o", out, "--method", "kmeans", "--levels", 16))
        with h5py.File(out) as file:
            place = file["lmq/codebooks"].id.get_chunk_info(0)
        with open(out, "r+b") as file:
            file.seek(place.byte_offset)
            file.write(bytes(place.size))
        done = run("verify", out, "--against", source)
        self.assertEqual(done.code, 1, done)
        self.assertEqual(done.told.count("/lmq/codebooks: the deflated bytes are damaged"), 1, done)

    def test_verify_decodes_long_records_in_pieces(self):
        # Rows of 2^24 equal weights: records of some hundred bytes that stand for 64 MiB of floats each.
        cols = 1 << 24
        source, small = self.at("equal.safetensors"), self.at("small.safetensors")
        write_safetensors(source, {"w": ("BF16", [2, cols], bytes(4 * cols))})
        write_safetensors(small, {"w": ("BF16", [64, 64], bytes(2 * 64 * 64))})
        for name in (source, small):
            self.ok(run("quantize", name, "-o", name + ".h5", "--method", "uniform", "--levels", 2, "--granularity", "row"))
        least = self.peak_of_verify(small + ".h5", "--threads", 2)
        self.assertLess(os.path.getsize(source + ".h5"), 1 << 16)
        self.assertLess(self.peak_of_verify(source + ".h5", "--threads", 2) - least, 24 << 20)

    def test_verify_stays_within_memory_or_says_what_it_needs(self):
        self.ok(run("quantize", SHARDED, "-o", self.at("m.h5"), "--method", "kmeans", "--levels", 4))
        with open(self.at("m.h5"), "r+b") as file:  # a difference to be found by all
            file.seek(os.path.getsize(self.at("m.h5")) // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 0x20]))
        verify = ["verify", self.at("m.h5"), "--against", SHARDED, "--json"]
        found = {}
        for threads, memory in ((1, None), (1, "64M"), (4, "64M"), (4, "1G")):
            done = run(*verify, "--threads", threads, *(["--memory", memory] if memory else []))
            self.assertEqual(done.code, 1, done)
            found[threads, memory] = json.loads(done.out)["differences"]
        self.assertEqual(len(set(map(str, found.values()))), 1, found)
        done = run(*verify, "--memory", "2M")
        self.assertEqual(done.code, 64, done)
        self.assertRegex(done.err, r"--memory 2\.00 MiB: a rank needs [0-9.]+ MiB")

    def test_a_finished_file_is_success_whatever_becomes_of_standard_output(self):
        source = self.small_checkpoint()
        code, error = limited("quantize", source, "-o", self.at("out.h5"), before=lambda: os.close(1), stdout=None)
        self.assertEqual(code, 0, error)
        self.assertIn("complete", error)
        with open("/dev/full", "wb") as full:
            code, error = limited("quantize", source, "-o", self.at("out.h5"), stdout=full)
        self.assertEqual(code, 0, error)
        self.assertIn("complete", error)
        self.ok(run("verify", self.at("out.h5"), "--against", source))
        export = ("export", self.at("out.h5"), "--to", "gguf", "-o", self.at("x.gguf"))
        ends = os.pipe()
        os.close(ends[0])
        with open("/dev/full", "wb") as full, os.fdopen(ends[1], "wb") as closed:
            for streams in ({"before": lambda: os.close(1), "stdout": None}, {"stdout": full}, {"stdout": closed}):
                code, error = limited(*export, **streams)
                self.assertEqual(code, 0, error)
                self.assertEqual("complete" in error, streams != {"stdout": closed}, error)  # who left has seen enough
                os.remove(self.at("x.gguf"))
            # A report that was asked for is what the command was for.
            for words in (("quantize", source, "-o", self.at("out.h5")), export, ("inspect", self.at("out.h5"))):
                code, error = limited(*words, "--json", "-", stdout=full)
                self.assertEqual(code, IO, error)
                self.assertIn("standard output", error)

    def test_a_link_at_the_name_of_an_export_is_not_lost(self):
        self.ok(run("quantize", self.small_checkpoint(), "-o", self.at("out.h5"), "--progress", "none"))
        for form in ("safetensors", "gguf", "hdf5"):
            for name in ("link", "link.safetensors"):
                os.symlink("nowhere", self.at(name))
                self.refused(run("export", self.at("out.h5"), "--to", form, "-o", self.at(name)), 73, name)
                self.assertEqual(os.readlink(self.at(name)), "nowhere")
                os.remove(self.at(name))
        self.assertEqual(sorted(os.listdir(self.folder)), ["out.h5", "small.safetensors"])

    def test_a_link_at_the_name_of_an_output_or_report_is_not_lost(self):
        source, link = self.small_checkpoint(), self.at("link")
        os.symlink("nowhere", link)
        for words in (("quantize", source, "-o", link), ("quantize", source, "-o", self.at("out.h5"), "--json", link), ("plan", source, "--json", link)):
            self.refused(run(*words), 73, "link", "exists and is no earlier")
            self.assertEqual(os.readlink(link), "nowhere")
        self.assertEqual(sorted(os.listdir(self.folder)), ["link", "small.safetensors"])
        self.ok(run("quantize", source, "-o", link, "--force", "--progress", "none"))
        self.ok(run("verify", link, "--against", source))

    def test_the_verdict_is_the_exit_code_whatever_becomes_of_standard_output(self):
        source, other = self.small_checkpoint(), self.small_checkpoint("other.safetensors", seed=2)
        self.ok(run("quantize", source, "-o", self.at("out.h5"), "--progress", "none"))
        ends = os.pipe()
        os.close(ends[0])
        with open("/dev/full", "wb") as full, os.fdopen(ends[1], "wb") as left:
            for against, verdict, said in ((source, 0, "no difference"), (other, 1, "differences")):
                words = ("verify", self.at("out.h5"), "--against", against)
                code, error = limited(*words, before=lambda: os.close(1), stdout=None)
                self.assertEqual(code, verdict, error)
                self.assertIn("standard output is closed", error)
                self.assertIn(said, error)
                self.assertEqual(limited(*words, stdout=left), (verdict, ""))
                self.assertEqual(limited(*words, stdout=full)[0], IO)
            for words in (("inspect", source), ("plan", source), ("inspect", self.at("out.h5"), "--json", "-"), ("--help",), ("methods",)):
                self.assertEqual(limited(*words, stdout=left), (0, ""))  # as with head: who left has seen enough
                self.assertEqual(limited(*words, stdout=full)[0], IO)

    def test_several_tensors_take_the_advice_of_sparse_least_squares_at_once(self):
        draw = np.random.default_rng(5)
        source = self.at("model.safetensors")
        write_safetensors(source, {f"l{i}.weight": ("F32", (64, 64), (draw.standard_normal((64, 64)) * (i + 1)).astype("<f4"))
                                   for i in range(4)})
        for method in ("sls-l1", "sls-l1l2"):
            for how in (("--lambda", "1e-9"), ("--lambda-relative", "1e-9"), ("--lambda", "1e-9", "--levels", "16")):
                words = ("quantize", source, "-o", self.at("out.h5"), "--method", method)
                done = run(*words, *how)
                self.refused(done, 64, "tensor 'l0.weight'", how[0][2:])
                levels = re.search(r"levels (\d+) instead of it", done.err)[1]
                self.ok(run(*words, "--levels", levels))


if __name__ == "__main__":
    unittest.main()
