"""make_seeds.py FOLDER: one small file of each format for scripts/fuzz-formats."""
import os
import sys

import numpy as np

os.environ.setdefault("LMQ", "lmq")
os.environ.setdefault("LMQ_DATA", "")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "app"))
import formats_test as formats  # noqa: E402
import gguf_plain  # noqa: E402

folder = sys.argv[1]


def put(name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data)


random = np.random.default_rng(1)
for name, (number, elements, _, _, _) in gguf_plain.TYPES.items():
    put(f"{name}.gguf", gguf_plain.gguf([("t", (2, elements), number, gguf_plain.random_blocks(name, 2, random))], [("k", "v"), ("n", 1)]))
small = np.arange(12, dtype="<f4")
put("row.pt", formats.torch_archive({"w": ("tensor", "0", "FloatStorage", 0, (3, 4), (4, 1))}, {"0": (small.tobytes(), 12)}))
put("turned.pt", formats.torch_archive({"w": ("tensor", "0", "FloatStorage", 1, (2, 3), (1, 4))}, {"0": (small.tobytes(), 12)}))
np.savez(os.path.join(folder, "a.npz"), a=small.reshape(3, 4), b=np.asfortranarray(small.reshape(4, 3)))
np.savez_compressed(os.path.join(folder, "c.npz"), a=small)
np.save(os.path.join(folder, "a.npy"), small.astype(">f4"))
