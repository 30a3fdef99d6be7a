"""Settings, quantized, dequantized and measured one after another; what was measured once is kept in the cache."""
import hashlib
import json
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import tempfile

import numpy as np

from lmq_tools.errors import USAGE, Failure
from lmq_tools.measures import compare, summary
from lmq_tools.subjects import digest_of
from lmq_tools.weights import exported_weights, shards_of
from lmq_tools.yardstick import tensors_of

from .references import FORMATS, reference, size_of, weights_in

HERE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def parse_settings(given, path):
    lines = list(given)
    if path:
        with open(path, encoding="utf-8") as file:
            lines += [line.strip() for line in file if line.strip() and not line.startswith("#")]
    settings = []
    for line in lines:
        name, colon, words = line.partition(":")
        if not colon or not words.strip():
            raise Failure(USAGE, f"setting '{line}': expected 'NAME: SETTING'")
        settings.append((name.strip(), shlex.split(os.path.expandvars(words))))
    if not settings:
        raise Failure(USAGE, "no setting is given")
    names = [name for name, _ in settings]
    if len(set(names)) < len(names):
        raise Failure(USAGE, f"setting '{next(n for n in names if names.count(n) > 1)}' is given twice")
    return settings


def without_folders(words):
    """A command for a receipt: files by their names alone."""
    return " ".join(shlex.quote(os.path.basename(word.rstrip("/")) if os.path.exists(word) else word) for word in words)


