"""AdamW, SGD and LARS under the trainer: what decays, at what rate, and that a stopped run keeps its bits."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.scenes import Scenes
from rizbin.training.optimizers import make_optimizer
from rizbin.training.schedules import growth, warmup_cosine
from rizbin.training.trainer import Trainer
from tests.toys import batch_for, build


def trainer(steps: int = 6, **changes: Any) -> Trainer:
    return Trainer(Trainer.Settings(**{"log_every": 1, **changes}), batch=8, steps=steps, checkpoint_every=3, seed=0)


def optimizer(kind: str, groups: list[dict[str, Any]], momentum: float = 0.9) -> torch.optim.Optimizer:
    return make_optimizer(kind, groups, learning_rate=0.1, momentum=momentum, betas=(0.9, 0.98), epsilon=1e-8)


KINDS = {"adamw": {}, "sgd": {}, "lars": {"learning_rate": 1.0}, "sgd without momentum": {"momentum": 0.0}}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("method", ["simclr", "logo"])
def test_stopped_at_three_and_resumed_equals_six_straight(name: str, method: str, tmp_path: Path) -> None:
    """LoGo has two optimizers."""
    changes = {"optimizer": name.split()[0], "weight_decay": 0.1, "weight_decay_growth": 10.0, **KINDS[name]}
    states, start = [], build(method).state_dict()
    for stops in ([6], [3, 6]):
        folder = RunFolder(tmp_path / str(len(stops)))
        folder.create_or_resume({"method": method})
        for until in stops:
            made = build(method)
            trainer(**changes).fit(
                made, Scenes(Scenes.Settings(size=32, categories=8)), folder, quiet=True, until=until
            )
        states.append(made.state_dict())
        folder.release()
    assert all(torch.equal(states[0][key], states[1][key]) for key in start)
    assert all(bool(torch.isfinite(value).all()) for value in states[0].values())
    assert not torch.equal(states[0]["projector.0.weight"], start["projector.0.weight"])


def test_lars_scales_each_tensors_step_to_its_length_and_leaves_norms_alone() -> None:
    """arXiv 1708.03888, equation 6: rate * 0.001 |w| / (|g| + decay |w|) * (g + decay w)."""
    generator = torch.Generator().manual_seed(0)
    weight, bias = (nn.Parameter(torch.randn(*shape, generator=generator)) for shape in ((4, 3), (4,)))
    groups = [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    lars, before = optimizer("lars", groups), [weight.detach().clone(), bias.detach().clone()]
    weight.grad, bias.grad = (5 * torch.randn(p.shape, generator=generator) for p in (weight, bias))
    lars.step()
    scaled = weight.grad + 0.01 * before[0]
    ratio = 1e-3 * before[0].norm() / (weight.grad.norm() + 0.01 * before[0].norm())
    assert torch.allclose(weight, before[0] - 0.1 * ratio * scaled, atol=1e-7)
    assert torch.allclose(bias, before[1] - 0.1 * bias.grad, atol=1e-7)


def test_lars_is_lars_without_weight_decay() -> None:
    weight = nn.Parameter(torch.ones(4, 3))
    lars = optimizer("lars", [{"params": [weight], "weight_decay": 0.0}])
    weight.grad = torch.full((4, 3), 7.0)
    lars.step()
    assert torch.allclose(weight, torch.full((4, 3), 1 - 0.1 * 1e-3), atol=1e-7)


def test_sgd_has_momentum() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    sgd = optimizer("sgd", [{"params": [weight], "weight_decay": 0.0}])
    for _ in range(2):
        weight.grad = torch.ones(2, 2)
        sgd.step()
    assert torch.allclose(weight, torch.full((2, 2), -0.1 * (1 + 1.9)))


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(RizbinError, match="no optimizer 'lamb'; there are adamw, sgd and lars"):
        optimizer("lamb", [{"params": [nn.Parameter(torch.ones(1))]}])


def test_weight_decay_grows_along_a_cosine_to_its_factor() -> None:
    assert growth(0, 100, 10.0) == 1.0 and growth(100, 100, 10.0) == pytest.approx(10.0)
    assert growth(50, 100, 10.0) == pytest.approx(5.5)
    assert growth(25, 100, 10.0) == pytest.approx(10 - 9 * (1 + math.cos(math.pi / 4)) / 2)
    assert all(growth(step, 100, 1.0) == 1.0 for step in range(100))


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lars"])
def test_the_trainer_sets_the_decay_of_every_step_and_of_matrices_only(kind: str) -> None:
    method, engine = build("simclr"), trainer(steps=100, optimizer=kind, weight_decay=0.04, weight_decay_growth=10.0)
    optimizers = engine.optimizers(method)
    seen = []
    for step in (0, 50, 99, 25):
        engine.step(method.train(), optimizers, batch_for(method), step)
        decays = {
            matrices: {
                group["weight_decay"]
                for group in optimizers["main"].param_groups
                for parameter in group["params"]
                if (parameter.ndim >= 2) == matrices
            }
            for matrices in (True, False)
        }
        assert decays == {True: {0.04 * growth(step, 100, 10.0)}, False: {0.0}}
        seen.append(max(decays[True]))
    assert seen[0] == pytest.approx(0.04) and seen[2] == pytest.approx(0.4, rel=1e-3) and seen[3] < seen[1]


def test_a_wish_has_its_own_share_of_the_learning_rate() -> None:
    """LoGo's affinity at a tenth of the encoder's rate; SGD, whose step is as long as the rate says."""
    moved: dict[float, list[Tensor]] = {}
    for rate in (1.0, 0.1):
        method = build("logo", {"affinity_rate": rate})
        engine = trainer(steps=100, optimizer="sgd", weight_decay=0.0, momentum=0.0)
        optimizers, before = engine.optimizers(method), copy.deepcopy(method.state_dict())
        records = engine.step(method.train(), optimizers, batch_for(method), 40)
        expected = warmup_cosine(40, 100, peak=1e-3, floor=1e-5, warmup=0.05, start=1e-5)
        rates = {name: {group["lr"] for group in one.param_groups} for name, one in optimizers.items()}
        assert rates == {"main": {expected}, "affinity": {rate * expected}} and records["learning_rate"] == expected
        after = method.state_dict()
        moved[rate] = [after[name] - before[name] for name in ("regressor.0.weight", "regressor.3.weight")]
    for whole, tenth in zip(moved[1.0], moved[0.1], strict=True):
        assert whole.norm() > 0 and torch.allclose(tenth, whole / 10, rtol=1e-2, atol=1e-8)  # float32 differences


def test_a_bounded_loss_is_added_as_it_is_where_it_is_short_enough() -> None:
    """Two losses of one update equal their sum where the bound is not reached."""
    states = []
    for changes in (
        {"weighting": "bound", "repulsion_bound": 1e6, "affinity": "cosine", "local_global": False},
        {"weighting": "weight", "repulsion_weight": 1.0, "affinity": "cosine", "local_global": False},
    ):
        method, engine = build("logo", changes), trainer(optimizer="sgd")
        engine.step(method.train(), engine.optimizers(method), batch_for(method), 3)
        states.append({name: value.clone() for name, value in method.named_parameters()})
    assert all(torch.allclose(states[0][name], value, atol=1e-7) for name, value in states[1].items())
