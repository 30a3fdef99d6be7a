"""What the tests of the program share: checkpoints made on the spot, and ways to run lmq alone, under mpirun, and to kill it.

Environment: LMQ the program, LMQ_DATA the sample checkpoints, LMQ_PLUGIN the folder of the HDF5 filter, MPIEXEC mpirun.
"""
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import numpy as np

LMQ = os.environ["LMQ"]
DATA = os.environ["LMQ_DATA"]
MPIEXEC = os.environ.get("MPIEXEC", "mpirun")
MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_hwloc_base_binding_policy": "none", "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_oob_tcp_if_include": "lo",
}
STORIES = os.path.join(DATA, "stories260k")
STORIES_F32 = os.path.join(DATA, "stories260k-f32")
SHARDED = os.path.join(DATA, "babyllama105-sharded")


def ctest(**_):
    """What ctest is to know of a test case or class (tests/unittest-cases): cost= seconds on a quiet machine, the dearest start
    first; lock= a name, one at a time of those that have it; alone=True nothing beside it."""
    return lambda what: what


def bf16(values):
    """Floats as BF16 patterns (u16), rounded to nearest even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors, metadata=None):
    """tensors: name -> (dtype name, shape, bytes-like in C order)."""
    header, offset, blobs = {}, 0, []
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        blob = bytes(values)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for blob in blobs:
            file.write(blob)


def read_safetensors(path):
    """name -> (dtype name, shape tuple, bytes), and the metadata."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        blob = file.read()
    metadata = header.pop("__metadata__", {})
    return {name: (entry["dtype"], tuple(entry["shape"]), blob[entry["data_offsets"][0]:entry["data_offsets"][1]])
            for name, entry in header.items()}, metadata


def source_tensors(folder):
    """Those of every safetensors file of a folder, as read_safetensors gives them."""
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(folder, name))[0])
    return tensors


def widen(dtype, blob):
    """The values of a float tensor as float64."""
    if dtype == "BF16":
        return (np.frombuffer(blob, "<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(blob, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float64)


def granularities_of(method, granularities):
    """Those that a method of `lmq methods --json` takes: one that sees whole layers has no codebooks to share."""
    return ([],) if method["sees"] == "layer" else granularities


def layouts(turn, *ranked):
    """(ranks, threads, LMQ_ISA) whose files are to be one: threads and instruction sets, and one of those with ranks by turns - they
    take a second each to start, and a turn for every method and every granularity is what tells them apart."""
    return [(0, 2, ""), (0, 1, "baseline"), ranked[turn % len(ranked)]]


def curvature(rng, size):
    """A symmetric matrix as statistics make it: positive, of correlated inputs. [size, size] F32."""
    samples = rng.standard_normal((4 * size, size)) @ (np.eye(size) + 0.5 * rng.standard_normal((size, size)) / np.sqrt(size))
    return (samples.T @ samples / len(samples)).astype(np.float32)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


class Finished:
    """err: standard error, lines that go on indented put together again (notes are as wide as the terminal); told: the same of out."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.replace("\n  ", " ")
        self.told = out.replace("\n  ", " ")

    def __repr__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"

    def lines(self):
        """Lines of ours on standard error."""
        return [line for line in self.err.splitlines() if line.startswith("lmq: ")]


def environment(**extra):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "OMP_", "SLURM_"))}
    env.update(MPI_ENVIRONMENT)
    env.update({k: str(v) for k, v in extra.items()})
    return env


def command(arguments, ranks=0):
    words = [LMQ] + [str(a) for a in arguments]
    return [MPIEXEC, "-np", str(ranks)] + words if ranks else words


def run(*arguments, ranks=0, timeout=120, stdout=subprocess.PIPE, **extra):
    """ranks 0: without mpirun."""
    done = subprocess.run(command(arguments, ranks), stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, timeout=timeout,
                          env=environment(**extra))
    return Finished(done.returncode, (done.stdout or b"").decode(), done.stderr.decode())


def options_page(*words):
    """scripts/options-page of the program: what it prints, and its exit code."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "options-page")
    return subprocess.run([script, *words, LMQ], env=environment(), capture_output=True, text=True, check=False)


def start(*arguments, ranks=0, **extra):
    """In a process group of its own."""
    return subprocess.Popen(command(arguments, ranks), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                            env=environment(**extra), start_new_session=True)


def lmq_processes_below(pid):
    """Ranks started by mpirun `pid`: its descendants that run lmq."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
                children.setdefault(int(fields[1]), []).append(int(entry))
            except OSError:
                pass
    found, queue = [], [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            queue.append(child)
            try:
                if os.path.realpath(f"/proc/{child}/exe") == os.path.realpath(LMQ):
                    found.append(child)
            except OSError:
                pass
    return found


def wait_until_gone(pids, timeout=30):
    deadline = time.monotonic() + timeout
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > deadline:
            raise AssertionError(f"ranks {pids} do not end")
        time.sleep(0.02)


def finish(process, timeout=60, force=False):
    """Waits for the end. With force a launcher that outlives its killed ranks is killed too, after a while."""
    try:
        err = process.communicate(timeout=5 if force else timeout)[1].decode()
    except subprocess.TimeoutExpired:
        if not force:
            raise
        for pid in lmq_processes_below(process.pid) + [process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        err = process.communicate(timeout=timeout)[1].decode()
    return Finished(process.returncode, "", err)


class LmqTest(unittest.TestCase):
    """A scratch folder, and checks that read as sentences."""
    maxDiff = 4000

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lmq-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def at(self, *parts):
        return os.path.join(self.folder, *parts)

    def ok(self, done):
        self.assertEqual(done.code, 0, done)
        return done

    def refused(self, done, code, *words):
        """One line of ours, with these words in it, and the exit code."""
        self.assertEqual(done.code, code, done)
        complaints = [line for line in done.lines() if not line.startswith(("lmq: warning:", "lmq: note:"))]
        self.assertEqual(len(complaints), 1, done)
        for word in words:
            self.assertIn(word, complaints[0])

    def small_checkpoint(self, name="small.safetensors", seed=1, rows=64, cols=48):
        """Two matrices and a vector in BF16."""
        random = np.random.default_rng(seed)
        path = self.at(name)
        write_safetensors(path, {
            "block.0.weight": ("BF16", (rows, cols), bf16(random.standard_normal((rows, cols)) * 0.02)),
            "block.1.weight": ("BF16", (rows, cols), bf16(random.standard_normal((rows, cols)) * 0.03)),
            "norm.weight": ("BF16", (cols,), bf16(1 + 0.1 * random.standard_normal(cols))),
        }, {"format": "pt"})
        return path


class ExportsTest(LmqTest):
    def export(self, source, form, out, *more):
        return self.ok(run("export", source, "--to", form, "-o", self.at(out), *more))

    def quantized(self, source, name, *how):
        self.ok(run("quantize", source, "-o", self.at(name), "--progress", "none", "--resume", "never", *how))
        return self.at(name)
