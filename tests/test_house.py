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
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        listed = [path for path in ROOT.rglob("*") if not {".venv", ".git", "runs"} & set(path.parts)]
    else:
        listed = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in listed if path.is_file()]


def text_of(path: Path) -> str:
    """The file's text, empty for a binary one."""
    data = path.read_bytes()
    return "" if b"\0" in data[:8192] else data.decode("utf-8", errors="replace")


def test_every_file_has_a_name_that_says_what_is_in_it() -> None:
    homeless = [path for path in tracked() for part in path.relative_to(ROOT).parts if HOMELESS.match(Path(part).stem)]
    assert not homeless


def test_no_file_holds_what_a_merge_left() -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", re.MULTILINE)
    assert not [
        path for path in tracked() if path.suffix in {".md", ".py", ".toml", ".html"} and marks.search(text_of(path))
    ]


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
            assert all(field.kw_only for field in dataclasses.fields(kind)), (
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


LONGEST_FILE = 450
"""Lines of a file of the library: what a reader keeps in mind at once."""
LONGEST_FUNCTION = 60
"""Lines of a function, its docstring included: one screen."""
LONG_FILES: dict[str, tuple[int, str]] = {}
"""Files that may be longer: up to how many lines, and why."""
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}
"""Functions that may be longer: up to how many lines, and why."""


def test_files_and_functions_are_short_enough_to_be_read() -> None:
    long_files, long_functions = [], []
    for path in SOURCES:
        name, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        lines = len(text.splitlines())
        if lines > LONG_FILES.get(name, (LONGEST_FILE, ""))[0]:
            long_files.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                place, lines = f"{name}: {node.name}", node.end_lineno - node.lineno + 1
                if lines > LONG_FUNCTIONS.get(place, (LONGEST_FUNCTION, ""))[0]:
                    long_functions.append(f"{place}: {lines} lines")
    stale = {place for place in LONG_FUNCTIONS if not (ROOT / place.partition(":")[0]).is_file()}
    assert not stale and not {name for name in LONG_FILES if not (ROOT / name).is_file()}
    assert not long_files, f"longer than {LONGEST_FILE} lines; split them along a seam"
    assert not long_functions, f"longer than {LONGEST_FUNCTION} lines; give a part of them a name of its own"


WEAK_NAMES = frozenset(
    [
        "one",
        "ones",
        "found",
        "told",
        "said",
        "wanted",
        "kept",
        "asked",
        "met",
        "thing",
        "things",
        "picture",
        "pictures",
        "painter",
        "ladder",
        "rung",
        "moment",
    ]
)
"""Pronouns, participles and private words: a variable is named for what it holds, in the words of the field."""


def weak_names_in(tree: ast.AST) -> list[str]:
    """Line and name of every variable, parameter and comprehension target of a weak name."""
    # Fields may have the names under which files of earlier runs and cards hold them.
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = {id(part.target) for node in classes for part in node.body if isinstance(part, ast.AnnAssign)}
    names = []
    for node in ast.walk(tree):
        if id(node) in fields:
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in WEAK_NAMES:
            names.append(f"{node.lineno}: {node.id}")
        elif isinstance(node, ast.arg) and node.arg in WEAK_NAMES:
            names.append(f"{node.lineno}: {node.arg}")
    return names


@pytest.mark.parametrize("folder", sorted({path.relative_to(ROOT / "rizbin").parts[0] for path in SOURCES}))
def test_variables_are_named_for_what_they_hold(folder: str) -> None:
    # The studio is for lay readers, who say picture: its panels, requests and forms do as well.
    spoken = {"picture", "pictures"} if folder == "studio" else set()
    weak = [
        f"{path.relative_to(ROOT).as_posix()}:{name}"
        for path in SOURCES
        if path.relative_to(ROOT / "rizbin").parts[0] == folder
        for name in weak_names_in(ast.parse(path.read_text(encoding="utf-8")))
        if name.partition(": ")[2] not in spoken
    ]
    assert not weak


