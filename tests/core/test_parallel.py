import os
import time

import pytest
import torch
from torch import Tensor, nn

from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from tests.processes import RemoteTraceback, run_in_processes

WORLDS = pytest.mark.parametrize("world", [2, 3])


# ---- the gradient through the gather: several processes equal one -------------------------------------------------


class Towers(nn.Module):
    """Two tiny towers and a scale, in float64: enough for a contrastive loss to be wrong in every known way."""

    def __init__(self) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(3)
        self.images = nn.Parameter(torch.randn(5, 4, generator=random, dtype=torch.float64))
        self.texts = nn.Parameter(torch.randn(6, 4, generator=random, dtype=torch.float64))
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        return (
            nn.functional.normalize(torch.tanh(images @ self.images), dim=-1),
            nn.functional.normalize(torch.tanh(texts @ self.texts), dim=-1),
        )


def pairs() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(4)
    return (
        torch.randn(12, 5, generator=random, dtype=torch.float64),
        torch.randn(12, 6, generator=random, dtype=torch.float64),
    )


def contrast(rows: Tensor, columns: Tensor, scale: Tensor, offset: int) -> Tensor:
    targets = torch.arange(len(rows)) + offset
    return nn.functional.cross_entropy(scale.exp() * rows @ columns.T, targets)


def step(form: str) -> tuple[float, dict[str, Tensor | None]]:
    """Loss (mean over processes) and averaged gradients of one step on this process's share of the pairs."""
    towers = Towers()
    images, texts = pairs()
    share = len(images) // parallel.world_size()
    mine = slice(parallel.rank() * share, (parallel.rank() + 1) * share)
    image, text = towers(images[mine], texts[mine])
    all_images, all_texts = parallel.gather(image), parallel.gather(text)
    if form == "whole batch":
        loss = contrast(all_images, all_texts, towers.scale, 0) + contrast(all_texts, all_images, towers.scale, 0)
    else:
        loss = contrast(image, all_texts, towers.scale, mine.start) + contrast(
            text, all_images, towers.scale, mine.start
        )
    loss.backward()
    parallel.average_gradients(towers.parameters())
    return parallel.mean(loss).item(), {name: value.grad for name, value in towers.named_parameters()}


@WORLDS
@pytest.mark.parametrize("form", ["whole batch", "own rows"])
def test_several_processes_give_the_gradient_of_one(form: str, world: int):
    alone_loss, alone = step(form)
    for loss, gradients in run_in_processes(step, world, form):
        assert loss == pytest.approx(alone_loss, abs=1e-12)
        for name, expected in alone.items():
            if expected is None:
                assert gradients[name] is None, f"{name} took part in nothing and must stay without gradient"
            else:
                torch.testing.assert_close(gradients[name], expected, rtol=1e-9, atol=1e-12)


def test_the_gradients_above_are_not_trivial():
    _, gradients = step("own rows")
    assert all(value.abs().max() > 1e-3 for value in gradients.values() if value is not None)


def gather_many() -> dict[str, Tensor]:
    rank = parallel.rank()
    weights = torch.arange(12, dtype=torch.float64).view(4, 3) + 1
    rows = torch.full((2, 3), float(rank), dtype=torch.float64, requires_grad=True)
    every = parallel.gather(rows)
    (every * weights * (rank + 1)).sum().backward()
    assert rows.grad is not None
    return {
        "rows": every.detach(),
        "gradient": rows.grad,
        "strided": parallel.gather(torch.arange(6).view(2, 3).T + 10 * rank),
        "flags": parallel.gather(torch.tensor([rank == 1])),
        "without": parallel.gather(torch.zeros(1)),
    }


def test_gather_order_types_and_gradient_by_hand():
    results = run_in_processes(gather_many, 2)
    weights = torch.arange(12, dtype=torch.float64).view(4, 3) + 1
    for rank, result in enumerate(results):
        assert result["rows"][:, 0].tolist() == [0, 0, 1, 1]
        # Process 0 weighs by 1, process 1 by 2; the backward pass sums both for one's own rows.
        torch.testing.assert_close(result["gradient"], 3 * weights[2 * rank : 2 * rank + 2])
        assert result["strided"].tolist() == [[0, 3], [1, 4], [2, 5], [10, 13], [11, 14], [12, 15]]
        assert result["flags"].tolist() == [False, True]
        assert not result["without"].requires_grad


# ---- agreement -------------------------------------------------------------------------------------------------


def agree() -> dict[str, object]:
    rank, world = parallel.rank(), parallel.world_size()
    value = torch.tensor([float(rank), 1.0], requires_grad=True)
    seen = {
        "place": (rank, world, parallel.is_main(), str(parallel.device())),
        "mean": parallel.mean(value).tolist(),
        "kept": value.tolist(),
        "no gradient": parallel.mean(value).requires_grad,
        "one": parallel.any_true(rank == 1),
        "none": parallel.any_true(False),
        "same": parallel.same_on_all("settings"),
        "other": parallel.same_on_all(f"settings {rank}"),
        "text": parallel.broadcast_text(f"ریزبین {rank}"),
        "empty": parallel.broadcast_text(""),
        "not a number": parallel.mean(torch.tensor(float("nan") if rank == 1 else 0.0)).isnan().item(),
    }
    parallel.barrier()
    return seen


