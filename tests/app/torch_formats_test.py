"""PyTorch archives come in as they are meant, without running code of theirs; where torch is installed, it is asked, too."""
import io
import json
import pickle
import struct
import unittest
import zipfile

import numpy as np

from formats_harness import FormatsTest
from lmq_harness import bf16, run


RANDOM = np.random.default_rng(17)


class Ref:
    """What a pickle names without a module of that name being there."""
    def __init__(self, module, name):
        self.module, self.name = module, name


# More than 40 lines: an opcode for each kind of node.
def torch_pickle(tree, storages):
    """Protocol 2 as torch.save writes it; tensors: ("tensor", key, class, offset, size, stride)."""
    out = [b"\x80\x02"]

    def word(text):
        out.append(b"X" + struct.pack("<I", len(text)) + text.encode())

    def number(n):
        out.append(b"J" + struct.pack("<i", n) if n < 1 << 31 else b"\x8a\x08" + struct.pack("<q", n))

    def put(node):
        if isinstance(node, dict):
            out.append(b"}(")
            for key, item in node.items():
                word(key)
                put(item)
            out.append(b"u")
        elif isinstance(node, tuple) and node and node[0] == "tensor":
            _, key, kind, offset, size, stride = node
            out.append(b"ctorch._utils\n_rebuild_tensor_v2\n((")
            word("storage")
            out.append(b"ctorch\n" + kind.encode() + b"\n")
            word(key)
            word("cpu")
            number(storages[key][1])
            out.append(b"tQ")
            number(offset)
            for sizes in (size, stride):
                out.append(b"(")
                for n in sizes:
                    number(n)
                out.append(b"t")
            out.append(b"\x89ccollections\nOrderedDict\n)RtR")
        elif isinstance(node, Ref):
            out.append(f"c{node.module}\n{node.name}\n(".encode())
            word("touch /tmp/never")
            out.append(b"tR")
        elif isinstance(node, str):
            word(node)
        elif node is None:
            out.append(b"N")
        else:
            number(node)

    put(tree)
    return b"".join(out) + b"."


