"""Models larger than memory: one block of layers at a time from the safetensors shards, activations and gradients at the blocks' borders
on disk.

The model's own code is run with its weights on torch's meta device; only the block in hand (or the ends: embedding, last norm, head) has
numbers. Block i is called with the arguments that the model's own forward gives it, on the border file of block i - 1's output.
"""
import itertools
import os

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .capture import layers_of, leaves_of
from .errors import IO, UNSUPPORTED, Failure, Interrupted
from .subjects import Subject, checkpoint_names, config_of, expert_parts, kind_of, shapes_of


class Reached(Exception):
    """The block whose arguments are wanted was called."""


class meta_parameters:
    """Within it parameters of new modules have shapes but no numbers; buffers have theirs."""

    def __enter__(self):
        self.old = torch.nn.Module.register_parameter

        def register(module, name, parameter):
            if parameter is not None and parameter.device.type != "meta":  # a tied one stays itself
                parameter = torch.nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
            self.old(module, name, parameter)
        torch.nn.Module.register_parameter = register

    def __exit__(self, *_):
        torch.nn.Module.register_parameter = self.old


def empty_model(path, kind):
    """(kind, module) with parameters on the meta device."""
    import transformers
    transformers.utils.logging.set_verbosity_error()
    config = config_of(path)
    kind = kind or kind_of(config)
    maker = {"causal": transformers.AutoModelForCausalLM, "masked": transformers.AutoModelForMaskedLM, "encoder": transformers.AutoModel}[kind]
    options = {"experts_implementation": "eager"} if any(hasattr(config, f"{word}_experts") for word in ("num", "num_local", "n_routed")) else {}
    with meta_parameters():
        module = maker.from_config(config, dtype=torch.float32, **options)
    module.config.use_cache = False
    return kind, module


class Streamed:
    """The model in pieces. blocks: names of its repeated layers."""

    def __init__(self, path, kind=None):
        self.path = path
        self.kind, self.module = empty_model(path, kind)
        everything = list(self.module.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in reversed(everything)}
        self.tied = [(first[id(p)], name) for name, p in everything if first[id(p)] != name]
        self.subject = Subject(self.kind, self.module, path)  # of shapes: names, layers, cost
        shapes = shapes_of(path)
        self.subject.checkpoint = checkpoint_names(self.subject.parameters, shapes, self.tied)
        self.subject.apart = {name: parts for name in self.subject.stacks if name not in self.subject.checkpoint and
                              (parts := expert_parts(name, tuple(self.subject.parameters[name].shape), shapes))}
        self.blocks = self.find_blocks()
        self.modules = dict(self.module.named_modules())
        missing = [name for name in self.subject.parameters if name not in self.subject.checkpoint and name not in self.subject.apart]
        if missing:
            raise Failure(UNSUPPORTED, f"{path}: {len(missing)} tensors of {type(self.module).__name__} are not in the checkpoint as they are, "
                          f"the first {missing[0]}: the model cannot be run in pieces")

    def find_blocks(self):
        """Names of the modules in the largest list of equal ones."""
        lists = {name: m for name, m in self.module.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) > 1
                 and len({type(part) for part in m}) == 1}
        if not lists:
            raise Failure(UNSUPPORTED, f"{self.path}: {type(self.module).__name__} has no list of equal blocks: it cannot be run in pieces")
        name = max(lists, key=lambda n: sum(p.numel() for p in lists[n].parameters()))
        return [f"{name}.{k}" for k in range(len(lists[name]))]

    def names(self, block):
        """Parameters of a block; of the ends for None."""
        inside = lambda name: any(name.startswith(f"{own}.") for own in (self.blocks if block is None else [self.blocks[block]]))
        return [name for name in self.subject.parameters if inside(name) != (block is None)]

    def load(self, block, weights=None):
        """Numbers for the parameters of a block or of the ends, from files that are closed again; or of `weights` by their names there."""
        from .weights import safetensors_weights
        weights = weights if weights is not None else safetensors_weights(self.path)
        for name in self.names(block):
            if name in self.subject.apart:
                values = torch.stack([torch.cat([weights[own].float() for _, _, own in parts]) for parts in self.subject.apart[name]])
            else:
                values = weights[self.subject.checkpoint[name]].float()
            self.put(name, torch.nn.Parameter(values, requires_grad=False))

    def unload(self, block):
        for name in self.names(block):
            self.put(name, torch.nn.Parameter(self.subject.parameters[name].to("meta"), requires_grad=False))

    def put(self, name, parameter):
        self.subject.parameters[name] = parameter
        for target in [name] + [other for own, other in self.tied if own == name]:
            parent, _, leaf = target.rpartition(".")
            setattr(self.modules[parent], leaf, parameter)

    def arguments_of(self, block, batch, width):
        """What the model's own forward gives block number `block` beside the hidden states."""
        found = {}

        def stub(number):
            def forward(hidden, *args, **kwargs):
                if number == block:
                    found.update(args=args, kwargs=kwargs)
                    raise Reached
                return hidden
            return forward
        inputs = batch.inputs
        if self.kind == "causal":  # the arguments depend on shapes alone: the embedding need not be there
            inputs = {"inputs_embeds": torch.zeros(*batch.inputs["input_ids"].shape, width)}
        with Stubs(self, stub), torch.no_grad(), Zeros():
            try:
                self.module(**inputs)
            except Reached:
                pass
        return found["args"], found["kwargs"]


