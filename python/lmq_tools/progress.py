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
        self.text = self.before = ""
        self.more = 0  # stages after this one

    def stage(self, text, more):
        self.before, self.more = f"{text}, ", more

    def phase(self, number, phases, kind, batches):
        self.text = f"{self.before}pass {number + 1} of {phases}, {self.WORDS.get(kind, kind)}"
        self.start(batches, (phases - number - 1 + self.more * phases) * batches)

    def sweep(self, text, batches):
        self.text = text
        self.start(batches, 0)

    def start(self, batches, left):
        self.at, self.of, self.left = 0, batches, left
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
