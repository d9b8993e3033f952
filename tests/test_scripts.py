"""Scripts and pages that no other test runs name what is there: benchmarks, what makes the docs, Python in Markdown."""

import ast
import importlib
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import rizbin

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(path for folder in ("benchmarks", "docs") for path in (ROOT / folder).glob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of all that is imported of Rizbin, inside functions too, and of what is used as `rizbin.NAME`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rizbin":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "rizbin")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rizbin":
            yield "rizbin", node.attr


def missing(tree: ast.AST) -> list[str]:
    """What of it is not there."""
    absent = []
    for module, name in sorted(set(imported(tree))):
        try:
            if name and not hasattr(importlib.import_module(module), name):
                importlib.import_module(f"{module}.{name}")
            else:
                importlib.import_module(module)
        except ImportError as error:
            absent.append(f"{module} {name}: {error}")
    return absent


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_imports_what_is_there(path: Path) -> None:
    assert not missing(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_python_in_a_page_imports_what_is_there(path: Path) -> None:
    blocks = re.findall(r"^ *```(?:python|py)\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        assert not missing(ast.parse(textwrap.dedent(block))), block


def test_a_name_that_is_gone_is_noticed() -> None:
    tree = ast.parse("def late():\n    from rizbin.core.errors import Gone\n    rizbin.gone()\nimport rizbin.nowhere")
    assert [line.split(":")[0] for line in missing(tree)] == [
        "rizbin gone",
        "rizbin.core.errors Gone",
        "rizbin.nowhere ",
    ]
    assert not missing(ast.parse("from rizbin.core.errors import RizbinError\nrizbin.train"))
    assert rizbin.train is not None


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_holds_no_marks_of_a_merge(path: Path) -> None:
    assert not re.findall(r"^(?:<{7} |>{7} |={7}$).*", path.read_text(encoding="utf-8"), re.MULTILINE)
