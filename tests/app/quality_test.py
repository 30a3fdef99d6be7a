"""A file that is likely to be bad is warned of whichever tensors are bad, one that is good is not, and the warning says what to do."""
import unittest

import numpy as np

from lmq_harness import LmqTest, run, write_safetensors

WARNING = "below {} dB a model is likely to have lost much of its quality"


class QualityTest(LmqTest):
    def model(self, shapes, scales=None):
        random = np.random.default_rng(3)
        path = self.at("m.safetensors")
        write_safetensors(path, {name: ("F32", shape, (random.standard_normal(shape) * (scales or {}).get(name, 1)).astype("<f4").tobytes())
                                 for name, shape in shapes.items()})
        return path

    def said(self, source, *words):
        return " ".join(self.ok(run("quantize", source, "-o", self.at("o.h5"), "-q", *words)).err.split())

    def test_a_huge_good_tensor_hides_no_bad_ones(self):
        source = self.model({"huge": (512, 1024), **{f"small{i}": (32, 64) for i in range(8)}})
        words = ("--method", "kmeans", "--levels", "256")
        bad = self.said(source, *words, "--tensor", "small*=1")
        self.assertIn(WARNING.format(18.5), bad)
        for remedy in ("more bits", "--importance FILE", "the default method (no --method)"):
            self.assertIn(remedy, bad)
        self.assertNotIn("mean SNR", self.said(source, *words))

    def test_a_loud_good_tensor_hides_no_bad_ones(self):
        shapes = {f"t{i}": (64, 64) for i in range(4)}
        source = self.model(shapes, {"t0": 1e3})
        self.assertIn(WARNING.format(18.5), self.said(source, "--method", "kmeans", "--levels", "4", "--tensor", "t0=8"))

    def test_many_good_tensors_hide_no_huge_bad_one(self):
        source = self.model({"huge": (512, 1024), **{f"small{i}": (32, 64) for i in range(40)}})
        self.assertIn(WARNING.format(18.5), self.said(source, "--method", "kmeans", "--levels", "256", "--tensor", "huge=2"))

    def test_one_small_bad_tensor_of_many_makes_no_bad_file(self):
        source = self.model({"huge": (512, 1024), **{f"small{i}": (32, 64) for i in range(40)}})
        self.assertNotIn("mean SNR", self.said(source, "--method", "kmeans", "--levels", "256", "--tensor", "small7=2"))

    def test_the_default_at_4_bits_is_not_warned_of(self):
        source = self.model({f"t{i}": (128, 256) for i in range(4)})
        self.assertEqual(self.said(source, "--bits", "4"), "")
        bad = self.said(source, "--bits", "2")
        self.assertIn(WARNING.format(18.5), bad)
        self.assertNotIn("default method", bad)

    def test_columns_alone_say_no_more_than_the_weights_and_rows_count_errors_by_importance(self):
        shapes = {f"t{i}": (128, 256) for i in range(4)}
        source = self.model(shapes)
        numbers = np.random.default_rng(4).lognormal(0, 1, 256).astype("<f4")
        for rows, words, others in ((False, (WARNING.format(18.5), "rows beside the columns"), ("--importance FILE", "by importance")),
                                    (True, (WARNING.format(14), "by importance"), ("--importance FILE", "rows beside"))):
            tensors = {f"{name}.columns": ("F32", (256,), numbers.tobytes()) for name in shapes}
            if rows:
                tensors |= {f"{name}.rows": ("F32", (128,), np.ones(128, "<f4").tobytes()) for name in shapes}
            write_safetensors(self.at("s.safetensors"), tensors)
            bad = self.said(source, "--bits", "1.5", "--importance", self.at("s.safetensors"))
            for word in words:
                self.assertIn(word, bad)
            for word in others:
                self.assertNotIn(word, bad)
            self.assertEqual(self.said(source, "--bits", "4.5", "--importance", self.at("s.safetensors")), "")

    def test_plan_says_what_the_default_costs_and_methods_and_help_the_same(self):
        source = self.model({f"t{i}": (128, 256) for i in range(4)})

        def plan(*words):
            return " ".join(self.ok(run("plan", source, *words)).out.split())
        for bits, rates in (("3", ("at 3 bits",)), ("3.5", ("at 3 bits", "at 4 bits")), ("2", ("at 3 bits", "more below")), ("6", ("at 4 bits", "less above"))):
            said = plan("--bits", bits)
            self.assertIn("KL without data, models of docs/quality.md", said)
            for rate in ("at 3 bits", "at 4 bits", "more below", "less above"):
                (self.assertIn if rate in rates else self.assertNotIn)(rate, said)
        for words in (["--method", "kmeans", "--bits", "3"], ["--levels", "16"]):
            self.assertNotIn("docs/quality.md", plan(*words))
        for text in (run("methods").out, run("quantize", "--help").out, plan("--bits", "3.5")):
            for number in ("0.16", "0.7"):
                self.assertIn(number, text)


if __name__ == "__main__":
    unittest.main()
