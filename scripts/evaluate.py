#!/usr/bin/env python3
"""How far quantized copies of a model are from it, at which size.

  evaluate KIND MODEL [--data FILE] -o FOLDER 'NAME: SETTING' ... [--settings FILE] [--baseline NAME]
  evaluate draw MODEL -o TOKENS.u16 --tokens N        calibration sequences drawn from a causal model itself
  evaluate tables FOLDER                              the tables of all receipts in FOLDER, on standard output
  evaluate plots FOLDER                               their plots drawn anew, beside them

KIND is causal or masked (a Hugging Face folder; FILE: tokens, little-endian u16, u32 above 65,536 of them; without FILE sequences
are drawn from a causal model), resnet, lenet (safetensors) or keras (.h5; FILE: images and labels, safetensors). A SETTING is
  --method ecsq --bits 3   options of lmq quantize            round BITS BLOCK, nf4 BLOCK   what others store (evaluation/references.py)
  file PATH                a file of lmq's, or safetensors    float                         the model itself
--settings FILE has one `NAME: SETTING` a line; $VARIABLES are those of the environment. FOLDER gets NAME.json (receipt), NAME.md (table) and NAME.svg (KL divergence against
bits of the whole file; settings whose names differ in the last word only share a line). Rows of an older receipt on the same data stay.
"""
import argparse
import os
import sys

import environment

sys.path.insert(0, os.path.join(environment.HERE, "..", "python"))
from lmq_tools.kinds import KINDS  # noqa: E402


def understood():
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", metavar="KIND", choices=(*KINDS, "draw", "tables", "plots"))
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("setting", nargs="*", metavar="'NAME: SETTING'")
    parser.add_argument("-o", "--output", help="folder of the receipts, or with draw the token file")
    parser.add_argument("--settings", help="file of settings")
    parser.add_argument("--baseline", help="name of the setting that all are compared with, pair by pair (default: the first)")
    parser.add_argument("--name", help="of the files (default: the model's)")
    parser.add_argument("--lmq", default=os.environ.get("LMQ"), help="the program (default: $LMQ, else build/src/app/lmq)")
    parser.add_argument("--data", help="token file, or safetensors with images and labels")
    parser.add_argument("--tokens", type=int, help="tokens (or images) to take at most (default: all; drawn: 16384)")
    parser.add_argument("--window", type=int, help="tokens seen at once (default: what the model allows, at most 512)")
    parser.add_argument("--document-token", type=int, help="no window goes over this token, with which documents begin")
    parser.add_argument("--seed", type=int, default=0, help="of masks and of drawn sequences")
    parser.add_argument("--threads", type=int, help="of torch and of lmq (default: all)")
    parser.add_argument("--cache", help="folder that keeps the float model's outputs and each setting's numbers (default: FOLDER/cache)")
    arguments = parser.parse_intermixed_args()  # options may stand before the settings
    if arguments.kind in ("tables", "plots"):
        return arguments
    if not arguments.output:
        parser.error("-o is missing")
    if arguments.kind == "draw" and not arguments.tokens:
        parser.error("draw needs --tokens")
    arguments.cache = arguments.cache or os.path.join(arguments.output, "cache")
    return arguments


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import torch  # noqa: E402

from evaluation import Failure, draw, load  # noqa: E402
from evaluation.report import read_receipt, svg_of, table_of, write_receipt  # noqa: E402
from evaluation.sweep import Sweep, parse_settings  # noqa: E402
from lmq_tools.yardstick import language_model  # noqa: E402


def draw_tokens(arguments):
    model = language_model("causal", arguments.model)
    window = arguments.window or min(512, model.config.max_position_embeddings)
    step = 64 * window  # sequences at once
    parts = [draw(model, min(step, arguments.tokens - at), window, arguments.seed + at // step).reshape(-1)
             for at in range(0, arguments.tokens, step)]
    with open(arguments.output, "wb") as file:
        for part in parts:
            file.write(part.tobytes())
    print(f"{arguments.output}: {sum(len(part) for part in parts):,} tokens in sequences of {window}")


def receipts(folder):
    """(path without .json, receipt) of each sweep in the folder."""
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json") and "rows" in (receipt := read_receipt(os.path.join(folder, name))):
            yield os.path.join(folder, name[:-5]), receipt


def again(what, folder):
    for place, receipt in receipts(folder):
        if what == "tables":
            print(table_of(receipt))
        else:
            svg_of(receipt, f"{place}.svg")


def measure(arguments):
    settings = parse_settings(arguments.setting, arguments.settings)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    name = arguments.name or os.path.splitext(os.path.basename(os.path.abspath(arguments.model)))[0]
    model = load(arguments.kind, arguments.model, arguments.data, arguments.tokens, arguments.window, arguments.document_token,
                 arguments.seed, arguments.cache)
    sweep = Sweep(model, arguments)
    os.makedirs(arguments.output, exist_ok=True)
    place = os.path.join(arguments.output, f"{name}.json")
    receipt = sweep.receipt(name, read_receipt(place) if os.path.exists(place) else None)
    for label, setting in settings:
        row = sweep.measure(label, setting)
        receipt["rows"] = [old for old in receipt["rows"] if old["name"] != label] + [row]
        write_receipt(place, receipt)
        print(table_of({**receipt, "rows": [row]}).splitlines()[-1], flush=True)
    sweep.pair(receipt)
    receipt["rows"].sort(key=lambda row: (row.get("bits", 99), row["name"]))
    write_receipt(place, receipt)
    with open(os.path.join(arguments.output, f"{name}.md"), "w", encoding="utf-8") as file:
        file.write(table_of(receipt))
    svg_of(receipt, os.path.join(arguments.output, f"{name}.svg"))


def main(arguments):
    if arguments.kind in ("tables", "plots"):
        return again(arguments.kind, arguments.model)
    return draw_tokens(arguments) if arguments.kind == "draw" else measure(arguments)


if __name__ == "__main__":
    try:
        main(ARGUMENTS)
    except (Failure, OSError) as error:
        sys.exit(f"evaluate: {error}")
