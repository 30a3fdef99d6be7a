"""Weights that are quantized already: what belongs to them stays with them, scales are folded where they are known, and what told of FP8 goes with it."""
import json
import os
import shutil
import unittest

import numpy as np

from inputs_harness import RANDOM, InputsTest, f32, fp8, integers, matrix
from lmq_harness import read_safetensors, run, write_safetensors


class QuantizedAlready(InputsTest):
    def test_packed_weights_are_kept_with_all_that_belongs_to_them(self):
        source = self.folder_of("gptq", {
            "l.down_proj.qweight": integers("I32", 64, 256), "l.down_proj.qzeros": integers("I32", 16, 32),
            "l.down_proj.scales": ("F16", (16, 256), np.full((16, 256), 0.01, "<f2")), "lm_head.weight": matrix(64, 64)},
            {"quantization_config": {"quant_method": "gptq", "bits": 4}})
        for ranks in (0, 2):
            done = self.ok(self.quantize(source, ranks=ranks))
            self.assertIn("1 weight is quantized already", done.err)
            self.assertIn("says gptq", done.err)
            self.assertIn("start from the unquantized model", done.err)
            self.assertEqual(self.reasons()["l.down_proj.scales"], "belongs to the quantized 'l.down_proj.qweight'")
        self.ok(run("verify", self.at("out.h5"), "--against", source))
        self.ok(run("export", self.at("out.h5"), "--to", "safetensors", "-o", self.at("back"), "--source", source))
        before, after = read_safetensors(os.path.join(source, "model.safetensors"))[0], read_safetensors(self.at("back", "model.safetensors"))[0]
        for name in before:
            if name != "lm_head.weight":
                self.assertEqual(before[name], after[name], name)
        with open(self.at("back", "config.json")) as file:  # it still describes what is there
            self.assertIn("quantization_config", json.load(file))

    def test_with_nothing_left_to_quantize_it_is_not_the_size_that_is_at_fault(self):
        source = self.folder_of("all", {"l.down_proj.qweight": integers("I32", 64, 256), "l.down_proj.qzeros": integers("I32", 16, 32),
                                        "l.down_proj.scales": ("F16", (16, 256), np.full((16, 256), 0.01, "<f2"))})
        for size in ([], ["--bits", "4"], ["--target-size", "1M"], ["--rate", "3"]):
            self.refused(self.quantize(source, *size), 69, "nothing is left to quantize")

    def test_tables_of_packed_weights_are_kept_whatever_they_are_called(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        packed = {"a.indices": integers("I32", 4, 16, 64), "a.centroids.weight": half(4, 512), "a.res_centroids.weight": half(4, 512),
                  "b.dense_weights": integers("I32", 64, 64), "b.first_order_matrix": half(64, 64),
                  "c.weight": integers("I32", 64, 64), "c.tables": half(256, 8), "d.Qidxs": integers("I32", 64, 16), "d.codebook.grid": half(256, 8),
                  "f.weight.int_data": integers("I8", 64, 512), "f.weight.scale": half(64, 64), "f.weight.zero_point": half(64, 64)}
        plain = {"e.position_ids": integers("I32", 2, 512), "e.words": half(64, 64), "e.parts.weight": half(64, 64)}
        self.ok(self.quantize(self.folder_of("m", {**packed, **plain}, {"quantization_config": {"quant_method": "any"}})))
        reasons = self.reasons()
        self.assertEqual([name for name in packed if not reasons.get(name) and packed[name][0] == "F16"], [])
        self.assertEqual([name for name in plain if name in reasons and plain[name][0] == "F16"], [])

    def test_a_word_in_another_part_of_the_name_tells_a_companion(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        packed = {"weights.0": integers("U8", 64, 64), "scales.0": half(64, 64), "codes.x.q": integers("U8", 64, 64), "scales.x.q": half(64, 64),
                  "layers.1.q": integers("U8", 64, 64), "scales.layers.1.q": half(64, 64), "v.centroids": half(4, 2048),
                  "v.indices": ("I64", (4000,), RANDOM.integers(0, 99, 4000).astype("<i8"))}
        plain = {"scales.2.other": half(64, 64), "q.weight": half(64, 64), "b.bias_index": ("I64", (64, 64), np.zeros((64, 64), "<i8")), "b.biases_of": half(64, 64),
                 "d.attention_biases": half(64, 64), "d.attention_bias_idxs": ("I64", (64, 64), np.zeros((64, 64), "<i8"))}
        self.ok(self.quantize(self.folder_of("m", {**packed, **plain})))
        reasons = self.reasons()
        self.assertEqual([name for name in packed if packed[name][0] == "F16" and "belongs to" not in reasons.get(name, "")], [])
        self.assertEqual([name for name in plain if name in reasons and plain[name][0] == "F16"], [])

    def test_integers_beside_a_weight_of_floats_or_without_a_scale_are_no_packed_weights(self):
        matrix = lambda *shape: ("F32", shape, RANDOM.standard_normal(shape).astype("<f4"))
        plain = {"conv.edge_index": integers("I32", 2, 4000), "conv.weight": matrix(64, 64), "body.faces": integers("I32", 3000, 3), "body.posedirs": matrix(207, 300),
                 "emb.vocab": integers("I32", 64, 8), "emb.weight": matrix(64, 64), "fc.pruned": integers("U8", 64, 64), "fc.weight": matrix(64, 64),
                 "attn.attention_bias_idxs": integers("I32", 64, 64), "attn.attention_biases": matrix(8, 640), "table.lookup": integers("I32", 64, 64), "table.bias": matrix(64, 64)}
        done = self.ok(self.quantize(self.folder_of("m", plain)))
        self.assertNotIn("quantized already", done.err)
        self.assertEqual([name for name in plain if plain[name][0] == "F32" and name in self.reasons()], [])
        packed = {"l.indices": ("I64", (1, 64, 64), RANDOM.integers(0, 99, 4096).astype("<i8")), "l.centroids.weight": matrix(4, 2048), "l.res_centroids.weight": matrix(4, 512)}
        done = self.ok(self.quantize(self.folder_of("p", {**packed, "n.weight": matrix(64, 64)})))
        self.assertIn("quantized already", done.err)
        self.assertEqual([name for name in packed if name not in self.reasons()], [])

    def kept_beside_plain(self, packed, plain, config=None):
        """All floats of `packed` are kept with what they belong to, none of `plain`; returns what was said."""
        floats = lambda tensors: [name for name in tensors if tensors[name][0] in ("F16", "BF16", "F32")]
        done = self.ok(self.quantize(self.folder_of("m", {**packed, **plain}, config)))
        reasons = self.reasons()
        self.assertEqual([name for name in floats(packed) if "belongs to" not in reasons.get(name, "")], [])
        self.assertEqual([name for name in floats(plain) if name in reasons], [])
        self.assertNotIn("taken as it is", done.err)
        shutil.rmtree(self.at("m"))
        return done.err

    def test_floats_beside_packed_integers_are_kept_whatever_divides_their_names(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        plain, w = {"q.weight": half(64, 64)}, "l.0.weight"
        for config in (None, {"quantization_config": {"quant_method": "any"}}):
            for packed in (
                    {f"{w}:qdata": integers("U8", 64, 256), f"{w}:scale": half(16, 64), f"{w}:zero_point": half(16, 64)},
                    {f"{w}._data._data": integers("U8", 32, 512), f"{w}._scale": half(64, 16), f"{w}._shift": half(64, 16)},
                    {"l.B": integers("I32", 32, 512), "l.s": half(16, 256), "l.workspace": integers("I32", 32)},
                    {"l.fc.weight": integers("U8", 64, 512), "l.fc.pre_ops.0.op._scale": half(64, 32, 1), "l.fc.pre_ops.0.op._zero_point": integers("U8", 64, 32, 1)},
                    {"l/kernel/qvalue": integers("I8", 64, 512), "l/kernel/scale": half(64, 32)},
                    {"l.wq.packed": integers("U8", 64, 256), "l.wq.lut": half(64, 16), "l.wq.rowscale": half(64, 32)},
                    {"l/vars/0": integers("I8", 256, 256), "l/vars/2": half(16, 256), "l/vars/3": half(16, 256)}):
                self.assertIn("1 weight is quantized already", self.kept_beside_plain(packed, plain, config))

    def test_scales_of_weights_that_are_in_another_shard_are_kept(self):
        half = lambda *shape: ("F16", shape, RANDOM.standard_normal(shape).astype("<f2"))
        gptq, any_method = ({"quantization_config": {"quant_method": name}} for name in ("gptq", "any"))
        # A norm's, a table of the model's own, and one beside its weight are none.
        plain = {"q.weight": half(64, 64), "q.scale": half(64, 64), "blocks.0.scale_shift_table": half(32, 64)}
        for config, packed in ((gptq, {"a.scales": half(16, 256), "a.qzeros": integers("I32", 16, 32)}), (None, {"a.scales": half(16, 256), "a.qzeros": integers("I32", 16, 32)}),
                               (None, {"a.scales": half(64, 256), "a.g_idx": integers("I32", 512)}), (gptq, {"a.scales": half(64, 256)}), (any_method, {"a.weight_scale": half(256, 32)})):
            self.assertIn("1 tensor belongs to quantized weights that are not here, such as 'a.", self.kept_beside_plain(packed, plain, config))
        self.kept_beside_plain({}, {"a.scales": half(64, 256), **plain})

    def test_a_description_of_quantized_weights_that_are_not_found_is_said(self):
        self.assertIn("says that weights are quantized (any), but none is found",
                      self.ok(run("plan", self.folder_of("m", {"a.weight": matrix(64, 64)}, {"quantization_config": {"quant_method": "any"}}))).err)

    def test_nothing_but_packed_weights_is_refused_and_can_be_looked_at_and_kept(self):
        source = self.folder_of("packed", {"p.weight": integers("U32", 64, 8), "p.scales": matrix(64, 32), "p.biases": matrix(64, 32)})
        for ranks in (0, 2):
            self.refused(self.quantize(source, ranks=ranks), 69, "nothing is left to quantize", "start from the unquantized model")
        self.refused(run("plan", source), 69, "nothing is left to quantize")
        self.ok(run("inspect", source))
        self.assertFalse(os.path.exists(self.at("out.h5")))

    def test_fp8_without_a_known_scale_is_refused_unless_told_plain(self):
        source = self.folder_of("fp8", {"a.weight": fp8(64, 64), "b.weight": matrix(64, 64)})
        self.refused(self.quantize(source), 69, "a.weight", "without a known scale", "--fp8 plain", "start from the unquantized model")
        self.refused(run("plan", source), 69, "a.weight")
        self.ok(run("inspect", source))
        self.ok(self.quantize(source, "--fp8", "plain"))
        self.ok(run("verify", self.at("out.h5"), "--against", source))
        self.text(".", "keep.json", '{"rules": [{"match": "a.*", "keep": true}]}')
        self.ok(self.quantize(source, "--recipe", self.at("keep.json")))
        self.assertIn("a.weight", self.reasons())
        self.text(".", "plain.json", '{"fp8": "plain"}')
        self.ok(self.quantize(source, "--recipe", self.at("plain.json")))

    def test_scales_by_other_names_and_shapes_are_folded(self):
        for leaf, shape in (("a.scale", (2, 2)), ("a.scale_weight", ()), ("a.weight_scale", (1, 256)), ("a.weight_scale_inv", (2, 2))):
            source = self.folder_of("named", {"a.weight": fp8(256, 256), leaf: f32(*shape)})
            self.ok(self.quantize(source))
            self.ok(run("verify", self.at("out.h5"), "--against", source))
            self.assertNotIn("a.weight", self.reasons())

    def test_blocks_of_zeros_may_have_the_scale_zero(self):
        values, scales = RANDOM.integers(1, 0x78, (256, 256)).astype("u1"), np.full((2, 2), 0.5, "<f4")
        values[:128, :128], scales[0, 0] = 0, 0
        source = self.folder_of("zero", {"a.weight": ("F8_E4M3", (256, 256), values), "a.weight_scale_inv": ("F32", (2, 2), scales)})
        self.ok(self.quantize(source))
        values[5, 7] = 0x38
        self.folder_of("zero", {"a.weight": ("F8_E4M3", (256, 256), values), "a.weight_scale_inv": ("F32", (2, 2), scales)})
        self.refused(self.quantize(source), 65, "a.weight", str(5 * 256 + 7), "its scale")


class Outlived(InputsTest):
    """What told of FP8 weights goes from an export once their scales are folded in, and stays while they are kept."""
    TENSORS = {"scaled_fp8": ("F8_E4M3", (2,), bytes(2)), "a.weight": fp8(128, 128), "a.scale_weight": f32(), "a.scale_input": f32(),
               "a.bias": f32(128), "b.weight": matrix(64, 64), "c.weight": fp8(128, 128), "c.weight_scale": f32(1), "c.input_scale": f32(1),
               "c.comfy_quant": ("U8", (4,), b"{}  ")}
    METADATA = {"format": "pt", "quantization_config": "{}", "_quantization_metadata": "{}", "quantization": "fp8", "QuantMethod": "x",
                "modelspec.quant": "y", "modelspec.title": "quantum"}
    GONE = ["a.scale_input", "c.comfy_quant", "c.input_scale", "scaled_fp8"]

    def setUp(self):
        super().setUp()
        self.source = self.at("fp8.safetensors")
        write_safetensors(self.source, self.TENSORS, self.METADATA)

    def export(self, source, form, path):
        done = self.ok(run("export", source, "--to", form, "-o", self.at(path)))
        return done.told, json.loads(self.ok(run("export", source, "--to", form, "-o", self.at(path), "--json", "-")).out)

    def test_where_scales_are_folded_in(self):
        self.ok(self.quantize(self.source))
        told, report = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, metadata = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), ["a.bias", "a.weight", "b.weight", "c.weight"])
        self.assertEqual(sorted(metadata), ["QuantMethod", "format", "lmq_export", "modelspec.title"])
        self.assertIn(", ".join(self.GONE), told)
        self.assertIn("_quantization_metadata, modelspec.quant, quantization, quantization_config", told)
        self.assertEqual((report["left_out_tensors"], report["tensors"]), (self.GONE, 4))
        self.export(self.at("out.h5"), "safetensors", "folder")
        self.assertEqual(sorted(read_safetensors(self.at("folder", "fp8.safetensors"))[0]), sorted(tensors))
        for form, path in (("gguf", "x.gguf"), ("hdf5", "x.h5")):
            for source in (self.at("out.h5"), self.source):
                told, report = self.export(source, form, path)
                self.assertEqual((report["left_out_tensors"], report["tensors"]), (self.GONE, 4))
                self.assertIn("scaled_fp8", told)

    def test_the_marker_stays_while_one_of_them_is_kept(self):
        self.ok(self.quantize(self.source, "--tensor", "c.*=keep"))
        self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, _ = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), ["a.bias", "a.weight", "b.weight", "c.comfy_quant", "c.input_scale", "c.weight", "c.weight_scale", "scaled_fp8"])

    def test_metadata_tells_of_those_that_are_kept_and_no_more_of_others(self):
        told = json.dumps({"layers": {"a": {"format": "float8_e4m3fn"}, "c": {"format": "float8_e4m3fn"}}, "version": 1})
        write_safetensors(self.source, self.TENSORS, {"_quantization_metadata": told, "quantization": "fp8"})
        self.ok(self.quantize(self.source, "--tensor", "c.weight=keep"))
        said, _ = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        metadata = read_safetensors(self.at("x.safetensors"))[1]
        self.assertEqual(metadata["quantization"], "fp8")
        self.assertEqual(json.loads(metadata["_quantization_metadata"]), {"layers": {"c": {"format": "float8_e4m3fn"}}, "version": 1})
        self.assertNotIn("no longer hold", said)

    def test_where_they_are_kept_or_there_were_none(self):
        self.ok(self.quantize(self.source, "--tensor", "[ac].weight=keep"))
        told, report = self.export(self.at("out.h5"), "safetensors", "x.safetensors")
        tensors, metadata = read_safetensors(self.at("x.safetensors"))
        self.assertEqual(sorted(tensors), sorted(self.TENSORS))
        self.assertEqual(sorted(metadata), sorted([*self.METADATA, "lmq_export"]))
        self.assertEqual(report["left_out_tensors"], [])
        self.assertNotIn("no longer hold", told)
        write_safetensors(self.source, {"scaled_fp8": ("F32", (2,), bytes(8)), "a.weight": matrix(64, 64), "a.input_scale": f32(1)})
        self.ok(self.quantize(self.source))
        self.assertEqual(self.export(self.at("out.h5"), "safetensors", "x.safetensors")[1]["tensors"], 3)


if __name__ == "__main__":
    unittest.main()
