"""No command writes over a file that it did not make: each is run in a folder full of the user's files."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.core.outputs import RECORD
from rizbin.detection.detector import Detector, Preparation
from rizbin.studies.ascent_job import study_ascent
from rizbin.studies.grounding import study_grounding
from rizbin.studies.missing.job import study_missing_objects
from tests.detection.toys import Shapes, tiny, tokenizer
from tests.generation.diffusion.small_painters import painter

COMMANDS = {
    "detect yolo": "detect {photos} --find cat --find disc --threshold 0 --model {looks} --output {out} --quiet",
    "detect voc": "detect {photos} --find cat --threshold 0 --model {looks} --output {out} --format voc --quiet",
    "detect labelme": "detect {photos} --find cat --model {looks} --output {out} --format labelme --quiet",
    "detect coco": "detect {photos} --find cat --model {looks} --output {out}/found.json --quiet",
    "detect csv": "detect {photos} --find cat --model {looks} --output {out}/found.csv --quiet",
    "detect draw": "detect {photos} --find cat --threshold 0 --model {looks} --draw {out} --explain 1 --quiet",
    "generate": "generate zebra --steps 1 --count 2 --film --model {draws} --output {out} --quiet",
    "repair": "repair cat --steps 1 --film --judge {looks} --model {draws} --output {out} --quiet",
    "edit": "edit {photos}/0.png frog --steps 1 --strength 1 --grid --film --model {draws} --output {out} --quiet",
    "replay": "replay {record} --output {out} --quiet",
    "ascend": "ascend zebra --steps 2 --copies 1 --model clip-mini --output {out} --quiet",
    "embed": "embed {photos} --model clip-mini --output {out}/v.npz --quiet",
    "search": "search zebra --in {table}/v.npz --patches --sheet {out}/s.png --output {out}/s.csv",
    "classify": "classify {photos} --names cat,dog --model clip-mini --output {out}/c.json --quiet",
    "visualize": "visualize pca dino-mini {photos} --limit 2 --output {out}",
}
"""Those that write into a folder that exists. All others begin a folder of their own: see the last test."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    painter().pipeline.save_pretrained(folder / "draws")
    Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128)).save(folder / "looks")
    (folder / "photos").mkdir()
    for number in range(2):
        Image.fromarray(Shapes()[number].image).save(folder / f"photos/{number}.png")
    rizbin.generate("a fox", model=folder / "draws", output=folder / "record", steps=1, quiet=True)
    (folder / "table").mkdir()
    rizbin.embed(folder / "photos", model="clip-mini", output=folder / "table/v.npz", quiet=True)
    return {name: folder / name for name in ("draws", "looks", "photos", "record", "table")}


