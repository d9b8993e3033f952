"""Published networks in training: the numbers of the library that owns each, on parts, at other sizes, and back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.data.views import MEAN, STD
from rizbin.models.origins import library_of, open_origin
from rizbin.models.published import PublishedPair, build_encoder, build_pair, keep_origin, save_published
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.workflows.load import open_model
from tests.models.published import PAIRS, TOWERS
from tests.toys import NANO

TEXTS = ["a fox", "a bee"]


def images(size: int = 32, count: int = 2) -> Tensor:
    """Pixels from 0 to 1."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3))


def as_trained(pixels: Tensor, mean: Any = MEAN, std: Any = STD) -> Tensor:
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def pair_of(folder: Path, size: int = 32) -> PublishedPair:
    vision = VisionEncoder.Settings(image_size=size)
    pair = build_pair(ImageTextPair.Settings(vision=vision, text=NANO.text, published=str(folder)))
    assert isinstance(pair, PublishedPair)
    return pair.eval()


def owners_numbers(model: Any, folder: Path, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Image and text embeddings as the owner's library itself makes them."""
    if library_of(str(folder)) == "open_clip":
        import open_clip

        facts = model.visual.preprocess_cfg if hasattr(model.visual, "preprocess_cfg") else {}
        mean, std = facts.get("mean", (0.5,) * 3), facts.get("std", (0.25,) * 3)
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
        return model.encode_image(as_trained(pixels, mean, std), normalize=True), model.encode_text(
            tokens, normalize=True
        )
    from transformers import AutoTokenizer

    kind = model.config.model_type
    mean, std = ((0.5,) * 3, (0.5,) * 3)
    if kind == "clip":
        mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    if kind == "siglip2":
        mean, std = open_origin(str(folder)).mean, open_origin(str(folder)).std
    batch = as_trained(pixels, mean, std)
    if kind == "siglip2":
        rows = batch.shape[-1] // 8
        cut = batch.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).reshape(len(batch), rows * rows, -1)
        shapes = torch.tensor([[rows, rows]] * len(batch))
        mask = torch.ones(len(batch), rows * rows, dtype=torch.long)
        seen = model.get_image_features(pixel_values=cut, pixel_attention_mask=mask, spatial_shapes=shapes)
    else:
        seen = model.get_image_features(pixel_values=batch)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding="max_length", max_length=8, return_tensors="pt")
    # SigLIP's processor gives no mask: its texts are filled up to their length and read whole.
    texts = dict(tokens) if kind == "clip" else {"input_ids": tokens["input_ids"]}
    texts.pop("token_type_ids", None)
    read = model.get_text_features(**texts)
    return F.normalize(seen.pooler_output, dim=-1), F.normalize(read.pooler_output, dim=-1)


