"""The docs are right: the method that they write out trains, flags exist, and an export is read as they say."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import torch

from rizbin import cli, methods
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.export import save_open_clip
from tests.toys import NANO, batch_for, tiny

DOCS = Path(__file__).resolve().parent.parent / "docs"


def text_of(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL)


def test_the_method_of_the_page_is_one_file_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rizbin.training.method import Progress

    (tmp_path / "flip.py").write_text(blocks("methods.md", "python")[-1])
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    assert "flip" in methods.names()
    torch.manual_seed(0)
    method = methods.find("flip")(tiny("flip"))
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    losses = []
    for step in range(8):
        for wish in method.step(batch_for(method), Progress(0, 8)):
            optimizer.zero_grad()
            wish.loss.backward()
            optimizer.step()
            losses.append(float(wish.loss.detach()))
        assert len(losses) == step + 1
    assert losses[-1] < losses[0]


def test_the_tables_are_as_make_docs_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    for name in tables.PAGES:
        page = (DOCS.parent / name).read_text(encoding="utf-8")
        assert tables.written(page) == page, f"the tables of {name} are stale; run `make docs`"
    page = text_of("methods.md")
    assert sorted(re.findall(r"^\| `(\w+)` \|.*arXiv", page, re.MULTILINE)) == sorted(methods.names())
    assert set(methods.names()) <= set(re.findall(r"^## (\w+)$", page, re.MULTILINE))
    longer = page.replace("<!-- make docs: captions -->\n", "<!-- make docs: captions -->\n| a row of nothing |\n")
    assert longer != page and tables.written(longer) == page


@pytest.mark.parametrize("page", ["methods.md", "networks.md", "train.md"])
def test_flags_exist(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"--(?:method|trainer)\.[\w.-]+\w", text_of(page)))
    known = ""
    for name in methods.names():
        assert cli.main(["train", name, "--help-all"]) == 0
        known += capsys.readouterr().out
    assert named and not {flag for flag in named if not re.search(rf"{re.escape(flag)}[\s,]", known)}
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            assert shlex.split(line, comments=True)


def test_open_clip_reads_the_export_by_the_lines_of_the_page(tmp_path: Path) -> None:
    save_open_clip(ImageTextPair(NANO), tmp_path / "model")
    (lines,) = [block for block in blocks("networks.md", "python") if "open_clip" in block]
    names: dict = {}
    exec(compile(lines.replace("DIR", str(tmp_path / "model")), "networks.md", "exec"), names)
    tokens = names["tokenizer"](["a fox"])
    assert torch.equal(tokens, ImageTextPair(NANO).tokenizer.encode(["a fox"]))
    assert names["model"].eval().encode_text(tokens).shape == (1, NANO.embedding)


def test_the_pair_does_what_the_page_says() -> None:
    lines, head = [block for block in blocks("networks.md", "python") if "pair.dense" in block]
    names: dict = {}
    exec(compile(lines, "networks.md", "exec"), names)
    exec(
        compile(head.replace("guided_upsample(scores", "pixels = guided_upsample(scores"), "networks.md", "exec"), names
    )
    assert names["scores"].shape == (2, 2, 16, 16) and names["pixels"].shape == (2, 2, 64, 64)


def test_the_picture_of_the_floors_and_their_table_are_those_of_the_import_rules() -> None:
    """`make docs` draws the picture; the table of ARCHITECTURE.md is written by hand, floor by floor."""
    spec = importlib.util.spec_from_file_location("architecture", DOCS / "architecture.py")
    assert spec is not None and spec.loader is not None
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    assert architecture.DIAGRAM.read_text(encoding="utf-8") == architecture.diagram(), "stale: run make docs"
    text = (DOCS.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", text.partition("## Floors")[2].partition("## Contracts")[0], re.M)
    written = [re.findall(r"`(\w+)`", row) for row in table]
    assert [sorted(rooms) for rooms in written] == [sorted(rooms) for rooms in architecture.floors()]
