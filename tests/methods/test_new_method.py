"""A method is one file: one that lies in another folder is found, listed, trained and tested like all others."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rizbin import cli, methods
from rizbin.core.errors import RizbinError
from rizbin.core.settings import to_dict
from rizbin.training.settings import ImageTextSettings
from rizbin.workflows import presets, runs
from tests.methods import test_methods as contract
from tests.processes import run_in_processes

DOCS = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
FLIP = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[-1]
"""The method that the page of methods writes out."""
ALONE = '''"""Twins: two views of an image have the same features; nothing keeps them from collapsing.

Source: what SimSiam (arXiv 2011.10566) shows to fail, its figure 2.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch.nn import functional as F

from rizbin.data.views import View
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress
from rizbin.training.presets import STRONG, nano, small
from rizbin.training.settings import ImageSettings, Presets


class Twins(Method):
    """Minus the cosine of two views."""

    arxiv = "2011.10566"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageSettings):
        view: View.Settings = STRONG
        """Each of the two views."""

    @classmethod
    def presets(cls) -> Presets:
        training = small(cls.name, cls.Settings())
        return {"small": training, "nano": nano(training)}

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = ImageEncoder(settings.encoder)
        self.views = (replace(settings.view, size=settings.encoder.image_size),) * 2

    @property
    def encoder(self) -> ImageEncoder:
        return self.backbone

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        a, b = (self.backbone(view) for view in batch.views)
        yield Minimize(-F.cosine_similarity(a, b, dim=-1).mean())
'''


def join(folder: str, name: str) -> None:
    """Makes a folder one more of those in which methods lie, in this process."""
    methods.__path__.append(folder)
    sys.modules.pop(f"rizbin.methods.{name}", None)
    importlib.invalidate_caches()


def leave(folder: str, name: str) -> None:
    methods.__path__.remove(folder)
    sys.modules.pop(f"rizbin.methods.{name}", None)


@pytest.fixture
def add(tmp_path: Path) -> Iterator[Any]:
    """Adds a method's file; returns the method's name."""
    added: list[tuple[str, str]] = []

    def add(name: str, text: str) -> str:
        folder = tmp_path / f"{name}_lies_here"
        folder.mkdir()
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
        join(str(folder), name)
        added.append((str(folder), name))
        return name

    yield add
    for folder, name in added:
        leave(folder, name)


def there(folder: str, name: str) -> dict[str, Tensor]:
    """The contract's weights of one process's share, where the process does not know the folder yet."""
    join(folder, name)
    try:
        return contract._share(name, {})
    finally:
        leave(folder, name)


def test_the_contract_holds_for_a_file_elsewhere(add: Any, tmp_path: Path) -> None:
    """The tests that all methods share, one by one."""
    name = add("flip", FLIP)
    contract.test_settings_are_explained_and_the_source_is_named(name)
    contract.test_every_preset_builds_its_settings(name)
    contract.test_a_step_moves_the_declared_parts_only_and_stays_finite(name, {})
    contract.test_stopped_at_three_and_resumed_equals_six_straight(name, {}, tmp_path / "stopped")
    contract.test_the_same_seed_gives_the_same_bits_and_another_does_not(name)
    contract.test_a_bf16_step_runs_and_weights_stay_fp32(name)
    contract.test_a_loss_that_is_not_finite_stops_before_the_update(name, tmp_path / "not finite")
    contract.test_look_shows_what_the_method_has(name)
    contract.test_training_teaches(name)


def test_two_processes_with_half_the_batch_equal_one(add: Any, tmp_path: Path) -> None:
    name = add("flip", FLIP)
    alone = contract._share(name, {})
    for other in run_in_processes(there, 2, str(tmp_path / "flip_lies_here"), name):
        assert all(torch.allclose(other[key], value, rtol=1e-9, atol=1e-9) for key, value in alone.items())


def test_its_presets_are_its_own_and_the_command_line_knows_it(
    add: Any, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = add("flip", FLIP)
    assert presets.names(name) == ("small", "vits16", "vitb16", "paper")
    large = presets.preset(name, "paper")
    assert (large.method, large.batch, presets.view_size(large.settings)) == ("flip", 4096, 224)
    assert runs.training_from(to_dict(large)) == large
    assert cli.main(["train"]) == 0
    assert re.search(r"^  flip +FLIP: CLIP on a random part", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["train", name, "--preset", "paper", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert "--method.keep-ratio" in text and "--method.pair.vision.name" in text
    assert cli.main(["train", name, "--preset", "nano"]) == 2
    told = capsys.readouterr().err
    assert "flip has no preset" in told and told.count("\n") == 1


def test_a_method_without_captions_trains_a_few_steps(add: Any, empty_folder: Path) -> None:
    name = add("twins", ALONE)
    assert presets.names(name) == ("small", "nano")
    training = replace(presets.preset(name, "nano"), steps=3, batch=4)
    run = runs.train(training, empty_folder / "run", device="cpu", quiet=True, silent=True)
    assert runs.load_run(run).step == 3 and (run / "model").is_dir()


def test_a_preset_that_is_not_there_is_one_sentence(add: Any) -> None:
    with pytest.raises(RizbinError, match="twins has no preset 'paper'; choose one of small, nano"):
        presets.preset(add("twins", ALONE), "paper")
    bare = re.sub(r"    @classmethod\n    def presets.*?\n\n", "", ALONE, flags=re.DOTALL)
    assert bare != ALONE
    with pytest.raises(RizbinError, match="bare has no presets to start from"):
        presets.names(add("bare", bare))


def test_settings_that_do_not_say_what_is_read_are_refused(add: Any) -> None:
    with pytest.raises(RizbinError, match="neither ImageSettings nor ImageTextSettings"):
        methods.find(add("untyped", ALONE.replace("class Settings(ImageSettings)", "class Settings")))


def test_a_preset_cannot_set_what_is_not_there(add: Any) -> None:
    wrong = ALONE.replace("small(cls.name, cls.Settings())", "small(cls.name, cls.Settings(prototypes=64))")
    with pytest.raises(TypeError, match="prototypes"):
        presets.names(add("wrong", wrong))


def test_all_methods_are_typed_by_what_they_read() -> None:
    for name in methods.names():
        settings = methods.find(name).Settings
        own = {field.name for field in dataclasses.fields(settings)}
        assert ("pair" in own, "encoder" in own) == (
            (True, False) if issubclass(settings, ImageTextSettings) else (False, True)
        )
