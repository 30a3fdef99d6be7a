"""The HDF5 filter plug-in: found, told to h5py, and called without h5py where many threads are to decode at once."""
import ctypes
import ctypes.util
import os
import sys

import h5py
import numpy as np

NAME = "libh5zlmq.so"
FILTER = 47803
REVERSE = 0x0100  # H5Z_FLAG_REVERSE: decode


class PluginMissing(RuntimeError):
    pass


class _FilterClass(ctypes.Structure):
    """H5Z_class2_t, as the plug-in gives it."""
    _fields_ = [("version", ctypes.c_int), ("id", ctypes.c_int), ("encoder_present", ctypes.c_uint), ("decoder_present", ctypes.c_uint),
                ("name", ctypes.c_char_p), ("can_apply", ctypes.c_void_p), ("set_local", ctypes.c_void_p), ("filter", ctypes.c_void_p)]


_FILTER_CALL = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_uint, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint), ctypes.c_size_t,
                                ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_void_p))


def folders():
    """Where the plug-in is looked for, in this order."""
    here = os.path.dirname(os.path.abspath(__file__))
    named = [part for variable in ("LMQ_PLUGIN", "HDF5_PLUGIN_PATH") for part in os.environ.get(variable, "").split(os.pathsep) if part]
    return [here, *named, os.path.join(sys.prefix, "lib", "hdf5", "plugins"), "/usr/local/lib/hdf5/plugins", "/usr/local/hdf5/lib/plugin"]


def find():
    """Path of the plug-in."""
    for folder in folders():
        path = os.path.join(folder, NAME)
        if os.path.isfile(path):
            return path
    raise PluginMissing(f"{NAME} is in none of {', '.join(folders())}: set LMQ_PLUGIN to the folder that has it")


def register(folder=None):
    """Tells h5py where the plug-in is, first of all folders. `folder`: where it is, instead of looking for it. Returns that folder."""
    folder = folder or os.path.dirname(find())
    path = os.fsencode(folder)
    known = [h5py.h5pl.get(i) for i in range(h5py.h5pl.size())]
    if path not in known:
        h5py.h5pl.prepend(path)
    return folder


class Decoder:
    """Decodes records by the plug-in's own function. Calls leave Python's lock: threads decode at once."""

    def __init__(self, path=None):
        self._library = ctypes.CDLL(path or find())
        self._library.H5PLget_plugin_info.restype = ctypes.POINTER(_FilterClass)
        entry = self._library.H5PLget_plugin_info().contents
        if entry.id != FILTER:
            raise PluginMissing(f"{path or find()}: filter {entry.id}, expected {FILTER}")
        self._filter = _FILTER_CALL(entry.filter)
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p
        self._libc.malloc.argtypes = [ctypes.c_size_t]
        self._libc.free.argtypes = [ctypes.c_void_p]

    def apply(self, record, count, use):
        """use(float32[count] of the record), which is gone afterwards. ValueError for a damaged record."""
        buffer = ctypes.c_void_p(self._libc.malloc(max(len(record), 1)))
        ctypes.memmove(buffer, record, len(record))
        size = ctypes.c_size_t(len(record))
        values = (ctypes.c_uint * 2)(0, 0)  # as many bytes as the record has weights
        try:
            given = self._filter(REVERSE, 2, values, len(record), ctypes.byref(size), ctypes.byref(buffer))
            if given != 4 * count:
                raise ValueError(f"the record is damaged: {given} bytes, expected {4 * count}")
            if count:
                use(np.ctypeslib.as_array(ctypes.cast(buffer, ctypes.POINTER(ctypes.c_float)), (count,)))
        finally:
            self._libc.free(buffer)

    def __call__(self, record, out):
        """Floats of one record into `out`, a contiguous float32 array of the chunk's size. ValueError for a damaged record."""
        self.apply(record, out.size, lambda values: np.copyto(out.reshape(-1), values))
        return out


_decoder = None


def decoder():
    """The one decoder of this process."""
    global _decoder
    if _decoder is None:
        _decoder = Decoder()
    return _decoder


def decode(record, weights):
    """float32[weights] of a record's bytes."""
    return decoder()(record, np.empty(weights, np.float32))
