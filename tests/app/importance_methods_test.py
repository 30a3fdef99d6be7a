"""Importance never hurts, whatever the method: on a model whose loss is a known quadratic form of the weights, codes made with importance have
at most the loss of those made without, for every method that takes importance, every kind it knows and 4 to 32 levels."""
import json
import os
import unittest

import numpy as np

from lmq_harness import LmqTest, read_safetensors, run, widen, write_safetensors

SHAPES = {"a": (48, 64), "b": (64, 96), "c": (96, 32)}
LEVELS = (4, 8, 16, 32)
FIXED = {"binary-1": 2, "ternary": 3, "binary-2": 4}  # levels
MATRICES = {"gptq", "learned", "cpq"}  # others take the diagonals of S and F, and are judged by them
# Exact methods lose no more, although importance is drawn half way to its mean. Searches and penalties that are raised until so few levels
# are left end beside the optimum, with importance at another place than without: 1.17 was seen with penalties, 1.02 with binary-k.
SEARCHES = {"sls-l1": 1.2, "sls-l1l2": 1.2, "sls-iter": 1.2, "sls-cluster": 1.05, "binary-k": 1.05}
EXACT = 1.001


def methods():
    """Methods of codebooks that take importance, by the number of their levels."""
    known = json.loads(run("methods", "--json").out)["methods"]
    return [m for m in known if m["uses_importance"] and m["sees"] in ("values", "rows") and not m["has_slope"] and not m["stochastic"]]


class ImportanceMethodsTest(LmqTest):
    """One model with a copy of each tensor for each kind and number of levels; a loss of sum e_r S e_s^T F_rs over its tensors."""

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(5)
        self.weights, self.rows, self.columns, self.numbers, self.gram, self.outer = ({} for _ in range(6))
        for name, (m, n) in SHAPES.items():
            self.weights[name] = (random.standard_t(5, (m, n)) * .02).astype(np.float32)
            self.rows[name] = random.lognormal(0, 1, m).astype(np.float32)
            self.columns[name] = random.lognormal(0, 1, n).astype(np.float32)
            self.numbers[name] = (np.outer(self.rows[name], self.columns[name]) * random.lognormal(0, 1, (m, n))).astype(np.float32)
            for side, size, scale in ((self.gram, n, self.columns[name]), (self.outer, m, self.rows[name])):
                mixing = np.eye(size) + random.standard_normal((size, 4)) @ random.standard_normal((4, size)) / 8
                side[name] = (mixing @ mixing.T * np.sqrt(np.outer(scale, scale))).astype(np.float32)
        parts = {"rows": {"rows": self.rows}, "rows x columns": {"rows": self.rows, "columns": self.columns}, "columns": {"columns": self.columns},
                 "weights": {"weights": self.numbers}, "S": {"gram": self.gram},
                 "S and F": {"gram": self.gram, "outer": {name: f[None] for name, f in self.outer.items()}}}
        self.copies = [(kind, k, name) for kind in parts for k in LEVELS for name in SHAPES]
        self.names = {copy: f"k{copy[1]}.{list(parts).index(copy[0])}.{copy[2]}" for copy in self.copies}
        self.source = self.write("m.safetensors", {self.names[copy]: self.weights[copy[2]] for copy in self.copies})
        self.file = self.write("s.safetensors", {f"{self.names[copy]}.{part}": of[copy[2]] for copy in self.copies for part, of in parts[copy[0]].items()})

    def write(self, name, tensors):
        write_safetensors(self.at(name), {key: ("F32", value.shape, value.tobytes()) for key, value in tensors.items()})
        return self.at(name)

    def errors(self, method, *more):
        """Errors of all copies."""
        out, back = self.at("out.h5"), self.at("back.safetensors")
        choice = [word for k in LEVELS for word in ("--tensor", f"k{k}.*=levels={FIXED.get(method, k)},method={method}")]
        self.ok(run("quantize", self.source, "-o", out, "-q", "--threads", "1", "--method", method, *choice, *more))
        self.ok(run("export", out, "--to", "safetensors", "-o", back, "-q", "--threads", "1"))
        tensors, _ = read_safetensors(back)
        os.remove(back)
        return {copy: (widen(*tensors[name][::2]).reshape(SHAPES[copy[2]]) - self.weights[copy[2]]).astype(np.float64) for copy, name in self.names.items()}

    def loss(self, method, kind, name, error):
        ones = [np.ones(size) for size in error.shape]
        if kind == "weights":
            return (self.numbers[name] * error ** 2).sum()
        if kind.startswith("S"):
            sides = (self.gram[name], self.outer[name] if kind == "S and F" else np.eye(error.shape[0]))
            inputs, outputs = sides if method in MATRICES else (np.diag(np.diag(side)) for side in sides)
            return np.einsum("rc,cd,sd,rs", error, inputs, error, outputs, optimize=True)
        rows = self.rows[name] if "rows" in kind else ones[0]
        return (np.outer(rows, self.columns[name] if "columns" in kind else ones[1]) * error ** 2).sum()

    def test_codes_with_importance_lose_no_more(self):
        for method in (m["name"] for m in methods()):
            without, known = self.errors(method), self.errors(method, "--importance", self.file)
            for kind, k in dict.fromkeys(copy[:2] for copy in self.copies):
                copies = [copy for copy in self.copies if copy[:2] == (kind, k)]
                ratio = np.exp(np.mean([np.log(self.loss(method, kind, copy[2], known[copy]) / self.loss(method, kind, copy[2], without[copy])) for copy in copies]))
                with self.subTest(method=method, kind=kind, levels=k):
                    self.assertLessEqual(ratio, SEARCHES.get(method, EXACT))


if __name__ == "__main__":
    unittest.main()
