"""What every method must do, whichever it is: a new file in rizbin/methods is tested by these without a word here."""

import copy
import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin import methods
from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from rizbin.core.runs import RunFolder
from rizbin.core.settings import explained, to_dict
from rizbin.data.loader import Loader
from rizbin.data.scenes import Scenes
from rizbin.data.views import View, normalize
from rizbin.evaluation.collapse import normalized_std
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method
from rizbin.training.settings import ImageTextSettings
from rizbin.training.trainer import NotFinite, Trainer
from rizbin.workflows import presets
from tests.processes import run_in_processes
from tests.toys import ENCODER, NANO, batch_for, build, tiny

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "detailclip": [
        {
            "selection": "random",
            "block": 1,
            "visible_weight": 1.0,
            "teacher_resolution": "half",
            "contrast_view": "clean",
        },
        {"selection": "none", "visible_weight": 1.0, "patches_contrast_weight": 1.0, "patches_pool": "text"},
        {"phrase_weight": 1.0, "contrast_view": "clean", "hide": "attention", "view_count": 1, "block": 1},
        {"phrase_weight": 1.0, "hide": "random", "low_resolution": 2, "teacher_part": "head", "head_norm": True},
        {"hide": "random", "patch_target": "features", "visible_weight": 1.0, "decoder_width": 64},
        {"hide": "block", "hide_ratio": 0.3, "selection": "inverse", "decoder_blocks": 2, "early_image_size": 16},
        {"hide": "random", "selection": "attention", "selection_share": 0.6, "contrast_view": "clean"},
        {"phrase_weight": 1.0, "pair": replace(NANO, contrast="sigmoid"), "distillation": False},
        {"selection": "none", "distillation": False, "low_resolution": 4, "contrast_view": "clean"},
        {"distillation": False, "pair": replace(NANO, contrast="sigmoid", pool="cls")},
        {"reconstruction": False, "late_start": 0.5},
        {"distillation": False, "reconstruction": False, "selection": "none"},
        {"pair": replace(NANO, vision=replace(NANO.vision, registers=2)), "decoder_width": 64},
    ],
    "aclip": [{"selection": "random"}, {"selection": "none"}],
    "tecoa": [{"moves": 2, "growth": 0.0, "pair": replace(NANO, contrast="sigmoid")}],
    "simclr": [
        {"negatives": False, "head_norm": False},
        {"together": False, "encoder": ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32)},
        {"encoder": ImageEncoder.Settings(name="test_resnet", image_size=32)},
    ],
    "byol": [
        {"predictor": False, "target": "fixed"},
        {"stop_gradient": False, "negatives": True, "predictor": False, "together": True},
        {
            "target": "copy",
            "predictor_layers": 1,
            "encoder": ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32),
        },
    ],
    "dino": [
        {"centering": False, "local_crops": 0},
        {"sharpening": False, "stop_gradient": False, "head_norm": True},
        {"freeze_last_layer": 0.9, "encoder": replace(ENCODER, registers=2)},
    ],
    "logo": [
        {"base": "simsiam", "weighting": "weight", "head_norm": True, "projection_layers": 3},
        {"base": "byol", "affinity": "cosine"},
        {"base": "moco", "affinity": "none", "local_global": False},
    ],
}
CASES = [(name, {}) for name in methods.names()] + [(name, extra) for name, more in VARIANTS.items() for extra in more]
every_case = pytest.mark.parametrize(
    ("name", "extra"), CASES, ids=[f"{name}{'-'.join(['', *extra])}" for name, extra in CASES]
)
every_method = pytest.mark.parametrize("name", methods.names())


def trainer(steps: int = 6, batch: int = 8, **changes: Any) -> Trainer:
    return Trainer(
        Trainer.Settings(**{"log_every": 1, **changes}), batch=batch, steps=steps, checkpoint_every=3, seed=0
    )


def source() -> Scenes:
    return Scenes(Scenes.Settings(size=32, categories=8))


