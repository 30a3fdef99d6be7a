"""Weights of a checkpoint or of a quantized copy by name, read tensor by tensor: safetensors, lmq's HDF5 files, GGUF."""
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

from .errors import MALFORMED, MISSING, UNSUPPORTED, Failure, need
from .program import environment


def shards_of(path):
    """The files of a checkpoint: a file, or the safetensors (or PyTorch) files of a folder."""
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise Failure(MISSING, f"{path}: no such file or folder")
    index = os.path.join(path, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            return [os.path.join(path, name) for name in sorted(set(json.load(file)["weight_map"].values()))]
    if os.path.exists(os.path.join(path, "model.safetensors")):
        return [os.path.join(path, "model.safetensors")]
    found = [name for name in sorted(os.listdir(path)) if name.endswith((".safetensors", ".bin", ".pt"))]
    if not found:
        raise Failure(MISSING, f"{path}: no .safetensors file is in it")
    return [os.path.join(path, name) for name in found]


class Lazy(Mapping):
    """name -> function that reads the tensor."""

    def __init__(self, readers, shapes, keep=()):
        self.readers, self.shapes, self.keep = readers, shapes, keep  # keep: open files

    def __getitem__(self, name):
        return self.readers[name]()

    def __iter__(self):
        return iter(self.readers)

    def __len__(self):
        return len(self.readers)

    def __contains__(self, name):
        return name in self.readers


def safetensors_weights(path):
    from safetensors import safe_open
    readers, shapes, files = {}, {}, []
    for shard in shards_of(path):
        file = safe_open(shard, "pt")
        files.append(file)
        for name in file.keys():
            readers[name] = lambda name=name, file=file: file.get_tensor(name)
            shapes[name] = tuple(file.get_slice(name).get_shape())
    return Lazy(readers, shapes, files)


def find_plugin(program=None):
    """Folder of the HDF5 filter: $HDF5_PLUGIN_PATH is HDF5's own affair; else beside the program of a build or an installation."""
    program = program or os.environ.get("LMQ") or shutil.which("lmq")
    if not program:
        return None
    here = os.path.dirname(os.path.realpath(program))
    for folder in (os.path.join(here, "..", "h5filter"), os.path.join(here, "..", "lib", "lmq"), os.path.join(here, "..", "lib", "hdf5", "plugin"), here):
        if os.path.isdir(folder) and any(name.endswith(".so") for name in os.listdir(folder)):
            return os.path.realpath(folder)
    return None


def hdf5_weights(path, program=None):
    """Tensors of our file through the filter; where h5py cannot take it up, of its export."""
    torch, h5py = need("torch", "lmq-evaluate"), need("h5py", "an HDF5 file")
    plugin = find_plugin(program)
    if plugin:
        h5py.h5pl.prepend(plugin.encode())
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise Failure(MALFORMED, f"{path}: {error}") from None
    if "lmq_format" not in file.attrs:
        raise Failure(UNSUPPORTED, f"{path}: an HDF5 file, but not one of lmq's (no attribute lmq_format)")
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("lmq/"):
            found[name] = item
    file.visititems(visit)
    first = next((item for item in found.values() if item.chunks and item.size), None)
    if first is not None:
        try:
            first[(slice(0, 1),) + (slice(None),) * (first.ndim - 1)]
        except OSError as error:
            return exported_weights(path, program, error)
    return Lazy({name: lambda item=item: torch.from_numpy(item[()]) for name, item in found.items()},
                {name: item.shape for name, item in found.items()}, (file,))


def exported_weights(path, program, reason):
    program = program or os.environ.get("LMQ") or shutil.which("lmq")
    if not program:
        raise Failure(UNSUPPORTED, f"{path}: the HDF5 filter is not found ({reason}): set HDF5_PLUGIN_PATH, or name the program with --lmq")
    folder = tempfile.TemporaryDirectory()
    target = os.path.join(folder.name, "exported.safetensors")
    done = subprocess.run([program, "export", path, "--to", "safetensors", "-o", target], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, check=False, env=environment())
    if done.returncode:
        raise Failure(MALFORMED, f"{path}: lmq export: {done.stderr.strip()}")
    weights = safetensors_weights(target)
    weights.keep = (*weights.keep, folder)
    return weights


# -------------------------------------------------------------------------------------------------------------- GGUF

BLOCK_NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
               "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
               "ffn_norm": "post_attention_layernorm", "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def llama_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; None where the name is not of the usual decoder."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in BLOCK_NAMES:
        return f"model.layers.{parts[1]}.{BLOCK_NAMES[parts[2]]}.{parts[3]}"
    return f"{TOP_NAMES[parts[0]]}.{parts[1]}" if len(parts) == 2 and parts[0] in TOP_NAMES else None


def half_split(values, heads):
    """Rows of q and k from GGUF's interleaved rotary order to Hugging Face's halves."""
    rows = values.shape[0]
    return values.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def gguf_weights(path):
    torch, gguf = need("torch", "lmq-evaluate"), need("gguf", "a GGUF file")
    reader = gguf.GGUFReader(path)
    field = lambda name: next((f.contents() for key, f in reader.fields.items() if key.endswith(name)), None)
    architecture = field("general.architecture")
    heads = {"attn_q": field(".attention.head_count"), "attn_k": field(".attention.head_count_kv") or field(".attention.head_count")}
    readers, shapes = {}, {}
    for tensor in reader.tensors:
        name = llama_name(tensor.name) if any(part in tensor.name for part in ("blk.", "token_embd", "output")) else tensor.name
        if name is None:
            raise Failure(UNSUPPORTED, f"{path}: tensor {tensor.name} of architecture {architecture} has no known name in the model")
        kind = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        turned = heads.get(kind) if architecture == "llama" else None

        def read(tensor=tensor, turned=turned):
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            return torch.from_numpy(half_split(values, turned) if turned else values)
        readers[name], shapes[name] = read, tuple(int(n) for n in reversed(tensor.shape))
    return Lazy(readers, shapes)


def open_weights(path, program=None):
    """name -> tensor of the file or folder at `path`, told apart by content."""
    if os.path.isdir(path):
        return safetensors_weights(path)
    if not os.path.exists(path):
        raise Failure(MISSING, f"{path}: no such file or folder")
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic.startswith(b"GGUF"):
        return gguf_weights(path)
    if magic == b"\x89HDF\r\n\x1a\n":
        return hdf5_weights(path, program)
    return safetensors_weights(path)
