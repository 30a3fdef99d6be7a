"""lmq-calibrate: from the command line (calibrate_options.py) to the file; docs/calibration.md tells what is computed."""
import hashlib
import json
import math
import os
import shutil
import signal
import sys

import numpy as np

from . import __version__
from .calibrate_options import EFFORTS, check_options, parser_of
from .errors import INTERNAL, INTERRUPTED, MALFORMED, USAGE, Failure, Interrupted, code_of, need, say
from .ranks import ranks


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


# More than 5 parameters: what a draw depends on, said once by its caller.
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
