"""What is calibrated: a module, the batches it is run on, and the labels that are drawn from it."""
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import tempfile

import numpy as np

from .errors import MALFORMED, MISSING, UNSUPPORTED, USAGE, Failure, need
from .tokens import uniform
from .weights import shards_of

KINDS = ("causal", "masked", "encoder", "images", "module")
MASKED_SHARE = .15


class Batch:
    """inputs: what the module is called with. sequences: their number, the first axis. chosen: positions with a label (bool), or all."""

    def __init__(self, number, inputs, sequences, samples, chosen=None):
        self.number, self.inputs, self.sequences, self.samples, self.chosen = number, inputs, sequences, samples, chosen


class Subject:
    """module, kind, and the names its weights have in the checkpoint."""

    def __init__(self, kind, module, path, names=None):
        import torch
        self.kind, self.module, self.path = kind, module.eval(), path
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self.parameters = dict(module.named_parameters())
        self.stacks = {name for name, p in self.parameters.items() if p.dim() == 3 and "expert" in name.lower()}
        self.checkpoint = names or {}  # name in the module -> name in the checkpoint
        self.apart = {}  # name of a stack -> the parts of its experts, see expert_parts
        self.torch = torch

    def layers(self):
        """Its matrices, to be told by their use."""
        from .capture import layers_of
        return layers_of(self.parameters.items(), self.stacks, self.apart)

    def run(self, batch):
        """Logits of the batch, or for an encoder the last hidden states."""
        if isinstance(batch.inputs, dict):
            output = self.module(**batch.inputs)
        elif isinstance(batch.inputs, (tuple, list)):
            output = self.module(*batch.inputs)
        else:
            output = self.module(batch.inputs)
        for name in ("last_hidden_state",) if self.kind == "encoder" else ("logits",):
            output = getattr(output, name, output)
        return output

    def backward(self, output, batch, seed):
        output.backward(self.pull(output, batch, seed))

    def pull(self, output, batch, seed):
        """Gradient at the output of the summed loss at labels drawn from the model itself; of an encoder, whose output is taken for
        the mean of a normal distribution of its own size, that is plain noise."""
        torch, flat = self.torch, output.detach().float().reshape(-1, output.shape[-1])
        if self.kind == "encoder":
            random = np.random.Generator(np.random.Philox(key=[seed, batch.number])).standard_normal(flat.shape, np.float32)
            return (torch.from_numpy(random) / flat.square().mean().sqrt().clamp_min(1e-20)).reshape(output.shape).to(output.dtype)
        from .tokens import draw_labels
        labels = draw_labels(flat, uniform(seed, batch.number, len(flat)))
        pull = torch.softmax(flat, -1)
        pull[torch.arange(len(flat)), labels] -= 1
        if batch.chosen is not None:
            pull *= batch.chosen.reshape(-1, 1)
        return pull.reshape(output.shape).to(output.dtype)


# ------------------------------------------------------------------------------------------------------ Hugging Face

def folder_of(path):
    """The folder of a model that is named by it or by its one file of weights."""
    return os.path.dirname(path) or "." if os.path.isfile(path) else path


def config_of(path):
    from transformers import AutoConfig
    folder = folder_of(path)
    if not os.path.exists(path):
        raise Failure(MISSING, f"{path}: no such model")
    if not os.path.exists(os.path.join(folder, "config.json")):
        raise Failure(MISSING, f"{folder}: no config.json beside the weights (of a model that is not Hugging Face's give FILE.py:FUNCTION)")
    try:
        return AutoConfig.from_pretrained(folder)
    except (ValueError, OSError, KeyError) as error:
        raise Failure(UNSUPPORTED, f"{folder}: {str(error).splitlines()[0]}") from None


def kind_of(config):
    names = getattr(config, "architectures", None) or []
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal"
    if any(name.endswith(("ForMaskedLM", "ForPreTraining")) for name in names):
        return "masked"
    if any(name.endswith("ForConditionalGeneration") for name in names):
        raise Failure(UNSUPPORTED, f"{names[0]}: give the model as FILE.py:FUNCTION, or say --kind")
    return "encoder"


