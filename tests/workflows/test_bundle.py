"""A published method shows what its run shows, to sixteen bits; a damaged one is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import rizbin
from rizbin.core.checksums import SUMS
from rizbin.core.errors import RizbinError
from rizbin.nets.dual import ImageTextPair
from rizbin.workflows.bundle import OTHERS, is_published, load_published, publish
from rizbin.workflows.load import load_encoder
from rizbin.workflows.presets import Training, preset
from rizbin.workflows.runs import LoadedRun, load_run, train
from tests.toys import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    training = replace(preset("detailclip"), settings=tiny("detailclip"), data="scenes:easy,categories=8")
    training: Training = replace(training, steps=2, batch=4)
    return load_run(train(training, tmp_path_factory.mktemp("runs") / "run", quiet=True))


@pytest.fixture(scope="module")
def folder(run: LoadedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("published") / "model"
    publish(run, made)
    return made


def test_it_looks_and_embeds_as_the_run_does(run: LoadedRun, folder: Path) -> None:
    assert is_published(folder) and not is_published(run.folder)
    again = load_published(folder)
    assert again.training == run.training and again.step == 2
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        # Weights of sixteen bits hold about three digits.
        assert torch.allclose(again.pair.encode_images(images), run.pair.encode_images(images), atol=5e-3)
        ours, theirs = again.method.look(images), run.method.look(images)
    assert ours is not None and theirs is not None
    assert torch.allclose(ours.attention, theirs.attention, atol=5e-3)
    for name, value in run.method.state_dict().items():
        assert torch.allclose(again.method.state_dict()[name], value, atol=1e-2, rtol=1e-3), name


def test_every_tensor_is_kept_once(run: LoadedRun, folder: Path) -> None:
    size = sum(value.numel() for value in run.method.state_dict().values() if value.is_floating_point())
    kept = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert 2 * size < kept < 2 * size + 40_000  # two bytes a number, and the names


def test_open_clip_loads_the_same_folder(run: LoadedRun, folder: Path) -> None:
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}")
    assert isinstance(model, open_clip.CustomTextCLIP | open_clip.CLIP)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = load_published(folder).pair.encode_images(images)
        theirs = torch.nn.functional.normalize(model.eval().encode_image(images), dim=-1)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_command_exports_it_and_reads_it(run: LoadedRun, tmp_path: Path) -> None:
    made = rizbin.export(run.folder, tmp_path / "out", format="rizbin")
    assert is_published(made)
    loaded = load_encoder(made).network
    assert isinstance(loaded, ImageTextPair)
    assert torch.equal(loaded.image_projection.weight, load_published(made).pair.image_projection.weight)
    with pytest.raises(RizbinError, match="not empty"):
        rizbin.export(run.folder, made, format="rizbin")
    with pytest.raises(RizbinError, match="reads text, so transformers cannot load it"):
        rizbin.export(run.folder, tmp_path / "other", format="transformers")
    with pytest.raises(RizbinError, match="reads text, so timm cannot"):
        rizbin.export(run.folder, tmp_path / "other", format="timm")
    plain = rizbin.export(made, tmp_path / "plain")
    with pytest.raises(RizbinError, match="without its training method"):
        rizbin.export(plain, tmp_path / "more", format="rizbin")


def test_a_damaged_one_is_refused_in_a_sentence(run: LoadedRun, tmp_path: Path) -> None:
    publish(run, tmp_path)
    whole = (tmp_path / OTHERS).read_bytes()
    (tmp_path / OTHERS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RizbinError, match=f"{OTHERS} does not match its checksum"):
        load_published(tmp_path)
    (tmp_path / SUMS).unlink()
    with pytest.raises(RizbinError, match="damaged"):
        load_published(tmp_path)
    from safetensors.torch import save_file

    save_file({"other": torch.zeros(1)}, tmp_path / OTHERS)
    with pytest.raises(RizbinError, match=r"do not fit its settings: .* missing .* and 1 tensor is foreign .other"):
        load_published(tmp_path)
