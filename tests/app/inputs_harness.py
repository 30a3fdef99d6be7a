"""What tests of inputs share: tensors of every type, runs, and what is kept."""
import json
import os

import numpy as np

from lmq_harness import LmqTest, bf16, run, write_safetensors


RANDOM = np.random.default_rng(5)


def matrix(rows, cols):
    return ("BF16", (rows, cols), bf16(RANDOM.standard_normal((rows, cols)) * 0.02))


def f32(*shape):
    return ("F32", shape, np.abs(RANDOM.standard_normal(shape)).astype("<f4") + np.float32(0.001))


def integers(dtype, *shape):
    return (dtype, shape, RANDOM.integers(0, 100, shape).astype({"I32": "<i4", "I8": "i1", "U8": "u1", "U32": "<u4"}[dtype]))


def fp8(*shape):
    return ("F8_E4M3", shape, RANDOM.integers(1, 0x78, shape).astype("u1"))


class InputsTest(LmqTest):
    def folder_of(self, name, tensors, config=None, **files):
        os.makedirs(self.at(name), exist_ok=True)
        write_safetensors(self.at(name, "model.safetensors"), tensors, {"format": "pt"})
        if config is not None:
            self.text(name, "config.json", json.dumps(config))
        return self.at(name)

    def text(self, folder, name, content=""):
        os.makedirs(os.path.dirname(self.at(folder, name)), exist_ok=True)
        with open(self.at(folder, name), "w") as file:
            file.write(content)

    def quantize(self, source, *more, **how):
        return run("quantize", source, "-o", self.at("out.h5"), "--progress", "none", "--resume", "never", "--json", self.at("out.json"), *more, **how)

    def reasons(self):
        with open(self.at("out.json")) as file:
            return {tensor["name"]: tensor.get("reason", "") for tensor in json.load(file)["tensors"] if tensor["method"] in ("raw", "keep", "kept")}
