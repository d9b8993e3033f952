"""Embed, search, classify: on the bundled models, and on small models of open_clip and transformers made here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.data.open import open_source
from rizbin.models.encoder import Encoder
from rizbin.vectors.encode import Square, around, default_workers, encoded
from rizbin.workflows.load import load_encoder
from tests.models.small import save_clip, save_dinov2, save_open_clip_model, save_siglip

COUNT = 60


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes as files, and two that cannot be used; truth.json beside them says where their objects are."""
    folder = tmp_path_factory.mktemp("photos")
    source, truth = open_source("scenes:easy", split="test", size=96, seed=0), {}
    for number in range(COUNT):
        sample = source[number]
        Image.fromarray(sample.image).save(folder / f"{number:02d}.png")
        truth[f"{number:02d}.png"] = [(thing.name, thing.box) for thing in sample.objects]
    (folder / "20b.png").write_bytes(b"no image")
    (folder / "70.jpg").write_bytes((folder / "00.png").read_bytes()[:500])
    (folder / "truth.json").write_text(json.dumps(truth))
    return folder


@pytest.fixture(scope="module")
def table(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With patches, by detailclip-mini."""
    path = tmp_path_factory.mktemp("tables") / "vectors.npz"
    rizbin.embed(photos, output=path, patches=True, quiet=True)
    return path


def test_a_region_is_looked_for_as_the_square_around_it(photos: Path, table: Path) -> None:
    pixels = np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3)
    assert np.array_equal(around(pixels, (0.0, 0.0, 0.5, 0.25)), pixels[0:30, 0:30]), "moved inside at the edge"
    assert np.array_equal(around(pixels, (0.5, 0.5, 0.6, 0.55)), pixels[18:24, 30:36])
    assert np.array_equal(around(pixels, (0.0, 0.5, 1.0, 1.0)), pixels[20:40]), "no square of 60 fits"
    file = photos / "03.png"
    whole = rizbin.search(image=file, vectors=table, top=5)
    same = rizbin.search(image=file, vectors=table, top=5, region=(0.0, 0.0, 1.0, 1.0))
    assert [hit.file for hit in whole.hits] == [hit.file for hit in same.hits]
    truth = json.loads((photos / "truth.json").read_text())
    right = 0
    for number in range(0, 20):
        name, (left, top, right_side, bottom) = truth[f"{number:02d}.png"][0]
        region = (left / 96, top / 96, right_side / 96, bottom / 96)
        hits = rizbin.search(image=photos / f"{number:02d}.png", vectors=table, patches=True, region=region, top=2).hits
        first = next(hit for hit in hits if hit.file != f"{number:02d}.png")
        right += name in {other for other, _ in truth[first.file]}
    assert right >= 8, (
        "an object of a hundred names is among the two of the first picture in less than 1 of 20 by chance"
    )
    with pytest.raises(RizbinError, match="part of one image"):
        rizbin.search("a cat", vectors=table, region=(0.0, 0.0, 1.0, 1.0))
    with pytest.raises(RizbinError, match="part of one image"):
        rizbin.search(image=[file, photos / "04.png"], vectors=table, region=(0.0, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_a_table_has_the_vectors_of_the_encoder(photos: Path, tmp_path: Path, form: str) -> None:
    made = rizbin.embed(photos, output=tmp_path / f"v.{form}", batch=16, quiet=True)
    encoder = load_encoder("detailclip-mini")
    files = [f"{number:02d}.png" for number in range(COUNT)]
    assert list(made.files) == files and made.sizes.tolist() == [[96, 96]] * COUNT
    direct = encoder.encode_image([photos / name for name in files]).numpy()
    assert np.abs(made.vectors - direct).max() < 1e-5
    assert [text.split(" ")[0] for text in made.unusable] == ["20b.png", "70.jpg"]
    record = made.record
    assert record["model"] == "detailclip-mini" and record["network"].startswith("sha256:")
    assert record["preprocessing"]["image_size"] == 64 and (record["images"], record["rows"]) == (COUNT + 2, COUNT)
    assert made.image_path(0).resolve() == (photos / "00.png").resolve()
    assert not list(tmp_path.glob("*.parts"))


def test_the_batch_changes_nothing_beyond_rounding(photos: Path, tmp_path: Path) -> None:
    """A batch of another size, and what cannot be used within it, add in another order: 1e-5 a component at most."""
    tables = [rizbin.embed(photos, output=tmp_path / f"{n}.npz", batch=n, quiet=True).vectors for n in (1, 7, 64)]
    assert max(np.abs(tables[0] - other).max() for other in tables[1:]) < 1e-5
    again = rizbin.embed(photos, output=tmp_path / "again.npz", batch=7, workers=3, quiet=True).vectors
    assert np.array_equal(again, tables[1])


def test_the_same_command_again_does_nothing_and_a_changed_image_is_made_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes((photos / f"{number:02d}.png").read_bytes())
    first = rizbin.embed(folder, output=tmp_path / "v.npz", quiet=True)
    data = first.path.read_bytes()
    from rizbin.workflows import embed as job

    with monkeypatch.context() as patched:
        patched.setattr(job, "encoded", lambda *_, **__: pytest.fail("it was made already"))
        again = rizbin.embed(folder, output=tmp_path / "v.npz", quiet=True)
    assert again.path.read_bytes() == data and not list(tmp_path.glob("*.parts"))
    (folder / "2.png").write_bytes((photos / "30.png").read_bytes())
    changed = rizbin.embed(folder, output=tmp_path / "v.npz", quiet=True)
    different = np.abs(changed.vectors - np.asarray(rizbin.embed(folder, output=tmp_path / "w.npz").vectors)).max()
    assert different == 0 and changed.path == tmp_path / "v.npz"


def test_a_stopped_embedding_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rizbin.vectors import parts
    from rizbin.workflows import embed as job

    made: list[int] = []

    class Small(parts.Parts):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given, part=8)

        def put(self, number: int, rows: parts.Rows) -> None:
            super().put(number, rows)
            made.append(number)
            if made == [0, 1, 2]:
                raise KeyboardInterrupt

    monkeypatch.setattr(job, "Parts", Small)
    with pytest.raises(KeyboardInterrupt):
        rizbin.embed(photos, output=tmp_path / "v.npz", quiet=True)
    table = rizbin.embed(photos, output=tmp_path / "v.npz", quiet=True)
    assert made == list(range(8)) and list(table.files) == [f"{number:02d}.png" for number in range(COUNT)]
    whole = rizbin.embed(photos, output=tmp_path / "whole.npz", quiet=True)
    assert np.array_equal(table.vectors, whole.vectors)


@pytest.mark.slow
def test_a_killed_embedding_goes_on(photos: Path, tmp_path: Path) -> None:
    """The real command, killed once its first part is on the disk; the table is that of one that was not killed."""
    script = (
        "import sys\nfrom rizbin.vectors import parts\nparts.PART = 8\nimport rizbin.workflows.embed as job\n"
        "put = parts.Parts.put\n"
        "def slow(self, number, rows):\n    put(self, number, rows)\n    print('put', flush=True)\n"
        "    import time\n    time.sleep(0.05 if len(sys.argv) > 3 else 0)\n"
        "parts.Parts.put = slow\nimport functools\njob.Parts = functools.partial(parts.Parts, part=8)\n"
        "job.embed(sys.argv[1], output=sys.argv[2], batch=4, quiet=True)\n"
    )
    command = [sys.executable, "-c", script, str(photos), str(tmp_path / "v.npz")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "slow"], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "put\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "v.npz").exists() and list((tmp_path / "v.npz.parts").glob("0*.npz"))
    rest = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert 0 < rest.stdout.count("put") < 8
    from rizbin.vectors.table import read_table

    table = read_table(tmp_path / "v.npz")
    assert list(table.files) == [f"{number:02d}.png" for number in range(COUNT)]
    whole = rizbin.embed(photos, output=tmp_path / "whole.npz", batch=4, quiet=True)
    assert np.abs(table.vectors - whole.vectors).max() < 1e-6


@pytest.mark.parametrize("kind", ["open_clip", "clip", "siglip"])
def test_models_of_other_libraries(kind: str, photos: Path, tmp_path: Path) -> None:
    """Vectors are those of the library itself; words and places are found where patches meet texts."""
    folder = tmp_path / kind
    network = {"open_clip": save_open_clip_model, "clip": save_clip, "siglip": save_siglip}[kind](folder)
    images = [photos / "00.png", photos / "01.png"]
    made = rizbin.embed(images, model=folder, output=tmp_path / "v.npz", patches=True, quiet=True)
    encoder = load_encoder(folder)
    batch = encoder.preprocess(images)
    with torch.no_grad():
        own = network.encode_image(batch) if kind == "open_clip" else network.get_image_features(pixel_values=batch)
        own = own if isinstance(own, torch.Tensor) else own.pooler_output
    own = torch.nn.functional.normalize(own, dim=-1).numpy()
    assert np.abs(made.vectors - own).max() < 1e-5
    found = rizbin.search("a fox", vectors=made.path, top=2)
    texts = encoder.encode_text(["a fox"]).numpy()
    assert np.allclose(sorted((own @ texts.T)[:, 0], reverse=True), [hit.score for hit in found.hits], atol=1e-5)
    if kind == "siglip":  # it pools by attention, so that its patches meet no text
        with pytest.raises(RizbinError, match="no patches that can be compared with words"):
            rizbin.search("a fox", vectors=made.path, patches=True)
    else:
        place = rizbin.search("a fox", vectors=made.path, patches=True).hits[0].place
        assert place is not None and place.heat.shape == encoder.grid


def test_an_image_encoder_is_searched_by_images(photos: Path, tmp_path: Path) -> None:
    save_dinov2(tmp_path / "dino")
    made = rizbin.embed(photos, model=tmp_path / "dino", output=tmp_path / "v.npz", patches=True, quiet=True)
    found = rizbin.search(vectors=made, image=photos / "07.png", top=3)
    assert found.hits[0].file == "07.png" and found.hits[0].score == pytest.approx(1, abs=1e-5)
    assert rizbin.search(vectors=made, image=photos / "07.png", top=3, patches=True).hits[0].place is not None
    with pytest.raises(RizbinError, match="reads no words"):
        rizbin.search("a fox", vectors=made)


def test_words_find_images_and_places(photos: Path, table: Path) -> None:
    """Of the five nearest by patches most hold the object, and the box lies on it; chance is one in seven."""
    truth = json.loads((photos / "truth.json").read_text())
    counts = {
        name: sum(any(name == other for other, _ in things) for things in truth.values())
        for name in {name for things in truth.values() for name, _ in things}
    }
    common = sorted(name for name, count in counts.items() if count >= 3)
    found = rizbin.search([f"a {name}" for name in common], vectors=table, top=3, patches=True)
    right, placed = [], []
    for hit in found.hits:
        boxes = [box for name, box in truth[hit.file] if f"a {name}" == hit.query]
        right.append(bool(boxes))
        assert hit.place is not None
        left, top, end, bottom = hit.place.box
        center = ((left + end) / 2, (top + bottom) / 2)
        if boxes:
            placed.append(any(b[0] <= center[0] <= b[2] and b[1] <= center[1] <= b[3] for b in boxes))
    assert np.mean(right) > 0.8 and np.mean(placed) > 0.8
    row = found.rows()[0]
    assert set(row) == {"query", "rank", "file", "score", "path", "left", "top", "right", "bottom"}


def test_places_are_found_in_images_of_a_table_without_patches(photos: Path, table: Path, tmp_path: Path) -> None:
    plain = rizbin.embed(photos, output=tmp_path / "v.npz", quiet=True)
    found = rizbin.search("a fox", vectors=plain, patches=True, top=4)
    by_patches = {hit.file: hit for hit in rizbin.search("a fox", vectors=table, patches=True, top=COUNT).hits}
    for hit in found.hits:
        other = by_patches[hit.file].place
        assert hit.place is not None and other is not None
        assert np.abs(hit.place.heat - other.heat).max() < 2e-3  # patches are kept in half precision


def test_sheets_and_tables_of_answers_are_written(photos: Path, table: Path, tmp_path: Path) -> None:
    rizbin.search(
        ["a fox", "a bee"], vectors=table, top=6, patches=True, sheet=tmp_path / "s.png", output=tmp_path / "s.csv"
    )
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width == 5 * 198 - 6 and sheet.height > 4 * 192
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "query,rank,file,score,path,left,top,right,bottom" and len(lines) == 13
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(RizbinError, match="Rizbin did not make it"):
        rizbin.search("a fox", vectors=table, sheet=tmp_path / "mine.png")
    rizbin.search("a fox", vectors=table, top=2, patches=True, heat=True, sheet=tmp_path / "heat.png")
    assert (tmp_path / "heat.png").is_file()


def test_images_that_are_gone_are_said(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((photos / "00.png").read_bytes())
    made = rizbin.embed(tmp_path / "a.png", output=tmp_path / "v.npz", quiet=True)
    (tmp_path / "a.png").unlink()
    found = rizbin.search("a fox", vectors=made, patches=True, sheet=tmp_path / "s.png")
    assert found.hits[0].place is None and any("a.png" in note for note in found.notes)


def test_another_network_is_refused(photos: Path, table: Path) -> None:
    with pytest.raises(RizbinError, match="made by other weights than those of clip-mini"):
        rizbin.search("a fox", vectors=table, model="clip-mini")


def test_names_are_classified(photos: Path, table: Path, tmp_path: Path) -> None:
    truth = json.loads((photos / "truth.json").read_text())
    names = sorted({name for things in truth.values() for name, _ in things})
    made = rizbin.classify(photos, names=names, output=tmp_path / "labels.json", quiet=True)
    assert np.allclose(made.probabilities.sum(axis=1), 1) and len(made.unusable) == 2
    right = [label in [name for name, _ in truth[file]] for file, label in zip(made.files, made.labels, strict=True)]
    assert np.mean(right) > 0.8
    rows = json.loads((tmp_path / "labels.json").read_text())
    assert rows[0]["label"] == made.labels[0] and rows[0][f"p {names[0]}"] == pytest.approx(made.probabilities[0, 0])
    encoder = load_encoder("detailclip-mini")
    by_table = rizbin.classify(vectors=table, names=",".join(names), template="a {}")
    words = encoder.encode_text([f"a {name}" for name in names])
    logits = encoder.scale * encoder.encode_image([photos / file for file in by_table.files]) @ words.T
    assert np.abs(by_table.probabilities - logits.softmax(dim=1).numpy()).max() < 1e-3


def test_names_come_from_a_file(table: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("fox\ntea, cup\nbee\n")
    assert rizbin.classify(vectors=table, names=str(tmp_path / "names.txt")).names == ("fox", "tea, cup", "bee")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("search --in {table}", "Say what to look for"),
        ("search fox --in {table} --top 0", "--top is 0"),
        ("search fox --in {table} --output x.txt", "A table is not written as .txt"),
        ("search fox --in missing.npz", "missing.npz"),
        ("search a fox --in {table}", "in quotes"),
        ("classify {photos} --names cat", "Two or more names"),
        ("classify --names cat,dog", "Say which images"),
        ("classify {photos} --names cat,dog --template photo", "no place for a name"),
        ("classify {photos} --names cat,dog --model dino-mini", "reads no words"),
        ("embed {photos} --output v.csv", "let it end in .npz or .parquet"),
        ("embed {photos}/70.jpg --output {out}/v.npz --quiet", "No image of 1 could be used"),
        ("embed", "IMAGES is missing"),
        ("embed {photos} --batch 0", "--batch is 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(
    words: str, sentence: str, photos: Path, table: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.format(table=table, photos=photos, out=empty_folder).split()) == 2
    spoken = capsys.readouterr().err.strip()
    assert sentence in spoken and "\n" not in spoken


def test_the_commands_print_what_they_found(
    photos: Path, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", str(photos)]) == 0
    printed = capsys.readouterr()
    assert "60 images, 128 dimensions, by detailclip-mini" in printed.out
    assert "2 images could not be used:\n  20b.png" in printed.out
    assert " a second; the network itself took " in printed.err
    assert cli.main(["search", "a fox", "--in", "vectors.npz", "--top", "2", "--patches"]) == 0
    assert capsys.readouterr().out.count("a fox: ") == 2
    assert cli.main(["classify", "--in", "vectors.npz", "--names", "fox,bee"]) == 0
    assert capsys.readouterr().out.count(".png: ") == COUNT


def test_the_user_s_table_stays(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(b"mine")
    with pytest.raises(RizbinError, match="Rizbin did not make it"):
        rizbin.embed(photos, output=tmp_path / "v.npz", quiet=True)
    assert (tmp_path / "v.npz").read_bytes() == b"mine"


def test_large_jpegs_are_decoded_smaller_where_that_is_asked_for(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    image = Image.fromarray(values).resize((1500, 1000), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned
    image.save(tmp_path / "a.jpg", exif=exif)
    full = rizbin.embed(tmp_path / "a.jpg", output=tmp_path / "full.npz", quiet=True)
    reduced = rizbin.embed(tmp_path / "a.jpg", output=tmp_path / "reduced.npz", reduced=True, quiet=True)
    assert full.sizes.tolist() == reduced.sizes.tolist() == [[1000, 1500]]
    assert float(full.vectors[0] @ reduced.vectors[0]) > 0.99


def test_a_network_that_gives_no_numbers_is_refused(photos: Path) -> None:
    encoder: Encoder = load_encoder("detailclip-mini")
    with torch.no_grad():
        for value in encoder.network.parameters():
            value.fill_(float("nan"))
    with pytest.raises(RizbinError, match="not finite"):
        list(encoded(encoder, [[(photos / "00.png", "00.png")]], workers=default_workers()))
    assert Square(np.zeros((1, 1, 3), np.uint8), (1, 1)).size == (1, 1)
