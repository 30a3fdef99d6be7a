"""The command line of lmq-calibrate; needs nothing but Python."""
import argparse
import os
import re

from . import __version__
from .errors import CANNOT_CREATE, USAGE, Failure, Parser

DESCRIPTION = """lmq-calibrate: what errors in each weight cost, for `lmq quantize --importance`.

  lmq-calibrate MODEL -o STATS.h5 [--text FILE | --tokens FILE.u16] [options]
  lmq-calibrate FILE.py:FUNCTION -o STATS.h5 [options]
  lmq-calibrate NETWORK.safetensors --images FILE.safetensors -o STATS.h5 [options]
  lmq-calibrate --optimizer STATE.pt -o ADAM.safetensors [MODEL | --names FILE]
  lmq-calibrate MODEL --sequential --bits B -o OUT.h5 [--importance STATS.h5] [options]
  mpirun -n 4 lmq-calibrate ...

MODEL is a folder (or a .safetensors file beside its config.json) as transformers loads it: a causal or masked language model, or an
encoder without a head. FUNCTION returns (module, batches): what the module is called with, its output are logits [.., classes]. Without
--text and --tokens the sequences are drawn from the causal model itself. docs/calibration.md tells what is computed.

The same command again goes on after a kill, SIGTERM, SIGHUP or --max-time (exit code 75), with any number of ranks; the file is the same for
any number of ranks with the same --threads.
"""
STATISTICS = ("outer", "gram", "rows", "columns", "weights")
EFFORTS = {"averages": (0, 64), "low": (1, 64), "medium": (2, 128), "high": (3, 256)}  # rounds of the fit, sequences


def size_in_bytes(text):
    found = re.fullmatch(r"([0-9.]+)\s*([KMGT]?)i?B?", text, re.I)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 3G")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def minutes(text):
    """[[HH:]MM:]SS-like as Slurm says it, or minutes."""
    parts = text.split(":")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no time such as 90 (minutes) or 1:30:00") from None
    return numbers[0] * 60 if len(numbers) == 1 else sum(n * 60 ** i for i, n in enumerate(reversed(numbers)))


def parser_of():
    parser = Parser(prog="lmq-calibrate", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", nargs="?")
    parser.add_argument("-o", "--output", required=True, help="STATS.h5 (or .safetensors)")
    parser.add_argument("--text", help="UTF-8 text; the model's own tokenizer is used")
    parser.add_argument("--tokens", help="token numbers: little-endian u16 (u32 above 65,536 tokens), or .npy")
    parser.add_argument("--images", help="safetensors file with `images`: MODEL is a ResNet, LeNet or Keras classifier")
    parser.add_argument("--document-token", type=int, help="no sequence goes over this token, with which documents begin")
    parser.add_argument("--sequences", type=int, help="how many to take (default: of --effort), or images")
    parser.add_argument("--window", type=int, help="tokens of a sequence (default: what the model allows, at most 512)")
    parser.add_argument("--statistics", default="outer,gram,rows,columns", help=f"of {', '.join(STATISTICS)} (default: all but weights)")
    parser.add_argument("--effort", default="high", choices=EFFORTS,
                        help="rounds of the fit and sequences: 0 (token averages, one pass) and 64, 1 and 64, 2 and 128, 3 and 256 (default high)")
    parser.add_argument("--block", type=int, default=256, help="rows of a block of F (default 256, as waterfill's units)")
    parser.add_argument("--kind", choices=("causal", "masked", "encoder"), help="default: as config.json says")
    parser.add_argument("--memory", type=size_in_bytes, help="bound per rank, such as 3G; a model that does not fit is run in pieces (--stream)")
    parser.add_argument("--stream", default="auto", choices=("auto", "always", "never"),
                        help="run one block of layers at a time, read from the shards (a language model of safetensors files)")
    parser.add_argument("--max-time", type=minutes, help="stop after minutes (or H:MM:SS) with exit code 75")
    parser.add_argument("--threads", type=int, default=1, help="of each rank (default 1; more ranks serve better)")
    parser.add_argument("--batch", type=int, help="sequences at once (default: by size)")
    parser.add_argument("--seed", type=int, default=0, help="of labels, masks and drawn sequences")
    parser.add_argument("--work-dir", help="what a killed run has done (default: OUTPUT.work)")
    parser.add_argument("--resume", default="auto", choices=("auto", "never"))
    parser.add_argument("--optimizer", help="a PyTorch optimizer file, whose second moments (Adam) are converted")
    parser.add_argument("--names", help="with --optimizer: names of its parameters in order, one a line")
    parser.add_argument("--sequential", action="store_true", help="OUTPUT is the quantized model: layers are coded one group after another by lmq, "
                        "each for what the layers before it have become")
    parser.add_argument("--bits", type=float, help="with --sequential: of the whole file for each weight, as of lmq quantize")
    parser.add_argument("--importance", help="with --sequential: statistics of the model (default: they are collected first)")
    parser.add_argument("--lmq", help="with --sequential: the program (default: $LMQ, else of PATH)")
    parser.add_argument("--dry-run", action="store_true", help="say seconds, bytes and memory, and stop")
    parser.add_argument("--progress", default="auto", choices=("auto", "plain", "none"))
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--version", action="version", version=__version__)
    return parser


def check_options(arguments):
    wanted = set(arguments.statistics.split(","))
    if not wanted <= set(STATISTICS):
        raise Failure(USAGE, f"--statistics {arguments.statistics}: known are {', '.join(STATISTICS)}")
    if arguments.text and arguments.tokens:
        raise Failure(USAGE, "--text and --tokens exclude each other")
    for name in ("sequences", "window", "block", "threads", "batch"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise Failure(USAGE, f"--{name} {value}: at least 1")
    if not 0 <= arguments.seed < 1 << 63:
        raise Failure(USAGE, f"--seed {arguments.seed}: 0 to 2^63 - 1")
    if not arguments.sequential and any((arguments.bits, arguments.importance, arguments.lmq)):
        raise Failure(USAGE, "--bits, --importance and --lmq go with --sequential")
    folder = os.path.dirname(os.path.abspath(arguments.output))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise Failure(CANNOT_CREATE, f"{arguments.output}: its folder is not there or cannot be written")
    return wanted
