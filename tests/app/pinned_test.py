"""Whole output files of every method have the SHA-256 that tests/data/pinned.json holds: a compiler, a library, a machine or
a change that moves one bit is seen, where tests of sameness compare runs of one machine with each other.

A change that is meant: pinned_test.py --renew (with the environment of the test, see CMakeLists.txt) writes the file anew.
"""
import json
import os
import sys
import unittest

import numpy as np

from lmq_harness import DATA, LmqTest, bf16, granularities_of, run, sha256, write_safetensors

PINNED = os.path.join(DATA, "pinned.json")
GRANULARITIES = (["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"])


def bell(count, seed):
    """Sums of four 16-bit numbers of a linear congruence, about normal: integers, so the same for any numpy."""
    states = np.empty(4 * count, np.uint64)
    state = seed
    for i in range(4 * count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        states[i] = state >> 48
    return states.reshape(count, 4).astype(np.int64).sum(axis=1) - 2 * 65535


def sample(test):
    """Two matrices, BF16 and F32, with zeros and outliers, and importance of columns for one and of weights for the other."""
    narrow, wide = bell(40 * 64, 1).astype(np.float32) * np.float32(2.0**-21), bell(32 * 96, 2).astype(np.float32) * np.float32(2.0**-22)
    narrow[::17] = 0
    wide[5::101] *= 8
    source, importance = test.at("pinned.safetensors"), test.at("importance.safetensors")
    write_safetensors(source, {"a.weight": ("BF16", (40, 64), bf16(narrow)), "b.weight": ("F32", (32, 96), wide),
                               "c.bias": ("F32", (96,), wide[:96])}, {"format": "pt"})
    write_safetensors(importance, {"a.weight": ("F32", (64,), np.abs(bell(64, 3)).astype(np.float32) + 1),
                                   "b.weight": ("F32", (32, 96), np.abs(bell(32 * 96, 4)).astype(np.float32))})
    return source, importance


def digests(test):
    """case -> SHA-256 of its output."""
    source, importance = sample(test)
    found = {}
    methods = json.loads(test.ok(run("methods", "--json")).out)["methods"]
    for method in methods:
        for granularity in granularities_of(method, GRANULARITIES):
            for weighted in ([], ["--importance", importance]):
                output = test.at("out.h5")
                test.ok(run("quantize", source, "-o", output, "--method", method["name"], *granularity, *weighted, "--resume", "never",
                            "--progress", "none", "--threads", 2))
                found[" ".join([method["name"], *granularity, *(["weighted"] if weighted else [])])] = sha256(output)
    return found


class Pinned(LmqTest):
    def test_files_have_the_digests_that_were_written_down(self):
        with open(PINNED, encoding="utf-8") as file:
            pinned = json.load(file)
        found = digests(self)
        other = sorted(case for case in {*pinned, *found} if pinned.get(case) != found.get(case))
        self.assertEqual(other, [], f"{len(other)} of {len(found)} files differ from tests/data/pinned.json; where that is meant: "
                                    "tests/app/pinned_test.py --renew")


class Renew(LmqTest):
    def runTest(self):
        found = digests(self)
        with open(PINNED, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1, sort_keys=True)
            file.write("\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--renew"]:
        sys.exit(not unittest.TextTestRunner().run(Renew()).wasSuccessful())
    unittest.main(defaultTest="Pinned")