class Zeros(TorchFunctionMode):
    """Within it parameters that are not loaded are zeros, without memory."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        there = lambda value: torch.zeros((), dtype=value.dtype).expand(value.shape) if isinstance(value, torch.Tensor) and value.is_meta else value
        return function(*map(there, args), **{name: there(value) for name, value in (kwargs or {}).items()})


class Stubs:
    """Within it the blocks' forward is that of make(number)."""

    def __init__(self, streamed, make):
        self.blocks = [streamed.modules[name] for name in streamed.blocks]
        self.make = make

    def __enter__(self):
        for number, block in enumerate(self.blocks):
            block.forward = self.make(number)

    def __exit__(self, *_):
        for block in self.blocks:
            del block.forward


class Borders:
    """Files of activations h-BLOCK-BATCH and gradients g-BLOCK-BATCH: input of block BLOCK, and the gradient there."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, kind, block, batch):
        return os.path.join(self.folder, f"{kind}-{block:05}-{batch.number:07}.npy")

    def has(self, kind, block, batch):
        return os.path.exists(self.path(kind, block, batch))

    def read(self, kind, block, batch):
        return torch.from_numpy(np.load(self.path(kind, block, batch)))

    def write(self, kind, block, batch, values):
        path = self.path(kind, block, batch)
        try:
            os.makedirs(self.folder, exist_ok=True)
            with open(f"{path}.partial", "wb") as file:
                np.save(file, values.detach().numpy())
            os.replace(f"{path}.partial", path)
        except OSError as error:
            raise Failure(IO, f"{path}: {error.strerror}; what was saved before stays, run the same command again") from None

    def remove(self, kind, block, batches):
        for batch in batches:
            if self.has(kind, block, batch):
                os.remove(self.path(kind, block, batch))


class BlockStage:
    """A block as the subject of a fit."""

    def __init__(self, streamed, borders, block, weights=None):
        self.streamed, self.borders, self.block = streamed, borders, block
        streamed.load(block, weights)
        names = set(streamed.names(block))
        self.parameters = {name: p for name, p in streamed.subject.parameters.items() if name in names}

    def layers(self):
        return layers_of(self.parameters.items(), self.streamed.subject.stacks, self.streamed.subject.apart)

    def run(self, batch):
        self.hidden = self.borders.read("h", self.block, batch).requires_grad_(torch.is_grad_enabled())
        args, kwargs = self.streamed.arguments_of(self.block, batch, self.hidden.shape[-1])
        output = self.streamed.modules[self.streamed.blocks[self.block]](self.hidden, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output

    def backward(self, output, batch, seed):
        output.backward(self.borders.read("g", self.block + 1, batch))
        if not self.borders.has("g", self.block, batch):
            self.borders.write("g", self.block, batch, self.hidden.grad)
        self.hidden = None

    def end(self):
        self.streamed.unload(self.block)


class EndsStage:
    """Embedding, what stands before and behind the blocks, and the head: the blocks are the border files."""

    block = None

    def __init__(self, streamed, borders, weights=None):
        self.streamed, self.borders, self.last = streamed, borders, len(streamed.blocks)
        streamed.load(None, weights)
        names = set(streamed.names(None))
        self.parameters = {name: p for name, p in streamed.subject.parameters.items() if name in names}

    def layers(self):
        return layers_of(self.parameters.items(), self.streamed.subject.stacks, self.streamed.subject.apart)

    def front(self, batch):
        """The first block's input."""
        kept = []

        def stub(_):
            def forward(hidden, *__, **___):
                kept.append(hidden)
                raise Reached
            return forward
        with Stubs(self.streamed, stub):
            try:
                self.streamed.module(**batch.inputs)
            except Reached:
                pass
        return kept[0]

    def run(self, batch):
        behind = self.borders.read("h", self.last, batch).requires_grad_(torch.is_grad_enabled())
        self.behind, self.before = behind, None

        def stub(number):
            def forward(hidden, *_, **__):
                self.before = hidden if number == 0 else self.before
                return behind if number == self.last - 1 else hidden
            return forward
        with Stubs(self.streamed, stub):
            output = self.streamed.module(**batch.inputs)
        return getattr(output, "last_hidden_state" if self.streamed.kind == "encoder" else "logits", output)

    def backward(self, output, batch, seed):
        pull = self.streamed.subject.pull(output, batch, seed)
        if self.borders.has("g", 0, batch) and self.before.requires_grad:
            torch.autograd.backward([output, self.before], [pull, self.borders.read("g", 0, batch)])
        else:
            output.backward(pull)
        if not self.borders.has("g", self.last, batch):
            self.borders.write("g", self.last, batch, self.behind.grad)
        self.before = self.behind = None

    def end(self):
        self.streamed.unload(None)


