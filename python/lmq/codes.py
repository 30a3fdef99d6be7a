"""Codes and codebooks of a quantized tensor, from its records."""
import struct

import numpy as np

from . import plugin, trellis
from .file import File

TABLE, GRID, BASES, CENTRED, FACTORS = range(5)


def _numbers(record, at, kind, exponent, count):
    """`count` numbers of a codebook and the byte behind them."""
    if kind == 0:
        return np.frombuffer(record, "<f4", count, at) + np.float32(0), at + 4 * count
    halves = np.frombuffer(record, "<f2", count, at).astype(np.float32)
    return np.ldexp(halves, exponent).astype(np.float32) + np.float32(0), at + 2 * count


def codebooks(record):
    """float32 [codebooks, levels], and how weights choose among them: (columns of a row, weights of a group; 0: one codebook)."""
    magic, version = record[:4], record[4]
    if magic != b"LMQR" or version != 3:
        raise NotImplementedError(f"a record of version {version}: its values are in File[name], codes are read of versions 3 and 4")
    kind, numbers, exponent = record[8], record[9], struct.unpack_from("<b", record, 11)[0]
    levels, = struct.unpack_from("<H", record, 14)
    count, cols, group = struct.unpack_from("<QQQ", record, 16)
    books = 1 if group == 0 else count // cols * -(-cols // group)
    if kind == FACTORS:
        raise NotImplementedError("levels times factors of rows and columns: there is no codebook of plain levels")
    width = {TABLE: levels, GRID: 2, BASES: levels.bit_length() - 1, CENTRED: 1}[kind]
    found, _ = _numbers(record, 40, numbers, exponent, books * width)
    found = found.reshape(books, width)
    k = np.arange(levels, dtype=np.float32)
    if kind == GRID:
        found = found[:, :1] + k * found[:, 1:]
    elif kind == CENTRED:
        found = (k - np.float32(levels - 1) / np.float32(2)) * found
    elif kind == BASES:
        sums = np.zeros((books, levels), np.float32)
        for j in range(width):
            sign = np.where(np.arange(levels) >> (width - 1 - j) & 1, 1, -1).astype(np.float32)
            sums = sums + sign * found[:, j:j + 1]
        found = sums
    return found.astype(np.float32), int(cols), int(group)


def _match(values, levels):
    """Index of the level that each value is, the first where several are the same. values [n], levels [k]."""
    order = np.argsort(levels, kind="stable")
    return order[np.searchsorted(levels[order], values)].astype(np.uint8)


class Steps:
    """Steps of a tensor whose codes are whole numbers of them (a trellis): rows float32 [matrix rows], columns float32 [chunks, columns],
    chunk_rows: matrix rows of a chunk, the last one perhaps fewer."""

    def __init__(self, rows, columns, chunk_rows):
        self.rows, self.columns, self.chunk_rows = rows, columns, chunk_rows

    def values(self, codes):
        """float32 of the shape of `codes`: (code * row step) * column step, each product rounded once; bit for bit the tensor's values."""
        matrix = codes.reshape(len(self.rows), -1)
        chunk = np.arange(len(self.rows)) // self.chunk_rows
        return (matrix.astype(np.float32) * self.rows[:, None] * self.columns[chunk]).reshape(codes.shape)


def trellis_codes(tensor):
    """(codes int32, Steps) of a tensor whose records are those of a trellis."""
    out, rows, columns, chunk_rows = np.empty(tensor.shape, np.int32), [], [], 1
    for begin, count in tensor.chunks():
        record = tensor.record(begin)
        row, column = trellis.steps(record)
        part = out[begin:begin + count].reshape(len(row), len(column))
        part[:] = trellis.numbers(plugin.decode(record, part.size).reshape(part.shape), row, column)
        rows.append(row)
        columns.append(column)
        chunk_rows = max(chunk_rows, len(row))
    return out, Steps(np.concatenate(rows), np.stack(columns), chunk_rows)


def codes(path, name):
    """(codes, codebooks) of a quantized tensor: codes uint8 of its shape; codebooks float32 [levels] where one serves all of it, else
    [rows, groups, levels]. codebooks[...][codes] are its values, bit for bit. Of waterfill's tensors (codes int32, Steps)."""
    with (path if isinstance(path, File) else File(path)) as file:
        tensor = file[name]
        if not tensor.quantized:
            raise ValueError(f"{name}: is kept raw and has no codes")
        if tensor.shape and tensor.shape[0] and trellis.is_trellis(tensor.record(0)):
            return trellis_codes(tensor)
        out = np.empty(tensor.shape, np.uint8)
        books, shared = [], None
        for begin, rows in tensor.chunks():
            record = tensor.record(begin)
            levels, cols, group = codebooks(record)
            part = out[begin:begin + rows].reshape(-1)
            values = plugin.decode(record, part.size)
            if group == 0:
                part[:] = _match(values, levels[0])
                books.append(levels[0])
                continue
            shared = False
            per_row = -(-cols // group)
            lines = values.reshape(-1, cols)
            for book in range(len(levels)):
                row, column = divmod(book, per_row)
                window = slice(column * group, (column + 1) * group)
                part.reshape(-1, cols)[row, window] = _match(lines[row, window], levels[book])
            books.append(levels.reshape(-1, per_row, levels.shape[1]))
        if shared is None and all(np.array_equal(book, books[0]) for book in books):
            return out, books[0]
        if shared is None:  # each chunk has one of its own
            return out, np.stack(books)
        return out, np.concatenate(books)
