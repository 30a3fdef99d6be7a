"""lmq-calibrate against plain definitions: called by scripts/check-calibrate.

Models are made here (random weights, a few thousand parameters). Each law is one function; the first that does not hold ends the run.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import time

import environment


def understood():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True)
    parser.add_argument("--lmq")
    parser.add_argument("--only", help="one law: llama, others, ranks, stream, targets, sequential, bad_input, evaluate")
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import numpy as np  # noqa: E402
import torch  # noqa: E402

PYTHON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "python")
sys.path.insert(0, PYTHON)
from lmq_tools import subjects  # noqa: E402
from lmq_tools.capture import leaves_of  # noqa: E402
from lmq_tools.fit import Clock, Fit  # noqa: E402
from lmq_tools.journal import Journal  # noqa: E402
from lmq_tools.output import statistics_of  # noqa: E402
from lmq_tools.progress import Progress  # noqa: E402
from lmq_tools.ranks import One  # noqa: E402
from calibrate_command import command, run, sha256  # noqa: E402


def expect(what, holds):
    print(f"{'ok  ' if holds else 'MISS'}  {what}", flush=True)
    if not holds:
        sys.exit(1)


# More than 5 parameters: sizes of the model, by name, all with a default.
def llama(folder, tied, seed=0, layers=2, vocabulary=37, width=24):
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=width, intermediate_size=40, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
                         vocab_size=vocabulary, max_position_embeddings=64, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2,
                         initializer_range=.2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


# More than 5 parameters: settings of a fit, by name where a law changes them.
def fit_of(subject, batches, block, rounds, work, wanted=("outer", "gram", "rows", "columns", "weights"), seed=3):
    layers = subject.layers()
    journal = Journal(work, "check", 0)
    fit = Fit(subject, batches, layers, block, set(wanted), rounds, seed, One(), journal, Clock(journal), Progress("none", 0))
    results = fit.run()
    for name in os.listdir(work):
        os.remove(os.path.join(work, name))
    return fit.layers, results, fit.samples


def sequence_gradients(subject, batches, seed):
    """name -> [sequences, ...shape] by torch's own differentiation of each sequence's summed loss, the same labels."""
    out = {}
    for parameter in subject.parameters.values():
        parameter.requires_grad_(True)
    for batch in batches:
        for one in range(batch.sequences):
            for parameter in subject.parameters.values():
                parameter.grad = None
            output = subject.run(batch)
            pull = subject.pull(output, batch, seed)
            others = torch.arange(batch.sequences) != one
            pull[others] = 0
            output.backward(pull)
            for name, parameter in subject.parameters.items():
                found = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                out.setdefault(name, []).append(found.double().clone())
    for parameter in subject.parameters.values():
        parameter.requires_grad_(False)
    return {name: torch.stack(values).numpy() for name, values in out.items()}


def flip_flop(gradients, start, samples, block, rounds):
    """The definition of docs/calibration.md in numpy, float64."""
    _, m, n = gradients.shape
    cuts = [slice(at, min(at + block, m)) for at in range(0, m, block)]
    gram = start
    for _ in range(rounds):
        inverse = np.linalg.inv(gram + .01 * np.trace(gram) / n * np.eye(n))
        outers = [np.einsum("sij,jk,slk->il", gradients[:, cut], inverse, gradients[:, cut]) / (samples * n) for cut in cuts]
        damping = .01 * sum(map(np.trace, outers)) / m
        gram = sum(np.einsum("sij,ik,skl->jl", gradients[:, cut], np.linalg.inv(outer + damping * np.eye(len(outer))), gradients[:, cut])
                   for cut, outer in zip(cuts, outers)) / (samples * m)
    return outers, gram


def near(found, wanted, tolerance=2e-4):
    scale = np.abs(wanted).max()
    return np.abs(found - wanted).max() <= tolerance * scale


# More than 5 parameters: settings of a fit, by name where a law changes them.
def check_fit(label, subject, batches, work, block=16, rounds=2):
    """Every statistic of every layer of `subject` against its definition from per-sequence gradients."""
    journal = os.path.join(work, "journal")
    gradients = sequence_gradients(subject, batches, 3)
    for name, experts in subject.apart.items():
        for expert, parts in enumerate(experts):
            gradients.update({own: gradients[name][:, expert, first:end] for first, end, own in parts})
    _, begin, _ = fit_of(subject, batches, block, 0, journal, ("gram",))
    layers, results, samples = fit_of(subject, batches, block, rounds, journal)
    for layer in layers:
        whole = gradients[layer.name] if layer.expert is None else gradients[layer.name][:, layer.expert]
        whole = whole.reshape(len(whole), layer.rows, layer.columns)
        if not layer.reached:
            expect(f"{label}: {layer.key} is reached", not whole.any())
            continue
        fair = [near(results[f"{layer.key}.weights"], (whole ** 2).sum(0) / samples)]
        if layer.embedding:
            second = np.einsum("sij,sik->jk", whole, whole)
            fair += [near(results[f"{layer.key}.rows"], (whole ** 2).sum((0, 2)) / samples),
                     near(results[f"{layer.key}.columns"], np.diag(second) / np.trace(second)), near(begin[f"{layer.key}.gram"], second / np.trace(second))]
        outers, gram = flip_flop(whole, begin[f"{layer.key}.gram"].astype(np.float64), samples, min(block, layer.rows), rounds)
        found = results[f"{layer.key}.outer"]
        fair += [near(results[f"{layer.key}.gram"], gram)] + [
            near(found[k][:len(o), :len(o)], o) and not found[k][len(o):].any() for k, o in enumerate(outers)]
        if not all(fair):
            expect(f"{label}: {layer.key} {fair}", False)
    expect(f"{label}: {len(layers)} layers have the fit, squared gradients, rows and columns of their definitions", True)


def token_gram(subject, batches, layer):
    seen = []
    module = dict(subject.module.named_modules())[layer.name.rsplit(".", 1)[0]]
    hook = module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].reshape(-1, layer.columns).double()))
    with torch.no_grad():
        for batch in batches:
            subject.run(batch)
    hook.remove()
    x = torch.cat(seen).numpy()
    return x.T @ x / len(x)


def law_llama(work):
    """Both roads (the gradient itself, rank R), linear layers, tied and separate embeddings, sequences of several lengths."""
    random = np.random.default_rng(5)
    for tied in (True, False):
        subject = subjects.language_model(llama(os.path.join(work, f"llama-{tied}"), tied), None)
        for length in (5, 30):
            pieces = [random.integers(0, 37, length) for _ in range(13)] + [random.integers(0, 37, 3)]
            batches = subjects.token_batches(subject, pieces, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12], [13]], 3)
            check_fit(f"{'tied' if tied else 'two'} embeddings, {length} tokens", subject, batches, work)
        layer = next(layer for layer in subject.layers() if "down_proj" in layer.name)
        _, begin, _ = fit_of(subject, batches, 16, 0, os.path.join(work, "journal"), ("gram",))
        expect("the first Gram matrix is E[x x^T]", near(begin[f"{layer.key}.gram"], token_gram(subject, batches, layer)))
        _, plain, _ = fit_of(subject, batches, 16, 0, os.path.join(work, "journal"), ("gram", "outer"))
        written = dict(statistics_of(plain, subject.layers(), {"gram", "outer", "rows", "columns"}, {}))
        for side, sums in (("outer", "rows"), ("gram", "columns")):
            found = [(written[f"{layer.name}.{side}"].trace(axis1=-2, axis2=-1).sum(), written[f"{layer.name}.{sums}"].sum()) for layer in subject.layers()]
            expect(f"token averages: what is written as {side} has the trace of {sums}, of embeddings, too", all(abs(a / b - 1) < 1e-4 for a, b in found))


def law_others(work):
    """Conv1D (stored transposed), expert stacks, masked models, encoders without a head, convolutions with groups."""
    import transformers as t
    random = np.random.default_rng(6)
    torch.manual_seed(1)
    small = {"vocab_size": 29, "bos_token_id": 1, "eos_token_id": 2}
    gpt = t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=32, **small))
    mixtral = t.MixtralForCausalLM(t.MixtralConfig(hidden_size=16, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                                                   num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=32, **small))
    bert = t.BertConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=32, vocab_size=29)
    for label, model, kind in (("Conv1D", gpt, None), ("expert stack", mixtral, None), ("masked", t.BertForMaskedLM(bert), None),
                               ("encoder", t.BertModel(bert, add_pooling_layer=False), None), ("encoder of a masked model", t.BertForMaskedLM(bert), "encoder")):
        folder = os.path.join(work, label.replace(" ", "-"))
        model.save_pretrained(folder)
        subject = subjects.language_model(folder, kind)
        pieces = [random.integers(3, 29, 9) for _ in range(10)]
        batches = subjects.token_batches(subject, pieces, [[n] for n in range(10)], 3, 2)
        check_fit(label, subject, batches, work)
        stored = subjects.shapes_of(folder)
        named = {subject.checkpoint.get(layer.name, layer.name) for layer in leaves_of(subject.layers())}
        expect(f"{label}: every weight has its name in the checkpoint {sorted(named - set(stored))}", named <= set(stored))
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3, 2, 1), torch.nn.ReLU(), torch.nn.Conv2d(6, 6, 3, padding="same", groups=3), torch.nn.Flatten(1),
                              torch.nn.Linear(6 * 16, 5))
    subject = subjects.Subject("module", net, "net")
    check_fit("convolutions", subject, subjects.module_batches([torch.randn(size, 4, 8, 8) for size in (4, 4, 3)]), work)


def law_ranks(work):
    """The same bytes for 1, 2 and 4 ranks, stopped by time, by a signal to one rank, or killed, and continued with other ranks."""
    model = llama(os.path.join(work, "ranks"), True, layers=3)
    out = lambda name: os.path.join(work, f"{name}.h5")
    settings = ["--sequences", 24, "--window", 32, "--effort", "medium", "--batch", 2, "--progress", "none"]
    done = run(model, "-o", out("one"), *settings)
    expect(f"one rank, sequences drawn from the model {done.stderr[-300:] if done.returncode else ''}", done.returncode == 0)
    for ranks in (2, 4):
        done = run(model, "-o", out(f"r{ranks}"), *settings, ranks=ranks)
        expect(f"the same file from {ranks} ranks", done.returncode == 0 and sha256(out(f"r{ranks}")) == sha256(out("one")))
    starts = 0
    for ranks in (2, 1, 1, 3, *(1,) * 30):
        done = run(model, "-o", out("time"), *settings, "--max-time", .004 * 1.3 ** starts, ranks=ranks)
        starts += 1
        if done.returncode != 75:
            break
    expect(f"--max-time ends with 75; after {starts} starts of 1, 2 or 3 ranks it is the same file {done.stderr[-300:] if done.returncode else ''}",
           starts > 2 and done.returncode == 0 and sha256(out("time")) == sha256(out("one")))
    for name, number in (("term", signal.SIGTERM), ("kill", signal.SIGKILL)):
        law_signal(model, out(name), settings, number)
        done = run(model, "-o", out(name), *settings)
        expect(f"the same file after {name}", done.returncode == 0 and sha256(out(name)) == sha256(out("one")))
    expect("no work folder is left", not [name for name in os.listdir(work) if name.endswith(".work")])


def law_signal(model, out, settings, number):
    """One rank of two gets the signal once a part is saved."""
    process = subprocess.Popen(command(model, "-o", out, *settings, ranks=2), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not [n for n in (os.listdir(f"{out}.work") if os.path.isdir(f"{out}.work") else ()) if "-part-" in n]:
        time.sleep(.02)
    children = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True).stdout.split()
    if children:
        os.kill(int(children[-1]), number)
    process.communicate()
    if number == signal.SIGTERM:
        expect(f"SIGTERM to one rank of two ends both with 75, found {process.returncode}", process.returncode == 75)
    expect("nothing has the final name yet", not os.path.exists(out))


def law_stream(work):
    """A model in pieces gives the file of the whole model, also after stops, with two ranks, and of expert stacks and shards."""
    import transformers as t
    torch.manual_seed(2)
    config = t.MixtralConfig(hidden_size=16, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, vocab_size=37,
                             num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)
    experts = os.path.join(work, "experts")
    t.MixtralForCausalLM(config).save_pretrained(experts, max_shard_size="10KB")
    tokens = os.path.join(work, "stream.u16")
    np.random.default_rng(4).integers(3, 37, 400).astype("<u2").tofile(tokens)
    for label, model in (("tied", llama(os.path.join(work, "streamed"), True, layers=3)), ("expert stacks in shards", experts)):
        settings = [model, "--tokens", tokens, "--window", 16, "--effort", "low", "--batch", 1, "--progress", "none"]
        out = lambda name: os.path.join(work, f"{label.split()[0]}-{name}.h5")
        done = [run(*settings, "-o", out("whole")), run(*settings, "-o", out("pieces"), "--stream", "always"),
                run(*settings, "-o", out("two"), "--stream", "always", ranks=2)]
        expect(f"{label}: in pieces the same file, by two ranks too {[d.stderr[-200:] for d in done if d.returncode]}",
               not any(d.returncode for d in done) and len({sha256(out(n)) for n in ("whole", "pieces", "two")}) == 1)
    starts = 0
    while starts < 30:
        done = run(*settings, "-o", out("stops"), "--stream", "always", "--max-time", .003 * 1.3 ** starts, ranks=1 + (starts == 2))
        starts += 1
        if done.returncode != 75:
            break
    expect(f"after {starts} starts the same file {done.stderr[-300:] if done.returncode else ''}", starts > 2 and sha256(out("stops")) == sha256(out("whole")))


def law_targets():
    """What --sequential codes in place of W: a ridge regression of the original's outputs on the inputs as they are now."""
    from lmq_tools.sequential import DAMPING, moved
    random = np.random.default_rng(5)
    x, weight = random.standard_normal((200, 12)), torch.from_numpy(random.standard_normal((7, 12))).float()
    original = x + .3 * random.standard_normal(x.shape)
    gram, cross = x.T @ x / 200, original.T @ x / 200
    ridge = (200 * DAMPING * np.trace(gram) / 12) ** .5 * np.eye(12)
    wanted = np.linalg.lstsq(np.vstack([x, ridge]), np.vstack([original @ weight.double().numpy().T, ridge @ weight.double().numpy().T]), rcond=None)[0]
    expect("W' is the ridge regression of the original's outputs, drawn to W", near(moved(weight, gram, cross, False).numpy(), wanted.T, 1e-5))
    expect("of a matrix stored the other way round, too", near(moved(weight.T.contiguous(), gram, cross, True).numpy(), wanted, 1e-5))
    expect("unchanged inputs leave W as it is", near(moved(weight, gram, gram, False).numpy(), weight.numpy(), 1e-6))


