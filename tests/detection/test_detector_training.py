"""Teaching: what a crop still shows, whose text is whose, and that it learns, resumes and stops as methods do."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.sample import Named
from rizbin.data.views import View
from rizbin.detection.average_precision import Boxes, average_precision
from rizbin.detection.train import GroundingDINOTraining, in_view
from rizbin.training.method import Batch, Progress
from rizbin.training.trainer import Trainer
from tests.detection.toys import PAINTS, TINY, Shapes

SMALL = GroundingDINOTraining.Settings(names=Shapes.categories, size=TINY, image_size=64, negatives=4)


def made(settings: GroundingDINOTraining.Settings = SMALL, seed: int = 0) -> GroundingDINOTraining:
    torch.manual_seed(seed)
    return GroundingDINOTraining(settings)


def trainer(steps: int) -> Trainer:
    settings = Trainer.Settings(learning_rate=1e-3, clip=1.0)
    return Trainer(settings, batch=4, steps=steps, checkpoint_every=3, seed=5)


def test_boxes_follow_the_crop_and_the_mirror() -> None:
    things = [
        Named("cat", (0.2, 0.2, 0.4, 0.6)),
        Named("dog", (0.0, 0.0, 0.3, 0.3)),
        Named("bus", (0.9, 0.9, 1.0, 1.0)),
    ]
    crop = torch.tensor([0.2, 0.1, 0.6, 0.9])
    (cat,) = in_view(things, crop, False)  # a ninth of the dog is left, and nothing of the bus
    assert cat[0] == "cat" and torch.allclose(cat[1], torch.tensor([0.25, 0.375, 0.5, 0.5]))
    ((_, mirrored),) = in_view(things, crop, True)
    assert torch.allclose(mirrored, torch.tensor([0.75, 0.375, 0.5, 0.5]))
    whole = in_view(things, torch.tensor([0.0, 0.0, 1.0, 1.0]), False)
    assert [name for name, _ in whole] == ["cat", "dog", "bus"]


def test_boxes_lie_on_what_they_name() -> None:
    """Through the loader's own crops and mirrors: the middle of a disc's or square's box has its color."""
    method = made(replace(SMALL, view=View.Settings(crop_area=(0.4, 1.0), crop_ratio=(0.7, 1.4), flip=0.5)))
    source, right, wrong = Shapes(), 0, 0
    for step in range(20):
        raw, batch = trainer(20).batch_of(method, source, step)
        for row, things in enumerate(batch.objects):
            for name, box in in_view(things, batch.crops[0, row], bool(batch.flips[0, row])):
                color, form = name.split()
                if form == "triangle":
                    continue  # the middle of its box may lie beside what is left of it
                x, y = (box[:2] * 64).long().clamp(0, 63).tolist()
                pixel = raw.views[0][row, y, x].int().numpy()
                nearest = min(PAINTS, key=lambda one: float(np.abs(pixel - np.array(PAINTS[one])).sum()))
                right, wrong = right + (nearest == color), wrong + (nearest != color)
    # Others hide the middle now and then; boxes that did not follow would be right in a quarter.
    assert right > 50 and right > 6 * wrong


def drawn(step: int) -> torch.Tensor:
    return Progress(step, 400, 0).uniform("names", 1, 3 + 2 * len(Shapes.categories), torch.device("cpu"))[0]


def test_each_text_names_what_is_there_and_some_of_what_is_not() -> None:
    method = made(replace(SMALL, alone=0.0))
    orders, counts = set(), set()
    for step in range(40):
        text = method._text(["red disc", "blue square", "red disc", "elephant"], drawn(step))
        names = [method.phrases[span.phrase].name for span in text.spans]
        assert {"red disc", "blue square"} <= set(names) and len(names) == len(set(names))
        orders.add(tuple(names))
        counts.add(len(names))
    assert len(orders) > 30 and counts == {2, 3, 4, 5, 6}, "from none to four that are not there"
    assert 1 <= len(method._text([], drawn(0)).spans) <= 4, "a text is never empty"
    none = made(replace(SMALL, negatives=0, alone=0.0))
    assert len(none._text([], drawn(0)).spans) == 1


def test_some_pictures_are_asked_for_one_name_alone() -> None:
    method = made(replace(SMALL, alone=0.5))
    there = absent = several = 0
    for step in range(400):
        text = method._text(["red disc", "blue square"], drawn(step))
        name = method.phrases[text.spans[0].phrase].name
        several += len(text.spans) > 1
        there += len(text.spans) == 1 and name in ("red disc", "blue square")
        absent += len(text.spans) == 1 and name not in ("red disc", "blue square")
    assert 160 < several < 240 and 70 < there < 130 and 70 < absent < 130
    everything = [method._text(list(Shapes.categories), drawn(step)) for step in range(20)]
    assert {len(text.spans) for text in everything} == {1, len(Shapes.categories)}, "nothing is absent: a name there"


def test_names_come_from_the_data_and_some_can_be_held_out() -> None:
    completed = GroundingDINOTraining.completed(
        GroundingDINOTraining.Settings(held_out=("red disc",)), Shapes.categories
    )
    assert set(completed.names) == set(Shapes.categories) - {"red disc"}
    assert GroundingDINOTraining.completed(
        GroundingDINOTraining.Settings(names=("a", "b")), Shapes.categories
    ).names == ("a", "b")
    with pytest.raises(RizbinError, match="unicorn is to be held out"):
        GroundingDINOTraining.completed(GroundingDINOTraining.Settings(held_out=("unicorn",)), Shapes.categories)


