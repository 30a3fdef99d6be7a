"""lmq-evaluate: how far a quantized model is from its source.

  lmq-evaluate QUANTIZED [OTHER] --source MODEL --tokens FILE.u16 [--json]
  lmq-evaluate QUANTIZED --source NETWORK.safetensors --images FILE.safetensors
  lmq-evaluate QUANTIZED --source MODEL --check 16

QUANTIZED is a file of lmq's (read through its HDF5 filter, tensor by tensor), an export (safetensors file or folder), or GGUF. With OTHER
the two are compared position by position: a claim needs three standard errors. Bits are those of the whole file. --check N compares
every tensor and the predictions at N positions, and ends with 1 where a tensor is not what it should be. docs/calibration.md has the words.
"""
import argparse
import json
import os
import platform
import sys

from . import __version__
from .errors import INTERNAL, USAGE, Failure, Parser, code_of, need, say
from .kinds import KINDS


def parser_of():
    parser = Parser(prog="lmq-evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("quantized", metavar="QUANTIZED", nargs="+", help="one file, or two that are compared")
    parser.add_argument("--source", required=True, metavar="MODEL", help="folder of a language model, or a network's file")
    parser.add_argument("--tokens", help="token file: little-endian u16, u32 above 65,536 tokens")
    parser.add_argument("--images", help="safetensors file with `images` and `labels`")
    parser.add_argument("--kind", choices=KINDS, help="default: told by the source")
    parser.add_argument("--positions", type=int, help="tokens (or images) to take at most (default: all)")
    parser.add_argument("--window", type=int, help="tokens seen at once (default: what the model allows, at most 512)")
    parser.add_argument("--document-token", type=int, help="no window goes over this token, with which documents begin")
    parser.add_argument("--seed", type=int, default=0, help="of the masks of a masked model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", help="folder that keeps the source's predictions")
    parser.add_argument("--lmq", default=os.environ.get("LMQ"), help="the program, for its filter or its export (default: $LMQ, else of PATH)")
    parser.add_argument("--check", type=int, metavar="N", help="compare tensors, and predictions at N positions")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def kind_of(arguments):
    from . import subjects
    if arguments.kind:
        return arguments.kind
    if arguments.images:
        if arguments.source.endswith((".h5", ".hdf5", ".keras")):
            return "keras"
        return "lenet" if "fc1.weight" in subjects.shapes_of(arguments.source) else "resnet"
    return subjects.kind_of(subjects.config_of(arguments.source))


def yardstick_of(arguments):
    from .yardstick import load
    if len(arguments.quantized) > 2:
        raise Failure(USAGE, f"{len(arguments.quantized)} files: one, or two to compare")
    if not arguments.tokens and not arguments.images and not arguments.check:
        raise Failure(USAGE, "--tokens (or --images) is missing: there is nothing to measure on")
    return load(kind_of(arguments), arguments.source, arguments.images or arguments.tokens, arguments.check or arguments.positions,
                arguments.window, arguments.document_token, arguments.seed, arguments.cache)


def weights_in(path):
    """Weights of a checkpoint: all its floating numbers."""
    from .weights import open_weights
    weights = open_weights(path)
    return sum(weights[name].numel() for name in weights if weights[name].is_floating_point())


def size_of(path):
    from .weights import shards_of
    return sum(os.path.getsize(shard) for shard in shards_of(path))


def measured(arguments, model, path, count):
    """(numbers of one file, arrays by position)."""
    from .measures import summary
    from .subjects import digest_of
    from .weights import open_weights, shards_of
    arrays = model.measure(open_weights(path, arguments.lmq))
    size = size_of(path)
    out = {"file": os.path.basename(os.path.normpath(path)), "sha256": digest_of(*shards_of(path)), "bytes": size, "bits": 8 * size / count,
           **summary(arrays, model.clusters, model.float_loss())}
    return out, arrays


def receipt(arguments, model):
    import numpy
    import torch
    from .subjects import digest_of
    data = arguments.images or arguments.tokens
    return {"source_sha256": model.weights_sha256, "data": os.path.basename(data) if data else "drawn from the source",
            "data_sha256": digest_of(data) if data else None, "inputs_and_labels_sha256": model.inputs_sha256,
            "positions": len(model.labels), "window": arguments.window, "document_token": arguments.document_token, "seed": arguments.seed,
            "versions": {"lmq-tools": __version__, "python": platform.python_version(), "numpy": numpy.__version__,
                         "torch": torch.__version__}}


def compared(arguments):
    from .measures import compare
    model = yardstick_of(arguments)
    count = weights_in(arguments.source)
    rows, arrays = zip(*[measured(arguments, model, path, count) for path in arguments.quantized])
    out = {"source": {"weights": count, "bits": 8 * size_of(model.path) / count, "loss": float(model.float_loss().mean()),
                      "right": float((model.float_top == model.labels).mean())}, "files": list(rows), "receipt": receipt(arguments, model)}
    if len(rows) == 2:
        out["difference"] = compare(arrays[1], arrays[0], model.clusters)
    return out


def number(value, digits=5):
    error = f" ± {value['error']:.{digits}f}" if value["error"] is not None else ""
    return f"{value['mean']:.{digits}f}{error}"


def lines_of(result, images):
    from math import exp
    source, unit = result["source"], "images" if images else "positions"
    yield f"source: {source['weights']:,} weights, {source['bits']:.2f} bits each; loss {source['loss']:.5f}" + \
        ("" if images else f", perplexity {exp(source['loss']):.4f}") + f", {100 * source['right']:.2f} % right"
    for row in result["files"]:
        kl = row["kl"]
        yield f"{row['file']}: {row['bits']:.3f} bits a weight, {row['bytes']:,} bytes; {row['positions']:,} {unit}"
        yield f"  KL divergence     {number(kl)} nats; median {kl['median']:.5f}, 99.9 % {kl['p999']:.4f}"
        yield f"  loss              {number(row['loss'])}" + ("" if images else f" (perplexity {exp(row['loss']['mean']):.4f})") + \
            f"; change {number(row['loss_change'])}"
        yield f"  same top class    {100 * row['same']:.2f} %; right {100 * row['right']:.2f} %"
        yield f"  acceptance rate   {number(row['accepted'])}"
    if "difference" in result:
        for name, value in result["difference"].items():
            clear = value["error"] and abs(value["mean"]) > 3 * value["error"]
            yield f"second - first, {name}: {number(value, 6)}" + ("" if clear else " (less than three standard errors: no difference is shown)")


def main():
    arguments = parser_of().parse_intermixed_args()
    try:
        torch = need("torch", "lmq-evaluate")
        torch.set_num_threads(arguments.threads)
        if arguments.check:
            from .check import check
            sys.exit(check(arguments, yardstick_of(arguments)))
        result = compared(arguments)
        if arguments.json:
            print(json.dumps(result, indent=1))
        else:
            print("\n".join(lines_of(result, bool(arguments.images))))
    except Exception as error:
        if code_of(error) == INTERNAL:
            import traceback
            traceback.print_exc()
        say("lmq-evaluate", str(error) or type(error).__name__)
        sys.exit(code_of(error))


if __name__ == "__main__":
    main()
