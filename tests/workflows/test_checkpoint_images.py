"""A run over its checkpoints: the images of each step are those of its weights; the first weights are made again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.reports.cards import seen_in
from rizbin.reports.examples import first_samples
from rizbin.training.trainer import Trainer
from rizbin.workflows import runs
from rizbin.workflows.checkpoints import images_at, own_data, steps_of
from rizbin.workflows.presets import Training
from tests.toys import tiny

DATA = "scenes:easy,categories=8"


def training(method: str, keep: int) -> Training[object]:
    return Training(
        method=method,
        data=DATA,
        steps=3,
        batch=4,
        checkpoint_every=1,
        trainer=Trainer.Settings(log_every=1, keep_checkpoints=keep),
        settings=tiny(method),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DetailCLIP that has the checkpoints of steps 2 and 3."""
    return runs.train(training("detailclip", 2), tmp_path_factory.mktemp("runs") / "run", quiet=True)


def test_each_step_shows_what_its_weights_make_of_the_same_images(run: Path) -> None:
    assert steps_of(run) == [0, 2, 3] and own_data(run) == DATA
    seen = {step: images_at(run, step, limit=2) for step in (0, 2, 3)}
    kinds = [image.caption for image in seen[3].images[0]]
    assert kinds[:2] == ["Image", "Attention"] and {"Removed", "Reconstruction", "Words"} <= set(kinds)
    assert seen[0].captions == seen[3].captions and len(seen[3].captions) == 2
    for first, last in zip(seen[0].images, seen[3].images, strict=True):
        assert np.array_equal(first[0].image, last[0].image)
        assert not np.array_equal(first[1].image, last[1].image), "attention of other weights"
    loaded = runs.load_run(run)
    source = open_source(DATA, split="test", size=loaded.pair.image_size, seed=0)
    right = seen_in(loaded.pair, loaded.method, first_samples(source, 2), source.categories)
    for row, images in zip(right, seen[3].images, strict=True):
        assert all(np.array_equal(a.image, b.image) for a, b in zip(row, images, strict=True))


def test_the_first_weights_are_those_that_training_began_with(run: Path) -> None:
    begun = runs.build(runs.training_from(runs.RunFolder(run).read_settings()))
    one_step = runs.load_run(run, 2).method
    again = runs.build(training("detailclip", 2))
    for name, value in begun.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert any(not torch.equal(begun.state_dict()[name], value) for name, value in one_step.state_dict().items())


def test_the_command_writes_a_column_a_checkpoint(run: Path, tmp_path: Path) -> None:
    words = ["visualize", "checkpoints", str(run), DATA, "--limit", "2", "-o", str(tmp_path / "page")]
    assert cli.main(words) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "from step 0 to step 3" in page and "OpenMoji" in page
    assert len(list((tmp_path / "page").glob("checkpoints-*.png"))) == 2


def test_a_run_that_began_elsewhere_has_no_first_weights(run: Path, tmp_path: Path) -> None:
    other = replace(training("clip", 1), start=str(run))
    folder = runs.train(replace(training("detailclip", 1), start=str(run)), tmp_path / "on", quiet=True)
    assert other.start and steps_of(folder) == [3]
    with pytest.raises(RizbinError, match="another model's weights"):
        images_at(folder, 0)
    with pytest.raises(RizbinError, match="there: 3"):
        images_at(folder, 2)


def test_an_encoder_without_words_shows_attention(tmp_path: Path) -> None:
    folder = runs.train(training("dino", 1), tmp_path / "run", quiet=True)
    seen = images_at(folder, 3, "scenes:single", limit=1)
    assert [image.caption for image in seen.images[0]] == ["Image", "Attention"]


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="is no run folder"):
        rizbin.visualize("checkpoints", tmp_path, "scenes:easy", output=tmp_path / "page")
