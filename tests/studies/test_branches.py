"""Branches of DetailCLIP shown on scenes: what is kept, painted and found by words stands on the page."""

from dataclasses import replace
from pathlib import Path

import pytest

from rizbin.pages.page import Page
from rizbin.studies import branches
from rizbin.studies.lab import Cell, Results
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import train
from tests.toys import tiny

WORLD = "scenes:easy,categories=4"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = replace(
        preset("detailclip", "small"), data=WORLD, settings=tiny("detailclip"), batch=4, steps=2, checkpoint_every=2
    )
    return train(training, tmp_path_factory.mktemp("branch") / "run", quiet=True, silent=True)


def test_what_is_kept_stands_beside_as_much_by_chance(run: Path) -> None:
    page = Page("kept")
    branches.show_kept(page, run, f"{WORLD},distractors=4")
    text = page.html()
    assert text.count("data:image/png") == 3 * branches.SCENES
    assert text.count("kept by attention: ") == text.count("kept at random: ") == branches.SCENES
    # Half of the patches go: their hatching is in two pictures of three.
    scenes = branches._Scenes.of(WORLD, branches.detailclip(run))
    assert scenes.half().float().mean() == 0.5 and (scenes.half() == scenes.half()).all()


def test_hidden_patches_are_painted_by_every_branch(run: Path) -> None:
    page = Page("painted")
    branches.show_painted(page, {"first": run, "second": run}, WORLD)
    text = page.html()
    assert text.count("data:image/png") == 5 * branches.SCENES and text.count(">second<") == branches.SCENES


def test_words_are_found_by_every_branch_beside_the_truth(run: Path) -> None:
    page = Page("words")
    branches.show_words(page, {"first": run}, WORLD)
    text = page.html()
    assert text.count("data:image/png") == 3 * branches.SCENES and text.count(">truth<") == branches.SCENES


def test_without_branches_nothing_is_shown() -> None:
    page = Page("nothing")
    before = page.html()
    branches.show_painted(page, {}, WORLD)
    branches.show_words(page, {}, WORLD)
    assert page.html() == before


def test_a_variant_is_shown_by_its_first_seed(run: Path) -> None:
    cells = (Cell("a", 0, {}, []), Cell("a", 1, {}, [], run), Cell("a", 2, {}, [], run.parent), Cell("b", 0, {}, []))
    assert Results(cells, 3, 2, 0.0).runs("b", "a", "c") == {"a": run}
