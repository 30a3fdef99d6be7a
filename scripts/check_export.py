"""The work of scripts/check-export: see there."""
import argparse
import json
import pathlib
import subprocess
import sys

import environment


def understood():
    ap = argparse.ArgumentParser()
    ap.add_argument("--lmq", required=True)
    ap.add_argument("--work", type=pathlib.Path, required=True)
    ap.add_argument("models", nargs="*", type=pathlib.Path)
    return ap.parse_args()


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import h5py  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

CONFIGURATION = '''from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own"
'''
MODELING = '''from transformers import LlamaForCausalLM
from .configuration_own import OwnConfig
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
'''


def tiny(folder, tied=False, own_code=False, dtype=torch.bfloat16, **save):
    """A Llama of 2 layers with random weights, saved by transformers."""
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        tie_word_embeddings=tied, max_position_embeddings=64)
    model = transformers.LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, **save)
    if own_code:
        (folder / "configuration_own.py").write_text(CONFIGURATION)
        (folder / "modeling_own.py").write_text(MODELING)
        said = json.loads((folder / "config.json").read_text())
        said.update(model_type="own", architectures=["OwnModel"],
                    auto_map={"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"})
        (folder / "config.json").write_text(json.dumps(said))
    return folder


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"check-export: {' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def automatic(folder):
    """The class that transformers takes for a folder."""
    architectures = json.loads((folder / "config.json").read_text()).get("architectures") or [""]
    kind = transformers.AutoModelForCausalLM if "CausalLM" in architectures[0] or "Own" in architectures[0] else transformers.AutoModel
    return kind


def check(lmq, work, model, own_code, options):
    """README's commands on a model's folder; then what transformers makes of the export against the quantized file."""
    quantized, exported = work / (model.name + ".h5"), work / (model.name + "-dequantized")
    run(lmq, "quantize", model, "-o", quantized, "--quiet", *options)
    said = run(lmq, "export", quantized, "--to", "safetensors", "-o", exported, "--source", model)
    opened, loading = automatic(exported).from_pretrained(
        exported, trust_remote_code=own_code, output_loading_info=True, dtype="auto")
    faults = [f"{key} {loading[key]}" for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]]
    state, compared = opened.state_dict(), 0
    with h5py.File(quantized) as file:
        for name, weights in state.items():
            if name not in file:
                continue  # tied: the same weights under another name
            stored = torch.from_numpy(file[name][...]).to(weights.dtype) if file[name].dtype.kind == "f" else None
            if stored is None:
                continue  # kept in a type that NumPy lacks; lmq verify has compared its bytes
            compared += 1
            if not torch.equal(stored, weights.cpu()):
                faults.append(f"{name} differs from the file")
    if compared == 0:
        faults.append("no tensor could be compared")
    with torch.no_grad():
        output = opened(input_ids=torch.arange(1, 9)[None])
    first = output.logits if hasattr(output, "logits") else output[0]
    if not bool(torch.isfinite(first.float()).all()):
        faults.append("the outputs are not finite")
    run(lmq, "verify", quantized, "--against", model)
    print(f"{model.name}: {type(opened).__name__}, {compared} tensors compared, {said.splitlines()[0]}"
          + "".join(f"\n  {fault}" for fault in faults), flush=True)
    return not faults


def check_packed(lmq, work, model):
    """Packed integers: transformers with compressed-tensors gives the logits of the plain export, bit by bit."""
    quantized, plain = work / "packed.h5", work / "plain"
    run(lmq, "quantize", model, "-o", quantized, "--quiet", "--method", "gptq", "--levels", 16, "--group", 32, "--tensor", "*embed*=keep",
        "--tensor", "lm_head*=keep")
    run(lmq, "export", quantized, "--to", "safetensors", "-o", plain, "--source", model)
    expected = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype="auto")
    run(lmq, "export", quantized, "--to", "compressed-tensors", "-o", work / "packed", "--source", model)
    opened = transformers.AutoModelForCausalLM.from_pretrained(work / "packed", dtype="auto")
    ids = torch.arange(1, 33)[None]
    with torch.no_grad():
        same = torch.equal(opened(input_ids=ids).logits, expected(input_ids=ids).logits)
    print(f"compressed-tensors: {'the logits of the plain export' if same else 'other logits than the plain export'}", flush=True)
    return same


def main(a):
    few = ["--bits", "8"]  # tiny models have many bytes of tables
    good = [check(a.lmq, a.work, tiny(a.work / "single"), False, few),
            check(a.lmq, a.work, tiny(a.work / "tied", tied=True), False, few),
            check(a.lmq, a.work, tiny(a.work / "shards", max_shard_size="100KB"), False, few),
            check(a.lmq, a.work, tiny(a.work / "own", own_code=True), True, few)]
    good.append(check_packed(a.lmq, a.work, tiny(a.work / "halves", dtype=torch.float16)))
    good += [check(a.lmq, a.work, model.resolve(), False, ["--bits", "4"]) for model in a.models]
    if not all(good):
        sys.exit(1)
    print("check-export: transformers opens every export")


if __name__ == "__main__":
    main(ARGUMENTS)
