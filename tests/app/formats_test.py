"""Other formats of checkpoints come in as they are meant: GGUF, NumPy, PyTorch, HDF5 and Keras, value by value; broken ones are refused in one
line. Nothing here needs a package of those formats but h5py; where the real ones are installed, they are asked, too."""
import io
import json
import os
import struct
import unittest
import zipfile

import h5py
import numpy as np

import gguf_plain
from formats_harness import FormatsTest
from lmq_harness import bf16, run

RANDOM = np.random.default_rng(17)


class Gguf(FormatsTest):
    def test_every_block_type_decodes_as_its_layout_says_bit_for_bit(self):
        tensors, expected = [], {}
        for name, (number, elements, _, _, _) in gguf_plain.TYPES.items():
            data = gguf_plain.random_blocks(name, 12, RANDOM)
            tensors.append((name, (3, 4 * elements), number, data))
            expected[name] = gguf_plain.decode(name, data).reshape(3, 4 * elements)
        kept = self.kept(self.file("all.gguf", gguf_plain.gguf(tensors, [("general.architecture", "llama")])))
        self.assertEqual(kept.keys(), expected.keys())
        for name, values in expected.items():
            with self.subTest(name):
                self.same(kept[name], values)
        self.assertIn("quantized already", self.warned)
        try:
            import gguf
        except ImportError:
            return
        for name, (number, _, size, _, _) in gguf_plain.TYPES.items():
            data = next(t[3] for t in tensors if t[0] == name)
            try:
                theirs = gguf.quants.dequantize(np.frombuffer(data, np.uint8).reshape(3, -1), gguf.GGMLQuantizationType(number))
            except (NotImplementedError, ValueError):
                continue
            self.same(kept[name], theirs.reshape(kept[name].shape))

    def test_plain_types_keep_their_bits_and_dimensions_are_turned_round(self):
        values = {"F32": RANDOM.standard_normal((2, 3, 5)).astype("<f4"), "F16": RANDOM.standard_normal((7, 3)).astype("<f2"),
                  "F64": RANDOM.standard_normal(4), "BF16": bf16(RANDOM.standard_normal((5, 8))), "I8": np.arange(6, dtype="i1"),
                  "I32": np.arange(-3, 3, dtype="<i4").reshape(2, 3)}
        tensors = [(name, array.shape, gguf_plain.PLAIN[name][0], array.tobytes()) for name, array in values.items()]
        kept = self.kept(self.file("plain.gguf", gguf_plain.gguf(tensors, [("general.alignment", 64)], 64)))
        for name, array in values.items():
            self.assertEqual(kept[name].shape, array.shape)
            if name == "BF16":
                array = (array.astype(np.uint32) << 16).view(np.float32)
                self.assertEqual(kept[name].astype(np.float32).tobytes(), array.tobytes())
            else:
                self.same(kept[name], array)

    def test_quantizing_blocks_is_the_same_on_any_ranks_and_verifies(self):
        data = gguf_plain.random_blocks("Q4_K", 64 * 3, RANDOM)
        self.quantizes(self.file("q.gguf", gguf_plain.gguf([("w", (64, 768), 12, data), ("n", (4,), 0, b"\0" * 16)])))

    def test_a_split_model_is_read_from_any_of_its_parts(self):
        for part in range(2):
            keys = [("general.architecture", "llama"), ("split.no", part), ("split.count", 2)]
            self.file(f"m-0000{part + 1}-of-00002.gguf",
                      gguf_plain.gguf([(f"t{part}", (2, 4), 0, np.full(8, part, "<f4").tobytes())], keys))
        for name in ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "."):
            kept = self.kept(self.at(name))
            self.assertEqual({key: array[0, 0] for key, array in kept.items()}, {"t0": 0, "t1": 1})
        os.remove(self.at("m-00002-of-00002.gguf"))
        self.refused(run("inspect", self.at("m-00001-of-00002.gguf")), 66, "m-00002-of-00002.gguf", "missing")

    def test_keys_are_kept_in_the_provenance(self):
        source = self.file("k.gguf", gguf_plain.gguf([("t", (2, 2), 0, b"\0" * 16)], [
            ("general.architecture", "llama"), ("llama.block_count", 5), ("llama.rope.freq_base", 0.5), ("tokenizer.ggml.tokens", ["a", "b"])]))
        self.kept(source)
        done = json.loads(self.ok(run("inspect", self.at("kept.h5"), "--json")).out)
        self.assertEqual(done["provenance"]["metadata"], {"general.architecture": "llama", "llama.block_count": "5", "llama.rope.freq_base": "0.5"})
        self.assertEqual(done["provenance"]["format"], "GGUF")

    def test_what_is_not_decoded_is_named_with_the_line_that_converts_it(self):
        for number, name in ((19, "IQ1_S"), (4, "type 4"), (77, "type 77")):
            source = self.file("x.gguf", gguf_plain.gguf([("t", (1, 256), number, b"\0" * 50)]))
            self.refused(run("inspect", source), 69, name, "llama-quantize")

    def test_false_headers_are_refused_at_once(self):
        head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0)
        tensor = gguf_plain.text(b"t") + struct.pack("<IQQ", 2, 8, 4) + struct.pack("<IQ", 0, 0)
        cases = {"2^60 tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "2^60 keys": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
                 "endless text": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", (1 << 64) - 1),
                 "array of arrays": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_plain.text(b"k") + struct.pack("<IIQ", 9, 9, 1),
                 "array of 2^63": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + gguf_plain.text(b"k") + struct.pack("<IIQ", 9, 8, 1 << 63),
                 "data beyond the end": head + tensor, "overflow": head + gguf_plain.text(b"t") + struct.pack("<I", 4) +
                 struct.pack("<QQQQ", 1 << 32, 1 << 32, 1 << 32, 2) + struct.pack("<IQ", 0, 0),
                 "half a block": head + gguf_plain.text(b"t") + struct.pack("<IQQ", 2, 33, 2) + struct.pack("<IQ", 2, 0),
                 "twice": gguf_plain.gguf([("t", (1,), 0, b"\0" * 4)] * 2),
                 "alignment 3": gguf_plain.gguf([("t", (1,), 0, b"\0" * 4)], [("general.alignment", 3)])}
        for name, data in cases.items():
            with self.subTest(name):
                self.refused(run("inspect", self.file("x.gguf", data + b"\0" * 64), timeout=10), 65)
        self.refused(run("inspect", self.file("x.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + b"\0" * 32)), 69, "big-endian")
        for version in (0, 1, 4):
            self.refused(run("inspect", self.file("x.gguf", b"GGUF" + struct.pack("<IQQ", version, 0, 0) + b"\0" * 32)), 69, f"of version {version}")

    def test_truncated_and_changed_files_are_refused_or_read(self):
        data = gguf_plain.gguf([("a", (2, 64), 2, gguf_plain.random_blocks("Q4_0", 4, RANDOM)), ("b", (3,), 0, b"\0" * 12)],
                               [("general.architecture", "x"), ("n", 3), ("words", ["a", "bc"])])
        self.breaks("x.gguf", data, len(data) - 200, padding=20)


class Numpy(FormatsTest):
    ARRAYS = {"w": RANDOM.standard_normal((33, 20)).astype("<f4"), "h": RANDOM.standard_normal((4, 5, 6)).astype("<f2"), "d": RANDOM.standard_normal((3, 2)),
              "big": RANDOM.standard_normal((9, 4)).astype(">f4"), "f": np.asfortranarray(RANDOM.standard_normal((40, 30)).astype("<f4")),
              "f3": np.asfortranarray(RANDOM.standard_normal((5, 4, 3)).astype("<f4")), "i": np.arange(5), "scalar": np.float32(3.5),
              "none": np.zeros((0, 3), "<f4"), "truth": np.array([True, False])}

    def check(self, kept, arrays):
        self.assertEqual(kept.keys(), arrays.keys())
        for name, array in arrays.items():
            with self.subTest(name):
                self.assertEqual(kept[name].shape, np.shape(array))
                self.assertEqual(np.asarray(kept[name]).astype("<f8").tobytes(), np.ascontiguousarray(array).astype("<f8").tobytes())

    def test_arrays_of_an_archive_come_in_value_by_value(self):
        np.savez(self.at("a.npz"), **self.ARRAYS)
        self.check(self.kept(self.at("a.npz")), self.ARRAYS)
        self.quantizes(self.at("a.npz"))

    def test_deflated_arrays_too(self):
        arrays = {name: array for name, array in self.ARRAYS.items() if name not in ("f", "f3", "scalar")}
        np.savez_compressed(self.at("c.npz"), **arrays)
        self.check(self.kept(self.at("c.npz")), arrays)
        self.quantizes(self.at("c.npz"))
        np.savez_compressed(self.at("f.npz"), f=self.ARRAYS["f"])
        self.refused(run("inspect", self.at("f.npz")), 69, "'f'", "numpy.savez")

    def test_one_array_has_the_name_of_its_file(self):
        np.save(self.at("alone.npy"), self.ARRAYS["w"])
        self.check(self.kept(self.at("alone.npy")), {"alone": self.ARRAYS["w"]})

    def test_texts_and_objects_are_named_and_not_taken(self):
        np.savez(self.at("o.npz"), w=self.ARRAYS["w"], words=np.array(["a", "bc"]), things=np.array([{}, None]))
        self.assertEqual(self.kept(self.at("o.npz")).keys(), {"w"})
        for name in ("words", "things"):
            self.assertIn(f"array '{name}'", self.warned)

    def test_a_bomb_is_refused_before_it_unpacks(self):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            head = io.BytesIO()
            np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 12)})
            archive.writestr("w.npy", head.getvalue() + b"\0" * 4096)
        self.refused(run("quantize", self.file("bomb.npz", data.getvalue()), "-o", self.at("x.h5"), timeout=20), 65, "'w'")

    def test_truncated_and_changed_archives_are_refused_or_read(self):
        np.savez_compressed(self.at("x.npz"), a=np.arange(12, dtype="<f4").reshape(3, 4), b=np.ones(3, "<f8"))
        with open(self.at("x.npz"), "rb") as file:
            data = file.read()
        self.breaks("x.npz", data, len(data), step=5)


