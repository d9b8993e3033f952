"""The notebooks of the course: their outputs are cleared, and every line of them runs, at toy size."""

import json
from pathlib import Path
from typing import Any

import pytest

from rizbin.studies import course

NOTEBOOKS = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
FILES = sorted(NOTEBOOKS.glob("*.ipynb"))

# A call of diffusers' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def test_every_group_has_its_notebook() -> None:
    assert [file.name for file in FILES] == [group.notebook for group in course.groups()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_outputs_are_cleared(file: Path) -> None:
    notebook = json.loads(file.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["cells"][0]["cell_type"] == "markdown"
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    # Every notebook ends in the experiment that answers its question with seeds.
    group = next(group for group in course.groups() if group.notebook == file.name)
    assert any(f'rizbin.learn("{lesson.name}")' in "".join(notebook["cells"][-1]["source"]) for lesson in group.lessons)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_line_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIZBIN_NOTEBOOK_SIZE", "toy")
    names: dict[str, Any] = {}
    for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{file.name}, cell {number}", "exec"), names)
    assert names["TOY"] is True
