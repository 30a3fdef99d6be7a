"""What was written is what verify reads: another original, a flipped bit, every record."""
import json
import os
import unittest

import numpy as np

from lmq_harness import LmqTest, read_safetensors, run, write_safetensors


class Verify(LmqTest):
    def setUp(self):
        super().setUp()
        self.source = self.small_checkpoint()
        self.path = self.at("out.h5")
        self.ok(run("quantize", self.source, "-o", self.path, "--levels", "8", "--progress", "none"))

    def test_another_original_is_a_difference(self):
        other = self.small_checkpoint("other.safetensors", seed=2)
        done = run("verify", self.path, "--against", other)
        self.assertEqual(done.code, 1, done)
        self.assertIn("block.0.weight", done.out)
        tensors, _ = read_safetensors(self.source)
        dtype, shape, blob = tensors["norm.weight"]
        for change, word in [
            ({"norm.weight": (dtype, shape, blob[:-1] + bytes([blob[-1] ^ 1]))}, "norm.weight"),
            ({"norm.weight": (dtype, (6, 8), blob)}, "shape"),
            ({"norm.weight": ("F16", shape, blob)}, "F16"),
            ({"extra.weight": (dtype, shape, blob)}, "extra.weight"),
        ]:
            write_safetensors(other, {**tensors, **change})
            done = run("verify", self.path, "--against", other, ranks=2)
            self.assertEqual(done.code, 1, done)
            self.assertIn(word, done.told)
            self.assertEqual(json.loads(run("verify", self.path, "--against", other, "--json").out)["differences"].__len__(), 1)
        del tensors["norm.weight"]
        write_safetensors(other, tensors)
        self.assertEqual(run("verify", self.path, "--against", other).code, 1)

    def test_no_flipped_bit_goes_unseen_and_none_is_a_crash(self):
        with open(self.path, "rb") as file:
            content = file.read()
        random = np.random.default_rng(9)
        broken = self.at("broken.h5")
        unseen = 0
        for at in random.integers(0, len(content), 60):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(random.integers(0, 8))
            with open(broken, "wb") as file:
                file.write(flipped)
            done = run("verify", broken, "--against", self.source)
            self.assertIn(done.code, (0, 1, 65, 66, 69, 74), (at, done))
            unseen += done.code == 0   # padding of HDF5's own metadata
        self.assertLess(unseen, 20)
        for length in (0, 1, 8, 100, len(content) // 2, len(content) - 1):
            with open(broken, "wb") as file:
                file.write(content[:length])
            self.assertNotIn(run("verify", broken).code, (0, -6, -11, 70), length)

    def test_records_and_raw_bytes_are_all_covered(self):
        """A flip inside any unit's stored bytes is found, and named."""
        os.environ.pop("HDF5_PLUGIN_PATH", None)
        import h5py
        places = []
        with h5py.File(self.path) as file:
            places += [("norm.weight", file["norm.weight"].id.get_offset(), file["norm.weight"].id.get_storage_size())]
            for name in ("block.0.weight", "block.1.weight"):
                info = file[name].id.get_chunk_info(0)
                places.append((name, info.byte_offset, info.size))
        with open(self.path, "rb") as file:
            content = file.read()
        for name, offset, size in places:
            for at in (offset, offset + size // 2, offset + size - 1):
                flipped = bytearray(content)
                flipped[at] ^= 0x10
                with open(self.at("broken.h5"), "wb") as file:
                    file.write(flipped)
                done = run("verify", self.at("broken.h5"))
                self.assertEqual(done.code, 1, done)
                self.assertIn(name, done.told)
                self.assertNotEqual(run("export", self.at("broken.h5"), "--to", "safetensors", "-o", self.at("x.safetensors")).code, 0)
                self.assertFalse(os.path.exists(self.at("x.safetensors")))


if __name__ == "__main__":
    unittest.main()
