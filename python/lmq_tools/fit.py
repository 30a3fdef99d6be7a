"""The passes over the data: token averages first, then the two sides of the fit in turn, summed over batches and ranks as integers."""
import time

import numpy as np
import torch

from . import factors
from .capture import Capture, Mixed, leaves_of
from .errors import MALFORMED, USAGE, Failure, Interrupted
from .sums import Sums


class Clock:
    """When to stop: a signal, --max-time, or another rank that said so."""

    def __init__(self, journal, seconds=None):
        self.journal, self.signalled = journal, False
        self.end = time.monotonic() + seconds if seconds else None

    def stop(self):
        if self.signalled or (self.end and time.monotonic() > self.end):
            self.journal.ask_stop()
            return True
        return self.journal.stop_asked()


class Fit:
    """subject, layers; block: rows of a block of F; wanted: set of statistics; rounds of the flip-flop; keep: bytes for what the
    first pass saw, with which later passes need not run the model."""

    # More than 5 parameters: the parts that a fit works with, each kept as it is.
    def __init__(self, subject, batches, layers, block, wanted, rounds, seed, comm, journal, clock, progress, keep=0):
        self.subject, self.batches, self.watched, self.layers, self.block = subject, batches, layers, leaves_of(layers), block
        self.wanted, self.seed, self.comm, self.journal, self.clock, self.progress = wanted, seed, comm, journal, clock, progress
        self.samples = sum(batch.samples for batch in batches)
        self.results = {}  # key.statistic -> float32 array
        self.keep, self.kept = keep, {}  # batch number -> [(layer, uses)]
        self.phases = ["start"] + (["outer", "gram"] * rounds if "outer" in wanted else [])
        self.plain = "outer" in wanted and rounds == 0  # token averages of both sides

    def run(self):
        """All phases, from where the journal stands. Errors: Interrupted; Failure (not finite, disk full)."""
        begin = self.restore()
        for number in range(begin, len(self.phases)):
            self.one_pass(number)
        return self.results

    def restore(self):
        done = -1
        if self.comm.rank == 0:
            for name in reversed(self.journal.names("phase-")):
                found = self.journal.read(name) if "-part-" not in name else None
                if found:
                    self.results, done = found[0], found[1]["phase"]
                    break
        done = self.comm.share(done)
        if self.comm.rank and done >= 0:
            self.results = self.journal.read(f"phase-{done:03}.npz")[0]
        return done + 1

    # ------------------------------------------------------------------------------------------------------ one pass

    def one_pass(self, number):
        kind = self.phases[number]
        self.prepare(kind)
        sums, before = self.parts(number)
        left = [batch for batch in self.batches if batch.number not in before]
        done = set(before) if self.comm.rank == 0 else set()  # whose sums are in `sums` of this rank
        mine = left[self.comm.rank::self.comm.size]
        self.progress.phase(number, len(self.phases), kind, len(mine))
        if not sums.exponents:
            self.first_batch(kind, mine[:1], sums)
            done |= {batch.number for batch in mine[:1]}
            mine = mine[1:]
        stopped = self.clock.stop()
        for batch in mine:
            if stopped:
                break
            self.one_batch(kind, batch, lambda name, values: sums.add(name, values.numpy(), f"batch {batch.number}"))
            done.add(batch.number)
            self.progress.batch()
            if self.journal.due():
                self.save_part(number, sums, done)
            stopped = self.clock.stop()
        if self.comm.any(stopped):
            self.save_part(number, sums, done)
            self.comm.wait()
            raise Interrupted
        self.finish(number, kind, sums)

    def first_batch(self, kind, mine, sums):
        """Runs the first batch of every rank at once; the steps of the integers are those of batch 0."""
        kept = []
        for batch in mine:
            self.one_batch(kind, batch, lambda name, values: kept.append((name, values)))
            self.progress.batch()
        largest = {name: float(values.abs().max()) if values.numel() else 0.0 for name, values in kept}
        for name in [name for name, value in largest.items() if not np.isfinite(value)]:
            raise Failure(MALFORMED, f"{name}: batch {mine[0].number} has a number that is not finite")
        found = self.comm.share(largest)
        sums.agree({name: found.get(name, 0.0) for name in self.names(kind)})
        kept.reverse()
        while kept:
            name, values = kept.pop()
            sums.add(name, values.numpy(), f"batch {mine[0].number}")

    def one_batch(self, kind, batch, sink):
        seen = []

        def finished(layer, uses):
            seen.append((layer, uses) if self.keep > 0 and kind == "start" else None)
            for name, values in self.contributions(kind, layer, uses).items():
                sink(f"{layer.key}.{name}", values)
        if batch.number in self.kept:
            for layer, uses in self.kept[batch.number]:
                finished(layer, uses)
            return
        try:
            with Capture(self.watched, self.subject.parameters, batch.sequences, finished) as capture:
                output = self.subject.run(batch)
        except Mixed:
            raise Failure(USAGE, f"batch {batch.number}: a layer's inputs do not keep the {batch.sequences} samples apart (first axis): "
                          "give batches of one sample (--batch 1)") from None
        if not torch.isfinite(output).all():
            raise Failure(MALFORMED, f"{self.first_not_finite(batch)}: batch {batch.number} gives numbers that are not finite")
        self.subject.backward(output, batch, self.seed)
        if capture.changed:
            raise Failure(MALFORMED, f"{sorted(capture.changed)[0]}: its input is changed in place after use")
        if self.keep > 0 and kind == "start" and len(self.phases) > 1:
            self.keep_uses(batch, seen)

    def keep_uses(self, batch, seen):
        """Keeps what the batch showed while there is room; tensors that layers share count once."""
        tensors = {t.data_ptr(): t for _, uses in seen for use in uses for t in (use.x, use.g, use.tokens) if t is not None}
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        self.keep -= size
        if self.keep > 0:
            self.kept[batch.number] = seen

    def first_not_finite(self, batch):
        """Name of the first layer with an output that is not finite."""
        place = []

        class Look(Capture):
            def record(self, layer, out, inputs, make):
                if not place and not torch.isfinite(out).all():
                    place.append(layer.key)
                return out
        with torch.no_grad(), Look(self.watched, self.subject.parameters, batch.sequences):
            self.subject.run(batch)
        return place[0] if place else "the output"

    def contributions(self, kind, layer, uses):
        if kind == "start":
            out = factors.averages(layer, uses)
            if "weights" in self.wanted:
                out["weights"] = factors.squared_weights(layer, uses)
            if self.plain:
                out["outer"] = factors.plain_outer(layer, uses, self.block_of(layer))
            return out
        factor = self.prepared.get(layer.key)
        if factor is None:
            return {}
        if kind == "outer":
            return {"outer": factors.outer(layer, uses, factor, self.block_of(layer))}
        return {"gram": factors.gram(layer, uses, factor)}

    def block_of(self, layer):
        return min(self.block, layer.rows)

    def names(self, kind):
        if kind == "start":
            statistics = ["gram", "rows", "positions"] + ["weights"] * ("weights" in self.wanted) + ["outer"] * self.plain
        else:
            statistics = [kind]
        return [f"{layer.key}.{statistic}" for layer in self.layers for statistic in statistics]

    # ------------------------------------------------------------------------------------------- between the passes

    def prepare(self, kind):
        """Inverses of the side that stays. A layer that no gradient reached has none."""
        self.prepared = {}
        for layer in self.layers:
            if kind == "outer":
                values = self.results.get(f"{layer.key}.gram")
                if values is not None and np.trace(values) > 0 and self.results[f"{layer.key}.rows"].any():
                    self.prepared[layer.key] = factors.root_of_inverse(values)
            elif kind == "gram":
                values = self.results.get(f"{layer.key}.outer")
                if values is not None and values.any():
                    self.prepared[layer.key] = factors.inverse_of_blocks(values, layer.rows)
                    self.results.pop(f"{layer.key}.gram", None)

    def parts(self, number):
        """Sums and batches of an interrupted pass: rank 0 holds all of them, the others know which batches are done."""
        sums, done = Sums(most_batches=len(self.batches)), set()
        if self.comm.rank == 0:
            names = self.journal.names(f"phase-{number:03}-part-")
            found = [part for part in map(self.journal.read, names) if part]
            for arrays, facts in sorted(found, key=lambda part: -len(part[1]["done"])):
                if done.isdisjoint(facts["done"]):
                    sums.exponents = facts["exponents"]
                    sums.merge(arrays)
                    done |= set(facts["done"])
            if done:
                self.save_part(number, sums, done)
                self.journal.remove([name for name in names if name != self.part_name(number)])
        sums.exponents, done = self.comm.share((sums.exponents, done))
        return sums, done

    def part_name(self, number):
        return f"phase-{number:03}-part-{self.comm.rank:05}.npz"

    def save_part(self, number, sums, done):
        self.journal.write(self.part_name(number), sums.arrays, {"exponents": sums.exponents, "done": sorted(done)})

    def finish(self, number, kind, sums):
        by_layer = {}
        for key in sorted(set().union(*self.comm.gather(list(sums.arrays)))):
            by_layer.setdefault(key.rpartition(".")[0], []).append(key)
        for layer in self.layers:
            keys = by_layer.get(layer.key, [])
            for key in keys if self.comm.size > 1 else ():
                sums.arrays[key] = self.comm.add(sums.arrays.get(key, np.zeros(self.shape_of(layer, key), np.int64)))
            names = dict.fromkeys(key.partition("@")[0] if "@" in key.rpartition(".")[2] else key for key in keys)
            self.store(kind, layer, {name.rpartition(".")[2]: sums.take(name) for name in names})
        if self.comm.rank == 0:
            self.journal.write(f"phase-{number:03}.npz", self.results, {"phase": number})
            old = [n for n in self.journal.names("phase-") if n != f"phase-{number:03}.npz"]
            self.journal.remove(old)
        self.comm.wait()

    def shape_of(self, layer, name):
        blocks = factors.blocks_of(layer.rows, self.block_of(layer))
        return {"gram": (layer.columns, layer.columns), "rows": (layer.rows,), "positions": (1,), "weights": (layer.rows, layer.columns),
                "outer": (blocks, self.block_of(layer), self.block_of(layer))}[name.rsplit(".", 1)[1].partition("@")[0]]

    def store(self, kind, layer, total):
        """Sums to means, as float32."""
        if not total:
            return
        for name in set(total) & {"gram", "outer"}:
            total[name] = (total[name] + total[name].swapaxes(-1, -2)) / 2  # products leave the last bit to chance
        put = lambda name, values: self.results.__setitem__(f"{layer.key}.{name}", np.ascontiguousarray(values, np.float32))
        if kind == "outer":
            put("outer", total["outer"] / (self.samples * layer.columns))
        elif kind == "gram":
            put("gram", total["gram"] / (self.samples * layer.rows))
        else:
            # of a linear layer E[x x^T]; an embedding has no x: trace 1, so that `rows` (and `outer`) alone hold its squared gradients
            gram = total["gram"] / (total["positions"][0] if "positions" in total else max(np.trace(total["gram"]), 1e-300))
            put("gram", gram)
            put("columns", gram.diagonal())
            put("rows", total["rows"] / self.samples)
            for name in ("weights", "outer"):
                if name in total:
                    put(name, total[name] / self.samples)


def check_layout(subject, probe):
    """Whether batches of several sequences keep them apart in every layer; `probe` is a batch of two."""
    try:
        with torch.no_grad(), Capture(subject.layers(), subject.parameters, probe.sequences):
            subject.run(probe)
        return True
    except Mixed:
        return False
