#!/usr/bin/env python3
"""Accuracy against compression as Choi, El-Khamy and Lee (2017) plot it, on real checkpoints and without any fine-tuning.

  reproduce_choi --data FOLDER [--only lenet,resnet]
  reproduce_choi --model M.safetensors --images TEST.safetensors [--training-images T.safetensors]

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

import environment


def understood():
    parser = argparse.ArgumentParser(prog="reproduce_choi", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmq", default=os.environ.get("LMQ", os.path.join(environment.HERE, "..", "build", "src", "app", "lmq")),
                        help="the program (default: $LMQ, else build/src/app/lmq)")
    parser.add_argument("--data", help="folder of checkpoints and images, see above")
    parser.add_argument("--only", default="lenet,resnet", help="which of the folder")
    parser.add_argument("--model", help="another checkpoint")
    parser.add_argument("--images", help="images to measure it on")
    parser.add_argument("--training-images", help="images for its curvature")
    parser.add_argument("--output", default=".", help="folder for the table, the plot and NAME.json")
    parser.add_argument("--curvature", default="measured", choices=("fisher", "logits", "measured"),
                        help="squared gradients of the log-probabilities, of the logits, or these scaled by tensor to measured errors")
    parser.add_argument("--damping", type=float, default=0.1, help="part of its tensor's mean that is added to each curvature: weights "
                        "that no calibration image needs shall not move at will (default 0.1)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1: on a machine that others use, more are slower)")
    arguments = parser.parse_args()
    if not os.access(arguments.lmq, os.X_OK):
        parser.error(f"{arguments.lmq} is missing: run scripts/build")
    return arguments


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import numpy as np  # noqa: E402
import torch  # noqa: E402

import choi_networks as networks  # noqa: E402
import svg_plot  # noqa: E402

FEW = 256  # tensors of fewer weights cost more as codebook and codes than raw
RANGES = {  # levels of k-means; entropies in bits of one codebook; prices of a bit, one codebook a tensor; checkpoint's size by file's
    "LeN": {"levels": (3, 4, 8, 16), "model": (0.06, 0.08, 0.1, 0.12, 0.16), "tensor": (0.03, 0.1, 0.3, 0.6, 1, 1.5),
            "sizes": (48, 52, 55, 57)},
    "Res": {"levels": (4, 8, 16, 32), "model": (2, 2.5, 3, 3.5), "tensor": (0.004, 0.01, 0.02, 0.04),
            "sizes": (4.5, 4.75, 5, 5.5, 6), "low model": (1.2, 1.5, 1.75, 2), "low tensor": (0.03, 0.04, 0.055, 0.08)}}
# Labels of the last depend on curvature too.
ENTROPY = {"ecsq-uniform": {"method": "ecsq-uniform"}, "ecsq-iter": {"method": "ecsq-iter", "labels": "interval"},
           "ecsq": {"method": "ecsq", "labels": "interval"}, "ecsq joint": {"method": "ecsq"}}
LOSS = 0.5  # percentage points that may be lost


class Subject:
    """A checkpoint, the images it is measured on, and its curvature files."""

    def __init__(self, name, path, test, training, arguments):
        self.name, self.path, self.lmq, self.work = name, path, arguments.lmq, arguments.work
        self.damping = arguments.damping
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
            if what == "measured":
                values = self.measured_curvature()
            else:
                values = self.network.curvature(self.calibration, what)
                values = {name: h + self.damping * h.mean() for name, h in values.items()}
            networks.store(path + ".partial", {f"{name}.weights": v for name, v in values.items() if self.quantized(name)})
            os.replace(path + ".partial", path)
        return path

    def measured_curvature(self):
        """That of the logits, with each tensor's scaled to the squared error of the logits that quantizing it alone makes: what
        the diagonal does not know of correlated errors and of large ones. Calibration images only, no labels."""
        values = {name.removesuffix(".weights"): h for name, h in networks.load(self.importance("logits")).items()}
        tensors, _ = self.quantize({"method": "ecsq", "granularity": "tensor", "rate": 2.0 if self.dense() else 0.1}, "logits")
        aim = self.network.logits(self.calibration)
        for name, h in values.items():
            alone = networks.Network({**self.original, name: tensors[name]}).logits(self.calibration)
            error = float((alone - aim).square().sum(1).mean())
            predicted = float((h * (tensors[name].astype(np.float64) - self.original[name]) ** 2).sum())
            values[name] = h * (error / predicted if predicted > 0 else 1)
        return values

    def dense(self):
        return np.mean([np.mean(self.original[t] != 0) for t in self.original if self.quantized(t)]) > 0.5

    def quantized(self, name):
        return name in self.parameters and self.original[name].size >= FEW and not (
            self.original[name].ndim == 1 and name.rpartition(".")[0] + ".running_mean" in self.original)

    def recipe(self, rule, power, size):
        kept = [name for name in self.original if not self.quantized(name)]
        text = {"version": 1, "min_elements": 1, "keep_vectors": False,
                "rules": [{"match": name, "keep": True} for name in kept] + [{"match": "*", **rule}]}
        if power:
            text["importance_power"] = power
        if size:
            text["target_bytes"] = size
        return text

    def price(self, granularity, x, what):
        """What a bit is worth: for one codebook the rate that is to be met; for each tensor by its own variance; with curvature
        one price for all tensors, as a part of the model's mean weighted variance."""
        if granularity == "model":
            return {"rate": x}
        if not what:
            return {"slope": x}
        total = count = 0
        for name, h in networks.load(self.importance(what)).items():
            w = self.original[name.removesuffix(".weights")].astype(np.float64)
            total += float((h * (w - (h * w).sum() / max(h.sum(), 1e-300)) ** 2).sum())
            count += w.size
        return {"lambda": x * total / count}

    def quantize(self, rule, what=None, power=None, size=None):
        """(what the tensors become, sizes); None where the file cannot be so small."""
        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            made, back, recipe = (os.path.join(folder, n) for n in ("made.h5", "back.safetensors", "recipe.json"))
            with open(recipe, "w") as file:
                json.dump(self.recipe(rule, power, size), file)
            command = [self.lmq, "quantize", self.path, "-o", made, "--recipe", recipe, "--progress", "none"]
            command += ["--importance", self.importance(what)] if what else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                if size and "smallest possible" in done.stderr:
                    return None
                raise SystemExit(f"reproduce_choi: {' '.join(command)}: {done.stderr}")
            subprocess.run([self.lmq, "export", made, "--to", "safetensors", "-o", back], check=True, capture_output=True)
            report = json.loads(subprocess.run([self.lmq, "inspect", made, "--json"], check=True, capture_output=True).stdout)
            return networks.load(back), self.sizes(report, os.path.getsize(made))

    def measure(self, rule, what=None, power=None, size=None, correct=False):
        """One point: quantize, export, count the bits, count the right answers. None where the file cannot be so small."""
        made = self.quantize(rule, what, power, size)
        if made is None:
            return None
        tensors, point = made
        point["zeros"] = sum(int(((self.original[t] == 0) & (tensors[t] != 0)).sum()) for t in self.parameters)
        digest = hashlib.sha256(b"".join(tensors[t].tobytes() for t in sorted(tensors))).digest() + bytes([correct])
        if digest not in self.known:
            network = networks.Network(tensors)
            if correct:
                network.corrected(self.network, self.calibration)
            self.known[digest] = network.accuracy(self.images, self.labels)
        point["accuracy"], point["loss"] = self.known[digest]
        point.update(importance=what, power=power)
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
    what, curves, ranges = arguments.curvature, [], RANGES[subject.network.kind[:3]]

    def curve(label, granularity, rules, **settings):
        points = [subject.measure({**rule, "granularity": granularity}, **settings) for rule in rules]
        keep(subject, curves, label, granularity, points)

    for granularity, weigh in itertools.product(("model", "tensor"), (None, what)):
        name = "Hessian-weighted k-means" if weigh else "k-means"
        for coder in ("fixed", "huffman", "rans"):
            curve(f"{name}, {coder}", granularity, [{"method": "kmeans", "levels": k, "coder": coder} for k in ranges["levels"]],
                  what=weigh)
        for method in ENTROPY if weigh else ("ecsq",):  # without curvature there is one ecsq
            for coder in ("huffman", "rans"):
                curve(f"{method}{', Hessian' if weigh else ''}, {coder}", granularity,
                      [{**ENTROPY[method], "coder": coder, **subject.price(granularity, x, weigh)} for x in ranges[granularity]],
                      what=weigh)
    for weigh in (None, what):
        for method in ("ecsq", "ecsq joint") if weigh else ("ecsq",):
            points = [subject.measure({**ENTROPY[method], "granularity": "tensor"}, what=weigh,
                                      size=int(os.path.getsize(subject.path) / x)) for x in ranges["sizes"]]
            keep(subject, curves, f"{method} for a file size" + (", Hessian" if weigh else ""), "slope", points)
    if any(name.endswith("running_mean") for name in subject.original):
        for granularity, method in itertools.product(("model", "tensor"), ("ecsq-uniform", "ecsq", "ecsq joint")):
            curve(f"{method}, Hessian, rans, norms corrected", granularity,
                  [{**ENTROPY[method], "coder": "rans", **subject.price(granularity, x, what)} for x in ranges["low " + granularity]],
                  what=what, correct=True)
        curve("k-means, rans, norms corrected", "tensor",
              [{"method": "kmeans", "levels": k, "coder": "rans"} for k in ranges["levels"]], correct=True)
    return curves