def shapes_of(path):
    """name -> shape of the tensors in safetensors files, from their headers."""
    out = {}
    for shard in shards_of(path):
        if shard.endswith(".safetensors"):
            with open(shard, "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            out.update({name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"})
    return out


def checkpoint_names(parameters, shapes, tied=()):
    """Names of the module's parameters in the checkpoint: the same, with a prefix more or less (`bert.`, `model.`), or in the same block
    under another middle (`block_sparse_moe.gate.weight` for `mlp.gate.weight`), where that is one tensor of that shape."""
    out = {}
    prefixes = sorted({""} | {name.split(".")[0] + "." for name in shapes})
    for name, parameter in parameters.items():
        candidates = [name] + [prefix + name for prefix in prefixes] + ([name.split(".", 1)[1]] if "." in name else [])
        candidates += [other for first, other in tied if first == name]
        found = [candidate for candidate in candidates if shapes.get(candidate) == tuple(parameter.shape)][:1]
        if not found and (block := block_of(name)):
            ending = "." + ".".join(name.split(".")[-2:])
            found = [n for n, shape in shapes.items() if n.startswith(block) and n.endswith(ending) and shape == tuple(parameter.shape)]
        if len(found) == 1:
            out[name] = found[0]
    return out


def block_of(name):
    """`model.layers.3.` of a name below it, up to its first number."""
    found = re.match(r"(.*?\.\d+\.)", name)
    return found.group(1) if found else None


EXPERT_WORDS = {"gate_up_proj": (("gate_proj", "w1"), ("up_proj", "w3")), "gate_proj": (("gate_proj", "w1"),), "up_proj": (("up_proj", "w3"),),
                "down_proj": (("down_proj", "w2"),)}


def expert_parts(name, shape, shapes):
    """Where the checkpoint keeps the experts of a stack [experts, rows, columns] apart: for each expert [(first row, end, name)]."""
    block, words = block_of(name), EXPERT_WORDS.get(name.rsplit(".", 1)[-1])
    if not block or not words:
        return None
    rows = shape[1] // len(words)
    found = {}
    for other, own in shapes.items():
        match = re.fullmatch(re.escape(block) + r".*experts\.(\d+)\.(\w+)\.weight", other)
        if match and own == (rows, shape[2]):
            found[int(match[1]), match[2]] = other
    out = []
    for expert in range(shape[0]):
        parts = [(k * rows, (k + 1) * rows, next((found[expert, word] for word in pair if (expert, word) in found), None))
                 for k, pair in enumerate(words)]
        if any(part[2] is None for part in parts):
            return None
        out.append(parts)
    return out


