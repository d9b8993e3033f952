"""The loop's own promises: schedules, signals, full disks, damaged checkpoints, FSDP."""

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rizbin.core import checkpoint, parallel
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.scenes import Scenes
from rizbin.nets.dual import ImageTextPair
from rizbin.training.method import Progress
from rizbin.training.optimizers import decay_groups
from rizbin.training.replay import replay
from rizbin.training.schedules import warmup_cosine
from rizbin.training.trainer import Diagnostics, NotFinite, Stopped, Trainer, read_failure
from tests.processes import run_in_processes
from tests.toys import batch_for, build


def trainer(steps: int = 4, **changes: Any) -> Trainer:
    return Trainer(Trainer.Settings(**{"log_every": 1, **changes}), batch=8, steps=steps, checkpoint_every=2, seed=0)


def run_folder(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.create_or_resume({"method": "clip"})
    return folder


def source() -> Scenes:
    return Scenes(Scenes.Settings(size=32, categories=8))


def test_learning_rate_rises_linearly_then_falls_along_a_cosine() -> None:
    def rate(step: int, steps: int = 100, warmup: float = 0.2) -> float:
        return warmup_cosine(step, steps, peak=1.0, floor=0.1, warmup=warmup, start=0.05)

    rates = [rate(step) for step in range(100)]
    # As numpy's linspace over the warm-up, both ends there: the rule of the official code.
    assert rates[:20] == pytest.approx(np.linspace(0.05, 1.0, 20))
    assert rates[20:] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * i / 80)) / 2 for i in range(80)])
    assert max(rates) == pytest.approx(1.0) and 0.1 < rates[99] < 0.11
    assert rate(0, 1, 0.0) == rate(0, 10, 0.1) == rate(0, 3, 0.05) == pytest.approx(1.0), "a warm-up of a step is none"
    assert [rate(step, 10, 0.25) for step in (0, 1, 2)] == pytest.approx([0.05, 0.05 + 0.95 / 1.5, 1.0])


def test_progress_schedules_and_numbers() -> None:
    assert Progress(0, 10).cosine(0.9, 1.0) == pytest.approx(0.9)
    assert Progress(5, 10).cosine(0.9, 1.0) == pytest.approx(0.95)
    assert Progress(1, 10).linear(0.0, 1.0, over=0.2) == pytest.approx(0.5)
    assert Progress(2, 10).linear(0.0, 1.0, over=0.2) == 1.0
    here = torch.device("cpu")
    a = Progress(3, 10, seed=1).uniform("x", 4, 2, here)
    assert torch.equal(a, Progress(3, 10, seed=1).uniform("x", 4, 2, here))
    for other in (Progress(4, 10, seed=1).uniform("x", 4, 2, here), Progress(3, 10, seed=1).uniform("y", 4, 2, here)):
        assert not torch.equal(a, other)


def test_norms_biases_and_scales_do_not_decay() -> None:
    pair = build("clip").encoder
    assert isinstance(pair, ImageTextPair)
    decay, keep = decay_groups([pair, pair.text])
    assert len(decay) + len(keep) == len(list(pair.parameters())), "each parameter once"
    kept = {id(parameter) for parameter in keep}
    assert id(pair.logit_scale) in kept and id(pair.text.ln_final.weight) in kept
    assert id(pair.image_projection.weight) not in kept


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")

    def at_first_record(step: int, *_: object) -> Diagnostics:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return Diagnostics({})

    with pytest.raises(Stopped, match=r"after step 1 of 4.*goes on"):
        trainer().fit(build("clip"), source(), folder, quiet=True, watch=at_first_record, watch_every=1)
    found = checkpoint.load(folder.checkpoints)
    assert found is not None and found.step == 1
    method = build("clip")
    assert trainer().fit(method, source(), folder, quiet=True).step == 4
    straight = build("clip")
    other = run_folder(tmp_path / "straight")
    trainer().fit(straight, source(), other, quiet=True)
    assert all(torch.equal(value, straight.state_dict()[name]) for name, value in method.state_dict().items())
    assert [record["step"] for record in folder.metrics.read()] == [1, 2, 3, 4]
    folder.release()
    other.release()


def test_a_failed_save_costs_neither_the_run_nor_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, real, calls = run_folder(tmp_path / "run"), checkpoint.save, []

    def full_once(*arguments: Any, **named: Any) -> Path:
        calls.append(arguments[1])
        if len(calls) == 1:
            raise checkpoint.SaveFailed("No space left on device.")
        return real(*arguments, **named)

    monkeypatch.setattr(checkpoint, "save", full_once)
    assert trainer().fit(build("clip"), source(), folder, quiet=True).step == 4
    assert calls == [2, 4], "the next save is tried as planned"
    assert "Training goes on" in capsys.readouterr().err
    found = checkpoint.load(folder.checkpoints)
    assert found is not None and found.step == 4
    folder.release()


