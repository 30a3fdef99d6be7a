"""Sees every use of a model's weights while its own code runs: inputs on the way forward, output gradients on the way back.

A use is told by the weight itself (a parameter, a row slice of one, or one expert of a stack), wherever the model's code uses it:
linear, embedding, convolution, matmul. So tied weights, layers used more than once, and weights used outside of torch.nn count.
"""
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class Layer:
    """A matrix [rows, columns] of the checkpoint: a parameter, or one expert of a stack. Columns of convolutions are [in, height, width]."""

    def __init__(self, name, parameter, expert=None):
        self.name, self.expert = name, expert
        shape = parameter.shape if expert is None else parameter.shape[1:]
        self.shape, self.rows, self.columns = tuple(shape), shape[0], shape[1:].numel()
        self.key = name if expert is None else f"{name}[{expert}]"
        self.embedding = False  # set when it was used as one: its gradients are those of rows picked by tokens
        self.parts = []  # (first row, end, Layer) where the checkpoint keeps them apart
        self.reached = False

    @classmethod
    def part(cls, name, rows, columns):
        layer = cls.__new__(cls)
        layer.name = layer.key = name
        layer.shape = (rows, columns)
        layer.expert, layer.rows, layer.columns, layer.embedding, layer.parts, layer.reached = None, rows, columns, False, [], False
        return layer


class Use:
    """One use in one batch: gradient of sequence b is sum over r of g[b, r] x[b, r]^T, at rows `at` and on.
    x [B, R, columns]; g [B, R, rows'], or tokens [B, R] where g is one-hot."""

    def __init__(self, x, g=None, tokens=None, at=0):
        self.x, self.g, self.tokens, self.at = x, g, tokens, at


class Mixed(Exception):
    """The first axis is not that of the sequences: the layer must be fed one sequence at a time."""


def layers_of(named_parameters, stacks=(), apart=None):
    """Layers of all floating parameters of two or more axes. stacks: names of parameters whose first axis counts experts; apart: name ->
    for each expert [(first row, end, name in the checkpoint)]."""
    out = []
    for name, parameter in named_parameters:
        if parameter.dim() < 2 or not parameter.is_floating_point():
            continue
        if name not in stacks:
            out.append(Layer(name, parameter))
            continue
        for expert in range(parameter.shape[0]):
            layer = Layer(name, parameter, expert)
            for first, end, own in (apart or {}).get(name, {expert: []})[expert]:
                layer.parts.append((first, end, Layer.part(own, end - first, layer.columns)))
            out.append(layer)
    return out


def leaves_of(layers):
    """The layers that have statistics of their own: parts in place of what they are parts of."""
    return [leaf for layer in layers for leaf in ([part for _, _, part in layer.parts] or [layer])]


