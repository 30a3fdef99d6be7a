"""What errors weigh: every kind of importance file through the whole program, what is reported of it, and what is refused."""
import json
import os
import struct
import unittest

import numpy as np

from lmq_harness import STORIES, LmqTest, read_safetensors, run, sha256, widen, write_safetensors

MODEL = os.path.join(STORIES, "model.safetensors")
BLOCK = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def weights():
    """name -> float64 matrix, of every matrix of the model."""
    tensors, _ = read_safetensors(MODEL)
    return {name: widen(dtype, blob).reshape(shape) for name, (dtype, shape, blob) in tensors.items() if len(shape) == 2}


def gguf_name(name):
    parts = name.split(".")
    return f"blk.{parts[2]}.{BLOCK['.'.join(parts[3:5])]}.weight"


def binary_imatrix(columns, calls=3):
    out = struct.pack("<i", len(columns))
    for name, values in columns.items():
        name = gguf_name(name).encode()
        out += struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, len(values)) + (values * calls).astype("<f4").tobytes()
    return out + struct.pack("<ii", calls, 4) + b"text"


def gguf_imatrix(columns, count=64):
    def text(word):
        return struct.pack("<Q", len(word)) + word.encode()
    head, data = b"", b""
    for name, values in columns.items():
        for tail, dims, numbers in ((".in_sum2", (len(values), 1), values * count), (".counts", (1, 1), np.asarray([count]))):
            head += text(gguf_name(name) + tail) + struct.pack("<IQQIQ", 2, *dims, 0, len(data))
            data += numbers.astype("<f4").tobytes()
            data += b"\0" * (-len(data) % 32)
    out = b"GGUF" + struct.pack("<IQQ", 3, 2 * len(columns), 1) + text("general.type") + struct.pack("<I", 8) + text("imatrix") + head
    return out + b"\0" * (-len(out) % 32) + data