def child_seconds():
    """Processor time of the programs run so far; unlike the clock's it does not depend on what else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Sweep:
    def __init__(self, model, arguments):
        self.model, self.arguments = model, arguments
        self.lmq = os.path.abspath(arguments.lmq or os.path.join(HERE, "build", "src", "app", "lmq"))
        self.weights = weights_in(model.path)
        self.lmq_sha256 = digest_of(self.lmq) if os.path.exists(self.lmq) else None

    def receipt(self, name, old):
        """The head of a receipt; with the rows of `old` when it is about the same model and data."""
        import torch
        versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": torch.__version__.split("+")[0]}
        if not self.model.is_image:
            import transformers
            versions["transformers"] = transformers.__version__
        data = {"file": os.path.basename(self.arguments.data) if self.arguments.data else "drawn from the model",
                "sha256": digest_of(self.arguments.data) if self.arguments.data else None,
                "positions": len(self.model.labels), "clusters": int(len(np.unique(self.model.clusters))),
                "inputs_and_labels_sha256": self.model.inputs_sha256, "seed": self.arguments.seed,
                "window": self.arguments.window, "document_token": self.arguments.document_token}
        float_loss = float(self.model.float_loss().mean())
        head = {"model": name, "kind": self.model.kind, "weights": self.weights, "weights_sha256": self.model.weights_sha256,
                "source_bits": 8 * size_of(self.model.path) / self.weights, "float_loss": float_loss,
                "float_right": float((self.model.float_top == self.model.labels).mean()), "data": data, "versions": versions,
                "command": "scripts/evaluate " + without_folders(sys.argv[1:]), "baseline": self.arguments.baseline, "rows": []}
        if old and all(old["data"][key] == data[key] for key in ("inputs_and_labels_sha256", "positions")) and \
                old["weights_sha256"] == head["weights_sha256"]:
            head["rows"] = old["rows"]
            head["baseline"] = head["baseline"] or old["baseline"]
        return head

    def key(self, words):
        """Of the cache: program, options, the files they name, model and data."""
        total = hashlib.sha256(json.dumps([self.lmq_sha256 if words[0].startswith("-") else None, self.model.weights_sha256,
                                           self.model.inputs_sha256]).encode())
        for word in words:
            files = shards_of(word) if os.path.isdir(word) else [word] if os.path.isfile(word) else []
            total.update((digest_of(*files) if files else word).encode() + b"\0")
        return total.hexdigest()[:24]

    def arrays_of(self, words):
        """(row, arrays by position) of one setting, from the cache or measured."""
        place = os.path.join(self.arguments.cache, f"setting-{self.key(words)}")
        if os.path.exists(f"{place}.npz") and os.path.exists(f"{place}.json"):
            with open(f"{place}.json", encoding="utf-8") as file:
                return json.load(file), dict(np.load(f"{place}.npz"))
        with tempfile.TemporaryDirectory(dir=self.arguments.cache) as folder:
            row, weights = self.weights_of(words, folder)
            arrays = self.model.measure(weights) if weights is not None else {}
        np.savez(f"{place}.npz", **arrays)
        with open(f"{place}.json", "w", encoding="utf-8") as file:
            json.dump(row, file)
        return row, arrays

    def weights_of(self, words, folder):
        """(row, weights) of a setting; no weights when lmq refuses it."""
        if words[0] == "float" and len(words) == 1:
            return {"bytes": size_of(self.model.path)}, tensors_of(self.model.path)
        if words[0] in FORMATS:
            numbers = [int(word) for word in words[1:]]
            if len(numbers) != (1 if words[0] == "nf4" else 2):
                raise Failure(USAGE, f"'{' '.join(words)}': expected 'nf4 BLOCK' or 'round BITS BLOCK'")
            bits, block = (4, *numbers) if words[0] == "nf4" else numbers
            weights, stored = reference(self.model.path, words[0], bits, block)
            return {"bytes": stored}, weights
        if words[0] == "file" and len(words) == 2:
            if not words[1].endswith(".h5"):
                return {"bytes": size_of(words[1]), "sha256": digest_of(*shards_of(words[1]))}, tensors_of(words[1])
            return {"bytes": size_of(words[1]), "sha256": digest_of(words[1])}, exported_weights(words[1], self.lmq, 'an export is asked for')
        if not words[0].startswith("-"):
            raise Failure(USAGE, f"setting '{' '.join(words)}': expected options of lmq, round, nf4, file or float")
        return self.quantized(words, folder)

    def quantized(self, words, folder):
        out = os.path.join(folder, "model.h5")
        begin = child_seconds()
        shards = shards_of(self.model.path)
        done = self.run("quantize", shards[0] if len(shards) == 1 else self.model.path, "-o", out, "--progress", "none", *words)
        row = {"lmq_commit": self.commit(), "lmq_sha256": self.lmq_sha256, "cpu_seconds": round(child_seconds() - begin, 2)}
        if done.returncode:
            words = re.sub(r"\S*/", "", (done.stderr.strip().splitlines() or ["no message"])[-1])  # no folders in receipts
            return {**row, "refused": f"exit code {done.returncode}: {words}"}, None
        return {**row, "bytes": size_of(out), "sha256": digest_of(out)}, exported_weights(out, self.lmq, 'an export is asked for')

    def commit(self):
        """As `lmq --version` says it; None where it does not."""
        if not self.lmq_sha256:
            raise Failure(USAGE, f"{self.lmq}: is missing: run scripts/build, or name the program with --lmq")
        said = subprocess.run([self.lmq, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"^commit\s+(\S+)", said, re.MULTILINE)
        return found.group(1) if found else None

    def run(self, *command):
        threads = ["--threads", str(self.arguments.threads)] if self.arguments.threads else []
        return subprocess.run([self.lmq, *command, *threads], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    def measure(self, label, words):
        """The row of a setting."""
        row, arrays = self.arrays_of(words)
        row = {"name": label, "setting": without_folders(words), "key": self.key(words), **row}
        if files := {os.path.basename(word): digest_of(word) for word in words if os.path.isfile(word)}:
            row["files_sha256"] = files
        if "bytes" in row:
            row["bits"] = 8 * row["bytes"] / self.weights
        if arrays:
            row.update(summary(arrays, self.model.clusters, self.model.float_loss()))
        return row

    def pair(self, receipt):
        """Differences of all rows from the baseline (the first row when none is named), where the cache has both."""
        cached = lambda row: os.path.join(self.arguments.cache, f"setting-{row['key']}.npz")
        measured = [row for row in receipt["rows"] if "kl" in row and os.path.exists(cached(row))]
        receipt["baseline"] = receipt["baseline"] or (measured[0]["name"] if measured else None)
        for base in [row for row in measured if row["name"] == receipt["baseline"]]:
            first = dict(np.load(cached(base)))
            for row in measured:
                if row is not base:
                    row["against_baseline"] = compare(dict(np.load(cached(row))), first, self.model.clusters)
