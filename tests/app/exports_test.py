"""What goes out in other formats is what the file holds: the same values where the format has them, the best ones where it is told to."""
import json
import os
import shutil
import struct
import sys
import types
import unittest
from unittest import mock

import h5py
import numpy as np

import gguf_plain
from lmq_harness import STORIES, LmqTest, bf16, curvature, read_safetensors, run, widen, write_safetensors

RANDOM = np.random.default_rng(23)


def read_gguf(path):
    """(keys as raw names, name -> (type's number, shape, bytes)), read plainly."""
    with open(path, "rb") as file:
        data = file.read()
    magic, version, tensors, pairs = struct.unpack_from("<4sIQQ", data)
    assert (magic, version) == (b"GGUF", 3)
    at, keys, sizes = 24, {}, {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def text():
        nonlocal at
        length, = struct.unpack_from("<Q", data, at)
        at += 8 + length
        return data[at - length:at].decode()

    def item(kind):
        nonlocal at
        if kind == 8:
            return text()
        at += sizes[kind]
        return int.from_bytes(data[at - sizes[kind]:at], "little")

    for _ in range(pairs):
        key = text()
        kind, = struct.unpack_from("<I", data, at)
        at += 4
        if kind == 9:
            kind, count = struct.unpack_from("<IQ", data, at)
            at += 12
            keys[key] = [item(kind) for _ in range(count)]
        else:
            keys[key] = item(kind)
    found = {}
    for _ in range(tensors):
        name = text()
        rank, = struct.unpack_from("<I", data, at)
        dims = struct.unpack_from(f"<{rank}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * rank)
        at += 16 + 8 * rank
        found[name] = (kind, dims[::-1], offset)
    base = -(-at // 32) * 32
    for name, (kind, shape, offset) in found.items():
        by_number = {number: (elements, size) for number, elements, size, _, _ in gguf_plain.TYPES.values()}
        elements, size = by_number.get(kind, (1, {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2}.get(kind)))
        length = int(np.prod(shape, dtype=np.int64)) // elements * size
        found[name] = (kind, shape, data[base + offset:base + offset + length])
    return keys, found


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


class ExportsTest(LmqTest):
    def export(self, source, form, out, *more):
        return self.ok(run("export", source, "--to", form, "-o", self.at(out), *more))

    def quantized(self, source, name, *how):
        self.ok(run("quantize", source, "-o", self.at(name), "--progress", "none", "--resume", "never", *how))
        return self.at(name)


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


def unpack(words, bits, length, axis):
    """Values of dense streams of `bits` bits along an axis of 32-bit words, least significant bits first."""
    lines = np.moveaxis(words.astype("<u4"), axis, -1)
    flags = np.unpackbits(np.ascontiguousarray(lines).view(np.uint8), axis=-1, bitorder="little")[..., :length * bits]
    values = (flags.reshape(*lines.shape[:-1], length, bits) << np.arange(bits)).sum(-1)
    return np.moveaxis(values, -1, axis)


def plain_of_packed(path, bits, group, form):
    """Module -> values of its packed matrix, and what else is in the file."""
    arrays, rest = {}, {}
    for name, (dtype, shape, blob) in read_safetensors(path)[0].items():
        plain = {"I32": "<u4", "I64": "<i8", "F16": "<f2", "F32": "<f4"}.get(dtype)
        arrays[name] = np.frombuffer(blob, plain).reshape(shape) if plain else widen(dtype, blob).reshape(shape)
    found = {}
    for name in arrays:
        module, _, part = name.rpartition(".")
        if part == "weight_packed":
            rows, columns = arrays[f"{module}.weight_shape"]
            codes, zeros, scales = unpack(arrays[name], bits, columns, 1), 2 ** (bits - 1), arrays[f"{module}.weight_scale"]
        elif part == "qweight":
            g_idx, scales = arrays[f"{module}.g_idx"], arrays[f"{module}.scales"].T
            rows, columns = arrays[name].shape[1], len(g_idx)
            codes = unpack(arrays[name], bits, columns, 0).T
            zeros = unpack(arrays[f"{module}.qzeros"], bits, rows, 1).T[:, g_idx] + 1
            np.testing.assert_array_equal(g_idx, np.arange(columns) // (group or columns))
        else:
            if part in ("weight", "bias"):
                rest[name] = arrays[name]
            continue
        assert scales.shape == (rows, columns // group if group else 1)
        found[module] = (np.repeat(scales.astype(np.float32), group or columns, 1) * (codes - np.int64(zeros)).astype(np.float32))
    return found, rest


class Packed(ExportsTest):
    """Packed integers for runtimes that have kernels for them."""

    BLOCK = "model.layers.0"

    def model(self, dtype="F32", config=None, **more):
        os.makedirs(self.at("m"), exist_ok=True)
        make = (lambda a: bf16(a)) if dtype == "BF16" else (lambda a: a.astype("<f4").tobytes())
        shapes = {f"{self.BLOCK}.mlp.up_proj.weight": (64, 128), f"{self.BLOCK}.mlp.down_proj.weight": (128, 64),
                  f"{self.BLOCK}.mlp.gate.weight": (8, 64), f"{self.BLOCK}.norm.weight": (64,), "model.embed_tokens.weight": (96, 64), **more}
        write_safetensors(self.at("m", "model.safetensors"), {n: (dtype, s, make(RANDOM.standard_normal(s) * 0.1)) for n, s in shapes.items()})
        with open(self.at("m", "config.json"), "w") as file:
            json.dump({"model_type": "llama", **(config or {})}, file)
        return self.at("m")

    def config(self, folder):
        with open(self.at(folder, "config.json")) as file:
            return json.load(file)["quantization_config"]

    def test_grids_of_integers_come_out_as_packed_integers_of_the_same_values(self):
        model = self.model()
        for bits, group, how in ((4, 32, ("gptq", "--levels", 16, "--group", 32)), (4, 0, ("gptq", "--levels", 16, "--granularity", "row")),
                                 (2, 64, ("learned", "--levels", 4, "--group", 64)), (8, 0, ("gptq", "--levels", 256, "--granularity", "row"))):
            ours = self.quantized(model, "q.h5", "--force", "--method", *how)
            self.export(ours, "safetensors", "plain.safetensors")
            plain = {n: widen(d, b).reshape(s) for n, (d, s, b) in read_safetensors(self.at("plain.safetensors"))[0].items()}
            for form in ("compressed-tensors", "gptq"):
                with self.subTest(form=form, bits=bits, group=group):
                    done = self.export(ours, form, "packed", "--source", model)
                    self.assertIn("the same values", done.out)
                    packed, rest = plain_of_packed(self.at("packed", "model.safetensors"), bits, group, form)
                    self.assertEqual(set(packed), {f"{self.BLOCK}.mlp.up_proj", f"{self.BLOCK}.mlp.down_proj"})
                    for module, values in packed.items():
                        np.testing.assert_array_equal(values, plain[f"{module}.weight"], module)
                    for name, values in rest.items():
                        np.testing.assert_array_equal(values, plain[name], name)
                    self.assertEqual(len(rest), 3)
                    config = self.config("packed")
                    self.assertEqual(config["quant_method"], form)
                    shutil.rmtree(self.at("packed"))

    def test_a_width_and_a_group_on_request_round_to_the_best_grids_and_never_worse_than_the_usual_ones(self):
        model = self.model()
        weights = {n: widen(d, b).reshape(s) for n, (d, s, b) in read_safetensors(self.at("m", "model.safetensors"))[0].items()}
        for form, bits, group in (("compressed-tensors", 4, 32), ("compressed-tensors", 3, 0), ("gptq", 3, 32), ("gptq", 8, 64), ("gptq", 4, 0)):
            with self.subTest(form=form, bits=bits, group=group):
                self.export(model, f"{form}:int{bits}-" + (f"g{group}" if group else "channel"), "packed")
                packed, _ = plain_of_packed(self.at("packed", "model.safetensors"), bits, group, form)
                self.assertEqual(len(packed), 2)
                for module, values in packed.items():
                    w = weights[f"{module}.weight"]
                    blocks = w.reshape(len(w), -1, group or w.shape[1])
                    scale = (np.abs(blocks).max(-1, keepdims=True) / (2 ** (bits - 1) - 1)).astype("<f2").astype(float)
                    usual = np.clip(np.round(blocks / scale), -2 ** (bits - 1), 2 ** (bits - 1) - 1) * scale
                    best = ((values.reshape(blocks.shape) - blocks) ** 2).sum(-1)
                    self.assertTrue((best <= ((usual - blocks) ** 2).sum(-1) * (1 + 1e-6)).all())
                shutil.rmtree(self.at("packed"))

    def test_scales_of_a_bf16_model_are_bf16_and_mixed_schemes_are_said_by_name(self):
        model = self.model("BF16")
        self.export(model, "compressed-tensors:int4-g32", "packed")
        self.assertEqual(read_safetensors(self.at("packed", "model.safetensors"))[0][f"{self.BLOCK}.mlp.up_proj.weight_scale"][0], "BF16")
        self.assertEqual(self.config("packed")["ignore"], ["lm_head", "model.embed_tokens", f"{self.BLOCK}.mlp.gate"])
        shutil.rmtree(self.at("packed"))
        ours = self.quantized(model, "q.h5", "--method", "gptq", "--levels", 16, "--group", 32, "--tensor", "*down*=keep")
        done = self.export(ours, "compressed-tensors", "packed", "--source", model)
        self.assertIn(f"plain: '{self.BLOCK}.mlp.down_proj.weight'", done.out)
        self.assertIn(f"{self.BLOCK}.mlp.down_proj", self.config("packed")["ignore"])
        shutil.rmtree(self.at("packed"))
        with open(self.at("r.json"), "w") as file:
            json.dump({"rules": [{"match": "*up*", "method": "gptq", "levels": 16, "granularity": "row"},
                                 {"match": "*", "method": "gptq", "levels": 4, "granularity": "group", "group": 32}]}, file)
        ours = self.quantized(model, "q.h5", "--force", "--recipe", self.at("r.json"))
        self.export(ours, "compressed-tensors", "packed", "--source", model)
        groups = self.config("packed")["config_groups"]
        self.assertEqual({tuple(g["targets"]): (g["weights"]["num_bits"], g["weights"]["group_size"]) for g in groups.values()},
                         {(f"{self.BLOCK}.mlp.down_proj",): (2, 32), (f"{self.BLOCK}.mlp.up_proj",): (4, None)})
        shutil.rmtree(self.at("packed"))
        self.export(ours, "gptq", "packed", "--source", model)
        self.assertEqual(self.config("packed")["dynamic"]["-:^model\\.embed_tokens$"], {})

    def test_codes_made_for_a_format_are_held_by_it_and_beat_rounding_under_the_gram_matrix(self):
        model = self.model()
        up = f"{self.BLOCK}.mlp.up_proj.weight"
        weights = widen(*read_safetensors(self.at("m", "model.safetensors"))[0][up][::2]).reshape(64, 128)
        gram = curvature(RANDOM, 128)
        write_safetensors(self.at("gram.safetensors"), {f"{up}.gram": ("F32", gram.shape, gram)})
        for form, bits, group in (("compressed-tensors", 4, 32), ("gptq", 3, 64), ("compressed-tensors", 2, 0)):
            with self.subTest(form=form, bits=bits, group=group):
                word = f"{form}:int{bits}-" + (f"g{group}" if group else "channel")
                ours = self.quantized(model, "q.h5", "--force", "--for", word, "--importance", self.at("gram.safetensors"))
                loss = {}
                for source, form_of in ((ours, form), (model, word)):  # made for the format; rounded to its best grids
                    done = self.export(source, form_of, "packed", "--source", model)
                    packed, rest = plain_of_packed(self.at("packed", "model.safetensors"), bits, group, form)
                    self.assertEqual(set(packed), {f"{self.BLOCK}.mlp.up_proj", f"{self.BLOCK}.mlp.down_proj"})
                    errors = packed[up[:-7]].astype(float) - weights
                    loss[form_of] = np.einsum("ri,ij,rj", errors, gram.astype(float), errors)
                    if source is ours:
                        self.assertIn("the same values", done.out)
                        raw = read_safetensors(self.at("m", "model.safetensors"))[0]
                        for name, values in rest.items():  # what the format leaves plain is not quantized
                            np.testing.assert_array_equal(values.reshape(-1), widen(*raw[name][::2]), name)
                    shutil.rmtree(self.at("packed"))
                self.assertLess(loss[form], 0.8 * loss[word])
        for word, number in (("q4_0", 2), ("q4_1", 3), ("q8_0", 8)):
            with self.subTest(word=word):
                ours = self.quantized(model, "q.h5", "--force", "--for", f"gguf:{word}")
                self.assertIn("the same values", self.export(ours, "gguf", "q.gguf").out)
                self.assertEqual(read_gguf(self.at("q.gguf"))[1][up][0], number)

    def test_a_format_to_quantize_for_that_does_not_exist_or_is_said_twice_is_refused(self):
        model = self.model()
        for words, said in ((("gguf:q9",), "gguf:q4_0"), (("gguf:q4_0", "--bits", 4), "--bits"), (("gptq:int4-g32", "--group", 64), "--group"),
                            (("gguf:q4_0", "--method", "kmeans"), "uniform grids"), (("compressed-tensors:int5-g32",), "B 2, 3, 4, 8")):
            self.refused(run("quantize", model, "-o", self.at("x.h5"), "--for", *words), 64, said)

    def test_what_cannot_be_packed_is_said(self):
        model = self.model()
        ours = self.quantized(model, "q.h5", "--method", "kmeans", "--levels", 16)
        self.refused(run("export", ours, "--to", "compressed-tensors", "-o", self.at("p")), 64, "--source FOLDER")
        self.refused(run("export", ours, "--to", "compressed-tensors", "-o", self.at("p"), "--source", model), 69, "on no grid", "gptq")
        self.refused(run("export", model, "--to", "gptq:int5-g32", "-o", self.at("p")), 64, "int5-g32")
        self.refused(run("export", model, "--to", "gptq:int4-g32", "-o", self.at("p.safetensors")), 64, "folder")
        conv = self.model(config={"model_type": "gpt2"}, **{f"{self.BLOCK}.attn.c_attn.weight": (64, 192)})
        self.export(conv, "gptq:int4-g32", "p")
        self.assertIn(f"{self.BLOCK}.attn.c_attn.weight", read_safetensors(self.at("p", "model.safetensors"))[0])
        write_safetensors(self.at("m", "model.safetensors"), {"h.0.attn.c_attn.weight": ("F32", (64, 192), bytes(64 * 192 * 4))})
        self.refused(run("export", conv, "--to", "gptq:int4-g32", "-o", self.at("p2")), 69, "Conv1D")
        write_safetensors(self.at("m", "model.safetensors"), {"h.0.qweight": ("I32", (8, 64), bytes(8 * 64 * 4))})
        self.refused(run("export", conv, "--to", "gptq:int4-g32", "-o", self.at("p2")), 69, "packed already")
        self.assertFalse(os.path.exists(self.at("p2")))


class Hdf5(ExportsTest):
    def test_plain_hdf5_has_the_bits_of_the_safetensors_export(self):
        ours = self.quantized(STORIES, "q.h5")
        self.export(ours, "safetensors", "q.safetensors")
        for _ in range(2):  # an export replaces an export
            self.export(ours, "hdf5", "plain.h5")
        plain = read_safetensors(self.at("q.safetensors"))[0]
        with h5py.File(self.at("plain.h5")) as file:
            for name, (dtype, shape, blob) in plain.items():
                self.assertEqual(file[name].shape, shape)
                self.assertEqual(file[name].id.get_create_plist().get_nfilters(), 0)
                self.assertEqual(file[name][()].astype(np.float64).reshape(-1).tobytes(), widen(dtype, blob).tobytes())

    def test_keras_weights_keep_their_groups_and_names_quantized_and_exported(self):
        w = RANDOM.standard_normal((64, 48)).astype("<f4")
        with h5py.File(self.at("model.weights.h5"), "w") as file:
            file.create_dataset("layers/dense/vars/0", data=w)
            file.create_dataset("layers/dense/vars/1", data=w[0])
        ours = self.quantized(self.at("model.weights.h5"), "model-q4.weights.h5")
        self.export(ours, "hdf5", "back.h5")
        os.environ["HDF5_PLUGIN_PATH"] = os.environ["LMQ_PLUGIN"]
        h5py.h5pl.prepend(os.environ["LMQ_PLUGIN"].encode())
        with h5py.File(ours) as quantized, h5py.File(self.at("back.h5")) as back:
            for file in (quantized, back):
                self.assertEqual(list(file["layers/dense/vars"]), ["0", "1"])
            np.testing.assert_array_equal(quantized["layers/dense/vars/0"][()], back["layers/dense/vars/0"][()])
            np.testing.assert_array_equal(back["layers/dense/vars/1"][()], w[0])


class PythonPackage(ExportsTest):
    """python/lmq, beside h5py and the program."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
        import lmq
        cls.lmq = lmq

    def test_values_are_those_of_the_export_bit_for_bit_on_any_threads(self):
        for how in ((), ("--method", "kmeans", "--granularity", "group", "--levels", 8), ("--method", "binary-2", "--granularity", "row")):
            ours = self.quantized(STORIES, "q.h5", *how)
            self.export(ours, "safetensors", "q.safetensors")
            plain = read_safetensors(self.at("q.safetensors"))[0]
            for threads in (1, 3):
                with self.lmq.load(ours, threads) as file:
                    self.assertEqual(set(file), set(plain))
                    for name, (dtype, shape, blob) in plain.items():
                        tensor = file[name]
                        self.assertEqual((tensor.shape, tensor.get_dtype()), (shape, dtype))
                        self.assertEqual(tensor.numpy().astype(np.float64).tobytes(), widen(dtype, blob).tobytes(), name)

    def test_codes_and_codebooks_give_the_values_back(self):
        for how, group in (((), None), (("--method", "kmeans", "--granularity", "row", "--levels", 8), 0),
                           (("--method", "uniform", "--granularity", "group", "--group", 16, "--levels", 8), 16),
                           (("--method", "binary-2", "--granularity", "group", "--group", 16), 16)):
            ours = self.quantized(STORIES, "q.h5", *how)
            name = "model.layers.0.mlp.down_proj.weight"
            codes, books = self.lmq.codes(ours, name)
            with self.lmq.load(ours) as file:
                values = file[name].floats()
            if group is None:
                got = books[codes]
            else:
                rows, columns = np.indices(codes.shape)
                got = books[rows, columns // group if group else 0 * columns, codes]
            self.assertEqual(got.tobytes(), values.tobytes(), how)

    def test_codes_of_a_trellis_are_whole_numbers_of_steps(self):
        ours = self.quantized(STORIES, "q.h5", "--bits", 4)
        shapes = {"wide": (9, 3000), "tall": (3000, 9), "stack.experts": (3, 20, 30)}
        write_safetensors(self.at("wide.safetensors"), {name: ("F32", shape, RANDOM.standard_normal(shape).astype("<f4").tobytes())
                                                        for name, shape in shapes.items()})
        other = self.quantized(self.at("wide.safetensors"), "wide.h5", "--method", "waterfill", "--rate", 5)
        count = 0
        for path in (ours, other):
            with self.lmq.load(path) as file:
                found = {name: file[name].floats() for name in file if file[name].method == "waterfill"}
            for name, values in found.items():
                codes, steps = self.lmq.codes(path, name)
                self.assertEqual((codes.dtype, codes.shape), (np.int32, values.shape))
                np.testing.assert_array_equal(steps.values(codes), values, name)
            count += len(found)
        self.assertGreater(count, 20)
        from lmq import trellis
        for record in (b"", b"LMQR\x04", b"LMQR\x03" + bytes(30), b"LMQR\x04" + b"\xff" * 30):
            with self.assertRaises(ValueError):
                trellis.fields(record)

    def test_info_says_recipe_source_and_tensors(self):
        ours = self.quantized(STORIES, "q.h5")
        info = self.lmq.info(ours)
        self.assertEqual(info["provenance"]["format"], "safetensors")
        self.assertEqual(len(info["tensors"]), 47)
        self.assertEqual(info["file_bytes"], os.path.getsize(ours))
        self.assertIn("rules", info["recipe"])

    def test_h5py_reads_quantized_tensors_once_the_package_is_there(self):
        ours = self.quantized(STORIES, "q.h5")
        with h5py.File(ours) as file, self.lmq.load(ours) as lazy:
            name = "model.embed_tokens.weight"
            np.testing.assert_array_equal(file[name][()], lazy[name].floats())

    def test_damage_and_other_files_are_said(self):
        ours = self.quantized(STORIES, "q.h5", "--method", "kmeans", "--levels", 16)
        with self.lmq.load(ours) as file:
            record = bytearray(file["model.embed_tokens.weight"].record(0))
        record[60] ^= 1
        from lmq import plugin
        with self.assertRaises(ValueError):
            plugin.decode(bytes(record), 512 * 64)
        with h5py.File(self.at("other.h5"), "w") as file:
            file["x"] = bf16(np.ones(3))
        with self.assertRaises(ValueError):
            self.lmq.load(self.at("other.h5"))

    def test_vllm_gets_a_load_format(self):
        """Against the interface: a loader is made from a load configuration, and asked to download and to load."""
        loaders, given = {}, {}
        package = types.ModuleType("vllm.model_executor.model_loader")

        class BaseModelLoader:
            def __init__(self, load_config):
                self.load_config = load_config
        package.BaseModelLoader = BaseModelLoader
        package.register_model_loader = lambda name: lambda kind: loaders.setdefault(name, kind)
        outer = {name: types.ModuleType(name) for name in ("vllm", "vllm.model_executor")}
        from lmq import vllm_loader
        with mock.patch.dict(sys.modules, {**outer, package.__name__: package}):
            vllm_loader.register()
        self.quantized(STORIES, "q.h5")
        model = types.SimpleNamespace(load_weights=given.update)
        config = types.SimpleNamespace(model=self.folder)
        for extra in ({}, {"file": "q.h5"}, {"file": self.at("q.h5")}):
            loader = loaders["lmq"](types.SimpleNamespace(model_loader_extra_config=extra))
            loader.download_model(config)
            given.clear()
            with mock.patch.object(self.lmq.Tensor, "torch", self.lmq.Tensor.numpy):  # torch may not be there
                loader.load_weights(model, config)
            self.assertEqual(len(given), 47)
        with self.assertRaises(FileNotFoundError):
            loaders["lmq"](types.SimpleNamespace(model_loader_extra_config={"file": "none.h5"})).download_model(config)
        self.quantized(STORIES, "other.h5")
        with self.assertRaisesRegex(ValueError, "2 .h5 files"):
            loaders["lmq"](types.SimpleNamespace(model_loader_extra_config=None)).download_model(config)

    def test_a_state_dict_streams_into_a_model(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no torch")
        ours = self.quantized(STORIES, "q.h5")
        self.export(ours, "safetensors", "q.safetensors")
        plain = read_safetensors(self.at("q.safetensors"))[0]
        for name, tensor in self.lmq.state_dict(ours).items():
            self.assertEqual(tensor[...].dtype, torch.bfloat16)
            self.assertEqual(tensor[...].view(torch.uint8).numpy().tobytes(), plain[name][2], name)


if __name__ == "__main__":
    unittest.main()
