"""Means over positions with standard errors between clusters."""
import numpy as np


def mean_and_error(values, clusters):
    """Mean over positions; standard error of it from the clusters' sums (positions of one cluster are not independent), None with
    fewer than two clusters."""
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    _, number = np.unique(clusters, return_inverse=True)
    count = int(number.max()) + 1
    if count < 2 or not np.isfinite(mean):
        return mean, None
    sums = np.bincount(number, values - mean)
    return mean, float(np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values))


def with_error(values, clusters):
    mean, error = mean_and_error(values, clusters)
    return {"mean": mean, "error": error}


def summary(arrays, clusters, float_loss):
    """kl: mean, error (standard, between clusters), median, p999; loss; loss_change against the float model, pair by pair; same: share
    of positions with the float model's top class; right: share whose top class is the label; accepted: mean of sum min(p, q)."""
    kl = arrays["kl"]
    out = {"positions": len(kl), "kl": {**with_error(kl, clusters), "median": float(np.median(kl)),
                                        "p999": float(np.quantile(kl, .999))},
           "loss": with_error(arrays["loss"], clusters),
           "loss_change": with_error(arrays["loss"] - float_loss, clusters),
           "same": float(arrays["same"].mean()), "right": float(arrays["right"].mean())}
    if "accepted" in arrays:
        out["accepted"] = with_error(arrays["accepted"], clusters)
    if "calibrated_kl" in arrays:
        out["calibrated_kl"] = with_error(arrays["calibrated_kl"], clusters)
    return out


def compare(arrays, baseline, clusters):
    """Differences of each position, averaged: below 0 where `arrays` is better."""
    names = [name for name in ("kl", "calibrated_kl", "loss") if name in arrays]
    return {name: with_error(arrays[name] - baseline[name], clusters) for name in names}
