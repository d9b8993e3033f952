"""What Rizbin exports loads in plain open_clip and timm, in a program that imports nothing of Rizbin."""

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
import torch

from rizbin import cli, plugin
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip, save_timm
from rizbin.nets.image import ImageEncoder
from rizbin.workflows.loading_lines import loading_lines
from tests.toys import ENCODER, NANO

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a program where Rizbin is installed as it stands here, its entry points with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    facts = tmp_path / "packages" / "rizbin_as_it_stands-0.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: rizbin-as-it-stands\nVersion: 0.0\n")
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {target}" for name, target in points.items()))
    ]
    (facts / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(facts.parent), str(ROOT)])}


def run(script: str, environment: dict[str, str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(script)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lines_that_export_prints_load_it_in_plain_software(
    tmp_path: Path, installed: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    pair, encoder = ImageTextPair(NANO).eval(), ImageEncoder(ENCODER).eval()
    save_open_clip(pair, tmp_path / "pair")
    save_timm(encoder, tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    said = []
    for name, form in (("pair", "open_clip"), ("encoder", "timm")):
        assert cli.main(["export", name, "--format", form, "--output", f"{name} exported"]) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert first == f"{name} exported" and "rizbin" not in " ".join(line.split("#")[0] for line in lines)
        said.append("\n".join(lines))
    images, captions = torch.rand(2, 3, 32, 32), ["a cat!", "two dogs left of a bus"]
    torch.save({"images": images}, tmp_path / "images.pt")
    script = f"""
{said[0]}
import torch
images = torch.load("images.pt")["images"]
with torch.no_grad():
    made = [model.eval().encode_image(images, normalize=True), model.encode_text(tokenizer({captions}), normalize=True)]
{said[1]}
with torch.no_grad():
    made.append(model.eval()(images))
torch.save(made, "made.pt")
"""
    run(script, installed, tmp_path)
    made = torch.load(tmp_path / "made.pt")
    with torch.no_grad():
        expected = [pair.encode_images(images), pair.encode_texts(pair.tokenizer.encode(captions)), encoder(images)]
    for theirs, ours in zip(made, expected, strict=True):
        assert torch.allclose(theirs, ours, atol=1e-5)


def test_nothing_is_imported_before_timm_is(tmp_path: Path, installed: dict[str, str]) -> None:
    script = """
    import sys
    import torch
    print(sorted(name for name in sys.modules if name.split(".")[0] in ("rizbin", "timm")))
    import timm
    print(timm.is_model("rizbin_vit_mini_patch8_64"), timm.models.__spec__.loader is timm.models.__loader__)
    print(type(timm.models.__loader__).__name__, [type(one).__name__ for one in sys.meta_path].count("_Finder"))
    """
    assert run(script, installed, tmp_path).splitlines() == [
        "['rizbin', 'rizbin.plugin']",
        "True True",
        "SourceFileLoader 0",
    ]


def test_announcing_twice_or_late_changes_nothing() -> None:
    before = list(sys.meta_path)
    plugin.announce()  # timm is there already
    assert sys.meta_path == before


def test_lines_for_what_finds_and_what_draws(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    assert "DiffusionPipeline.from_pretrained(" in loading_lines(tmp_path)
    (tmp_path / "model_index.json").unlink()
    assert "AutoModelForZeroShotObjectDetection.from_pretrained(" in loading_lines(tmp_path)
    (tmp_path / "model.onnx").write_text("")
    assert 'model.onnx")' in loading_lines(tmp_path)
