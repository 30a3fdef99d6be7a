"""Groups of layers that are coded together in a sequential run: those with the same inputs, in the order in which the model uses them."""
import torch

from .capture import Capture, unfolded
from .output import siblings_pattern


class Seen:
    """Uses of a layer in one batch: inputs [positions, columns], the tensors they came from, and whether they lie along the rows of
    the stored matrix (Conv1D)."""

    def __init__(self, rows_are_inputs):
        self.rows_are_inputs, self.inputs, self.sources = rows_are_inputs, [], []

    def joined(self):
        return torch.cat(self.inputs) if len(self.inputs) > 1 else self.inputs[0]


class Inputs(Capture):
    """Within it every layer's inputs are kept (`seen`, by key, in the order of use); embeddings and whole stacks of experts have none."""

    def __init__(self, layers, parameters, sequences, only=None):
        super().__init__(layers, parameters, sequences)
        self.seen, self.only = {}, only

    def note(self, layer, inputs, matrix, rows_are_inputs=False):
        layer.reached = True
        if self.only is None or layer.key in self.only:
            seen = self.seen.setdefault(layer.key, Seen(rows_are_inputs))
            seen.inputs.append(matrix.reshape(-1, matrix.shape[-1]))
            seen.sources.append(inputs)

    def product(self, out, inputs, weight, weight_transposed):
        found = self.place(weight)
        if found is not None and not isinstance(found[0], dict) and found[1] == 0:
            self.note(found[0], inputs, inputs.detach(), found[2] != weight_transposed)
        return out

    def embedding(self, out, tokens, weight):
        return out

    def convolution(self, out, args, kwargs):
        given = {**dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args)), **kwargs}
        found = self.place(given["weight"])
        if found is not None and given.get("groups", 1) == 1:
            self.note(found[0], given["input"], unfolded(given["input"].detach(), given))
        return out


def groups_of(layers, seen, positions):
    """Lists of layers. Two are of one group when an input tensor is the same, or when their names differ in numbers alone (experts).
    `seen`: of one batch with `positions` positions; what it has not seen, or seen at a part of the positions, keeps its statistics
    (second list of the result)."""
    by_key = {layer.key: layer for layer in layers}
    whole = [key for key in seen if key in by_key and by_key[key].expert is None and len(seen[key].joined()) == positions]
    owner, groups = {}, []
    for key in whole:
        marks = [("source", id(source)) for source in seen[key].sources] + [("name", siblings_pattern(key))]
        found = next((owner[mark] for mark in marks if mark in owner), None)
        if found is None:
            found = []
            groups.append(found)
        found.append(by_key[key])
        owner.update({mark: found for mark in marks})
    return groups, [layer for layer in layers if layer.key not in whole]
