"""The teacher: what it keeps of its student, and how its batch norms and dropped paths behave."""

import copy
from typing import Literal

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.nets.momentum import Teacher

Norm = nn.modules.batchnorm._BatchNorm


def student(drop_path: float = 0.0) -> nn.ModuleDict:
    torch.manual_seed(0)
    settings = ImageEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32, drop_path=drop_path)
    backbone = ImageEncoder(settings)
    return nn.ModuleDict({"backbone": backbone, "head": mlp_head(backbone.dim, 16, 8)})


def say(parts: nn.ModuleDict, images: Tensor) -> Tensor:
    return parts["head"](parts["backbone"](images))


def images(seed: int = 1) -> Tensor:
    return 1 + 2 * torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def statistics(parts: nn.ModuleDict) -> list[Tensor]:
    return [value.clone() for name, value in parts.named_buffers() if "running" in name]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_norms_of_the_batch_in_training_and_running_ones_in_evaluation() -> None:
    parts = student()
    by_batch = say(copy.deepcopy(parts).train(), images())
    by_running = say(copy.deepcopy(parts).eval(), images())
    assert not torch.allclose(by_batch, by_running, atol=1e-2)
    cases: list[tuple[Literal["running", "batch"], bool]] = [
        ("batch", True),
        ("batch", False),
        ("running", True),
        ("running", False),
    ]
    for norms, training in cases:
        teacher = Teacher(dict(parts.items()), norms=norms)
        nn.ModuleList([teacher]).train(training)  # as part of a method
        expected = by_batch if norms == "batch" and training else by_running
        assert torch.allclose(say(teacher, images()), expected, atol=1e-6)


@pytest.mark.parametrize("norms", ["running", "batch"])
def test_no_path_is_dropped_and_no_gradient_kept(norms: Literal["running", "batch"]) -> None:
    teacher = Teacher(dict(student(drop_path=0.9).items()), norms=norms).train()
    dropped = [module for module in teacher.modules() if isinstance(module, DropPath)]
    assert dropped and not any(module.training for module in dropped)
    once, again = say(teacher, images()), say(teacher, images())
    assert torch.equal(once, again) and not once.requires_grad


@pytest.mark.parametrize("norms", ["running", "batch"])
def test_following_is_the_mean_of_parameters_and_each_norm_keeps_the_statistics_that_fit(
    norms: Literal["running", "batch"],
) -> None:
    """Statistics of the student's activations do not fit a teacher whose norms saw batches of its own."""
    parts = student().train()
    teacher = Teacher(dict(parts.items()), norms=norms)
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    with torch.no_grad():
        for parameter in parts.parameters():
            parameter.add_(torch.randn_like(parameter))
        for one in (parts, teacher):
            say(one, images())
    own = statistics(teacher)
    teacher.follow(dict(parts.items()), 0.75)
    followed = dict(teacher.named_parameters())
    for name, value in parts.named_parameters():
        assert torch.allclose(followed[name], 0.75 * before[name] + 0.25 * value, atol=1e-6)
    assert same(statistics(teacher), own if norms == "batch" else statistics(parts))
    assert not same(own, statistics(parts))


def test_frozen_parameters_stay_the_same_bits() -> None:
    parts = student()
    parts["head"].requires_grad_(False)
    teacher = Teacher(dict(parts.items()))
    for _ in range(3):
        teacher.follow(dict(parts.items()), 0.9)
    assert same(list(teacher["head"].parameters()), list(parts["head"].parameters()))
