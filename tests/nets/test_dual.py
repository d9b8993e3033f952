"""The pair, its text tower and its way into open_clip."""

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from rizbin.core.checksums import SUMS
from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.nets import ImageTextPair
from rizbin.nets.export import load_pair, save_open_clip
from rizbin.nets.text import TextEncoder
from rizbin.nets.vision import VisionEncoder

CAPTIONS = [
    "a small cat left of a dog",
    "two pizzas",
    "a zebra with a very long tail " * 8,
    "wow!! a CAT's bowl, don't!",
    "caf\u00e9 \u00c9T\u00c9 3.14 co-op, e.g. 42",
    "\u0631\u06cc\u0632\u0628\u06cc\u0646 \U0001f408",
    " many  spaces\n\tand &amp; lines ",
    "<end_of_text> a fox <START_OF_TEXT>",
    "",
]

NANO = ImageTextPair.Settings(
    vision=VisionEncoder.Settings(name="rizbin_vit_nano_patch8_32", image_size=32),
    text=TextEncoder.Settings(width=32, layers=2, heads=2),
    embedding=16,
)
PLAIN = ImageTextPair.Settings(
    vision=VisionEncoder.Settings(name="vit_tiny_patch16_224", image_size=224),
    text=TextEncoder.Settings(
        tokenizer=Tokenizer.Settings(vocabulary="clip", context=77), width=64, layers=2, heads=4, quick_gelu=True
    ),
    embedding=32,
    pool="cls",
    contrast="sigmoid",
)


@pytest.mark.parametrize("settings", [NANO, replace(NANO, pool="both"), PLAIN], ids=["nano", "both", "plain"])
def test_open_clip_loads_the_export_and_gives_the_same_embeddings(
    settings: ImageTextPair.Settings, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(settings).eval()
    save_open_clip(pair, tmp_path / "model")
    name = f"local-dir:{tmp_path / 'model'}"
    theirs = open_clip.create_model(name).eval()
    assert isinstance(theirs, open_clip.CLIP)
    size = settings.vision.image_size
    images = torch.randn(2, 3, size, size)
    tokens = pair.tokenizer.encode(CAPTIONS)
    own = settings.text.tokenizer.vocabulary == "small"
    said = [one for one in CAPTIONS if own or "<" not in one]  # open_clip's own lets a caption end itself
    assert torch.equal(open_clip.get_tokenizer(name)(said), pair.tokenizer.encode(said))
    with torch.no_grad():
        # 1e-5: the figure that export must meet; measured about 1e-7.
        assert torch.allclose(theirs.encode_image(images, normalize=True), pair.encode_images(images), atol=1e-5)
        assert torch.allclose(theirs.encode_text(tokens, normalize=True), pair.encode_texts(tokens), atol=1e-5)
        assert torch.equal(theirs.logit_scale, pair.logit_scale)
        again = load_pair(tmp_path / "model")
        assert torch.equal(again.encode_images(images), pair.encode_images(images))
    assert again.settings == settings
    if settings.contrast == "sigmoid":
        assert theirs.logit_bias is not None and float(theirs.logit_bias.detach()) == -10.0


def test_half_export_is_half_the_size_and_close(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO).eval()
    for half in (False, True):
        save_open_clip(pair, tmp_path / str(half), half=half)
    sizes = [(tmp_path / name / "open_clip_model.safetensors").stat().st_size for name in ("False", "True")]
    assert sizes[1] < 0.6 * sizes[0]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(load_pair(tmp_path / "True").encode_images(images), pair.encode_images(images), atol=5e-3)


def test_bad_folders_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match="holds no model"):
        load_pair(tmp_path)
    save_open_clip(ImageTextPair(NANO), tmp_path / "model")
    weights = tmp_path / "model" / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(RizbinError, match="does not match its checksum"):
        load_pair(tmp_path / "model")
    (tmp_path / "model" / SUMS).unlink()
    with pytest.raises(RizbinError, match="damaged"):
        load_pair(tmp_path / "model")
    own = tmp_path / "model" / "rizbin.json"
    own.write_text(json.dumps({**json.loads(own.read_text()), "colour": 1}))
    with pytest.raises(RizbinError, match="colour"):
        load_pair(tmp_path / "model")


def test_towers_that_open_clip_cannot_build_say_so(tmp_path: Path) -> None:
    pair = ImageTextPair(
        ImageTextPair.Settings(
            vision=VisionEncoder.Settings(name="vit_tiny_patch16_224", image_size=64), text=NANO.text
        )
    )
    with pytest.raises(RizbinError, match="224 pixels only"):
        save_open_clip(pair, tmp_path)


def test_text_is_read_at_its_end_and_trimming_changes_nothing() -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO).eval()
    tokens = pair.tokenizer.encode(CAPTIONS)
    with torch.no_grad():
        together = pair.encode_texts(tokens)
        alone = torch.cat([pair.encode_texts(tokens[row : row + 1]) for row in range(len(tokens))])
        # A caption cut at the context keeps its end: two long captions that differ early do not fall together.
        other = pair.encode_texts(pair.tokenizer.encode(["a dog with a very long tail " * 8]))
    assert torch.allclose(together, alone, atol=1e-6)
    assert not torch.allclose(other[0], together[2], atol=1e-3)


def test_dense_is_unit_length_and_mean_pooling_is_its_mean() -> None:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for dense, side in ((pair.dense(images), 4), (pair.dense(images, "windows"), 8)):
            assert dense.shape == (2, side, side, 16)
            assert torch.allclose(dense.norm(dim=-1), torch.ones(2, side, side), atol=1e-5)
        pooled = pair.pooled(images)
        assert torch.allclose(pooled, pair.vision(images).patches.mean(1), atol=1e-6)
        assert pair.attention(images).shape == (2, 4, 4) and bool((pair.attention(images).sum((1, 2)) <= 1).all())


def test_the_text_read_at_its_end_alone_is_that_of_a_whole_pass() -> None:
    """The last block makes the end token alone; embeddings and gradients are those of all tokens, picked afterwards."""
    torch.manual_seed(0)
    text = ImageTextPair(ImageTextPair.Settings()).text.double()
    tokens = text.tokenizer.trim(text.tokenizer.encode(["a red apple", "two small owls left of a tree", "fox"]))
    rows, ends = torch.arange(len(tokens)), tokens.argmax(-1)
    alone = text.words(text.token_embedding(tokens), ends)[:, 0]
    picked = text.words(text.token_embedding(tokens))[rows, ends]
    assert torch.allclose(alone, picked, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((part**3).sum(), list(text.transformer.parameters())) for part in (alone, picked)]
    assert all(torch.allclose(mine, all_of, rtol=0, atol=1e-9) for mine, all_of in zip(*gradients, strict=True))