class Hdf5(FormatsTest):
    def test_chunks_filters_and_byte_orders_come_in_value_by_value(self):
        w = RANDOM.standard_normal((45, 37)).astype("<f4")
        cases = {"plain": {}, "chunks": {"chunks": (8, 10)}, "gzip": {"chunks": (16, 37), "compression": "gzip"},
                 "shuffle": {"chunks": (7, 9), "compression": "gzip", "shuffle": True}, "lzf": {"chunks": (20, 20), "compression": "lzf", "shuffle": True},
                 "sum": {"chunks": (45, 5), "fletcher32": True}, "all": {"chunks": (11, 13), "compression": "gzip", "shuffle": True, "fletcher32": True},
                 "grows": {"maxshape": (None, None)}}
        with h5py.File(self.at("m.h5"), "w") as file:
            for name, how in cases.items():
                file.create_dataset(f"g/{name}", data=w, **how)
            file.create_dataset("big", data=w.astype(">f8"))
            file.create_dataset("half", data=w.astype("<f2"), chunks=(3, 3), compression="gzip")
            file.create_dataset("holes", shape=(20, 20), dtype="<f4", chunks=(5, 5))[3:8, 3:8] = 2
            file.create_dataset("unwritten", shape=(3, 4), dtype="<f4")
            file.create_dataset("i", data=np.arange(6).reshape(2, 3))
            file.create_dataset("truth", data=np.array([True, False]))
            file.create_dataset("words", data=["a", "b"])
            file["soft"] = h5py.SoftLink("/big")
        kept = self.kept(self.at("m.h5"))
        self.assertEqual(kept.keys(), {f"g/{name}" for name in cases} | {"big", "half", "holes", "unwritten", "i", "truth"})
        for name in cases:
            with self.subTest(name):
                self.same(kept[f"g/{name}"], w)
        self.same(kept["big"], w.astype("<f8"))
        self.same(kept["half"], w.astype("<f2"))
        self.assertEqual(kept["holes"].sum(), 50)
        self.assertEqual(kept["unwritten"].sum(), 0)
        self.assertIn("'/words'", self.warned)
        self.assertIn("soft links", self.warned)
        self.quantizes(self.at("m.h5"))

    def test_keras_weights_and_archives(self):
        kernel, values = RANDOM.standard_normal((12, 20)).astype("<f4"), bf16(RANDOM.standard_normal((4, 6)))
        with h5py.File(self.at("model.weights.h5"), "w") as file:
            file.create_dataset("layers/dense/vars/0", data=kernel)
            file.create_dataset("layers/dense_1/vars/0", data=values.view("V2")).attrs["dtype"] = "bfloat16"
        with zipfile.ZipFile(self.at("model.keras"), "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", "{}")
            archive.write(self.at("model.weights.h5"), "model.weights.h5")
        for name in ("model.weights.h5", "model.keras"):
            kept = self.kept(self.at(name))
            self.same(kept["layers/dense/vars/0"], kernel)
            self.assertEqual(kept["layers/dense_1/vars/0"].astype("<f4").tobytes(), (values.astype(np.uint32) << 16).view(np.float32).tobytes())

    def test_the_state_of_a_keras_optimizer_is_no_weights(self):
        kernel = RANDOM.standard_normal((40, 64)).astype("<f4")
        for name, weights, state in (("two.h5", "model_weights/dense/dense/kernel:0", "optimizer_weights/Adam/dense/kernel/{}:0"),
                                     ("three.weights.h5", "layers/dense/vars/0", "optimizer/vars/{}"),
                                     ("mixed.weights.h5", "layers/optimizer/vars/0", "optimizer/inner_optimizer/vars/{}"),
                                     ("pair.weights.h5", "generator/layers/dense/vars/0", "generator/d_optimizer/vars/{}")):
            with h5py.File(self.at(name), "w") as file:
                file.create_dataset(weights, data=kernel)
                for part in ("m", "v"):
                    file.create_dataset(state.format(part), data=kernel)
                file.create_dataset(state.format("iter"), data=np.int64(7))
            self.assertEqual(list(self.kept(self.at(name))), [weights])
            self.assertIn("state of the optimizer is not taken: 3 datasets", self.warned)
            plan = self.ok(run("plan", self.at(name), "--target-size", "8000"))
            self.assertNotIn("Adam", plan.out)
            self.assertIn("state of the optimizer", plan.err)
        with h5py.File(self.at("state.h5"), "w") as file:  # named itself it is what is wanted
            file.create_dataset("optimizer/vars/0", data=kernel)
        self.assertEqual(list(self.kept(self.at("state.h5"))), ["optimizer/vars/0"])

    def test_what_leads_out_of_the_file_or_is_not_decoded_is_named_with_a_way_out(self):
        w = np.ones((8, 8), "<f4")

        def virtual(file):
            layout = h5py.VirtualLayout((2, 2), "<f4")
            layout[:] = h5py.VirtualSource("other.h5", "a", (2, 2))
            file.create_virtual_dataset("w", layout)

        cases = {"link": (lambda f: f.__setitem__("out", h5py.ExternalLink("other.h5", "/a")), 69, ["'/out'", "another file"]),
                 "scale": (lambda f: f.create_dataset("w", data=np.ones((8, 8), "i4"), chunks=(4, 4), scaleoffset=4), 69, ["'/w'", "h5repack"]),
                 "external": (lambda f: f.create_dataset("w", (2, 2), "<f4", external=[(self.at("raw"), 0, 16)]), 69, ["'/w'", "h5repack"]),
                 "fill": (lambda f: f.create_dataset("w", (2, 2), "<f4", fillvalue=3), 69, ["'/w'", "fill value"]),
                 "virtual": (virtual, 69, ["'/w'", "virtual"])}
        for name, (fill, code, words) in cases.items():
            with self.subTest(name):
                with h5py.File(self.at("x.h5"), "w") as file:
                    fill(file)
                self.refused(run("inspect", self.at("x.h5")), code, *words)
        with h5py.File(self.at("u.h5"), "w", userblock_size=512) as file:
            file.create_dataset("w", data=w)
        self.refused(run("inspect", self.at("u.h5")), 69, "user block", "h5unjam")
        with h5py.File(self.at("old.h5"), "w", libver="earliest") as file:
            file.create_dataset("w", data=w, chunks=(4, 4), compression="gzip")
        self.same(self.kept(self.at("old.h5"))["w"], w)
        with h5py.File(self.at("new.h5"), "w", libver=("v110", "v110")) as file:
            file.create_dataset("w", data=w, chunks=(4, 4), compression="gzip")
        self.same(self.kept(self.at("new.h5"))["w"], w)

    def test_damaged_chunks_are_found_when_they_are_read(self):
        with h5py.File(self.at("d.h5"), "w") as file:
            file.create_dataset("w", data=RANDOM.standard_normal((64, 64)).astype("<f4"), chunks=(64, 64), fletcher32=True)
            offset = file["w"].id.get_chunk_info(0).byte_offset
        with open(self.at("d.h5"), "r+b") as file:
            file.seek(offset + 1000)
            file.write(b"\xff")
        self.refused(run("quantize", self.at("d.h5"), "-o", self.at("x.h5"), "--progress", "none"), 65, "'w'", "chunk 0", "checksum")

    def test_truncated_and_changed_files_are_refused_or_read(self):
        with h5py.File(self.at("x.h5"), "w") as file:
            file.create_dataset("g/w", data=np.ones((4, 4), "<f4"), chunks=(2, 2), compression="gzip")
            file.create_dataset("v", data=np.ones(3, "<f8"))
        with open(self.at("x.h5"), "rb") as file:
            data = file.read()
        self.breaks("x.h5", data, len(data), step=97)


class Folders(FormatsTest):
    def test_a_folder_is_its_one_checkpoint_and_a_choice_is_asked(self):
        np.save(self.at("a.npy"), np.ones((2, 2), "<f4"))
        self.file("training_args.bin", b"whatever")
        self.assertEqual(self.kept(self.at(".")).keys(), {"a"})
        os.remove(self.at("kept.h5"))
        np.save(self.at("b.npy"), np.ones((2, 2), "<f4"))
        self.refused(run("inspect", self.at(".")), 64, "a.npy", "b.npy")

    def test_a_zip_archive_of_nothing_known_says_what_it_holds(self):
        with zipfile.ZipFile(self.at("x.zip"), "w") as archive:
            archive.writestr("readme.txt", "hello")
        self.refused(run("inspect", self.at("x.zip")), 69, "readme.txt", "unpack it")


if __name__ == "__main__":
    unittest.main()
