"""Lines about how far a run is, on standard error, from rank 0 alone."""
import sys
import time


def length(seconds):
    seconds = int(seconds + .5)
    if seconds < 100:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h {seconds % 3600 // 60} min"


class Progress:
    """mode: auto (a line that renews itself on a terminal, else a line now and then), plain, none."""

    WORDS = {"start": "token averages", "outer": "output side F", "gram": "input side S"}

    def __init__(self, mode, rank):
        self.on = rank == 0 and mode != "none"
        self.terminal = mode == "auto" and sys.stderr.isatty()
        self.begin = self.shown = time.monotonic()
        self.done = self.total = 0
        self.text = ""

    def phase(self, number, phases, kind, batches):
        self.text = f"pass {number + 1} of {phases}, {self.WORDS.get(kind, kind)}"
        self.at, self.of = 0, batches
        self.left = (phases - number - 1) * batches
        self.pass_begin = time.monotonic()
        self.show(True)

    def batch(self):
        self.at += 1
        self.show(self.at == self.of)

    def show(self, always=False):
        now = time.monotonic()
        if not self.on or not always and now - self.shown < (.2 if self.terminal else 10):
            return
        self.shown = now
        rest = ""
        if self.at:
            rest = f", {length((now - self.pass_begin) / self.at * (self.of - self.at + self.left))} left"
        line = f"lmq-calibrate: {self.text}: {self.at} of {self.of} batches{rest}"
        sys.stderr.write(f"\r\033[K{line}" if self.terminal else f"{line}\n")
        sys.stderr.flush()

    def end(self):
        if self.on and self.terminal:
            sys.stderr.write("\r\033[K")