# More than 5 parameters: what an archive may have otherwise, by name.
def torch_archive(tree, arrays, counts=None, order=b"little", extra=(), root="archive", packing=zipfile.ZIP_STORED):
    """arrays: key -> bytes and count of elements."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", packing) as archive:
        archive.writestr(f"{root}/data.pkl", torch_pickle(tree, counts or arrays))
        archive.writestr(f"{root}/byteorder", order)
        for key, (blob, _) in arrays.items():
            archive.writestr(f"{root}/data/{key}", blob)
        for name, blob in extra:
            archive.writestr(name, blob)
        archive.writestr(f"{root}/version", b"3\n")
    return data.getvalue()

W = RANDOM.standard_normal((30, 40)).astype("<f4")
W_STORAGE = {"0": (W.tobytes(), W.size)}


class Torch(FormatsTest):
    def test_tensors_come_in_plain_turned_sliced_and_half(self):
        h = bf16(RANDOM.standard_normal((6, 8)))
        tree = {"w": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1)), "turned": ("tensor", "0", "FloatStorage", 0, (40, 30), (1, 40)),
                "slice": ("tensor", "0", "FloatStorage", 41, (10, 5), (80, 2)), "h": ("tensor", "1", "BFloat16Storage", 0, (6, 8), (8, 1)),
                "nested": {"s": ("tensor", "0", "FloatStorage", 7, (), ())}, "epoch": 3}
        arrays = {**W_STORAGE, "1": (h.tobytes(), h.size)}
        kept = self.kept(self.file("m.pt", torch_archive(tree, arrays)))
        self.assertEqual(kept.keys(), {"w", "turned", "slice", "h", "nested.s"})
        self.same(kept["w"], W)
        self.same(kept["turned"], W.T)
        self.same(kept["slice"], W.reshape(-1)[41:41 + 10 * 80].reshape(10, 80)[:, :10:2])
        self.same(kept["nested.s"], W.reshape(-1)[7])
        self.assertEqual(kept["h"].astype("<f4").tobytes(), (h.astype(np.uint32) << 16).view(np.float32).tobytes())
        self.assertIn("no tensors", self.warned)
        self.quantizes(self.at("m.pt"))

    def test_a_shared_tensor_is_stored_once_and_named(self):
        tree = {"emb": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1)), "aaa": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1))}
        self.assertEqual(self.kept(self.file("m.bin", torch_archive(tree, W_STORAGE))).keys(), {"emb"})
        self.assertIn("'aaa' is 'emb'", self.warned)
        metadata = json.loads(self.ok(run("inspect", self.at("kept.h5"), "--json")).out)["provenance"]["metadata"]
        self.assertEqual(metadata["aaa"], "emb")

    def test_of_a_training_the_model_alone_is_taken(self):
        one = ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1))
        tree = {"epoch": 1, "state_dict": {"l.weight": one}, "optimizer": {"exp_avg": ("tensor", "0", "FloatStorage", 8, (30,), (40,))}}
        self.assertEqual(self.kept(self.file("m.ckpt", torch_archive(tree, W_STORAGE))).keys(), {"l.weight"})
        self.assertIn("not taken: epoch, optimizer", self.warned)

    def test_a_numbered_set_is_read_whole_from_its_folder_and_index(self):
        for part in range(2):
            self.file(f"pytorch_model-0000{part + 1}-of-00002.bin",
                      torch_archive({f"t{part}": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1))}, W_STORAGE))
        self.file("pytorch_model.bin.index.json", json.dumps({"weight_map": {
            f"t{p}": f"pytorch_model-0000{p + 1}-of-00002.bin" for p in range(2)}}).encode())
        for name in (".", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"):
            self.assertEqual(self.kept(self.at(name)).keys(), {"t0", "t1"})

    def test_big_endian_archives_are_turned_round(self):
        big = W.astype(">f4")
        tree = {"w": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1))}
        self.same(self.kept(self.file("m.pt", torch_archive(tree, {"0": (big.tobytes(), W.size)}, order=b"big")))["w"], W)

    def test_code_is_never_run_and_named(self):
        for module, name in (("os", "system"), ("builtins", "eval"), ("torch", "load"), ("argparse", "Namespace")):
            source = self.file("evil.pt", torch_archive({"w": Ref(module, name)}, W_STORAGE))
            self.refused(run("inspect", source), 69, f"{module}.{name}", "torch.save")
        raw = pickle.dumps({"a": print}, protocol=2)
        self.refused(run("inspect", self.file("old.bin", raw)), 69, "pickle", "torch.save")

    def test_false_archives_are_refused(self):
        tree = {"w": ("tensor", "0", "FloatStorage", 0, (30, 40), (40, 1))}
        good = torch_archive(tree, W_STORAGE)
        beyond = {"w": ("tensor", "0", "FloatStorage", 1, (30, 40), (40, 1))}
        blown = {"w": ("tensor", "0", "FloatStorage", 0, (1 << 20, 1 << 20), (0, 0))}
        negative = {"w": ("tensor", "0", "FloatStorage", 0, (30, 40), (-40, 1))}
        cases = {"count": torch_archive(tree, W_STORAGE, {"0": (b"", 1199)}), "beyond": torch_archive(beyond, W_STORAGE),
                 "negative": torch_archive(negative, W_STORAGE), "no storage": torch_archive(tree, {}, {"0": (b"", 1200)}),
                 "behind the end": good + b"more", "cut": good[:-30], "no directory": good[:200],
                 "twice": torch_archive(tree, W_STORAGE, extra=[("archive/data/0", b"x")])}
        for name, data in cases.items():
            with self.subTest(name):
                self.refused(run("inspect", self.file("x.pt", data), timeout=20), 65)
        self.refused(run("inspect", self.file("x.pt", torch_archive(blown, W_STORAGE))), 69, "repeats")
        self.refused(run("inspect", self.file("x.pt", torch_archive(tree, W_STORAGE, packing=zipfile.ZIP_DEFLATED))), 69, "deflated")
        self.refused(run("inspect", self.file("x.pt", torch_archive(tree, W_STORAGE, extra=[("archive/constants.pkl", b"")]))), 69, "TorchScript")
        laughs = b"\x80\x02]q\0" + b"".join(b"0]q" + bytes([i + 1]) + b"(h" + bytes([i]) + b"h" + bytes([i]) + b"e" for i in range(60)) + b"."
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("archive/data.pkl", laughs)
        self.refused(run("inspect", self.file("x.pt", data.getvalue()), timeout=60), 65, "nested")

    def test_truncated_and_changed_archives_are_refused_or_read(self):
        small = np.arange(6, dtype="<f4")
        tree = {"w": ("tensor", "0", "FloatStorage", 0, (2, 3), (3, 1)), "v": ("tensor", "0", "FloatStorage", 1, (2,), (1,))}
        data = torch_archive(tree, {"0": (small.tobytes(), 6)})
        self.breaks("x.pt", data, len(data), step=11, flips=250)

    def test_what_torch_itself_saves_is_read(self):
        try:
            import torch
        except ImportError:
            self.skipTest("no torch")
        state = {"w": torch.randn(20, 30), "t": torch.randn(30, 20).T, "b": torch.randn(5, 6).bfloat16(), "i": torch.arange(4),
                 "p": torch.nn.Parameter(torch.randn(3, 3)), "f8": torch.randn(4, 4).to(torch.float8_e4m3fn)}
        torch.save(state, self.at("real.pt"))
        kept = self.kept(self.at("real.pt"))
        for name in ("w", "t", "i", "p"):
            self.same(kept[name], state[name].detach().numpy())
        self.assertEqual(kept["b"].astype("<f4").tobytes(), state["b"].float().numpy().tobytes())
        self.assertEqual(kept["f8"].tobytes(), state["f8"].view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    unittest.main()
