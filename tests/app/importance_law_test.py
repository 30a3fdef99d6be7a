"""Importance never hurts: on models whose loss is an exact quadratic form of the weights, a file made with importance has at most the
loss of one of as many bits made without, for rows, rows x columns, columns, numbers for each weight and every rate tried."""
import os
import unittest

import numpy as np

from lmq_harness import LmqTest, read_safetensors, run, widen, write_safetensors

SHAPES = {"a": (96, 128), "b": (160, 64), "c": (64, 192), "d": (128, 96)}
RATES = ("2", "3", "4", "5")
# A loss with importance may be so much more: files are met to .1 % of their size, which is .005 bits of 4, .7 % of the loss.
TOLERANCE = 1.01
# One step for all columns: by columns alone nothing is to be gained at high rates, and steps that a codebook can have lie up to .2 dB apart.
UNIFORM = 1.05


class ImportanceLawTest(LmqTest):
    """Loss = sum over tensors of sum_rc H_rc (w_rc - q_rc)^2, H known: that of linear models with independent inputs."""

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(5)
        self.weights, self.rows, self.columns, self.loss_of = {}, {}, {}, {}
        for k, (name, (m, n)) in enumerate(SHAPES.items()):
            scale = .02 * 2. ** k
            self.weights[name] = (random.standard_t(5, (m, n)) * scale).astype(np.float32)
            self.rows[name] = (random.lognormal(0, 1, m) * 4. ** -k).astype(np.float32)
            self.columns[name] = random.lognormal(0, 1, n).astype(np.float32)
        self.model = self.write("model.safetensors", self.weights)

    def write(self, name, tensors):
        write_safetensors(self.at(name), {key: ("F32", value.shape, value.tobytes()) for key, value in tensors.items()})
        return self.at(name)

    def quantized(self, rate, *options):
        """Loss terms (w - q)^2 by tensor."""
        return {name: error ** 2 for name, error in self.errors(rate, *options).items()}

    def errors(self, rate, *options):
        out, back = self.at("out.h5"), self.at("back.safetensors")
        self.ok(run("quantize", self.model, "-o", out, "--bits", rate, "--quiet", *options))
        self.ok(run("export", out, "--to", "safetensors", "-o", back, "--quiet"))
        tensors, _ = read_safetensors(back)
        errors = {name: widen(d, blob).reshape(shape) - self.weights[name] for name, (d, shape, blob) in tensors.items()}
        os.remove(back)
        return errors

    def assert_never_hurts(self, importance, curvature, *options, rates=RATES, tolerance=TOLERANCE):
        """options: the method, where the default is not meant."""
        def loss(errors):
            return sum(float((curvature[name] * errors[name]).sum()) for name in errors)
        for rate in rates:
            without, with_it = (loss(self.quantized(rate, *options, *more)) for more in ((), ("--importance", importance)))
            with self.subTest(rate=rate, options=options):
                self.assertLessEqual(with_it, tolerance * without)

    def test_rows_and_columns_never_hurt(self):
        file = self.write("s.safetensors", {f"{n}.{kind}": side[n] for n in SHAPES for kind, side in (("rows", self.rows), ("columns", self.columns))})
        curvature = {n: np.outer(self.rows[n], self.columns[n]) for n in SHAPES}
        self.assert_never_hurts(file, curvature)
        for method in ("ecsq", "ecsq-uniform"):
            self.assert_never_hurts(file, curvature, "--method", method, rates=("3",))

    def test_rows_alone_never_hurt(self):
        file = self.write("s.safetensors", {f"{n}.rows": self.rows[n] for n in SHAPES})
        self.assert_never_hurts(file, {n: self.rows[n][:, None] for n in SHAPES})

    def test_numbers_of_every_weight_never_hurt(self):
        random = np.random.default_rng(6)
        numbers = {n: (np.outer(self.rows[n], self.columns[n]) * random.lognormal(0, 1, SHAPES[n])).astype(np.float32) for n in SHAPES}
        self.assert_never_hurts(self.write("s.safetensors", {f"{n}.weights": numbers[n] for n in SHAPES}), numbers)

    def test_columns_alone_never_hurt(self):
        """They weigh the columns of a tensor, and nothing between tensors."""
        known = {n: self.columns[n] * 10. ** k for k, n in enumerate(SHAPES)}
        file = self.write("s.safetensors", {f"{n}.columns": known[n].astype(np.float32) for n in SHAPES})
        prior = {n: np.mean(np.square(w, dtype=np.float64)) ** -.375 for n, w in self.weights.items()}  # of Budget
        curvature = {n: prior[n] * self.columns[n][None, :] for n in SHAPES}
        self.assert_never_hurts(file, curvature)
        self.assert_never_hurts(file, curvature, "--method", "ecsq", rates=("3",))
        self.assert_never_hurts(file, curvature, "--method", "ecsq-uniform", rates=("3", "4"), tolerance=UNIFORM)

    def test_the_scale_of_columns_decides_nothing_between_tensors(self):
        """Columns alone never decide between tensors: in a unit 1,000 times smaller those of one tensor change next to nothing."""
        errors = []
        for factor in (1., 1000.):
            file = self.write("s.safetensors", {f"{n}.columns": (self.columns[n] * np.float32(factor if n == "a" else 1)) for n in SHAPES})
            errors.append({n: e.sum() for n, e in self.quantized("3", "--importance", file).items()})
        for name in SHAPES:
            self.assertAlmostEqual(errors[0][name] / errors[1][name], 1, delta=.1)

    def test_numbers_of_few_samples_are_not_believed_further_than_they_go(self):
        """Numbers of a few samples scatter about the truth: they must not be believed further than they go."""
        random = np.random.default_rng(7)
        noisy = {f"{n}.rows": (self.rows[n] * random.chisquare(4, self.rows[n].shape) / 4).astype(np.float32) for n in SHAPES}
        noisy |= {f"{n}.columns": (self.columns[n] * random.chisquare(4, self.columns[n].shape) / 4).astype(np.float32) for n in SHAPES}
        self.assert_never_hurts(self.write("s.safetensors", noisy), {n: np.outer(self.rows[n], self.columns[n]) for n in SHAPES})

    def test_a_matrix_of_few_samples_costs_no_more_than_nothing_known(self):
        """A Gram matrix of half as many samples as inputs: where its file says so it costs no more than nothing known, and less than believed."""
        random = np.random.default_rng(8)
        true, found = {}, {}
        for name, (_, n) in SHAPES.items():
            mixing = random.standard_normal((n, n)) * random.lognormal(0, 1, n)
            true[name] = mixing @ mixing.T / n
            inputs = mixing @ random.standard_normal((n, n // 2))
            found[f"{name}.gram"] = (inputs @ inputs.T / (n // 2) / n).astype(np.float32)

        def loss(*options):
            return sum(float(np.einsum("ri,ij,rj", error, true[name], error)) for name, error in self.errors("3", *options).items())
        believed = self.write("believed.safetensors", found)
        said = self.at("said.safetensors")
        write_safetensors(said, {key: ("F32", v.shape, v.tobytes()) for key, v in found.items()}, {"samples": "64"})
        losses = {"nothing": loss(), "believed": loss("--importance", believed), "said": loss("--importance", said)}
        self.assertLess(losses["said"], losses["nothing"] * TOLERANCE)
        self.assertLess(losses["said"], losses["believed"])
        for options in (("--importance", said), ("--samples", "64", "--importance", believed)):  # provenance takes some bytes of the size
            self.assertAlmostEqual(loss("--method", "waterfill", *options) / losses["said"], 1, delta=.03)


if __name__ == "__main__":
    unittest.main()