def run_steps(method: Method, count: int, own: slice = slice(None)) -> dict[str, Tensor]:
    """The state after `count` steps on one made batch."""
    engine = trainer()
    engine.device = torch.device("cpu")
    optimizers = engine.optimizers(method)
    for step in range(count):
        engine.step(method.train(), optimizers, batch_for(method, own=own), step)
    return {name: value.clone() for name, value in method.state_dict().items()}


@every_method
def test_settings_are_explained_and_the_source_is_named(name: str) -> None:
    found = methods.find(name)
    assert found.name == name
    assert set(explained(found.Settings)) == {field.name for field in dataclasses.fields(found.Settings)}
    text = __import__(found.__module__, fromlist=["_"]).__doc__
    assert found.arxiv and f"arXiv {found.arxiv}" in " ".join(text.split()), "a method names its paper"


@every_method
def test_every_preset_builds_its_settings(name: str) -> None:
    assert {"small", "paper"} <= set(presets.names(name))
    for preset in presets.names(name):
        training = presets.preset(name, preset)
        assert training.method == name and to_dict(training)["settings"]


@every_case
def test_a_step_moves_the_declared_parts_only_and_stays_finite(name: str, extra: dict[str, Any]) -> None:
    method = build(name, extra)
    before = copy.deepcopy(method.state_dict())
    declared = {id(p) for parts in method.optimizers().values() for part in parts for p in part.parameters()}
    teachers = {key for key, p in method.named_parameters() if id(p) not in declared}
    assert all(key.startswith("teacher") for key in teachers)
    engine = trainer()
    optimizers = engine.optimizers(method)
    records = engine.step(method.train(), optimizers, batch_for(method), 4)
    assert all(bool(torch.isfinite(torch.as_tensor(value))) for value in records.values()), records
    after = method.state_dict()
    own = ("pair.vision", "backbone")
    assert any(not torch.equal(after[key], before[key]) for key in after if key.startswith(own))
    for key, parameter in method.named_parameters():
        if key in teachers:
            assert not parameter.requires_grad and parameter.grad is None, f"{key} is a teacher's and has a gradient"
    moved = [key for key in teachers if not torch.equal(after[key], before[key])]
    follows = bool(teachers) and getattr(method.settings, "target", "ema") != "fixed"
    assert bool(moved) == follows, "a teacher must follow its student"


@every_case
def test_stopped_at_three_and_resumed_equals_six_straight(name: str, extra: dict[str, Any], tmp_path: Path) -> None:
    states = []
    for stops in ([6], [3, 6]):
        folder = RunFolder(tmp_path / str(len(stops)))
        folder.create_or_resume({"method": name})
        for until in stops:
            method = build(name, extra)  # a new one each time, as after a kill
            trainer().fit(method, source(), folder, quiet=True, until=until)
        states.append(method.state_dict())
        folder.release()
    assert states[0].keys() == states[1].keys()
    different = [key for key in states[0] if not torch.equal(states[0][key], states[1][key])]
    assert not different, f"not the same bits: {different[:5]}"


@every_method
def test_the_same_seed_gives_the_same_bits_and_another_does_not(name: str) -> None:
    a, b = run_steps(build(name), 2), run_steps(build(name), 2)
    assert all(torch.equal(a[key], b[key]) for key in a)
    torch.manual_seed(1)
    other = methods.find(name)(tiny(name))
    assert any(not torch.equal(value, a[key]) for key, value in run_steps(other, 2).items())


@every_method
def test_a_bf16_step_runs_and_weights_stay_fp32(name: str) -> None:
    method = build(name)
    engine = trainer(precision="bf16")
    records = engine.step(method.train(), engine.optimizers(method), batch_for(method), 4)
    assert all(bool(torch.isfinite(torch.as_tensor(value))) for value in records.values()), records
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}


