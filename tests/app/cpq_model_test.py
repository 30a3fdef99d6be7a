"""The categorical model that scripts/cpq_finetune.py trains with is the one of the C++ method: both give the numbers of
tests/data/categorical.csv (tests/quant/categorical_test.cpp reads it, too)."""
import math
import os
import sys
import unittest

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "scripts"))
import cpq_model as model  # noqa: E402


class CpqModel(unittest.TestCase):
    def test_numbers_are_those_of_the_file(self):
        lines = model.read(os.path.join(ROOT, "tests", "data", "categorical.csv"))
        made = list(model.rows())
        self.assertEqual(len(lines), len(made))
        for line, row in zip(lines, made):
            for found, wanted in zip(line, row):
                if isinstance(wanted, str):
                    self.assertEqual(found, wanted)
                else:
                    self.assertTrue(math.isclose(float(found), wanted, rel_tol=1e-9, abs_tol=1e-12), (line, row))

    def test_probabilities_add_to_one_and_arrays_are_taken_like_numbers(self):
        v = np.linspace(-5, 5, 101)
        for scheme in ("ends", "bits"):
            gate_of = model.gates_of_rings(8, 2, scheme)
            masks = model.ring_masks([0.9, 0.5, 0.7][:max(gate_of)], gate_of)
            total = sum(model.masked_pi(v, 0.4, -4.0, 8, masks, np.full(v.shape, float(k))) for k in range(8))
            np.testing.assert_allclose(total, 1, rtol=1e-12)
            codes = model.masked_code(v, 0.4, -4.0, 8, masks, gate_of)
            for i in (0, 37, 50, 100):
                self.assertEqual(codes[i], model.masked_code(v[i], 0.4, -4.0, 8, masks, gate_of))


if __name__ == "__main__":
    unittest.main()
