"""Steps of a record of a trellis (format version 4): its side information is read, its codes are left to the plug-in."""
import struct

import numpy as np

UNARY, WIDEST, MOST_SEEN, RAREST = 7, 16, 255, 64


class _Bit:
    """An adaptive bit: the probability of 0 in 2^-16, and how many bits it has seen."""
    __slots__ = ("zeros", "seen")

    def __init__(self):
        self.zeros, self.seen = 1 << 15, 0

    def learn(self, bit):
        moved = ((0 if bit else 1 << 16) - self.zeros) * 2
        step = abs(moved) // (2 * self.seen + 3)
        self.zeros = min(max(self.zeros + (step if moved > 0 else -step), RAREST), (1 << 16) - RAREST)
        self.seen = min(self.seen + 1, MOST_SEEN)


class _Number:
    """Models of a number: whether it is 0, its sign, its size."""

    def __init__(self):
        self.zero, self.sign = _Bit(), _Bit()
        self.unary, self.width = [_Bit() for _ in range(UNARY)], [_Bit() for _ in range(WIDEST)]


class _Decoder:
    """The range coder of docs/format.md, section 3.2. Behind the end of the bytes are zeros."""

    def __init__(self, data):
        self.data, self.at, self.range = data, 4, (1 << 32) - 1
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def split(self, bound):
        bit = int(self.code >= bound)
        if bit:
            self.code -= bound
            self.range -= bound
        else:
            self.range = bound
        while self.range < 1 << 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.code, self.range, self.at = self.code << 8 & 0xFFFFFFFF | byte, self.range << 8, self.at + 1
        return bit

    def bit(self, model):
        value = self.split((self.range >> 16) * model.zeros)
        model.learn(value)
        return value

    def even(self, bits):
        return sum(self.split(self.range >> 1) << b for b in range(bits))

    def number(self, model):
        if not self.bit(model.zero):
            return 0
        sign = -1 if self.bit(model.sign) else 1
        size = 0
        while size < UNARY and self.bit(model.unary[size]):
            size += 1
        if size == UNARY:
            width = 0
            while width < WIDEST and self.bit(model.width[width]):
                width += 1
            size += (1 << width | self.even(width)) - 1
        return sign * (size + 1)

    def array(self, count):
        """`count` exponents, as differences from the one before or from a base."""
        base_model, model = _Number(), _Number()
        chained = self.even(1)
        base = 0 if chained else self.number(base_model)
        out = np.empty(count, np.int32)
        for i in range(count):
            out[i] = base + self.number(model)
            if chained:
                base = int(out[i])
        return out


def varint(record, at):
    """(number, place behind it): groups of seven bits, the least significant first, at most five bytes."""
    value = 0
    for k in range(5):
        if at + k >= len(record):
            break
        value |= (record[at + k] & 127) << 7 * k
        if record[at + k] < 128:
            return value, at + k + 1
    raise ValueError("the record is damaged: a number does not end")


def is_trellis(record):
    return record[:5] == b"LMQR\x04"


def fields(record):
    """(rows, columns, step c, bytes of side information) of a record of version 4."""
    if not is_trellis(record) or len(record) < 16:
        raise ValueError("not a record of a trellis")
    at, numbers = 9, []
    for _ in range(3):
        number, at = varint(record, at)
        numbers.append(number)
    step, = struct.unpack_from("<f", record, at)
    size, at = varint(record, at + 4)
    return numbers[0], numbers[1], step, record[at:at + size]


def steps(record):
    """(row steps float32 [rows], column steps float32 [columns]): the weight of row i and column j is (number * row_i) * column_j, in float."""
    rows, columns, step, side = fields(record)
    if rows == 0 or columns == 0:
        return np.zeros(rows, np.float32), np.zeros(columns, np.float32)
    decoder = _Decoder(side)
    octaves = lambda count: np.exp2(decoder.array(count) / 8).astype(np.float32)
    row = octaves(rows)
    return np.float32(step) * row, octaves(columns)


def numbers(values, row_steps, column_steps):
    """The whole numbers int32 [rows, columns] that `values` float32 are of their steps."""
    product = row_steps.astype(np.float64)[:, None] * column_steps.astype(np.float64)
    return np.rint(values / product).astype(np.int32)
