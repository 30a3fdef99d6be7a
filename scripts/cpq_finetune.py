"""Cluster-promoting quantization where it was made: training. A small image classifier (scikit-learn's digits, 8 x 8 pixels) is
trained in float and fine-tuned with weights on uniform grids of 2, 3 and 4 bits: plain straight-through (learned steps), CPQ,
CPQ with DropBits of end points, widths learned by DropBits of bits, and the same widths fixed from the start. Prints a table with
means over seeds and their standard errors, writes a receipt, and a checkpoint whose weights lie on their grids.

  cpq_finetune.py --output FOLDER [--seeds 5] [--epochs 25] [--bits 2 3 4]
"""
import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

import cpq_model as model
from choi_networks import store

NOISE = 1.0 / 3
MOST_BITS, LEAST_BITS = 4, 2   # of learned widths
STEP_BITS = 11                 # of the mantissa of a stored step: readers add and multiply whole numbers of it exactly
VARIANTS = ("straight-through", "cpq", "cpq+drop", "learned widths", "same widths fixed")


def digits(seed):
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    images = torch.tensor(data.images[order, None] / 16, dtype=torch.float32)
    labels = torch.tensor(data.target[order])
    return (images[:1197], labels[:1197]), (images[1197:], labels[1197:])


def shapes():
    return {"conv1.weight": (8, 1, 3, 3), "conv2.weight": (16, 8, 3, 3), "fc1.weight": (32, 256), "fc2.weight": (10, 32)}


def fresh(seed):
    torch.manual_seed(seed)
    weights = {}
    for name, shape in shapes().items():
        fan = int(np.prod(shape[1:]))
        weights[name] = torch.randn(shape) * math.sqrt(2 / fan)
        weights[name.replace("weight", "bias")] = torch.zeros(shape[0])
    return weights


