"""What a run will cost, from shapes alone: products, memory per rank, bytes of the file; seconds at a measured rate."""
import os
import time

from .factors import blocks_of
from .progress import length

SHARE = .3  # of the rate of large products that whole passes reached on small models


def rate():
    """Multiplications a second of one product of 512 x 512, measured over a tenth of a second of processor time."""
    import torch
    one = torch.rand(512, 512)
    one @ one
    begin, count = time.process_time(), 0
    while time.process_time() - begin < .1:
        one @ one
        count += 1
    return count * 512 ** 3 / (time.process_time() - begin)


def resident():
    """Bytes of this process now, the model among them."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Cost:
    """rounds: of the fit; 0 for token averages of both sides, None without F."""

    def __init__(self, batches, layers, block, rounds, ranks):
        self.rounds, self.ranks, self.layers, self.disk = rounds or 0, ranks, len(layers), 0
        self.sequences = sum(batch.sequences for batch in batches)
        self.samples = sum(batch.samples for batch in batches)
        positions = self.samples / max(1, self.sequences)
        blocks = [min(block, layer.rows) for layer in layers]
        self.model_products = 2 * positions * sum(layer.rows * layer.columns for layer in layers)  # forward, and back to the inputs
        self.fit_products = sum(self.of_layer(layer, positions, own) for layer, own in zip(layers, blocks))
        grams = sum(layer.columns ** 2 for layer in layers)
        outers = sum(blocks_of(layer.rows, own) * own ** 2 for layer, own in zip(layers, blocks)) if rounds is not None else 0
        self.file = 4 * (grams + outers + sum(layer.rows + layer.columns for layer in layers))
        self.memory = resident() + self.of_batch(layers, blocks, positions, max((batch.sequences for batch in batches), default=1)) + \
            int(max(12 * grams + 4 * outers, 12 * outers + 8 * grams) if self.rounds else 16 * (grams + outers))

    @classmethod
    def of_pieces(cls, streamed, batches, block, rounds, ranks):
        """Of a model that is run in pieces: the largest piece's memory, the sum of the rest, a pass forward more."""
        from .capture import layers_of
        subject, pieces = streamed.subject, []
        for number in [*range(len(streamed.blocks)), None]:
            own = [(name, subject.parameters[name]) for name in streamed.names(number)]
            piece = cls(batches, layers_of(own, subject.stacks, subject.apart), block, rounds, ranks)
            largest = max((p.numel() for _, p in own), default=0)
            piece.memory += 4 * sum(p.numel() for _, p in own) + 4 * largest  # one tensor is read and widened at a time
            pieces.append(piece)
        whole = pieces[0]
        for piece in pieces[1:]:
            whole.layers += piece.layers
            whole.file += piece.file
            whole.memory = max(whole.memory, piece.memory)
            whole.model_products += piece.model_products
            whole.fit_products += piece.fit_products
        width = getattr(streamed.module.config, "hidden_size", 0)
        whole.disk = 4 * width * whole.samples * (len(streamed.blocks) + 2)
        return whole

    @staticmethod
    def of_layer(layer, rank, block):
        m, n = layer.rows, layer.columns
        return min(rank * m * n + m * n * n + m * n * block, rank * n * n + rank * rank * (n + m) + rank * m * block)

    @staticmethod
    def of_batch(layers, blocks, positions, sequences):
        """Bytes: activations that autograd keeps (about three times the layers' inputs and outputs), and the largest layer's own work."""
        activations = 3 * sequences * positions * sum(layer.rows + layer.columns for layer in layers)
        own = max((sequences * min(layer.rows * layer.columns * 2, 3 * positions * (positions + layer.rows + layer.columns))
                   + 3 * layer.columns ** 2 + 2 * layer.rows * block for layer, block in zip(layers, blocks)), default=0)
        classes = sequences * positions * max((layer.rows for layer in layers), default=0) * 3
        return int(4 * (activations + own + classes))

    def seconds(self):
        passes = 1 + 2 * self.rounds
        products = self.sequences * (passes * self.model_products + 2 * self.rounds * self.fit_products + self.model_products / 2)
        return products / (rate() * SHARE) / self.ranks

    def text(self):
        disk = f", in pieces, {self.disk / 2 ** 20:,.0f} MB of disk for what passes between them" if self.disk else ""
        return (f"{self.layers} layers, {self.sequences} sequences, {self.samples:,} samples, {1 + 2 * self.rounds} passes: about "
                f"{length(self.seconds())}, {self.memory / 2 ** 20:,.0f} MB of memory per rank, {self.file / 2 ** 20:,.1f} MB of file{disk}")
