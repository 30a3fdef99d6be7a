"""lmq-calibrate: what errors in each weight cost, for `lmq quantize --importance`.

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
import argparse
import hashlib
import json
import math
import os
import re
import shutil
import signal
import sys

import numpy as np

from . import __version__
from .errors import CANNOT_CREATE, INTERNAL, INTERRUPTED, MALFORMED, USAGE, Failure, Interrupted, Parser, code_of, need, say
from .ranks import ranks

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
    parser = Parser(prog="lmq-calibrate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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


# ---------------------------------------------------------------------------------------------------------- the data

def pieces_of(arguments, subject, comm, folder):
    """(sequences of tokens, where they come from)."""
    from .tokens import cut, read_stream, tokens_of_text
    config = subject.module.config
    longest = getattr(config, "max_position_embeddings", None) or 512
    window = arguments.window or min(512, longest)
    if window > longest:
        raise Failure(USAGE, f"--window {window}: the model sees {longest} tokens at most")
    count = arguments.sequences or EFFORTS[arguments.effort][1]
    vocabulary = config.vocab_size
    if arguments.tokens:
        return cut(read_stream(arguments.tokens, vocabulary), window, count, arguments.document_token, arguments.tokens), arguments.tokens
    if arguments.text:
        return cut(tokens_of_text(arguments, vocabulary), window, count, arguments.document_token, arguments.text), arguments.text
    place = os.path.join(folder, f"drawn-{arguments.seed}-{count}-{window}.npy")
    if os.path.exists(place):
        return list(np.load(place)), "drawn from the model"
    if subject.kind != "causal":
        raise Failure(USAGE, f"a {subject.kind} model draws no text: give --text or --tokens")
    if next(iter(subject.parameters.values())).device.type == "meta":
        raise Failure(USAGE, "a model that is run in pieces draws no text: give --text or --tokens")
    return drawn(arguments, subject, comm, place, count, window), "drawn from the model"


def drawn(arguments, subject, comm, place, count, window, together=16):
    """Sequences drawn in groups of 16, by whichever rank; kept for a resumed run."""
    from .tokens import draw_sequences
    start = getattr(subject.module.config, "bos_token_id", None)
    if comm.rank == 0:
        say("lmq-calibrate", f"drawing {count} sequences of {window} tokens from the model")
    firsts = range(0, count, together)
    mine = {first: draw_sequences(subject.module, first, min(together, count - first), window, arguments.seed, start)
            for first in firsts[comm.rank::comm.size]}
    everything = {}
    for part in comm.gather(mine):
        everything.update(part)
    sequences = np.concatenate([everything[first] for first in firsts])
    if comm.rank == 0:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(f"{place}.partial", "wb") as file:
            np.save(file, sequences)
        os.replace(f"{place}.partial", place)
    return list(sequences)


def batch_size(subject, pieces, seed, asked=None):
    """Sequences at once: as asked, else at most 16, a 16th of all, 32 MB of logits; 1 where the model does not keep them apart."""
    from .fit import check_layout
    from .subjects import token_batches
    config = subject.module.config
    width = max(config.vocab_size, 8 * getattr(config, "hidden_size", 512))
    size = asked or max(1, min(16, (1 << 23) // (max(map(len, pieces)) * width), len(pieces) // 16))
    if size > 1:
        probe = token_batches(subject, [pieces[0], pieces[0]], [[0, 1]], seed, 0)[0]
        size = size if check_layout(subject, probe) else 1
    return size


def subject_of(arguments, comm, folder):
    """(subject, batches, facts for the receipt)."""
    from . import subjects
    if ".py:" in arguments.model:
        module, given = subjects.user_module(arguments.model)
        subject = subjects.Subject("module", module, arguments.model)
        return subject, subjects.module_batches(given), {"data": "of the user's module"}
    if arguments.images:
        subject, batches = subjects.image_model(arguments.model, arguments.images, arguments.sequences, arguments.batch or 16)
        return subject, batches, {"data": os.path.basename(arguments.images), "data_sha256": subjects.digest_of(arguments.images)}
    subject = subjects.language_model(arguments.model, arguments.kind, arguments.trust_remote_code)
    return (subject, *batches_of_model(arguments, subject, comm, folder, None))


def batches_of_model(arguments, subject, comm, folder, size):
    """(batches of token sequences, facts for the receipt); size: sequences of a batch, None: --batch or as fits, kept apart."""
    from . import subjects
    from .tokens import batches_of, mask_token
    pieces, place = pieces_of(arguments, subject, comm, folder)
    if size is None:
        size = batch_size(subject, pieces, arguments.seed, arguments.batch)
        if arguments.batch and size < arguments.batch and comm.rank == 0:
            say("lmq-calibrate", f"--batch {arguments.batch}: the model does not keep the samples of a batch apart; one at a time")
    groups = batches_of(pieces, size)
    batches = subjects.token_batches(subject, pieces, groups, arguments.seed, mask_token(arguments, subject))
    total = hashlib.sha256(b"".join(np.ascontiguousarray(piece, "<i8").tobytes() for piece in pieces))
    return batches, {"data": os.path.basename(place), "tokens": sum(map(len, pieces)), "sequences": len(pieces),
                     "window": max(map(len, pieces)), "tokens_sha256": total.hexdigest()}


def model_digest(arguments):
    from .subjects import digest_of, shards_of
    if ".py:" in arguments.model:
        return digest_of(arguments.model.rpartition(":")[0])
    return digest_of(*shards_of(arguments.model))


# ----------------------------------------------------------------------------------------------------------- the run

def same_model(arguments, comm):
    """Digest of the model. Error: ranks that see different ones."""
    digests = comm.gather(model_digest(arguments))
    other = next((rank for rank, digest in enumerate(digests) if digest != digests[0]), None)
    if other is not None:
        raise Failure(MALFORMED, f"rank {other} sees another model than rank 0: SHA-256 {digests[other][:16]} instead of {digests[0][:16]}")
    return digests[0]


def run(arguments, comm):
    wanted = check_options(arguments)
    if arguments.optimizer and not arguments.sequential:
        from . import optimizer, output
        return output.write(arguments.output, optimizer.convert(arguments), {"lmq_importance": "1"})
    if not arguments.model and not arguments.sequential:
        raise Failure(USAGE, "MODEL is missing")
    torch = need("torch", "lmq-calibrate")
    torch.set_num_threads(arguments.threads)
    if arguments.sequential:
        from . import sequential_command
        return sequential_command.run(arguments, comm)
    folder = arguments.work_dir or f"{arguments.output}.work"
    if arguments.resume == "never" and comm.rank == 0 and not arguments.dry_run:
        shutil.rmtree(folder, ignore_errors=True)
    comm.wait()
    rounds = EFFORTS[arguments.effort][0] if "outer" in wanted else None
    streamed, subject, batches, facts, cost = chosen(arguments, comm, folder, rounds)
    if comm.rank == 0:
        say("lmq-calibrate", cost.text())
    if arguments.memory and cost.memory > arguments.memory:
        hint = "" if streamed or arguments.text or arguments.tokens else " (with --text or --tokens a language model is run in pieces)"
        raise Failure(USAGE, f"--memory {arguments.memory:,}: {cost.memory:,} bytes are needed per rank{hint}")
    if arguments.dry_run:
        return None
    identity = {"model": same_model(arguments, comm), "seed": arguments.seed, "block": arguments.block, "threads": arguments.threads,
                "rounds": rounds, "statistics": sorted(wanted), "batches": [b.sequences for b in batches], "version": __version__, **facts}
    stages = collect(arguments, comm, folder, identity, (streamed, subject, batches, wanted, rounds or 0, cost.memory))
    receipt = {**identity, "torch": torch.__version__, "samples": sum(batch.samples for batch in batches)}
    if comm.rank == 0:
        finish(arguments, subject, stages, wanted, receipt)
        shutil.rmtree(folder, ignore_errors=True)
    return comm.wait()


def chosen(arguments, comm, folder, rounds):
    """(model in pieces or None, subject, batches, facts, cost): in pieces where it is asked for, or where --memory leaves no other way."""
    from .cost import Cost, resident
    if may_stream(arguments, resident()):
        pieces = in_pieces(arguments, comm, folder, rounds)
        subject, batches = pieces[1:3]
        weights = sum(p.numel() for p in subject.parameters.values())
        if arguments.stream == "always" or Cost(batches, subject.layers(), arguments.block, rounds, comm.size).memory + 4 * weights > arguments.memory:
            return pieces
    subject, batches, facts = subject_of(arguments, comm, folder)
    cost = Cost(batches, subject.layers(), arguments.block, rounds, comm.size)
    if arguments.memory and cost.memory > arguments.memory and pieces_are_possible(arguments):
        return in_pieces(arguments, comm, folder, rounds)
    return None, subject, batches, facts, cost


def in_pieces(arguments, comm, folder, rounds):
    """The same of the model in pieces."""
    from .cost import Cost
    from .stream import Streamed
    streamed = Streamed(arguments.model, arguments.kind)
    batches, facts = batches_of_model(arguments, streamed.subject, comm, folder, arguments.batch or 1)
    return streamed, streamed.subject, batches, facts, Cost.of_pieces(streamed, batches, arguments.block, rounds, comm.size)


def pieces_are_possible(arguments):
    return ".py:" not in arguments.model and not arguments.images and arguments.stream != "never" and bool(arguments.text or arguments.tokens)


def may_stream(arguments, base):
    """Whether the model may have to be run in pieces: not where four times its weights fit beside what is there, and not where it is
    to draw its text and its weights alone fit."""
    from .subjects import shapes_of
    if ".py:" in arguments.model or arguments.images or arguments.stream == "never":
        return False
    if arguments.stream == "always" or not arguments.memory:
        return arguments.stream == "always"
    weights = sum(math.prod(shape) for shape in shapes_of(arguments.model).values())
    return base + (16 if arguments.text or arguments.tokens else 4) * weights > arguments.memory


def obey_signals(clock):
    """Signals that stop a run set clock.signalled; a terminal that hangs up stops it, too, unless nohup has that ignored."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: setattr(clock, "signalled", True))


