"""Adaptation: what holds the encoder, mixtures of weights, the choice, the record and the model that comes back."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rizbin import methods
from rizbin.core.errors import RizbinError
from rizbin.data.scenes import Scenes
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from rizbin.training.method import Progress
from rizbin.workflows.adapt import Adapt, Candidate, adapt, training_of
from rizbin.workflows.load import load_encoder
from tests.models.published import PAIRS
from tests.toys import NANO, batch_for, tiny


def losses_of(method: Any, **more: Any) -> dict[str, Any]:
    (update,) = list(method.step(replace(batch_for(method, rows=4), **more), Progress(1, 10)))[:1]
    return dict(update.records)


def test_the_start_holds_the_encoder_and_captions_may_be_missing() -> None:
    torch.manual_seed(0)
    start = ImageTextPair(NANO)
    method: Any = methods.find("adapt")(tiny("adapt"))
    assert "keep" not in losses_of(method)  # random weights are nothing to stay near
    method.begin_with(start.state_dict(), "the start")
    records = losses_of(method)
    assert float(records["keep"].detach()) < 1e-6  # it is the start still
    assert {"contrast", "phrase", "patch", "pixels", "keep"} <= set(records)
    with torch.no_grad():
        for parameter in method.pair.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert float(losses_of(method)["keep"].detach()) > 1e-3
    wordless = methods.find("adapt")(tiny("adapt", {"captions": False}))
    assert wordless.tokenizer is None and wordless.most_phrases == 0
    wordless.begin_with(start.state_dict(), "the start")
    assert set(losses_of(wordless)) == {"patch", "pixels", "keep", "scale"}


def pictures(folder: Path, count: int, captions: bool) -> Path:
    """Scenes as files, with a table of captions."""
    folder.mkdir()
    world = Scenes(Scenes.Settings(size=32, categories=6, seed=3))
    rows = []
    for index in range(count):
        sample = world[index]
        name = f"image-{index:03d}.png"
        cv2.imwrite(str(folder / name), np.ascontiguousarray(255 - sample.image[..., ::-1]))
        rows.append((name, sample.caption))
    if not captions:
        return folder
    table = folder / "captions.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption"), *rows])
    return table


def settings(model: Path, data: Path, run: Path, **more: Any) -> Adapt:
    small: dict[str, Any] = {"steps": 4, "batch": 8, "images": 20, "checkpoints": 2, "mixtures": (0.5, 1.0)}
    return Adapt(
        str(model), str(data), run=run, quiet=True, device="cpu", world="scenes:easy,categories=6", **{**small, **more}
    )


@pytest.mark.parametrize("form", ["own", "SigLIP"])
def test_an_adaptation_chooses_records_and_gives_back(form: str, tmp_path: Path) -> None:
    if form == "own":
        torch.manual_seed(0)
        save_open_clip(ImageTextPair(NANO).eval(), tmp_path / "start")
    else:
        PAIRS[form](tmp_path / "start")
    data = pictures(tmp_path / "images", 60, captions=True)
    made = adapt.run(
        settings(
            tmp_path / "start", data, tmp_path / "run", validation_data=str(data), tolerance=100.0, captions="with"
        )
    )
    record = json.loads((tmp_path / "run" / "adapt.json").read_text())
    assert [each["step"] for each in record["candidates"]] == [0, 4, 4, 2, 2]
    best = max(each["own"] for each in record["candidates"])
    assert record["chosen"]["own"] == best == made.chosen.own
    assert {"own images", "old world"} <= set(made.numbers)
    assert "retrieval/image_to_text/r1" in made.numbers["own images"] and "before" in made.text()
    assert made.model is not None
    chosen = load_encoder(made.model)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert chosen.encode_image(images).shape[0] == 2
    drift = made.numbers["drift from the start, 1 - cosine"]["images"]["after"]
    assert (drift > 1e-7) == (made.chosen.step > 0)


def test_mixtures_lie_between_start_and_end_and_the_old_world_limits_them(tmp_path: Path) -> None:
    from rizbin.workflows import adapt as job

    torch.manual_seed(0)
    save_open_clip(ImageTextPair(NANO).eval(), tmp_path / "start")
    data = pictures(tmp_path / "images", 40, captions=True)
    made = adapt.run(settings(tmp_path / "start", data, tmp_path / "run", validation_data=str(data), tolerance=0.0))
    assert made.chosen.world >= made.candidates[0].world
    run = job.load_run(tmp_path / "run")
    start = {name: value.clone() for name, value in job._start_of(run).items()}
    end = {name: value.clone() for name, value in run.pair.state_dict().items()}
    job._mix(run, start, Candidate(run.step, 0.25, 0.0, 0.0))
    for name, value in run.pair.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * start[name] + 0.25 * end[name], atol=1e-6)


def test_what_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="reads no text"):
        training_of(settings(Path("dino-mini"), tmp_path, tmp_path / "run"))
    with pytest.raises(RizbinError, match="mixtures"):
        adapt.run(settings(Path("detailclip-mini"), tmp_path, tmp_path / "run", mixtures=()))
