#!/usr/bin/env python3
"""What the weights of a model matter, measured with torch, for `lmq quantize --importance`.

  collect_importance.py MODEL -o OUT.safetensors --text FILE | --tokens FILE [options]
  collect_importance.py FILE.py:FUNCTION -o OUT.h5 [options]
  collect_importance.py --optimizer STATE.pt -o OUT.safetensors [--model MODEL | --names FILE]

MODEL is a causal language model as transformers loads it (a folder or a name). FUNCTION takes no arguments and returns
(module, batches): batches are what the module is called with (a tensor, a tuple or a dict), its output (or its .logits) are
logits [..., classes]. --optimizer takes Adam's second moments out of a PyTorch optimizer file.

Statistics (docs/importance.md has shapes and units); a sample is a token, or what else has one label:
  columns  mean squared input of each column              rows  squared output gradient of each row, per sample
  gram     Gram matrix of the inputs, per position        weights  squared gradient of each weight, per sample
Gradients are those of the loss at labels drawn from the model itself (--labels data: at the data's own next tokens). An
embedding has no inputs: its rows and columns are the row and column sums of its squared gradients, and so are those of a
weight that is embedding and output layer at once.
"""
import argparse
import importlib.util
import json
import os
import struct
import sys

import numpy as np

STATISTICS = ("columns", "rows", "weights", "gram")


def stop(message):
    sys.exit(f"collect_importance: {message}")


# ---------------------------------------------------------------------------------------------------------- writing

def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    for name in sorted(tensors):
        values = tensors[name]
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + 4 * values.size]}
        offset += 4 * values.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name], "<f4").tobytes())


def write_hdf5(path, tensors, metadata):
    import h5py
    with h5py.File(path, "w") as file:
        file.attrs.update(metadata)
        for name in sorted(tensors):  # contiguous: lmq reads them in place
            file.create_dataset(name, data=np.ascontiguousarray(tensors[name], "<f4"))


def write(path, tensors, metadata):
    """F32, under a name of its own until it is complete."""
    if not tensors:
        stop("nothing was collected: no layer of the model is one of those that are watched")
    for name, values in tensors.items():
        if not np.isfinite(values).all() or values.min(initial=0) < 0 and not name.endswith(".gram"):
            stop(f"{name}: a value is negative or not finite")
    beside = f"{path}.partial"
    (write_hdf5 if path.endswith((".h5", ".hdf5")) else write_safetensors)(beside, tensors, metadata)
    os.replace(beside, path)


# --------------------------------------------------------------------------------------------------------- watching

class Watched:
    """Sums over one weight. `factored`: row and column sums of the squared gradients stand for rows and columns (embeddings,
    and weights that more than one layer uses)."""

    def __init__(self, weight, factored):
        self.shape = tuple(weight.shape)
        self.factored = factored
        self.positions = 0
        self.sums = {}

    def add(self, name, values):
        values = values.double()
        self.sums[name] = self.sums[name] + values if name in self.sums else values