def run(text: str, places: dict[str, Path], out: Path, *more: str) -> int:
    return cli.main([*text.format(**places, out=out).split(), *more])


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_the_user_s_files_stay(
    command: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First into an empty folder, to learn which files it writes; then where the user has files of all those names,
    every second one a link to a file elsewhere, and a folder."""
    text = COMMANDS[command]
    before = files_in(places["photos"])
    assert run(text, places, tmp_path / "empty") in (0, 1)
    names = list(files_in(tmp_path / "empty"))
    assert names and capsys.readouterr().err == ""

    full, elsewhere = tmp_path / "full", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (full / "state-0").mkdir(parents=True)
    (full / "state-0/mine").write_text("mine")
    for number, name in enumerate(names):
        (full / name).parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            (elsewhere / str(number)).write_text(f"mine {name}")
            (full / name).symlink_to(elsewhere / str(number))
        else:
            (full / name).write_text(f"mine {name}")
    mine, theirs = files_in(full), files_in(elsewhere)
    refused = run(text, places, full) == 2
    said = capsys.readouterr().err
    after = files_in(full)
    assert {name: after[name] for name in mine} == mine and files_in(elsewhere) == theirs
    assert all((full / name).is_symlink() for number, name in enumerate(names) if number % 2)
    assert "--overwrite" in said and (refused or len(after) >= len(mine) + len(names))
    given = command in ("embed", "search", "classify") or (command.startswith("detect") and "draw" not in command)
    assert refused == given, "only names that were given"

    assert run(text, places, full, "--overwrite") in (0, 1)
    after = files_in(full)
    assert not any(after[name].startswith(b"mine") for name in names), "now they are replaced"
    assert files_in(elsewhere) == theirs, "links themselves, not what they lead to"
    assert after["state-0/mine"] == b"mine"
    assert files_in(places["photos"]) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_ours_are_replaced_by_the_next_run(command: str, places: dict[str, Path], tmp_path: Path) -> None:
    for _ in range(2):
        assert run(COMMANDS[command], places, tmp_path / "out") in (0, 1)
        names = list(files_in(tmp_path / "out"))
    assert not [name for name in names if "-2." in name]


def test_captions_beside_pictures_and_pictures_themselves_stay(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The three ways in which they were lost: labels beside photos, a table over a photo, a drawing over its start."""
    photos = tmp_path / "photos"
    shutil.copytree(places["photos"], photos)
    for number in range(2):
        (photos / f"{number}.txt").write_text("a caption")
    before = files_in(photos)
    for out in ("", "/0.png --format csv", "/0.png --format coco --overwrite", "/1.png --format yolo"):
        text = f"detect {photos} --find cat --model {{looks}} --output {photos}{out} --quiet"
        assert run(text, places, tmp_path) == 2, out
        assert files_in(photos) == before
    assert "is what this command reads" in capsys.readouterr().err
    start = tmp_path / "drawn"
    assert run("generate fox --steps 1 --model {draws} --output {out} --quiet", places, start) == 0
    kept = (start / "0000.png").read_bytes()
    text = f"edit {start}/0000.png frog --steps 2 --model {{draws}} --output {{out}} --quiet"
    assert run(text, places, start) == 0 and run(text, places, start, "--overwrite") == 0
    assert (start / "0000.png").read_bytes() == kept and (start / "0000-2.png").is_file()


@pytest.mark.parametrize(
    "call",
    [
        lambda to: rizbin.report("dino-mini", output=to),
        lambda to: study_grounding(output=to),
        lambda to: study_ascent(output=to),
        lambda to: study_missing_objects(output=to),
        lambda to: cli.main(["study", "collapse", "--output", str(to)]),
        lambda to: cli.main(["compare", "simclr", "byol", "--output", str(to)]),
    ],
)
def test_a_page_that_would_go_over_something_is_refused_before_the_work(
    call: Callable[[Path], object], empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = empty_folder / "page.html"
    page.write_text("mine")
    try:
        assert call(page) == 2
    except RizbinError as error:
        assert "--overwrite" in str(error)
    else:
        assert "--overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine" and [path.name for path in empty_folder.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "words",
    [
        "train simclr --data scenes:single --steps 1 --preset nano --run {out} --quiet",
        "demo --run {out}",
        "export dino-mini --format timm --output {out}",
        "export detector-mini --format transformers --output {out}",
        "export diffusion-mini --format diffusers --output {out}",
        "data render scenes:easy --count 1 --size 32 --output {out}",
        "zoo dino-mini --build {out}",
        "study missing-objects --seeds 1 --runs 1 --run {out} --quiet",
    ],
)
def test_folders_of_their_own_are_begun_in_empty_ones_only(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.safetensors", "config.json", "report.html", "notes.txt"):
        (tmp_path / name).write_text(f"mine {name}")
    before = files_in(tmp_path)
    assert cli.main(words.format(out=tmp_path).split()) == 2
    assert files_in(tmp_path) == before
    assert str(tmp_path) in capsys.readouterr().err


def test_the_record_of_a_folder_is_no_picture(places: dict[str, Path], tmp_path: Path) -> None:
    assert run(COMMANDS["generate"], places, tmp_path) == 0
    found = rizbin.detect(str(tmp_path), ["cat"], model=places["looks"], quiet=True)
    assert not found.skipped and np.all([one.file.endswith((".png", ".gif")) for one in found.images])


WRITES = re.compile(
    r"\.write_(?:text|bytes)\(|imwrite\(|savez|\.save_pretrained\(|save_file\(|[\"']wb?[\"']|shutil\.rmtree"
)
OWN_FOLDERS = {
    "core/checksums.py": "sums of an export, in its folder",
    "evaluation/baseline.py": "the cache",
    "nets/words.py": "the words of an export, in its folder",
    "core/outputs.py": "the rule itself",
    "core/checkpoint.py": "checkpoints, in folders that it makes",
    "nets/export.py": "exports, into empty folders",
    "workflows/bundle.py": "exports",
    "workflows/bundled_models.py": "a folder of its own",
    "zoo/__init__.py": "the card of a model, in such a folder",
    "detection/detector.py": "exports and runs' model folders",
    "detection/onnx.py": "exports",
    "detection/presence.py": "a calibration, beside the model that was exported, or where Python says",
    "generation/diffusion/train.py": "a run's model folder",
    "workflows/export.py": "exports",
    "cli/schema.py": "the shipped flags, by the maintainer",
    "studies/ascent_runs.py": "into memory",
    "data/render.py": "rendered data, in a folder of its own",
    "studies/lab.py": "numbers of a run, in its folder",
    "models/origins.py": "exports into empty folders, and what a run began with, in its folder",
    "models/onnx.py": "exports",
    "nets/adapters.py": "the adapters of a run, in its folder",
    "workflows/adapt.py": "the record of a run, in its folder",
    "workflows/hub.py": "the card and the settings of an export, in its folder",
    "studio/desk.py": "the studio's own folder, under generated names",
    "vectors/parts.py": "parts of a table, in a folder that it claims",
    "vectors/table.py": "a table's draft, in that folder",
    "training/trackers.py": "metrics.csv of a run, in its folder",
    "studies/missing/memory.py": "a counter of the kernel",
    "data/scenes/sprites.py": "the cache",
    "data/remote.py": "the cache of shards",
    "studio/stills.py": "the studio's own folder, under the names of steps",
    "data/vocabularies/build.py": "its own files, by the maintainer",
}


def test_what_else_writes_is_known_and_why() -> None:
    """A module that writes by itself, and not through `rizbin.core.outputs`, has to be thought about."""
    package = Path(cli.__file__).parents[1]
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if WRITES.search(path.read_text(encoding="utf-8"))
    }
    assert found - set(OWN_FOLDERS) == set(), "write with rizbin.core.outputs, or say here why not"
