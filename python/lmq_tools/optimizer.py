"""Adam's second moments out of a PyTorch optimizer file, under the names of the model's parameters."""
from .errors import MALFORMED, USAGE, Failure, need
from .subjects import language_model, user_module


def orders_of(arguments):
    """Lists of (name, shape or None) in which an optimizer may have numbered its parameters."""
    if arguments.names:
        with open(arguments.names, encoding="utf-8") as file:
            yield [(line.strip(), None) for line in file if line.strip()]
        return
    if not arguments.model:
        raise Failure(USAGE, "the state numbers its parameters: --model MODEL or --names FILE gives their names")
    if ".py:" in arguments.model:
        model = user_module(arguments.model)[0]
    else:
        model = language_model(arguments.model, arguments.kind, arguments.trust_remote_code).module
    named = [(name, tuple(p.shape)) for name, p in model.named_parameters()]
    yield named
    decays = lambda name: not name.endswith("bias") and "norm" not in name.lower()
    yield [n for n in named if decays(n[0])] + [n for n in named if not decays(n[0])]  # as Trainer groups them


def numbered_names(state, arguments):
    moments = {key: tuple(entry["exp_avg_sq"].shape) for key, entry in state.items() if "exp_avg_sq" in entry}
    for order in orders_of(arguments):
        if all(key < len(order) and order[key][1] in (None, shape) for key, shape in moments.items()):
            return {key: order[key][0] for key in moments}
    raise Failure(MALFORMED, "the shapes of the optimizer's parameters are not those of the model in any known order: give --names FILE")


def convert(arguments):
    """[(name.exp_avg_sq, array)] of the file arguments.optimizer."""
    torch = need("torch", "lmq-calibrate --optimizer")
    loaded = torch.load(arguments.optimizer, map_location="cpu", weights_only=True)
    for key in ("optimizer", "optimizer_state_dict", "optim"):
        loaded = loaded.get(key, loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or "state" not in loaded:
        raise Failure(MALFORMED, f"{arguments.optimizer}: no optimizer state (a dict with 'state') was found")
    state = loaded["state"]
    names = {key: key for key in state if isinstance(key, str)}
    for group in loaded.get("param_groups", []):
        names.update(zip(group["params"], group.get("param_names", [])))
    if any(key not in names for key, entry in state.items() if "exp_avg_sq" in entry):
        names = numbered_names(state, arguments)
    out = {}
    for key, entry in state.items():
        if "exp_avg_sq" in entry:
            out[f"{names[key]}.exp_avg_sq"] = entry["exp_avg_sq"].float().numpy()
    if not out:
        raise Failure(MALFORMED, f"{arguments.optimizer}: no second moment (exp_avg_sq) is in it")
    return sorted(out.items())
