"""What a killed run has done, kept beside its output: finished phases, and each rank's sums with the batches in them.

Files are NumPy archives whose members carry checksums; each is written under another name and renamed. A file that is torn, or of
another run (`identity`), counts as not there.
"""
import json
import os
import time
import zipfile
import zlib

import numpy as np

from .errors import IO, Failure


# What numpy and zipfile raise over a file that is not whole.
TORN = (OSError, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile)


class Journal:
    def __init__(self, folder, identity, rank):
        self.folder, self.identity, self.rank = folder, identity, rank
        self.last, self.cost = time.monotonic(), 0.0

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, arrays, facts):
        beside = self.path(f"{name}.partial")
        begin = time.monotonic()
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(beside, "wb") as file:
                facts = json.dumps({"identity": self.identity, **facts}).encode()
                np.savez(file, **{"/facts": np.frombuffer(facts, np.uint8)}, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, self.path(name))
        except OSError as error:
            raise Failure(IO, f"{beside}: {error.strerror}; what was saved before stays, run the same command again") from None
        self.last, self.cost = time.monotonic(), time.monotonic() - begin

    def read(self, name):
        """(arrays, facts), or None."""
        try:
            with open(self.path(name), "rb") as raw, np.load(raw) as file:
                arrays = {key: file[key] for key in file.files}
            facts = json.loads(arrays.pop("/facts").tobytes())
        except TORN:
            return None
        return (arrays, facts) if facts.get("identity") == self.identity else None

    def due(self):
        """Time for another `write`: at most a twentieth of the run goes into it."""
        return time.monotonic() - self.last > 20 * self.cost

    def names(self, begin):
        return sorted(n for n in os.listdir(self.folder) if n.startswith(begin) and n.endswith(".npz")) if os.path.isdir(self.folder) else []

    def remove(self, names):
        for name in names:
            try:
                os.remove(self.path(name))
            except FileNotFoundError:
                pass

    # A rank that is told to stop tells the others through a file: no message is waited for.
    def ask_stop(self):
        os.makedirs(self.folder, exist_ok=True)
        open(self.path("stop"), "w").close()

    def stop_asked(self):
        return os.path.exists(self.path("stop"))
