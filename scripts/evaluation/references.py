"""What others store, made in numpy: blocks along a row with a scale each, rounded to nearest. Bits are those of their codes and
scales; what is kept keeps its type, and the header of the safetensors file is counted too."""
import math
import os
from statistics import NormalDist

import numpy as np
import torch

from lmq_tools.weights import shards_of
from lmq_tools.yardstick import tensors_of

SMALLEST = 1024  # weights: smaller tensors and vectors are kept, as lmq does


def round_blocks(blocks, bits):
    """Equal steps (llama.cpp's Q4_0 for 4 bits): the value of largest size becomes -2^(bits - 1), scales in half precision."""
    half = 1 << (bits - 1)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
    scale = (largest / -half).astype(np.float16).astype(np.float32)
    codes = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale != 0)).clip(-half, half - 1)
    return codes * scale


def nf4_levels():
    """NormalFloat of Dettmers et al. 2023, appendix E: quantiles of the normal distribution, 8 positive, 0, 7 negative, largest 1."""
    offset, quantile = .5 * (1 - 1 / 32 + 1 - 1 / 30), NormalDist().inv_cdf
    positive = [quantile(p) for p in np.linspace(offset, .5, 9)[:-1]]
    negative = [-quantile(p) for p in np.linspace(offset, .5, 8)[:-1]]
    levels = np.sort(np.array(positive + [0.] + negative))
    return (levels / levels[-1]).astype(np.float32)


def nf4_blocks(blocks, bits):
    levels = nf4_levels()
    scale = np.abs(blocks).max(1, keepdims=True).astype(np.float16).astype(np.float32)
    scaled = np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale != 0)
    return levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, scaled)] * scale


FORMATS = {"round": round_blocks, "nf4": nf4_blocks}


def in_blocks(matrix, size, change):
    """`change` on blocks of `size` along rows; the last of a row may be shorter. Returns the matrix and the number of blocks."""
    rows, columns = matrix.shape
    padded = np.zeros((rows, math.ceil(columns / size) * size), np.float32)
    padded[:, :columns] = matrix
    out = np.empty_like(padded)
    flat, result = padded.reshape(-1, size), out.reshape(-1, size)
    for at in range(0, len(flat), 1 << 16):
        result[at:at + (1 << 16)] = change(flat[at:at + (1 << 16)])
    return out[:, :columns], len(flat)


def reference(path, form, bits, size):
    """(weights, bytes) of the checkpoint at `path` in blocks of `size` weights with codes of `bits` bits."""
    out, stored = {}, 0
    for shard in shards_of(path):
        with open(shard, "rb") as file:
            stored += 8 + int.from_bytes(file.read(8), "little")
    for name, values in tensors_of(path).items():
        if values.dim() < 2 or values.numel() < SMALLEST or not values.is_floating_point():
            out[name] = values
            stored += values.numel() * values.element_size()
            continue
        matrix = values.float().reshape(values.shape[0], -1).numpy()
        changed, blocks = in_blocks(matrix, size, lambda part: FORMATS[form](part, bits))
        out[name] = torch.from_numpy(changed).reshape(values.shape).to(values.dtype)
        stored += math.ceil(values.numel() * bits / 8) + 2 * blocks
    return out, stored


def weights_in(path):
    return sum(values.numel() for values in tensors_of(path).values() if values.is_floating_point())


def size_of(path):
    return os.path.getsize(path) if os.path.isfile(path) else sum(os.path.getsize(shard) for shard in shards_of(path))
