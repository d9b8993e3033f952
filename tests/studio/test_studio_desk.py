"""What the studio answers at once says which commands give the same."""

import shlex
from pathlib import Path

import cv2
import pytest

import rizbin
from rizbin import cli
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
