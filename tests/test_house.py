"""Rules about the whole checkout that no single room can see."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
from pathlib import Path

import pytest

from rizbin.core.settings import every_field

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "rizbin").rglob("*.py"))
HOMELESS = re.compile(r"^(utils?|helpers?|misc|commons?|base|base_.*|legacy_.*|my_.*|.*_v\d+)$")


def tracked() -> list[Path]:
    """Files that belong to the project: those git knows or would take, or everything where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        listed = [path for path in ROOT.rglob("*") if not {".venv", ".git", "runs"} & set(path.parts)]
    else:
        listed = [ROOT / name for name in found.stdout.split("\0") if name]
    return [path for path in listed if path.is_file()]


def text_of(path: Path) -> str:
    """The file's text, empty for a binary one."""
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")


def test_every_file_has_a_name_that_says_what_is_in_it() -> None:
    homeless = [path for path in tracked() for part in path.relative_to(ROOT).parts if HOMELESS.match(Path(part).stem)]
    assert not homeless


def test_every_folder_of_the_package_is_a_package() -> None:
    """A folder without `__init__.py` is invisible to the import rules."""
    folders = {path.parent for path in SOURCES}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_the_import_rules_hold() -> None:
    done = subprocess.run([ROOT / ".venv/bin/lint-imports"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_is_explained(path: Path) -> None:
    """Each field of each settings class has a type, a default and a string under it."""
    if "Settings" not in path.read_text(encoding="utf-8"):
        return
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    for owner in vars(module).values():
        kind = getattr(owner, "Settings", None)
        if inspect.isclass(owner) and owner.__module__ == module.__name__ and dataclasses.is_dataclass(kind):
            assert "__delattr__" in vars(kind), f"{owner.__name__}.Settings is not frozen"
            assert all(one.kw_only for one in dataclasses.fields(kind)), (
                f"{owner.__name__}.Settings is not keyword-only"
            )
            for field in every_field(kind):
                where = f"{owner.__name__}.Settings.{field.name}"
                assert len(field.text) > 10, f"{where} has no string under it that explains it"
                assert field.default is not dataclasses.MISSING, f"{where} has no default"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_are_and_hold_no_leftovers(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no docstring"
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    assert "from __future__ import annotations" not in text, "it hides the shapes from the checks"


def test_heavy_packages_are_imported_where_they_are_used() -> None:
    """transformers and diffusers cost seconds and are optional; a module that imports them at its top costs all."""
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("transformers", "diffusers")], path


def test_nothing_of_one_machine_is_written_down() -> None:
    """No absolute path of somebody's machine and no host of a package registry."""
    folders = "|".join(("work", "root", "home", "tmp", "Users", "farm"))  # joined, so that this file passes too
    host = r"(files\.)?python" + r"hosted\.org|pypi" + r"\.org|registry\.npm" + r"js\.org|download\.pytorch" + r"\.org"
    pattern = re.compile(rf"(?<![\w.~/\-*])/(?:{folders})/[\w.]|{host}")
    for path in tracked():
        found = pattern.search(text_of(path))
        assert not found, f"{path.relative_to(ROOT)} holds {found.group()!r}"


def test_large_files_are_models_of_the_zoo() -> None:
    large = [path for path in tracked() if path.stat().st_size > 1_500_000]
    assert not [path for path in large if (ROOT / "rizbin/zoo") not in path.parents]


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))], ids=lambda p: p.name
)
def test_links_and_named_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img[^>]+src=\"([^\"]+)\"", text):
        link = target[0] or target[1]
        if not link.startswith(("https://", "http://", "mailto:")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
    for name in re.findall(r"`((?:rizbin|tests|docs|benchmarks)/[\w./-]*\w/?)`", text):
        if "NAME" not in name:
            assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_index_of_the_docs_names_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert set(re.findall(r"\]\(([\w./-]+\.md)\)", index)) == pages - {"index.md"}


def test_the_version_is_written_twice_and_the_same() -> None:
    import tomllib

    import rizbin

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == rizbin.__version__