@WORLDS
def test_processes_agree(world: int):
    for rank, seen in enumerate(run_in_processes(agree, world)):
        assert seen == {
            "place": (rank, world, rank == 0, "cpu"),
            "mean": pytest.approx([(world - 1) / 2, 1.0]),
            "kept": [rank, 1.0],
            "no gradient": False,
            "one": True,
            "none": False,
            "same": True,
            "other": False,
            "text": "ریزبین 0",
            "empty": "",
            "not a number": True,
        }


def average_some() -> list[list[float] | None]:
    rank = parallel.rank()
    first, second, frozen, half, idle = (
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(2, 2)),
        nn.Parameter(torch.zeros(1), requires_grad=False),
        nn.Parameter(torch.zeros(3, dtype=torch.float64)),
        nn.Parameter(torch.zeros(1)),
    )
    first.grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    if rank == 1:
        second.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T  # not contiguous, and only here
    half.grad = torch.full((3,), float(rank), dtype=torch.float64)
    parallel.average_gradients(iter([first, second, frozen, half, idle]))
    return [None if p.grad is None else p.grad.flatten().tolist() for p in (first, second, frozen, half, idle)]


def average_in_small_buckets() -> list[list[float] | None]:
    parallel._BUCKET = 3
    try:
        return average_some()
    finally:
        parallel._BUCKET = 32 * 2**20


@pytest.mark.parametrize("function", [average_some, average_in_small_buckets])
def test_average_gradients_missing_frozen_and_mixed(function):
    expected = [[1.5, 3.0], [0.5, 1.5, 1.0, 2.0], None, [0.5] * 3, None]
    assert run_in_processes(function, 2) == [expected, expected]


# ---- what goes wrong -------------------------------------------------------------------------------------------


def gather_unlike(kind: str) -> str:
    rank = parallel.rank()
    rows = {
        "rows": torch.zeros(2 + rank, 3),
        "type": torch.zeros(2, dtype=torch.float32 if rank else torch.float64),
        "gradient": torch.zeros(2, requires_grad=rank == 0),
    }[kind]
    with pytest.raises(RizbinError) as caught:
        parallel.gather(rows)
    return str(caught.value)


@pytest.mark.parametrize(
    "kind, says",
    [
        ("rows", "process 0 [2, 3] float32, process 1 [3, 3] float32"),
        ("type", "process 0 [2] float64, process 1 [2] float32"),
        ("gradient", "process 0 [2] float32 with gradient, process 1 [2] float32"),
    ],
)
def test_unlike_rows_are_refused_in_all_processes(kind: str, says: str):
    sentences = run_in_processes(gather_unlike, 2, kind)
    assert sentences[0] == sentences[1]
    assert says in sentences[0]


def fall_out() -> None:
    if parallel.rank() == 1:
        raise ValueError("planted")
    parallel.barrier()


def die() -> None:
    if parallel.rank() == 1:
        os._exit(7)
    parallel.barrier()


def lose_the_other() -> str:
    if parallel.rank() == 1:
        return ""
    with pytest.raises(RizbinError) as caught:
        parallel.barrier()
    return str(caught.value)


def _refuse() -> None:
    raise ValueError("not to be read here")


class Unreadable:
    """Pickles, and fails where it is read, so that no process comes to the point of joining the others."""

    def __reduce__(self) -> tuple[object, ...]:
        return _refuse, ()


def test_processes_that_did_not_join_are_replaced():
    before = run_in_processes(os.getpid, 2)
    with pytest.raises(ValueError, match="not to be read here"):
        run_in_processes(die, 2, Unreadable())
    assert not set(run_in_processes(os.getpid, 2)) & set(before)


def test_errors_come_back_and_the_pool_lives_on():
    with pytest.raises(ValueError, match="planted") as caught:
        run_in_processes(fall_out, 2)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert "fall_out" in str(caught.value.__cause__)
    with pytest.raises(ChildProcessError, match="process 1 died with exit code 7"):
        run_in_processes(die, 2)
    assert run_in_processes(os.getpid, 2) == run_in_processes(os.getpid, 2)


def test_a_lost_process_is_one_sentence_that_names_who_noticed():
    sentence = run_in_processes(lose_the_other, 2)[0]
    assert sentence.startswith("Process 0 of 2 lost the others while agreeing (")


def test_others_that_never_come_are_one_sentence(monkeypatch: pytest.MonkeyPatch):
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(RizbinError, match=r"^Process 1 of 2 could not join the others at 127\.0\.0\.1:1 within 0\.001"):
        parallel.start("cpu", timeout_minutes=0.001)
    parallel.stop()
    assert time.monotonic() - began < 30


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LOCAL_RANK", "99")
    monkeypatch.setenv("RANK", "99")
    with pytest.raises(RizbinError, match="Process 99 wants GPU 99"):
        parallel.start("gpu")


# ---- alone -----------------------------------------------------------------------------------------------------


def test_alone_everything_is_free():
    parallel.start("cpu")
    parallel.start("cpu")
    rows = torch.ones(2, 3, requires_grad=True)
    assert parallel.gather(rows) is rows
    assert (parallel.rank(), parallel.world_size(), parallel.is_main()) == (0, 1, True)
    assert parallel.device() == torch.device("cpu")
    assert parallel.any_true(True) and not parallel.any_true(False)
    assert parallel.same_on_all("x") and parallel.broadcast_text("x") == "x"
    averaged = parallel.mean(rows)
    assert averaged is not rows and not averaged.requires_grad
    parallel.average_gradients([nn.Parameter(rows)])
    parallel.barrier()
    parallel.stop()
    parallel.stop()
