"""What quantization does to models, measured; scripts/evaluate is its command, and other programs call

  from evaluation import load, evaluate
  model = load("causal", "model/", data="eval.u16", tokens=8192, cache="cache/")
  print(evaluate(weights_or_path, model)["kl"])
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python"))
from lmq_tools.errors import Failure  # noqa: E402
from lmq_tools.measures import compare, summary  # noqa: E402
from lmq_tools.yardstick import Yardstick, draw, load, tensors_of  # noqa: E402


def evaluate(weights_or_path, model, tokens=None, baseline=None):
    """Summary of a copy of the model with other weights (name -> tensor or array, or a safetensors file or folder): see `summary`.
    model: of `load`, or (kind, path) and `tokens` the token file. baseline: a result of evaluate to compare with, pair by pair.
    `arrays` of the result has the numbers of each position."""
    if not isinstance(model, Yardstick):
        model = load(*model, data=tokens)
    weights = tensors_of(weights_or_path) if isinstance(weights_or_path, str) else weights_or_path
    arrays = model.measure(weights)
    result = summary(arrays, model.clusters, model.float_loss())
    if baseline is not None:
        result["against_baseline"] = compare(arrays, baseline["arrays"], model.clusters)
    return {**result, "arrays": arrays}


__all__ = ["Failure", "Yardstick", "compare", "draw", "evaluate", "load", "summary", "tensors_of"]
