"""Methods that see whole layers with curvature between weights, end to end: the same file on any layout, a size that is met, runs
that are continued, what reads the file, and statistics that are damaged or of another model. Tried with every method of that kind
that the program has, that of tests/quant/example among them."""
import json
import os
import signal
import time
import unittest

import numpy as np

from lmq_harness import LmqTest, bf16, curvature, finish, read_safetensors, run, sha256, start, widen, write_safetensors

LAYOUTS = ((0, 2, ""), (0, 1, "baseline"), (0, 1, "AVX2"), (1, 1, ""), (2, 1, ""), (3, 1, ""))
QUIET = ("--progress", "none")


def layer_methods():
    return [m["name"] for m in json.loads(run("methods", "--json").out)["methods"] if m["sees"] == "layer"]


class Layers(LmqTest):
    def setUp(self):
        super().setUp()
        self.rng = np.random.default_rng(7)
        self.source, self.statistics = self.at("model.safetensors"), self.at("statistics.safetensors")
        self.weights = {"a.weight": (70, 48), "b.weight": (33, 40), "experts.up": (3, 20, 24), "conv.weight": (24, 6, 3, 3), "flat.weight": (40, 32)}
        tensors = {}
        for name, shape in self.weights.items():
            values = self.rng.standard_normal(shape) * 0.03
            if name == "flat.weight":
                values = np.full(shape, 0.125)
            tensors[name] = ("BF16", shape, bf16(values)) if name != "b.weight" else ("F32", shape, values.astype(np.float32))
        tensors["norm.weight"] = ("BF16", (48,), bf16(np.ones(48)))
        write_safetensors(self.source, tensors)
        self.factors = self.make_factors()
        self.write_statistics(self.factors)

    def make_factors(self):
        blocks = lambda rows, r: np.stack([self.padded(curvature(self.rng, min(r, rows - at)), r) for at in range(0, rows, r)])
        return {"a.weight.gram": curvature(self.rng, 48), "a.weight.outer": blocks(70, 16), "b.weight.gram": curvature(self.rng, 40),
                "experts.up.gram": np.stack([curvature(self.rng, 24) for _ in range(3)]),
                "experts.up.outer": np.stack([blocks(20, 8) for _ in range(3)]), "conv.weight.gram": curvature(self.rng, 54),
                "conv.weight.rows": self.rng.random(24, np.float32)}

    @staticmethod
    def padded(matrix, size):
        out = np.zeros((size, size), np.float32)
        out[:len(matrix), :len(matrix)] = matrix
        return out

    def write_statistics(self, factors, path=None, metadata=None):
        write_safetensors(path or self.statistics, {name: ("F32", values.shape, np.ascontiguousarray(values, np.float32))
                                                    for name, values in factors.items()}, metadata)

    def quantize(self, method, *arguments, ranks=0, output="out.h5", source=None, **extra):
        return run("quantize", source or self.source, "-o", self.at(output), "--method", method, *arguments, *QUIET, ranks=ranks, **extra)

    def test_the_file_is_the_same_on_any_ranks_threads_and_instruction_set(self):
        for method in layer_methods():
            for weighted in ([], ["--importance", self.statistics]):
                for size in ([], ["--bits", "5"]):
                    with self.subTest(method=method, weighted=bool(weighted), size=size):
                        found = {}
                        for ranks, threads, isa in LAYOUTS:
                            extra = {"LMQ_ISA": isa} if isa else {}
                            self.ok(self.quantize(method, *weighted, *size, "--resume", "never", "--threads", threads, ranks=ranks, **extra))
                            found[ranks, threads, isa] = sha256(self.at("out.h5"))
                        self.assertEqual(len(set(found.values())), 1, found)
                        self.ok(run("verify", self.at("out.h5"), "--against", self.source, *weighted, *QUIET))

    def test_what_reads_the_file_reads_it(self):
        for method in layer_methods():
            with self.subTest(method=method):
                self.ok(self.quantize(method, "--importance", self.statistics))
                self.ok(run("verify", self.at("out.h5"), ranks=2))
                text = self.ok(run("inspect", self.at("out.h5"))).out
                self.assertIn(method, text)
                self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("back.safetensors")))
                exported = read_safetensors(self.at("back.safetensors"))[0]
                os.environ["HDF5_PLUGIN_PATH"] = os.environ["LMQ_PLUGIN"]
                import h5py
                with h5py.File(self.at("out.h5")) as file:
                    for name, shape in self.weights.items():
                        values = file[name][...]
                        self.assertEqual(values.shape, shape)
                        dtype, _, blob = exported[name]
                        back = widen(dtype, blob).reshape(shape)
                        self.assertTrue(np.array_equal(bf16(back), bf16(values)) if dtype == "BF16" else np.array_equal(back, values), name)
                    relative = np.square(file["a.weight"][...] - self.original("a.weight")).sum() / np.square(self.original("a.weight")).sum()
                    self.assertLess(relative, 0.5)

    def original(self, name):
        dtype, shape, blob = read_safetensors(self.source)[0][name]
        return widen(dtype, blob).reshape(shape)

    def test_a_codebook_is_steps_and_classes(self):
        for method in layer_methods():
            with self.subTest(method=method):
                self.ok(self.quantize(method, "--importance", self.statistics))
                text = self.ok(run("inspect", self.at("out.h5"), "--codebook", "a.weight")).out
                self.assertIn("states", text)
                self.assertEqual(len([line for line in text.splitlines() if line.startswith("row ")]), 70)
                found = json.loads(self.ok(run("inspect", self.at("out.h5"), "--codebook", "experts.up", "--json")).out)
                self.assertEqual(sum(len(record["row_step"]) for record in found["records"]), 60)
                self.assertEqual({len(record["col_step"]) for record in found["records"]}, {24})

    def test_one_row_one_column_and_nothing_but_zeros_are_layers_too(self):
        shapes = {"row.weight": (1, 1100), "col.weight": (1100, 1), "one.weight": (1, 1), "zero.weight": (32, 40)}
        write_safetensors(self.source, {name: ("F32", shape, (self.rng.standard_normal(shape) * (name != "zero.weight")).astype(np.float32))
                                        for name, shape in shapes.items()})
        self.write_statistics({"row.weight.gram": curvature(self.rng, 1100), "row.weight.outer": np.full((1, 1, 1), 2, np.float32),
                               "col.weight.gram": np.full((1, 1), 3, np.float32), "zero.weight.gram": np.zeros((40, 40), np.float32),
                               "zero.weight.outer": np.zeros((1, 32, 32), np.float32)})
        for method in layer_methods():
            with self.subTest(method=method):
                with open(self.at("recipe.json"), "w", encoding="utf-8") as file:
                    json.dump({"keep_vectors": False, "min_elements": 1, "rules": [{"match": "*", "method": method}]}, file)
                self.ok(run("quantize", self.source, "-o", self.at("out.h5"), "--recipe", self.at("recipe.json"), "--importance", self.statistics,
                            "--resume", "never", *QUIET))
                self.ok(run("verify", self.at("out.h5"), "--against", self.source, "--importance", self.statistics, *QUIET))
                lines = {line["name"]: line for line in json.loads(self.ok(run("inspect", self.at("out.h5"), "--json")).out)["tensors"]}
                self.assertEqual({name: lines[name]["method"] for name in shapes}, {name: method for name in shapes})
                self.assertEqual(lines["zero.weight"]["squared_error"], 0)

    def large_model(self):
        """A million weights and statistics for them."""
        path, statistics = self.at("large.safetensors"), self.at("large-statistics.safetensors")
        shapes = {f"layers.{i}.weight": (512, 256) for i in range(8)}
        write_safetensors(path, {name: ("BF16", shape, bf16(self.rng.standard_normal(shape) * 0.02 * (1 + i % 3)))
                                 for i, (name, shape) in enumerate(shapes.items())})
        factors = {}
        for name in shapes:
            factors[f"{name}.gram"] = curvature(self.rng, 256)
            factors[f"{name}.outer"] = np.stack([curvature(self.rng, 128) for _ in range(4)])
        self.write_statistics(factors, statistics)
        return path, statistics

    def test_a_size_is_met_from_below_within_a_thousandth(self):
        source, statistics = self.large_model()
        for method in layer_methods():
            for bits in ("2.5", "4"):
                with self.subTest(method=method, bits=bits):
                    self.ok(self.quantize(method, "--importance", statistics, "--bits", bits, "--resume", "never", source=source))
                    target = int(float(bits) * (1 << 20) / 8)
                    size = os.path.getsize(self.at("out.h5"))
                    self.assertLessEqual(size, target)
                    self.assertGreaterEqual(size, 0.999 * target)

    def test_a_run_that_was_killed_is_continued_to_the_same_file(self):
        source, statistics = self.large_model()
        for method in layer_methods():
            with self.subTest(method=method):
                arguments = ["--importance", statistics, "--bits", "3"]
                began = time.monotonic()
                self.ok(self.quantize(method, *arguments, "--resume", "never", output="whole.h5", source=source))
                seconds = time.monotonic() - began
                for part in (0.3, 0.6, 0.8):
                    process = start("quantize", source, "-o", self.at("out.h5"), "--method", method, *arguments, *QUIET)
                    time.sleep(part * seconds)
                    process.send_signal(signal.SIGKILL)
                    finish(process)
                self.ok(self.quantize(method, *arguments, ranks=2, source=source))
                self.assertEqual(sha256(self.at("out.h5")), sha256(self.at("whole.h5")))
                os.remove(self.at("out.h5"))

    def test_results_are_not_taken_over_when_only_curvature_between_weights_changed(self):
        source, statistics = self.large_model()
        for method in layer_methods():
            with self.subTest(method=method):
                arguments = ["--importance", statistics, "--bits", "3"]
                stopped = run("quantize", source, "-o", self.at("out.h5"), "--method", method, *arguments, *QUIET, "--max-time", "0.0001")
                self.assertEqual(stopped.code, 75, stopped)
                factors = {name: np.frombuffer(blob, "<f4").reshape(shape).copy()
                           for name, (_, shape, blob) in read_safetensors(statistics)[0].items()}
                gram = factors["layers.0.weight.gram"]
                gram[1, 0] = gram[0, 1] = -gram[0, 1]   # diagonals, and with them the file's digest, stay
                self.write_statistics(factors, statistics)
                self.ok(self.quantize(method, *arguments, source=source))
                continued = sha256(self.at("out.h5"))
                self.ok(self.quantize(method, *arguments, "--resume", "never", source=source))
                self.assertEqual(continued, sha256(self.at("out.h5")))

    def test_statistics_that_are_damaged_or_of_another_model_are_refused_with_their_place(self):
        method = layer_methods()[0]
        def refused(change, *words):
            factors = {name: values.copy() for name, values in self.factors.items()}
            change(factors)
            self.write_statistics(factors)
            self.refused(self.quantize(method, "--importance", self.statistics), 65, *words)
            self.assertFalse(os.path.exists(self.at("out.h5")))
        def set_at(name, place, value):
            def change(factors):
                factors[name][place] = value
            return change
        refused(set_at("a.weight.gram", (3, 2), 9), "a.weight.gram", "[3, 2]", "symmetric")
        refused(set_at("a.weight.gram", (3, 2), np.nan), "a.weight.gram", "nan", "finite")
        refused(set_at("a.weight.gram", (3, 3), -1), "a.weight.gram", "-1")
        refused(set_at("experts.up.gram", (2, 1, 0), 50), "experts.up.gram", "[2, 1, 0]")
        refused(set_at("a.weight.outer", (1, 1, 0), 50), "a.weight.outer", "[1, 1, 0]")
        refused(lambda f: f.update({"a.weight.gram": np.eye(47, dtype=np.float32)}), "a.weight.gram", "47", "48")
        refused(lambda f: f.update({"a.weight.outer": np.zeros((3, 16, 16), np.float32)}), "a.weight.outer", "16")
        refused(lambda f: [f.pop(name) for name in list(f)] and f.update({"stranger.gram": np.eye(8, dtype=np.float32)}), "nothing in it belongs")
        self.write_statistics(self.factors)
        with open(self.statistics, "r+b") as file:
            file.truncate(os.path.getsize(self.statistics) - 1)
        self.refused(self.quantize(method, "--importance", self.statistics), 65)

    def test_importance_is_for_the_method_that_takes_it_whole_unless_another_is_named(self):
        def method_of(*arguments):
            plan = json.loads(self.ok(run("plan", self.source, "--importance", self.statistics, *arguments, "--json")).out)
            return {tensor["method"] for tensor in plan["tensors"] if tensor["treatment"] == "quantize"}
        taken = {layer_methods()[0]}
        for arguments in ([], ["--bits", "5"], ["--target-size", "5K"], ["--rate", "3"]):
            self.assertEqual(method_of(*arguments), taken, arguments)
        for arguments in (["--method", "kmeans"], ["--levels", "8"], ["--granularity", "row"], ["--importance-power", "0.5"]):
            self.assertEqual(method_of(*arguments) & taken, set(), arguments)
        done = self.ok(run("quantize", self.source, "-o", self.at("out.h5"), "--importance", self.statistics, "--bits", "5", *QUIET))
        self.assertIn("--method says another", done.err)
        self.ok(run("verify", self.at("out.h5"), "--against", self.source, "--importance", self.statistics, *QUIET))
        for known in ({"a.weight.columns": np.ones(48)}, {"a.weight.columns": np.ones(48), "a.weight.rows": np.ones(70)},
                      {"a.weight": np.ones((70, 48))}):
            self.write_statistics(known)
            for arguments in ([], ["--bits", "5"], ["--bits", "5", "--samples", "100"], ["--damping-inputs", "2"], ["--step", "0.1"]):
                self.assertEqual(method_of(*arguments), taken, (known.keys(), arguments))
                self.assertEqual(method_of(*(a for a in arguments if a in ("--bits", "5")), "--method", "kmeans") & taken, set(), arguments)

    def test_a_low_SNR_by_importance_warns_where_no_errors_are_passed_on(self):
        passed_on = self.ok(run("quantize", self.source, "-o", self.at("a.h5"), "--importance", self.statistics, "--rate", "1"))
        self.assertIn("errors are passed on, so the loss is less", passed_on.err)
        self.assertNotIn("likely to have lost", passed_on.err)
        names = {name for name, (_, shape, _) in read_safetensors(self.source)[0].items() if len(shape) == 2}
        shapes = {name: read_safetensors(self.source)[0][name][1] for name in names}
        self.write_statistics({f"{n}.{side}": np.ones(shapes[n][k]) for n in names for k, side in enumerate(("rows", "columns"))})
        for rate, words in (("1", self.assertIn), ("6", self.assertNotIn)):
            done = self.ok(run("quantize", self.source, "-o", self.at("b.h5"), "--importance", self.statistics, "--rate", rate))
            words("dB by importance over the tensors: below 14 dB", " ".join(done.err.split()))

    def test_importance_whose_products_round_to_nothing_is_refused(self):
        self.write_statistics({"a.weight.columns": np.full(48, 1e-30), "a.weight.rows": np.full(70, 1e-30)})
        self.refused(run("plan", self.source, "--importance", self.statistics), 65, "'a.weight'", "rounds to 0")
        self.write_statistics({"a.weight.columns": np.full(48, 1e-30), "a.weight.rows": np.zeros(70)})
        self.ok(run("plan", self.source, "--importance", self.statistics))

    def test_an_option_of_the_method_that_sees_layers_names_it(self):
        for option in (["--samples", "100"], ["--damping-outputs", "1"], ["--states", "4"]):
            for size in ([], ["--bits", "5"]):
                plan = json.loads(self.ok(run("plan", self.source, *option, *size, "--json")).out)
                self.assertEqual({t["method"] for t in plan["tensors"] if t["treatment"] == "quantize"}, {layer_methods()[0]}, option)

    def test_a_size_without_a_method_or_importance_is_met_by_the_method_that_sees_layers(self):
        def method_of(*arguments):
            plan = json.loads(self.ok(run("plan", self.source, *arguments, "--json")).out)
            return {tensor["method"] for tensor in plan["tensors"] if tensor["treatment"] == "quantize"}
        taken = {layer_methods()[0]}
        for arguments in (["--bits", "5"], ["--target-size", "5K"]):
            self.assertEqual(method_of(*arguments), taken, arguments)
        for arguments in ([], ["--bits", "5", "--method", "ecsq"], ["--bits", "5", "--granularity", "row"]):
            self.assertEqual(method_of(*arguments) & taken, set(), arguments)

    def test_layers_may_share_inputs(self):
        factors = dict(self.factors, **{"twin.gram": self.factors["b.weight.gram"]})
        own, shared = dict(self.factors), {name: values for name, values in factors.items() if name != "b.weight.gram"}
        for method in layer_methods():
            with self.subTest(method=method):
                self.write_statistics(own)
                self.ok(self.quantize(method, "--importance", self.statistics, "--resume", "never"))
                self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("own.safetensors")))
                self.write_statistics(shared, metadata={"b.weight.gram_of": "twin"})
                self.ok(self.quantize(method, "--importance", self.statistics, "--resume", "never"))
                self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("shared.safetensors")))
                self.assertEqual(read_safetensors(self.at("own.safetensors"))[0], read_safetensors(self.at("shared.safetensors"))[0])
                self.write_hdf5(shared)
                self.ok(self.quantize(method, "--importance", self.at("statistics.h5"), "--resume", "never"))
                self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("hdf5.safetensors")))
                self.assertEqual(read_safetensors(self.at("own.safetensors"))[0], read_safetensors(self.at("hdf5.safetensors"))[0])
                os.remove(self.at("statistics.h5"))

    def write_hdf5(self, factors):
        import h5py
        with h5py.File(self.at("statistics.h5"), "w") as file:
            file.attrs["b.weight.gram_of"] = "twin"
            for name, values in factors.items():
                file.create_dataset(name, data=values)

    def test_no_flip_and_no_cut_of_a_file_goes_by_unseen(self):
        for method in layer_methods():
            with self.subTest(method=method):
                self.ok(self.quantize(method, "--importance", self.statistics, "--resume", "never"))
                with open(self.at("out.h5"), "rb") as file:
                    whole = file.read()
                for place in self.rng.integers(0, len(whole), 40):
                    flipped = bytearray(whole)
                    flipped[place] ^= 1 << int(self.rng.integers(8))
                    self.assertIn(self.verified(flipped), (1, 65, 69), place)
                for length in self.rng.integers(0, len(whole), 10):
                    self.assertIn(self.verified(whole[:length]), (1, 65, 69, 74), length)

    def verified(self, content):
        with open(self.at("damaged.h5"), "wb") as file:
            file.write(content)
        return run("verify", self.at("damaged.h5"), *QUIET).code

    def test_plan_counts_the_matrices(self):
        for method in layer_methods():
            plans = [json.loads(self.ok(run("plan", self.source, "--method", method, *more, "--json")).out)
                     for more in ([], ["--importance", self.statistics])]
            matrices = 2 * 4 * 54 * 54   # of the widest layer, one in use, one read ahead
            self.assertGreaterEqual(plans[1]["memory"]["input"] - plans[0]["memory"]["input"], matrices)
            self.refused(run("plan", self.source, "--method", method, "--granularity", "tensor"), 64, method, "layers")


if __name__ == "__main__":
    unittest.main()