def _share(name: str, extra: dict[str, Any]) -> dict[str, Tensor]:
    torch.set_default_dtype(torch.float64)
    try:
        rows = 8 // parallel.world_size()
        own = slice(parallel.rank() * rows, (parallel.rank() + 1) * rows)
        method = build(name, extra).double()
        as_double = batch_for(method, own=own)
        engine = trainer()
        engine.device = torch.device("cpu")
        optimizers = engine.optimizers(method)
        for step in range(4, 6):
            engine.step(method.train(), optimizers, as_double, step)
        return {key: value.clone() for key, value in method.state_dict().items()}
    finally:
        torch.set_default_dtype(torch.float32)


@every_case
def test_two_processes_with_half_the_batch_each_equal_one_with_all(name: str, extra: dict[str, Any]) -> None:
    alone = _share(name, extra)
    for other in run_in_processes(_share, 2, name, extra):
        for key, value in alone.items():
            # float64; Adam divides by the root of squared gradients, which widens rounding of near-zero ones.
            assert torch.allclose(other[key], value, rtol=1e-9, atol=1e-9), key


@every_method
def test_four_processes_equal_one(name: str) -> None:
    alone = _share(name, {})
    for other in run_in_processes(_share, 4, name, {}):
        for key, value in alone.items():
            assert torch.allclose(other[key], value, rtol=1e-9, atol=1e-9), key


@every_method
def test_a_loss_that_is_not_finite_stops_before_the_update(name: str, tmp_path: Path) -> None:
    method = build(name)
    with torch.no_grad():  # in the first layer: whatever comes after it is not finite either
        next(part for part in method.optimizers()["main"][0].parameters() if part.ndim > 1).fill_(float("nan"))
    before = copy.deepcopy(method.state_dict())
    folder = RunFolder(tmp_path / "run")
    folder.create_or_resume({"method": name})
    with pytest.raises(NotFinite, match="Step 1 "):
        trainer().fit(method, source(), folder, quiet=True)
    # Centers may have seen the teacher; what an optimizer moves has not moved.
    for key, _ in method.named_parameters():
        assert torch.equal(method.state_dict()[key].nan_to_num(7.0), before[key].nan_to_num(7.0)), key
    assert list((folder.path / "failures").glob("step_*")), "the bad step is kept for a replay"
    folder.release()


@every_method
def test_look_shows_what_the_method_has(name: str) -> None:
    method = build(name).eval()
    look = method.look(torch.randn(3, 3, 32, 32))
    if look is None:
        return
    assert look.attention.shape == look.removed.shape == (3, 4, 4)
    assert bool((look.attention >= 0).all()) and bool((look.attention.sum((1, 2)) <= 1 + 1e-5).all())
    if look.reconstruction is not None:
        assert look.reconstruction.shape == (3, 3, 32, 32)


READERS = [name for name in methods.names() if issubclass(methods.find(name).Settings, ImageTextSettings)]
NAMERS = [name for name in methods.names() if hasattr(methods.find(name).Settings(), "names")]


@pytest.mark.parametrize("name", NAMERS)
def test_training_on_names_teaches(name: str) -> None:
    """Of new scenes, the name with the highest logit is right far above chance."""
    world = Scenes(Scenes.Settings(size=32, categories=4, preset="single"))
    encoder = ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32)  # learns in steps, not in minutes
    method = build(name, {"names": world.categories, "encoder": encoder})
    method.views = tuple(replace(view, crop_area=(0.8, 1.0), flip=0.0) for view in method.views)
    engine = trainer(steps=120, batch=16, learning_rate=3e-3, warmup=0.1)
    engine.device = torch.device("cpu")
    optimizers = engine.optimizers(method)
    for step, raw in enumerate(Loader(world, method.views, None, seed=0, batch=16, steps=124)):
        batch = Batch([normalize(view) for view in raw.views], raw.crops, raw.flips, None, raw.objects)
        if step < 120:
            engine.step(method.train(), optimizers, batch, step)
            continue
        encoder = method.eval().encoder
        assert isinstance(encoder, ImageEncoder)
        with torch.no_grad():
            logits = method.project(encoder.pooled(batch.views[0]))
        assert logits is not None
        said = [world.categories[int(best)] for best in logits.argmax(1)]
        right = [name == named[0].name for name, named in zip(said, batch.objects, strict=True)]
        assert sum(right) >= 9, "of sixteen images; chance is four"