def test_weak_names_are_noticed_wherever_a_name_is_bound() -> None:
    code = "def f(one, *, told=1):\n    found = [thing for thing in (said := one)]\n    lambda kept: image.found"
    names = {name.partition(": ")[2] for name in weak_names_in(ast.parse(code))}
    assert names == {"one", "told", "found", "thing", "said", "kept"}


def test_a_class_name_stands_for_one_class() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(ROOT).as_posix())
    assert not {name: files for name, files in places.items() if len(files) > 1}


@pytest.mark.parametrize(
    "trick",
    [r"\.__class__\s*=[^=]", r"\.__code__\b", r"\.__dict__\b", r"\bsetattr\(", r"\bdelattr\(", r"\bMethodType\b"],
)
def test_what_reaches_into_other_modules_stands_in_one_place(trick: str) -> None:
    """Each place says why it must, and has a test that fails when what it reaches into changes."""
    fenced = {
        "rizbin/detection/fast.py": "the forward of transformers' fusion, replaced in one network",
        "rizbin/detection/onnx.py": "transformers' masks, replaced while an export is traced",
        "rizbin/nets/foreign_guard.py": "what opens pickles and imports code, refused while a model is read",
        "rizbin/nets/image.py": "batch norms of a network of timm exchanged when it is built",
        "rizbin/nets/lora.py": "a layer's class as it was before torch put an adapter into it; see there",
    }
    places = [path for path in SOURCES if re.search(trick, path.read_text(encoding="utf-8"))]
    assert not {path.relative_to(ROOT).as_posix() for path in places} - set(fenced)


def test_private_names_of_others_are_used_in_known_places_alone() -> None:
    """What a library does not promise may be gone in its next version; here is all of it that Rizbin uses."""
    known = {
        "_asdict": "a named tuple's, public in spite of its name",
        "_replace": "a named tuple's, public in spite of its name",
        "rizbin/studio/forks.py: _exit": "os._exit, public in spite of its name: a fork runs no exits of its parent",
        "rizbin/core/precision.py: _is_mkldnn_bf16_supported": "torch; a test asks it the question",
        "rizbin/data/records.py: _packed": "of another list of the same class",
        "rizbin/data/scenes/source.py: _set_up": "Rizbin's own",
        "rizbin/generation/diffusion/diffusers_internals.py: _execution_device": "diffusers; see there",
        "rizbin/generation/diffusion/diffusers_internals.py: _timesteps": "diffusers; see there",
        "rizbin/generation/diffusion/small.py: _simple": "Rizbin's own tokenizer",
        "rizbin/methods/adapt.py: _BatchNorm": "torch's name for all batch norms",
        "rizbin/models/onnx.py: _embed": "Rizbin's own",
        "rizbin/models/onnx.py: _standard": "Rizbin's own",
        "rizbin/models/readings.py: _standard": "Rizbin's own",
        "rizbin/models/towers.py: _pos_embed": "timm; tests compare the whole with its own",
        "rizbin/models/open_clip.py: _embeds": "open_clip's forward in parts; tests compare the whole with its own",
        "rizbin/models/open_clip.py: _pool": "open_clip's forward in parts; tests compare the whole with its own",
        "rizbin/nets/momentum.py: _BatchNorm": "torch's name for all batch norms",
        "rizbin/nets/momentum.py: _foreach_lerp_": "torch; its own optimizers call it by this name",
        "rizbin/nets/vision.py: _pos_embed": "timm; see there",
        "rizbin/nets/words.py: _simple": "Rizbin's own tokenizer",
    }
    unknown = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute) or not re.match(r"_[^_]", node.attr):
                continue
            if isinstance(node.value, ast.Name) and (node.value.id in ("self", "cls") or node.value.id.startswith("_")):
                continue
            place = f"{path.relative_to(ROOT).as_posix()}: {node.attr}"
            if place not in known and node.attr not in known:
                unknown.append(place)
    assert not unknown


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
        match = pattern.search(text_of(path))
        assert not match, f"{path.relative_to(ROOT)} holds {match.group()!r}"


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