class Collector:
    """Hooks on the layers of a model; the sums are those of the statistics wanted."""

    def __init__(self, model, wanted):
        import torch
        self.torch, self.wanted, self.backward = torch, wanted, bool({"rows", "weights"} & set(wanted))
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        names = {}
        for name, parameter in model.named_parameters():
            names.setdefault(parameter, name)
        layers = [layer for layer in model.modules() if self.kind(layer)]
        users = {}
        for layer in layers:
            users.setdefault(layer.weight, []).append(layer)
        self.watched = {}
        for weight, layers_of in users.items():
            factored = len(layers_of) > 1 or self.kind(layers_of[0]) == "embedding"
            one = self.watched[names[weight]] = Watched(weight, factored)
            for layer in layers_of:
                layer.register_forward_hook(self.hook(one))
        self.missing = [name for name, p in model.named_parameters() if p.dim() > 1 and name not in self.watched]

    def kind(self, layer):
        nn = self.torch.nn
        if isinstance(layer, nn.Linear):
            return "linear"
        if isinstance(layer, nn.Embedding):
            return "embedding"
        if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and layer.groups == 1 and layer.padding_mode == "zeros":
            return "conv"
        if type(layer).__name__ == "Conv1D" and hasattr(layer, "nf"):  # of transformers: weight [inputs, outputs]
            return "transposed"
        return None

    def hook(self, watched):
        def forward(layer, arguments, output):
            inputs = self.inputs_of(layer, arguments[0])
            if inputs is not None:
                self.add_inputs(watched, layer, inputs)
            if not self.backward:
                return None
            if not output.requires_grad:  # the first layer on its path: from here on gradients flow back
                output = output.requires_grad_().clone()
            tokens = arguments[0].reshape(-1) if inputs is None else None
            output.register_hook(lambda gradient: self.add_gradient(watched, layer, inputs, tokens, gradient))
            return output
        return forward

    def inputs_of(self, layer, inputs):
        """Inputs as [positions, columns], of an embedding None."""
        kind, functional = self.kind(layer), self.torch.nn.functional
        if kind == "embedding":
            return None
        inputs = inputs.detach().float()
        if kind != "conv":
            return inputs.reshape(-1, inputs.shape[-1])
        settings = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
        if isinstance(layer.padding, str):
            stop(f"padding '{layer.padding}' of a convolution: give it in numbers")
        if isinstance(layer, self.torch.nn.Conv1d):
            inputs = inputs[:, :, None]
            settings = [(1, *layer.kernel_size), (1, *layer.dilation), (0, *layer.padding), (1, *layer.stride)]
        return functional.unfold(inputs, settings[0], settings[1], settings[2], settings[3]).transpose(1, 2).flatten(0, 1)

    def add_inputs(self, watched, layer, inputs):
        watched.positions += len(inputs)
        if not watched.factored and "columns" in self.wanted:
            watched.add("columns", inputs.square().sum(0, dtype=self.torch.float64))
        if "gram" in self.wanted:
            watched.add("gram", inputs.T @ inputs)

    def add_gradient(self, watched, layer, inputs, tokens, gradient):
        kind = self.kind(layer)
        gradient = gradient.detach().float()
        if kind == "conv":
            gradient = gradient.flatten(2).transpose(1, 2)
        gradient = gradient.reshape(-1, gradient.shape[-1]).square()
        squares = inputs.square() if inputs is not None else None
        if {"rows", "columns"} & set(self.wanted) and watched.factored:
            self.add_factored(watched, gradient, squares, tokens)
        elif "rows" in self.wanted:
            watched.add("rows", gradient.sum(0, dtype=self.torch.float64))
        if "weights" in self.wanted:
            if tokens is not None:
                whole = self.torch.zeros(watched.shape, dtype=self.torch.float32, device=gradient.device)
                watched.add("weights", whole.index_add_(0, tokens, gradient))
            else:
                watched.add("weights", gradient.T @ squares)

    def add_factored(self, watched, gradient, squares, tokens):
        """Row and column sums of sum_t gradient_t^2 input_t^2, the matrix itself never made."""
        double = self.torch.float64
        if tokens is not None:
            rows = self.torch.zeros(watched.shape[0], dtype=double, device=gradient.device)
            watched.add("row_sums", rows.index_add_(0, tokens, gradient.sum(1, dtype=double)))
            watched.add("column_sums", gradient.sum(0, dtype=double))
        else:
            watched.add("row_sums", (gradient * squares.sum(1, keepdim=True)).sum(0, dtype=double))
            watched.add("column_sums", (squares * gradient.sum(1, keepdim=True)).sum(0, dtype=double))

    def results(self, samples):
        """name.statistic -> float32 array."""
        out = {}
        for name, one in self.watched.items():
            transposed = "columns" in one.sums and len(one.sums["columns"]) == one.shape[0] != one.shape[-1]
            for statistic, sums in one.sums.items():
                values = sums.cpu().numpy()
                if statistic in ("columns", "gram"):
                    values = values / max(1, one.positions)
                elif statistic == "column_sums":
                    values = values / max(values.sum(), 1e-300)
                else:
                    values = values / max(1, samples)
                label = {"row_sums": "rows", "column_sums": "columns"}.get(statistic, statistic)
                if transposed:  # stored [inputs, outputs]
                    label = {"rows": "columns", "columns": "rows"}.get(label, label)
                    values = values.T if label == "weights" else values
                if statistic == "weights":
                    values = values.reshape(one.shape)
                out[f"{name}.{label}"] = values.astype(np.float32)
        return out


