"""The installed package `lmq` on a model made here: called by scripts/check-python."""
import os
import subprocess
import sys

import numpy as np

PEAK = 1.15  # of the dequantized model, beside what the libraries take
CHILD = """
import sys, torch, transformers, lmq
def memory(word):
    with open("/proc/self/status") as file:
        return 1024 * int(next(line for line in file if line.startswith(word)).split()[1])
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
transformers.LlamaForCausalLM(transformers.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8))
first = lmq.state_dict(sys.argv[3])
before = memory("VmRSS")
model = getattr(transformers, config.architectures[0]).from_pretrained(None, config=config, state_dict=first, dtype=torch.bfloat16)
grown = memory("VmHWM") - before
size = sum(p.numel() * p.element_size() for p in model.parameters())
from safetensors.torch import load_file
other = load_file(sys.argv[2])
same = all(torch.equal(p, other[name]) for name, p in model.named_parameters())
print(grown, size, int(same))
"""


def expect(what, holds):
    print(f"{'ok  ' if holds else 'MISS'}  {what}", flush=True)
    if not holds:
        sys.exit(1)


def model_of(folder):
    """A llama of 216 million weights, a third of them in the two largest tensors."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    import transformers
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(1)
    config = LlamaConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=9, num_attention_heads=8, vocab_size=32000,
                         tie_word_embeddings=False, dtype="bfloat16")
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def main():
    work, lmq = sys.argv[1], os.environ["LMQ"]
    folder = model_of(os.path.join(work, "model"))
    ours, exported = os.path.join(work, "model.h5"), os.path.join(work, "exported.safetensors")
    subprocess.run([lmq, "quantize", folder, "-o", ours, "--levels", "16", "--quiet"], check=True)
    subprocess.run([lmq, "export", ours, "--to", "safetensors", "-o", exported, "--quiet"], check=True)
    import lmq
    here = os.path.dirname(lmq.__file__)
    expect("the package is the installed one, with its plug-in", here.startswith(work) and os.path.isfile(os.path.join(here, "libh5zlmq.so")))
    name = "model.layers.0.mlp.up_proj.weight"
    import h5py
    with h5py.File(ours) as file, lmq.load(ours) as lazy:
        expect("h5py reads a quantized tensor as the package does", np.array_equal(file[name][()], lazy[name].floats()))
    codes, book = lmq.codes(ours, name)
    with lmq.load(ours) as lazy:
        expect("codes and codebook are the values", np.array_equal(book[codes], lazy[name].floats()))
    said = subprocess.run([sys.executable, "-c", CHILD, folder, exported, ours], capture_output=True, text=True, check=False)
    if said.returncode:
        expect(said.stderr[-800:], False)
    grown, size, same = map(int, said.stdout.split()[-3:])
    expect("the streamed model is the export, bit for bit", same)
    expect(f"peak {grown:,} bytes, {grown / size:.3f} of the model's {size:,}", grown <= PEAK * size)


if __name__ == "__main__":
    main()
