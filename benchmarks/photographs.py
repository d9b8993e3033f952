"""CLIP and DetailCLIP on photographs: scenes of photographed cut-outs, or a table of real images, over seeds.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb package
    python benchmarks/photographs.py --stamps package/usr/share/tuxpaint/stamps --output runs/photographs --minutes 10
    python benchmarks/photographs.py --data clipart --output runs/clipart --minutes 10

With --stamps the photographs among the stamps become cut-outs with names (drawings, symbols and copies are left out,
each with its reason), and scenes are composed of them: images with exact masks, on which nothing was tuned. Training
and test scenes show the same cut-outs in other places, sizes and on other grounds. The stamps are under the GPL: the
script reads them where the package lies and ships none. With --data anything that `rizbin train --data` takes, such as
the folder that benchmarks/openclipart.py writes.

For each seed DetailCLIP trains for as many steps as fit into --minutes; CLIP starts from the same weights and trains
for as many steps, and once more for as many CPU seconds. A run that is there already is not made again. Written:
results.md, results.json and sheet.png (image, words of CLIP, words of DetailCLIP, truth).
"""

import argparse
import csv
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_rgba
from rizbin.data.sample import Refused

INSTALLED = Path("/usr/share/tuxpaint/stamps")
"""Where the installed package has them."""
FETCH = "apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb package"
DRAWN = ("symbols", "cartoon", "flags", "roadsigns")
"""Folders of the package that hold drawings."""
MOST_FLAT = 0.4
"""Share of neighboring pixels of exactly one color from which an image counts as drawn: photographs carry noise. Of the
package's cartoons four fifths lie above, of the images that show photographs one in thirty."""
LEAST_SIDE = 32
"""Pixels: a smaller one shows nothing at the size of an object in a scene."""
MOST_WORDS = 4
"""A longer first line is a sentence about the object; the file's name then says what it is."""
_QUOTES = str.maketrans({"\u201c": "", "\u201d": "", '"': "", "\u2019": "'"})
SILENT = ("very", "large", "big", "small", "little", "photo", "outline")
"""Words of a name that say nothing of what it is; size is what a scene's caption says."""
WANTED = (
    "zero_shot/top1",
    "zero_shot/map",
    "retrieval/*/r1",
    "probe/top1",
    "knn/top1",
    "segmentation/*miou",
    "segmentation/zero_shot/*",
    "boundary/*",
    "words/*",
    "sizes/*",
    "localization/*",
)
"""Measurements of the table: those of these names that there are."""
WORLD = 2
"""Seed of the scenes that are measured on; training has 0."""


@dataclass(frozen=True)
class Prepared:
    """What became of the package's images."""

    names: tuple[str, ...]
    used: int
    refused: Counter[str]


def name_of(stamp: Path) -> str:
    """What a stamp shows, from the first line of the text beside it, else from its file's name.

    "An albino peahen (a female peafowl, or peacock)." is "albino peahen", and so is albino_peahen2.png. Raises Refused
    when neither says anything.
    """
    beside = stamp.with_suffix(".txt")
    line = beside.read_text("utf-8", "replace").split("\n", 1)[0] if beside.is_file() else ""
    plain = line.translate(_QUOTES)
    clause = re.split(r"[.!?(;:,\u2013\u2014]", plain, maxsplit=1)[0]
    words = clause.strip().lower().split()
    article = bool(words) and words[0] in ("a", "an", "the", "our", "some")
    words = words[1:] if article else words
    words = [word for word in words if word not in SILENT]
    if not 0 < len(words) <= (MOST_WORDS if article else MOST_WORDS - 2):
        words = [word for word in re.split(r"[\W\d_]+", stamp.stem.lower()) if len(word) > 1]
        words = [word for word in words if word not in SILENT]
    name = " ".join(words)
    if not any(letter.isalpha() for letter in name):
        raise Refused("has no words in its text or name")
    return name


def photograph(path: Path) -> UInt8[np.ndarray, "height width 4"]:
    """The pixels of a cut-out photograph. Raises Refused, with the reason, for anything else."""
    pixels = read_rgba(path, name="it")
    opaque = pixels[..., 3] >= 250
    if pixels[..., 3].min() == 255:
        raise Refused("has no transparent background")
    if min(pixels.shape[:2]) < LEAST_SIDE or not opaque.any():
        raise Refused(f"is under {LEAST_SIDE} pixels, or shows nothing opaque")
    pairs = opaque[:, 1:] & opaque[:, :-1]
    alike = (pixels[:, 1:, :3] == pixels[:, :-1, :3]).all(axis=2) & pairs
    if alike.sum() > MOST_FLAT * max(1, int(pairs.sum())):
        raise Refused("is drawn in flat colors")
    return pixels


