"""The probe against scikit-learn's logistic regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from rizbin.evaluation.probe import choose_and_fit, fit, measure, probe_loss


def task(rows: int, seed: int, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(rows) % 4
    features = torch.eye(4, 6)[kind] * 2 + noise * torch.randn(rows, 6, generator=generator) + 5
    return features, kind


def test_the_softmax_layer_is_that_of_scikit_learn() -> None:
    features, kind = task(200, 1)
    found = fit(features, F.one_hot(kind, 4).float(), "one", decay=0.01, steps=200)
    # scikit-learn sums the loss: its C is 1 / (rows * decay).
    reference = LogisticRegression(C=1 / (200 * 0.01), tol=1e-8, max_iter=1000)
    rows = StandardScaler().fit_transform(features.numpy().astype(np.float64))
    expected = reference.fit(rows, kind.numpy()).predict_proba(rows)
    np.testing.assert_allclose(found(features).softmax(dim=1).numpy(), expected, atol=2e-3)


def test_each_sigmoid_is_that_of_scikit_learn() -> None:
    features, kind = task(200, 2)
    targets = torch.stack([kind == 0, (kind == 1) | (kind == 2)], dim=1)
    found = fit(features, targets.float(), "many", decay=0.01, steps=200)
    rows = StandardScaler().fit_transform(features.numpy().astype(np.float64))
    for column in range(2):
        reference = LogisticRegression(C=1 / (200 * 0.01), tol=1e-8, max_iter=1000)
        expected = reference.fit(rows, targets[:, column].numpy()).predict_proba(rows)[:, 1]
        np.testing.assert_allclose(found(features)[:, column].sigmoid().numpy(), expected, atol=2e-3)


def test_loss_counts_each_row_once() -> None:
    logits, targets = torch.zeros(5, 3), torch.ones(5, 3) / 3
    assert probe_loss(logits, targets, "one").item() == pytest.approx(np.log(3))
    assert probe_loss(logits, targets, "many").item() == pytest.approx(3 * np.log(2))


def test_decay_is_chosen_by_rows_that_were_held_out() -> None:
    """Where there is nothing to learn, the weakest decay fits the training rows best and the others worst."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 60, generator=generator)
    targets = F.one_hot(torch.randint(0, 2, (40,), generator=generator), 2).float()
    assert choose_and_fit(features, targets, "one", decays=(1e-6, 10.0), steps=60, seed=0).decay == 10


def test_a_constant_feature_does_no_harm() -> None:
    features, kind = task(80, 3)
    features[:, 5] = 7.0
    found = fit(features, F.one_hot(kind, 4).float(), "one", decay=0.01, steps=50)
    assert torch.isfinite(found(features)).all()


def test_what_is_linear_is_read_and_a_shift_by_one_is_noticed() -> None:
    features, kind = task(200, 4, noise=0.1)
    right = F.one_hot(kind, 4).bool()
    settings = {"decays": (0.01, 0.001), "steps": 50, "seed": 0}
    top1 = measure(features, right, features, right, **settings)[0]
    assert top1.name == "probe/top1" and top1.value == 100
    assert "softmax" in top1.protocol and "200 training images" in top1.protocol
    assert measure(features, right, features, right.roll(1, dims=1), **settings)[0].value == 0


def test_pictures_with_several_categories_get_sigmoids() -> None:
    features, kind = task(200, 5, noise=0.1)
    right = F.one_hot(kind, 4).bool() | F.one_hot((kind + 1) % 4, 4).bool()
    found = {one.name: one for one in measure(features, right, features, right, decays=(0.01,), steps=50, seed=0)}
    assert found["probe/top1"].value == 100
    assert "sigmoid" in found["probe/map"].protocol


def test_fitting_works_where_gradients_are_off() -> None:
    features, kind = task(40, 6)
    with torch.no_grad():
        probe = fit(features, F.one_hot(kind, 4).float(), "one", decay=0.01, steps=5)
    assert not probe.weight.requires_grad and probe.weight.abs().sum() > 0
