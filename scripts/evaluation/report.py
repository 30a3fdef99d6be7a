"""Receipts (JSON), tables (Markdown) and plots (SVG) of a sweep."""
import json
import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from svg_plot import plot  # noqa: E402


def shorter(value):
    """Numbers of a receipt with seven digits."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: shorter(inner) for key, inner in value.items()}
    return [shorter(inner) for inner in value] if isinstance(value, list) else value


def write_receipt(path, receipt):
    """One row a line."""
    head = json.dumps(shorter({**receipt, "rows": []}), indent=1)
    rows = ",\n  ".join(json.dumps(shorter(row)) for row in receipt["rows"])
    beside = f"{path}.partial"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(head.replace('"rows": []', f'"rows": [\n  {rows}\n ]') + "\n")
    os.replace(beside, path)


def read_receipt(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def with_error(value, digits=4):
    if value is None or value["mean"] is None:
        return "-"
    error = f" ± {value['error']:.{digits}f}" if value.get("error") is not None else ""
    return f"{value['mean']:.{digits}f}{error}"


def cells_of(row, image):
    if "kl" not in row:
        return [row["name"], "-", row.get("refused", "-")] + ["-"] * 7
    kl, base = row["kl"], row.get("against_baseline", {})
    third = row["calibrated_kl"] if image else None
    quantile = lambda value: "-" if value is None else f"{value:.4f}"
    return [row["name"], f"{row['bits']:.3f}", with_error(kl), with_error(base.get("kl")),
            with_error(third) if image else quantile(kl["median"]), quantile(kl["p999"]),
            f"{100 * row['same']:.2f}", f"{100 * row['right']:.2f}", with_error(row["loss"]), with_error(row["loss_change"])]


def table_of(receipt):
    image = receipt["kind"] in ("resnet", "lenet", "keras")
    data = receipt["data"]
    units = "images" if image else "positions"
    title = [f"### {receipt['model']}", "",
             f"{receipt['weights']:,} weights, {receipt['source_bits']:.2f} bits each; loss {receipt['float_loss']:.4f}, "
             f"{100 * receipt['float_right']:.2f} % right; {data['positions']:,} {units} of {data['file']}"
             + (f"; paired differences against '{receipt['baseline']}'." if receipt["baseline"] else "."), ""]
    heads = ["setting", "bits", "KL, nats", "KL, paired difference", "KL, calibrated" if image else "median", "99.9 %", "same top, %",
             "right, %", "loss", "loss - float"]
    lines = [heads, ["---"] * len(heads)] + [cells_of(row, image) for row in receipt["rows"]]
    return "\n".join(title + ["| " + " | ".join(line) + " |" for line in lines]) + "\n"


def svg_of(receipt, path):
    """log10 of the KL divergence against bits; settings whose names differ in the last word only are one line."""
    curves = {}
    for row in receipt["rows"]:
        if row.get("kl", {}).get("mean") and row["kl"]["mean"] > 0 and row["setting"] != "float":
            family = row["name"].rpartition(" ")[0] or row["name"]
            curves.setdefault(family, []).append((row["bits"], math.log10(row["kl"]["mean"])))
    if not curves:
        return
    values = [y for points in curves.values() for _, y in points]
    plot(path, f"{receipt['model']}: KL divergence to the float model", "bits of the whole file per weight", "log10 of the KL, nats",
         [(family, points, family.startswith(("round", "nf4"))) for family, points in curves.items()],
         y_range=(math.floor(min(values) * 2) / 2, math.floor(max(values) * 2 + 1) / 2))
