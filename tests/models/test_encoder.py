"""What a person does with an encoder: images and texts as they are, in all libraries' models alike."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import whole
from rizbin.models.encoder import Encoder
from rizbin.models.open_clip import load_open_clip
from rizbin.models.own import RizbinEncoder
from rizbin.models.protocol import CLS, FeatureExtractor, NoPatches
from rizbin.models.transformers import load_transformers
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from rizbin.workflows.load import load_encoder
from tests.models.small import VIT, save_clip, save_dinov2, save_open_clip_model, save_siglip, save_timm_model
from tests.toys import NANO


def save_resnet(folder: Path) -> Any:
    return save_timm_model(folder, "resnet10t")


def save_vit(folder: Path) -> Any:
    return save_timm_model(folder, **VIT)


def save_own(folder: Path) -> Any:
    torch.manual_seed(0)
    pair = ImageTextPair(NANO)
    save_open_clip(pair, folder)
    return pair


MAKERS: dict[str, Callable[[Path], Any]] = {
    "rizbin": save_own,
    "open_clip": save_open_clip_model,
    "timm": save_vit,
    "timm, convolutional": save_resnet,
    "transformers, clip": save_clip,
    "transformers, siglip": save_siglip,
    "transformers, dinov2": save_dinov2,
}
READERS = {"rizbin", "open_clip", "transformers, clip", "transformers, siglip"}
IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=MAKERS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("models") / "model"
    MAKERS[request.param](folder)
    made = load_encoder(folder)
    assert made.reads_text == (request.param in READERS) and isinstance(made, FeatureExtractor)
    return made


def test_images_of_any_kind_give_the_same_unit_vectors(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(IMAGE).save(path)
    vectors = encoder.encode_image([IMAGE, Image.fromarray(IMAGE), path, str(path)])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(4), atol=1e-5)
    for other in vectors[1:]:
        assert torch.allclose(vectors[0], other, atol=1e-5)
    assert torch.allclose(encoder.encode_image(IMAGE), vectors[:1], atol=1e-5)
    square = torch.from_numpy(whole(IMAGE, encoder.image_size)).permute(2, 0, 1) / 255
    assert torch.allclose(encoder.encode_image(square), vectors[:1], atol=1e-4)
    pixels = square.clone().requires_grad_()
    vector = encoder.encode_image(pixels)[0]
    (vector * torch.arange(len(vector))).sum().backward()
    assert pixels.grad is not None and bool(pixels.grad.any())
    assert not any(value.requires_grad for value in encoder.network.parameters()), "a loaded encoder is frozen"


def test_one_pass_gives_what_the_single_questions_give(encoder: Encoder) -> None:
    batch = encoder.preprocess([IMAGE, IMAGE[:, ::-1]])
    with torch.no_grad():
        features = encoder.features(batch)
        rows, columns = encoder.grid
        assert features.patches is not None and features.patches.shape[:2] == (2, rows * columns)
        assert torch.allclose(features.pooled, encoder.pooled(batch), atol=1e-5)
        assert torch.allclose(features.patches.unflatten(1, (rows, columns)), encoder.patches(batch), atol=1e-5)
        assert encoder.patch_features([IMAGE]).shape[1:3] == (rows, columns)
        given = features.embedding if encoder.reads_text else F.normalize(features.pooled, dim=-1)
        assert given is not None and (features.embedding is None) != encoder.reads_text
        assert torch.allclose(given, encoder.encode_image([IMAGE, IMAGE[:, ::-1]]), atol=1e-5)
        assert torch.allclose(given, encoder.embeddings(batch), atol=1e-5)
        assert (features.attention is not None) == encoder.attends
        if encoder.attends and features.attention is not None:
            last = encoder.attention_rows(batch)
            first = encoder.attention_rows(batch, CLS, 0)
            assert torch.allclose(features.attention, (last + first).mean(dim=1).flatten(1) / 2, atol=1e-5)
            assert bool((last.sum(dim=(2, 3)) < 1).all())


def test_texts_meet_images(encoder: Encoder) -> None:
    if not encoder.reads_text:
        with pytest.raises(RizbinError, match="reads no words"):
            encoder.encode_text("a fox")
        return
    vectors = encoder.encode_text(["a fox", "a bee"])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-5)
    assert torch.allclose(encoder.encode_text("a fox"), vectors[:1], atol=1e-5)
    cosines = encoder.similarity([IMAGE, IMAGE[::-1]], ["a fox", "a bee"])
    assert cosines.shape == (2, 2) and torch.allclose(cosines[0], encoder.encode_image(IMAGE)[0] @ vectors.T, atol=1e-5)
    with pytest.raises(RizbinError, match="no text to encode"):
        encoder.encode_text([])


def test_patches_meet_texts_where_a_linear_layer_lets_them(encoder: Encoder) -> None:
    batch = encoder.preprocess(IMAGE)
    if not encoder.localizes:
        with pytest.raises(NoPatches, match="compared with words"):
            encoder.dense(batch)
        return
    with torch.no_grad():
        plain, fine = encoder.dense(batch), encoder.dense(batch, "windows")
    rows, columns = encoder.grid
    assert plain.shape[:3] == (1, rows, columns) and fine.shape[:3] == (1, 2 * rows, 2 * columns)
    for patches in (plain, fine):
        assert torch.allclose(patches.norm(dim=-1), torch.ones(patches.shape[:3]), atol=1e-5)
    assert plain.shape[-1] == encoder.encode_text("a fox").shape[-1]


def test_random_weights_of_the_same_architecture(encoder: Encoder) -> None:
    state = torch.random.get_rng_state()
    one, again, other = (encoder.untrained(seed) for seed in (3, 3, 4))
    assert one is not None and again is not None and other is not None and type(one) is type(encoder)
    assert torch.equal(state, torch.random.get_rng_state())
    for made in (one, again, other):
        made.frozen()
        assert repr(made) == repr(encoder) and made.mean == encoder.mean and made.grid == encoder.grid
    assert torch.equal(one.encode_image(IMAGE), again.encode_image(IMAGE))
    for made in (other, encoder):
        assert not torch.allclose(one.encode_image(IMAGE), made.encode_image(IMAGE), atol=1e-4)


def test_it_says_what_it_is(encoder: Encoder) -> None:
    kind = "image-text encoder" if encoder.reads_text else "image encoder"
    spoken, size = repr(encoder), encoder.image_size
    assert spoken.startswith(f"<{kind} {encoder.name}: ") and "\n" not in spoken
    assert f"parameters, images of {size}x{size} pixels, patches of {encoder.patch_size}>" in spoken


def test_open_clips_own_tower_is_read_as_open_clip_runs_it(tmp_path: Path) -> None:
    model = save_open_clip_model(tmp_path / "model")
    encoder = load_open_clip(tmp_path / "model")
    assert (encoder.mean, encoder.std, encoder.patch_size) == ((0.5,) * 3, (0.25,) * 3, 8)
    batch = torch.randn(2, 3, 32, 32)
    seen: list[torch.Tensor] = []
    for block in model.visual.transformer.resblocks:
        inner = block.attn.forward

        def full(*args: Any, inner: Any = inner, **more: Any) -> Any:
            out, weights = inner(*args, **{**more, "need_weights": True, "average_attn_weights": False})
            seen.append(weights)
            return out, weights

        block.attn.forward = full
    with torch.no_grad():
        expected = model.encode_image(batch, normalize=True)
        assert torch.allclose(encoder.embeddings(batch), expected, atol=1e-5)
        embedding = encoder.features(batch).embedding
        assert embedding is not None and torch.allclose(embedding, expected, atol=1e-5)
        for layer in (0, 1):
            for token, place in ((CLS, 0), (5, 6)):
                row = encoder.attention_rows(batch, token, layer)
                assert row.shape == (2, 2, 4, 4)
                assert torch.allclose(row.flatten(2), seen[layer][:, :, place, 1:], atol=1e-5)
        tokens = model.encode_text(encoder.tokenizer(["a fox"]), normalize=True)
        assert torch.allclose(encoder.encode_text("a fox"), tokens, atol=1e-5)


def test_a_pair_that_open_clip_reads_compares_patches_as_the_pair_does(tmp_path: Path) -> None:
    pair = save_own(tmp_path / "model").eval()
    theirs, own = load_open_clip(tmp_path / "model"), RizbinEncoder(pair)
    batch = own.preprocess([IMAGE])
    with torch.no_grad():
        assert torch.allclose(theirs.dense(batch), own.dense(batch), atol=1e-5)
        assert torch.allclose(theirs.patches(batch), own.patches(batch), atol=1e-5)
        assert torch.allclose(theirs.attention_rows(batch), own.attention_rows(batch), atol=1e-5)
        both = [encoder.features(batch).attention for encoder in (theirs, own)]
    assert both[0] is not None and both[1] is not None and torch.allclose(both[0], both[1], atol=1e-5)


def test_clip_of_transformers_projects_patches_as_it_projects_cls(tmp_path: Path) -> None:
    model = save_clip(tmp_path / "model")
    encoder = load_transformers(tmp_path / "model")
    batch = encoder.preprocess([IMAGE])
    with torch.no_grad():
        out = model.vision_model(pixel_values=batch)
        expected = model.visual_projection(model.vision_model.post_layernorm(out.last_hidden_state[:, 1:]))
        assert torch.allclose(encoder.dense(batch).flatten(1, 2), F.normalize(expected, dim=-1), atol=1e-5)


def test_a_tower_without_patches_says_so(tmp_path: Path) -> None:
    """open_clip's ResNets pool by attention."""
    save_open_clip_model(tmp_path / "model", layers=[1, 1, 1, 1], width=16, image_size=64)
    encoder = load_encoder(tmp_path / "model")
    assert not encoder.has_patches and not encoder.attends and not encoder.localizes and encoder.grid == (1, 1)
    assert encoder.encode_image(IMAGE).shape == (1, 16) and "patches of" not in repr(encoder)
    with pytest.raises(NoPatches, match="no features of single patches"):
        encoder.patch_features(IMAGE)
    features = encoder.features(encoder.preprocess(IMAGE))
    assert features.patches is None and features.attention is None


def test_what_is_no_image_is_refused() -> None:
    encoder = RizbinEncoder(ImageTextPair(NANO).eval())
    for wrong in ([], torch.rand(2, 4, 8, 8), [np.zeros((4, 4, 5))], ["nowhere.png"]):
        with pytest.raises(RizbinError):
            encoder.encode_image(wrong)


def test_the_public_function_gives_an_encoder() -> None:
    encoder = load_encoder("clip-mini")
    assert repr(encoder).startswith("<image-text encoder clip-mini: ") and not encoder.network.training
    assert isinstance(encoder.network, ImageTextPair)
    cosines = encoder.similarity([IMAGE], ["a fox", "a bee"])
    assert cosines.shape == (1, 2) and bool(cosines.isfinite().all())


@pytest.mark.parametrize("page", ["networks.md", "zoo.md"])
def test_the_lines_of_the_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (lines,) = [block for block in blocks if "model.similarity" in block]
    Image.fromarray(IMAGE).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, page, "exec"), {})
