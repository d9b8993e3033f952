"""The page of a film: what each step keeps is what guidance and the schedule say, and the page shows all of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rizbin.generation.diffusion.drawing import SavedImage
from rizbin.generation.diffusion.spans import spans_of
from rizbin.generation.diffusion.text_to_image import ComposedPrompt, Sampling
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.reports.film import write_film
from rizbin.reports.film_steps import SIDE, as_noise, mass, small
from tests.generation.diffusion.small_painters import flow_painter, painter

# A call of diffusers' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("scheduler", ["own", "ddim", "euler", "dpm++", "heun"])
def test_a_frame_keeps_what_guidance_combined(scheduler: str) -> None:
    """The predicted original is linear in the prediction, so guidance combines it as it combines the noise."""
    sampling = Sampling(steps=4, guidance_scale=3.0, scheduler=scheduler)
    for frame in painter().paint("a zebra", sampling).frames:
        assert frame.noisy is not None and frame.signal is not None and frame.noise_change is not None
        assert frame.with_prompt is not None and frame.without_prompt is not None
        combined = frame.without_prompt + 3.0 * (frame.with_prompt - frame.without_prompt)
        torch.testing.assert_close(frame.clean, combined, rtol=1e-3, atol=1e-3)
        assert 0 < frame.signal < 1 and frame.noise_change > 0
    signals = [frame.signal or 0.0 for frame in painter().paint("a zebra", sampling).frames]
    assert signals == sorted(signals), "from noise to picture"


def test_without_guidance_there_is_nothing_to_combine() -> None:
    plain = painter().paint("a zebra", Sampling(steps=2, guidance_scale=1.0)).frames[0]
    assert plain.with_prompt is None and plain.noise_change is None and plain.noisy is not None
    both = painter().paint("both", Sampling(steps=2, guidance_scale=3.0), guide=ComposedPrompt(("a zebra", "a frog")))
    assert both.frames[0].with_prompt is None and both.frames[0].signal is not None
    flow = flow_painter().paint("a zebra", Sampling(steps=1, height=32, width=32)).frames[0]
    assert flow.noisy is None and flow.signal is None, "its pipeline runs by itself"


def drawn(tmp_path: Path, prompt: str, *, start: np.ndarray | None = None, attend: int = 8) -> SavedImage:
    sampling = Sampling(steps=5, guidance_scale=3.0, strength=0.6)
    return SavedImage(
        tmp_path / "0000.png", prompt, sampling, painter().paint(prompt, sampling, start=start, attend=attend)
    )


def test_the_page_shows_every_step_the_schedule_and_the_words(tmp_path: Path) -> None:
    start = np.full((32, 32, 3), 90, np.uint8)
    image = drawn(tmp_path, "a zebra and a frog", start=start)
    grid = np.full((40, 60, 3), 9, np.uint8)
    page = write_film(painter(), [image], start, tmp_path / "film.html", grid=grid).read_text()
    assert page.count('class="step"') == len(image.painted.frames) == 3
    for words in (
        "the noisy latent xₜ, decoded",
        "the predicted original x̂₀",
        "the predicted noise",
        "x̂₀ without the prompt",
        "x̂₀ with the prompt, before guidance",
        "where &quot;frog&quot; is read",
        "Alpha bar",
        "Sigma",
        "a strength of 0.6 enters here",
        "What the prompt changes",
        "Attention that each word has",
        "a (2)",
        "Strength and guidance",
        "ε̂(∅) + s (ε̂(c) - ε̂(∅))",
    ):
        assert words in page, words
    assert 'src="http' not in page and "default-src 'none'" in page


def test_a_film_without_attention_or_schedule_is_still_a_page(tmp_path: Path) -> None:
    image = drawn(tmp_path, "a zebra", attend=0)
    assert "Attention that each word" not in write_film(painter(), [image], None, tmp_path / "a.html").read_text()
    sampling = Sampling(steps=2, height=32, width=32)
    flow = SavedImage(tmp_path / "b.png", "a zebra", sampling, flow_painter().paint("a zebra", sampling))
    page = write_film(flow_painter(), [flow], None, tmp_path / "b.html").read_text()
    assert "The noise schedule" not in page and page.count('class="step"') == 2


def test_mass_is_the_share_of_all_attention(tmp_path: Path) -> None:
    image = drawn(tmp_path, "a zebra")
    frame = image.painted.frames[0]
    assert frame.attention is not None
    total = float(frame.attention.sum(dim=-1).mean())
    assert total == pytest.approx(1, abs=1e-3)
    (span,), _ = spans_of("a zebra", ["zebra"], painter().pipeline.tokenizer)
    assert 0 < mass(frame, span) < 100


def test_noise_is_gray_at_zero_and_pictures_are_bounded() -> None:
    assert (as_noise(np.zeros((3, 2, 2))) == 128).all()
    assert as_noise(np.full((3, 1, 1), 9.0)).max() == 255 and as_noise(np.full((1, 1, 1), -9.0)).shape == (1, 1, 3)
    assert small(np.zeros((600, 300, 3), np.uint8)).shape == (SIDE, SIDE // 2, 3)
    assert small(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30, 3)


def test_steps_are_all_there_without_a_script() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    page = Page("Steps")
    page.steps(
        [("step <1>", [PageImage(image=pixels, alt="first")]), ("step 2", [PageImage(image=pixels, alt="second")])]
    )
    page.steps([])
    html = page.html()
    assert "step &lt;1&gt;" in html and 'alt="second"' in html and html.count('<section class="steps') == 1
