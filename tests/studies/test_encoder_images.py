"""What encoders were given and what they hold to be near stands on the page as images, and is what it says."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rizbin.pages.page import Page
from rizbin.studies import encoder_images
from rizbin.studies.encoder_images import GREEN, IMAGES, MEMORY, NEAREST, RED
from rizbin.studies.encoders import laboratory
from rizbin.studies.lab import Cell, Results
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import train
from tests.toys import tiny

WORLD = "scenes:single,categories=4"


def _results(method: str, folder: Path) -> Results:
    training = replace(preset(method, "nano"), data=WORLD, settings=tiny(method), batch=4, steps=2, checkpoint_every=2)
    run = train(training, folder / "run", quiet=True, silent=True)
    return Results((Cell("a", 0, {}, [], run), Cell("without a run", 0, {}, [])), 1, 2, 0.0)


@pytest.fixture(scope="module")
def byol(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return _results("byol", tmp_path_factory.mktemp("byol"))


def test_neighbors_of_pixels_and_of_each_encoder_stand_on_the_page(byol: Results) -> None:
    page = Page("near")
    encoder_images.show_neighbors(page, byol, ["a", "without a run", "not asked about"])
    text = page.html()
    assert text.count("data:image/png") == 3 * IMAGES and "without a run" not in text
    # Counted again from pixels and names alone.
    queries, memory, features = encoder_images._embedded(byol.runs("a"))
    assert (len(queries), len(memory)) == (IMAGES, MEMORY) and set(features) == {"raw pixels", "a"}
    stored = memory.pixels.flatten(1).numpy().astype(np.float64)
    for place, query in enumerate(queries.pixels.flatten(1).numpy().astype(np.float64)):
        cosines = stored @ query / np.linalg.norm(stored, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:NEAREST]
        count = sum(bool(memory.right[index][queries.right[place]].any()) for index in nearest)
        assert re.findall(r"raw pixels: (\d) of", text)[place] == str(count)


def test_a_neighbor_of_the_same_category_is_framed_in_green() -> None:
    images = torch.full((2, 32, 32, 3), 128, dtype=torch.uint8)
    framed = encoder_images._framed_sheet(images, torch.tensor([True, False]))
    left, right = framed[:, : framed.shape[1] // 2], framed[:, framed.shape[1] // 2 :]
    assert (left == GREEN).all(axis=2).any() and not (left == RED).all(axis=2).any()
    assert (right == RED).all(axis=2).any() and not (right == GREEN).all(axis=2).any()


def test_views_differ_in_nothing_but_what_was_removed() -> None:
    everything, crop = (
        replace(laboratory("simclr", **changes), batch=4) for changes in ({}, {"augmentations": ("crop",)})
    )
    first, second = map(encoder_images.first_batch, (everything, crop))
    assert (first.crops == second.crops).all() and not second.flips.any()
    assert (first.views[-1] == second.views[-1]).all() and (first.views[0] != second.views[0]).any()
    page = Page("views")
    encoder_images.show_views(page, {"all": everything, "crop only": crop})
    text = page.html()
    assert text.count("data:image/png") == 3 * IMAGES
    for name, batch in (("all", first), ("crop only", second)):
        shown = re.findall(rf"{name}: (\d) of 7 by color", text)
        assert shown == [str(rank) for rank in encoder_images._partner_ranks(batch)]


def test_a_view_whose_partner_alone_has_its_colors_is_solved_by_color() -> None:
    batch = encoder_images.first_batch(replace(laboratory("simclr"), batch=2))
    flat = [torch.full((1, 32, 32, 3), value, dtype=torch.uint8) for value in (10, 200)]
    near = replace(batch, views=[torch.cat(flat), torch.cat(flat), batch.views[-1]])
    assert encoder_images._partner_ranks(near) == [1, 1]
    far = replace(batch, views=[torch.cat(flat), torch.cat(flat[::-1]), batch.views[-1]])
    assert encoder_images._partner_ranks(far) == [2, 2]


def test_crops_are_shown_with_their_frames_and_cosines(tmp_path: Path) -> None:
    page = Page("crops")
    encoder_images.show_crops(page, _results("logo", tmp_path), ["a"])
    text = page.html()
    assert text.count("data:image/png") == 5 * IMAGES and len(re.findall(r"a: -?\d\.\d\d", text)) == IMAGES


def test_a_crop_is_outlined_where_it_was_taken() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    encoder_images.outlined(image, (0.25, 0.5, 0.75, 1.0), RED)
    rows, columns = (image == RED).all(axis=2).nonzero()
    assert abs(rows.min() - 50) <= 1 and rows.max() == 99 and abs(columns.min() - 50) <= 1
    assert abs(columns.max() - 149) <= 1 and not image[75, 100].any()


def test_without_runs_nothing_is_shown() -> None:
    page = Page("nothing")
    before = page.html()
    encoder_images.show_neighbors(page, Results((), 1, 2, 0.0), ["a"])
    encoder_images.show_crops(page, Results((), 1, 2, 0.0), ["a"])
    assert page.html() == before
