"""Killed at any instant, continued with other ranks: the same bytes, and never half a file under the final name."""
import os
import random
import signal
import subprocess
import time
import unittest

import numpy as np

from lmq_harness import Finished, LmqTest, bf16, command, ctest, environment, finish, lmq_processes_below, run, sha256, start, wait_until_gone, write_safetensors

LAYOUTS = [0, 2, 3]


@ctest(alone=True)   # some cases stop a run where it is by the clock
class Interruption(LmqTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.random = random.Random(11)

    def setUp(self):
        super().setUp()
        draw = np.random.default_rng(4)
        self.source = self.at("model.safetensors")
        write_safetensors(self.source, {f"layers.{i}.weight": ("BF16", (384, 512), bf16(draw.standard_normal((384, 512)) * 0.02))
                                        for i in range(24)})
        self.out = self.at("out.h5")
        self.arguments = ["quantize", self.source, "-o", self.out, "--method", "kmeans", "--levels", "16", "--granularity", "row",
                          "--progress", "none", "--force"]   # `older` is no output of ours
        began = time.monotonic()
        self.ok(run(*self.arguments, "--threads", "1"))
        self.whole = time.monotonic() - began
        self.expected = sha256(self.out)
        os.remove(self.out)

    def share_a_size(self):
        """The run of every test, with a size for the whole file: tensors are quantized more than once."""
        at = self.arguments.index("--levels")
        self.arguments[at:at + 2] = ["--bits", "3.35"]
        self.ok(run(*self.arguments, "--threads", "1"))
        self.expected = sha256(self.out)
        os.remove(self.out)

    def continue_to_the_end(self):
        self.ok(run(*self.arguments, "--threads", "2"))
        self.assertEqual(sha256(self.out), self.expected)
        self.assertFalse(os.path.exists(self.out + ".lmq-work"))
        self.assertEqual(sorted(os.listdir(self.folder)), ["model.safetensors", "out.h5"])
        os.remove(self.out)

    def wait_for_work(self, process):
        """Until the run has begun; what stops a program that is still being loaded is not ours to answer."""
        deadline = time.monotonic() + 60
        while process.poll() is None and not os.path.exists(self.out + ".lmq-work") and time.monotonic() < deadline:
            time.sleep(0.005)

    def leave_unfinished(self):
        for share in (0.3, 0.2, 0.1, 0.05, 0):
            process = start(*self.arguments, "--threads", "1")
            self.wait_for_work(process)
            time.sleep(self.whole * share)
            process.send_signal(signal.SIGTERM)
            if finish(process).code == 75:
                return
            os.remove(self.out)
        self.skipTest("every run was over before it could be stopped")

    def older(self):
        with open(self.out, "wb") as file:
            file.write(b"an older result")

    def assert_older_or_complete(self):
        with open(self.out, "rb") as file:
            older = file.read(32) == b"an older result"
        if not older:
            self.assertEqual(sha256(self.out), self.expected)
        return older

    def test_kill_9_of_one_rank_of_all_and_of_mpirun(self):
        """Many runs die one after another, each continuing what the others left; then one may end."""
        for whom in ("one", "all", "mpirun"):
            with self.subTest(whom=whom):
                self.older()
                for ranks in (2, 3, 0, 2):
                    process = start(*self.arguments, "--threads", "1", ranks=ranks)
                    time.sleep(self.whole * self.random.uniform(0.1, 0.9) / max(ranks, 1) + (0.3 if ranks else 0))
                    orphans = lmq_processes_below(process.pid) if ranks else []
                    victims = orphans or [process.pid]
                    if whom == "mpirun":
                        victims = [process.pid]
                    elif whom == "one":
                        victims = [self.random.choice(victims)]
                    for victim in victims:
                        try:
                            os.kill(victim, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                    finish(process, force=True)
                    wait_until_gone(orphans)   # ranks whose mpirun was killed notice it on their own
                    if not self.assert_older_or_complete():
                        self.older()
                self.continue_to_the_end()

    def test_a_size_that_is_shared_out_survives_kills(self):
        self.share_a_size()
        for ranks in (0, 2, 0, 3, 0):
            process = start(*self.arguments, "--threads", "1", ranks=ranks)
            time.sleep(self.whole * self.random.uniform(0.2, 2.5) / max(ranks, 1) + (0.3 if ranks else 0))
            orphans = lmq_processes_below(process.pid) if ranks else []
            for victim in orphans or [process.pid]:
                try:
                    os.kill(victim, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            finish(process, force=True)
            wait_until_gone(orphans)
            if os.path.exists(self.out):
                self.assertEqual(sha256(self.out), self.expected)
                os.remove(self.out)
        self.continue_to_the_end()

    def test_a_size_is_reached_though_histograms_and_records_were_damaged(self):
        self.share_a_size()
        damaged = 0
        for share in (0.3, 0.6, 0.9, 1.2, 1.5):
            process = start(*self.arguments, "--threads", "1")
            self.wait_for_work(process)
            time.sleep(self.whole * share)
            process.send_signal(signal.SIGTERM)
            if finish(process).code == 75:
                for name in os.listdir(self.out + ".lmq-work"):
                    if "spool" in name:
                        with open(os.path.join(self.out + ".lmq-work", name), "r+b") as file:
                            content = bytearray(file.read())
                            content[::997] = bytes(byte ^ 0x20 for byte in content[::997])
                            file.seek(0)
                            file.write(content)
                            damaged += 1
            self.continue_to_the_end()
        self.assertGreater(damaged, 0)

    def test_signals_stop_cleanly_with_75_and_no_unit_is_lost(self):
        for how, number in (("process", signal.SIGTERM), ("process", signal.SIGUSR1), ("process", signal.SIGINT), ("rank", signal.SIGUSR1),
                            ("mpirun", signal.SIGUSR1)):
            with self.subTest(how=how, number=number):
                self.older()
                ranks = 0 if how == "process" else 3
                process = start(*self.arguments, "--threads", "1", ranks=ranks)
                self.wait_for_work(process)
                time.sleep(self.whole * (0.3 if ranks == 0 else 0.1))
                target = process.pid
                if how == "rank":
                    ranks_found = lmq_processes_below(process.pid)
                    target = ranks_found[-1] if ranks_found else process.pid
                os.kill(target, number)
                done = finish(process)
                self.assertIn(done.code, (0, 75), done)
                if done.code == 75:
                    self.refused(done, 75, "run the same command again")
                    self.assertTrue(self.assert_older_or_complete())
                self.continue_to_the_end()

    def test_the_time_limit_stops_cleanly(self):
        codes = []
        for _ in range(40):
            done = run(*self.arguments, "--threads", "1", "--max-time", str(self.whole / 4 / 60))
            codes.append(done.code)
            if done.code == 0:
                break
            self.assertEqual(done.code, 75, done)
        self.assertEqual(codes[-1], 0)
        self.assertEqual(sha256(self.out), self.expected)

    def test_another_recipe_takes_nothing_wrong_from_the_first(self):
        other = [word if word != "4" else "3" for word in self.arguments]
        self.ok(run(*other))
        alone = sha256(self.out)
        self.leave_unfinished()
        self.ok(run(*other))
        self.assertEqual(sha256(self.out), alone)
        self.leave_unfinished()
        self.ok(run(*other, "--resume", "never"))
        self.assertEqual(sha256(self.out), alone)
        os.remove(self.out)
        self.continue_to_the_end()

    def test_a_changed_checkpoint_is_not_mixed_with_the_old_one(self):
        self.leave_unfinished()
        draw = np.random.default_rng(5)
        write_safetensors(self.source, {f"layers.{i}.weight": ("BF16", (384, 512), bf16(draw.standard_normal((384, 512)) * 0.02))
                                        for i in range(24)})
        self.ok(run(*self.arguments))
        self.ok(run("verify", self.out, "--against", self.source))


class Signals(LmqTest):
    """A signal that comes before the program can look at it waits, and is answered at the first chance: no timing decides."""

    def signalled(self, number, *arguments, ignored=False):
        def before():
            if ignored:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            os.kill(os.getpid(), number)
        done = subprocess.run(command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120,
                              env=environment(), preexec_fn=before)
        return Finished(done.returncode, "", done.stderr.decode())

    def test_an_export_that_is_stopped_leaves_nothing_behind(self):
        source = self.small_checkpoint()
        self.ok(run("quantize", source, "-o", self.at("q.h5"), "--progress", "none"))
        before = sorted(os.listdir(self.folder))
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
            for form, path in (("safetensors", "x"), ("safetensors", "x.safetensors"), ("gguf", "x.gguf"), ("hdf5", "x.h5")):
                done = self.signalled(number, "export", self.at("q.h5"), "--to", form, "-o", self.at(path))
                self.refused(done, 75, f"signal {int(number)}", "run the same command again")
                self.assertEqual(sorted(os.listdir(self.folder)), before)
        self.refused(self.signalled(signal.SIGTERM, "export", source, "--to", "gguf:q8_0", "-o", self.at("x.gguf")), 75, "signal 15")
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_a_signal_that_comes_when_all_is_done_kills_nothing(self):
        source = self.small_checkpoint()
        self.ok(run("quantize", source, "-o", self.at("q.h5"), "--progress", "none"))
        for turn in range(6):
            for words, out in ((("quantize", source, "--progress", "none", "-o"), "o.h5"), (("export", self.at("q.h5"), "--to", "hdf5", "-o"), "x.h5")):
                process = start(*words, self.at(out), "-q")
                while process.poll() is None and not os.path.exists(self.at(out)):   # made; what is left is the end
                    pass
                time.sleep(turn * 0.0005)
                process.send_signal(signal.SIGTERM)
                self.assertIn(finish(process).code, (0, 75))
                os.remove(self.at(out))

    def test_a_terminal_that_hangs_up_stops_a_run_but_for_nohup(self):
        words = ("quantize", self.small_checkpoint(), "-o", self.at("q.h5"), "--progress", "none")
        self.refused(self.signalled(signal.SIGHUP, *words), 75, "run the same command again")
        self.assertFalse(os.path.exists(self.at("q.h5")))
        self.ok(self.signalled(signal.SIGHUP, *words, ignored=True))
        self.ok(run("verify", self.at("q.h5")))

if __name__ == "__main__":
    unittest.main()
