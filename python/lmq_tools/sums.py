"""Sums that are the same whatever the order: float contributions become integers of a fixed step, and integers are added.

The step of each array is a power of two chosen from the contribution of batch 0, which is the same batch for any number of ranks. A
contribution whose numbers are too large for it is added up apart, with a step 2^(20 level) times as large, as its own size says.
"""
import numpy as np

from .errors import MALFORMED, Failure

LEVEL = 20
BITS = 38  # the largest number of batch 0 becomes about 2^38: rounding is 2^-39 of it per batch


def exponent_of(largest):
    """e so that largest * 2^e lies in [2^(BITS-1), 2^BITS); None for 0."""
    if largest == 0:
        return None
    return BITS - int(np.frexp(float(largest))[1])


class Sums:
    """key -> integer array; the key is a name, or NAME@LEVEL. `add` wants arrays of the same names and shapes for each batch; names may
    be missing in a batch."""

    def __init__(self, exponents=None, most_batches=1):
        self.exponents = dict(exponents or {})
        self.bits = 62 - int(most_batches).bit_length()  # of a contribution, so that all of them fit
        self.arrays = {}

    def agree(self, largest):
        """largest: name -> largest absolute number in batch 0. A name without any takes the middle exponent of its kind (the word after
        the last point), or 0's."""
        known = {name: exponent_of(value) for name, value in largest.items()}
        for name, exponent in known.items():
            if exponent is None:
                kind = name.rsplit(".", 1)[-1]
                others = sorted(e for n, e in known.items() if e is not None and n.rsplit(".", 1)[-1] == kind)
                exponent = others[len(others) // 2] if others else BITS
            self.exponents[name] = exponent

    def add(self, name, values, where):
        """values: float array. where: for the message, "batch 7"."""
        scaled = np.multiply(values, 2.0 ** self.exponents[name], dtype=np.float64)
        largest = float(np.abs(scaled).max(initial=0))
        if not np.isfinite(largest):
            raise Failure(MALFORMED, f"{name}: {where} has a number that is not finite")
        level = max(0, -(-(int(np.frexp(largest)[1]) - self.bits) // LEVEL))
        if level:
            scaled *= 2.0 ** (-LEVEL * level)
        self.merge({f"{name}@{level}" if level else name: np.rint(scaled, out=scaled).astype(np.int64)})

    def merge(self, other):
        """Adds the sums of another rank or an earlier start (the arrays become ours)."""
        for key, values in other.items():
            if key in self.arrays:
                self.arrays[key] += values
            else:
                self.arrays[key] = values

    def keys_of(self, name, keys):
        """Those of `keys` that are sums of `name`, by level."""
        found = [key for key in keys if key == name or key.rpartition("@")[0] == name]
        return sorted(found, key=lambda key: (len(key), key))

    def take(self, name):
        """The sum as float64, removed from here; None where there is none."""
        total = None
        for key in self.keys_of(name, list(self.arrays)):
            level = int(key.rpartition("@")[2]) if key != name else 0
            values = np.ldexp(self.arrays.pop(key).astype(np.float64), LEVEL * level - self.exponents[name])
            total = values if total is None else total + values
        return total