class ImportanceTest(LmqTest):
    def setUp(self):
        super().setUp()
        random = np.random.default_rng(11)
        self.columns = {name: random.lognormal(0, 1.5, w.shape[1]).astype(np.float32)
                        for name, w in weights().items() if "layers" in name}
        self.rows = {name: random.lognormal(-3, 1.5, w.shape[0]).astype(np.float32) for name, w in weights().items()}

    def write(self, name, content):
        with open(self.at(name), "wb") as file:
            file.write(content)
        return self.at(name)

    def schema(self, name, rows=True, columns=True):
        tensors = {}
        for weight, values in self.columns.items() if columns else ():
            tensors[weight + ".columns"] = ("F32", values.shape, values)
        for weight, values in self.rows.items() if rows else ():
            tensors[weight + ".rows"] = ("F32", values.shape, values)
        write_safetensors(self.at(name), tensors, {"lmq_importance": "1"})
        return self.at(name)

    def make(self, out, *more, **how):
        done = run("quantize", MODEL, "-o", self.at(out), "--progress", "none", "--levels", "8", "--json", self.at(out + ".json"), *more, **how)
        self.ok(done)
        with open(self.at(out + ".json")) as file:
            return done, json.load(file)

    def error(self, out, importance):
        """Weighted squared error of a file over the matrices, importance: name -> array that broadcasts."""
        self.ok(run("export", self.at(out), "--to", "safetensors", "-o", self.at(out + ".safetensors")))
        tensors, _ = read_safetensors(self.at(out + ".safetensors"))
        return sum((importance[name] * (w - widen(*tensors[name][::2]).reshape(w.shape)) ** 2).sum()
                   for name, w in weights().items() if name in importance)

    def test_every_kind_of_file_says_the_same_and_lowers_the_weighted_error(self):
        digests, errors = set(), {}
        files = {"columns.safetensors": self.schema("columns.safetensors", rows=False),
                 "old.imatrix": self.write("old.imatrix", binary_imatrix(self.columns, 4)),
                 "new.imatrix": self.write("new.imatrix", gguf_imatrix(self.columns))}
        try:
            import h5py
            with h5py.File(self.at("columns.h5"), "w") as file:
                for name, values in self.columns.items():
                    file[f"{name}/columns"] = values
            files["columns.h5"] = self.at("columns.h5")
        except ImportError:
            pass
        self.make("plain.h5")
        plain = self.error("plain.h5", self.columns)
        for name, path in files.items():
            with self.subTest(name):
                done, report = self.make("out.h5", "--importance", path)
                digests.add(report["importance"]["digest"])
                self.assertIn("35 of 36 quantized tensors: 35 by columns", done.err)
                self.assertIn("nothing for model.embed_tokens.weight", done.err)
                self.assertEqual(report["importance"]["missing"], ["model.embed_tokens.weight"])
                errors[name] = self.error("out.h5", self.columns)
                self.ok(run("verify", self.at("out.h5"), "--against", MODEL, "--importance", path, ranks=2 if "new" in name else 0))
        self.assertEqual(len(digests), 1)
        self.assertEqual(len(set(errors.values())), 1)
        self.assertLess(errors["old.imatrix"], 0.97 * plain)

    def test_damaged_files_of_every_kind_end_with_a_line_or_are_other_numbers(self):
        """A flip that leaves a file well formed changes numbers or names; whatever else it does is damage: 65."""
        few = {name: values for name, values in list(self.columns.items())[:3]}
        self.columns = few
        files = [self.schema("columns.safetensors", rows=False), self.write("old.imatrix", binary_imatrix(few)),
                 self.write("new.imatrix", gguf_imatrix(few))]
        random = np.random.default_rng(21)
        for path in files:
            with open(path, "rb") as file:
                whole = file.read()
            head = min(len(whole), 400)   # where names and sizes are
            damaged = [whole[:cut] for cut in (*range(1, 12), *random.integers(12, len(whole), 12))]
            for at in (*random.integers(0, head, 24), *random.integers(0, len(whole), 12)):
                flipped = bytearray(whole)
                flipped[at] ^= 1 << int(random.integers(0, 8))
                damaged.append(bytes(flipped))
            codes = set()
            for content in damaged:
                done = run("plan", MODEL, "--levels", "8", "--importance", self.write("damaged", content), "--quiet", "--json")
                codes.add(done.code)
                with self.subTest(path=path, content=content[:64], err=done.err):
                    self.assertIn(done.code, (0, 65, 69))
                    if done.code != 0:
                        self.assertEqual(len(done.err.splitlines()), 1)
                        self.assertEqual(done.out, "")
                    if done.code == 69:   # it reads as something that exists elsewhere: another kind of file, type or field
                        self.assertRegex(done.err, "an importance file is expected|is not supported|found the field")
            self.assertIn(65, codes)

    def test_rows_times_columns_is_the_same_for_any_ranks_and_beats_either_alone(self):
        both = {name: np.outer(self.rows[name].astype(np.float64), columns) for name, columns in self.columns.items()}
        errors = {}
        for name, kinds in (("none", None), ("rows", (True, False)), ("columns", (False, True)), ("both", (True, True))):
            how = ["--importance", self.schema(f"{name}.safetensors", *kinds)] if kinds else []
            self.make(f"{name}.h5", *how)
            errors[name] = self.error(f"{name}.h5", both)
        self.assertLess(errors["both"], min(errors["rows"], errors["columns"], errors["none"]))
        arguments = ["--importance", self.at("both.safetensors")]
        for granularity in ("group", "row"):
            self.make("one.h5", *arguments, "--granularity", granularity)
            self.make("three.h5", *arguments, "--granularity", granularity, ranks=3)
            self.assertEqual(sha256(self.at("one.h5")), sha256(self.at("three.h5")))
            self.ok(run("verify", self.at("one.h5"), "--against", MODEL, *arguments, ranks=2))

    def test_codes_by_value_and_importance_cost_less_and_are_the_same_for_any_ranks(self):
        both = {name: np.outer(self.rows[name].astype(np.float64), columns) for name, columns in self.columns.items()}
        arguments = ["--importance", self.schema("both.safetensors")]
        for method in (["ecsq", "--rate", "2"], ["ecsq-iter", "--rate", "2.5", "--lengths", "huffman", "--coder", "huffman"], ["ecsq", "--bits", "4"]):
            with self.subTest(method=method):
                how = ["quantize", MODEL, "--progress", "none", *arguments, "--method", *method]
                digests = set()
                for ranks, threads, isa in ((0, 1, ""), (0, 2, "baseline"), (2, 1, ""), (3, 1, "")):
                    self.ok(run(*how, "-o", self.at("joint.h5"), "--threads", str(threads), ranks=ranks,
                                **{"LMQ_ISA": isa} if isa else {}))
                    digests.add(sha256(self.at("joint.h5")))
                self.assertEqual(len(digests), 1)
                self.ok(run("verify", self.at("joint.h5"), "--against", MODEL, *arguments, ranks=2))
                self.ok(run(*how, "-o", self.at("interval.h5"), "--labels", "interval"))
                self.assertLess(self.error("joint.h5", both), 0.99 * self.error("interval.h5", both))
                if "--rate" in method:
                    self.assertLess(os.path.getsize(self.at("joint.h5")), 1.03 * os.path.getsize(self.at("interval.h5")))

    def test_exponents_belong_to_the_recipe(self):
        path = self.schema("i.safetensors")
        moments = {f"state.{name}.exp_avg_sq": ("F32", w.shape, np.outer(self.rows[name], np.ones(w.shape[1], np.float32)) ** 2)
                   for name, w in weights().items()}
        write_safetensors(self.at("adam.safetensors"), moments)
        _, root = self.make("root.h5", "--importance", self.at("adam.safetensors"))
        _, fisher = self.make("fisher.h5", "--importance", self.at("adam.safetensors"), "--importance-power", "1")
        _, rows = self.make("rows.h5", "--importance", self.schema("rows.safetensors", columns=False))
        name = "model.layers.0.mlp.up_proj.weight"
        self.assertAlmostEqual(root["importance"]["tensors"][name]["mean"], rows["importance"]["tensors"][name]["mean"], 4)
        self.assertNotEqual(sha256(self.at("root.h5")), sha256(self.at("fisher.h5")))
        self.ok(run("verify", self.at("fisher.h5"), "--against", MODEL, "--importance", self.at("adam.safetensors")))
        with open(self.at("r.json"), "w") as file:
            json.dump({"importance_power": 1}, file)
        planned = json.loads(run("plan", MODEL, "--importance", self.at("adam.safetensors"), "--recipe", self.at("r.json"), "--json").out)
        self.assertEqual(planned["importance"]["digest"], fisher["importance"]["digest"])
        for power in ("0", "-1", "2.5", "nan", "x"):
            self.refused(run("plan", MODEL, "--importance", path, "--importance-power", power), 64, "importance-power")
        self.refused(run("plan", MODEL, "--importance-power", "1"), 64, "--importance FILE")
        self.refused(run("plan", MODEL, "--importance", path, "--importance-power", "1", "--recipe", self.at("r.json")), 64, "contradicts")

    def test_experts_without_statistics_are_reported(self):
        random = np.random.default_rng(1)
        source = self.at("moe.safetensors")
        names = [f"model.layers.0.mlp.experts.{e}.up_proj.weight" for e in range(3)]
        write_safetensors(source, {name: ("F32", (40, 32), random.standard_normal((40, 32), np.float32)) for name in names})
        sums = np.stack([random.random(32) + 1, np.ones(32), random.random(32) + 1]).astype(np.float32)
        name = b"blk.0.ffn_up_exps.weight"
        path = self.write("i", struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 1, 96) + sums.tobytes())
        planned = run("plan", source, "--importance", path)
        self.ok(planned)
        self.assertIn("3 of 3", planned.err)
        self.assertIn(f"the mean of their siblings serves for {names[1]}", planned.err)

    def test_the_wrong_file_is_refused_and_nothing_is_written(self):
        other = {name.replace("layers.", "layers.1"): values for name, values in self.columns.items()}
        wide = {name: np.ones(len(values) + 1, np.float32) for name, values in self.columns.items()}
        whole = gguf_imatrix(self.columns)
        cases = ((gguf_imatrix(other), ["blk.10.", "nothing in it belongs", "model.embed_tokens.weight"]),
                 (binary_imatrix(wide), ["173 columns", "another model"]),
                 (whole[:len(whole) // 2], ["the file has"]),
                 (binary_imatrix(self.columns)[:5000], ["needed"]),
                 (binary_imatrix({n: -v for n, v in self.columns.items()}), ["importance 0 is -"]))
        for ranks in (0, 2):
            for content, words in cases:
                path = self.write("i", content)
                self.refused(run("quantize", MODEL, "-o", self.at("out.h5"), "--importance", path, ranks=ranks), 65, *words)
                self.assertFalse([name for name in os.listdir(self.folder) if name.startswith("out.h5")])


    def test_samples_that_are_no_number_are_refused_and_not_passed_over(self):
        path = self.at("i.safetensors")
        columns = {f"{name}.columns": ("F32", w.shape[1:], np.ones(w.shape[1], "<f4")) for name, w in weights().items()}
        for said in ("many", "", "0", "-5", "nan", "12x", "1,024"):
            write_safetensors(path, columns, {"samples": said})
            self.refused(run("plan", MODEL, "--importance", path), 65, "'samples'", f"found '{said}'", "a number from 1")
        for said in ("1", "12.5", "1e9"):
            write_safetensors(path, columns, {"samples": said})
            self.ok(run("plan", MODEL, "--importance", path))


class OddNumbers(LmqTest):
    def test_numbers_beyond_f32_are_named_as_such(self):
        source = self.small_checkpoint()
        for value, words in ((1e300, "1e+300, beyond what F32 holds"), (np.inf, "is inf, expected a finite number"), (np.nan, "is nan")):
            numbers = np.ones(48)
            numbers[7] = value
            write_safetensors(self.at("i.safetensors"), {"block.0.weight.columns": ("F64", (48,), numbers.astype("<f8"))})
            for command in (("plan",), ("quantize", "-o", self.at("o.h5"))):
                self.refused(run(command[0], source, *command[1:], "--importance", self.at("i.safetensors")), 65, "importance 7", words)

    def test_a_model_that_is_too_small_is_kept_and_that_is_said(self):
        source = self.at("small.safetensors")
        write_safetensors(source, {"a.weight": ("F32", (4, 4), np.ones((4, 4), "<f4")), "n": ("F32", (4,), np.ones(4, "<f4"))})
        write_safetensors(self.at("i.safetensors"), {"a.weight.columns": ("F32", (4,), np.ones(4, "<f4"))})
        for words in (("--importance", self.at("i.safetensors")), (), ("--target-size", "1M", "--method", "kmeans")):
            done = self.ok(run("quantize", source, *words, "-o", self.at("o.h5")))
            self.assertIn("raw: fewer than", done.out)
            self.assertIn("no tensor is quantized: all are kept", done.err)
            self.assertNotIn("cannot be reached", done.err)
            self.ok(run("verify", self.at("o.h5"), "--against", source))
            self.ok(run("plan", source, *words))
        self.refused(run("plan", source, "--bits", "3"), 64, "cannot be reached")
        self.refused(run("plan", self.small_checkpoint(), "--bits", "3", "--tensor", "*=keep"), 64, "every rule says its own")

    def test_what_is_said_of_codebooks_can_be_followed(self):
        source = self.small_checkpoint(rows=128, cols=128)
        said = self.ok(run("quantize", source, "-o", self.at("o.h5"), "--for", "gguf:q4_0")).err
        self.assertIn("codebooks of their own, as --for gguf:q4_0 asks", said)
        words = ("quantize", source, "-o", self.at("o.h5"), "--method", "kmeans", "--levels", "4", "--granularity")
        self.assertIn("with granularity tensor nearly all", self.ok(run(*words, "group", "--group", "32")).err)
        self.assertNotIn("codebooks of their own", self.ok(run(*words, "tensor")).err)


if __name__ == "__main__":
    unittest.main()
