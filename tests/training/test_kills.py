"""Runs killed by SIGKILL at random moments, saves included, end with the bits of the run that was never killed.

Processes are forked, so that importing torch is paid once; the parent itself never computes, since a fork does not
carry threads over.
"""

import hashlib
import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch

from rizbin.core import checkpoint
from rizbin.training.trainer import Trainer
from rizbin.workflows.presets import Training
from rizbin.workflows.runs import train
from tests.toys import tiny

STEPS = 12


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    training = Training(
        method="detailclip",
        data="scenes:easy,categories=8",
        steps=STEPS,
        batch=4,
        # A save after every second step: about as much time goes into saving as into training, so many kills hit a
        # save.
        checkpoint_every=2,
        trainer=Trainer.Settings(log_every=1),
        settings=tiny("detailclip"),
    )
    train(training, folder, quiet=True)


def _digest(folder: Path) -> str:
    """SHA-256 of everything in the last checkpoint: weights, teacher, centers, optimizer."""
    found = checkpoint.load(folder / "checkpoints")
    assert found is not None and found.step == STEPS
    files = sorted(path for path in found.path.iterdir() if path.suffix == ".safetensors")
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _run_until(folder: Path, seconds: float | None) -> bool:
    """Runs in a fork; kills it after `seconds`. True when it ended by itself."""
    process = multiprocessing.get_context("fork").Process(target=_train, args=(folder,))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return False
    assert process.exitcode in (0, -9), f"the run failed by itself with {process.exitcode}"
    return process.exitcode == 0


@pytest.mark.parametrize("runs", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_runs_end_with_the_same_bits(runs: int, tmp_path: Path) -> None:
    begin = time.perf_counter()
    assert _run_until(tmp_path / "straight", None)
    whole = time.perf_counter() - begin
    expected = _digest(tmp_path / "straight")
    drawn, kills = random.Random(0), 0
    for number in range(runs):
        folder = tmp_path / f"killed-{number}"
        for _ in range(2):
            hit = not _run_until(folder, drawn.uniform(0.05, 1.0) * whole)
            kills += hit
            # A run that was over before its kill says that the machine has become faster than when it was timed.
            whole *= 1.0 if hit else 0.9
        assert _run_until(folder, None)
        assert _digest(folder) == expected, f"run {number} ended elsewhere"
        records = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if line]
        assert len(records) == STEPS, "each step is recorded once, killed or not"
    assert kills >= runs, f"only {kills} kills hit a run; the test proves little"
