"""The loader: the same pixels whatever the workers, processes and moment of resuming; refused samples replaced."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.data.loader import LoadedBatch, Loader
from rizbin.data.order import index_at
from rizbin.data.sample import Refused, Sample
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View

VIEWS = (
    View.Settings(size=16, crop_area=(0.3, 1.0), crop_ratio=(0.75, 1.33), flip=0.5, jitter=0.8, blur=0.5),
    View.Settings(size=8),
)
TOKENIZER = Tokenizer(Tokenizer.Settings(context=16))


@dataclass
class Numbers:
    """Pictures of one color whose red is their index; every `bad`-th cannot be used."""

    endless: bool = False
    length: int = 50
    bad: int = 0
    caption: str = "a cat"
    captions: tuple[str, ...] = ()
    name: str = "numbers"
    fingerprint: str = "numbers"
    categories: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if self.bad and index % self.bad == 0:
            raise Refused(f"number {index} is bad.")
        image = np.full((20, 24, 3), (index % 251, 0, 0), np.uint8)
        return Sample(str(index), image, self.caption, captions=self.captions)


def load(source: Numbers, *, batch: int = 8, steps: int = 4, **more) -> list[LoadedBatch]:
    return list(Loader(source, VIEWS, TOKENIZER, **({"seed": 3, "batch": batch, "steps": steps} | more)))


def assert_equal(ours: list[LoadedBatch], theirs: list[LoadedBatch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
        assert torch.equal(one.crops, other.crops) and torch.equal(one.flips, other.flips)
        assert one.texts is not None and other.texts is not None and torch.equal(one.texts, other.texts)
        assert one.positions == other.positions and one.refused == other.refused


@pytest.mark.parametrize("source", [Numbers(bad=25), Numbers(endless=True, bad=25)], ids=["finite", "endless"])
def test_workers_change_nothing(source: Numbers) -> None:
    assert_equal(load(source), load(source, workers=2))


def test_resuming_changes_nothing() -> None:
    assert_equal(load(Numbers())[2:], load(Numbers(), start_step=2))
    assert load(Numbers(), start_step=4) == []


@pytest.mark.parametrize("endless", [False, True])
def test_processes_together_make_the_batch_of_one(endless: bool) -> None:
    source = Numbers(endless=endless, bad=25)
    parts = [load(source, rank=rank, world=4) for rank in range(4)]
    for step, batch in enumerate(load(source)):
        for view in range(2):
            assert torch.equal(batch.views[view], torch.cat([part[step].views[view] for part in parts]))
        assert torch.equal(batch.crops, torch.cat([part[step].crops for part in parts], dim=1))
        assert batch.positions == [position for part in parts for position in part[step].positions]


def test_seeds_change_views_and_order() -> None:
    ours, other = load(Numbers()), load(Numbers(), seed=4)
    assert not torch.equal(ours[0].crops[0], other[0].crops[0])
    assert (
        len({tuple(crop) for batch in ours for crop in batch.crops[0].tolist()}) == 32
    )  # and every position has its own
    assert not torch.equal(ours[0].views[1], other[0].views[1])


def test_finite_sources_are_read_once_an_epoch() -> None:
    batches = load(Numbers(length=16), batch=8, steps=4)
    reds = [int(red) for batch in batches for red in batch.views[1][:, 0, 0, 0]]
    assert reds == [index_at(3, position, 16) for position in range(32)]
    assert sorted(reds[:16]) == sorted(reds[16:]) == list(range(16))


def test_endless_sources_are_read_by_position() -> None:
    batches = load(Numbers(endless=True), batch=8, steps=3)
    assert [int(red) for batch in batches for red in batch.views[1][:, 0, 0, 0]] == list(range(24))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    load(Numbers(), workers=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_shapes_and_ranges() -> None:
    (batch,) = load(Numbers(caption="a very " * 20), steps=1)
    assert [tuple(view.shape) for view in batch.views] == [(8, 16, 16, 3), (8, 8, 8, 3)]
    assert batch.crops.shape == (2, 8, 4) and batch.flips.shape == (2, 8)
    assert batch.texts is not None and batch.texts.shape == (8, 16) and (batch.texts[:, -1] == TOKENIZER.end).all()
    assert torch.equal(batch.crops[1], torch.tensor([2 / 24, 0, 22 / 24, 1]).expand(8, 4))


def test_without_a_tokenizer_captions_do_not_matter() -> None:
    batch = next(iter(Loader(Numbers(caption=""), VIEWS, None, seed=0, batch=4, steps=1)))
    assert batch.texts is None and batch.refused == []


def test_one_of_several_captions_is_taken_each_time() -> None:
    source = Numbers(length=8, caption="a cat", captions=("a cat", "a dog"))
    rows = [row for batch in load(source, steps=12) if batch.texts is not None for row in batch.texts.tolist()]
    cats = rows.count(TOKENIZER.trim(TOKENIZER.encode(["a cat"]))[0].tolist())
    assert 28 <= cats <= 68 and len(rows) == 96  # Binomial(96, 1/2), four deviations


def test_refused_samples_are_replaced_and_listed() -> None:
    batches = load(Numbers(length=200, bad=50), steps=25)
    refused = [entry for batch in batches for entry in batch.refused]
    assert 4 <= len(refused) <= 8 and refused[0][1].startswith("number ") and refused[0][0].startswith("sample ")
    reds = [int(red) for batch in batches for red in batch.views[1][:, 0, 0, 0]]
    assert len(reds) == 200 and not {0, 50, 100, 150} & set(reds)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_refused_in_a_row_stop_the_run(workers: int) -> None:
    with pytest.raises(RizbinError, match=r"^101 images of numbers in a row cannot be used.*number \d+ is bad\.$"):
        load(Numbers(bad=1, length=500), workers=workers)


def test_too_large_a_share_refused_stops_the_run() -> None:
    """Files are counted and not draws: the same ones come again in every epoch."""
    with pytest.raises(
        RizbinError, match=r"^2\d of the \d+ images of numbers looked at, of 1000 in all, cannot be used"
    ):
        load(Numbers(length=1000, bad=10), steps=60)
    assert len(load(Numbers(length=1000, bad=10), steps=10)) == 10  # 20 bad ones can be looked at by eye
    assert len(load(Numbers(length=200, bad=50), steps=100)) == 100  # 2 percent are tolerated, in every epoch
    assert len(load(Numbers(length=1000, bad=10), steps=60, tolerate=0.2)) == 60
    for tolerate in (-0.1, 1.5):
        with pytest.raises(RizbinError, match="from 0 to 1"):
            load(Numbers(), tolerate=tolerate)


@pytest.mark.parametrize("workers", [0, 1])
def test_small_data_have_a_rule_of_their_own(workers: int) -> None:
    """Of ten images half may be bad, and every other one is then in the batches; of more it is said how many."""
    batches = load(Numbers(length=10, bad=2), steps=20, workers=workers)
    reds = {int(red) for batch in batches for red in batch.views[1][:, 0, 0, 0]}
    assert reds == {1, 3, 5, 7, 9}
    assert len({name for batch in batches for name, _ in batch.refused}) == 5
    most = MostlyBad(length=9)
    with pytest.raises(
        RizbinError, match=r"^\d of the 9 images of numbers cannot be used.*--tolerate (0\.\d|1) trains"
    ):
        load(most, steps=20, workers=workers)
    assert len(load(most, steps=20, workers=workers, tolerate=1.0)) == 20
    with pytest.raises(
        RizbinError, match=r"^None of the 12 images of numbers can be used.*first reason: number \d+ is bad"
    ):
        load(Numbers(length=12, bad=1), workers=workers)


class MostlyBad(Numbers):
    """Two of three cannot be used."""

    def __getitem__(self, index: int) -> Sample:
        if index % 3:
            raise Refused(f"number {index} is bad.")
        return super().__getitem__(index)


def test_sources_without_captions_say_so() -> None:
    with pytest.raises(RizbinError, match="has no caption"):
        load(Numbers(caption=" "))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(RizbinError, match="a batch of 8 cannot be shared evenly by 3 processes"):
        load(Numbers(), world=3)
    with pytest.raises(RizbinError, match="holds no samples"):
        load(replace(Numbers(), length=0))
