"""The script for one GPU, run on the CPU as small as it goes: rows, files, going on, and what it says without a GPU."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "gpu.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    return script.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_sentence(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(script, monkeypatch, "--output", str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no GPU" in error and "--dry-run" in error


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_speed_rows_with_and_without_compiling(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    assert run(script, monkeypatch, "--dry-run", "--parts", "speed", "--batch", "2") == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]["speed"]
    assert len(rows) == 6 and not any("failed" in row for row in rows.values()), rows
    assert rows["vits16, open_clip CLIP"]["x open_clip"] == 1
    full, half = (rows[f"vits16, DetailCLIP, {name} teacher"]["TFLOP a step"] for name in ("full", "half-resolution"))
    assert half < full
    assert rows["vits16, DetailCLIP, full teacher, compiled"]["TFLOP a step"] == full


def test_branches_start_alike_and_go_on_where_they_ended(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = {name: script.BRANCHES[name] for name in ("CLIP", "all three")}
    monkeypatch.setattr(script, "BRANCHES", few)
    words = ("--dry-run", "--parts", "branches", "--output", str(tmp_path))
    assert run(script, monkeypatch, *words) == 0
    content = json.loads((tmp_path / "results.json").read_text())
    rows = dict(content["rows"]["branches"])
    assert list(rows) == ["start", "CLIP", "all three"]
    assert (
        rows["CLIP"]["steps"] == rows["all three"]["steps"] == json.loads((tmp_path / "plan.json").read_text())["steps"]
    )
    assert "zero_shot/top1" in rows["start"] and "| zero_shot/top1 |" in (tmp_path / "results.md").read_text()
    # One row is lost: only that is made again, from the same start, to the same numbers.
    del content["rows"]["branches"]["CLIP"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    before = (tmp_path / "start.safetensors").read_bytes()
    assert run(script, monkeypatch, *words) == 0
    again = json.loads((tmp_path / "results.json").read_text())["rows"]["branches"]
    assert again["CLIP"]["zero_shot/map"] == rows["CLIP"]["zero_shot/map"] and again["all three"] == rows["all three"]
    assert (tmp_path / "start.safetensors").read_bytes() == before


def test_crops_are_what_their_boxes_say(script: ModuleType) -> None:
    from rizbin.data.views import View

    ramp = torch.arange(64.0).expand(1, 3, 64, 64) / 63
    view = View.Settings(size=32, crop_area=(0.5, 0.6), crop_ratio=(0.9, 1.1))
    pixels, boxes = script.crop(ramp, view, torch.Generator().manual_seed(0))
    left, top, right, bottom = boxes[0].tolist()
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1 and 0.5 <= (right - left) * (bottom - top) <= 0.601
    # The ramp's value at a pixel's middle x (a share) is (64 x - 0.5) / 63.
    assert float(pixels[0, 0, 0, 0]) == pytest.approx((64 * (left + (right - left) / 64) - 0.5) / 63, abs=0.01)
    assert float(pixels[0, 0, 0, -1]) == pytest.approx((64 * (right - (right - left) / 64) - 0.5) / 63, abs=0.01)
    whole, _ = script.crop(ramp, View.Settings(size=64), torch.Generator().manual_seed(0))
    assert torch.allclose(whole, ramp, atol=1e-5), "a view without a crop is the image"
