#!/usr/bin/env python3
"""Accuracy against compression as Choi, El-Khamy and Lee (2017) plot it, on real checkpoints and without any fine-tuning.

  reproduce_choi.py --lmq PROGRAM --data FOLDER [--only lenet,resnet]
  reproduce_choi.py --lmq PROGRAM --model M.safetensors --images TEST.safetensors [--training-images T.safetensors]

FOLDER holds vision/lenet5_pruned.safetensors, vision/resnet20.safetensors, images/mnist_test_0_1999.safetensors,
images/cifar10_test_0_1999.safetensors and images/cifar10_train_512.safetensors ("images" U8 [N, C, H, W], "labels" U8 [N]). M is a
LeNet-5 or a ResNet for CIFAR-10 of any depth. Curvature comes from the training images; where there are none, from the last
quarter of the test images, which is then not measured on. Writes a Markdown table, NAME.json and NAME.svg to --output.
"""
import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

import choi_networks as networks
import svg_plot

FEW = 256  # tensors of fewer weights cost more as codebook and codes than raw
ENTROPY = ("ecsq-uniform", "ecsq-iter", "ecsq")
LOSS = 0.5  # percentage points that may be lost


class Subject:
    """A checkpoint, the images it is measured on, and its curvature files."""

    def __init__(self, name, path, test, training, arguments):
        self.name, self.path, self.lmq, self.work = name, path, arguments.lmq, arguments.work
        self.original = networks.load(path)
        images = networks.load(test)
        count = len(images["labels"])
        if training:
            self.calibration, self.measured = networks.load(training)["images"], count
        else:
            self.measured = count - count // 4
            self.calibration = images["images"][self.measured:]
        self.images, self.labels = images["images"][:self.measured], images["labels"][:self.measured]
        self.network = networks.Network(self.original)
        self.accuracy, self.loss = self.network.accuracy(self.images, self.labels)
        self.known = {}
        # The running statistics of batch norms are no parameters.
        self.parameters = [t for t in self.original if "running_" not in t and "num_batches" not in t]
        print(f"{name}: {self.network.kind}, {sum(self.original[t].size for t in self.parameters)} parameters, "
              f"{self.accuracy:.2f} % of {self.measured} images", file=sys.stderr)

    def importance(self, what):
        path = os.path.join(self.work, f"{self.name}-{what}.safetensors")
        if not os.path.exists(path):
            print(f"{self.name}: curvature ({what}) from {len(self.calibration)} images", file=sys.stderr)
            values = self.network.curvature(self.calibration, what)
            networks.store(path + ".partial", {f"{name}.weights": v for name, v in values.items() if self.quantized(name)})
            os.replace(path + ".partial", path)
        return path

    def quantized(self, name):
        return name in self.parameters and self.original[name].size >= FEW and not (
            self.original[name].ndim == 1 and name.rpartition(".")[0] + ".running_mean" in self.original)

    def recipe(self, rule, power):
        kept = [name for name in self.original if not self.quantized(name)]
        text = {"version": 1, "min_elements": 1, "keep_vectors": False,
                "rules": [{"match": name, "keep": True} for name in kept] + [{"match": "*", **rule}]}
        if power:
            text["importance_power"] = power
        return text

    def measure(self, rule, what=None, power=None, size=None, renormalize=False):
        """One point: quantize, export, count the bits, count the right answers. None where the file cannot be so small."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            made, back, recipe = (os.path.join(folder, n) for n in ("made.h5", "back.safetensors", "recipe.json"))
            with open(recipe, "w") as file:
                json.dump(self.recipe(rule, power), file)
            command = [self.lmq, "quantize", self.path, "-o", made, "--recipe", recipe, "--progress", "none"]
            command += ["--importance", self.importance(what)] if what else []
            command += ["--target-size", str(size)] if size else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                if size and "smallest possible" in done.stderr:
                    return None
                raise SystemExit(f"reproduce_choi: {' '.join(command)}: {done.stderr}")
            subprocess.run([self.lmq, "export", made, "--to", "safetensors", "-o", back], check=True, capture_output=True)
            report = json.loads(subprocess.run([self.lmq, "inspect", made, "--json"], check=True, capture_output=True).stdout)
            point = self.sizes(report, os.path.getsize(made))
            tensors = networks.load(back)
        point["zeros"] = sum(int(((self.original[t] == 0) & (tensors[t] != 0)).sum()) for t in self.parameters)
        digest = hashlib.sha256(b"".join(tensors[t].tobytes() for t in sorted(tensors))).digest() + bytes([renormalize])
        if digest not in self.known:
            network = networks.Network(tensors)
            if renormalize:
                network.renormalized(self.calibration)
            self.known[digest] = network.accuracy(self.images, self.labels)
        point["accuracy"], point["loss"] = self.known[digest]
        point.update(renormalized=renormalize, importance=what, power=power)
        return point

    def sizes(self, report, file_bytes):
        """Ratios against 32 bits: of the quantized tensors (record headers, codebooks, tables and codes counted), of all
        parameters (what is kept counted as it is), and of the whole file."""
        weights = stored = everything = total = 0
        for tensor in report["tensors"]:
            if tensor["name"] not in self.parameters:
                continue
            everything += tensor["stored_bytes"]
            total += tensor["weights"]
            if tensor["method"] != "raw":
                stored += tensor["stored_bytes"]
                weights += tensor["weights"]
        return {"bits": 8 * stored / weights, "ratio": 4 * weights / stored, "ratio_all": 4 * total / everything,
                "ratio_file": os.path.getsize(self.path) / file_bytes, "file_bytes": file_bytes}


def sweep(subject, arguments):
    """All the curves: (label, granularity, points)."""
    what, curves = arguments.curvature, []
    levels, rates = arguments.levels[subject.network.kind[:3]], arguments.rates[subject.network.kind[:3]]

    def curve(label, granularity, rules, **settings):
        points = [subject.measure({**rule, "granularity": granularity}, **settings) for rule in rules]
        points = [point for point in points if point]
        curves.append({"label": label, "granularity": granularity, "points": points})
        print(f"{subject.name}: {granularity:6} {label:36} " + "  ".join(
            f"{p['ratio']:.1f}x {p['accuracy']:.2f}" for p in points), file=sys.stderr, flush=True)

    for granularity, weigh in itertools.product(("model", "tensor"), (None, what)):
        name = "Hessian-weighted k-means" if weigh else "k-means"
        for coder in ("fixed", "huffman", "rans"):
            curve(f"{name}, {coder}", granularity, [{"method": "kmeans", "levels": k, "coder": coder} for k in levels], what=weigh)
        for method in ENTROPY:
            for coder in ("huffman", "rans") if weigh else ("rans",):
                curve(f"{method}{', Hessian' if weigh else ''}, {coder}", granularity,
                      [{"method": method, "rate": r, "coder": coder} for r in rates], what=weigh)
    for weigh in (None, what):
        budgets(subject, curves, weigh, arguments.sizes, what)
    return curves


def budgets(subject, curves, weigh, sizes, what, **settings):
    """ecsq for a size of the whole file, one slope over all tensors, at parts of the size of the checkpoint."""
    points = [subject.measure({"method": "ecsq", "granularity": "tensor"}, what=weigh, size=int(os.path.getsize(subject.path) / x),
                              **settings) for x in sizes]
    points = [point for point in points if point]
    label = "file budget, ecsq" + (", Hessian" if weigh else "") + (", batch norms anew" if settings.get("renormalize") else "")
    curves.append({"label": label, "granularity": "slope", "points": points})
    print(f"{subject.name}: slope  {label:36} " + "  ".join(f"{p['ratio']:.1f}x {p['accuracy']:.2f}" for p in points),
          file=sys.stderr, flush=True)


def within(subject, curve):
    """The point of the highest ratio that loses at most LOSS."""
    good = [p for p in curve["points"] if p["accuracy"] >= subject.accuracy - LOSS - 1e-9]
    return max(good, key=lambda p: p["ratio"], default=None)


def table(subject, curves):
    lines = [f"{subject.network.kind}, {subject.accuracy:.2f} % of {subject.measured:,} images unquantized. Points: bits per quantized "
             f"weight, accuracy in %. Ratios: the best that loses at most {LOSS} points.", "",
             "| method, coder | codebook | points | of quantized weights | of all parameters | of the file |", "|---|---|---|---|---|---|"]
    for curve in curves:
        points = ", ".join(f"{p['bits']:.3g}: {p['accuracy']:.2f}" + ("*" if p["zeros"] else "") for p in curve["points"])
        best = within(subject, curve)
        ratios = " | ".join(f"{best[k]:.1f}" for k in ("ratio", "ratio_all", "ratio_file")) if best else "- | - | -"
        lines.append(f"| {curve['label']} | {curve['granularity']} | {points} | {ratios} |")
    if any(p["zeros"] for c in curves for p in c["points"]):
        lines += ["", "\\* exact zeros of the checkpoint did not stay exactly zero."]
    return "\n".join(lines) + "\n"


def draw(subject, curves, path, published):
    """One line for each method: those of the best coder, with a codebook for each tensor, and the budgets."""
    chosen = [c for c in curves if c["granularity"] == "slope" or c["granularity"] == "tensor" and not c["label"].endswith("huffman")]
    lines = [(c["label"], [(p["ratio"], p["accuracy"]) for p in c["points"]], "Hessian" in c["label"]) for c in chosen]
    levels = [("unquantized", subject.accuracy), (f"- {LOSS} points", subject.accuracy - LOSS)]
    svg_plot.plot(path, f"{subject.network.kind}: accuracy against compression, no fine-tuning", "32 bits / stored bits of a quantized weight",
                  f"accuracy, % of {subject.measured} images", lines, levels, [("published, fine-tuned", published)] if published else [],
                  (subject.accuracy - 6, subject.accuracy + 0.6))


def subjects(arguments):
    """(name, model, test, training, published ratio)"""
    if arguments.model:
        name = os.path.splitext(os.path.basename(arguments.model))[0]
        yield name, arguments.model, arguments.images, arguments.training_images, None
        return
    inside = lambda *parts: os.path.join(arguments.data, *parts)
    yield ("lenet", inside("vision", "lenet5_pruned.safetensors"), inside("images", "mnist_test_0_1999.safetensors"), None, 51.25)
    yield ("resnet", inside("vision", "resnet20.safetensors"), inside("images", "cifar10_test_0_1999.safetensors"),
           inside("images", "cifar10_train_512.safetensors"), 22.17)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmq", required=True, help="the program")
    parser.add_argument("--data", help="folder of checkpoints and images, see above")
    parser.add_argument("--only", default="lenet,resnet", help="which of the folder")
    parser.add_argument("--model", help="another checkpoint")
    parser.add_argument("--images", help="images to measure it on")
    parser.add_argument("--training-images", help="images for its curvature")
    parser.add_argument("--output", default=".", help="folder for the table, the plot and NAME.json")
    parser.add_argument("--curvature", default="fisher", choices=("fisher", "logits"),
                        help="squared gradients of the log-probabilities, or of the logits (for networks that are sure of all images)")
    parser.add_argument("--threads", type=int, help="of torch")
    arguments = parser.parse_args()
    if bool(arguments.data) == bool(arguments.model) or bool(arguments.model) != bool(arguments.images):
        parser.error("give --data FOLDER, or --model with --images")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    os.makedirs(arguments.output, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        arguments.work = work
        for name, model, test, training, published in subjects(arguments):
            if arguments.model or name in arguments.only.split(","):
                reproduce(Subject(name, model, test, training, arguments), published, arguments)


def reproduce(subject, published, arguments):
    curves = sweep(subject, arguments.curvature)
    beside = os.path.join(arguments.output, subject.name)
    with open(beside + ".json", "w", encoding="utf-8") as file:
        json.dump({"model": subject.network.kind, "accuracy": subject.accuracy, "images": subject.measured, "curves": curves}, file, indent=1)
    with open(beside + ".md", "w", encoding="utf-8") as file:
        file.write(table(subject, curves))
    draw(subject, curves, beside + ".svg", published)
    print(table(subject, curves))


if __name__ == "__main__":
    main()
