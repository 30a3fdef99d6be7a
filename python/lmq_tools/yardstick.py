"""A float model with the data that it is judged on, and what a copy with other weights does to it.

Kinds: kinds.py. A *position* is a predicted token or an
image; positions of one window or one image are one *cluster*: standard errors are between clusters, since tokens of a window depend
on each other.
"""
import hashlib
import os

import numpy as np
import torch

from . import images
from .errors import MALFORMED, USAGE, Failure
from .kinds import KINDS
from .subjects import digest_of
from .weights import open_weights, shards_of

MASKED_SHARE, MASKED_ROUNDS = .15, 5


def tensors_of(path):
    """name -> tensor in its stored type, all of them."""
    weights = open_weights(path)
    return {name: weights[name] for name in weights}


class Yardstick:
    """module, batches of inputs, labels; `path` is what lmq quantizes. Float log-probabilities of all positions (half precision:
    they are off by 2^-11 of themselves) are kept in `cache` or in memory, so that a copy costs one forward pass."""

    def __init__(self, kind, path, module, batches, cache=None):
        self.kind, self.path, self.module = kind, path, module.eval().requires_grad_(False)
        self.batches = batches  # (inputs, labels or -100, [positions] cluster numbers of those with a label)
        self.labels = np.concatenate([labels[labels >= 0].numpy() for _, labels, _ in batches])
        self.clusters = np.concatenate([clusters for _, _, clusters in batches])
        self.inputs_sha256 = self.digest_of_inputs()
        self.weights_sha256 = digest_of(*shards_of(path))
        self.load(tensors_of(path))
        self.temperature = 1.
        self.float_logp, self.float_top = self.float_run(cache)

    @property
    def is_image(self):
        return self.kind in ("resnet", "lenet", "keras")

    def digest_of_inputs(self):
        total = hashlib.sha256()
        for inputs, labels, _ in self.batches:
            total.update(np.ascontiguousarray(inputs.numpy()).tobytes())
            total.update(np.ascontiguousarray(labels.numpy()).tobytes())
        return total.hexdigest()

    def load(self, weights):
        """Puts `weights` (name -> tensor, read one by one) into the module; a tied copy may be missing, nothing else."""
        own = self.module.state_dict()
        missing = [name for name in own if name not in weights and not is_copy(own, name, weights)]
        if missing:
            raise Failure(MALFORMED, f"{len(missing)} tensors of the model are missing, the first {missing[0]}")
        with torch.no_grad():
            for name, target in own.items():
                if name not in weights:
                    continue
                values = weights[name]
                values = values if torch.is_tensor(values) else torch.from_numpy(values)
                if values.shape != target.shape:
                    raise Failure(MALFORMED, f"{name}: shape {list(values.shape)}, the model has {list(target.shape)}")
                target.copy_(values)

    @torch.no_grad()
    def forward(self):
        """Of each batch: log-probabilities [positions, classes], in float32."""
        for inputs, labels, _ in self.batches:
            logits = self.module(inputs)
            logits = getattr(logits, "logits", logits)
            yield torch.log_softmax(logits[labels >= 0].float(), -1)

    def float_run(self, cache):
        place = None
        if cache:
            os.makedirs(cache, exist_ok=True)
            place = os.path.join(cache, f"float-{self.weights_sha256[:16]}-{self.inputs_sha256[:16]}.npy")
        tops = None
        if place is None or not os.path.exists(place):
            out, tops, at = None, [], 0
            for logp in self.forward():
                if out is None:
                    shape = (len(self.labels), logp.shape[-1])
                    out = np.lib.format.open_memmap(f"{place}.partial", "w+", np.float16, shape) if place else \
                        np.empty(shape, np.float16)
                out[at:at + len(logp)] = logp.numpy()
                tops.append(logp.argmax(-1).numpy())
                at += len(logp)
            tops = np.concatenate(tops)
            if place is None:
                return out, tops
            out.flush()
            np.save(f"{place[:-4]}-top.npy", tops)
            os.replace(f"{place}.partial", place)
        return np.load(place, mmap_mode="r"), np.load(f"{place[:-4]}-top.npy")

    def float_loss(self):
        """[positions], of the float model."""
        return -np.array(self.float_logp[np.arange(len(self.labels)), self.labels], np.float64)

    def calibrate(self):
        """The temperature at which the float model's loss is least: image classifiers are too sure of themselves, and differences of
        near-certain predictions say little."""
        logp, labels = torch.from_numpy(np.array(self.float_logp, np.float32)), torch.from_numpy(self.labels)
        grid = np.exp(np.linspace(np.log(.25), np.log(8), 241))
        losses = [torch.nn.functional.cross_entropy(logp / temperature, labels).item() for temperature in grid]
        self.temperature = float(grid[int(np.argmin(losses))])

    def measure(self, weights):
        """Arrays [positions] of the model with `weights`: kl (nats, float model first), loss, same (top class as the float model),
        right (top class is the label), accepted (chance that a token drawn from the copy passes for one of the float model's, sum of
        min(p, q)); of images calibrated_kl too."""
        self.load(weights)
        if self.is_image and self.temperature == 1.:
            self.calibrate()
        parts, at = [], 0
        for logq in self.forward():
            end = at + len(logq)
            logp = torch.log_softmax(torch.from_numpy(np.array(self.float_logp[at:end], np.float32)), -1)
            labels, top = torch.from_numpy(self.labels[at:end]), logq.argmax(-1).numpy()
            part = {"kl": divergence(logp, logq), "loss": -logq.gather(1, labels[:, None])[:, 0].double().numpy(),
                    "same": top == self.float_top[at:end], "right": top == self.labels[at:end],
                    "accepted": torch.minimum(logp.exp(), logq.exp()).sum(-1, dtype=torch.float64).numpy()}
            if self.is_image:
                soft = [torch.log_softmax(values / self.temperature, -1) for values in (logp, logq)]
                part["calibrated_kl"] = divergence(*soft)
            parts.append(part)
            at = end
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def is_copy(own, name, weights):
    """Whether a tensor that is there shares memory with the module's `name` (a tied output layer). Counters and constant buffers are
    their own copies."""
    return not own[name].is_floating_point() or any(
        other in weights and own[other].data_ptr() == own[name].data_ptr() for other in own)


