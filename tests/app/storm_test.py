"""Many starts and kills for one output at once: whoever ends with 0 has left the right file under the final name.

Environment beside that of lmq_harness: LMQ_STORM_SECONDS, how long to go on (default 20), LMQ_STORM_SEED.
"""
import os
import random
import signal
import time
import unittest

import numpy as np

from lmq_harness import LmqTest, bf16, run, sha256, start, write_safetensors

SECONDS = float(os.environ.get("LMQ_STORM_SECONDS", "20"))
SEED = int(os.environ.get("LMQ_STORM_SEED", "3"))
WORK_DIRS = (None, None, "work-a", "work-b", "work-c")   # None: the default one
BUSY, STOPPED, KILLED = 73, 75, -signal.SIGKILL
TOO_EARLY = -signal.SIGTERM   # the system was still loading the program: nobody was there to answer


class Storm(LmqTest):
    def setUp(self):
        super().setUp()
        draw = np.random.default_rng(4)
        self.source = self.at("model.safetensors")
        write_safetensors(self.source, {f"layers.{i:03}.weight": ("BF16", (64, 96), bf16(draw.standard_normal((64, 96)) * 0.02))
                                        for i in range(300)})
        self.out = self.at("out.h5")
        self.ok(run(*self.arguments(self.at("expected.h5"))))
        self.expected = sha256(self.at("expected.h5"))
        os.remove(self.at("expected.h5"))

    def arguments(self, out, work_dir=None):
        words = ["quantize", self.source, "-o", out, "--levels", "16", "--granularity", "row", "--progress", "none", "--threads", "1"]
        return words + (["--work-dir", self.at(work_dir)] if work_dir else [])

    def look_at_the_end_of(self, process, ends):
        code = process.wait()
        error = process.stderr.read().decode()
        process.stderr.close()
        ends[code] = ends.get(code, 0) + 1
        self.assertIn(code, (0, BUSY, STOPPED, KILLED, TOO_EARLY), error)
        if code == 0:
            self.assertEqual(sha256(self.out), self.expected, "a run ended with 0 beside a wrong file")
        if code == BUSY:
            self.assertRegex(error, r"process \d+ on \S+ is at work|has taken over")

    def test_whoever_ends_with_0_has_left_the_right_file(self):
        draw = random.Random(SEED)
        ends, alive, deadline = {}, [], time.monotonic() + SECONDS
        while time.monotonic() < deadline or alive:
            going_on = time.monotonic() < deadline
            if going_on and len(alive) < 5:
                alive.append(start(*self.arguments(self.out, draw.choice(WORK_DIRS)),
                                   *(["--resume", "never"] if draw.random() < 0.2 else [])))
            if going_on and alive and draw.random() < 0.3:
                alive[draw.randrange(len(alive))].send_signal(draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            time.sleep(draw.uniform(0, 0.15))
            for process in [process for process in alive if process.poll() is not None]:
                alive.remove(process)
                self.look_at_the_end_of(process, ends)
        print("ends by exit code:", ends)
        self.ok(run(*self.arguments(self.out)))
        self.assertEqual(sha256(self.out), self.expected)
        left = [name for name in os.listdir(self.folder) if ".part-" in name or name.endswith(".lmq-lock")]
        self.assertEqual(left, [])

    def test_of_many_starts_at_one_instant_one_works_and_the_others_say_who(self):
        processes = [start(*self.arguments(self.out, f"work-{i % 3}" if i % 2 else None)) for i in range(5)]
        ends = {}
        for process in processes:
            self.look_at_the_end_of(process, ends)
        self.assertEqual(set(ends), {0})     # a small model: who waits learns that it is done
        self.assertEqual(sorted(os.listdir(self.folder)), ["model.safetensors", "out.h5"])

    def test_several_outputs_may_share_a_work_directory(self):
        """One works, the others wait; each removes the folder at its end, under those that wait."""
        outs = [self.at(f"out{i}.h5") for i in range(3)]
        for rounds in range(2):
            processes = [start(*self.arguments(out, "shared")) for out in outs]
            if rounds == 1:
                processes[0].send_signal(signal.SIGKILL)
            for process, out in zip(processes, outs):
                code, error = process.wait(), process.stderr.read().decode()
                process.stderr.close()
                if code == BUSY:   # a slow machine: it has waited for long enough
                    self.assertRegex(error, r"the work directory \S+shared: .* at work on it")
                else:
                    self.assertEqual(code, KILLED if rounds == 1 and out == outs[0] and code else 0, error)
                if code == 0:
                    self.assertEqual(sha256(out), self.expected)
                    os.remove(out)
        self.ok(run(*self.arguments(self.out, "shared")))
        self.assertEqual(sha256(self.out), self.expected)

    def test_of_two_exports_to_one_name_each_is_whole_and_nothing_of_the_users_is_touched(self):
        other = self.at("other.h5")
        self.ok(run(*self.arguments(self.out)))
        self.ok(run("quantize", self.source, "-o", other, "--levels", "4", "--granularity", "row", "--progress", "none"))
        for to, name in (("gguf", "x.gguf"), ("hdf5", "x.hdf5"), ("safetensors", "x.safetensors")):
            mine = self.at(name + ".lmq-partial")
            with open(mine, "w") as file:
                file.write("precious")
            digests = set()
            for source in (self.out, other):
                self.ok(run("export", source, "--to", to, "-o", self.at(name)))
                digests.add(sha256(self.at(name)))
                os.remove(self.at(name))
            for _ in range(4):
                processes = [start("export", source, "--to", to, "-o", self.at(name)) for source in (self.out, other)]
                for process in processes:
                    self.assertEqual(process.wait(), 0, process.stderr.read().decode())
                    process.stderr.close()
                self.assertIn(sha256(self.at(name)), digests)
                os.remove(self.at(name))
            with open(mine) as file:
                self.assertEqual(file.read(), "precious")
        self.assertEqual([name for name in os.listdir(self.folder) if ".lmq-partial-" in name], [])


if __name__ == "__main__":
    unittest.main()
