"""Sums that are the same whatever the order: float contributions become integers of a fixed step, and integers are added.

The step of each array is a power of two chosen from the contribution of batch 0, which is the same batch for any number of ranks.
"""
import numpy as np

from .errors import MALFORMED, Failure

BITS = 38  # the largest number of batch 0 becomes about 2^38: rounding is 2^-39 of it per batch


def exponent_of(largest):
    """e so that largest * 2^e lies in [2^(BITS-1), 2^BITS); None for 0."""
    if largest == 0:
        return None
    return BITS - int(np.frexp(float(largest))[1])


class Sums:
    """name -> integer array. `add` wants arrays of the same names and shapes for each batch; names may be missing in a batch."""

    def __init__(self, exponents=None, most_batches=1):
        self.exponents = dict(exponents or {})
        self.limit = 2.0 ** 62 / max(1, most_batches)
        self.arrays = {}

    def agree(self, largest):
        """largest: name -> largest absolute number in batch 0. A name without any takes the most common exponent of its kind (the
        word after the last point), or 0."""
        known = {name: exponent_of(value) for name, value in largest.items()}
        for name, exponent in known.items():
            if exponent is None:
                kind = name.rsplit(".", 1)[-1]
                others = sorted(e for n, e in known.items() if e is not None and n.rsplit(".", 1)[-1] == kind)
                exponent = others[len(others) // 2] if others else BITS
            self.exponents[name] = exponent

    def add(self, name, values, where):
        """values: float array. where: for the message, "batch 7"."""
        scaled = np.ldexp(np.asarray(values, np.float64), self.exponents[name])
        largest = np.abs(scaled).max(initial=0)
        if not largest < self.limit:  # also NaN
            raise Failure(MALFORMED, f"{name}: {where} has {'a number that is not finite' if not np.isfinite(largest) else 'numbers 2^'}"
                          f"{'' if not np.isfinite(largest) else int(np.log2(largest)) - BITS} "
                          f"{'' if not np.isfinite(largest) else 'times those of batch 0: their sum does not fit'}".rstrip())
        whole = np.rint(scaled, out=scaled).astype(np.int64)
        if name in self.arrays:
            self.arrays[name] += whole
        else:
            self.arrays[name] = whole

    def merge(self, other):
        """Adds the sums of another rank or an earlier start."""
        for name, values in other.items():
            if name in self.arrays:
                self.arrays[name] += values
            else:
                self.arrays[name] = values.copy()

    def take(self, name):
        """The sum as float64, removed from here; None where there is none."""
        values = self.arrays.pop(name, None)
        return None if values is None else np.ldexp(values.astype(np.float64), -self.exponents[name])