# ------------------------------------------------------------------------------------------------------------- data

def tokens_of(arguments, tokenizer_of):
    if arguments.tokens:
        if arguments.tokens.endswith(".npy"):
            stream = np.load(arguments.tokens).reshape(-1)
        else:
            stream = np.fromfile(arguments.tokens, {2: "<u2", 4: "<u4"}[arguments.token_bytes])
        return stream.astype(np.int64)
    with open(arguments.text, encoding="utf-8") as file:
        return np.asarray(tokenizer_of()(file.read())["input_ids"], np.int64)


def windows_of(stream, window, document_token, most):
    """Windows of at most `window` tokens, none of them over the start of a document; `most` tokens in all."""
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


def batches_of_tokens(stream, arguments, window):
    """Windows of one length together: nothing is padded, so no position has to be left out."""
    import torch
    by_length = {}
    for piece in windows_of(stream, window, arguments.document_token, arguments.samples):
        group = by_length.setdefault(len(piece), [])
        group.append(piece)
        if len(group) == arguments.batch:
            yield torch.from_numpy(np.stack(by_length.pop(len(piece))))
    for group in by_length.values():
        yield torch.from_numpy(np.stack(group))


def load_function(place):
    path, _, function = place.rpartition(":")
    specification = importlib.util.spec_from_file_location("lmq_importance_model", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    result = getattr(module, function)()
    if not isinstance(result, tuple) or len(result) != 2:
        stop(f"{place}: expected (module, batches)")
    return result


def load_language_model(arguments):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging
    if arguments.quiet:
        logging.disable_progress_bar()
    options = {"trust_remote_code": arguments.trust_remote_code}
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype), **options)
    window = arguments.window or min(2048, getattr(model.config, "max_position_embeddings", 2048))
    stream = tokens_of(arguments, lambda: AutoTokenizer.from_pretrained(arguments.model, **options))
    if len(stream) < 2:
        stop("no tokens")
    if stream.min() < 0 or stream.max() >= model.config.vocab_size:
        stop(f"tokens up to {stream.max()}, the model has {model.config.vocab_size}")
    model.config.use_cache = False
    return model, lambda: batches_of_tokens(stream, arguments, window), len(stream)


def run_batch(model, batch, device):
    move = lambda value: value.to(device) if hasattr(value, "to") else value
    if isinstance(batch, dict):
        output = model(**{key: move(value) for key, value in batch.items()})
    elif isinstance(batch, (tuple, list)):
        output = model(*[move(value) for value in batch])
    else:
        output = model(move(batch))
    return getattr(output, "logits", output)


def collect(arguments, wanted):
    import torch
    from tqdm import tqdm
    torch.manual_seed(arguments.seed)
    language = not (".py:" in arguments.model)
    if language:
        model, batches, total = load_language_model(arguments)
        bar = tqdm(total=min(total, arguments.samples), unit="token", disable=arguments.quiet)
    else:
        model, given = load_function(arguments.model)
        batches = lambda: iter(given)
        bar = tqdm(total=arguments.samples if arguments.samples < 1 << 60 else None, unit="sample", disable=arguments.quiet)
    model = model.to(arguments.device).eval()
    collector = Collector(model, wanted)
    samples = 0
    with bar:
        for batch in batches():
            with torch.set_grad_enabled(collector.backward):
                logits = run_batch(model, batch, arguments.device)
                logits = logits.float().reshape(-1, logits.shape[-1])
                if collector.backward:
                    labels = torch.distributions.Categorical(logits=logits.detach()).sample()
                    if language and arguments.labels == "data":
                        labels = torch.cat((batch[:, 1:], torch.full_like(batch[:, :1], -100)), 1).reshape(-1).to(logits.device)
                    torch.nn.functional.cross_entropy(logits, labels, reduction="sum", ignore_index=-100).backward()
            samples += len(logits)
            bar.update(len(logits))
            if samples >= arguments.samples:
                break
    if collector.missing:
        print(f"collect_importance: nothing for {len(collector.missing)} weights: {', '.join(collector.missing[:8])}"
              f"{' ...' if len(collector.missing) > 8 else ''}", file=sys.stderr)
    return collector.results(samples), samples