class Capture(TorchFunctionMode):
    """Within it `finished(layer, uses)` is called once per layer and backward pass, when all its gradients are there."""

    def __init__(self, layers, parameters, sequences, finished=None):
        super().__init__()
        self.finished, self.sequences = finished, sequences
        self.by_parameter = {}
        for layer in layers:
            self.by_parameter.setdefault(id(parameters[layer.name]), {})[layer.expert] = layer
        self.waiting, self.uses, self.changed = {}, {}, set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        watch = WATCHED.get(function)
        return out if watch is None else watch(self, out, args, kwargs)

    def place(self, weight):
        """(layer or stack of layers, first row, transposed) of a tensor that is a watched parameter or a view of one."""
        if not isinstance(weight, torch.Tensor):
            return None
        base = weight if id(weight) in self.by_parameter else weight._base
        found = self.by_parameter.get(id(base))
        if found is None:
            return None
        offset = weight.storage_offset() - base.storage_offset()
        if None not in found:  # a stack
            if weight.dim() == 3 and offset == 0 and weight.shape[0] == base.shape[0]:
                return found, 0, weight.stride(-1) != 1
            size = base[0].numel()
            layer, offset = found[offset // size], offset % size
        else:
            layer = found[None]
        if weight.dim() > 2:
            return (layer, 0, False) if weight is base else None
        transposed = weight.stride() == (1, layer.columns) and weight.shape[1] != 1
        columns = weight.shape[0] if transposed else weight.shape[1]
        return (layer, offset // layer.columns, transposed) if columns == layer.columns and offset % layer.columns == 0 else None

    def sequence_axis(self, values, own_axes):
        """[B, R, ...]: all axes between the first and the last `own_axes` become one."""
        if self.sequences == 1:
            return values.reshape(1, -1, *values.shape[values.dim() - own_axes:])
        if values.shape[0] != self.sequences or values.dim() <= own_axes:
            raise Mixed
        return values.reshape(self.sequences, -1, *values.shape[values.dim() - own_axes:])

    def record(self, layer, out, inputs, make):
        """make(gradient) -> uses. Returns the output, on whose gradient it waits."""
        layer.reached = True
        if not torch.is_grad_enabled():
            return out
        if not out.requires_grad:  # the first layer on its path: from here on gradients flow back
            out = out.requires_grad_().clone()
        version = inputs._version
        self.waiting[layer.key] = self.waiting.get(layer.key, 0) + 1

        def arrived(gradient):
            if inputs._version != version:
                self.changed.add(layer.key)
            self.uses.setdefault(layer.key, []).extend(make(gradient.detach()))
            self.waiting[layer.key] -= 1
            if self.waiting[layer.key] == 0:
                self.finish(layer, self.uses.pop(layer.key))
        out.register_hook(arrived)
        return out

    def finish(self, layer, uses):
        if not layer.parts:
            return self.finished(layer, uses)
        for first, end, part in layer.parts:
            part.reached = True
            self.finished(part, [Use(use.x, use.g[:, :, first:end]) for use in uses])
        return None

    def product(self, out, inputs, weight, weight_transposed):
        """out = inputs @ weight^T (linear), or inputs @ weight where weight_transposed."""
        found = self.place(weight)
        if found is None:
            return out
        layer, at, view_transposed = found
        inputs = inputs.detach()
        if isinstance(layer, dict):
            return self.stack_product(out, inputs, layer, view_transposed != weight_transposed)
        x = self.sequence_axis(inputs, 1)

        def make(gradient):
            g = self.sequence_axis(gradient, 1)
            return [Use(g, x, at=at) if view_transposed != weight_transposed else Use(x, g, at=at)]
        return self.record(layer, out, inputs, make)

    def stack_product(self, out, inputs, layers, transposed):
        """[experts, positions, inputs] times a whole stack."""
        if self.sequences != 1:
            raise Mixed
        if inputs.dim() != 3 or len(inputs) != len(layers):
            return out
        parts = []
        for expert, part in enumerate(out.unbind(0)):
            make = lambda gradient, x=inputs[expert][None]: [Use(gradient[None], x) if transposed else Use(x, gradient[None])]
            parts.append(self.record(layers[expert], part, inputs, make))
        return torch.stack(parts)

    def embedding(self, out, tokens, weight):
        found = self.place(weight)
        if found is None:
            return out
        layer = found[0]
        layer.embedding = True
        tokens = self.sequence_axis(tokens.detach(), 0)
        return self.record(layer, out, tokens, lambda gradient: [Use(self.sequence_axis(gradient, 1), tokens=tokens)])

    def convolution(self, out, args, kwargs):
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = {**dict(zip(names, args)), **kwargs}
        found = self.place(given["weight"])
        if found is None:
            return out
        inputs = given["input"].detach()
        if inputs.shape[0] != self.sequences:
            raise Mixed

        def make(gradient):
            x = unfolded(inputs, given)
            g = gradient.flatten(2).transpose(1, 2)
            groups = given.get("groups", 1)
            if groups == 1:
                return [Use(x, g)]
            rows, columns = g.shape[2] // groups, x.shape[2] // groups
            return [Use(x[:, :, q * columns:(q + 1) * columns], g[:, :, q * rows:(q + 1) * rows], at=q * rows) for q in range(groups)]
        return self.record(found[0], out, inputs, make)


def unfolded(inputs, given):
    """Inputs of a convolution as [B, positions, in * height * width]."""
    weight, axes = given["weight"], inputs.dim() - 2
    pairs = lambda value: (value,) * axes if isinstance(value, int) else tuple(value)
    dilation, stride, padding = pairs(given.get("dilation", 1)), pairs(given.get("stride", 1)), given.get("padding", 0)
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, weight.shape[2:])]
        sides = [side for all_of in reversed(total) for side in (all_of // 2, all_of - all_of // 2)]
        inputs, padding = functional.pad(inputs, sides), 0
    kernel, padding = tuple(weight.shape[2:]), pairs(padding)
    if axes == 1:
        inputs, kernel, dilation, padding, stride = inputs[:, :, None], (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
    return functional.unfold(inputs, kernel, dilation, padding, stride).transpose(1, 2)


def argument(args, kwargs, at, name):
    return args[at] if len(args) > at else kwargs.get(name)


def watch_linear(capture, out, args, kwargs):
    return capture.product(out, argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight"), False)


def watch_matmul(capture, out, args, kwargs):
    return capture.product(out, args[0], argument(args, kwargs, 1, "mat2") if len(args) > 1 or "mat2" in kwargs else kwargs.get("other"), True)


def watch_addmm(capture, out, args, kwargs):
    return capture.product(out, args[1], args[2], True) if len(args) > 2 else out


def watch_embedding(capture, out, args, kwargs):
    return capture.embedding(out, argument(args, kwargs, 0, "input"), argument(args, kwargs, 1, "weight"))


WATCHED = {functional.linear: watch_linear, functional.embedding: watch_embedding,
           torch.matmul: watch_matmul, torch.Tensor.matmul: watch_matmul, torch.Tensor.__matmul__: watch_matmul,
           torch.mm: watch_matmul, torch.bmm: watch_matmul, torch.Tensor.mm: watch_matmul, torch.Tensor.bmm: watch_matmul,
           torch.addmm: watch_addmm, torch.baddbmm: watch_addmm,
           functional.conv1d: Capture.convolution, functional.conv2d: Capture.convolution}
