"""The program lmq, called from here: a process of its own, never a rank of the mpirun that started this one."""
import json
import os
import shutil
import struct
import subprocess

from .errors import INTERRUPTED, MISSING, Failure, Interrupted

LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "PALS_", "MPI_LOCAL", "SLURM_")  # variables that would make it a rank


def find(given=None):
    """Path of the program: as given, $LMQ, or of PATH. Error: none."""
    found = given or os.environ.get("LMQ") or shutil.which("lmq")
    if not found or not shutil.which(found):
        raise Failure(MISSING, f"{found or 'lmq'}: no such program: name it with --lmq, or in LMQ")
    return found


def environment():
    """This process's without what would make the program a rank of its mpirun."""
    return {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}


def call(program, words, stopped=lambda: False):
    """Runs lmq to its end. stopped() is asked five times a second: lmq saves what it has done then and goes on next time.
    Errors: Interrupted; Failure with lmq's own code and last line."""
    process = subprocess.Popen([program, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, env=environment())
    told = False
    while True:
        try:
            said = process.communicate(timeout=.2)[1]
            break
        except subprocess.TimeoutExpired:
            if not told and stopped():
                process.terminate()
                told = True
    if told or process.returncode == INTERRUPTED:
        raise Interrupted
    if process.returncode:
        last = (said.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
        raise Failure(process.returncode if process.returncode > 0 else INTERRUPTED, last.removeprefix("lmq: "))


def varint(record, at):
    """(number, place behind it) of format.md, section 3."""
    value = shift = 0
    while True:
        value |= (record[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if record[at - 1] < 128:
            return value, at


def step_of(record):
    """Step c of a record of a trellis (format.md, section 3.1); None of another record."""
    if record[:4] != b"LMQR" or record[4] != 4:
        return None
    at = 9
    for _ in range(3):
        _, at = varint(record, at)
    return struct.unpack_from("<f", record, at)[0]


def text_of(file, name):
    """JSON that a file of lmq's holds under that name."""
    value = file[name][()]
    return json.loads(value.reshape(-1)[0] if getattr(value, "shape", ()) else value)


def steps_and_bytes(path):
    """name -> (step of its first record or None, stored bytes) of every quantized tensor of a file of lmq's."""
    import h5py
    out = {}
    with h5py.File(path, "r") as file:
        table = text_of(file, "lmq/tensors")["tensors"]
        for name, method in zip(table["name"], table["method"]):
            if method not in ("raw", "folded"):
                dataset = file[name].id
                out[name] = step_of(dataset.read_direct_chunk((0,) * dataset.rank)[1]), dataset.get_storage_size()
    return out


def recipe_of(path):
    """The recipe that a file of lmq's was made with."""
    import h5py
    with h5py.File(path, "r") as file:
        return text_of(file, "lmq/recipe")
