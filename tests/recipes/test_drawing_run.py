"""A diffusion model from the command's settings to pictures, a report and repaired drawings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rizbin import api, cli
from rizbin.core.errors import RizbinError
from rizbin.data.gate import read_image
from rizbin.generate.diffusion.painter import Sampling
from rizbin.generate.diffusion.repair import Ladder
from rizbin.recipes import catalogue, presets
from tests.generate.diffusion.small_painters import SMALL


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = presets.preset("diffusion")
    data = "scenes:drawn,categories=4"
    settings = replace(SMALL, autoencoder_share=0.5)
    where = tmp_path_factory.mktemp("diffusion") / "run"
    training = replace(training, steps=4, batch=4, data=data, settings=settings)
    return api.fit(training, run=where, quiet=True)


def test_it_stands_among_what_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert "diffusion" in catalogue.names() and presets.names("diffusion") == ("small",)
    assert cli.main(["train", "diffusion", "--help"]) == 0
    assert "autoencoder-share" in capsys.readouterr().out
    with pytest.raises(RizbinError, match="no preset 'nano'"):
        presets.preset("diffusion", "nano")


def test_a_run_draws_and_its_folder_too(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["a zebra", "--steps", "2", "--quiet"]
    assert cli.main(["generate", *common, "--model", str(run), "--out", str(tmp_path / "a"), "--film"]) == 0
    assert "0000.png: a zebra (seed 0" in capsys.readouterr().out
    assert cli.main(["generate", *common, "--model", str(run / "model"), "--out", str(tmp_path / "b")]) == 0
    first, second = (read_image(tmp_path / name / "0000.png") for name in "ab")
    assert first.shape == (32, 32, 3) and np.abs(first.astype(int) - second.astype(int)).max() <= 1
    page = (tmp_path / "a" / "film.html").read_text(encoding="utf-8")
    assert "Where &quot;zebra&quot; is read" in page or 'Where "zebra" is read' in page


def test_a_picture_is_redrawn_with_its_grid(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start.png"
    assert cli.main(["generate", "a frog", "--steps", "1", "--model", str(run), "--out", str(tmp_path), "--quiet"]) == 0
    (tmp_path / "0000.png").rename(start)
    words = ["edit", str(start), "a taxi", "--model", str(run), "--out", str(tmp_path / "new"), "--steps", "5"]
    assert cli.main([*words, "--grid", "--quiet"]) == 0
    assert (tmp_path / "new" / "grid.png").is_file()
    told = json.loads((tmp_path / "new" / "drawn.json").read_text())
    assert told[0]["steps_made"] == 3 and told[0]["strength"] == 0.6
    (tmp_path / "no.png").write_text("no picture")
    assert cli.main(["edit", str(tmp_path / "no.png"), "a taxi", "--model", str(run)]) == 2
    assert "no.png" in capsys.readouterr().err


def test_repair_looks_with_the_zoo_s_detector(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An untrained model draws nothing that can be found: all rungs are climbed, and the exit code says so."""
    words = ["generate", "a zebra and a frog", "--model", str(run), "--out", str(tmp_path), "--steps", "2", "--quiet"]
    assert cli.main([*words, "--verify"]) == 1
    assert "zebra 0." in capsys.readouterr().out
    made = api.repair(
        "a zebra and a frog",
        model=run,
        to=tmp_path,
        sampling=Sampling(steps=2),
        ladder=Ladder(seeds=1, places=1),
        among=["taxi", "pizza"],
        quiet=True,
    )
    told = json.loads((tmp_path / "repaired.json").read_text())
    assert [one["how"] for one in told[0]["tried"]] == ["draw", "attention", "place", "reseed"]
    assert sum(one["kept"] for one in told[0]["tried"]) == 1 and not told[0]["whole"]
    assert (tmp_path / "0000-tried.png").is_file() and made[0].objects == ("zebra", "frog")


def test_the_report_is_a_page_of_pictures(run: Path, tmp_path: Path) -> None:
    page = api.report(run, to=tmp_path / "page.html").read_text(encoding="utf-8")
    for part in ("Drawn from captions", "Step by step", "What the autoencoder keeps", "How it learned"):
        assert part in page


def test_what_draws_is_no_encoder(run: Path) -> None:
    with pytest.raises(RizbinError, match="draws; this is done with encoders"):
        api.measure(run, quiet=True)
    with pytest.raises(RizbinError, match="draws; this is done with what looks"):
        api.measure(run / "model", quiet=True)
    with pytest.raises(RizbinError, match="neither a folder nor a model that comes"):
        api.generate("a zebra", model="difusion-mini", quiet=True)
