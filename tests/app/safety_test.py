"""What people do to a run without meaning harm: an output name that is taken, advice that is followed, inputs that are staged in
again, names of their own in our folders, signals in the first instants."""
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
import unittest

import numpy as np

from lmq_harness import LmqTest, bf16, command, environment, finish, run, sha256, start, write_safetensors

NO_OUTPUT, STOPPED = 73, 75


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

    def test_a_report_never_replaces_what_the_run_reads(self):
        source, out = self.small_checkpoint(), self.at("out.h5")
        self.ok(run("quantize", source, "-o", out, "--progress", "none"))
        self.write(self.at("r.json"), "{}")
        self.write(self.at("i.safetensors"), "importance")
        for words in (["quantize", source, "-o", out, "--force"], ["plan", source]):
            for option, name, what in (("--recipe", "r.json", "the recipe"), ("--importance", "i.safetensors", "the importance file")):
                before = sha256(self.at(name))
                self.refused(run(*words, option, self.at(name), "--json", os.path.join(self.folder, ".", name)), 64, "--json", f"that is {what}")
                self.assertEqual(sha256(self.at(name)), before)
        self.refused(run("verify", out, "--against", source, "--json", source), 64, "that is the file to compare with")
        before = sha256(source)
        self.refused(run("quantize", source, "-o", out, "--json", source, "--force"), 64, "one of the input's files")
        os.symlink(out, self.at("link.json"))
        self.refused(run("quantize", source, "-o", out, "--json", self.at("link.json"), "--force"), 64, "that is the output")
        self.assertEqual(sha256(source), before)

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


if __name__ == "__main__":
    unittest.main()
