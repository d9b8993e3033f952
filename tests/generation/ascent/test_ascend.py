"""The loop: same bits, other chunks, other neighbors, going on, and stopping before what is no number."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.ascend import Ascended, AscentDiverged, AscentFrame, ascend, variation
from rizbin.generation.ascent.augment import Augment
from rizbin.generation.ascent.settings import PRESETS, AscentSettings
from rizbin.generation.ascent.targets import ImageTarget, TextTarget
from tests.generation.ascent.toy_encoders import Broken, Wordless, toy

QUICK = AscentSettings(steps=6, copies=3, size=16, augment=Augment(shift=0.1, noise=0.05))
WISHES = [[TextTarget(text="a fox")], [TextTarget(text="a bee"), TextTarget(text="a bus", weight=-0.3)]]
FORMS: list[Any] = ["resolutions", "fourier", "pixels", "strokes"]


def equal(one: Ascended, other: Ascended) -> bool:
    return torch.equal(one.exact, other.exact) and one.scores == other.scores


@pytest.mark.parametrize("form", FORMS)
def test_it_climbs_and_the_same_seed_gives_the_same_bits(form: Any) -> None:
    settings = replace(QUICK, parametrization=form, steps=12, strokes=4)
    made, again = (ascend([toy()], WISHES, settings=settings) for _ in range(2))
    assert equal(made, again)
    assert all(last > first for first, last in zip(made.scores[0], made.scores[-1], strict=True))
    other = ascend([toy()], WISHES, settings=replace(settings, seed=1))
    assert not torch.equal(made.exact, other.exact)
    assert made.images[0].shape == (16, 16, 3) and made.images[0].dtype == np.uint8


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "sign"])
def test_every_optimizer_climbs(optimizer: Any) -> None:
    rate = {"sgd": 5.0, "adam": 0.1, "sign": 0.02}[optimizer]
    made = ascend([toy()], WISHES, settings=replace(QUICK, optimizer=optimizer, learning_rate=rate, steps=15))
    assert np.mean(made.scores[-1]) > np.mean(made.scores[0]) + 0.05


def test_neither_chunks_nor_neighbors_change_the_picture() -> None:
    """Up to the rounding of sums in another order; plain descent, since Adam makes signs of what is nearly nothing."""
    settings = replace(QUICK, optimizer="sgd", learning_rate=2.0)
    whole = ascend([toy()], WISHES, settings=settings)
    for chunk in (1, 2, 4):
        parts = ascend([toy()], WISHES, settings=replace(settings, chunk=chunk))
        assert (parts.exact - whole.exact).abs().max() < 1e-5, chunk
    alone = ascend([toy()], WISHES[1:], settings=settings)
    assert (alone.exact - whole.exact[1:]).abs().max() < 1e-5


def test_several_encoders_share_the_score() -> None:
    one, two = toy(0), toy(1, size=8)
    both = ascend([one, two], WISHES[:1], settings=QUICK)
    alone = [ascend([encoder], WISHES[:1], settings=replace(QUICK, steps=1)).scores[0][0] for encoder in (one, two)]
    assert abs(both.scores[0][0] - sum(alone) / 2) < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_was_stopped_goes_on_with_the_same_bits(optimizer: Any, tmp_path: Path) -> None:
    settings = replace(QUICK, optimizer=optimizer)
    whole = ascend([toy()], WISHES, settings=settings)
    stopped = ascend([toy()], WISHES, settings=settings, folder=tmp_path, stop_after=4)
    assert stopped.steps == 4
    seen: list[int] = []
    gone_on = ascend([toy()], WISHES, settings=settings, folder=tmp_path, watch=lambda frame: seen.append(frame.step))
    assert seen == [5, 6] and equal(gone_on, whole)
    assert [frame.step for frame in gone_on.frames] == [frame.step for frame in whole.frames]
    for one, other in zip(gone_on.frames, whole.frames, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True))
    more = replace(settings, seed=3)
    other = ascend([toy()], WISHES, settings=more, folder=tmp_path, watch=lambda frame: seen.append(frame.step))
    assert other.steps == 6 and seen[2:] == [1, 2, 3, 4, 5, 6], "another picture is not gone on with"


def test_a_score_that_is_no_number_stops_it_with_the_last_good_picture() -> None:
    with pytest.raises(AscentDiverged, match=r"not finite at step 2.*step 1 is kept") as stopped:
        ascend([Broken()], [[TextTarget(text="a fox")]], settings=replace(QUICK, copies=2, chunk=1, optimizer="sgd"))
    kept = stopped.value.last_good
    assert kept.steps == 1 and torch.isfinite(kept.exact).all() and kept.images[0].shape == (16, 16, 3)


def test_it_tells_the_time_and_every_step() -> None:
    said: list[str] = []
    seen: list[AscentFrame] = []
    made = ascend([toy()], WISHES, settings=QUICK, say=said.append, watch=seen.append)
    assert len(said) == 1 and "6 steps of" in said[0] and said[0].startswith("about")
    assert [frame.step for frame in seen] == [1, 2, 3, 4, 5, 6] and len(seen[0].images) == 2
    assert made.frames[0].step == 1 and made.frames[-1].step == 6 and len(made.frames) <= 10
    assert np.array_equal(made.frames[-1].images[0], made.images[0])


def test_a_start_a_mask_and_a_bound_are_kept() -> None:
    start, mask = torch.rand(1, 3, 16, 24), torch.zeros(1, 16, 24)
    mask[:, :, 12:] = 1
    made = ascend([toy()], WISHES, settings=replace(QUICK, size=0, change=0.2), start=start, mask=mask)
    assert made.exact.shape == (2, 3, 16, 24)
    assert torch.equal(made.exact[..., :12], start.expand(2, -1, -1, -1)[..., :12])
    moved = (made.exact - start).abs()
    assert 0.001 < moved.max() < 0.21
    with pytest.raises(RizbinError, match=r"mask has 16x16 pixels and the image 24x16"):
        ascend([toy()], WISHES, settings=QUICK, start=start, mask=mask[..., :16])
    with pytest.raises(RizbinError, match="3 start images do not fit 2"):
        ascend([toy()], WISHES, settings=QUICK, start=start.repeat(3, 1, 1, 1))


def test_the_canvas_may_be_larger_than_what_the_encoder_sees() -> None:
    made = ascend([toy(size=8)], WISHES, settings=replace(QUICK, size=40))
    assert made.images[0].shape == (40, 40, 3) and (made.exact[0] - 0.5).abs().max() > 0.05
    room = ascend(
        [toy(size=16)], WISHES, settings=replace(QUICK, size=0, steps=1, room=True, augment=Augment(shift=0.25))
    )
    assert room.images[0].shape == (24, 24, 3), "the encoder's side and a shift at each edge"
    assert ascend([toy()], WISHES, settings=replace(QUICK, size=0, steps=1)).images[0].shape == (16, 16, 3)


def test_a_stranger_with_two_methods_is_enough() -> None:
    picture = torch.rand(3, 8, 8)
    # A random picture is nothing but grain.
    made = ascend([Wordless()], [[ImageTarget(image=picture)]], settings=replace(QUICK, size=8, steps=20, smooth=0.0))
    assert made.scores[-1][0] > made.scores[0][0]
    with pytest.raises(RizbinError, match="reads no words"):
        ascend([Wordless()], [[TextTarget(text="a fox")]], settings=QUICK)
    with pytest.raises(RizbinError, match="No encoder"):
        ascend([], WISHES, settings=QUICK)


def test_presets_run_and_the_papers_is_the_papers() -> None:
    paper = PRESETS["paper"]()
    assert (paper.copies, paper.steps, paper.learning_rate, paper.optimizer) == (32, 100, 0.2, "sgd")
    assert (paper.resolutions, paper.augment.noise, paper.augment.shift, paper.room) == ("all", 0.2, 0.25, True)
    assert (paper.decay, paper.apart, paper.smooth) == (0.0, False, 0.0)
    assert PRESETS["default"]() == AscentSettings() and PRESETS["adversarial"]().augment.noise == 0
    for make in PRESETS.values():
        made = ascend([toy()], WISHES[:1], settings=replace(make(), steps=1, copies=2, size=16))
        assert made.steps == 1


def test_variation_is_the_mean_difference_of_neighbors() -> None:
    flat = torch.full((1, 3, 6, 6), 0.3)
    board = (torch.arange(6)[:, None] + torch.arange(6)).remainder(2).float().expand(1, 3, 6, 6)
    edge = torch.zeros(1, 3, 6, 6)
    edge[..., 3:] = 1
    found = variation(torch.cat([flat, board, edge]))
    # One of five steps across is an edge, none of those down. Flat color has the little that rounds the corner.
    assert torch.allclose(found, torch.tensor([0.01, 1.0, (0.2 + 0.8 * 0.01 + 0.01) / 2]), atol=1e-4)
    shown = torch.rand(2, 3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(variation, shown)


def test_smoothness_costs_grain_and_leaves_the_start_alone() -> None:
    start = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def added(smooth: float) -> float:
        made = ascend([toy()], WISHES[:1], settings=replace(QUICK, smooth=smooth, steps=30), start=start)
        return float(variation(made.exact - start))

    grainy, smoothed, nothing = added(0.0), added(6.0), added(1000.0)
    assert grainy > 1.5 * smoothed > 3 * nothing and nothing < 0.02, "a grainy start is no grain of ours"


def test_settings_are_checked() -> None:
    wrongs: list[dict[str, Any]] = [{"steps": 0}, {"copies": 0}, {"chunk": 0}, {"change": 0.0}, {"size": 4}]
    for wrong in [*wrongs, {"learning_rate": 0.0}, {"smooth": -1.0}, {"smooth": float("nan")}]:
        with pytest.raises(RizbinError, match="give"):
            AscentSettings(**wrong)
    with pytest.raises(RizbinError, match="canvas of 16x1 pixels"):
        ascend([toy()], WISHES[:1], settings=QUICK, start=torch.rand(1, 3, 1, 16))


def test_memory_does_not_grow_with_copies() -> None:
    """Bytes that the graph keeps for the way back, of 32 copies in chunks of 4: those of one chunk."""

    def kept(copies: int, chunk: int) -> int:
        largest = now = 0

        def pack(value: torch.Tensor) -> tuple[torch.Tensor, Any]:
            nonlocal largest, now
            size = value.numel() * value.element_size()
            now += size
            largest = max(largest, now)

            class Freed:
                def __del__(self) -> None:
                    nonlocal now
                    now -= size

            return value, Freed()

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed[0]):
            ascend([toy()], WISHES[:1], settings=replace(QUICK, steps=1, copies=copies, chunk=chunk))
        return largest

    one_chunk, many, at_once = kept(4, 4), kept(32, 4), kept(32, 32)
    assert many < 1.2 * one_chunk and at_once > 4 * many
