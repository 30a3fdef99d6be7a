"""The categorical model of cluster-promoting quantization with DropBits, for arrays of numpy or torch alike: the definition that
src/quant/methods/learned/categorical.hpp has in C++. Values are in grid steps: v = x / alpha, noise = sigma / alpha; the point of
code k is first + k. tests/data/categorical.csv holds numbers that both must give (scripts/cpq_model.py FILE writes it)."""
import csv
import sys

import numpy as np

MOST_EXPONENT = 700.0
GAMMA, ZETA, TAU = -0.1, 1.1, 2.0 / 3.0   # of hard concrete gates


def clip(x, low, high):
    return x.clip(low, high)


def exp(x):
    x = clip(x, -MOST_EXPONENT, MOST_EXPONENT)
    return np.exp(x) if isinstance(x, (np.ndarray, np.generic)) else x.exp()


def sigmoid(x):
    return 1 / (1 + exp(-x))


def cell_mass(plus, minus):
    """S(plus) - S(minus) without cancellation."""
    return sigmoid(plus) * sigmoid(-minus) * (1 - exp(minus - plus))


def nearest_code(v, first, levels):
    return clip(v - first, 0, levels - 1).round()


def ring_bounds(ring, levels):
    """First and last code of the rings from the middle out to this one."""
    return (levels - 1) // 2 - ring, levels // 2 + ring


def gates_of_rings(levels, least_levels, scheme):
    """How many gates multiply to each ring's mask: scheme "ends", one a ring, or "bits", one a bit."""
    kept = (min(least_levels, levels) + 1) // 2
    out = []
    for ring in range((levels + 1) // 2):
        gates = 0 if ring < kept else ring - kept + 1
        out.append((ring // kept).bit_length() if scheme == "bits" and gates else gates)
    return out


def ring_masks(gates, gate_of):
    """Mask of each ring; gates: a sequence of numbers."""
    masks, product, taken = [], 1.0, 0
    for count in gate_of:
        while taken < count:
            product, taken = product * gates[taken], taken + 1
        masks.append(product)
    return masks


def total_mass(v, noise, first, levels, masks):
    """N: the masked mass of all points."""
    total, inner = 0.0, 0.0
    for ring, mask in enumerate(masks):
        low, high = ring_bounds(ring, levels)
        mass = cell_mass((first + high + 0.5 - v) / noise, (first + low - 0.5 - v) / noise)
        total, inner = total + mask * (mass - inner), mass
    return total


def own_mass(v, noise, first, code):
    return cell_mass((first + code + 0.5 - v) / noise, (first + code - 0.5 - v) / noise)


def ring_of(code, levels):
    """Ring of a code: counted from the middle."""
    up = code - levels // 2
    down = (levels - 1) // 2 - code
    return up * (up >= 0) + down * (up < 0)


# More than 5 parameters: symbols of the paper's formula.
def masked_code(v, noise, first, levels, masks, gate_of):
    """The code of largest masked mass: of each width's nearest."""
    best, most = None, None
    for ring in range(len(masks)):
        if ring + 1 < len(masks) and gate_of[ring + 1] == gate_of[ring]:
            continue
        low, high = ring_bounds(ring, levels)
        code = low + nearest_code(v, first + low, high - low + 1)
        weight = mask_of(code, levels, masks) * own_mass(v, noise, first, code)
        if best is None:
            best, most = code, weight
        else:
            better = weight > most
            best, most = code * better + best * ~better, weight * better + most * ~better
    return best


def mask_of(code, levels, masks):
    ring = ring_of(code, levels)
    return sum(mask * (ring == r) for r, mask in enumerate(masks))


# More than 5 parameters: symbols of the paper's formula.
def masked_pi(v, noise, first, levels, masks, code):
    """Probability of a code under masks."""
    return mask_of(code, levels, masks) * own_mass(v, noise, first, code) / total_mass(v, noise, first, levels, masks)


def rows():
    """Numbers that both definitions must give."""
    random = np.random.default_rng(20)
    for levels, first in ((2, -1.0), (2, -0.5), (3, -1.0), (4, -2.0), (8, -4.0), (16, -8.0), (16, -7.5)):
        for scheme in ("ends", "bits"):
            gate_of = gates_of_rings(levels, 2, scheme)
            for number in range(8):
                gates = [1.0 if number < 2 else float(random.uniform(0.02, 1)) for _ in range(max(gate_of))]
                masks = ring_masks(gates, gate_of)
                v, noise = np.float64(random.uniform(first - 1, first + levels)), np.float64(random.uniform(0.1, 1.5))
                code = masked_code(v, noise, first, levels, masks, gate_of)
                h = 1e-3 * noise
                at = [masked_pi(v + step * h, noise, first, levels, masks, code) for step in (-2, -1, 1, 2)]
                slope = (8 * (at[2] - at[1]) - (at[3] - at[0])) / (12 * h)
                yield [levels, first, scheme, v, noise, int(code), masked_pi(v, noise, first, levels, masks, code), slope, *gates]


def text():
    return "".join(",".join(x if isinstance(x, str) else repr(float(x)) if isinstance(x, (float, np.floating)) else str(x)
                            for x in row) + "\n" for row in rows())


def read(path):
    with open(path, newline="", encoding="ascii") as file:
        return list(csv.reader(file))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: cpq_model.py FILE")
    with open(sys.argv[1], "w", encoding="ascii") as out:
        out.write(text())
