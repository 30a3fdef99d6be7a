"""lmq-calibrate --sequential, from the command line to the file."""
import argparse
import hashlib
import json
import os
import shutil

from . import calibrate
from .errors import MISSING, USAGE, Failure, say


def check(arguments):
    """Errors: what --sequential cannot be asked for."""
    if not arguments.bits or not .1 <= arguments.bits <= 16:
        raise Failure(USAGE, "--sequential needs --bits, .1 to 16: bits of the whole file for each weight")
    if not arguments.model or ".py:" in arguments.model or arguments.images or arguments.optimizer:
        raise Failure(USAGE, "--sequential is for a language model of safetensors files")
    if arguments.importance and not os.path.exists(arguments.importance):
        raise Failure(MISSING, f"{arguments.importance}: no such file")


def statistics_of(arguments, comm, folder, digest):
    """Path of the statistics: the given ones, or those that are collected now by the other options."""
    if arguments.importance:
        return arguments.importance
    words = [digest, arguments.text, arguments.tokens, arguments.sequences, arguments.window, arguments.document_token, arguments.effort,
             arguments.block, arguments.seed, arguments.threads]
    path = os.path.join(folder, f"statistics-{hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]}.h5")
    if not os.path.exists(path):
        comm.wait()
        own = argparse.Namespace(**{**vars(arguments), "sequential": False, "output": path, "work_dir": f"{path}.work",
                                    "bits": None, "importance": None, "lmq": None})
        calibrate.run(own, comm)
    comm.wait()
    return path


def draw(arguments, comm, folder):
    """Lets the whole model write the sequences before it is taken in pieces."""
    from . import subjects
    if not arguments.text and not arguments.tokens:
        calibrate.pieces_of(arguments, subjects.language_model(arguments.model, arguments.kind, arguments.trust_remote_code), comm, folder)
        comm.wait()


def batch_of(arguments):
    """Sequences at once: about 4096 positions."""
    return arguments.batch or max(1, 4096 // (arguments.window or 512))


def cost_text(streamed, batches):
    """What is said before the run: passes, disk for what passes between blocks."""
    samples = sum(batch.samples for batch in batches)
    disk = 4 * 4 * getattr(streamed.module.config, "hidden_size", 0) * samples
    return (f"{len(streamed.blocks)} blocks, {samples:,} samples: two passes forward for each group of layers, then two more for each block; "
            f"{disk / 2 ** 20:,.0f} MB of disk for what passes between blocks, and a copy of the checkpoint")


def run(arguments, comm):
    from .journal import Journal
    from .progress import Progress
    from .sequential import Sequential
    from .stream import Streamed
    from .subjects import digest_of
    check(arguments)
    folder = arguments.work_dir or f"{arguments.output}.work"
    if comm.rank == 0:
        os.makedirs(folder, exist_ok=True)
    comm.wait()
    digest = calibrate.same_model(arguments, comm)
    streamed = Streamed(arguments.model, arguments.kind)
    draw(arguments, comm, folder)
    batches, facts = calibrate.batches_of_model(arguments, streamed.subject, comm, folder, batch_of(arguments))
    if comm.rank == 0:
        say("lmq-calibrate", cost_text(streamed, batches))
    if arguments.dry_run:
        return
    statistics = statistics_of(arguments, comm, folder, digest)
    identity = {"model": digest, "bits": arguments.bits, "seed": arguments.seed, "threads": arguments.threads, "statistics": digest_of(statistics),
                "batches": [batch.sequences for batch in batches], **facts}
    journal = Journal(folder, hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(), comm.rank)
    clock, progress = calibrate.clock_of(arguments, journal, comm), Progress(arguments.progress, comm.rank)
    sequential = Sequential(arguments, comm, streamed, batches, statistics, journal, clock, progress)
    try:
        sequential.run()
    finally:
        progress.end()
    if comm.rank == 0:
        say("lmq-calibrate", f"{arguments.output}: {len(sequential.groups)} groups, {os.path.getsize(arguments.output):,} bytes")
        shutil.rmtree(folder, ignore_errors=True)
    comm.wait()
