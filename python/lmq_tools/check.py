"""lmq-evaluate --check: is every tensor of the copy what it should be, and do the predictions agree?"""
import json

FAR = 1.2  # relative error above which a tensor is not its own: all zeros have 1, independent values of one size 1.41
NEAR = .9  # and below which it is another's


def relative_error(wanted, found):
    """|wanted - found| / |wanted|, of zeros |found|."""
    size = float(wanted.norm())
    return float((wanted - found).norm()) / (size if size > 0 else 1.)


def slices_of(values):
    """Parts that can be permuted: experts of a stack."""
    return list(values) if values.dim() == 3 else [values]


def look_alike(found, source, shape, but):
    """Name of another source tensor (or expert) that `found` is close to; None where there is none."""
    for name in source:
        if source.shapes[name] not in (shape, (*source.shapes[name][:1], *shape)):
            continue
        values = source[name].float()
        parts = [(name, values)] if tuple(values.shape) == shape else [(f"{name}[{e}]", part) for e, part in enumerate(values)]
        for label, part in parts:
            if label != but and relative_error(part, found) < NEAR:
                return label
    return None


def moved_rows(wanted, found):
    """How many of the first 256 rows of `found` are nearest to another of them in `wanted`."""
    import torch
    rows, others = (values[:256].reshape(min(256, len(values)), -1) for values in (wanted, found))
    return int((torch.cdist(others, rows).argmin(1) != torch.arange(len(rows))).sum())


def tensor_faults(source, copy):
    for name in source:
        if name not in copy:
            if name != "lm_head.weight":
                yield f"{name}: is missing in the copy"
            continue
        wanted, found = source[name].float(), copy[name].float()
        if wanted.shape != found.shape:
            yield f"{name}: shape {list(found.shape)}, the source has {list(wanted.shape)}"
            continue
        if wanted.dim() < 2:
            if relative_error(wanted, found) > .1:
                yield f"{name}: relative error {relative_error(wanted, found):.3f} of a vector"
            continue
        for expert, (one, other) in enumerate(zip(slices_of(wanted), slices_of(found))):
            label = name if wanted.dim() != 3 else f"{name}[{expert}]"
            error = relative_error(one, other)
            if error <= FAR:
                continue
            like = look_alike(other, source, tuple(other.shape), label)
            reason = f"it is {like}" if like else f"{moved} of its rows are others'" if (moved := moved_rows(one, other)) else "it is like no other"
            yield f"{label}: relative error {error:.3f}: {reason}"


def check(arguments, model):
    """Prints faults and the agreement of predictions; 0 or 1 for the exit code."""
    from .weights import open_weights
    copy = open_weights(arguments.quantized[0], arguments.lmq)
    source = open_weights(model.path)
    faults = list(tensor_faults(source, copy))
    for fault in faults:
        print(fault)
    result = {"tensors": len(source), "faults": faults}
    if not any("missing" in fault or "shape" in fault for fault in faults):
        arrays = model.measure(copy)
        result.update(positions=len(arrays["kl"]), kl=float(arrays["kl"].mean()), same=float(arrays["same"].mean()))
        print(f"{len(source)} tensors, {len(faults)} faults; {result['positions']} positions: KL divergence {result['kl']:.5f} nats, "
              f"{100 * result['same']:.1f} % with the same top class")
    if arguments.json:
        print(json.dumps(result))
    return 1 if faults else 0