def test_damaged_checkpoints_are_passed_over_and_none_left_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "run")
    trainer().fit(build("clip"), source(), folder, quiet=True)
    newest, older = (folder.checkpoints / f"step_{step:09d}" for step in (4, 2))

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))

    flip(newest / "method.safetensors")
    again = build("clip")
    trainer().fit(again, source(), folder, quiet=True)
    assert "step_000000004" in capsys.readouterr().err, "the damaged one is named"
    found = checkpoint.load(folder.checkpoints)
    assert found is not None and found.step == 4
    for path in (newest, older):
        flip(path / "method.safetensors")
    with pytest.raises(RizbinError, match="None of the checkpoints"):
        trainer().fit(build("clip"), source(), folder, quiet=True)
    folder.release()


def test_a_failure_keeps_what_a_replay_needs(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    method = build("clip")
    assert isinstance(method.encoder, ImageTextPair)
    with torch.no_grad():
        method.encoder.image_projection.weight.fill_(float("inf"))
    with pytest.raises(RizbinError, match="not finite"):
        trainer().fit(method, source(), folder, quiet=True)
    kept, tensors = read_failure(folder.path)
    assert not bool(torch.isfinite(tensors["pair.image_projection.weight"]).any())
    assert kept["positions"] == list(range(8)) and kept["step"] == 0
    folder.release()


def test_a_replay_names_where_it_began(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    method = build("clip")
    assert isinstance(method.encoder, ImageTextPair)

    def overflow(_: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return output * float("inf")

    culprit = method.encoder.text.ln_final
    hook = culprit.register_forward_hook(overflow)
    with pytest.raises(NotFinite, match="rizbin replay"):
        trainer().fit(method, source(), folder, quiet=True)
    again = build("clip")
    assert isinstance(again.encoder, ImageTextPair)
    again.encoder.text.ln_final.register_forward_hook(overflow)
    found = replay(again, trainer(), source(), folder)
    assert found.happens_again and found.modules[0] == "pair.text.ln_final" and not found.weights
    assert found.step == 1 and len(found.samples) == 8 and found.gradients
    assert "First made from finite numbers by: pair.text.ln_final" in found.text()
    hook.remove()
    healed = replay(build("clip"), trainer(), source(), folder)
    assert not healed.happens_again and "All is finite this time" in healed.text()
    folder.release()


def test_a_replay_says_when_the_weights_were_spoiled_before(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run")
    method = build("clip")
    assert isinstance(method.encoder, ImageTextPair)
    with torch.no_grad():
        method.encoder.image_projection.weight[0, 0] = float("nan")
    with pytest.raises(NotFinite):
        trainer().fit(method, source(), folder, quiet=True)
    found = replay(build("clip"), trainer(), source(), folder)
    assert found.weights == ("pair.image_projection.weight",)
    assert "an earlier one did the harm" in found.text()
    folder.release()


def test_nothing_to_replay_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="keeps no failed step"):
        read_failure(tmp_path)


def test_clipping_bounds_the_update_and_only_then() -> None:
    norms = []
    for clip in (0.0, 1e-3):
        method = build("clip")
        engine = trainer(clip=clip)
        engine.step(method, engine.optimizers(method), batch_for(method), 2)
        norms.append(torch.nn.utils.get_total_norm([p.grad for p in method.parameters() if p.grad is not None]).item())
    assert norms[1] == pytest.approx(1e-3, rel=1e-3) and norms[0] > 1e-2


def _sharded(path: str, kind: str, steps: int, name: str = "detailclip") -> dict[str, torch.Tensor]:
    method = build(name)
    folder = run_folder(Path(path))
    trainer(sharding=kind).fit(method, source(), folder, quiet=True, until=steps)
    parallel.barrier()
    found = checkpoint.load(folder.checkpoints)
    folder.release()
    assert found is not None
    return dict(found.tensors["method"])


# DINO: its last block makes the CLS token alone, its crops differ in size, and its teacher holds blocks of its own.
@pytest.mark.parametrize("name", ["detailclip", "dino"])
def test_fsdp_trains_like_replicas_and_resumes(name: str, tmp_path: Path) -> None:
    results = {}
    for kind in ("replicated", "fsdp"):
        run_in_processes(_sharded, 2, str(tmp_path / kind), kind, 2, name)
        results[kind] = run_in_processes(_sharded, 2, str(tmp_path / kind), kind, 4, name)[0]
    for weight, value in results["replicated"].items():
        # Sums over processes are taken in another order, and Adam widens the rounding of gradients near zero.
        assert torch.allclose(results["fsdp"][weight], value, atol=2e-4), weight
    with pytest.raises(RizbinError, match="torchrun"):
        trainer(sharding="fsdp").fit(build("clip"), source(), run_folder(tmp_path / "alone"), quiet=True)


@pytest.mark.slow  # a minute: torch.compile writes and builds C++
@pytest.mark.filterwarnings("ignore")  # torch looks at `.grad` of tensors that have none while it compiles
@pytest.mark.parametrize("name", ["detailclip", "dino"])
def test_compiled_blocks_train_alike(name: str, tmp_path: Path) -> None:
    results = []
    for compiled in (False, True):
        method, folder = build(name), run_folder(tmp_path / str(compiled))
        # A large epsilon: Adam would widen the rounding of gradients that are zero (of keys' biases) to whole steps.
        trainer(compile=compiled, epsilon=1e-3).fit(method, source(), folder, quiet=True, until=2)
        results.append(method.state_dict())
        folder.release()
    for weight, value in results[0].items():
        assert torch.allclose(results[1][weight], value, atol=1e-5), weight
