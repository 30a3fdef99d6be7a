"""lmq-calibrate --sequential: layers are coded one group after another, each for what the layers before it have become.

Of a group (q, k, v; o; gate, up; down) the inputs of two models are compared at the same tokens: x_f of the original, x of the one
whose earlier layers are coded. With S = E[x x^T] and C = E[x_f x^T] the weights W of the group should now be
W' = W (C + d)(S + d)^-1, d = .03 of S's mean diagonal; lmq codes W' with the curvature of the original. Groups that are done are files
of the work folder, behind the last of them a run goes on. In the end lmq makes the one file from all W'.
"""
import json
import os
import re
import shutil

import numpy as np
import torch

from . import program
from .errors import INTERRUPTED, USAGE, Failure, Interrupted, say
from .groups import Inputs, groups_of
from .stream import BlockStage, Borders, EndsStage
from .subjects import block_of
from .sums import Sums
from .weights import hdf5_weights, safetensors_weights, shards_of

DAMPING = .03
SLACK = 1 / 64  # bits a weight by which the size may be off before the step moves
FURTHEST = 1  # octaves that the step moves at most
WHICH = ("original", "copy")


def target(weight, gram, cross):
    """W' [rows, columns] float64: W (C + d)(S + d)^-1."""
    shift = DAMPING * gram.diagonal().mean() * np.eye(len(gram))
    if not shift.any():
        return weight
    return np.linalg.solve(gram + shift, (weight @ (cross + shift)).T).T


def moved(weight, gram, cross, rows_are_inputs):
    """W' in the shape and type of W."""
    matrix = weight.double().reshape(weight.shape[0], -1).numpy()
    found = target(matrix.T if rows_are_inputs else matrix, gram, cross)
    return torch.from_numpy(np.ascontiguousarray(found.T if rows_are_inputs else found)).reshape(weight.shape).to(weight.dtype)


def pattern(name):
    """A recipe's pattern that fits this text alone."""
    return re.sub(r"([\\*?\[])", r"\\\1", name)


class Overlay:
    """Tensors of the checkpoint by name, those that are coded in place of their own."""

    def __init__(self, source):
        self.source, self.coded = source, {}

    def __getitem__(self, name):
        return (self.coded.get(name) or self.source)[name]


class Stage:
    """A block, or the ends for None, with the weights of both models."""

    def __init__(self, run, block):
        self.run, self.block = run, block
        self.original = self.load("original", None)
        self.layers = [layer for layer in self.original.layers() if layer.key in run.names]
        self.reload()

    def load(self, which, weights):
        words = (self.run.streamed, self.run.borders[which])
        return EndsStage(*words, weights=weights) if self.block is None else BlockStage(*words, self.block, weights=weights)

    def reload(self):
        self.copy = self.load("copy", self.run.overlay)

    def stage_of(self, which):
        """With its weights in the module."""
        stage = self.original if which == "original" else self.copy
        for name, parameter in stage.parameters.items():
            self.run.streamed.put(name, parameter)
        return stage

    @torch.no_grad()
    def forward(self, which, batch, only=()):
        """(output, inputs of the layers with keys in `only`; of all for None)."""
        stage = self.stage_of(which)
        with Inputs(self.layers, stage.parameters, batch.sequences, only) as inputs:
            output = stage.run(batch)
        return output, inputs.seen


