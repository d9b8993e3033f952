"""Training that begins with a published network: every method, its parts at rest, its adapters, its run folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rizbin import methods
from rizbin.core import checkpoint
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.models.published import PublishedPair, build_pair
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.lora import LowRank, merged
from rizbin.nets.tuning import TuningSettings, blocks_of
from rizbin.nets.vision import VisionEncoder
from rizbin.training.method import Progress
from rizbin.training.optimizers import decay_groups
from rizbin.training.trainer import Trainer
from rizbin.workflows.load import open_model
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import build, load_run, training_source
from rizbin.workflows.starts import begun, spelled
from rizbin.workflows.train import from_flags, train
from tests.models.published import PAIRS, TOWERS
from tests.toys import NANO, batch_for, tiny


def published(folder: Path, **tuning: Any) -> ImageTextPair.Settings:
    vision = VisionEncoder.Settings(image_size=32)
    settings = ImageTextPair.Settings(vision=vision, text=NANO.text, embedding=16, published=str(folder))
    return replace(settings, tuning=TuningSettings(**tuning))


def step_of(method: Any) -> torch.Tensor:
    losses = [update.loss for update in method.step(batch_for(method, rows=4), Progress(1, 10))]
    losses[0].backward()
    return losses[0]


@pytest.mark.parametrize("form", ["open_clip", "CLIP", "SigLIP", "SigLIP 2 naflex", "open_clip SigLIP", "DINOv3"])
@pytest.mark.parametrize("name", ["clip", "detailclip", "aclip", "slip"])
def test_methods_train_published_towers(form: str, name: str, tmp_path: Path) -> None:
    {**PAIRS, **TOWERS}[form](tmp_path / "start")
    settings = tiny(name, {"pair": published(tmp_path / "start")})
    if name == "detailclip":
        settings = replace(settings, teacher_resolution="half", phrase_weight=1.0)
    method = methods.find(name)(settings)
    assert torch.isfinite(step_of(method))
    learning = decay_groups([method.encoder])
    moved = [parameter.grad is not None for group in learning for parameter in group]
    assert sum(moved) > 0.8 * len(moved)


def test_selection_without_cls_follows_the_pooling_query(tmp_path: Path) -> None:
    PAIRS["SigLIP"](tmp_path)
    pair = build_pair(published(tmp_path)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = pair.vision(images, attend=True)
    head: Any = pair.vision.pooling
    tokens = features.patches
    _, weights = head.attention(head.probe.repeat(2, 1, 1), tokens, tokens, need_weights=True)
    assert features.attention is not None
    assert torch.allclose(features.attention, weights[:, 0], atol=1e-6)


def test_parts_rest_and_rates_fall_by_layer(tmp_path: Path) -> None:
    PAIRS["CLIP"](tmp_path)
    locked: Any = build_pair(published(tmp_path, text_tower="locked", frozen_blocks=1))
    assert not any(parameter.requires_grad for parameter in locked.text.parameters())
    blocks = blocks_of(locked.vision)
    resting = [any(parameter.requires_grad for parameter in block.parameters()) for block in blocks]
    assert resting == [False, True] and locked.vision.network.post_layernorm.weight.requires_grad
    assert not locked.vision.network.embeddings.class_embedding.requires_grad
    lit = build_pair(published(tmp_path, image_tower="locked"))
    assert not any(parameter.requires_grad for parameter in lit.vision.parameters())
    assert all(parameter.requires_grad for parameter in lit.text.parameters())
    method = methods.find("clip")(tiny("clip", {"pair": published(tmp_path, layer_decay=0.5)}))
    share = {id(parameter): share for part, share in method.rates() for parameter in part.parameters()}
    network: Any = method.encoder
    assert share[id(network.vision.network.embeddings.class_embedding)] == 0.5**3
    assert share[id(next(blocks_of(network.vision)[0].parameters()))] == 0.5**2
    assert share[id(next(blocks_of(network.vision)[1].parameters()))] == 0.5
    assert share[id(network.vision.network.post_layernorm.weight)] == 1.0
    assert share[id(network.text.text_model.embeddings.token_embedding.weight)] == 0.5**3
    PAIRS["open_clip"](tmp_path / "other")
    method = methods.find("clip")(tiny("clip", {"pair": published(tmp_path / "other", layer_decay=0.5)}))
    share = {id(parameter): share for part, share in method.rates() for parameter in part.parameters()}
    network = method.encoder
    assert share[id(network.vision.network.proj)] == share[id(network.text.text_projection)] == 1.0
    assert share[id(network.text.token_embedding.weight)] == 0.5**2  # one block
    for wrong in ({"layer_decay": 0.0}, {"frozen_blocks": 9}, {"image_tower": "locked", "text_tower": "locked"}):
        with pytest.raises(RizbinError):
            build_pair(published(tmp_path, **wrong))


def test_rizbins_own_towers_are_tuned_alike() -> None:
    pair = build_pair(replace(NANO, tuning=TuningSettings(lora_rank=2, layer_decay=0.5)))
    learning = [name for name, parameter in pair.named_parameters() if parameter.requires_grad]
    assert any("vision.trunk.blocks.0.attn.qkv" in name for name in learning)
    assert any("text.transformer.resblocks.0.attn" in name for name in learning)
    assert all("parametrizations" in name or "projection" in name or "logit" in name for name in learning)


@pytest.mark.parametrize("form", ["open_clip", "CLIP", "DINOv3"])
def test_adapters_start_at_the_network_and_merge_into_it(form: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    {**PAIRS, **TOWERS}[form](start)
    plain = build_pair(published(start)).eval()
    pair = build_pair(published(start, lora_rank=2)).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pair.vision(images).cls, plain.vision(images).cls, atol=1e-6)
    adapters = [module for module in pair.modules() if isinstance(module, LowRank)]
    assert adapters
    for adapter in adapters:
        torch.nn.init.normal_(adapter.up, std=0.1)
    assert not torch.allclose(pair.vision(images).cls, plain.vision(images).cls, atol=1e-3)
    assert torch.allclose(merged(pair.vision)(images).cls, pair.vision(images).cls, atol=1e-5)


@pytest.mark.parametrize("form", ["SigLIP", "timm DINOv3"])
def test_a_run_begins_with_it_stands_alone_and_gives_it_back(form: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    {**PAIRS, **TOWERS}[form](start)
    small = {"head_hidden": 32, "head_bottleneck": 16, "prototypes": 16, "decoder_width": 32}
    text = {"width": 32, "layers": 1, "heads": 2}
    training = train(
        "detailclip",
        start=str(start),
        steps=2,
        batch=4,
        run=tmp_path / "run",
        device="cpu",
        quiet=True,
        settings={**small, "pair": {"text": text, "embedding": 16, "tuning": {"lora_rank": 2}}},
    )
    kept = json.loads((training.folder / "settings.json").read_text())
    size = 64 if form.startswith("timm") else 32
    assert kept["settings"]["pair"]["vision"]["image_size"] == size and kept["start"] == ""
    start.rename(tmp_path / "gone")  # the run has its own copy of all but the weights
    run = load_run(training.folder)
    assert isinstance(run.pair, PublishedPair) and run.step == 2
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    encoder = open_model(str(training.folder)).encoder
    again = open_model(str(training.folder / "model")).encoder
    if form == "SigLIP":
        assert torch.allclose(again.encode_image(images), encoder.encode_image(images), atol=1e-5)
        assert torch.allclose(again.encode_text("a fox"), encoder.encode_text("a fox"), atol=1e-5)
    assert torch.allclose(again.encode_image(images).norm(dim=-1), torch.ones(2), atol=1e-5)
    onward = begun(replace(preset("clip"), start=str(training.folder)))
    assert onward.settings.pair.published == str((training.folder / "model").resolve())


def test_flags_name_the_start_and_the_size(tmp_path: Path) -> None:
    PAIRS["CLIP"](tmp_path)
    training, _ = from_flags("clip", {"start": f"hf:{tmp_path}", "steps": 1})
    assert training.start == "" and training.settings.pair.published == f"hf:{tmp_path}"
    assert training.settings.image_size == 32  # its own, and not the preset's 64
    training, _ = from_flags("clip", {"start": str(tmp_path), "settings.pair.vision.image_size": 48})
    assert training.settings.image_size == 48
    assert open_model(f"hf:{tmp_path}").library == "transformers"


@pytest.mark.parametrize("form", ["open_clip", "SigLIP"])
def test_a_stopped_run_goes_on_with_the_same_bits(form: str, tmp_path: Path) -> None:
    PAIRS[form](tmp_path / "start")
    straight, stopped = (RunFolder(tmp_path / name) for name in ("straight", "stopped"))
    training = begun(replace(preset("clip"), start=str(tmp_path / "start"), steps=4, batch=4))
    source = training_source(training)
    for folder, stops in ((straight, (4,)), (stopped, (2, 4))):
        folder.create_or_resume({"settings": 1})
        for until in stops:
            method = build(training)
            trainer = Trainer(training.trainer, batch=4, steps=4, checkpoint_every=2, seed=0)
            trainer.fit(method, source, folder, quiet=True, until=until)
        folder.release()
    one, other = (checkpoint.load(folder.checkpoints) for folder in (straight, stopped))
    assert one is not None and other is not None
    for name, value in one.tensors["method"].items():
        assert torch.equal(value, other.tensors["method"][name]), name


def test_names_are_spelled_with_their_library() -> None:
    for name, start in (
        ("detailclip-mini", "detailclip-mini"),
        ("openai/clip-vit-base-patch32", "hf:openai/clip-vit-base-patch32"),
        ("timm/vit_tiny_patch16_224", "timm:timm/vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("open_clip:ViT-B-32/openai", "open_clip:ViT-B-32/openai"),
        ("./nowhere/model", "./nowhere/model"),
    ):
        assert spelled(name) == start


def test_image_methods_begin_with_published_towers(tmp_path: Path) -> None:
    TOWERS["DINOv2"](tmp_path / "start")
    training = train(
        "dino",
        start=str(tmp_path / "start"),
        steps=1,
        batch=4,
        run=tmp_path / "run",
        device="cpu",
        quiet=True,
        trainer={"learning_rate": 1e-4},
        settings={"prototypes": 16, "head_hidden": 32, "head_bottleneck": 16, "local_view": {"size": 16}},
    )
    assert open_model(str(training.folder)).encoder.image_size == 32
    assert (training.folder / "model" / "config.json").is_file()


def test_what_cannot_begin_a_training_is_refused(tmp_path: Path) -> None:
    PAIRS["CLIP"](tmp_path / "start")
    options: dict[str, Any] = {"steps": 1, "batch": 4, "quiet": True}
    with pytest.raises(RizbinError, match="Rizbin's own towers"):
        train("maskclip", start=str(tmp_path / "start"), run=tmp_path / "a", **options)
    with pytest.raises(RizbinError, match="does not divide"):
        size = {"pair": {"vision": {"image_size": 33}}}
        train("clip", start=str(tmp_path / "start"), settings=size, run=tmp_path / "b", **options)
    with pytest.raises(RizbinError, match="trains no encoder"):
        begun(replace(preset("detector"), start=str(tmp_path / "start")))