def prepare(stamps: Path, out: Path, most_names: int = 0) -> Prepared:
    """Writes the photographs among the stamps as cut-outs with names into the new folder `out`, and refused.csv.

    most_names: so many names at most, those with the most images first, then by a hash of the name; 0 for all. Raises
    RizbinError where `stamps` holds no image or `out` something else.
    """
    if (out / "names.json").exists():
        facts = json.loads((out / "names.json").read_text())
        return Prepared(tuple(facts["names"]), facts["used"], Counter(facts["refused"]))
    files = sorted(stamps.rglob("*.png")) if stamps.is_dir() else []
    if not files:
        raise RizbinError(
            f"{stamps} holds no stamps; fetch the package ({FETCH}) and give its usr/share/tuxpaint/stamps."
        )
    if out.exists() and any(out.iterdir()):
        raise RizbinError(f"{out} is not empty; name a new folder.")
    refused: list[tuple[str, str]] = []
    contents: set[bytes] = set()
    images: dict[str, list[UInt8[np.ndarray, "height width 4"]]] = {}
    for path in files:
        place = path.relative_to(stamps)
        try:
            if set(DRAWN) & set(place.parts):
                raise Refused("lies in a folder of drawings or symbols")
            if path.stem.endswith("_mirror"):
                raise Refused("is a mirrored copy")
            pixels = photograph(path)
            both = [blake2b(np.ascontiguousarray(way).tobytes()).digest() for way in (pixels, pixels[:, ::-1])]
            if contents & set(both):
                raise Refused("is a copy of another")
            contents.add(both[0])
            images.setdefault(name_of(path), []).append(pixels)
        except Refused as problem:
            refused.append((place.as_posix(), str(problem)))
    ordered = sorted(images, key=lambda name: (-len(images[name]), blake2b(name.encode()).digest()))
    for name in ordered[most_names or len(ordered) :]:
        refused += [(name, "is beyond the number of names asked for")] * len(images[name])
    names = tuple(sorted(ordered[: most_names or None]))
    out.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        for copy, pixels in enumerate(images[name]):
            path = out / f"{number:03d}-{copy}.png"
            cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA))
            path.with_suffix(".txt").write_text(name + "\n", "utf-8")
    with (out / "refused.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("stamp", "reason"), *refused])
    reasons = Counter(reason for _, reason in refused)
    used = sum(len(images[name]) for name in names)
    (out / "names.json").write_text(json.dumps({"names": names, "used": used, "refused": reasons}, indent=1))
    return Prepared(names, used, reasons)


def training_of(method: str, data: str, size: int, seed: int, batch: int) -> Any:
    """The shipped small recipe of a method, on images of this size."""
    from rizbin.workflows.presets import preset

    training = preset(method, "small")
    vision = replace(training.settings.pair.vision, image_size=size)
    settings = replace(training.settings, pair=replace(training.settings.pair, vision=vision))
    return replace(training, data=data, seed=seed, batch=batch or training.batch, settings=settings)


def start_of(training: Any) -> dict[str, Any]:
    """The first weights of the image-text pair that this training trains."""
    from rizbin.workflows.runs import build

    encoder = build(training).encoder
    return dict(encoder.state_dict())


def same_start(first: Any, second: Any) -> bool:
    """Whether two trainings start from the same image-text pair, bit for bit."""
    import torch

    weights, others = start_of(first), start_of(second)
    return weights.keys() == others.keys() and all(torch.equal(weights[key], others[key]) for key in weights)


def steps_within(minutes: float, training: Any, note: Path) -> int:
    """How many steps of this training fit into the minutes, by a few that are thrown away; kept in a file."""
    from rizbin.data.open import open_source
    from rizbin.training.trainer import Trainer
    from rizbin.workflows.runs import build

    if note.exists():
        return json.loads(note.read_text())["steps"]
    trainer = Trainer(training.trainer, batch=training.batch, steps=1000, checkpoint_every=0, seed=training.seed)
    source = open_source(training.data, split="train", size=training.settings.pair.vision.image_size)
    # Ten places of the run: a recipe may start its techniques late.
    seconds = trainer.time_steps(build(training), source, warm=2, places=10, repeats=1)
    steps = max(2, round(60 * minutes / seconds))
    note.write_text(json.dumps({"steps": steps, "seconds a step": seconds}, indent=1))
    return steps


def run(folder: Path, training: Any, images: int) -> dict[str, float]:
    """Trains and measures what is not there yet; returns steps, CPU minutes and the numbers."""
    from rizbin.data.open import open_source
    from rizbin.evaluation import Evaluation, evaluate
    from rizbin.workflows.runs import load_run, train

    facts, spent = folder / "numbers.json", folder / "seconds.json"
    if facts.exists():
        return json.loads(facts.read_text())
    if not spent.exists():
        # A training that was cut short is made again from its start: only a whole one says what it costs.
        shutil.rmtree(folder, ignore_errors=True)
        begin = time.process_time()
        train(training, folder, quiet=True, silent=True)
        spent.write_text(json.dumps(time.process_time() - begin))
    seconds = json.loads(spent.read_text())
    loaded = load_run(folder)
    pair = loaded.pair
    learn, test = (
        open_source(training.data, split=split, size=pair.image_size, seed=WORLD) for split in ("train", "test")
    )
    settings = Evaluation.Settings(baseline=False, images=images, train_images=2 * images)
    report = evaluate(pair, test, train_source=learn, settings=settings, look=loaded.method.look)
    numbers = {"steps": float(loaded.step), "CPU minutes": seconds / 60}
    numbers |= {
        measurement.name: measurement.value for measurement in report.measurements if in_table(measurement.name)
    }
    facts.write_text(json.dumps(numbers, indent=1))
    return numbers


def in_table(name: str) -> bool:
    """Whether a measurement stands in the table."""
    return any(fnmatch(name, pattern) for pattern in WANTED)


COLUMNS = ("CLIP, equal steps", "CLIP, equal time", "DetailCLIP")


def compare(
    out: Path, data: str, options: argparse.Namespace, write: Callable[[dict[str, list[dict[str, float]]]], None]
) -> None:
    """All runs of all seeds, `write` called after each."""
    columns: dict[str, list[dict[str, float]]] = {name: [] for name in COLUMNS}
    for seed in range(options.seeds):
        clip, detail = (training_of(name, data, options.size, seed, options.batch) for name in ("clip", "detailclip"))
        if not same_start(clip, detail):
            raise RizbinError(f"CLIP and DetailCLIP do not start from the same weights at seed {seed}.")
        steps = steps_within(options.minutes, detail, out / "steps.json")
        columns["DetailCLIP"].append(run(out / f"detailclip-{seed}", replace(detail, steps=steps), options.images))
        write(columns)
        equal = run(out / f"clip-steps-{seed}", replace(clip, steps=steps), options.images)
        columns["CLIP, equal steps"].append(equal)
        write(columns)
        share = columns["DetailCLIP"][-1]["CPU minutes"] / equal["CPU minutes"]
        longer = replace(clip, steps=max(1, round(steps * share)))
        columns["CLIP, equal time"].append(run(out / f"clip-time-{seed}", longer, options.images))
        write(columns)


def table(columns: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean and standard deviation over the seeds of each column."""
    rows = list(dict.fromkeys(name for runs in columns.values() for numbers in runs for name in numbers))
    lines = ["| measurement | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for name in rows:
        cells = []
        for runs in columns.values():
            values = [numbers[name] for numbers in runs if name in numbers]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}" if values else "-")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sheet(path: Path, data: str, folders: dict[str, Path], count: int = 8) -> None:
    """Draws test images, what each network's patches say, and the truth; each with the words it stands for."""
    from rizbin.data.open import open_source
    from rizbin.evaluation.embed import read
    from rizbin.visualization.grid import sheet as contact_sheet
    from rizbin.workflows.runs import load_run

    pairs = {name: load_run(folder).pair.eval() for name, folder in folders.items()}
    side = next(iter(pairs.values())).image_size
    source = open_source(data, split="test", size=side, seed=WORLD)
    images, _ = read(source, count, side, seed=0, advance=lambda _: None)
    names = source.categories or tuple(sorted({name for image in images for name in image.names}))
    if not names:
        return
    cells: list[UInt8[np.ndarray, "height width 3"]] = []
    labels: list[str] = []
    predicted = {name: words_of(pair, [image.pixels for image in images], names) for name, pair in pairs.items()}
    for index, image in enumerate(images):
        cells.append(image.pixels)
        labels.append(image.caption)
        truth = np.full(image.pixels.shape[:2], -1)
        for name, mask in image.objects:
            truth[mask] = names.index(name)
        # Where the truth is known, what is shown of the words is what stands on the objects' pixels.
        shows = {
            name: np.where(truth >= 0, maps[index], -1) if image.objects else maps[index]
            for name, maps in predicted.items()
        }
        order = by_area(truth) + [place for shown in shows.values() for place in by_area(shown)]
        colors = {place: number for number, place in enumerate(dict.fromkeys(order))}
        for name, shown in shows.items():
            cells.append(colored(image.pixels, shown, colors))
            labels.append(f"{name}: {listed(shown, names)}")
        if image.objects:
            cells.append(colored(image.pixels, truth, colors))
            labels.append(f"truth: {listed(truth, names)}")
    columns = 2 + len(predicted) if images[0].objects else 1 + len(predicted)
    pixels = contact_sheet(cells, labels=labels, columns=columns, side=256)
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def words_of(pair: Any, images: Sequence[UInt8[np.ndarray, "size size 3"]], names: tuple[str, ...]) -> np.ndarray:
    """For each pixel of each image the index of the name that its patch is nearest to."""
    import torch
    from torch.nn import functional as F

    from rizbin.data.views import normalize
    from rizbin.evaluation.zero_shot import embed_categories

    with torch.no_grad():
        words = embed_categories(pair, names, "scenes", batch=100)
        patches = pair.dense(normalize(torch.from_numpy(np.stack(images))))
        scores = (patches @ words.T).permute(0, 3, 1, 2)
        size = images[0].shape[:2]
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False).argmax(dim=1).numpy()


def colored(
    pixels: UInt8[np.ndarray, "size size 3"], places: np.ndarray, numbers: dict[int, int]
) -> UInt8[np.ndarray, "size size 3"]:
    """The image with each name's pixels in the color of its number; pixels without a name in gray."""
    from rizbin.visualization.colors import distinct

    colors = np.array(distinct(12), np.float32)
    gray = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    out = 0.5 * gray + 127
    for place, number in numbers.items():
        out[places == place] = 0.35 * gray[places == place] + 0.65 * colors[number % 12]
    return out.astype(np.uint8)


def by_area(places: np.ndarray) -> list[int]:
    """The names' positions, those on most pixels first."""
    counts = Counter(int(place) for place in places.ravel() if place >= 0)
    return [place for place, _ in counts.most_common()]


def listed(places: np.ndarray, names: tuple[str, ...], most: int = 3) -> str:
    """The names that cover most pixels."""
    return ", ".join(names[place] for place in by_area(places)[:most])


def main() -> int:
    """Prepares, trains, measures, draws; without arguments it says how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, default=INSTALLED, help="the package's folder usr/share/tuxpaint/stamps")
    parser.add_argument("--data", default="", help="train on this instead of the stamps, as for rizbin train")
    parser.add_argument("--output", "-o", type=Path, help="folder of runs and results")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each of DetailCLIP's trainings (10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels (64)")
    parser.add_argument("--names", type=int, default=64, help="so many names of the stamps at most; 0: all (64)")
    parser.add_argument("--batch", type=int, default=0, help="images a step; 0: the recipe's")
    parser.add_argument("--images", type=int, default=1000, help="test images (1000)")
    parser.add_argument("--prepare-only", action="store_true", help="write the cut-outs and stop")
    options = parser.parse_args()
    if options.output is None:  # as `make bench` runs it
        parser.print_help()
        return 0
    cv2.setNumThreads(1)
    out: Path = options.output
    try:
        lines = [f"# CLIP and DetailCLIP on {options.data or 'photographed cut-outs'}\n"]
        data = options.data
        if not data:
            prepared = prepare(options.stamps, out / "cutouts", options.names)
            data = f"cutouts:{out / 'cutouts'}"
            lines.append(
                f"{prepared.used} photographs under {len(prepared.names)} names; "
                f"{sum(prepared.refused.values())} images of the package left out:\n"
            )
            lines += [f"- {number} {reason}" for reason, number in prepared.refused.most_common()]
            print("\n".join(lines), flush=True)
        if options.prepare_only:
            return 0
        out.mkdir(parents=True, exist_ok=True)

        def write(columns: dict[str, list[dict[str, float]]]) -> None:
            protocol = (
                f"\n{options.size} px, {options.minutes:g} minutes a DetailCLIP training, {options.seeds} seeds, "
                f"{options.images} test images; percent, mean ± standard deviation. Both methods start from the same "
                "weights.\n"
            )
            (out / "results.md").write_text("\n".join([*lines, protocol, table(columns)]) + "\n", "utf-8")
            (out / "results.json").write_text(json.dumps(columns, indent=1))
            print(f"\n{table(columns)}", flush=True)

        compare(out, data, options, write)
        sheet(out / "sheet.png", data, {"CLIP": out / "clip-time-0", "DetailCLIP": out / "detailclip-0"})
    except RizbinError as error:
        print(f"photographs: {error}", file=sys.stderr)
        return 2
    print(f"\nWritten: {out / 'results.md'}, {out / 'results.json'}, {out / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
