"""The teacher: what it keeps of its student, and how its batch norms and dropped paths behave."""

import copy

import pytest
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from rizbin.nets.heads import mlp_head
from rizbin.nets.image import ImageEncoder
from rizbin.nets.momentum import Teacher


def student(drop_path: float = 0.0) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    settings = ImageEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32, drop_path=drop_path)
    backbone = ImageEncoder(settings)
    return {"backbone": backbone, "head": mlp_head(backbone.dim, 16, 8)}


def say(parts: nn.ModuleDict | dict[str, nn.Module], images: Tensor) -> Tensor:
    return parts["head"](parts["backbone"](images))


def images(seed: int = 1) -> Tensor:
    return 1 + 2 * torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_norms_of_the_batch_in_training_and_running_ones_in_evaluation() -> None:
    parts = student()
    running, batch = Teacher(parts), Teacher(parts, norms="batch")
    told = {
        name: say(copy.deepcopy(nn.ModuleDict(parts)).train(mode), images())
        for name, mode in (("batch", True), ("running", False))
    }
    assert not torch.allclose(told["batch"], told["running"], atol=1e-2)
    method = nn.ModuleDict({"running": running, "batch": batch}).train()
    assert torch.allclose(say(batch, images()), told["batch"], atol=1e-6)
    assert torch.allclose(say(running, images()), told["running"], atol=1e-6)
    method.eval()
    fresh = Teacher(parts, norms="batch").eval()  # the pass above has moved the other's running statistics
    assert torch.allclose(say(fresh, images()), told["running"], atol=1e-6)
    assert not any(
        module.training for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    )


@pytest.mark.parametrize("norms", ["running", "batch"])
def test_no_path_is_dropped_and_no_gradient_kept(norms: str) -> None:
    teacher = Teacher(student(drop_path=0.9), norms=norms).train()  # type: ignore[arg-type]
    dropped = [module for module in teacher.modules() if isinstance(module, DropPath)]
    assert dropped and not any(module.training for module in dropped)
    a, b = say(teacher, images()), say(teacher, images())
    if norms == "batch":
        assert torch.equal(a, b), "a batch's statistics are the same twice"
    assert torch.equal(a, b) and not a.requires_grad


def test_following_is_the_running_mean_of_parameters() -> None:
    parts = student()
    teacher, before = Teacher(parts, norms="batch"), {}
    for name, value in teacher.named_parameters():
        before[name] = value.clone()
    with torch.no_grad():
        for part in parts.values():
            for parameter in part.parameters():
                parameter.add_(torch.randn_like(parameter))
    teacher.follow(parts, 0.75)
    for name, value in nn.ModuleDict(parts).named_parameters():
        assert torch.allclose(dict(teacher.named_parameters())[name], 0.75 * before[name] + 0.25 * value, atol=1e-6)
