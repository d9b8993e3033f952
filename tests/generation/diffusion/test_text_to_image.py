"""Painting with a small untrained model: bad input, sizes, words that are too long, what a guide and a film see."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image
from rizbin.generation.diffusion import drawing
from rizbin.generation.diffusion.attention_guidance import (
    GUIDANCE_KINDS,
    FirstNoise,
    GuidanceKind,
    Steering,
    resolution_of,
    steering,
)
from rizbin.generation.diffusion.drawing import predicted_images
from rizbin.generation.diffusion.guidance import Guidance
from rizbin.generation.diffusion.loading import load_pipeline
from rizbin.generation.diffusion.noise import InitialNoise
from rizbin.generation.diffusion.text_to_image import ComposedPrompt, Sampling, StepState, TextToImage, seed_after
from rizbin.generation.film import chosen, sheet, write_gif
from tests.generation.diffusion.small_painters import flow_painter, painter, patched_painter

QUICK = Sampling(steps=2, guidance_scale=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pipeline") / "small"
    painter().pipeline.save_pretrained(where)
    return where


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "0 steps draw nothing"),
        ({"strength": 1.5}, "strength of 1.5 is outside 0"),
        ({"strength": -0.1}, "strength of -0.1 is outside 0"),
        ({"guidance_scale": -1.0}, "guidance of -1 would draw the opposite"),
        ({"height": -8}, "Height and width are pixels"),
        ({"guidance_scale": float("nan")}, "guidance of nan cannot be followed"),
        ({"guidance_scale": float("inf")}, "guidance of inf cannot be followed"),
        ({"guidance_scale": 1e38}, "not finite"),
        ({"strength": float("nan")}, "strength of nan is outside 0"),
        ({"seed": 2**64}, "more than 64 bits"),
        ({"seed": -(2**63) - 1}, "more than 64 bits"),
        ({"steps": 2000, "scheduler": "ddim"}, "cannot make 2000 steps"),
    ],
)
def test_settings_out_of_range_are_said(change: dict, says: str) -> None:
    with pytest.raises(RizbinError, match=says):
        painter().paint("a zebra", Sampling(**change))


def test_the_last_seeds_draw_and_those_after_them_begin_again() -> None:
    for seed in (2**64 - 1, -(2**63)):
        painter().paint("a zebra", Sampling(steps=1, seed=seed))
    assert [seed_after(2**64 - 1, 1), seed_after(2**64 - 2, 1), seed_after(-3, 1)] == [0, 2**64 - 1, -2]


def test_more_seeds_than_there_are_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="need more than 64 bits"):
        drawing.draw(painter(), ["a zebra"], tmp_path, sampling=replace(QUICK, seed=2**64 - 2), count=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("steps", "strength"), [(10, 0.05), (1, 0.99), (10, 0.0)])
def test_a_strength_that_makes_no_step_says_so(steps: int, strength: float) -> None:
    start = np.zeros((32, 32, 3), np.uint8)
    painted = painter().paint("a frog", Sampling(steps=steps, strength=strength), start=start)
    assert not painted.frames and len(painted.notes) == 1
    assert f"0 of {steps} steps" in painted.notes[0]
    assert not painter().paint("a frog", Sampling(steps=10, strength=0.1), start=start).notes


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0])
def test_a_scale_of_a_cure_that_is_no_number_is_said(scale: float) -> None:
    with pytest.raises(RizbinError, match="give a number, 0 or more"):
        steering(painter(), "a zebra and a frog", "iou", scale=scale)


def test_sizes_are_rounded_with_a_notice() -> None:
    painted = painter().paint("a zebra", Sampling(steps=1, height=30, width=45))
    assert painted.image.shape == (32, 48, 3)
    assert painted.notes == ["45x30 pixels became 48x32: this model draws multiples of 8."]
    assert painter().paint("a zebra", Sampling(steps=1, height=32, width=40)).notes == []


def test_a_start_picture_is_the_same_through_every_door(tmp_path: Path) -> None:
    one = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(one).save(tmp_path / "a.png")
    how = Sampling(steps=2, strength=0.5)
    first = painter().paint("a cat", how, start=one).image
    for start in (tmp_path / "a.png", Image.open(tmp_path / "a.png"), np.asfortranarray(one), one / 255):
        np.testing.assert_array_equal(painter().paint("a cat", how, start=start).image, first)
    with pytest.raises(RizbinError, match="the start image has float64 values from 0 to 255"):
        painter().paint("a cat", how, start=one.astype(float))


def test_a_picture_keeps_its_shape() -> None:
    start = np.zeros((64, 128, 3), np.uint8)
    assert painter().paint("a zebra", QUICK, start=start).image.shape == (32, 64, 3)


@pytest.mark.parametrize(
    "prompt", ["", "zebra", "a zebra and a zebra", "و یک گورخر و یک قورباغه", "and and , . !", "a zebra " * 200]
)
@pytest.mark.parametrize("guidance", GUIDANCE_KINDS)
def test_every_prompt_is_drawn_with_every_cure(prompt: str, guidance: GuidanceKind) -> None:
    """What guidance cannot find is said in a sentence; never an index error."""
    guide, notes = steering(painter(), prompt, guidance)
    painted = painter().paint(prompt, QUICK, guide=guide)
    assert painted.image.shape == (32, 32, 3)
    if guide is None and guidance != "none":
        assert any("drawn without" in note for note in notes)
    if len(prompt) > 1000:
        assert any("the rest is not drawn" in note for note in painted.notes)


def test_a_cure_moves_the_picture_and_leaves_the_weights() -> None:
    before = {name: value.clone() for name, value in painter().unet.state_dict().items()}
    guide, notes = steering(painter(), "a zebra and a frog", "attend-and-excite")
    assert isinstance(guide, Steering) and notes == []
    assert [span.word for span in guide.spans] == ["zebra", "frog"]
    plain = painter().paint("a zebra and a frog", QUICK)
    cured = painter().paint("a zebra and a frog", QUICK, guide=guide)
    assert (plain.image != cured.image).any()
    assert guide.records[0].get("updates", 0) >= 1
    assert all(torch.equal(value, before[name]) for name, value in painter().unet.state_dict().items())
    assert all(parameter.grad is None for parameter in painter().unet.parameters())


def test_the_cure_lowers_its_loss() -> None:
    """A small step along the gradient: the loss of the same maps afterwards is lower."""
    settings = Guidance.Settings(scale=0.05, steps=1.0, refinement=((0.0, 1.0),), most_refinements=6)
    guide, _ = steering(painter(), "a zebra and a frog", "center-distance", settings=settings)
    assert isinstance(guide, Steering)
    painter().paint("a zebra and a frog", Sampling(steps=1, guidance_scale=1.0), guide=guide)
    record = guide.records[0]
    assert record.get("last_loss", 0.0) < record.get("loss", 0.0)


def test_a_first_noise_is_searched_and_steps_go_on_from_it() -> None:
    settings = InitialNoise.Settings(rounds=2, updates=2, last_updates=3, cross_threshold=0.0, conflict_threshold=0.0)
    made = []
    for _ in range(2):
        guide, notes = steering(painter(), "a zebra and a frog", "initial-noise", settings=settings)
        assert isinstance(guide, FirstNoise) and notes == [] and len(guide.spans) == 2
        made.append(painter().paint("a zebra and a frog", QUICK, guide=guide))
        (record,) = guide.records
        assert (record["rounds"], record["passes"], record["note"]) == (2, 3 + 3 + 4, "")
    assert (made[0].image == made[1].image).all(), "the same seed, the same picture"
    assert (made[0].image != painter().paint("a zebra and a frog", QUICK).image).any()
    guide, _ = steering(painter(), "a zebra and a frog", "initial-noise")
    with pytest.raises(RizbinError, match="choose another guidance"):
        painter().paint("a zebra and a frog", QUICK, guide=guide, start=np.zeros((32, 32, 3), np.uint8))


def test_composed_prompts_pull_each_with_the_guidance_s_weight() -> None:
    """e_u + w (e_1 - e_u) + w (e_2 - e_u), by the network's own answers; one part is ordinary guidance."""
    guide, notes = steering(painter(), "a zebra and an eggplant", "compose")
    assert isinstance(guide, ComposedPrompt) and guide.parts == ("a zebra", "an eggplant") and notes == []
    whole = painter()
    scheduler = whole.pipeline.scheduler
    scheduler.set_timesteps(4)
    at, noise = scheduler.timesteps[0], torch.randn(1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    words = whole._read(guide.parts, "", 32, 32)
    assert len(words.given) == 2
    with torch.no_grad():
        one, other = (whole.words(part, "", 32, 32) for part in guide.parts)
        ask = [
            whole.unet(noise, at, encoder_hidden_states=text).sample for text in (one.without, one.given, other.given)
        ]
        found = whole.predict(scheduler, noise, at, words, 3.0)
    expected = ask[0] + 3 * (ask[1] - ask[0]) + 3 * (ask[2] - ask[0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    alone = whole.paint("whatever", QUICK, guide=ComposedPrompt(("a zebra",)))
    assert (alone.image == whole.paint("a zebra", QUICK).image).all()
    both = whole.paint("a zebra and an eggplant", QUICK, guide=guide, attend=8)
    assert both.frames[0].attention is None, "the prompt's words are not what was read"
    assert (both.image != alone.image).any()


def test_maps_are_those_of_the_words() -> None:
    """Each place's attention over the tokens sums to one, at the finest resolution of sixteen or below."""
    side = resolution_of(painter())
    assert side == 8
    painted = painter().paint("a zebra", QUICK, attend=side)
    for frame in painted.frames:
        assert frame.attention is not None and frame.attention.shape[:2] == (side, side)
        torch.testing.assert_close(frame.attention.sum(dim=-1), torch.ones(side, side), rtol=0, atol=1e-5)
    other = painter().paint("a frog", QUICK, attend=side).frames[0].attention
    first = painted.frames[0].attention
    assert first is not None and other is not None and not torch.equal(first, other)
    assert painter().paint("a zebra", QUICK).frames[0].attention is None


def test_a_guide_is_asked_before_each_step() -> None:
    steps = []

    def guide(moment: StepState) -> torch.Tensor:
        steps.append((moment.step, moment.steps, moment.words.given.shape[0]))
        return torch.zeros_like(moment.latents)

    painted = painter().paint("a zebra", Sampling(steps=3, guidance_scale=1.0), guide=guide)
    assert steps == [(0, 3, 1), (1, 3, 1), (2, 3, 1)]
    assert len(painted.frames) == 3


def test_too_large_for_the_memory_says_what_to_lower() -> None:
    """The processor's own failure, by a guide that asks for more than any machine has."""
    with pytest.raises(RizbinError, match="does not fit into memory; lower --height"):
        painter().paint("a zebra", QUICK, guide=lambda moment: torch.empty(2**50))

    def fails(moment: StepState) -> torch.Tensor:
        raise RuntimeError("another fault")

    with pytest.raises(RuntimeError, match="another fault"):
        painter().paint("a zebra", QUICK, guide=fails)


def test_films_and_records(tmp_path: Path) -> None:
    made = drawing.draw(painter(), ["a zebra", "../../etc/passwd"], tmp_path, sampling=QUICK, count=2, film=True)
    assert [one.file.name for one in made] == ["0000.png", "0001.png", "0002.png", "0003.png"]
    told = json.loads((tmp_path / "drawn.json").read_text())
    assert [one["seed"] for one in told] == [0, 1, 0, 1] and told[2]["prompt"] == "../../etc/passwd"
    assert (tmp_path / "0000-film.png").is_file()
    with Image.open(tmp_path / "0000.gif") as moving:
        assert getattr(moving, "n_frames", 1) == 3
    np.testing.assert_array_equal(read_image(tmp_path / "0003.png"), made[3].painted.image)
    with pytest.raises(RizbinError, match="0 images are none"):
        drawing.draw(painter(), ["a zebra"], tmp_path, sampling=QUICK, count=0)


def test_a_strip_has_the_first_step_and_the_last() -> None:
    painted = painter().paint("a zebra", Sampling(steps=9))
    some = chosen(painted.frames, 4)
    assert [frame.step for frame in some] == [0, 3, 5, 8]
    strip = predicted_images(painter(), painted.frames, most=4)
    assert strip[0][1] == "step 1, t 889"
    assert sheet([strip], side=64).shape == (64 + 18 + 12, 4 * 70 + 6, 3)
    with pytest.raises(RizbinError, match="no images"):
        sheet([])


def test_a_grid_shows_strengths_and_guidances() -> None:
    start = np.full((32, 32, 3), 90, np.uint8)
    made = drawing.grid(painter(), "a zebra", start, Sampling(steps=5))
    assert made.shape[1] == len(drawing.STRENGTHS) * 134 + 6
    starts = drawing.noised_starts(painter(), start, Sampling(steps=10))
    kept = painter().decode(painter().encode(start, 32, 32))
    gaps = [np.abs(image.astype(float) - kept).mean() for image, _ in starts]
    assert gaps[0] == 0 and gaps == sorted(gaps) and gaps[-1] > 5


def test_a_gif_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RizbinError, match="could not be written"):
        write_gif([np.zeros((8, 8, 3), np.uint8)], tmp_path / "file" / "film.gif")


def test_folders_that_are_no_pipeline_say_what_lacks(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RizbinError, match="lacks model_index"):
        load_pipeline(tmp_path)
    for lacking, says in (
        ("unet", "the folder unet is missing"),
        ("vae/config.json", "vae lacks config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "unet lacks weights in safetensors"),
    ):
        broken = tmp_path / lacking.replace("/", "-")
        shutil.copytree(folder, broken)
        target = broken / lacking
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        with pytest.raises(RizbinError, match=says):
            load_pipeline(broken)
    strange = tmp_path / "strange"
    shutil.copytree(folder, strange)
    index = json.loads((strange / "model_index.json").read_text())
    (strange / "model_index.json").write_text(json.dumps({**index, "_class_name": "MyPipeline"}))
    with pytest.raises(RizbinError, match="code beside weights is never run"):
        load_pipeline(strange)

    class HalfInstalled:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("Failed to import diffusers.pipelines:\nNo module named 'accelerate'")

    with monkeypatch.context() as replaced:
        replaced.setitem(sys.modules, "diffusers", HalfInstalled())
        with pytest.raises(RizbinError, match=r"cannot be imported \(No module named 'accelerate'\); install what"):
            load_pipeline(folder)
    (strange / "model_index.json").write_text("{")
    with pytest.raises(RizbinError, match="cannot be read"):
        load_pipeline(strange)
    with pytest.raises(RizbinError, match="nothing to offload to"):
        load_pipeline(folder, offload="model")


def test_a_folder_draws_as_the_model_that_wrote_it(folder: Path) -> None:
    loaded = TextToImage.from_pretrained(folder)
    np.testing.assert_array_equal(loaded.paint("a fox", QUICK).image, painter().paint("a fox", QUICK).image)


@pytest.mark.parametrize("made", [flow_painter, patched_painter])
def test_a_transformer_draws_through_its_pipeline_and_is_filmed(made: Callable[[], TextToImage]) -> None:
    """Stable Diffusion 3 and FLUX: the same picture as their own pipelines, each step seen; steering is refused."""
    sampling = Sampling(steps=4, guidance_scale=3.0, height=32, width=32, seed=5)
    drawn = made().paint("a zebra", sampling)
    assert [frame.step for frame in drawn.frames] == [0, 1, 2, 3]
    pipeline = made().pipeline
    theirs = pipeline(
        "a zebra",
        num_inference_steps=4,
        guidance_scale=3.0,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
    ).images[0]
    assert np.abs(drawn.image.astype(int) - (theirs * 255).round().astype(int)).max() <= 1
    # The last step's finished latents are what is decoded.
    last = made().decode(drawn.frames[-1].clean)
    assert np.abs(last.astype(int) - drawn.image.astype(int)).max() <= 1
    assert made().side == pipeline.default_sample_size * pipeline.vae_scale_factor
    with pytest.raises(RizbinError, match="cannot be steered yet"):
        made().paint("a zebra", sampling, guide=lambda moment: moment.latents)
    with pytest.raises(RizbinError, match="has no UNet"):
        steering(made(), "a zebra", "iou")
    with pytest.raises(RizbinError, match="straight flows"):
        made().paint("a zebra", Sampling(steps=2, scheduler="ddim"))
