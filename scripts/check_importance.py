"""What importance is worth on a small real language model: called by scripts/check-importance.

The data are the model's own: stories drawn from it with fixed seeds, some to collect statistics on, others to measure the
loss on. --calibration and --evaluation take token files (little-endian u16) instead.
"""
import argparse
import json
import os
import subprocess
import sys

import environment


def understood():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lmq", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--calibration")
    parser.add_argument("--evaluation")
    parser.add_argument("--stories", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils import logging  # noqa: E402

WINDOW = 256
SEQUENCES = 128  # that statistics are collected on, at most
CALIBRATE = (sys.executable, "-m", "lmq_tools.calibrate")
os.environ["PYTHONPATH"] = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python")
DOCUMENT = 1  # every story begins with this token


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def stories(model, count, seed):
    torch.manual_seed(seed)
    start = torch.full((count, 1), DOCUMENT)
    drawn = model.generate(start, attention_mask=torch.ones_like(start), do_sample=True, top_k=0, min_new_tokens=WINDOW - 1,
                           max_new_tokens=WINDOW - 1, suppress_tokens=[DOCUMENT], pad_token_id=0)
    return drawn.numpy().astype("<u2")


def rows_of(stream):
    starts = np.flatnonzero(stream == DOCUMENT)
    rows = [stream[a:min(b, a + WINDOW)] for a, b in zip(starts, np.append(starts[1:], len(stream)))]
    return [row for row in rows if len(row) == WINDOW]


@torch.no_grad()
def loss_of(model, rows):
    total = 0.0
    for begin in range(0, len(rows), 16):
        tokens = torch.from_numpy(np.stack(rows[begin:begin + 16]).astype(np.int64))
        logits = model(tokens).logits[:, :-1].flatten(0, 1)
        total += torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum").item()
    return total / (len(rows) * (WINDOW - 1))


def tensors_of(path):
    from safetensors.numpy import load_file
    return load_file(path)


def weighted_error(importance, original, quantized):
    """Sum over all tensors of importance * (weight - quantized)^2."""
    total = 0.0
    for name, weight in original.items():
        shape = weight.shape
        if f"{name}.weights" in importance:
            scale = importance[f"{name}.weights"]
        elif f"{name}.columns" in importance:
            rows = importance.get(f"{name}.rows", np.ones(shape[0], np.float32))
            scale = rows[:, None] * importance[f"{name}.columns"]
        else:
            continue
        total += (scale.astype(np.float64) * (weight.astype(np.float64) - quantized[name]) ** 2).sum()
    return total


class Check:
    def __init__(self, arguments):
        self.lmq, self.model, self.work = arguments.lmq, arguments.model, arguments.work
        self.failed, self.plain = [], {}

    def path(self, name):
        return os.path.join(self.work, name)

    def run(self, *words):
        done = subprocess.run([str(w) for w in words], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, words))}\nexit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def collect(self, tokens, output, statistics):
        self.run(*CALIBRATE, self.model, "-o", output, "--tokens", tokens, "--document-token", DOCUMENT, "--window", WINDOW,
                 "--sequences", SEQUENCES, "--statistics", statistics, "--progress", "none")

    def quantize(self, name, *options):
        out = self.path(f"{name}.h5")
        self.run(self.lmq, "quantize", self.model, "-o", out, "--progress", "none", *options)
        used = ["--importance", options[options.index("--importance") + 1]] if "--importance" in options else []
        self.run(self.lmq, "verify", out, "--against", self.model, *used)
        folder = self.path(name)
        self.run(self.lmq, "export", out, "--to", "safetensors", "-o", folder, "--source", self.model)
        return folder

    def expect(self, what, holds):
        print(f"{'ok  ' if holds else 'MISS'}  {what}")
        if not holds:
            self.failed.append(what)

    # More than 5 parameters: a line of the list of comparisons.
    def compare(self, statistics, importance, rows, bits, granularity, loss_falls):
        """Quantizes with and without; both errors and both losses."""
        how = ["--method", "kmeans", "--levels", str(2 ** int(bits)), "--granularity", granularity]
        if granularity not in self.plain:
            folder = self.quantize(f"plain-{granularity}", *how)
            self.plain[granularity] = folder, loss_of(load(folder), rows)
        plain, plain_loss = self.plain[granularity]
        weighted = self.quantize(f"{statistics.replace(',', '-')}-{granularity}", *how, "--importance", importance)
        weights, original = tensors_of(importance), tensors_of(os.path.join(self.model, "model.safetensors"))
        errors = [weighted_error(weights, original, tensors_of(os.path.join(f, "model.safetensors"))) for f in (plain, weighted)]
        losses = plain_loss, loss_of(load(weighted), rows)
        text = f"{bits} bits per {granularity}, {statistics}: "
        self.expect(f"{text}weighted error {errors[0]:.6g} -> {errors[1]:.6g}", errors[1] < errors[0])
        if loss_falls:
            self.expect(f"{text}loss {losses[0]:.4f} -> {losses[1]:.4f}", losses[1] < losses[0])
        else:
            print(f"      {text}loss {losses[0]:.4f} -> {losses[1]:.4f}")

    def formats(self, importance):
        """The same numbers from HDF5 and from a PyTorch optimizer file."""
        numbers = tensors_of(importance)
        import h5py
        with h5py.File(self.path("i.h5"), "w") as file:
            for name, values in numbers.items():
                file[name] = values
        digests = [json.loads(self.run(self.lmq, "plan", self.model, "--importance", path, "--json").stdout)["importance"]["digest"]
                   for path in (importance, self.path("i.h5"))]
        self.expect("HDF5 and safetensors say the same", digests[0] == digests[1])
        model = load(self.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
        tokens = torch.full((1, 8), DOCUMENT)
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), self.path("optimizer.pt"))
        self.run(*CALIBRATE, self.model, "--optimizer", self.path("optimizer.pt"), "-o", self.path("adam.safetensors"))
        report = json.loads(self.run(self.lmq, "plan", self.model, "--importance", self.path("adam.safetensors"), "--json").stdout)
        self.expect("Adam's second moments serve every quantized tensor", not report["importance"]["missing"])


def main(arguments):
    logging.disable_progress_bar()
    check = Check(arguments)
    model = load(arguments.model)
    calibration, evaluation = arguments.calibration, arguments.evaluation
    if not calibration:
        calibration = check.path("calibration.u16")
        stories(model, arguments.stories, 1).tofile(calibration)
    rows = rows_of(np.fromfile(evaluation, "<u2")) if evaluation else list(stories(model, arguments.stories, 2))
    rows = rows[:256]
    print(f"loss of the model itself {loss_of(model, rows):.4f}, {len(rows)} stories of {WINDOW} tokens")
    for statistics in ("columns,rows", "weights", "columns,gram"):
        importance = check.path(f"{statistics.replace(',', '-')}.safetensors")
        check.collect(calibration, importance, statistics)
        for granularity in ("row", "tensor"):
            check.compare(statistics, importance, rows, 3, granularity, "gram" not in statistics)
    check.formats(check.path("columns-rows.safetensors"))
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main(ARGUMENTS)
