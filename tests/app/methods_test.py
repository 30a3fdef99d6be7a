"""Every method that `lmq methods` lists, end to end: one SHA-256 for any ranks, threads and instruction set at every granularity,
verified against the source, and planned for. The program is one with a method of its own (tests/quant/example): a new line in
the table of methods is tried here by itself."""
import json
import os
import re
import unittest

import numpy as np

import pinned_test
from lmq_harness import LmqTest, bf16, ctest, granularities_of, options_page, run, sha256, write_safetensors

GRANULARITIES = (["--granularity", "model"], ["--granularity", "tensor"], ["--granularity", "row"], ["--group", "32"])


class Methods(LmqTest):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(5)
        self.source, self.alike, self.importance = (self.at(name) for name in ("two.safetensors", "alike.safetensors", "importance.safetensors"))
        narrow, wide = bf16(random.standard_normal((64, 48)) * 0.02), (random.standard_normal((24, 40)) * 0.03).astype(np.float32)
        write_safetensors(self.source, {"block.0.weight": ("BF16", (64, 48), narrow), "block.1.weight": ("F32", wide.shape, wide)})
        write_safetensors(self.alike, {"block.0.weight": ("BF16", (64, 48), narrow), "block.1.weight": ("BF16", wide.shape, bf16(wide))})
        write_safetensors(self.importance, {"block.0.weight": ("F32", (48,), random.random(48, np.float32)),
                                            "block.1.weight": ("F32", wide.shape, random.random(wide.shape, np.float32))})
        self.methods = json.loads(self.ok(run("methods", "--json")).out)["methods"]

    def digest(self, source, arguments, ranks, threads, isa):
        output = self.at("out.h5")
        extra = {"LMQ_ISA": isa} if isa else {}
        self.ok(run("quantize", source, "-o", output, *arguments, "--resume", "never", "--progress", "none", "--threads", threads,
                    ranks=ranks, **extra))
        return sha256(output)

    @ctest(cost=45)
    def test_every_method_gives_the_same_file_on_any_layout(self):
        for number, method in enumerate(self.methods):
            granularities = granularities_of(method, GRANULARITIES)
            for place, granularity in enumerate(granularities):
                for weighted in ([], ["--importance", self.importance]):
                    with self.subTest(method=method["name"], granularity=granularity, weighted=bool(weighted)):
                        source = self.alike if "model" in granularity else self.source   # types that share a codebook are one
                        arguments = ["--method", method["name"], *granularity, *weighted]
                        over = ((0, 2, ""), (0, 1, "AVX2" if weighted else "baseline"))
                        found = {layout: self.digest(source, arguments, *layout) for layout in over}
                        if place == number % len(granularities) and weighted:   # starting ranks takes a second
                            found["ranks"] = self.digest(source, arguments, 2, 1, "")
                        self.assertEqual(len(set(found.values())), 1, found)
                        self.ok(run("verify", self.at("out.h5"), "--against", source, *weighted))

    @ctest(cost=5)
    def test_bits_are_those_of_the_whole_file_for_every_method(self):
        """--bits B: a file of at most B bits a weight, everything counted, and above half of that where the method has more levels to
        spend; or none is made, and the least that can be is said."""
        random, count = np.random.default_rng(6), 128 * 160
        source, output = self.at("large.safetensors"), self.at("out.h5")
        write_safetensors(source, {"block.0.weight": ("BF16", (128, 160), bf16(random.standard_t(5, (128, 160)) * .02))})
        for method in self.methods:
            quick = [word for name, value in (("effort", "quick"), ("steps", 2)) if any(o["name"] == name for o in method["options"])
                     for word in (f"--{name}", value)]
            for bits in (5.0, .5):
                with self.subTest(method=method["name"], bits=bits):
                    done = run("quantize", source, "-o", output, "--method", method["name"], "--bits", bits, *quick, "--quiet")
                    if done.code:
                        self.assertEqual(done.code, 64, done)
                        self.assertRegex(done.err, "at least|smallest possible", done)
                        self.assertLess(bits, 1, done)
                        continue
                    found = 8 * os.path.getsize(output) / count
                    os.remove(output)
                    self.assertLessEqual(found, bits)
                    if found <= bits / 2:   # then it has no more levels to spend: of twice as many bits it makes no more
                        self.ok(run("quantize", source, "-o", output, "--method", method["name"], "--bits", 2 * bits, *quick, "--quiet"))
                        self.assertAlmostEqual(os.path.getsize(output), found * count / 8, delta=16)   # its recipe says the size asked for
                        os.remove(output)

    def test_every_method_is_listed_and_planned_for(self):
        names = [method["name"] for method in self.methods]
        text = self.ok(run("methods")).out
        self.assertIn("quantile", names, "the method of the tests")
        for method in self.methods:
            with self.subTest(method=method["name"]):
                self.assertIn(f"\n{method['name']} ", "\n" + text)
                self.assertTrue(method["summary"] and method["source"])
                for granularity in granularities_of(method, GRANULARITIES)[-3:]:
                    plan = json.loads(self.ok(run("plan", self.source, "--method", method["name"], *granularity, "--json")).out)
                    self.assertGreater(plan["estimated_seconds"], 0)
        self.assertEqual(len(set(names)), len(names))

    def test_a_new_method_needs_no_digest_and_no_line_of_the_docs(self):
        """Those of tests/quant/example are new to both: what is pinned stays compared, and so does the page of options."""
        pinned = pinned_test.written_down()
        fresh = [method for method in self.methods if method["name"] not in pinned]
        self.assertGreater(len(fresh), 1)
        old = next(method for method in self.methods if method["name"] in pinned)
        found = pinned_test.digests(self, [old, *fresh])
        other, passed_over = pinned_test.differences({old["name"]: pinned[old["name"]]}, found)
        self.assertEqual((other, passed_over), ([], sorted(method["name"] for method in fresh)))
        done = options_page("--check")
        self.assertEqual(done.returncode, 0, done)
        for method in fresh:
            self.assertEqual(method["name"] in done.stderr, bool(method["options"]), done)

    @ctest(cost=5)
    def test_a_size_that_is_refused_names_one_that_is_taken(self):
        """The same number for whatever was asked, by plan and quantize; and that number is a file that gets made."""
        def refused(*words):
            done = run(*words)
            self.assertEqual((done.code, done.err.count("\n"), done.out), (64, 1, ""), done.err)
            return re.search(r"cannot be reached with this recipe: at least (\d+) ", done.err)[1]

        output = self.at("least.h5")
        quantize = ["quantize", self.source, "-o", output, "--progress", "none", "--quiet"]
        for number, method in enumerate(self.methods):
            granularities = granularities_of(method, GRANULARITIES)[-3:]
            words = ["--method", method["name"], *granularities[number % len(granularities)]]
            if number % 2 == 0:
                words += ["--importance", self.importance]
            with self.subTest(words=words[:4]):
                least = refused("plan", self.source, *words, "--quiet", "--target-size", "800")
                just_below = str(int(least) - 1)
                self.assertEqual(refused(*quantize, *words, "--target-size", just_below), least)
                if number < 3:
                    self.assertEqual(refused(*quantize, *words, "--bits", "0.01"), least)
                    self.assertEqual(refused(*quantize, "--dry-run", *words, "--target-size", just_below), least)
                self.assertEqual([name for name in os.listdir(self.folder) if name.startswith("least")], [])
                self.ok(run(*quantize, *words, "--target-size", least))
                self.assertLessEqual(os.path.getsize(output), int(least))
                os.remove(output)


if __name__ == "__main__":
    unittest.main()