def test_a_text_that_is_full_leaves_names_out_and_their_boxes_with_them() -> None:
    method = made(replace(SMALL, size=replace(TINY, text_tokens=8)))  # two names of two words
    batch = trainer(2).batch_of(method, Shapes(), 0)[1]
    (wish,) = method.step(batch, Progress(0, 2))
    assert torch.isfinite(wish.loss)
    method.settings = replace(method.settings, alone=0.0)
    assert len(method._text(list(Shapes.categories), drawn(0)).spans) == 2


def test_a_picture_of_nothing_teaches_too() -> None:
    method = made()
    batch = trainer(2).batch_of(method, Shapes(), 0)[1]
    empty = Batch(batch.views, batch.crops, batch.flips, None, [() for _ in batch.objects])
    (wish,) = method.step(empty, Progress(0, 2))
    assert wish.loss > 0 and wish.records["l1"] == 0


def test_frozen_parts_rest(tmp_path: Path) -> None:
    method = made(replace(SMALL, freeze=("text", "backbone")))
    before = {name: value.clone() for name, value in method.named_parameters()}
    trainer(2).fit(method, Shapes(), folder(tmp_path / "run"), quiet=True)
    for name, value in method.named_parameters():
        rests = ".text_backbone." in name or ".backbone." in name
        assert torch.equal(value, before[name]) or not rests, name
    moved = [name for name, value in method.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > 100


@pytest.mark.parametrize("kind", ["sgd", "lars"])
def test_parts_learn_at_their_share_of_the_rate(kind: Literal["sgd", "lars"]) -> None:
    """Optimizers whose step is as long as the rate says; those of the rest do not notice."""
    engine = Trainer(
        Trainer.Settings(optimizer=kind, momentum=0.0, weight_decay=0.0), batch=4, steps=9, checkpoint_every=9, seed=5
    )
    batch, moved = engine.batch_of(made(), Shapes(), 0)[1], []
    for rates in ({}, {"text_rate": 0.1, "backbone_rate": 0.5}):
        method = made(replace(SMALL, **rates)).train()
        before = {name: value.detach().clone() for name, value in method.named_parameters()}
        engine.step(method, engine.optimizers(method), batch, 4)
        moved.append({name: value.detach() - before[name] for name, value in method.named_parameters()})
    kinds = set()
    for name, whole in moved[0].items():
        share = 0.1 if ".text_backbone." in name else 0.5 if ".backbone." in name else 1.0
        # Differences of 32-bit weights near 1.
        assert torch.allclose(moved[1][name], share * whole, rtol=1e-2, atol=2e-7), name
        kinds |= {share} if whole.abs().max() > 1e-5 else set()
    assert kinds == {0.1, 0.5, 1.0}


def folder(path: Path) -> RunFolder:
    run = RunFolder(path)
    run.create_or_resume({"a": "test"})
    return run


def test_stopped_after_three_of_six_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = made()
    trainer(6).fit(straight, Shapes(), folder(tmp_path / "straight"), quiet=True)
    first = made()
    trainer(6).fit(first, Shapes(), folder(tmp_path / "two"), quiet=True, until=3)
    again = made(seed=9)
    trainer(6).fit(again, Shapes(), folder(tmp_path / "two"), quiet=True)
    for (name, one), other in zip(straight.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_names_and_start_are_checked(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="no two names"):
        made(replace(SMALL, names=("cat",)))
    method = made()
    method.detector().save(tmp_path / "kept")
    on = made(replace(SMALL, start=str(tmp_path / "kept"), names=("red disc", "blue disc")))
    assert torch.equal(on.model.model.level_embed, method.model.model.level_embed)
    with pytest.raises(RizbinError, match=r'does not know the words of 1 of 2 names \("cat"\)'):
        made(replace(SMALL, start=str(tmp_path / "kept"), names=("red disc", "cat")))


def average(method: GroundingDINOTraining, pictures: int = 60) -> float:
    """AP50 on pictures that were not learned from."""
    names = list(Shapes.categories)
    samples = [Shapes(10**6)[index] for index in range(pictures)]
    found = method.eval().detector().detect([one.image for one in samples], names, batch=20)
    truths = [
        Boxes(
            np.array([thing.box for thing in one.objects], float).reshape(-1, 4),
            np.array([names.index(thing.name) for thing in one.objects], int),
        )
        for one in samples
    ]
    return average_precision(truths, [one.pairs() for one in found])["ap50"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1])
def test_from_nothing_it_finds_things_after_six_hundred_steps(seed: int, tmp_path: Path) -> None:
    """The 1.3 million parameters of the defaults, batches of 16: seven minutes of one core a seed.

    60 is asked. 77.3 and 79.1 were measured, so less than 70 is a fault; a prototype with transformers' own loss had 6
    and 13 (docs/LOG.md).
    """
    method = made(GroundingDINOTraining.Settings(names=Shapes.categories), seed)
    settings = Trainer.Settings(learning_rate=2e-3, clip=1.0, weight_decay=1e-4, warmup=0.1)
    Trainer(settings, batch=16, steps=600, checkpoint_every=600, seed=seed).fit(
        method, Shapes(), folder(tmp_path / "run"), quiet=True
    )
    assert average(method) >= 0.7
