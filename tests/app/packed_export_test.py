"""Packed integers (compressed-tensors, AWQ, GPTQ) are those of the grids, or the best of a width and a group."""
import json
import os
import shutil
import unittest

import numpy as np

from gguf_plain import read_gguf
from lmq_harness import ExportsTest, bf16, curvature, read_safetensors, run, widen, write_safetensors


RANDOM = np.random.default_rng(23)


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


if __name__ == "__main__":
    unittest.main()
