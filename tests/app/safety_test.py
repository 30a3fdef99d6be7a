"""What people do to a run without meaning harm: an output name that is taken, advice that is followed, inputs that are staged in
again, names of their own in our folders, signals in the first instants, limits of the shell."""
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import time
import unittest

import numpy as np

from lmq_harness import SHARDED, LmqTest, bf16, command, environment, finish, run, sha256, start, write_safetensors

NO_OUTPUT, IO, STOPPED = 73, 74, 75
PEAK_MEMORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/peak-memory")


def limited(*arguments, before=None, **streams):
    """A run for whose process `before` is called before it starts."""
    done = subprocess.run(command(arguments), stdin=subprocess.DEVNULL, env=environment(), preexec_fn=before, timeout=120,
                          **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
    return done.returncode, (done.stderr or b"").decode()


class Names(LmqTest):
    """Files of the user are never lost to ours."""

    def write(self, path, text):
        with open(path, "w") as file:
            file.write(text)

    def read(self, path):
        with open(path, "rb") as file:
            return file.read()

    def test_only_an_earlier_output_is_replaced_unasked(self):
        source = self.small_checkpoint()
        out = self.at("out.h5")
        for text in ("a text", "", "\x89HDF\r\n", "{}"):
            self.write(out, text)
            before = self.read(out)
            self.refused(run("quantize", source, "-o", out), NO_OUTPUT, "out.h5", "--force")
            self.assertEqual(self.read(out), before)
        self.assertEqual(sorted(os.listdir(self.folder)), ["out.h5", "small.safetensors"])
        self.ok(run("quantize", source, "-o", out, "--force"))
        right = sha256(out)
        self.ok(run("quantize", source, "-o", out))
        with open(out, "r+b") as file:   # a damaged output is still one of ours
            file.truncate(os.path.getsize(out) // 2)
        self.ok(run("quantize", source, "-o", out))
        self.assertEqual(sha256(out), right)

    def test_an_hdf5_file_of_someone_else_is_not_replaced(self):
        try:
            import h5py
        except ImportError:
            self.skipTest("h5py is not here")
        out = self.at("out.h5")
        with h5py.File(out, "w") as file:
            file["model_weights"] = np.ones(4, "f4")
        self.refused(run("quantize", self.small_checkpoint(), "-o", out), NO_OUTPUT, "--force")

    def test_what_the_input_consists_of_is_never_replaced(self):
        os.mkdir(self.at("m"))
        self.small_checkpoint("m/model.safetensors")
        for name in ("config.json", "tokenizer.model", "README.md"):
            self.write(self.at("m", name), "mine")
            self.refused(run("quantize", self.at("m"), "-o", self.at("m", name), "--force"), NO_OUTPUT, name, "input")
            self.assertEqual(self.read(self.at("m", name)), b"mine")
        self.refused(run("quantize", self.at("m"), "-o", self.at("m", "model.safetensors"), "--force"), 64)
        self.refused(run("quantize", self.at("m", "model.safetensors"), "-o", self.at("m", "config.json"), "--force"), NO_OUTPUT)

    def test_a_report_replaces_an_earlier_report_only(self):
        source, out, report = self.small_checkpoint(), self.at("out.h5"), self.at("report.json")
        self.write(report, '{"mine": 1}')
        self.refused(run("quantize", source, "-o", out, "--json", report), NO_OUTPUT, "report.json", "--force")
        self.ok(run("quantize", source, "-o", out, "--json", report, "--force"))
        self.ok(run("quantize", source, "-o", out, "--json", report))

    def test_no_command_writes_its_report_over_anything_else(self):
        source, out, text = self.small_checkpoint(), self.at("out.h5"), self.at("diary.txt")
        self.ok(run("quantize", source, "-o", out, "--progress", "none"))
        self.write(text, "{\n a diary")
        commands = (["inspect", out], ["inspect", source], ["plan", source], ["verify", out], ["methods", "uniform"], ["quantize", source, "--dry-run"])
        for words in commands:
            for file in (text, out, source):
                before = sha256(file)
                self.refused(run(*words, "--json", file), 73, file, "no earlier report of lmq")
                self.assertEqual(sha256(file), before)
            self.refused(run(*words, "--json", "/dev/null"), 73, "/dev/null", "no ordinary file")
            self.ok(run(*words, "--json", self.at("report.json")))  # over that of the command before
        self.refused(run("plan", source, "--json", text, ranks=2), 73, "no earlier report of lmq")

    def test_a_work_directory_may_be_any_folder_and_inputs_may_have_any_names(self):
        ours = ("lock", "spool-000001-000000", "journal-000001-000000", "lmq-spool-000001-000000", "lmq-journal-000001-000000")
        for name in ours:
            self.small_checkpoint(name)
        before = {name: sha256(self.at(name)) for name in ours}
        for name in ours:
            self.ok(run("quantize", self.at(name), "-o", self.at("out.h5"), "--work-dir", self.folder))
            self.ok(run("verify", self.at("out.h5"), "--against", self.at(name)))
        self.assertEqual({name: sha256(self.at(name)) for name in ours}, before)
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(ours + ("out.h5",)))
        os.remove(self.at("lock"))
        self.ok(run("quantize", self.at(ours[1]), "-o", self.at("lock"), "--work-dir", self.folder))
        self.ok(run("verify", self.at("lock")))
        self.refused(run("quantize", self.at(ours[1]), "-o", self.at("lmq-lock"), "--work-dir", self.folder), 64, "lmq-lock")
        self.assertFalse(os.path.exists(self.at("lmq-lock")))

    def test_a_file_of_the_user_in_the_place_of_the_lock_is_named_and_kept(self):
        source = self.small_checkpoint()
        self.write(self.at("out.h5.lmq-lock"), "my notes")
        self.refused(run("quantize", source, "-o", self.at("out.h5")), NO_OUTPUT, "out.h5.lmq-lock")
        self.assertEqual(self.read(self.at("out.h5.lmq-lock")), b"my notes")


class Advice(LmqTest):
    """A refused or interrupted run leaves nothing that refuses the corrected command, and finished work is used again."""

    def setUp(self):
        super().setUp()
        os.mkdir(self.at("m"))
        self.source, self.out = self.at("m", "model.safetensors"), self.at("out.h5")
        self.arguments = ["quantize", self.at("m"), "-o", self.out, "--levels", "16", "--granularity", "row", "--threads", "1",
                          "--progress", "none"]

    def tensors(self, seed=4, rows=384, count=24):
        draw = np.random.default_rng(seed)
        return {f"layers.{i:02}.weight": ("BF16", (rows, 512), bf16(draw.standard_normal((rows, 512)) * 0.02)) for i in range(count)}

    def leave_unfinished(self, *more):
        for pause in (0.8, 0.5, 0.3, 0.2, 0.1):
            process = start(*self.arguments, *more)
            while process.poll() is None and not self.something_finished():
                time.sleep(0.005)
            time.sleep(pause / 10)
            process.send_signal(signal.SIGTERM)
            if finish(process).code == STOPPED and self.something_finished():
                return
            if os.path.exists(self.out):
                os.remove(self.out)
        self.skipTest("every run was over before it could be stopped")

    def something_finished(self):
        folder = self.out + ".lmq-work"
        try:
            return any(os.path.getsize(os.path.join(folder, name)) > 0 for name in os.listdir(folder) if "spool" in name)
        except OSError:
            return False

    def resumed(self, done):
        self.ok(done)
        return "more were finished by an earlier run" in done.out

    def fresh(self, *more):
        """SHA-256 of the same command without anything left from before."""
        out = self.at("fresh.h5")
        self.ok(run(*[out if word == self.out else word for word in self.arguments], *more))
        digest = sha256(out)
        os.remove(out)
        return digest

    def assert_clean(self, *more):
        self.assertEqual(sorted(os.listdir(self.folder)), sorted(("m", "out.h5") + more))

    def test_the_advice_of_a_refusal_can_be_followed(self):
        tensors = self.tensors()
        bad = np.zeros((64, 64), np.float32)
        bad[3, 4] = np.nan
        tensors["zz.weight"] = ("BF16", (64, 64), bf16(bad))
        write_safetensors(self.source, tensors)
        self.refused(run(*self.arguments), 65, "--nonfinite keep")
        self.assertTrue(self.resumed(run(*self.arguments, "--nonfinite", "keep")), "finished work was thrown away")
        digest = sha256(self.out)
        self.assertEqual(digest, self.fresh("--nonfinite", "keep"))
        self.assert_clean()

    def test_the_advice_for_nan_can_be_followed_with_a_size(self):
        tensors = self.tensors(count=2)
        for method in ("kmeans", "ecsq", "waterfill"):
            for rows, words in ((64, "of the 100.0 KiB asked for this one takes 8.00 KiB"), (4096, "this one takes 512.0 KiB, more than is asked for")):
                write_safetensors(self.source, tensors | {"zz.weight": ("F32", (rows, 32), np.full((rows, 32), np.inf, "<f4"))})
                base = ("quantize", self.at("m"), "-o", self.out, "--progress", "none", "--method", method, "--target-size", "100K")
                self.refused(run(*base), 65, "--nonfinite keep", words)
                if rows == 64:
                    self.ok(run(*base, "--nonfinite", "keep"))
                else:
                    self.refused(run(*base, "--nonfinite", "keep"), 64, "cannot be reached", "at least")
                shutil.rmtree(self.out + ".lmq-work", ignore_errors=True)

    def test_an_option_that_is_refused_while_working_leaves_nothing_in_the_way(self):
        write_safetensors(self.source, self.tensors(count=2))
        base = ["quantize", self.at("m"), "-o", self.out, "--progress", "none"]
        self.refused(run(*base, "--method", "sls-l1", "--lambda-relative", "1e-9", "--levels", "4"), 64)
        self.ok(run(*base, "--method", "kmeans", "--levels", "4"))
        self.assert_clean()

    def test_bytes_that_were_staged_in_again_are_used_again(self):
        write_safetensors(self.source, self.tensors())
        right = self.fresh()
        for method in ("row", "tensor"):
            if method == "tensor":
                self.arguments[self.arguments.index("row")] = "tensor"
                right = self.fresh()
            self.leave_unfinished()
            shutil.copy(self.source, self.at("copy"))
            os.replace(self.at("copy"), self.source)
            self.assertTrue(self.resumed(run(*self.arguments)))
            self.assertEqual(sha256(self.out), right)
            self.assert_clean()
            os.remove(self.out)

    def test_values_that_changed_are_made_anew_even_under_the_old_time(self):
        write_safetensors(self.source, self.tensors())
        for preserved in (False, True):
            self.leave_unfinished()
            stat = os.stat(self.source)
            with open(self.source, "r+b") as file:   # half of the tensors become others
                size = struct.unpack("<Q", file.read(8))[0]
                file.seek(8 + size + 12 * 384 * 512 * 2)
                draw = np.random.default_rng(9 + preserved)
                file.write(bytes(bf16(draw.standard_normal((12 * 384, 512)) * 0.02)))
            if preserved:
                os.utime(self.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            self.ok(run(*self.arguments))
            self.assertEqual(sha256(self.out), self.fresh())
            self.ok(run("verify", self.out, "--against", self.at("m")))
            os.remove(self.out)

    def test_another_recipe_takes_what_is_right_for_it_and_nothing_else(self):
        write_safetensors(self.source, self.tensors())
        self.leave_unfinished()
        with open(self.at("r.json"), "w") as file:   # half of the tensors as before
            file.write('{"rules": [{"match": "layers.1*", "method": "kmeans", "levels": 8, "granularity": "row"},'
                       '{"match": "*", "method": "kmeans", "levels": 16, "granularity": "row"}]}')
        words = self.arguments[:4] + ["--recipe", self.at("r.json"), "--threads", "1", "--progress", "none"]
        self.arguments, before = words, self.arguments
        self.ok(run(*self.arguments))
        self.assertEqual(sha256(self.out), self.fresh())
        self.assert_clean("r.json")
        self.arguments = before
        self.ok(run(*self.arguments))
        self.assertEqual(sha256(self.out), self.fresh())


class FirstInstants(LmqTest):
    def test_a_signal_that_comes_while_the_program_starts_ends_it_with_75(self):
        source = self.small_checkpoint(rows=2048, cols=1024)
        hold = {signal.SIGTERM, signal.SIGUSR1, signal.SIGINT}
        for number in sorted(hold):
            process = subprocess.Popen(command(["quantize", source, "-o", self.at("out.h5"), "--granularity", "row", "--levels", "64"]),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                       env=environment(), preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, hold))
            process.send_signal(number)   # it waits until someone is there to hear it
            self.refused(finish(process), STOPPED, "run the same command again")
        self.assertEqual(os.listdir(self.folder), ["small.safetensors"])

    def test_from_the_first_library_on_signals_are_held(self):
        """Whenever the process has begun to hold signals, one that comes ends it with 75 or finds it done."""
        source = self.small_checkpoint(rows=512, cols=512)
        for turn in range(30):
            process = start("quantize", source, "-o", self.at("out.h5"))
            while process.poll() is None and not self.answers(process.pid, signal.SIGTERM):
                pass
            time.sleep(turn * 0.001)
            process.send_signal(signal.SIGTERM)
            self.assertIn(finish(process).code, (0, STOPPED))

    def answers(self, pid, number):
        try:
            with open(f"/proc/{pid}/status") as file:
                masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigBlk", "SigCgt"))]
        except OSError:
            return True
        return any(mask >> (number - 1) & 1 for mask in masks)

    def test_other_commands_end_at_a_signal_as_any_program_does(self):
        process = subprocess.Popen(command(["methods"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=environment(), preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}))
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), -signal.SIGTERM)


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

    def test_an_output_and_a_link_to_it_are_one_output(self):
        source, link = self.small_checkpoint(), self.at("link.h5")
        self.ok(run("quantize", source, "-o", self.at("out.h5"), "--bits", 6, "--progress", "none"))
        os.symlink("out.h5", link)
        self.ok(run("quantize", source, "-o", link, "--bits", 8, "--progress", "none"))
        self.assertEqual(os.readlink(link), "out.h5")
        self.ok(run("quantize", source, "-o", self.at("alone.h5"), "--bits", 8, "--progress", "none"))
        self.assertEqual(sha256(self.at("out.h5")), sha256(self.at("alone.h5")))
        with open(self.at("out.h5.lmq-lock"), "w") as lock:   # who is at work on the one is at work on the other
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = start("quantize", source, "-o", link, "--bits", 6, "--progress", "none")
            self.assertIn(b"another run is at work on it", waiting.stderr.readline())
            fcntl.flock(lock, fcntl.LOCK_UN)
            self.ok(finish(waiting))
        self.assertEqual(sorted(n for n in os.listdir(self.folder) if "lock" not in n), ["alone.h5", "link.h5", "out.h5", "small.safetensors"])

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