@contextlib.contextmanager
def as_folder(path):
    """A folder that transformers opens: `path` itself, or where that is a file of weights one with it and what lies beside it but weights."""
    if not os.path.isfile(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(folder_of(path)):
            if not name.endswith((".safetensors", ".bin", ".pt", ".index.json")):
                os.symlink(os.path.abspath(os.path.join(folder_of(path), name)), os.path.join(folder, name))
        os.symlink(os.path.abspath(path), os.path.join(folder, "model.safetensors"))
        yield folder


def language_model(path, kind, trust_remote_code=False):
    """The model by its own code in float32; heads that are not in the checkpoint are never made up."""
    torch = need("torch", "lmq-calibrate")
    transformers = need("transformers", "a Hugging Face model")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    config = config_of(path)
    kind = kind or kind_of(config)
    maker = {"causal": transformers.AutoModelForCausalLM, "masked": transformers.AutoModelForMaskedLM, "encoder": transformers.AutoModel}[kind]
    options = {"dtype": torch.float32, "trust_remote_code": trust_remote_code}
    if hasattr(config, "num_experts") or hasattr(config, "num_local_experts") or hasattr(config, "n_routed_experts"):
        options["experts_implementation"] = "eager"
    with as_folder(path) as folder:
        module, loaded = maker.from_pretrained(folder, output_loading_info=True, **options)
    spare = {name for name in loaded["missing_keys"] if kind == "encoder" and "pooler" in name}  # not on the way to the output
    missing = sorted(set(loaded["missing_keys"]) - spare)
    if missing:
        raise Failure(MALFORMED, f"{path}: {len(missing)} tensors of {type(module).__name__} are not in the checkpoint, the first "
                      f"{missing[0]} (--kind encoder leaves the head out)")
    module.config.use_cache = False
    everything = list(module.named_parameters(remove_duplicate=False))
    first = {id(p): name for name, p in reversed(everything)}
    tied = [(first[id(p)], name) for name, p in everything if first[id(p)] != name]
    subject = Subject(kind, module, path)
    if kind == "encoder":
        subject.parameters = {name: p for name, p in subject.parameters.items() if "pooler" not in name}
    shapes = shapes_of(path)
    subject.checkpoint = checkpoint_names(subject.parameters, shapes, tied)
    subject.apart = {name: parts for name in subject.stacks if name not in subject.checkpoint and
                     (parts := expert_parts(name, tuple(subject.parameters[name].shape), shapes))}
    return subject


def token_batches(subject, pieces, groups, seed, mask_token=None):
    """Batches of token sequences; of a masked model MASKED_SHARE of the tokens is masked and has labels."""
    torch, out = subject.torch, []
    for number, group in enumerate(groups):
        tokens = np.stack([pieces[i] for i in group]).astype(np.int64)
        chosen = None
        if subject.kind == "masked":
            random = uniform(seed, 2 << 32 | number, tokens.size).reshape(tokens.shape)
            chosen = random < MASKED_SHARE
            if not chosen.any():
                chosen.reshape(-1)[np.argmin(random)] = True
            tokens = np.where(chosen, mask_token, tokens)
            chosen = torch.from_numpy(chosen)
        inputs = {"input_ids": torch.from_numpy(tokens)}
        out.append(Batch(number, inputs, len(group), int(chosen.sum()) if chosen is not None else tokens.size, chosen))
    return out


# ------------------------------------------------------------------------------------------------ images, own modules

def user_module(place):
    """(module, batches) that FUNCTION of FILE.py returns: batches are what the module is called with."""
    path, _, function = place.rpartition(":")
    if not os.path.exists(path):
        raise Failure(MISSING, f"{path}: no such file")
    specification = importlib.util.spec_from_file_location("lmq_calibrate_user_module", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not hasattr(module, function):
        raise Failure(USAGE, f"{path}: has no function '{function}'")
    result = getattr(module, function)()
    if not isinstance(result, tuple) or len(result) != 2:
        raise Failure(USAGE, f"{place}: expected (module, batches), found {type(result).__name__}")
    return result


def module_batches(given):
    """Batches of a user's module. Its first tensor's first axis counts the sequences (images)."""
    import torch
    out = []
    for number, inputs in enumerate(given):
        values = list(inputs.values()) if isinstance(inputs, dict) else list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        first = next((value for value in values if torch.is_tensor(value)), None)
        if first is None or first.dim() == 0:
            raise Failure(USAGE, f"batch {number}: no tensor with an axis is in it")
        out.append(Batch(number, inputs, first.shape[0], first.shape[0]))
    return out


def image_model(path, images_path, count, batch):
    """ResNet, LeNet (safetensors) and Keras (.h5) classifiers with images of a safetensors file (`images`)."""
    from safetensors.torch import load_file
    from . import images
    if path.endswith((".h5", ".hdf5", ".keras")):
        module = images.Keras(path)
    else:
        weights = load_file(path)
        module = images.LeNet() if "fc1.weight" in weights else images.resnet_of(weights)
        module.load_state_dict(weights, strict=False)
    pictures = load_file(images_path)["images"][:count]
    subject = Subject("images", module, path)
    batches = [Batch(number, module.pixels(pictures[at:at + batch]), len(pictures[at:at + batch]), len(pictures[at:at + batch]))
               for number, at in enumerate(range(0, len(pictures), batch))]
    return subject, batches


def digest_of(*paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                total.update(block)
    return total.hexdigest()