class Sequential:
    """arguments: of the command; streamed: the model in pieces; statistics: path of its statistics."""

    # More than 5 parameters: the parts that the stages work with, each kept as it is.
    def __init__(self, arguments, comm, streamed, batches, statistics, journal, clock, progress):
        self.arguments, self.comm, self.streamed, self.batches, self.statistics = arguments, comm, streamed, batches, statistics
        self.journal, self.clock, self.progress = journal, clock, progress
        self.program = program.find(arguments.lmq)
        self.borders = {which: Borders(self.path(f"{which}-{journal.identity[:16]}")) for which in WHICH}
        self.overlay = Overlay(safetensors_weights(streamed.path))
        self.groups, self.steps, self.excess = [], [], 0  # [(file, names)], [(pattern, step)], bytes more than in the plain file
        self.positions = sum(batch.inputs["input_ids"].numel() for batch in batches)

    def path(self, name):
        return os.path.join(self.journal.folder, name)

    def run(self):
        """Errors: Interrupted; Failure (lmq's own, numbers that are not finite, a full disk)."""
        self.plain()
        front = self.ends_before()
        for block in range(len(self.streamed.blocks)):
            self.one_block(block)
        self.ends_behind(front)
        self.last()

    # ----------------------------------------------------------------------------------------------------- with lmq

    def quantize(self, source, output, *words):
        """Rank 0 runs lmq with the processors of all ranks, the others rest. Its failure is everybody's."""
        failed = None
        if self.comm.rank == 0:
            try:
                threads = self.arguments.threads * self.comm.size
                program.call(self.program, ["quantize", source, "-o", output, "--threads", threads, "--quiet",
                                            "--importance", self.statistics, *words], self.clock.stop)
            except Interrupted:
                failed = INTERRUPTED, ""
            except Failure as error:
                failed = error.code, str(error)
        self.comm.rest()
        failed = self.comm.share(failed)
        if failed:
            raise Interrupted if failed[0] == INTERRUPTED else Failure(*failed)

    def known(self, name):
        """Facts of what was done before, on all ranks; None where it was not."""
        found = self.journal.read(f"{name}.npz") if self.comm.rank == 0 else None
        return self.comm.share(found[1] if found else None)

    def keep(self, name, facts):
        if self.comm.rank == 0:
            self.journal.write(f"{name}.npz", {}, facts)
        self.comm.wait()
        return facts

    def plain(self):
        """The file without sequence: its recipe, steps and sizes are this run's plan."""
        path = self.path("plain.h5")
        if self.known("plain") is None:
            self.progress.sweep("the plain file", 0)
            shards = shards_of(self.streamed.path)
            self.quantize(shards[0] if len(shards) == 1 else self.streamed.path, path, "--bits", self.arguments.bits, "--method", "waterfill")
            self.keep("plain", {})
        found = program.steps_and_bytes(path)
        steps = sorted(step for step, _ in found.values() if step)
        if not steps:
            raise Failure(USAGE, f"{self.streamed.path}: no tensor is coded by waterfill")
        self.recipe, self.bytes = program.recipe_of(path), {name: size for name, (_, size) in found.items()}
        self.step = self.base = steps[len(steps) // 2]
        names = self.streamed.subject.checkpoint
        layers = [layer for layer in self.streamed.subject.layers() if layer.expert is None and names.get(layer.name) in self.bytes]
        self.names = {layer.key: names[layer.name] for layer in layers}  # experts of stacks stay as they are
        self.layers = {layer.key: layer for layer in layers}
        self.left = sum(layer.rows * layer.columns for layer in layers)

    def rule(self, match, step=None):
        return {**self.recipe["rules"][-1], "match": match, **({"step": float(step)} if step else {})}

    def write_recipe(self, name, rules, **more):
        if self.comm.rank == 0:
            body = {key: value for key, value in self.recipe.items() if not key.startswith("target_")}
            with open(self.path(name), "w", encoding="utf-8") as file:
                json.dump({**body, "rules": [*self.recipe["rules"][:-1], *rules], **more}, file)
        return self.path(name)

    # ----------------------------------------------------------------------------------------------------- a group

    def one_group(self, stage, layers, shared):
        """Codes the layers. shared: key -> (key of the sums that are its own, whether inputs lie along its rows); of a layer that
        has none the weights are coded as they are."""
        name = f"group-{len(self.groups):05}"
        facts = self.known(name)
        if facts is None:
            sums = self.collect(stage, layers, shared) if shared else {}
            if self.comm.rank == 0:
                self.write_targets(name, layers, shared, sums)
            recipe = self.write_recipe(f"{name}.json", [self.rule("*", self.step)])
            self.comm.wait()
            self.quantize(self.path(f"{name}.safetensors"), self.path(f"{name}.h5"), "--recipe", recipe)
            found = program.steps_and_bytes(self.path(f"{name}.h5"))
            facts = self.keep(name, {"more": sum(size - self.bytes[own] for own, (_, size) in found.items())})
        self.excess += facts["more"]
        self.left -= sum(layer.rows * layer.columns for layer in layers)
        names = [self.names[layer.key] for layer in layers]
        self.overlay.coded.update(dict.fromkeys(names, hdf5_weights(self.path(f"{name}.h5"), self.program)))
        self.groups.append((name, names))
        if stage:
            stage.reload()

    def write_targets(self, name, layers, shared, sums):
        from safetensors.torch import save_file
        out = {}
        for layer in layers:
            own = self.names[layer.key]
            out[own] = self.overlay.source[own]
            if layer.key in shared:
                first, rows_are_inputs = shared[layer.key]
                out[own] = moved(out[own], sums[f"{first}.gram"], sums[f"{first}.cross"], rows_are_inputs)
        path = self.path(f"{name}.safetensors")
        if os.path.exists(path):
            os.remove(path)  # of another run; it may have a second name
        save_file({own: values.contiguous() for own, values in out.items()}, path, {"format": "pt"})

    def collect(self, stage, layers, shared):
        """KEY.gram and KEY.cross: S and C of each input, means over all positions, on all ranks."""
        wanted = {first for first, _ in shared.values()}
        sums, mine = Sums(most_batches=len(self.batches)), self.batches[self.comm.rank::self.comm.size]
        self.progress.sweep(f"group {len(self.groups) + 1}, {', '.join(layer.key for layer in layers)}", len(mine))
        stopped = False
        for at, batch in enumerate(mine or [None]):
            found = self.products(stage, wanted, batch) if batch else {}
            if at == 0:  # the steps of the integers are those of batch 0
                sums.agree(self.comm.share({name: float(np.abs(values).max()) for name, values in found.items()}))
            for name, values in found.items():
                sums.add(name, values, f"batch {batch.number}")
            self.progress.batch()
            stopped = stopped or self.clock.stop()
            if stopped:
                break
        self.stop_together(stopped)
        return {name: values / self.positions for name, values in self.total(sums).items()}

    def products(self, stage, wanted, batch):
        seen = {which: stage.forward(which, batch, wanted)[1] for which in WHICH}
        out = {}
        for key, copy in seen["copy"].items():
            x, original = copy.joined(), seen["original"][key].joined()
            out[f"{key}.gram"], out[f"{key}.cross"] = (x.T @ x).numpy(), (original.T @ x).numpy()
        return out

    def total(self, sums):
        """Sums of all ranks."""
        shapes = {}
        for part in self.comm.gather({name: values.shape for name, values in sums.arrays.items()}):
            shapes.update(part)
        for name in sorted(shapes):
            sums.arrays[name] = self.comm.add(sums.arrays.get(name, np.zeros(shapes[name], np.int64)))
        return {name: sums.take(name) for name in sorted({name.partition("@")[0] for name in shapes})}

    def stop_together(self, stopped):
        if self.comm.any(stopped):
            self.comm.wait()
            raise Interrupted

    # -------------------------------------------------------------------------------------------- blocks and ends

    def code(self, stage, layers):
        """All layers of a stage, in the order of their use. Returns the keys of each group."""
        seen = stage.forward("copy", self.batches[0], None)[1]
        groups, others = groups_of(layers, seen, self.batches[0].inputs["input_ids"].numel())
        shared, known = {}, {}
        for key, found in seen.items():
            first = known.setdefault(tuple(id(source) for source in found.sources), key)
            shared[key] = (first, found.rows_are_inputs)
        del seen
        if others:
            self.one_group(stage, others, {})
        for group in groups:
            self.one_group(stage, group, {layer.key: shared[layer.key] for layer in group})
        return [[layer.key for layer in group] for group in [others] * bool(others) + groups]

    def again(self, groups):
        """Goes past what an earlier start has done."""
        for keys in groups:
            self.one_group(None, [self.layers[key] for key in keys], {})

    def ends_before(self):
        """Codes the embedding and makes the borders in front of the first block. Returns the names of its parameters."""
        facts = self.known("front")
        if facts is not None:
            self.again(facts["groups"])
            return set(facts["names"])
        stage = Stage(self, None)
        embedding = {id(p) for p in self.streamed.module.get_input_embeddings().parameters()}
        front = {name for name, p in stage.copy.parameters.items() if id(p) in embedding}
        layers = [layer for layer in stage.layers if layer.name in front]
        if layers:
            self.one_group(stage, layers, {})
        self.border(0, lambda which, batch: stage.stage_of(which).front(batch))
        stage.copy.end()
        self.keep("front", {"names": sorted(front), "groups": [[layer.key for layer in layers]] * bool(layers)})
        return front

    def one_block(self, block):
        facts = self.known(f"block-{block:05}")
        if facts is not None:
            self.choose_step([self.layers[key] for keys in facts["groups"] for key in keys])
            self.again(facts["groups"])
        else:
            stage = Stage(self, block)
            self.choose_step(stage.layers)
            groups = self.code(stage, stage.layers)
            self.border(block + 1, lambda which, batch: stage.forward(which, batch)[0])
            stage.copy.end()
            facts = self.keep(f"block-{block:05}", {"groups": groups})
        for key in (key for keys in facts["groups"] for key in keys):
            self.overlay.coded.pop(self.names[key], None)
        if self.comm.rank == 0:
            for which in WHICH:
                self.borders[which].remove("h", block, self.batches)
        self.comm.wait()

    def ends_behind(self, front):
        stage = Stage(self, None)
        layers = [layer for layer in stage.layers if layer.name not in front]
        if layers:
            self.code(stage, layers)
        stage.copy.end()

    @torch.no_grad()
    def border(self, block, make):
        """Activations in front of a block, of both models."""
        stopped = False
        for which in WHICH:
            left = [b for b in self.batches[self.comm.rank::self.comm.size] if not self.borders[which].has("h", block, b)]
            self.progress.sweep(f"{which}, in front of block {block + 1}", len(left))
            for batch in left:
                stopped = stopped or self.clock.stop()
                if stopped:
                    break
                self.borders[which].write("h", block, batch, make(which, batch))
                self.progress.batch()
        self.stop_together(stopped or self.clock.stop())

    def choose_step(self, layers):
        """The step from this block on, so that the whole file gets the size of the plain one."""
        wanted = self.base * 2 ** float(np.clip(8 * self.excess / max(self.left, 1), -FURTHEST, FURTHEST))
        if abs(np.log2(wanted / self.step)) > SLACK:
            self.step = wanted
        begin = next((block_of(self.names[layer.key]) for layer in layers), None)
        if self.step != self.base and begin:
            self.steps.append((pattern(begin) + "*", self.step))

    # ----------------------------------------------------------------------------------------------------- the file

    def last(self):
        """The one file. What is left of the size is the last group's."""
        folder, recipe = self.path("targets"), self.path("recipe.json")
        if self.comm.rank == 0:
            self.write_checkpoint(folder)
        names = [pattern(name) for name in self.groups[-1][1]]
        rules = [*(self.rule(*step) for step in self.steps), self.rule("*", self.base)]
        self.write_recipe("recipe.json", [*map(self.rule, names), *rules], target_bits=self.arguments.bits)
        self.comm.wait()
        self.progress.sweep("the file", 0)
        try:
            self.quantize(folder, self.arguments.output, "--recipe", recipe)
        except Failure as error:
            if error.code != USAGE:
                raise
            # All layers get another step then; their targets stay.
            self.write_recipe("recipe.json", [self.rule("*")], target_bits=self.arguments.bits)
            self.quantize(folder, self.arguments.output, "--recipe", recipe)
            if self.comm.rank == 0:
                say("lmq-calibrate", "the last group alone could not make up for what the others took: all layers were coded once more, at one "
                    "step for this size")

    def write_checkpoint(self, folder):
        """All W' and what is not coded, as a checkpoint: the groups' files under a second name, the rest, the model's own json files."""
        from safetensors.torch import save_file
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        places = {}
        for group, names in self.groups:
            os.link(self.path(f"{group}.safetensors"), os.path.join(folder, f"{group}.safetensors"))
            places.update(dict.fromkeys(names, f"{group}.safetensors"))
        rest = {name: self.overlay.source[name].contiguous() for name in self.overlay.source if name not in places}
        save_file(rest, os.path.join(folder, "rest.safetensors"), {"format": "pt"})
        places.update(dict.fromkeys(rest, "rest.safetensors"))
        with open(os.path.join(folder, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
            json.dump({"metadata": {}, "weight_map": places}, file)
        source = os.path.dirname(shards_of(self.streamed.path)[0])
        for name in ("config.json", "hf_quant_config.json"):
            if os.path.exists(os.path.join(source, name)):
                shutil.copyfile(os.path.join(source, name), os.path.join(folder, name))