# ------------------------------------------------------------------------------------------------------------ the run

class StreamedRun:
    """make_fit(stage, journal name) -> Fit. Stages end in `stage-N.npz` of the work folder."""

    # More than 5 parameters: the parts that the stages work with, each kept as it is.
    def __init__(self, streamed, batches, comm, journal, clock, progress, make_fit):
        self.streamed, self.batches, self.comm, self.journal, self.clock = streamed, batches, comm, journal, clock
        self.progress, self.make_fit = progress, make_fit
        self.borders = Borders(os.path.join(journal.folder, f"borders-{journal.identity[:16]}"))
        self.last = len(streamed.blocks)

    def stop_together(self, stopped):
        if self.comm.any(stopped):
            self.comm.wait()
            raise Interrupted

    def sweep(self, text, kind, block, make_stage, work):
        """Runs work(stage, batch) for this rank's batches that have no border file `kind`-`block` yet."""
        left = [b for b in self.batches[self.comm.rank::self.comm.size] if not self.borders.has(kind, block, b)]
        self.progress.sweep(text, len(left))
        stopped = self.clock.stop()
        if left and not stopped:
            stage = make_stage()
            for batch in left:
                work(stage, batch)
                self.progress.batch()
                stopped = self.clock.stop()
                if stopped:
                    break
            stage.end()
        self.stop_together(stopped)

    def forward(self):
        def save(block):
            def work(stage, batch):
                with torch.no_grad():
                    self.borders.write("h", block, batch, stage.front(batch) if block == 0 else stage.run(batch))
            return work
        self.sweep("embedding", "h", 0, lambda: EndsStage(self.streamed, self.borders), save(0))
        for block in range(self.last):
            self.sweep(f"forward, block {block + 1} of {self.last}", "h", block + 1,
                       lambda block=block: BlockStage(self.streamed, self.borders, block), save(block + 1))

    def pull(self, seed):
        """Gradients behind the last block."""
        self.sweep("head", "g", self.last, lambda: EndsStage(self.streamed, self.borders),
                   lambda stage, batch: stage.backward(stage.run(batch), batch, seed))

    def run(self, seed):
        """All stages. Their results are in the journal then."""
        stages = self.stages()
        done = self.comm.share([self.journal.read(self.name(stage)) is not None for stage in stages] if self.comm.rank == 0 else None)
        if not any(done):  # else all border files were there once, and those that are still needed are kept
            self.forward()
            self.pull(seed)
        for number, block in enumerate(stages):
            if not done[number]:
                self.one_stage(number, block, len(stages))

    def stages(self):
        """Blocks from the last to the first, None for the ends."""
        return [*range(self.last - 1, -1, -1), None]

    def results(self):
        """Yields (layers, results) in the order of the model's parameters, neighbours of one stage together."""
        owner = {name: block for block in self.stages() for name in self.streamed.names(block)}
        layers = self.streamed.subject.layers()
        for block, group in itertools.groupby(layers, lambda layer: owner[layer.name]):
            yield leaves_of(group), self.journal.read(self.name(block))[0]

    def name(self, block):
        return f"stage-{'ends' if block is None else f'{block:05}'}.npz"

    def one_stage(self, number, block, count):
        stage = EndsStage(self.streamed, self.borders) if block is None else BlockStage(self.streamed, self.borders, block)
        self.progress.stage("ends" if block is None else f"block {block + 1} of {self.last}", count - number - 1)
        fit = self.make_fit(stage, "ends" if block is None else f"{block:05}")
        results = fit.run()
        if self.comm.rank == 0:
            self.journal.write(self.name(block), results, {})
            fit.journal.remove(fit.journal.names("phase-"))
            if block is not None:
                self.borders.remove("g", block + 1, self.batches)
                self.borders.remove("h", block, self.batches)
        stage.end()
        self.comm.wait()
