"""Sequences of tokens: cut from token files, from text, or drawn from a model itself. Everything is a function of file and seed."""
import numpy as np

from .errors import MALFORMED, MISSING, UNSUPPORTED, Failure


def read_stream(path, vocabulary, token_bytes=None):
    """Token numbers of a file: .npy, or little-endian integers of 2 bytes (4 above 65,536 tokens). Errors: empty, outside the
    vocabulary (with the place)."""
    try:
        if path.endswith(".npy"):
            stream = np.load(path).reshape(-1)
        else:
            size = token_bytes or (2 if vocabulary <= 1 << 16 else 4)
            stream = np.fromfile(path, {2: "<u2", 4: "<u4"}[size])
    except (OSError, ValueError) as error:
        raise Failure(MISSING, f"{path}: cannot be read: {error}") from None
    return checked(stream.astype(np.int64), vocabulary, path)


def checked(stream, vocabulary, path):
    if len(stream) < 2:
        raise Failure(MALFORMED, f"{path}: {len(stream)} tokens, at least 2 are needed")
    wrong = np.flatnonzero((stream < 0) | (stream >= vocabulary))
    if len(wrong):
        raise Failure(MALFORMED, f"{path}: token {stream[wrong[0]]} at place {wrong[0]}, the vocabulary has {vocabulary} "
                      f"({len(wrong)} of {len(stream)} tokens are outside)")
    return stream


def windows(stream, window, document_token=None):
    """Pieces of `window` tokens. With a document token none goes over one, a document's last may be shorter (2 tokens or more), and
    the first pieces of all documents come before the second ones."""
    if document_token is None:
        return [stream[at:at + window] for at in range(0, len(stream) - window + 1, window)]
    starts = np.flatnonzero(stream == document_token)
    pieces = [(at - low, number, stream[at:min(at + window, high)])
              for number, (low, high) in enumerate(zip(starts, np.append(starts[1:], len(stream)))) for at in range(low, high, window)]
    return [piece for _, _, piece in sorted(pieces, key=lambda p: p[:2]) if len(piece) >= 2]


def cut(stream, window, sequences, document_token, path):
    """At most `sequences` pieces. Error: not even two."""
    found = windows(stream, window, document_token)[:sequences]
    if len(found) < 2:
        raise Failure(MALFORMED, f"{path}: {len(stream)} tokens give {len(found)} sequences of {window}, at least 2 are needed "
                      f"(--window takes shorter ones)")
    return found


def batches_of(pieces, size):
    """Lists of piece numbers, `size` of one length each: nothing is padded. The order is that of lengths, longest first."""
    by_length = {}
    for number, piece in enumerate(pieces):
        by_length.setdefault(len(piece), []).append(number)
    return [group[at:at + size] for _, group in sorted(by_length.items(), reverse=True) for at in range(0, len(group), size)]


def uniform(seed, stream, count):
    """float64 in [0, 1), a function of (seed, stream) alone."""
    return np.random.Generator(np.random.Philox(key=[seed, stream])).random(count)


def draw_labels(logits, numbers):
    """Classes [positions] drawn from softmax(logits [positions, classes]) by inverting the distribution at numbers [positions]."""
    import torch
    out = []
    for at in range(0, len(logits), 64):
        total = torch.softmax(logits[at:at + 64].double(), -1).cumsum(-1)
        u = torch.as_tensor(numbers[at:at + 64])[:, None] * total[:, -1:]
        out.append((total <= u).sum(-1))
    return torch.cat(out).clamp_(max=logits.shape[-1] - 1)


# More than 5 parameters: a sequence is a function of all of them.
def draw_sequences(module, first, count, window, seed, start):
    """Sequences [count, window] drawn from a causal model: number first + i is a function of (seed, its number) and of those drawn
    with it. Each begins with `start`, which is not drawn again; None: a random token."""
    import warnings
    import torch
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*past_key_values.*")
    vocabulary = module.config.vocab_size
    random = np.stack([uniform(seed, 1 << 32 | first + i, window) for i in range(count)])
    begin = np.full(count, start) if start is not None else (random[:, 0] * vocabulary).astype(np.int64)
    out, cache = [torch.as_tensor(begin, dtype=torch.int64)], None
    with torch.inference_mode():
        for at in range(1, window):
            result = module(out[-1][:, None], past_key_values=cache, use_cache=True)
            cache, logits = result.past_key_values, result.logits[:, -1].float()
            if start is not None:
                logits[:, start] = -torch.inf
            out.append(draw_labels(logits, random[:, at]))
    return torch.stack(out, 1).numpy()


def tokens_of_text(arguments, vocabulary):
    from transformers import AutoTokenizer
    from .subjects import folder_of
    with open(arguments.text, encoding="utf-8") as file:
        text = file.read()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_of(arguments.model), trust_remote_code=arguments.trust_remote_code)
    except (ValueError, OSError, KeyError) as error:
        raise Failure(UNSUPPORTED, f"{arguments.model}: no tokenizer that transformers reads ({str(error).splitlines()[0]}); "
                      "give --tokens") from None
    return checked(np.asarray(tokenizer(text)["input_ids"], np.int64), vocabulary, arguments.text)


def mask_token(arguments, subject):
    if subject.kind != "masked":
        return None
    from transformers import AutoTokenizer
    from .subjects import folder_of
    try:
        found = AutoTokenizer.from_pretrained(folder_of(arguments.model)).mask_token_id
    except (ValueError, OSError, KeyError, TypeError):
        found = None
    return 4 if found is None else found