def law_sequential(work, lmq):
    """--sequential: one file for any ranks and after stops, no larger than it may be; every kind of layer."""
    import transformers as t
    tokens = os.path.join(work, "sequential.u16")
    np.random.default_rng(5).integers(3, 64, 1600).astype("<u2").tofile(tokens)
    torch.manual_seed(6)
    models = {"llama": llama(os.path.join(work, "sequential"), True, layers=2, vocabulary=64, width=48),
              "gpt2": os.path.join(work, "gpt2"), "mixtral": os.path.join(work, "mixtral")}
    t.GPT2LMHeadModel(t.GPT2Config(vocab_size=64, n_positions=64, n_embd=48, n_layer=2, n_head=4)).save_pretrained(models["gpt2"])
    t.MixtralForCausalLM(t.MixtralConfig(
        hidden_size=48, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64, num_local_experts=4,
        num_experts_per_tok=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2)).save_pretrained(models["mixtral"])
    for label, model in models.items():
        out = lambda name: os.path.join(work, f"sequential-{label}-{name}.h5")
        settings = [model, "--sequential", "--bits", 5, "--tokens", tokens, "--window", 32, "--effort", "low", "--batch", 8, "--lmq", lmq, "--progress", "none"]
        done = run(*settings, "-o", out("one"))
        expect(f"{label} is coded in sequence {done.stderr[-300:] if done.returncode else ''}", done.returncode == 0)
        if label != "llama":
            continue
        done = run(*settings, "-o", out("two"), ranks=2)
        expect(f"the same file from two ranks {done.stderr[-300:] if done.returncode else ''}", sha256(out("two")) == sha256(out("one")))
        starts = 0
        while starts < 40:
            done = run(*settings, "-o", out("stops"), "--max-time", .004 * 1.3 ** starts, ranks=1 + (starts == 3))
            starts += 1
            if done.returncode != 75:
                break
        expect(f"after {starts} starts the same file {done.stderr[-300:] if done.returncode else ''}",
               starts > 2 and sha256(out("stops")) == sha256(out("one")))
        size = 8 * os.path.getsize(out("one")) / sum(p.numel() for p in t.AutoModelForCausalLM.from_pretrained(model).parameters())
        expect(f"{size:.3f} bits a weight, at most 5", size <= 5)
        expect("no work folder is left", not os.path.exists(out("one") + ".work"))
    for words, code in ((["--sequential"], 64), (["--bits", 3], 64), (["--sequential", "--bits", 3, "--importance", "none.h5"], 66)):
        done = run(models["llama"], "-o", os.path.join(work, "no.h5"), *words)
        expect(f"{' '.join(map(str, words))}: {done.stderr.strip()[-160:]}", done.returncode == code)


