"""Models of scripts/evaluate for scripts/collect_importance.py, which takes `FILE.py:FUNCTION`:

  EVALUATE_KIND=resnet EVALUATE_MODEL=resnet20.safetensors EVALUATE_DATA=train_images.safetensors \\
    scripts/collect_importance.py scripts/evaluation/watched.py:watched -o statistics.safetensors --statistics rows,columns
EVALUATE_TOKENS, EVALUATE_DOCUMENT_TOKEN and EVALUATE_SEED are --tokens, --document-token and --seed of scripts/evaluate.
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from evaluation import load  # noqa: E402


def number(name):
    value = os.environ.get(f"EVALUATE_{name}")
    return int(value) if value else None


def watched():
    """(module, batches); of a masked model the outputs are those of masked positions."""
    model = load(os.environ["EVALUATE_KIND"], os.environ["EVALUATE_MODEL"], os.environ.get("EVALUATE_DATA"), number("TOKENS"),
                 document_token=number("DOCUMENT_TOKEN"), seed=number("SEED") or 0)
    if model.is_image:
        return model.module, [inputs for inputs, _, _ in model.batches]
    model.module.register_forward_hook(lambda module, _, kwargs, output: output.logits[kwargs["labels"] >= 0], with_kwargs=True)
    return model.module, [{"input_ids": inputs, "labels": labels} for inputs, labels, _ in model.batches]
