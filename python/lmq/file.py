"""A file of lmq as a mapping from names to lazy tensors."""
import collections.abc
import concurrent.futures
import json
import os

import h5py
import numpy as np

from . import plugin

# NumPy's types of the checkpoint's; BF16 has none and is given as float32, 8-bit floats as their bytes.
NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<f4", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8",
         "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?"}
TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
         "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
         "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}


def _text(dataset):
    value = dataset[()]
    value = value[0] if isinstance(value, np.ndarray) else value
    return value if isinstance(value, str) else bytes(value).decode()


class Tensor:
    """One tensor, read when it is asked for. Speaks like a slice of safetensors: get_shape, get_dtype, [...]."""

    def __init__(self, file, name, dtype, method):
        self._file, self.name, self.dtype, self.method = file, name, dtype, method
        self._dataset = file._h5[name]
        self.shape = tuple(file._shapes[name])

    def __repr__(self):
        return f"lmq.Tensor({self.name!r}, {self.dtype}, {list(self.shape)}, {self.method})"

    @property
    def quantized(self):
        return self.method not in ("raw", "folded")

    def get_shape(self):
        return list(self.shape)

    def get_dtype(self):
        return self.dtype

    def chunks(self):
        """(first row, rows) of each chunk of a quantized tensor."""
        rows = self._dataset.chunks[0] if self.shape else 1
        return [(begin, min(rows, self.shape[0] - begin)) for begin in range(0, self.shape[0], rows)]

    def record(self, begin):
        """The stored bytes of the chunk whose first row that is."""
        with self._file._lock:
            return self._dataset.id.read_direct_chunk((begin,) + (0,) * (len(self.shape) - 1))[1]

    def _row(self):
        """Numbers of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    def _each_chunk(self, part):
        """part((first row, rows)) for each chunk, by the file's threads."""
        if self.shape and self.shape[0] * self._row():
            list(self._file._pool.map(part, self.chunks()))

    def floats(self):
        """All values of a quantized tensor as float32."""
        out, row, decode = np.empty(self.shape, np.float32), self._row(), plugin.decoder()

        def part(chunk):
            begin, rows = chunk
            decode(self.record(begin), out[begin:begin + rows].reshape(rows * row))
        self._each_chunk(part)
        return out

    def numpy(self):
        """In the checkpoint's type where NumPy has it, BF16 as float32 (rounded to BF16 as `lmq export` does), 8-bit floats as bytes."""
        if not self.quantized:
            with self._file._lock:
                values = self._dataset[()]
            kind = NUMPY.get(self.dtype)
            return values.astype(kind, copy=False).reshape(self.shape) if kind else np.asarray(values)
        values = self.floats()
        if self.dtype in ("F64", "F16"):
            return values.astype(NUMPY[self.dtype])
        if self.dtype == "BF16" or self.dtype.startswith("F8"):
            return _round_bf16(values)
        return values

    def torch(self):
        """In the checkpoint's type; BF16 where block scales of an 8-bit type were folded into the values."""
        import torch
        kind = getattr(torch, TORCH[self.dtype])
        if self.quantized:  # chunk by chunk: floats of the whole tensor are never there
            out = torch.empty(self.shape, dtype=torch.bfloat16 if self.dtype.startswith("F8") else kind)
            row, decode = self._row(), plugin.decoder()

            def part(chunk):
                begin, rows = chunk
                target = out[begin:begin + rows]
                decode.apply(self.record(begin), rows * row, lambda values: target.copy_(torch.from_numpy(values).reshape(target.shape)))
            self._each_chunk(part)
            return out
        values = torch.from_numpy(np.ascontiguousarray(self.numpy())) if self.shape else torch.tensor(self.numpy())
        return values.view(kind).reshape(self.shape) if self.dtype.startswith("F8") else values.to(kind)

    def __getitem__(self, key):
        return self.torch()[key]

    def __array__(self, dtype=None, copy=None):
        values = self.numpy()
        return values if dtype is None else values.astype(dtype)


def _round_bf16(values):
    """float32 rounded to nearest BF16, ties to even, in place."""
    bits = values.view(np.uint32)
    bits += 0x7FFF + ((bits >> 16) & 1)
    bits &= 0xFFFF0000
    return values


class File(collections.abc.Mapping):
    """Tensors by name. `threads`: how many decode at once (default: the CPUs of this process)."""

    def __init__(self, path, threads=None):
        import threading
        self._h5 = h5py.File(path, "r")
        self._lock = threading.RLock()
        if "lmq" not in self._h5 or "lmq_format" not in self._h5.attrs:
            raise ValueError(f"{path}: is no file of lmq")
        version = self._h5.attrs["lmq_format"]
        if isinstance(version, str) or int(version[0]) != 2:
            raise ValueError(f"{path}: version {version}, expected 2 (lmq quantize writes it)")
        self._table = json.loads(_text(self._h5["lmq/tensors"]))
        columns = self._table["tensors"]
        self._rows = {name: i for i, name in enumerate(columns["name"]) if columns["method"][i] != "folded"}
        self._shapes = {name: columns["shape"][i] for name, i in self._rows.items()}
        workers = threads or len(os.sched_getaffinity(0))
        self._pool = concurrent.futures.ThreadPoolExecutor(workers)

    def __getitem__(self, name):
        columns, row = self._table["tensors"], self._rows[name]
        return Tensor(self, name, columns["dtype"][row], columns["method"][row])

    def __iter__(self):
        return iter(self._rows)

    def __len__(self):
        return len(self._rows)

    def facts(self, name):
        """All that the file's table says of a tensor."""
        row = self._rows[name]
        return {key: column[row] for key, column in self._table["tensors"].items() if column[row] is not None}

    def close(self):
        self._pool.shutdown()
        self._h5.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def load(path, threads=None):
    """Opens a file; nothing is decoded before it is asked for."""
    return File(path, threads)


def state_dict(path, threads=None):
    """A dictionary of lazy tensors for `from_pretrained(None, config=..., state_dict=...)`: each is decoded when it is copied into the model.
    The file stays open as long as they live."""
    file = File(path, threads)
    return {name: file[name] for name in file}


def info(path):
    """What the file says of itself: recipe, provenance, tensors (a list of dictionaries), and its size."""
    with File(path, 1) as file:
        return {"recipe": json.loads(_text(file._h5["lmq/recipe"])), "provenance": json.loads(_text(file._h5["lmq/provenance"])),
                "tensors": [file.facts(name) for name in file], "file_bytes": os.path.getsize(path)}
