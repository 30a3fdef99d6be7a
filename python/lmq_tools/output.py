"""The statistics file: names and shapes of docs/importance.md, F32, contiguous, with a receipt; complete or not there."""
import json
import os
import re
import struct

import numpy as np

from .errors import CANNOT_CREATE, IO, MALFORMED, Failure


def scaled(results, key):
    """S with the trace of the token averages' (`columns`), F with what that leaves: only their product has a meaning."""
    gram, outer = results.get(f"{key}.gram"), results.get(f"{key}.outer")
    if gram is None or outer is None:
        return gram, outer
    wanted, found = float(results[f"{key}.columns"].sum(dtype=np.float64)), float(np.trace(gram, dtype=np.float64))
    if not wanted > 0 or not found > 0:
        return gram, outer
    factor = wanted / found
    return (gram * factor).astype(np.float32), (outer / factor).astype(np.float32)


def siblings_pattern(key):
    return re.sub(r"\d+", "#", key)


def fill_unreached(results, layers):
    """What no sample reached takes the mean of its siblings (same name but for numbers, same shape). Returns keys filled, keys left."""
    groups, filled, left = {}, [], []
    for layer in layers:
        groups.setdefault((siblings_pattern(layer.key), layer.rows, layer.columns), []).append(layer)
    for group in groups.values():
        reached = [layer for layer in group if f"{layer.key}.gram" in results]
        for layer in [layer for layer in group if layer not in reached]:
            if not reached:
                left.append(layer.key)
                continue
            for statistic in ("gram", "outer", "rows", "columns", "weights"):
                found = [results[f"{s.key}.{statistic}"] for s in reached if f"{s.key}.{statistic}" in results]
                if found:
                    results[f"{layer.key}.{statistic}"] = np.mean(found, 0, dtype=np.float64).astype(np.float32)
            filled.append(layer.key)
    return filled, left


def statistics_of(results, layers, wanted, names):
    """Yields (name in the file, float32 array). names: module's name -> checkpoint's."""
    stacks = {}
    for layer in layers:
        if layer.expert is not None:
            stacks.setdefault(layer.name, []).append(layer)
            continue
        yield from one_layer(results, layer, wanted, names.get(layer.name, layer.name))
    for name, experts in stacks.items():
        parts = [dict(one_layer(results, layer, wanted, names.get(name, name))) for layer in experts]
        for label in parts[0]:
            if all(label in part for part in parts):
                yield label, np.stack([part[label] for part in parts])


def one_layer(results, layer, wanted, name):
    gram, outer = scaled(results, layer.key)
    found = {"gram": gram, "outer": outer, **{s: results.get(f"{layer.key}.{s}") for s in ("rows", "columns", "weights")}}
    for statistic, values in found.items():
        if statistic in wanted and values is not None:
            yield f"{name}.{statistic}", values.reshape(layer.shape) if statistic == "weights" else values


def write(path, tensors, facts):
    """tensors: (name, array) one after another. Text facts become attributes or metadata. Errors: not finite, disk full; nothing is left then."""
    beside = f"{path}.partial"
    try:
        if path.endswith((".h5", ".hdf5")):
            write_hdf5(beside, tensors, facts)
        else:
            write_safetensors(beside, list(tensors), facts)
        descriptor = os.open(beside, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(beside, path)
    except (OSError, Failure) as error:
        if os.path.exists(beside):
            os.remove(beside)
        if isinstance(error, Failure):
            raise
        raise Failure(CANNOT_CREATE if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)) else IO,
                      f"{path}: cannot be written: {error.strerror or error}") from None


def checked(name, values):
    wrong = np.flatnonzero(~np.isfinite(values.reshape(-1)))
    if len(wrong):
        raise Failure(MALFORMED, f"{name}: value {wrong[0]} is not finite")
    return np.ascontiguousarray(values, "<f4")


def write_hdf5(path, tensors, facts):
    import h5py
    with h5py.File(path, "w", track_order=False) as file:
        for key, value in facts.items():
            file.attrs[key] = value
        for name, values in tensors:  # contiguous: lmq reads them in place
            file.create_dataset(name, data=checked(name, values), track_times=False)


def write_safetensors(path, tensors, facts):
    tensors.sort(key=lambda entry: entry[0])
    header, offset = {"__metadata__": facts}, 0
    for name, values in tensors:
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, values in tensors:
            file.write(checked(name, values).tobytes())
