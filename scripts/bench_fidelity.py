"""Bits beyond the rate-distortion bound, of whole files that `lmq quantize --method waterfill --bits B` wrote.

usage: scripts/bench fidelity [--build DIR] [--size N] [--bits B,B,...] [--states S,S,...]

Two sources: N x N independent normal weights; 8 N / 2 rows of N / 2 whose inputs have a spectrum j^-1.5, randomly rotated
(`NAME.gram`), against reverse water-filling. Every byte of the file counts. N = 2048 gives 2^22 weights.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, values in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            file.write(values.tobytes())


def read_weight(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entry = json.loads(file.read(length))["weight"]
        file.seek(8 + length + entry["data_offsets"][0])
        return np.frombuffer(file.read(entry["data_offsets"][1] - entry["data_offsets"][0]), np.float32).reshape(entry["shape"])


def lmq(build, *arguments):
    command = [os.path.join(build, "src/app/lmq"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


# More than 5 parameters: a setting of the table and where it is made.
def coded(build, work, source, weights, bits, states, importance):
    """Bits a weight of the file, of its records alone, and the decoded weights."""
    out, back = os.path.join(work, "out.h5"), os.path.join(work, "back.safetensors")
    more = ["--importance", importance] if importance else []
    lmq(build, "quantize", source, "-o", out, "--method", "waterfill", "--bits", bits, "--states", states, *more, "--resume", "never",
        "--progress", "none")
    lmq(build, "export", out, "--to", "safetensors", "-o", back)
    ledger = json.loads(lmq(build, "inspect", out, "--json"))["ledger"]
    records = sum(ledger[part] for part in ("record_headers", "codebooks", "tables", "codes"))
    return 8 * os.path.getsize(out) / weights.size, 8 * records / weights.size, read_weight(back)


def water_filled(spectrum, loss):
    """Bits a weight that reverse water-filling needs for this mean loss."""
    low, high = 0.0, float(spectrum.max())
    for _ in range(100):
        level = (low + high) / 2
        low, high = (level, high) if np.minimum(spectrum, level).mean() < loss else (low, level)
    return float(np.maximum(0.5 * np.log2(spectrum / low), 0).mean())


def sources(size, work):
    """name, file, weights, importance, bits that a bound asks for given the errors."""
    random = np.random.default_rng(1)
    plain = random.standard_normal((size, size), np.float32)
    path = os.path.join(work, "plain.safetensors")
    write_safetensors(path, {"weight": plain})
    yield "independent normal", path, plain, None, lambda e: 0.5 * np.log2(np.mean(plain.astype(float)**2) / np.mean(e**2))
    n = size // 2
    spectrum = np.arange(1, n + 1) ** -1.5
    rotation = np.linalg.qr(random.standard_normal((n, n)))[0]
    gram = ((rotation * spectrum) @ rotation.T).astype(np.float32)
    gram = (gram + gram.T) / 2
    weights = random.standard_normal((8 * n, n), np.float32)
    path, statistics = os.path.join(work, "coloured.safetensors"), os.path.join(work, "statistics.safetensors")
    write_safetensors(path, {"weight": weights})
    write_safetensors(statistics, {"weight.gram": gram})
    yield "spectrum j^-1.5", path, weights, statistics, lambda e: water_filled(spectrum, np.mean((e @ rotation)**2 * spectrum))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default=os.path.join(TOP, "build"))
    ap.add_argument("--size", type=int, default=2048)
    ap.add_argument("--bits", default="1,2,3,4")
    ap.add_argument("--states", default="1,8,32")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as work:
        for name, path, weights, statistics, bound in sources(a.size, work):
            print(f"{name}, {weights.shape[0]} x {weights.shape[1]}\nstates   bits of the file   beyond the bound   records beyond it", flush=True)
            for states in a.states.split(","):
                for bits in a.bits.split(","):
                    spent, records, decoded = coded(a.build, work, path, weights, bits, states, statistics)
                    needed = bound(weights.astype(float) - decoded)
                    print(f"{states:>6} {spent:18.4f} {spent - needed:18.4f} {records - needed:18.4f}", flush=True)


if __name__ == "__main__":
    main()