def clock_of(arguments, journal, comm):
    """Says when to stop: signals to any rank, --max-time."""
    from .fit import Clock
    if comm.rank == 0:
        journal.remove(["stop"])
    comm.wait()
    clock = Clock(journal, arguments.max_time)
    obey_signals(clock)
    return clock


def collect(arguments, comm, folder, identity, what):
    """(layers, results) of the model or, one after another, of its pieces."""
    from .fit import Fit
    from .journal import Journal
    from .progress import Progress
    streamed, subject, batches, wanted, rounds, memory = what
    digest = hashlib.sha256(json.dumps([identity, bool(streamed)], sort_keys=True).encode()).hexdigest()
    journal = Journal(folder, digest, comm.rank)
    clock = clock_of(arguments, journal, comm)
    progress = Progress(arguments.progress, comm.rank)
    keep = max(0, arguments.memory - memory) if arguments.memory else 1 << 30

    def make_fit(stage, name):
        own = Journal(os.path.join(folder, name), digest, comm.rank) if name else journal
        return Fit(stage, batches, stage.layers(), arguments.block, wanted, rounds, arguments.seed, comm, own, clock, progress, keep if name else 0)
    try:
        if streamed:
            from .stream import StreamedRun
            pieces = StreamedRun(streamed, batches, comm, journal, clock, progress, make_fit)
            pieces.run(arguments.seed)
            return pieces.results()
        fit = make_fit(subject, None)
        return [(fit.layers, fit.run())]
    finally:
        progress.end()