def law_evaluate(work, lmq):
    """lmq-evaluate --check passes what lmq wrote and its export, and names a swapped tensor, a permuted expert, moved rows."""
    from safetensors.torch import load_file, save_file
    import transformers as t
    torch.manual_seed(3)
    model = os.path.join(work, "judged")
    t.LlamaForCausalLM(t.LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=64,
                                     max_position_embeddings=32, tie_word_embeddings=True, bos_token_id=1)).save_pretrained(model)
    quantized, exported = os.path.join(work, "judged.h5"), os.path.join(work, "judged.safetensors")
    subprocess.run([lmq, "quantize", model, "-o", quantized, "--bits", "4", "--progress", "none"], check=True, capture_output=True)
    subprocess.run([lmq, "export", quantized, "--to", "safetensors", "-o", exported], check=True, capture_output=True)
    judge = lambda path, *words: run(path, "--source", model, "--window", 16, "--lmq", lmq, *words, module="evaluate")
    for path in (quantized, exported):
        done = judge(path, "--check", 64)
        expect(f"--check passes {os.path.basename(path)}: {done.stdout.strip()} {done.stderr[-200:]}", done.returncode == 0)
    weights = load_file(exported)
    first, second = (f"model.layers.{k}.mlp.up_proj.weight" for k in (0, 1))
    wrong = {"swapped": {**weights, first: weights[second].clone(), second: weights[first].clone()},
             "rows": {**weights, first: weights[first].roll(1, 0).contiguous()}}
    for label, what in (("swapped", f"it is {second}"), ("rows", "of its rows are others'")):
        path = os.path.join(work, f"{label}.safetensors")
        save_file(wrong[label], path)
        done = judge(path, "--check", 64)
        expect(f"--check finds {label}: {done.stdout.splitlines()[:1]}", done.returncode == 1 and what in done.stdout)
    tokens = os.path.join(work, "judged.u16")
    np.random.default_rng(4).integers(3, 64, 600).astype("<u2").tofile(tokens)
    done = judge(quantized, exported, "--tokens", tokens, "--json")
    if done.returncode:
        expect(f"two files are measured {done.stderr[-600:]}", False)
    found = json.loads(done.stdout)
    alone = run(quantized, "--source", os.path.join(model, "model.safetensors"), "--window", 16, "--lmq", lmq, "--tokens", tokens, "--json", module="evaluate")
    expect(f"a source that is one file of weights gives the same numbers {alone.stderr[-300:]}",
           alone.returncode == 0 and json.loads(alone.stdout)["files"][0] == found["files"][0])
    expect("the file through its filter and its export are the same model",
           found["difference"]["kl"] == {"mean": 0.0, "error": 0.0} and 0 < found["files"][0]["accepted"]["mean"] <= 1)
    expect("a file that is not there ends with 66", judge(os.path.join(work, "none.h5"), "--tokens", tokens).returncode == 66)


