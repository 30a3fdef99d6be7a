"""The body of scripts/check-kill."""
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import numpy as np
from lmq_harness import bf16, finish, lmq_processes_below, run, sha256, start, wait_until_gone, write_safetensors

TENSORS, ROWS, COLS = 16, 384, 512
KINDS = {
    "kmeans": ("BF16", ["--method", "kmeans", "--levels", "16"]),
    "ecsq with a size": ("BF16", ["--method", "ecsq", "--bits", "3"]),
    "kmeans of F32": ("F32", ["--method", "kmeans", "--levels", "16"]),
    "waterfill": ("BF16", ["--method", "waterfill", "--bits", "3"]),
}


class Kind:
    """One way to quantize, its undisturbed file's digest and how long that took."""

    def __init__(self, folder, number, dtype, options):
        draw = np.random.default_rng(number)
        values = [draw.standard_normal((ROWS, COLS)) * 0.02 for _ in range(TENSORS)]
        self.source = os.path.join(folder, f"model-{number}.safetensors")
        write_safetensors(self.source, {f"layers.{i}.weight": (dtype, (ROWS, COLS), bf16(v) if dtype == "BF16" else v.astype("<f4"))
                                        for i, v in enumerate(values)})
        self.out = os.path.join(folder, f"out-{number}.h5")
        self.arguments = ["quantize", self.source, "-o", self.out, "--progress", "none", *options]
        began = time.monotonic()
        done = run(*self.arguments, "--threads", "1")
        if done.code != 0:
            sys.exit(f"check-kill: an undisturbed run fails: {done}")
        self.seconds = time.monotonic() - began
        self.expected = sha256(self.out)
        os.remove(self.out)


def kill_once(kind, draw):
    """Starts or continues a run and kills one rank, or all; False: it had ended before."""
    ranks = draw.choice([0, 2, 3])
    process = start(*kind.arguments, "--threads", draw.choice("12"), ranks=ranks)
    time.sleep(draw.uniform(0, 1.2) * kind.seconds + (0.3 if ranks else 0))
    pids = lmq_processes_below(process.pid) if ranks else [process.pid]
    alive = process.poll() is None and bool(pids)
    for pid in (draw.sample(pids, 1) if draw.random() < 0.5 else pids) if alive else []:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    finish(process, force=True)
    wait_until_gone(pids)
    return alive


def look_at_the_end(kind):
    """Continues to the end; the words of what is wrong, or nothing."""
    done = run(*kind.arguments, "--threads", "2")
    if done.code != 0:
        return f"does not go on: {done}"
    if sha256(kind.out) != kind.expected:
        return "another file than that of an undisturbed run"
    left = [name for name in os.listdir(os.path.dirname(kind.out)) if name.startswith(os.path.basename(kind.out)) and
            name != os.path.basename(kind.out)]
    os.remove(kind.out)
    return f"left behind: {left}" if left else ""


def main():
    kills, seed = int(sys.argv[1]), int(sys.argv[2])
    draw, folder = random.Random(seed), tempfile.mkdtemp(prefix="lmq-kill-")
    try:
        kinds = {name: Kind(folder, number, *what) for number, (name, what) in enumerate(KINDS.items())}
        done, files, wrong = 0, 0, 0
        while done < kills:
            name = list(kinds)[files % len(kinds)]
            for _ in range(draw.randint(1, 6)):
                done += kill_once(kinds[name], draw)
            problem = look_at_the_end(kinds[name])
            files += 1
            if problem:
                wrong += 1
                print(f"check-kill: {name}, after {done} kills: {problem}", flush=True)
            elif files % 10 == 0:
                print(f"check-kill: {done} kills, {files} files, all right" if not wrong else f"check-kill: {done} kills", flush=True)
        print(f"check-kill: {done} kills, {files} files, {wrong} wrong")
        return 1 if wrong else 0
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