def finish(arguments, subject, stages, wanted, receipt):
    """Writes the file from the pieces, one after another."""
    from . import output
    count = []

    def tensors():
        for layers, results in stages:
            filled, left = output.fill_unreached(results, layers)
            for key in filled:
                say("lmq-calibrate", f"{key}: no sample reached it; it takes the mean of its siblings")
            for key in left:
                say("lmq-calibrate", f"{key}: no sample reached it and it has no sibling; nothing is written for it")
            count.append(len(layers) - len(left))
            own = set(subject.parameters) - set(subject.checkpoint)
            foreign = sorted({layer.name for layer in layers if subject.checkpoint and layer.name in own})
            if foreign:
                say("lmq-calibrate", f"{len(foreign)} weights have no tensor of that shape in the checkpoint, the first {foreign[0]}")
            yield from output.statistics_of(results, layers, wanted, subject.checkpoint)
    facts = {"lmq_importance": "1", "samples": str(receipt["samples"]), "labels": "model", "receipt": json.dumps(receipt, sort_keys=True)}
    output.write(arguments.output, tensors(), facts)
    say("lmq-calibrate", f"{arguments.output}: {sum(count)} layers, {os.path.getsize(arguments.output):,} bytes")


def main():
    arguments = parser_of().parse_args()
    comm = None
    try:
        comm = ranks()
        run(arguments, comm)
    except Interrupted:
        if comm.rank == 0:
            say("lmq-calibrate", "stopped; the same command goes on from here")
        sys.exit(INTERRUPTED)
    except Exception as error:
        code = code_of(error)
        if code == INTERNAL:
            import traceback
            traceback.print_exc()
        say("lmq-calibrate", str(error) or type(error).__name__)
        if comm and comm.size > 1:
            comm.abort(code)
        sys.exit(code)


if __name__ == "__main__":
    main()