def forward(w, x):
    x = F.relu(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
    x = F.max_pool2d(F.relu(F.conv2d(x, w["conv2.weight"], w["conv2.bias"], padding=1)), 2)
    x = F.relu(F.linear(x.flatten(1), w["fc1.weight"], w["fc1.bias"]))
    return F.linear(x, w["fc2.weight"], w["fc2.bias"])


def round_step(step):
    """To STEP_BITS bits of mantissa."""
    mantissa, exponent = math.frexp(step)
    return math.ldexp(round(mantissa * 2**STEP_BITS), exponent - STEP_BITS)


class Grid:
    """One tensor on a grid of 2^bits points: its step, and gates where bits are dropped."""

    # More than 5 parameters: a tensor and the settings of its grid.
    def __init__(self, weight, bits, rule, scheme, drop, learn_gates):
        self.bits, self.rule = bits, rule
        self.levels, self.first = 2**bits, -float(2 ** (bits - 1))
        self.log_step = torch.tensor(math.log(self.search(weight)), requires_grad=True)
        self.gate_of = model.gates_of_rings(self.levels, 2 ** LEAST_BITS if learn_gates else 2, scheme) if scheme else None
        gates = max(self.gate_of) if scheme else 0
        phi = math.log((1 - drop) / drop) + model.TAU * math.log(-model.GAMMA / model.ZETA) if drop else 0.0
        self.phi = torch.full((gates,), phi, requires_grad=learn_gates)
        self.count = weight.numel()

    def search(self, weight):
        """The step of least squared error."""
        reach = float(weight.abs().max()) / max(1.0, -self.first)
        steps = [reach * (0.15 + 0.9 * i / 79) for i in range(80)]
        return min(steps, key=lambda s: float(((s * (self.first + model.nearest_code(weight / s, self.first, self.levels)) - weight)**2).sum()))

    def masks(self, random):
        """Of one step, or None when all gates are open."""
        if not len(self.phi):
            return None
        u = torch.rand(len(self.phi), generator=random).clamp(1e-6, 1 - 1e-6)
        s = torch.sigmoid((u.log() - (1 - u).log() + self.phi) / model.TAU)
        return model.ring_masks((s * (model.ZETA - model.GAMMA) + model.GAMMA).clamp(0, 1), self.gate_of)

    def open_probabilities(self):
        return torch.cumprod(torch.sigmoid(self.phi - model.TAU * math.log(-model.GAMMA / model.ZETA)), 0)

    def settled_bits(self):
        open_ = [float((torch.sigmoid(p) * (model.ZETA - model.GAMMA) + model.GAMMA).clamp(0, 1)) > 0.5 for p in self.phi.detach()]
        return LEAST_BITS + (open_ + [False]).index(False)

    def quantized(self, weight, random=None):
        step = self.log_step.exp()
        v = weight / step
        masks = self.masks(random) if random is not None else None
        with torch.no_grad():
            if masks is None:
                code = model.nearest_code(v, self.first, self.levels)
            else:
                fixed = [float(m) for m in masks]
                code = model.masked_code(v, NOISE, self.first, self.levels, fixed, self.gate_of)
            point = self.first + code
        if self.rule == "lsq":
            inside = (v >= self.first - 0.5) & (v <= self.first + self.levels - 0.5)
            through = torch.where(inside, weight, weight.detach()) - weight.detach()
            return (step * point).detach() + through + (step - step.detach()) * torch.where(inside, point - v, point).detach()
        if masks is None:
            masks = [1.0] * ((self.levels + 1) // 2)
        pi = model.masked_pi(v, NOISE, self.first, self.levels, masks, code)
        return step * point * (1 + pi - pi.detach())   # multi-class straight-through: one-hot forward, pi backward


def weights_now(latent, grids, random):
    return {name: grids[name].quantized(value, random) if name in grids else value for name, value in latent.items()}


# More than 5 parameters: what training changes and its settings, by name.
def train(latent, grids, data, epochs, seed, lam=0.0, rate=1e-3):
    """Trains latent weights, steps and gates in place."""
    images, labels = data
    random = torch.Generator().manual_seed(seed)
    latent = {name: value.detach().clone().requires_grad_() for name, value in latent.items()}
    groups = [{"params": list(latent.values()), "lr": rate}]
    if grids:
        groups.append({"params": [g.log_step for g in grids.values()], "lr": rate})
        gates = [g.phi for g in grids.values() if g.phi.requires_grad]
        if gates:
            groups.append({"params": gates, "lr": 0.03})
    optimizer = torch.optim.Adam(groups)
    per_epoch = len(labels) // 64
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * per_epoch)
    total = sum(g.count for g in grids.values()) or 1
    for _ in range(epochs):
        order = torch.randperm(len(labels), generator=random)
        for b in range(per_epoch):
            chosen = order[64 * b:64 * b + 64]
            loss = F.cross_entropy(forward(weights_now(latent, grids, random), images[chosen]), labels[chosen])
            if lam:
                loss = loss + lam * sum(g.count / total * g.open_probabilities().sum() for g in grids.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return {name: value.detach() for name, value in latent.items()}


def quality(weights, data):
    """(error in percent, cross entropy)"""
    with torch.no_grad():
        out = forward(weights, data[0])
    return 100 * float((out.argmax(1) != data[1]).float().mean()), float(F.cross_entropy(out, data[1]))


def finished(latent, grids):
    with torch.no_grad():
        for grid in grids.values():
            grid.log_step.copy_(torch.tensor(math.log(round_step(float(grid.log_step.exp())))))
        out = dict(latent)
        for name, grid in grids.items():
            step = round_step(float(grid.log_step.exp()))
            out[name] = torch.tensor(step, dtype=torch.float32) * (
                grid.first + model.nearest_code(latent[name].double() / step, grid.first, grid.levels)).float()
        return out


# More than 5 parameters: those of Grid, for every tensor.
def grids_for(latent, widths, rule, scheme=None, drop=0.0, learn=False):
    return {name: Grid(latent[name], widths[name], rule, scheme, drop, learn) for name in shapes()}


def mean_bits(widths):
    sizes = {name: int(np.prod(shape)) for name, shape in shapes().items()}
    return sum(widths[n] * sizes[n] for n in sizes) / sum(sizes.values())


def learn_widths(start, data, epochs, seed, aim):
    """Widths by DropBits of bits, lambda bisected so that their mean is nearest to `aim`, not above; and the latent weights."""
    low, high, best = 1e-4, 10.0, None
    for _ in range(4):
        lam = math.sqrt(low * high)
        grids = grids_for(start, {n: MOST_BITS for n in shapes()}, "cpq", "bits", 0.1, True)
        latent = train(start, grids, data, epochs, seed, lam)
        widths = {n: g.settled_bits() for n, g in grids.items()}
        bits = mean_bits(widths)
        if bits <= aim and (best is None or bits > best[0]):
            best = (bits, widths, latent, lam)
        low, high = (lam, high) if bits > aim else (low, lam)
    return best


def run_seed(seed, bits, epochs):
    """variant -> (error, loss, bits)"""
    torch.manual_seed(seed)
    data, held = digits(seed)
    start = train(fresh(seed), {}, data, 30, seed)
    out = {"float": (*quality(start, held), 32.0)}
    for b in bits:
        uniform = {name: b for name in shapes()}
        for variant, rule, scheme, drop in (("straight-through", "lsq", None, 0), ("cpq", "cpq", None, 0), ("cpq+drop", "cpq", "ends", 0.1)):
            grids = grids_for(start, uniform, rule, scheme, drop)
            latent = train(start, grids, data, epochs, seed + 1)
            out[f"{variant} {b}"] = (*quality(finished(latent, grids), held), float(b))
        if LEAST_BITS < b < MOST_BITS:
            found = learn_widths(start, data, epochs, seed + 1, b + 0.2)
            if found is None:
                continue
            mean, widths, latent, lam = found
            for variant, origin in (("learned widths", latent), ("same widths fixed", start)):
                grids = grids_for(origin, widths, "cpq")
                after = train(origin, grids, data, epochs if variant != "learned widths" else epochs // 2, seed + 2)
                out[f"{variant} {b}"] = (*quality(finished(after, grids), held), mean)
            out[f"widths {b}"] = (widths, lam)
    return out


def table(results, bits):
    lines = [f"{'variant':28} {'bits':>6} {'error %':>16} {'loss':>18}"]
    keys = ["float"] + [f"{v} {b}" for b in bits for v in VARIANTS]
    for key in keys:
        found = np.array([r[key] for r in results if key in r])
        if not len(found):
            continue
        mean = found.mean(0)
        error = found.std(0, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else np.full(3, math.nan)
        lines.append(f"{key:28} {mean[2]:6.2f} {mean[0]:8.2f} +- {error[0]:4.2f} {mean[1]:9.4f} +- {error[1]:.4f}  ({len(found)} seeds)")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder for the table, the receipt and the checkpoint")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=25, help="of fine-tuning")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(arguments.output, exist_ok=True)
    begin, results = time.time(), []
    for seed in range(arguments.seeds):
        results.append(run_seed(seed, arguments.bits, arguments.epochs))
        print(f"seed {seed}: {time.time() - begin:.0f} s", flush=True)
        with open(os.path.join(arguments.output, "cpq.json"), "w", encoding="utf-8") as file:   # of the seeds so far
            json.dump({"arguments": vars(arguments), "torch": torch.__version__, "results": results, "table": table(results, arguments.bits)}, file, indent=1)
    print(table(results, arguments.bits))
    data, held = digits(0)
    start = train(fresh(0), {}, data, 30, 0)
    grids = grids_for(start, {name: arguments.bits[0] for name in shapes()}, "cpq")
    done = finished(train(start, grids, data, arguments.epochs, 1), grids)
    path = os.path.join(arguments.output, "digits.safetensors")
    store(path, {name: value.numpy() for name, value in done.items()})
    print(f"{path}: weights on grids of {arguments.bits[0]} bits, error {quality(done, held)[0]:.2f} %")


if __name__ == "__main__":
    main()
