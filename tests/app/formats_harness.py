"""What tests of formats share: files made on the spot, what is kept of them, and what becomes of damaged ones."""
import random

import h5py
import numpy as np

from lmq_harness import LmqTest, run


class FormatsTest(LmqTest):
    def file(self, name, data):
        with open(self.at(name), "wb") as file:
            file.write(data)
        return self.at(name)

    def kept(self, source, **how):
        """name -> values, read by h5py from a file that keeps all tensors raw."""
        self.file("keep.json", b'{"rules": [{"match": "*", "keep": true}]}')
        done = self.ok(run("quantize", source, "-o", self.at("kept.h5"), "--recipe", self.at("keep.json"), "--progress", "none",
                           "--resume", "never", "--force", **how))
        found = {}
        with h5py.File(self.at("kept.h5")) as file:
            file.visititems(lambda name, item: found.update({name: item[()]})
                            if isinstance(item, h5py.Dataset) and not name.startswith("lmq/") else None)
        self.warned = done.err
        return found

    def same(self, got, expected):
        self.assertEqual(got.shape, expected.shape)
        self.assertEqual(got.astype(got.dtype.newbyteorder("<")).tobytes(), np.ascontiguousarray(expected).astype(got.dtype).tobytes())

    def quantizes(self, source):
        """A run, its check against the source, and the same bytes from three ranks."""
        digests = set()
        for ranks in (0, 3):
            self.ok(run("quantize", source, "-o", self.at("q.h5"), "--method", "kmeans", "--levels", 16, "--progress", "none", "--resume", "never",
                        ranks=ranks))
            with open(self.at("q.h5"), "rb") as file:
                digests.add(file.read())
        self.assertEqual(len(digests), 1)
        self.ok(run("verify", self.at("q.h5"), "--against", source))

    # More than 5 parameters: how densely a file is damaged, by name.
    def breaks(self, name, data, head, step=7, flips=150, padding=0):
        """Cut at each `step`th byte of its head, and with bits changed: refused as malformed or unsupported in one line, or read; nothing else."""
        for length in list(range(0, head, step)) + [len(data) - padding - 1]:
            done = run("inspect", self.file(name, data[:length]), timeout=20)
            self.assertIn(done.code, (65, 69), (length, done))
            self.assertEqual(len(done.err.splitlines()), 1, done)
        chance = random.Random(3)
        for _ in range(flips):
            changed = bytearray(data)
            changed[chance.randrange(head)] ^= 1 << chance.randrange(8)
            done = run("inspect", self.file(name, bytes(changed)), timeout=20)
            self.assertIn(done.code, (0, 65, 66, 69), done)
