"""Whole output files of every method have the SHA-256 that tests/data/pinned.json holds: a compiler, a library, a machine or
a change that moves one bit is seen, where tests of sameness compare runs of one machine with each other.

A change that is meant, and the digests of a new method: pinned_test.py --renew (with the environment of the test, see
CMakeLists.txt) writes the file anew. Until then a method without digests is named and passed over.
"""
import json
import os
import sys
import unittest

import numpy as np

from lmq_harness import DATA, LmqTest, bf16, ctest, granularities_of, run, sha256, write_safetensors

PINNED = os.path.join(DATA, "pinned.json")
GRANULARITIES = (["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"])
CODERS = ("fixed", "rans", "huffman")


def bell(count, seed):
    """Sums of four 16-bit numbers of a linear congruence, about normal: integers, so the same for any numpy."""
    states = np.empty(4 * count, np.uint64)
    state = seed
    for i in range(4 * count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        states[i] = state >> 48
    return states.reshape(count, 4).astype(np.int64).sum(axis=1) - 2 * 65535


def gram(size, seed):
    """A product of integers with itself, so exact before it is rounded to F32 once. [size, size]"""
    samples = bell(2 * size * size, seed).reshape(2 * size, size) >> 8
    return (samples.T @ samples).astype(np.float32)


class Sample:
    """Checkpoints and importance of a few thousand weights, in the folder of a test."""

    def __init__(self, test):
        narrow, wide = bell(40 * 64, 1).astype(np.float32) * np.float32(2.0**-21), bell(32 * 96, 2).astype(np.float32) * np.float32(2.0**-22)
        narrow[::17] = 0
        wide[5::101] *= 8
        self.source, self.halves, self.others, self.importance, self.matrices = (
            test.at(name) for name in ("pinned.safetensors", "halves.safetensors", "others.safetensors", "importance.safetensors", "gram.safetensors"))
        write_safetensors(self.source, {"a.weight": ("BF16", (40, 64), bf16(narrow)), "b.weight": ("F32", (32, 96), wide),
                                        "c.bias": ("F32", (96,), wide[:96])}, {"format": "pt"})
        write_safetensors(self.halves, {"a.weight": ("F16", (40, 64), narrow.astype("<f2")), "b.weight": ("F16", (32, 96), wide.astype("<f2"))})
        codes = (bell(32 * 64, 5) & 0x7F).astype(np.uint8) % 0x7F  # E4M3, finite and from 0
        write_safetensors(self.others, {"d.weight": ("F64", (32, 96), wide.astype("<f8") / 3), "e.weight": ("F8_E4M3", (32, 64), codes),
                                        "e.weight_scale": ("F32", (1,), np.float32([0.0078125]))})
        write_safetensors(self.importance, {"a.weight": ("F32", (64,), np.abs(bell(64, 3)).astype(np.float32) + 1),
                                            "b.weight": ("F32", (32, 96), np.abs(bell(32 * 96, 4)).astype(np.float32))})
        blocks = lambda count, seed: np.stack([gram(8, seed + i) for i in range(count)])
        matrices = {"a.weight.gram": gram(64, 6), "a.weight.outer": blocks(5, 7), "b.weight.gram": gram(96, 17), "b.weight.outer": blocks(4, 27)}
        write_safetensors(self.matrices, {name: ("F32", values.shape, values) for name, values in matrices.items()})

    def cases(self, method):
        """(name, source, arguments) of what is pinned for an entry of `lmq methods --json`."""
        for granularity in granularities_of(method, GRANULARITIES):
            for weighted in (False, True):
                yield " ".join([*granularity, *(["weighted"] if weighted else [])]), self.source, [*granularity, *(["--importance", self.importance] if weighted else [])]
        if method["sees"] != "values":
            yield "gram", self.source, ["--importance", self.matrices, *(["--granularity", "row"] if method["sees"] == "rows" else [])]
        if method["name"] == "kmeans":   # what is the same code for all of them
            yield "--target-size 5000", self.source, ["--target-size", "5000"]
            yield "--granularity model of F16", self.halves, ["--granularity", "model"]
            yield "F64 and FP8", self.others, ["--granularity", "row"]
            for coder in CODERS:
                yield f"--coder {coder}", self.source, ["--coder", coder]


def methods_of(test):
    return json.loads(test.ok(run("methods", "--json")).out)["methods"]


def digests(test, methods):
    """method -> case -> SHA-256 of its output."""
    sample, output = Sample(test), test.at("out.h5")
    found = {}
    for method in methods:
        for case, source, arguments in sample.cases(method):
            test.ok(run("quantize", source, "-o", output, "--method", method["name"], *arguments, "--resume", "never", "--progress", "none",
                        "--threads", 2))
            found.setdefault(method["name"], {})[case] = sha256(output)
    return found


def differences(pinned, found):
    """Cases of other digests than those that were written down, of methods that have some; and the methods that have none."""
    other = [f"{method} {case}" for method in pinned for case in {*pinned[method], *found.get(method, {})}
             if pinned[method].get(case) != found.get(method, {}).get(case)]
    return sorted(other), sorted(found.keys() - pinned.keys())


def written_down():
    with open(PINNED, encoding="utf-8") as file:
        return json.load(file)


class Pinned(LmqTest):
    @ctest(cost=12)
    def test_files_have_the_digests_that_were_written_down(self):
        found = digests(self, methods_of(self))
        other, fresh = differences(written_down(), found)
        if fresh:
            print(f"no digests of {', '.join(fresh)}: tests/app/pinned_test.py --renew writes them", file=sys.stderr)
        self.assertEqual(other, [], f"{len(other)} files differ from tests/data/pinned.json; where that is meant: tests/app/pinned_test.py --renew")

    def test_a_digest_that_differs_a_case_that_is_gone_and_a_method_that_is_gone_are_seen(self):
        pinned = {"one": {"x": "1", "y": "2"}, "two": {"x": "3"}}
        self.assertEqual(differences(pinned, pinned), ([], []))
        self.assertEqual(differences(pinned, {**pinned, "new": {"x": "4"}}), ([], ["new"]))
        self.assertEqual(differences(pinned, {"one": {"x": "0"}}), (["one x", "one y", "two x"], []))
        self.assertEqual(differences(pinned, {"one": {"x": "1", "y": "2", "z": "5"}, "two": {"x": "3"}}), (["one z"], []))


def renew():
    test = LmqTest()
    test.setUp()
    try:
        found = digests(test, methods_of(test))
    finally:
        test.doCleanups()
    with open(PINNED, "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    if sys.argv[1:] == ["--renew"]:
        sys.exit(renew())
    unittest.main()
