"""Blocks of GGUF are the best ones, or the same values where the grid has them; keys come from a template."""
import json
import os
import unittest

import numpy as np

import gguf_plain
from gguf_plain import read_gguf
from lmq_harness import STORIES, ExportsTest, curvature, read_safetensors, run, widen, write_safetensors


RANDOM = np.random.default_rng(23)


def values_of(kind, data):
    for name, (number, _, _, _, _) in gguf_plain.TYPES.items():
        if number == kind:
            return gguf_plain.decode(name, data)
    if kind == 30:
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, {0: "<f4", 1: "<f2"}[kind]).astype(np.float32)


def usual_q4_0(values):
    """Values of Q4_0 with the scale that llama.cpp takes: the extreme value, with its sign, is code 0."""
    blocks = values.astype(np.float32).reshape(-1, 32)
    top = np.take_along_axis(blocks, np.abs(blocks).argmax(1, keepdims=True), 1)
    scale = top / np.float32(-8)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    codes = np.clip(np.trunc(blocks * inverse + np.float32(8.5)), 0, 15)
    return (scale.astype("<f2").astype(np.float32) * (codes - 8)).reshape(values.shape)


class Gguf(ExportsTest):
    def test_the_best_blocks_have_at_most_nine_tenths_of_the_usual_error_and_never_more(self):
        w = (RANDOM.standard_normal((256, 512)) * 0.02).astype("<f4")
        odd = {"zeros": np.zeros((2, 32), "<f4"), "one": np.eye(2, 32, dtype="<f4"), "huge": np.full((1, 32), 1e30, "<f4"),
               "tiny": np.full((1, 64), 1e-30, "<f4"), "same": np.full((3, 32), -0.37, "<f4"), "ramp": np.arange(64, dtype="<f4").reshape(1, 64)}
        write_safetensors(self.at("m.safetensors"), {n: ("F32", a.shape, a.tobytes()) for n, a in {"w": w, **odd}.items()})
        self.export(self.at("m.safetensors"), "gguf:q4_0", "m.gguf")
        _, tensors = read_gguf(self.at("m.gguf"))
        kind, shape, data = tensors["w"]
        self.assertEqual((kind, shape, len(data)), (2, (256, 512), 256 * 512 // 32 * 18))
        got, usual = values_of(kind, data).reshape(w.shape).astype(float), usual_q4_0(w).astype(float)
        self.assertLessEqual(((got - w) ** 2).sum(), 0.9 * ((usual - w) ** 2).sum())
        per_block = [((x.reshape(-1, 32) - w.reshape(-1, 32)) ** 2).sum(1) for x in (got, usual)]
        self.assertTrue((per_block[0] <= per_block[1] * (1 + 1e-6)).all())
        for name, array in odd.items():
            kind, _, data = tensors[name]
            decoded = values_of(kind, data)
            self.assertTrue(np.isfinite(decoded).all(), name)
            if name not in ("huge", "ramp"):
                np.testing.assert_allclose(decoded.reshape(array.shape), array, rtol=1e-3, atol=1e-7, err_msg=name)

    def test_every_type_is_opened_and_no_worse_than_a_simple_scale(self):
        w = RANDOM.standard_normal((16, 256)).astype("<f4")
        write_safetensors(self.at("m.safetensors"), {"w": ("F32", w.shape, w.tobytes()), "n": ("F32", (5,), bytes(20))})
        bound = {"tq2_0": 0.35, "q4_0": 0.009, "iq4_nl": 0.008, "q4_1": 0.007, "q8_0": 3e-5, "f16": 1e-6, "bf16": 2e-5, "f32": 0}
        for name, most in bound.items():
            with self.subTest(name):
                self.export(self.at("m.safetensors"), f"gguf:{name}", f"{name}.gguf")
                keys, tensors = read_gguf(self.at(f"{name}.gguf"))
                got = values_of(tensors["w"][0], tensors["w"][2]).reshape(w.shape)
                self.assertLessEqual(((got - w) ** 2).mean(), most * (w ** 2).mean())
                self.assertEqual(tensors["n"][0], 0)
                self.assertEqual(keys["general.quantization_version"], 2)
                self.ok(run("inspect", self.at(f"{name}.gguf")))
                try:
                    import gguf
                except ImportError:
                    continue
                reader = gguf.GGUFReader(self.at(f"{name}.gguf"))
                theirs = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
                self.assertEqual(theirs["w"].reshape(-1).tobytes(), got.reshape(-1).tobytes())

    def test_values_that_blocks_can_hold_come_out_as_blocks_of_the_same_values(self):
        for name in ("Q4_0", "IQ4_NL", "TQ2_0"):
            with self.subTest(name):
                number, elements, _, _, _ = gguf_plain.TYPES[name]
                data = gguf_plain.random_blocks(name, 512 * 8 // elements * 8, RANDOM)
                if name == "TQ2_0":  # its fourth code is none
                    data = np.frombuffer(data, np.uint8).reshape(-1, 66).copy()
                    data[:, :64] = np.where(data[:, :64] & data[:, :64] >> 1 & 0x55, data[:, :64] & 0x55, data[:, :64])
                    data = data.tobytes()
                expected = gguf_plain.decode(name, data)
                with open(self.at("in.gguf"), "wb") as file:
                    file.write(gguf_plain.gguf([("w", (len(expected) // 512, 512), number, data)], [("general.architecture", "x")]))
                ours = self.quantized(self.at("in.gguf"), "q.h5", "--method", "kmeans", "--granularity", "row", "--levels", 256, "--level-type", "f32")
                for source in (ours, self.at("in.gguf")):  # kept or quantized without an error, and blocks themselves
                    done = self.export(source, "gguf", f"{name}.out.gguf")
                    kind, _, out = read_gguf(self.at(f"{name}.out.gguf"))[1]["w"]
                    self.assertIn("the same values", done.out)
                    self.assertEqual(kind, number)
                    np.testing.assert_array_equal(values_of(kind, out), expected)

    def test_uniform_grids_of_gptq_come_out_as_blocks_of_the_same_values(self):
        w, gram = (RANDOM.standard_normal((48, 512)) * 0.02).astype("<f4"), curvature(RANDOM, 512)
        write_safetensors(self.at("m.safetensors"), {"w": ("F32", w.shape, w)})
        write_safetensors(self.at("gram.safetensors"), {"w.gram": ("F32", gram.shape, gram)})
        for name, how in (("Q4_0", ("--levels", 16, "--group", 32)), ("Q4_1", ("--levels", 16, "--group", 32, "--zero-point", "free")),
                          ("Q8_0", ("--levels", 256, "--group", 32)), ("Q4_0", ("--levels", 8, "--group", 64)),
                          ("TQ2_0", ("--levels", 3, "--group", 256))):
            with self.subTest(name=name, how=how):
                ours = self.quantized(self.at("m.safetensors"), "q.h5", "--method", "gptq", *how, "--importance", self.at("gram.safetensors"))
                self.export(ours, "safetensors", "q.safetensors")
                expected = widen("F32", read_safetensors(self.at("q.safetensors"))[0]["w"][2]).reshape(w.shape)
                done = self.export(ours, "gguf", "q.gguf")
                kind, _, out = read_gguf(self.at("q.gguf"))[1]["w"]
                self.assertIn("the same values", done.out)
                self.assertEqual(kind, gguf_plain.TYPES[name][0])
                np.testing.assert_array_equal(values_of(kind, out).reshape(w.shape), expected)

    def test_other_values_are_f16_and_what_was_kept_keeps_its_type(self):
        ours = self.quantized(STORIES, "q.h5", "--method", "kmeans", "--levels", 16)
        self.export(ours, "gguf", "q.gguf")
        self.export(ours, "safetensors", "q.safetensors")
        tensors, plain = read_gguf(self.at("q.gguf"))[1], read_safetensors(self.at("q.safetensors"))[0]
        self.assertEqual(tensors.keys(), plain.keys())
        self.assertEqual({tensors[n][0] for n in plain if len(plain[n][1]) == 1}, {30})
        self.assertEqual({tensors[n][0] for n in plain if len(plain[n][1]) == 2}, {1})
        report = json.loads(self.export(ours, "gguf", "q.gguf", "--json", "-").out)
        sizes = {0: 4, 1: 2, 30: 2}
        self.assertEqual(report["tensors"], len(tensors))
        self.assertEqual({part["type"]: (part["tensors"], part["bytes"]) for part in report["types"]}, {
            name: (sum(kind == t[0] for t in tensors.values()), sum(sizes[kind] * int(np.prod(t[1])) for t in tensors.values() if t[0] == kind))
            for name, kind in (("f16", 1), ("bf16", 30))})
        self.assertEqual(sum(part["bytes"] for part in report["types"]), report["bytes"])
        for name, (dtype, _, blob) in plain.items():
            got, exact = values_of(tensors[name][0], tensors[name][2]).astype(float), widen(dtype, blob)
            self.assertLessEqual(np.abs(got - exact).max(), np.abs(exact).max() / 128, name)

    def test_keys_and_order_come_from_a_template(self):
        w = RANDOM.standard_normal((4, 32)).astype("<f4")
        with open(self.at("t.gguf"), "wb") as file:
            file.write(gguf_plain.gguf([("z", w.shape, 0, w.tobytes()), ("a", w.shape, 0, w.tobytes())], [
                ("general.architecture", "llama"), ("general.file_type", 0), ("tokenizer.ggml.tokens", ["x", "yy"]), ("general.alignment", 64)], 64))
        ours = self.quantized(self.at("t.gguf"), "q.h5", "--method", "kmeans", "--levels", 4)
        self.export(ours, "gguf", "q.gguf", "--source", self.at("t.gguf"))
        keys, tensors = read_gguf(self.at("q.gguf"))
        self.assertEqual(list(tensors), ["z", "a"])
        self.assertEqual((keys["general.architecture"], keys["tokenizer.ggml.tokens"]), ("llama", ["x", "yy"]))
        self.assertNotIn("general.alignment", keys)
        self.assertIn("not part of the file", self.export(ours, "gguf", "bare.gguf").out)
        other = self.quantized(STORIES, "s.h5")
        self.refused(run("export", other, "--to", "gguf", "-o", self.at("no.gguf"), "--source", self.at("t.gguf")), 64, "none of its tensors")

    def test_rows_that_are_no_whole_blocks_are_named_and_f16(self):
        w = RANDOM.standard_normal((4, 40)).astype("<f4")
        write_safetensors(self.at("m.safetensors"), {"w": ("F32", w.shape, w.tobytes())})
        self.assertIn("'w': rows of 40", self.export(self.at("m.safetensors"), "gguf:q8_0", "m.gguf").out)
        self.assertEqual(read_gguf(self.at("m.gguf"))[1]["w"][0], 1)

    def test_only_an_earlier_export_is_replaced_and_wrong_words_are_refused(self):
        w = np.ones((2, 32), "<f4")
        write_safetensors(self.at("m.safetensors"), {"w": ("F32", w.shape, w.tobytes())})
        for _ in range(2):
            self.export(self.at("m.safetensors"), "gguf:q8_0", "m.gguf")
        with open(self.at("mine"), "wb") as file:
            file.write(b"precious")
        for form in ("gguf", "hdf5"):
            self.refused(run("export", self.at("m.safetensors"), "--to", form, "-o", self.at("mine")), 73, "no export of lmq")
        self.refused(run("export", self.at("m.safetensors"), "--to", "gguf:q9", "-o", self.at("x")), 64, "q9", "q4_0")
        self.refused(run("export", self.at("m.safetensors"), "--to", "hdf5:x", "-o", self.at("x")), 64, "hdf5")
        self.refused(run("export", self.at("m.safetensors"), "--to", "onnx", "-o", self.at("x")), 64, "onnx", "gguf")
        self.assertFalse(os.path.exists(self.at("x")))


if __name__ == "__main__":
    unittest.main()
