"""Reads files that lmq wrote: lazily, as NumPy arrays or torch tensors, with as many threads as wanted.

    import lmq                              # h5py can read such files from here on
    with lmq.load("model.h5") as model:
        model["model.embed_tokens.weight"].numpy()
    Model.from_pretrained(None, config=config, state_dict=lmq.state_dict("model.h5"), dtype=torch.bfloat16)

Needs h5py and NumPy, and the HDF5 filter plug-in libh5zlmq.so: beside this file, in the folder LMQ_PLUGIN or HDF5_PLUGIN_PATH names, or where
`cmake --install` puts it.
"""
from .codes import Steps, codes
from .file import File, Tensor, info, load, state_dict
from .plugin import PluginMissing, register

__all__ = ["File", "PluginMissing", "Steps", "Tensor", "codes", "info", "load", "register", "state_dict"]

try:
    register()
except PluginMissing:
    pass  # it is said when a quantized tensor is read
