"""Teaching a small diffusion model: contract, resuming, parts, and what its folder gives to diffusers."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.data.open import open_source
from rizbin.generation.diffusion.small import DiffusionSize, new_autoencoder, new_tokenizer
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage
from rizbin.generation.diffusion.train import LatentDiffusion, edge_error, normal, signed
from rizbin.training.method import Progress
from rizbin.training.trainer import Trainer
from tests.generation.diffusion.small_painters import SMALL

QUARTER = replace(SMALL, autoencoder_share=0.5)


def trainer(precision: str = "fp32") -> Trainer:
    settings = Trainer.Settings(precision="bf16" if precision == "bf16" else "fp32")
    return Trainer(settings, batch=8, steps=6, checkpoint_every=2, seed=0)


def source():
    return open_source("scenes:drawn,categories=4", split="train", size=32)


def trained(folder: Path, *stops: int) -> LatentDiffusion:
    for until in (*stops, 6):
        torch.manual_seed(0)
        method = LatentDiffusion(QUARTER)
        run = RunFolder(folder)
        run.create_or_resume({"data_fingerprint": "made"})
        trainer().fit(method, source(), run, quiet=True, until=until)
        run.release()
    return method


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LatentDiffusion]:
    yield trained(tmp_path_factory.mktemp("whole"))


def test_stopped_and_resumed_equals_straight_bit_for_bit(whole: LatentDiffusion, tmp_path: Path) -> None:
    """Stopped in the autoencoder's part and in the UNet's."""
    parts = trained(tmp_path, 2, 4)
    for (name, one), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_only_the_part_at_work_changes() -> None:
    torch.manual_seed(0)
    method, train = LatentDiffusion(QUARTER), trainer()
    optimizers = train.optimizers(method)
    for step, moved in ((0, {"autoencoder"}), (3, {"unet", "text", "slow", "scale"})):
        before = copy.deepcopy(method.state_dict())
        _, batch = train.batch_of(method, source(), step)
        records = train.step(method, optimizers, batch, step + 1 if step else 1)
        assert all(np.isfinite(float(value)) for value in records.values())
        changed = {name.split(".")[0] for name, value in method.state_dict().items() if not before[name].equal(value)}
        assert changed == moved
    assert all(parameter.grad is None for parameter in method.slow.parameters())
    assert float(method.scale) > 0


def test_a_step_in_sixteen_bits_is_finite() -> None:
    torch.manual_seed(0)
    method, train = LatentDiffusion(QUARTER), trainer("bf16")
    optimizers = train.optimizers(method)
    for step in (0, 4):
        _, batch = train.batch_of(method, source(), step)
        assert np.isfinite(float(train.step(method, optimizers, batch, step)["loss"]))


def test_v_is_what_the_schedule_says() -> None:
    """The wanted answer leads from the noised latents back to the latents, at any timestep."""
    torch.manual_seed(0)
    method = LatentDiffusion(QUARTER)
    latents, noise = torch.randn(2, 5, 8, 8, 8)
    for timestep in (0, 500, 999):
        keep, add = method.signal[timestep].sqrt(), (1 - method.signal[timestep]).sqrt()
        noised, wanted = keep * latents + add * noise, keep * noise - add * latents
        torch.testing.assert_close(keep * noised - add * wanted, latents, rtol=0, atol=1e-5)


def test_a_new_autoencoder_makes_a_mosaic() -> None:
    """Four by four pixels averaged and repeated: the colors are there before any training."""
    torch.manual_seed(0)
    made = new_autoencoder(SMALL.size, image_size=32)
    blocks = torch.rand(2, 3, 8, 8) * 1.6 - 0.8
    pictures = blocks.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    with torch.no_grad():
        again = made.decode(made.encode(pictures).latents).sample
    # The decoder's soft limit at three bends values near one by some percent.
    assert (again - pictures).abs().mean() < 0.05
    with pytest.raises(RizbinError, match="three channels"):
        new_autoencoder(DiffusionSize(latent_channels=2), image_size=32)
    with pytest.raises(RizbinError, match="multiple of 8"):
        new_autoencoder(SMALL.size, image_size=36)


def test_edges_are_differences_of_neighbors() -> None:
    made, wanted = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    assert float(edge_error(made + 0.5, wanted)) == 0  # a level is no edge
    made[..., 2:] = 1
    assert float(edge_error(made, wanted)) == pytest.approx(1 / 3)


def test_noise_is_gaussian_and_shared_out() -> None:
    like = torch.zeros(64, 8, 16, 16)
    noise = normal(Progress(3, 10), "noise", like)
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert torch.equal(noise[:2], normal(Progress(3, 10), "noise", like[:2]))
    assert bool(torch.isfinite(noise).all())


def test_pictures_are_signed() -> None:
    from rizbin.data.views import normalize

    pixels = torch.tensor(np.array([0, 255], np.uint8)).reshape(1, 1, 2, 1).expand(1, 1, 2, 3).contiguous()
    torch.testing.assert_close(signed(normalize(pixels))[0, 0, 0], torch.tensor([-1.0, 1.0]), rtol=0, atol=1e-5)


def test_both_tokenizers_give_the_same_numbers(whole: LatentDiffusion) -> None:
    theirs = new_tokenizer(whole.words)
    for text in ("a zebra and a fire engine", "a bunch of grapes", "", "a t-rex, a rocket"):
        ours = whole.words.encode([text])[0].tolist()
        assert theirs(text, padding="max_length", truncation=True).input_ids == ours


def test_the_folder_draws_by_diffusers_and_by_us(whole: LatentDiffusion, tmp_path: Path) -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    whole.save(tmp_path / "model")
    ours = TextToImage.from_pretrained(tmp_path / "model")
    sampling = Sampling(steps=2, guidance_scale=2.0)
    image = ours.paint("a zebra", sampling).image
    # The run attends by its own arithmetic, the folder by torch's: a pixel may be rounded the other way.
    own = TextToImage(whole.pipeline()).paint("a zebra", sampling).image
    assert np.abs(image.astype(int) - own.astype(int)).max() <= 1
    theirs: Any = StableDiffusionPipeline.from_pretrained(tmp_path / "model", safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    again = theirs(
        "a zebra",
        num_inference_steps=2,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert np.abs(image.astype(int) - (again * 255).round().astype(int)).max() <= 1


def test_captions_and_shares_are_asked_for() -> None:
    with pytest.raises(RizbinError, match="share between 0 and 1"):
        LatentDiffusion(replace(SMALL, autoencoder_share=1.0))
    method, train = LatentDiffusion(QUARTER), trainer()
    _, batch = train.batch_of(method, source(), 0)
    with pytest.raises(RizbinError, match="no captions"):
        next(iter(method.step(replace(batch, texts=None), Progress(0, 6))))
