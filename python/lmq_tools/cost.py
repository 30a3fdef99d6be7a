"""What a run will cost, from shapes alone: products, memory per rank, bytes of the file; seconds at a measured rate."""
import time

from .factors import blocks_of
from .progress import length

OWN = 450 << 20  # Python with torch and transformers
LOSS = .6  # share of the rate of large products that whole passes reach


def rate():
    """Multiplications a second of one product of 512 x 512, measured over a tenth of a second."""
    import torch
    one = torch.rand(512, 512)
    one @ one
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < .1:
        one @ one
        count += 1
    return count * 512 ** 3 / (time.perf_counter() - begin)


class Cost:
    def __init__(self, subject, batches, layers, block, rounds, outer, ranks):
        self.rounds, self.ranks, self.layers = rounds if outer else 0, ranks, len(layers)
        self.sequences = sum(batch.sequences for batch in batches)
        self.samples = sum(batch.samples for batch in batches)
        positions = self.samples / max(1, self.sequences)
        weights = sum(p.numel() for p in subject.parameters.values())
        share = lambda layer: layer.rows * layer.columns
        self.model_products = 2 * positions * sum(map(share, layers))  # forward, and back to the inputs
        self.fit_products = sum(self.of_layer(layer, positions, min(block, layer.rows)) for layer in layers)
        grams = sum(layer.columns ** 2 for layer in layers)
        outers = sum(blocks_of(layer.rows, min(block, layer.rows)) * min(block, layer.rows) ** 2 for layer in layers)
        self.file = 4 * (grams + (outers if outer else 0) + sum(layer.rows + layer.columns for layer in layers))
        classes = max((layer.rows for layer in layers), default=1)
        largest = max((batch.sequences for batch in batches), default=1)
        activations = largest * positions * (4 * sum(layer.rows + layer.columns for layer in layers) + 5 * classes * 4)
        sides = max(8 * grams + 4 * outers, 8 * outers + 4 * grams) if self.rounds else 8 * (grams + outers * outer)
        self.memory = int(OWN + 4 * weights + activations + sides + 12 * max((layer.columns ** 2 for layer in layers), default=0))

    @staticmethod
    def of_layer(layer, rank, block):
        m, n = layer.rows, layer.columns
        return min(rank * m * n + m * n * n + m * n * block, rank * n * n + rank * rank * (n + m) + rank * m * block)

    def seconds(self):
        passes = 1 + 2 * self.rounds
        products = self.sequences * (passes * self.model_products + 2 * self.rounds * self.fit_products + self.model_products / 2)
        return products / (rate() * LOSS) / self.ranks

    def text(self):
        return (f"{self.layers} layers, {self.sequences} sequences, {self.samples:,} samples, {1 + 2 * self.rounds} passes: about "
                f"{length(self.seconds())}, {self.memory / 2 ** 20:,.0f} MB of memory per rank, {self.file / 2 ** 20:,.1f} MB of file")
