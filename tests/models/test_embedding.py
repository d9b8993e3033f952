"""Adapters: what each library calls an encoder gives the library's own vectors, from pixels and words."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.generation.ascent.layers import layer_of, middle_layer
from rizbin.models.encoder import Encoder
from rizbin.models.open_clip import load_open_clip
from rizbin.models.protocol import Embedder, FeatureExtractor
from rizbin.models.timm import load_timm
from rizbin.models.transformers import load_transformers
from rizbin.models.wrap import encoder_of
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from rizbin.nets.image import ImageEncoder
from rizbin.workflows.load import load_encoder
from tests.toys import ENCODER, NANO

PIXELS = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))


def check(encoder: Encoder) -> None:
    """Unit vectors, with gradient to the pixels and to nothing else."""
    assert isinstance(encoder, Embedder) and isinstance(encoder, FeatureExtractor)
    pixels = PIXELS.clone().requires_grad_()
    made = encoder.encode_image(pixels)
    assert torch.allclose(made.norm(dim=-1), torch.ones(2), atol=1e-5)
    made[0, 0].backward()
    assert pixels.grad is not None and pixels.grad[0].any() and not pixels.grad[1].any()


def test_our_own_pair_and_our_own_encoder() -> None:
    pair = ImageTextPair(NANO).eval()
    encoder = encoder_of(pair, name="nano")
    check(encoder)
    words = ["a fox", "an owl left of a bus"]
    assert torch.allclose(encoder.encode_text(words), pair.encode_texts(pair.tokenizer.encode(words)), atol=1e-6)
    assert torch.allclose(encoder.encode_image(PIXELS), pair.encode_images(encoder.from_pixels(PIXELS)), atol=1e-6)
    assert middle_layer(encoder) == "trunk.blocks.0"
    assert layer_of(encoder, PIXELS, "trunk.blocks.0").shape == (2, 17, 32)
    alone = encoder_of(ImageEncoder(ENCODER), name="alone")
    check(alone)
    with pytest.raises(RizbinError, match="alone reads no words; give an image-text encoder"):
        alone.encode_text(["a fox"])


def test_a_folder_of_open_clip_is_read_by_open_clip_itself(tmp_path: Path) -> None:
    pair = ImageTextPair(NANO).eval()
    save_open_clip(pair, tmp_path / "model")
    own = encoder_of(pair, name="own")
    theirs = load_open_clip(tmp_path / "model")
    check(theirs)
    assert theirs.image_size == 32 and torch.allclose(theirs.encode_image(PIXELS), own.encode_image(PIXELS), atol=1e-5)
    assert torch.allclose(theirs.encode_text(["a fox"]), own.encode_text(["a fox"]), atol=1e-5)
    for name in ("rizbin.json", "SHA256SUMS"):
        (tmp_path / "model" / name).unlink()
    assert torch.equal(load_encoder(tmp_path / "model").encode_image(PIXELS), theirs.encode_image(PIXELS))


def test_a_name_load_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny-for-tests", config)
    encoder = load_encoder("open_clip:tiny-for-tests")
    check(encoder)
    assert encoder.encode_text(["a fox", "an owl"]).shape == (2, 16)
    assert torch.allclose(torch.tensor(encoder.mean), torch.tensor(open_clip.OPENAI_DATASET_MEAN))
    with pytest.raises(RizbinError, match="could not be loaded by open_clip"):
        load_encoder("open_clip:no-such-model")


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_hugging_faces_two(kind: str, tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, SiglipConfig, SiglipModel

    small: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    words = {"max_position_embeddings": 8, "vocab_size": 40, "eos_token_id": 1, "bos_token_id": 2, "pad_token_id": 1}
    parts: dict[str, Any] = {
        "text_config": {**small, **words, "projection_size": 16},
        "vision_config": {**small, "image_size": 16, "patch_size": 8},
    }
    torch.manual_seed(0)
    model: Any = (
        CLIPModel(CLIPConfig(**parts, projection_dim=16)) if kind == "clip" else SiglipModel(SiglipConfig(**parts))
    )
    model.eval().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=_words(), pad_token="[PAD]", eos_token="[PAD]").save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    check(encoder)
    assert encoder.image_size == 16 and encoder.encode_text(["a fox", "a bee"]).shape == (2, 16)
    given = model.get_image_features(pixel_values=encoder.from_pixels(PIXELS))
    expected = given if isinstance(given, torch.Tensor) else given.pooler_output
    assert torch.allclose(encoder.encode_image(PIXELS), F.normalize(expected, dim=-1), atol=1e-5)
    assert layer_of(encoder, PIXELS, middle_layer(encoder)).shape[0] == 2
    with pytest.raises(RizbinError, match="could not be loaded by transformers"):
        load_transformers(tmp_path / "nothing")


def _words() -> Any:
    """A tokenizer that knows three words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    made = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "fox": 3, "bee": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


def test_timms_images_alone_with_a_class_as_a_layer() -> None:
    encoder = load_timm("resnet10t", pretrained=False)
    check(encoder)
    assert encoder.image_size == 176
    logits = layer_of(encoder, PIXELS, "fc")
    trunk: Any = timm.create_model("resnet10t", pretrained=False)
    assert logits.shape == (2, trunk.num_classes)
    with pytest.raises(RizbinError, match="reads no words"):
        encoder.encode_text(["a fox"])
    with pytest.raises(RizbinError, match="timm has no model 'no_such_network'"):
        load_encoder("timm:no_such_network")


def test_names_that_are_none() -> None:
    with pytest.raises(RizbinError, match="detailclip-mini"):
        load_encoder("detailclip-minni")
    with pytest.raises(RizbinError, match="is a detector"):
        load_encoder("detector-mini")
