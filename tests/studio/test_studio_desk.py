"""What the studio answers at once says which commands give the same."""

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.scenes import Scenes
from rizbin.studio.desk import Desk
from rizbin.studio.places import new_name


@pytest.mark.parametrize("by_image", [False, True])
def test_searching_spells_the_commands_that_find_the_same(
    by_image: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path / "the studio")  # a space, which has to be quoted
    desk.places.make()
    names = [new_name() for _ in range(4)]
    for number, name in enumerate(names):
        image = Scenes(Scenes.Settings(split="test"))[number].image
        cv2.imwrite(str(desk.places.pictures / f"{name}.png"), image[..., ::-1])
    answer = desk.do_search("detailclip-mini", names, "an octopus", names[1] if by_image else "")
    embed, search = answer["line"].split(" && ")
    assert cli.main([*shlex.split(embed)[1:], "--quiet"]) == 0
    assert cli.main(shlex.split(search)[1:]) == 0
    if by_image:
        results = rizbin.search(image=desk.places.picture(names[1]), vectors="vectors.npz")
    else:
        results = rizbin.search("an octopus", vectors="vectors.npz")
    hits = [Path(hit.file).stem for hit in results.hits]
    assert [name for name, _ in answer["nearest"]] == [name for name in hits if not by_image or name != names[1]]


def test_a_region_is_found_by_the_commands_that_are_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    desk = Desk(tmp_path / "studio")
    desk.places.make()
    names = [new_name() for _ in range(4)]
    for number, name in enumerate(names):
        image = Scenes(Scenes.Settings(split="test"))[number].image
        cv2.imwrite(str(desk.places.pictures / f"{name}.png"), image[..., ::-1])
    region = [0.1, 0.2, 0.55, 0.8]
    answer = desk.do_search("detailclip-mini", names, "", names[0], region)
    embed, search = answer["line"].split(" && ")
    assert cli.main([*shlex.split(embed)[1:], "--quiet"]) == 0
    assert cli.main([*shlex.split(search)[1:], "-o", "hits.json"]) == 0
    rows = [row for row in json.loads(Path("hits.json").read_text()) if Path(row["file"]).stem != names[0]]
    assert [name for name, _ in answer["nearest"]] == [Path(row["file"]).stem for row in rows]
    assert np.allclose([score for _, score in answer["nearest"]], [row["score"] for row in rows], atol=1e-3)
    height, width = Scenes(Scenes.Settings(split="test"))[1].image.shape[:2]
    for row in rows:
        box = [row["left"] / width, row["top"] / height, row["right"] / width, row["bottom"] / height]
        assert np.allclose(answer["boxes"][Path(row["file"]).stem], box, atol=1e-3)
    for wrong in ([0.5, 0.1, 0.4, 0.9], [0, 0, 1.5, 1], [0, 0, 1], [0, 0, "1", 1]):
        with pytest.raises(RizbinError, match="region"):
            desk.do_search("detailclip-mini", names, "", names[0], wrong)