def divergence(logp, logq):
    return (logp.exp() * (logp - logq)).sum(-1, dtype=torch.float64).numpy()


# ------------------------------------------------------------------------------------------------------------- loading

def windows_of(stream, window, document_token, most):
    """Windows of at most `window` tokens in the order of the stream, none over the start of a document; `most` tokens in all."""
    starts = np.flatnonzero(stream == document_token) if document_token is not None else np.asarray([0])
    taken = 0
    for low, high in zip(starts, np.append(starts[1:], len(stream))):
        for begin in range(low, high, window):
            piece = stream[begin:min(begin + window, high)]
            if len(piece) < 2:
                continue
            if taken >= most:
                return
            taken += len(piece)
            yield piece[:most - taken + len(piece)] if taken > most else piece


def token_batches(pieces, masked, seed, mask_token, most=1 << 11):
    """Windows of one length together, `most` tokens a batch: nothing is padded. masked: a share of the tokens after the first and
    before the last is replaced by the mask and predicted, each window in some rounds; else every token from those before it."""
    random = np.random.default_rng(seed)
    groups = {}
    for number, piece in enumerate(pieces):
        groups.setdefault(len(piece), []).extend([(number, piece)] * (MASKED_ROUNDS if masked else 1))
    batches = []
    for length in sorted(groups):
        step = max(1, most // length)
        for begin in range(0, len(groups[length]), step):
            numbers, rows = zip(*groups[length][begin:begin + step])
            tokens = np.stack(rows).astype(np.int64)
            labels = np.full_like(tokens, -100)
            if masked:
                chosen = random.random(tokens.shape) < MASKED_SHARE
                chosen[:, [0, -1]] = False
                labels[chosen], tokens[chosen] = tokens[chosen], mask_token
            else:
                labels[:, :-1] = tokens[:, 1:]
            clusters = np.repeat(np.asarray(numbers), (labels >= 0).sum(1))
            batches.append((torch.from_numpy(tokens), torch.from_numpy(labels), clusters))
    return batches


def language_model(kind, path):
    from . import subjects
    return subjects.language_model(path, kind).module


@torch.no_grad()
def draw(module, count, window, seed, start=None):
    """About `count` tokens in sequences of `window`, drawn from a causal model itself. uint16 or uint32, each sequence begins
    with `start` (the model's own first token)."""
    torch.manual_seed(seed)
    start = module.config.bos_token_id if start is None else start
    begin = torch.full((max(1, count // window), 1), start)
    drawn = module.generate(begin, attention_mask=torch.ones_like(begin), do_sample=True, top_k=0, use_cache=True,
                            min_new_tokens=window - 1, max_new_tokens=window - 1, suppress_tokens=[start], pad_token_id=0)
    return drawn.numpy().astype("<u2" if module.config.vocab_size <= 1 << 16 else "<u4")


# More than 5 parameters: those of load, which says what they are.
def language_pieces(module, data, window, document_token, tokens, seed):
    window = window or min(512, module.config.max_position_embeddings)
    if data is None:
        return list(draw(module, tokens or 16384, window, seed))
    stream = np.fromfile(data, "<u2" if module.config.vocab_size <= 1 << 16 else "<u4")
    if len(stream) < 2 or stream.max() >= module.config.vocab_size:
        raise Failure(MALFORMED, f"{data}: {len(stream)} tokens, the largest {stream.max(initial=0)}; "
                              f"the model has {module.config.vocab_size}")
    return list(windows_of(stream, window, document_token, tokens or len(stream)))


def image_batches(module, data, count, step=250):
    found = tensors_of(data)
    pictures, labels = found["images"][:count], found["labels"][:count].long()
    return [(module.pixels(pictures[at:at + step]), labels[at:at + step], np.arange(at, min(at + step, len(labels))))
            for at in range(0, len(labels), step)]


# More than 5 parameters: options of evaluate, by name, all with a default.
def load(kind, path, data=None, tokens=None, window=None, document_token=None, seed=0, cache=None, mask_token=4):
    """The yardstick of a model. data: a token file (little-endian u16, u32 above 65,536 tokens; default: drawn from a causal model
    itself), of images a safetensors file with `images` and `labels`. tokens: how many tokens (or images) to take at most."""
    if kind not in KINDS:
        raise Failure(USAGE, f"kind '{kind}': known are {', '.join(KINDS)}")
    if kind in ("causal", "masked"):
        if kind == "masked" and data is None:
            raise Failure(USAGE, "a masked model needs --data")
        module = language_model(kind, path)
        pieces = language_pieces(module, data, window, document_token, tokens, seed)
        return Yardstick(kind, path, module, token_batches(pieces, kind == "masked", seed, mask_token), cache)
    if data is None:
        raise Failure(USAGE, "an image model needs --data")
    if kind == "keras":
        module, path = keras_as_safetensors(path, cache)
    else:
        module = images.LeNet() if kind == "lenet" else images.resnet_of(tensors_of(path))
    return Yardstick(kind, path, module.eval(), image_batches(module, data, tokens), cache)


def keras_as_safetensors(path, cache):
    """The module, and its weights alone as a safetensors file in `cache`, which lmq reads."""
    from safetensors.torch import save_file
    module = images.Keras(path).eval()
    folder = cache or os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, os.path.splitext(os.path.basename(path))[0] + ".safetensors")
    state = module.state_dict()
    save_file({name: values.contiguous() for name, values in state.items() if values.is_floating_point()}, target)
    return module, target