@torch.no_grad()
@pytest.mark.parametrize("form", PAIRS)
def test_a_pair_has_its_owners_numbers_and_goes_back(form: str, tmp_path: Path) -> None:
    model = PAIRS[form](tmp_path / "given")
    pair = pair_of(tmp_path / "given")
    seen, read = owners_numbers(model, tmp_path / "given", images())
    batch = as_trained(images())
    assert torch.allclose(pair.encode_images(batch), seen, atol=1e-5)
    assert torch.allclose(pair.encode_texts(pair.tokenizer.encode(TEXTS)), read, atol=1e-5)
    # The adapter that evaluation uses says the same.
    adapter = open_model(str(tmp_path / "given")).encoder
    assert torch.allclose(adapter.encode_image(images()), seen, atol=1e-5)
    assert torch.allclose(adapter.encode_text(TEXTS), read, atol=1e-5)
    # Kept patches in another order are the same patches.
    features = pair.vision(batch, attend=True)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    moved = pair.vision(batch, order, attend=True)
    assert torch.allclose(moved.cls, features.cls, atol=1e-5)
    assert torch.allclose(moved.patches, features.patches[:, order[0]], atol=1e-5)
    assert torch.allclose(moved.attention, features.attention[:, order[0]], atol=1e-5)
    assert (features.attention >= 0).all() and (features.attention.sum(dim=1) <= 1 + 1e-5).all()
    assert pair.vision(batch, order[:, :5]).patches.shape == (2, 5, pair.vision.dim)
    assert pair.dense(batch).shape[:3] == (2, 4, 4)
    # Changed, written and read by its owner.
    for parameter in pair.parameters():
        parameter.mul_(1.01)
    save_published(pair, tmp_path / "back")
    assert library_of(str(tmp_path / "back")) == library_of(str(tmp_path / "given"))
    again = open_model(str(tmp_path / "back")).encoder
    assert torch.allclose(again.encode_image(images()), pair.encode_images(batch), atol=1e-5)
    assert torch.allclose(again.encode_text(TEXTS), pair.encode_texts(pair.tokenizer.encode(TEXTS)), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("form", TOWERS)
def test_a_tower_has_its_owners_numbers_and_goes_back(form: str, tmp_path: Path) -> None:
    model = TOWERS[form](tmp_path / "given")
    size = 64 if form.startswith("timm") else 32
    settings = ImageEncoder.Settings(image_size=size, published=str(tmp_path / "given"), pretrained=True)
    encoder = build_encoder(settings).eval()
    batch = as_trained(images(size))
    mean, std = open_origin(str(tmp_path / "given")).mean, open_origin(str(tmp_path / "given")).std
    own = as_trained(images(size), mean, std)
    if form.startswith("timm"):
        tokens = model.forward_features(own)
        pooled = model.forward_head(tokens, pre_logits=True)
    else:
        out = model(pixel_values=own)
        tokens, pooled = out.last_hidden_state, out.pooler_output
    features = encoder.features(batch)
    count = features.patches.shape[1]
    assert torch.allclose(features.patches, tokens[:, -count:], atol=1e-5)
    assert torch.allclose(encoder(batch), pooled, atol=1e-5)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    tower: Any = encoder.vision
    moved = tower(batch, order)
    assert torch.allclose(moved.patches, features.patches[:, order[0]], atol=1e-5)
    save_published(encoder, tmp_path / "back")
    again = open_model(str(tmp_path / "back")).encoder
    pixels = (images(size) * 255).byte()
    seen = again.pooled(again.normalized(pixels.permute(0, 2, 3, 1)))
    assert torch.allclose(seen, encoder(as_trained(pixels.float() / 255)), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("form", [*PAIRS, *TOWERS])
def test_positions_are_resized_to_the_size_of_training(form: str, tmp_path: Path) -> None:
    save = {**PAIRS, **TOWERS}[form]
    save(tmp_path / "given")
    if form == "open_clip SigLIP":  # timm's towers in open_clip have one size
        with pytest.raises(Exception, match="at 32 pixels only"):
            pair_of(tmp_path / "given", 48)
        return
    size = 96 if form.startswith("timm") else 48
    pair = pair_of(tmp_path / "given", size)
    assert pair.image_size == size and pair.grid[0] * pair.patch_size == size
    batch = as_trained(images(size))
    assert pair.vision(batch).patches.shape[1] == pair.grid[0] ** 2
    # In use at that size the network as it came has nearly the same features: its positions are resized on the fly.
    small = pair_of(tmp_path / "given", 64 if form.startswith("timm") else 32)
    assert F.cosine_similarity(small.vision(batch).cls, pair.vision(batch).cls).min() > 0.99
    save_published(pair, tmp_path / "back")
    assert open_model(str(tmp_path / "back")).encoder.image_size == (32 if "naflex" in form else size)
    keep_origin(pair, tmp_path / "origin")
    bare = ImageTextPair.Settings(
        vision=VisionEncoder.Settings(image_size=size),
        text=NANO.text,
        published=str(tmp_path / "origin"),
        pretrained=False,
    )
    again = build_pair(bare).eval()
    again.load_state_dict(pair.state_dict())
    assert torch.allclose(again.encode_images(batch), pair.encode_images(batch), atol=1e-6)