@pytest.mark.parametrize("name", [name for name in methods.names() if name not in (*READERS, *NAMERS)])
def test_training_without_captions_teaches(name: str) -> None:
    """Health, not loss: projections spread, and two views of a picture find each other among sixteen."""
    own = {field.name for field in dataclasses.fields(methods.find(name).Settings)}
    # A young teacher follows fast, and heads have norms: what a run of 80 steps needs.
    method = build(name, {field: value for field, value in (("momentum", 0.9), ("head_norm", True)) if field in own})
    mild = {"crop_area": (0.5, 1.0), "jitter": 0.0, "grayscale": 0.0, "blur": 0.0, "solarize": 0.0, "flip": 0.0}
    method.views = tuple(replace(view, **mild) for view in method.views)
    world = Scenes(Scenes.Settings(size=32, categories=16, preset="single"))
    engine = trainer(steps=80, batch=16, learning_rate=3e-3, warmup=0.1)
    engine.device = torch.device("cpu")
    optimizers = engine.optimizers(method)
    loader = Loader(world, method.views, None, seed=0, batch=16, steps=81)
    for step, raw in enumerate(loader):
        batch = Batch([normalize(view) for view in raw.views], raw.crops, raw.flips, None)
        if step < 80:
            engine.step(method.train(), optimizers, batch, step)
    method.eval()
    with torch.no_grad():
        encoder = method.encoder
        assert isinstance(encoder, ImageEncoder)
        features = [encoder.pooled(view) for view in batch.views[:2]]
        projections = method.project(features[0])
    assert projections is not None
    assert normalized_std(projections) > 0.1, "projections have collapsed to a point"
    a, b = (F.normalize(one - one.mean(0), dim=-1) for one in features)
    found = (a @ b.T).argmax(1) == torch.arange(16)
    assert int(found.sum()) >= 5, "of sixteen pictures; chance is one"


@pytest.mark.parametrize("name", READERS)
def test_training_teaches(name: str) -> None:
    """Health, not loss.

    After some steps on eight scenes, captions find their pictures far above chance and embeddings spread.
    """
    method = build(name)
    world = source()
    engine = trainer(steps=60, learning_rate=3e-3, warmup=0.1)
    engine.device = torch.device("cpu")
    optimizers = engine.optimizers(method)
    views = [
        View(replace(view, crop_area=(1.0, 1.0), jitter=0.0, grayscale=0.0, blur=0.0, solarize=0.0, flip=0.0))
        for view in method.views
    ]
    samples = [world[i] for i in range(8)]
    made = [
        normalize(torch.from_numpy(np.stack([view(sample.image, np.random.default_rng(0))[0] for sample in samples])))
        for view in views
    ]
    assert method.tokenizer is not None
    texts = method.tokenizer.trim(method.tokenizer.encode([sample.caption for sample in samples]))
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(made), 8, 4)
    batch = Batch(made, whole, torch.zeros(len(made), 8, dtype=torch.bool), texts)
    for step in range(60):
        engine.step(method.train(), optimizers, batch, step)
    method.eval()
    with torch.no_grad():
        pair = method.encoder
        assert isinstance(pair, ImageTextPair)
        images = pair.encode_images(made[0])
        right = (images @ pair.encode_texts(texts).T).argmax(1) == torch.arange(8)
    assert int(right.sum()) >= 5, "of eight captions; chance is one"
    assert float(images.std(0).mean()) > 0.02, "embeddings have collapsed to a point"


def test_a_method_that_is_none_is_named() -> None:
    with pytest.raises(RizbinError, match="choose one of aclip"):
        methods.find("clop")
