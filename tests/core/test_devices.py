"""Which device a name stands for, on machines with and without GPUs."""

import pytest
import torch

from rizbin.core import devices, parallel
from rizbin.core.errors import RizbinError


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Sets how many GPUs torch seems to see."""
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def present(count: int, *, apple: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    return present


def test_the_best_is_a_gpu_and_else_the_processor(gpus) -> None:
    gpus(0, apple=True)
    assert devices.choose() == devices.choose("cpu") == torch.device("cpu"), "mps is taken only when it is named"
    assert devices.choose("mps") == torch.device("mps")
    gpus(2)
    assert devices.choose("cpu") == torch.device("cpu")
    assert devices.choose() == devices.choose("cuda") == devices.choose("gpu") == torch.device("cuda", 0)
    assert devices.choose("cuda:1") == devices.choose("best", own=1) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("count", "device", "words"),
    [
        (0, "cuda", "torch sees no GPU"),
        (0, "cuda:1", "torch sees no GPU"),
        (0, "mps", "torch sees no Apple GPU"),
        (1, "cuda:1", "torch sees cuda:0 alone"),
        (3, "cuda:3", "torch sees cuda:0 to cuda:2"),
        *((1, device, "There is no device") for device in ("", "tpu", "cuda:", "cuda:x", "cuda:-1", "gpu:0", "CPU")),
        *((0, device, "There is no device") for device in ("", "tpu", "cuda:x", "best:0")),
    ],
)
def test_what_is_not_there_is_one_sentence(count: int, device: str, words: str, gpus) -> None:
    gpus(count)
    with pytest.raises(RizbinError, match=words) as caught:
        devices.choose(device)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_of_several_processes_each_takes_its_own(gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert parallel._choose("best") == parallel._choose("cuda") == torch.device("cuda", 1)
    assert parallel._choose("cpu") == torch.device("cpu")
    with pytest.raises(RizbinError, match="cannot all compute on cuda:1"):
        parallel._choose("cuda:1")
    gpus(1)
    with pytest.raises(RizbinError, match="Process 0 wants GPU 1"):
        parallel._choose("best")
    with pytest.raises(RizbinError, match="not on mps"):
        parallel._choose("mps")