def keep(subject, curves, label, granularity, points):
    points = [point for point in points if point]
    curves.append({"label": label, "granularity": granularity, "points": points})
    print(f"{subject.name}: {granularity:6} {label:34} " + "  ".join(
        f"{p['ratio']:.1f}x {p['accuracy']:.2f}" for p in points), file=sys.stderr, flush=True)


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
    chosen = [c for c in curves if c["granularity"] != "model" and "huffman" not in c["label"]]
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


def main(arguments):
    if bool(arguments.data) == bool(arguments.model) or bool(arguments.model) != bool(arguments.images):
        parser.error("give --data FOLDER, or --model with --images")
    torch.set_num_threads(arguments.threads)
    os.makedirs(arguments.output, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        arguments.work = work
        for name, model, test, training, published in subjects(arguments):
            if arguments.model or name in arguments.only.split(","):
                reproduce(Subject(name, model, test, training, arguments), published, arguments)


def reproduce(subject, published, arguments):
    curves = sweep(subject, arguments)
    beside = os.path.join(arguments.output, subject.name)
    with open(beside + ".json", "w", encoding="utf-8") as file:
        json.dump({"model": subject.network.kind, "accuracy": subject.accuracy, "images": subject.measured, "curves": curves},
                  file, indent=1)
    with open(beside + ".md", "w", encoding="utf-8") as file:
        file.write(table(subject, curves))
    draw(subject, curves, beside + ".svg", published)
    print(table(subject, curves))


if __name__ == "__main__":
    main(ARGUMENTS)
