"""The study of denoising steps: likenesses of planted images, a verdict that follows them, and one page."""

from pathlib import Path

import numpy as np
import pytest

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.drawing import SavedImage
from rizbin.generation.diffusion.sampling import GeneratedImage
from rizbin.generation.diffusion.text_to_image import Sampling
from rizbin.generation.film import Pixels
from rizbin.studies.denoising import Denoised, answer, fine_likeness, write_study
from tests.generation.diffusion.small_painters import flow_painter, painter

# A call of diffusers' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def blobs(number: int) -> Pixels:
    """Images that are alike to themselves alone."""
    return np.random.default_rng(number).integers(0, 255, (8, 8, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)


def planted(prompt: int, seed: int, coarse: list[float], fine: list[float]) -> Denoised:
    image = GeneratedImage(blobs(10 * prompt + seed), [], [], 0.0)
    return Denoised(SavedImage(Path(), f"prompt {prompt}", Sampling(seed=seed), image), tuple(coarse), tuple(fine))


def test_detail_is_what_squares_leave_out() -> None:
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    dotted = smooth.copy()
    dotted[::2, ::2] //= 2
    assert fine_likeness(dotted, dotted) == pytest.approx(1)
    assert fine_likeness(smooth, dotted) < 0.5
    assert fine_likeness(np.zeros_like(smooth), dotted) == 0
    image = planted(0, 0, [0.5, 0.95, 0.8, 0.95], [0.1, 0.2, 0.3, 0.95])
    assert image.settled(image.coarse) == 75, "what falls below again was not settled"
    assert image.settled(image.fine) == 75 and image.later == 0
    assert image.settled([1.0, 1.0]) == 0


def test_the_verdict_follows_the_numbers() -> None:
    early, late = [0.5, 0.95, 1.0, 1.0, 1.0], [0.1, 0.2, 0.5, 0.95, 1.0]

    def images(coarse: list[float], fine: list[float]) -> list[Denoised]:
        return [planted(prompt, seed, coarse, fine) for prompt in (0, 1) for seed in (0, 1, 2)]

    shown = answer(images(early, late), {0.2: 0.9, 0.8: 0.3})
    assert shown.kind == "shown" and "after 20 percent of the steps and detail after 60, 40 percent" in shown.reason
    assert shown.delivered.startswith(
        "Delivered: at the first step the predicted original has a coarse correlation of 0.50"
    )
    assert shown.sentences[-1].partition(" A strength of 1")[0].endswith("0.2: 0.90, 0.8: 0.30.")
    assert answer(images(late, early), {}).kind == "refuted here"
    assert answer(images(early, early), {}).kind == "refuted here", "an order of 5 percent is beyond the interval"
    decided = answer(images([0.95, 1.0], [0.1, 1.0]), {})
    assert decided.kind == "not testable here" and decided.delivered.startswith("Not delivered")
    one = answer([planted(prompt, 0, early, late) for prompt in (0, 1)], {})
    assert one.kind == "not testable here" and "(one seed)" in one.reason


def test_a_page_comes_out(tmp_path: Path) -> None:
    sampling = Sampling(steps=3, guidance_scale=3.0, scheduler="ddim")
    page = write_study(
        painter(), ["a zebra", "a frog"], tmp_path / "page.html", sampling=sampling, seeds=2, small="less"
    )
    text = page.read_text()
    assert 'data-verdict="' in text and "less" in text and text.count('class="step"') == 6
    for words in ("What is decided when", "Alpha bar", "From a start image", "strength 0.8", "The formulas"):
        assert words in text, words
    with pytest.raises(RizbinError, match="two prompts or more"):
        write_study(painter(), ["a zebra"], tmp_path / "b.html", sampling=sampling)
    with pytest.raises(RizbinError, match="has no UNet"):
        write_study(flow_painter(), ["a zebra", "a frog"], tmp_path / "c.html", sampling=sampling)