def law_bad_input(work):
    model = llama(os.path.join(work, "bad"), False)
    tokens = os.path.join(work, "t.u16")
    out = os.path.join(work, "bad.h5")
    np.full(100, 36, "<u2").tofile(tokens)

    def refused(what, code, *words, say=""):
        done = run(*words, "-o", out)
        lines = [line for line in done.stderr.splitlines() if line.startswith("lmq-calibrate: ")]
        fine = done.returncode == code and lines and say in lines[-1] and not os.path.exists(out)
        expect(f"{what}: {lines[-1] if lines else done.stderr[-300:]}", fine)
    refused("window", 64, model, "--tokens", tokens, "--window", 65, say="sees 64")
    refused("text too short", 65, model, "--tokens", tokens, "--window", 60, say="give 1 sequences")
    refused("no such model", 66, os.path.join(work, "none"), say="no such model")
    refused("memory", 64, model, "--tokens", tokens, "--window", 8, "--memory", "1M", say="bytes are needed")
    np.full(100, 37, "<u2").tofile(tokens)
    refused("vocabulary", 65, model, "--tokens", tokens, say="token 37 at place 0, the vocabulary has 37")
    np.full(100, 36, "<u2").tofile(tokens)
    from safetensors.torch import load_file, save_file
    path = os.path.join(model, "model.safetensors")
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    refused("NaN", 65, model, "--tokens", tokens, "--window", 8, "--progress", "none", say="model.layers.1.mlp.up_proj.weight: batch 0")
    del weights["lm_head.weight"]
    save_file(weights, path, {"format": "pt"})
    refused("a head that is not there", 65, model, "--tokens", tokens, say="lm_head.weight")


def main(arguments):
    torch.set_num_threads(1)
    os.makedirs(os.path.join(arguments.work, "journal"), exist_ok=True)
    os.environ["PYTHONPATH"] = PYTHON
    for law in (law_llama, law_others, law_ranks, law_stream, law_targets, law_sequential, law_bad_input, law_evaluate):
        if not arguments.only or law.__name__ == f"law_{arguments.only}":
            law(*(arguments.work, arguments.lmq)[:law.__code__.co_argcount])


if __name__ == "__main__":
    main(ARGUMENTS)