# ------------------------------------------------------------------------------------------------------- optimizers

def orders_of(arguments):
    """Lists of (name, shape or None) in which an optimizer may have numbered its parameters."""
    if arguments.names:
        with open(arguments.names, encoding="utf-8") as file:
            yield [(line.strip(), None) for line in file if line.strip()]
        return
    if not arguments.model:
        stop("the state numbers its parameters: --model MODEL or --names FILE gives their names")
    if ".py:" in arguments.model:
        model = load_function(arguments.model)[0]
    else:
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(arguments.model, trust_remote_code=arguments.trust_remote_code)
    named = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    yield named
    decays = lambda name: not name.endswith("bias") and "norm" not in name.lower()
    yield [n for n in named if decays(n[0])] + [n for n in named if not decays(n[0])]  # as Trainer groups them


def numbered_names(state, arguments):
    moments = {key: tuple(entry["exp_avg_sq"].shape) for key, entry in state.items() if "exp_avg_sq" in entry}
    for order in orders_of(arguments):
        if all(key < len(order) and order[key][1] in (None, shape) for key, shape in moments.items()):
            return {key: order[key][0] for key in moments}
    stop("the shapes of the optimizer's parameters are not those of the model in any known order: give --names FILE")


def convert(arguments):
    import torch
    loaded = torch.load(arguments.optimizer, map_location="cpu", weights_only=True)
    for key in ("optimizer", "optimizer_state_dict", "optim"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or "state" not in loaded:
        stop(f"{arguments.optimizer}: no optimizer state (a dict with 'state') was found")
    state = loaded["state"]
    names = {key: key for key in state if isinstance(key, str)}
    for group in loaded.get("param_groups", []):
        names.update(zip(group["params"], group.get("param_names", [])))
    if any(key not in names for key, entry in state.items() if "exp_avg_sq" in entry):
        names = numbered_names(state, arguments)
    out = {}
    for key, entry in state.items():
        if "exp_avg_sq" in entry:
            out[f"{names[key]}.exp_avg_sq"] = entry["exp_avg_sq"].float().numpy()
    if not out:
        stop(f"{arguments.optimizer}: no second moment (exp_avg_sq) is in it")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a causal language model, or FILE.py:FUNCTION")
    parser.add_argument("-o", "--output", required=True, help="OUT.safetensors or OUT.h5")
    parser.add_argument("--text", help="UTF-8 text; the model's own tokenizer is used")
    parser.add_argument("--tokens", help="token numbers: .npy, or little-endian binary (--token-bytes)")
    parser.add_argument("--token-bytes", type=int, default=2, choices=(2, 4))
    parser.add_argument("--document-token", type=int, help="no window goes over this token, with which documents begin")
    parser.add_argument("--statistics", default="columns,rows", help=f"of {', '.join(STATISTICS)} (default columns,rows)")
    parser.add_argument("--samples", type=int, default=1 << 62, help="tokens (or samples) to take at most")
    parser.add_argument("--window", type=int, help="tokens seen at once (default: what the model allows, at most 2048)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--labels", default="model", choices=("model", "data"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--optimizer", help="a PyTorch optimizer file to convert")
    parser.add_argument("--names", help="with --optimizer: names of its parameters in order, one a line")
    parser.add_argument("--model", dest="model_option", help="with --optimizer: the model, for the parameters' names")
    arguments = parser.parse_args()
    arguments.model = arguments.model or arguments.model_option
    wanted = arguments.statistics.split(",")
    if not set(wanted) <= set(STATISTICS):
        stop(f"--statistics {arguments.statistics}: known are {', '.join(STATISTICS)}")
    metadata = {"lmq_importance": "1"}
    if arguments.optimizer:
        tensors = convert(arguments)
    elif not arguments.model:
        stop("a model is missing")
    elif ".py:" not in arguments.model and bool(arguments.text) == bool(arguments.tokens):
        stop("one of --text and --tokens is needed")
    else:
        tensors, samples = collect(arguments, wanted)
        metadata.update(samples=str(samples), labels=arguments.labels)
    write(arguments.output, tensors, metadata)
    print(f"{arguments.output}: {len(tensors)} statistics", file=sys.stderr)


if __name__ == "__main__":
    main()
