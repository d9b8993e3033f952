"""Linear probe: what a linear layer can read from frozen features (CLIP, arXiv 2103.00020, appendix A.3)."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import random
from rizbin.core.measurement import Measurement
from rizbin.evaluation.zero_shot import rank_measurements

Kind = Literal["one", "many"]
"""One category a row (softmax) or any number of them (a sigmoid each)."""


@dataclass(frozen=True)
class LinearProbe:
    """A linear layer on standardized features."""

    weight: Float[Tensor, "classes dim"]
    bias: Float[Tensor, "classes"]
    mean: Float[Tensor, "dim"]
    deviation: Float[Tensor, "dim"]
    decay: float
    """The weight decay that was chosen."""

    def __call__(self, features: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows classes"]:
        """Logits."""
        return (features - self.mean) / self.deviation @ self.weight.T + self.bias


def probe_loss(
    logits: Float[Tensor, "rows classes"], targets: Float[Tensor, "rows classes"], kind: Kind
) -> Float[Tensor, ""]:
    """Mean over rows of the cross-entropy (targets sum to 1) or of the summed binary cross-entropies (each 0 to 1)."""
    if kind == "one":
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def fit(
    features: Float[Tensor, "rows dim"],
    targets: Float[Tensor, "rows classes"],
    kind: Kind,
    *,
    decay: float,
    steps: int,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """The layer that minimizes loss + decay/2 |weight|^2, starting from `start` to save steps.

    Convex, so L-BFGS ends where any optimizer would.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0).clamp_min(1e-6)
    rows = (features - mean) / deviation
    with torch.enable_grad():
        if start is None:
            weight, bias = torch.zeros(targets.shape[1], rows.shape[1]), torch.zeros(targets.shape[1])
        else:
            weight, bias = start.weight.clone(), start.bias.clone()
        parameters = [weight.requires_grad_(), bias.requires_grad_()]
        optimizer = torch.optim.LBFGS(parameters, max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = probe_loss(rows @ weight.T + bias, targets, kind) + decay / 2 * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return LinearProbe(weight.detach(), bias.detach(), mean, deviation, decay)


def choose_and_fit(
    features: Float[Tensor, "rows dim"],
    targets: Float[Tensor, "rows classes"],
    kind: Kind,
    *,
    decays: tuple[float, ...],
    steps: int,
    seed: int,
) -> LinearProbe:
    """A probe on all rows with the decay that had the least loss on a fifth of them when fitted on the rest."""
    order = torch.randperm(len(features), generator=random.torch_generator(seed, "held-out fifth"))
    held, fitted = order[: len(order) // 5], order[len(order) // 5 :]
    best: LinearProbe | None = None
    least = torch.inf
    probe = None
    # From strong to weak, each fit starting from the last: a regularization path.
    for decay in sorted(decays, reverse=True):
        probe = fit(features[fitted], targets[fitted], kind, decay=decay, steps=steps, start=probe)
        loss = probe_loss(probe(features[held]), targets[held], kind).item()
        if best is None or loss < least:
            best, least = probe, loss
    assert best is not None
    return fit(features, targets, kind, decay=best.decay, steps=steps, start=best)


def measure(
    features: Float[Tensor, "images dim"],
    right: Bool[Tensor, "images categories"],
    train: Float[Tensor, "train dim"],
    train_right: Bool[Tensor, "train categories"],
    *,
    decays: tuple[float, ...],
    steps: int,
    seed: int,
) -> list[Measurement]:
    """Top-1 and its kin of a linear probe; images without a name are left out on both sides."""
    known, taught = right.any(dim=1), train_right.any(dim=1)
    train, train_right = train[taught], train_right[taught]
    kind: Kind = "one" if bool((train_right.sum(dim=1) == 1).all()) else "many"
    probe = choose_and_fit(train, train_right.float(), kind, decays=decays, steps=steps, seed=seed)
    shape = "a softmax" if kind == "one" else "a sigmoid for each category"
    choices = ", ".join(f"{decay:g}" for decay in decays)
    how = (
        f"a linear layer with {shape} on standardized pooled features before the projection, fitted to {len(train)} "
        f"training images by L-BFGS in at most {steps} iterations, weight decay {probe.decay:g} of {choices} "
        "chosen by the loss on a held-out fifth of them"
    )
    return rank_measurements("probe", probe(features[known]), right[known], how)
