"""A walk from end to end on real images: embed, search, find, classify, adapt, train and export, with a number each.

    apt-get download tuxpaint-stamps-default && dpkg -x tuxpaint-stamps-default_*.deb package
    python benchmarks/walk.py --stamps package/usr/share/tuxpaint/stamps --output runs/walk

Photographed cut-outs (benchmarks/photographs.py says which) are composed to images, `--images` of which are written as
files: one's own images, of which everything is known here, so that each step can be measured. Three models take the
walk: the bundled model of drawings, the same adapted to composed photographs by `rizbin adapt`, and DetailCLIP trained
on such alone; training images are others than those that are searched. Each embeds the folder with its patches, is
searched for every name, says where it stands, and names the images that hold one object. Then the adapted model is
exported and loaded by the library that owns the form, whose vectors are compared.

Every step is the public function of the command of the same name. What is there is not made again, so that the command
goes on where it was stopped. Written: results.md, results.json and a sheet of hits for each model. The stamps are under
the GPL: they are read where the package lies, and none is shipped.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from photographs import INSTALLED, prepare
from PIL import Image

import rizbin
from rizbin.data.open import open_source
from rizbin.workflows.load import load_encoder

START = "detailclip-mini"
SIDE = 128
"""Pixels of the images that are written."""
WORLD = 7
"""Seed of the images that are searched; none is trained on."""
FIRST = 5
"""Hits that count."""


@dataclass(frozen=True)
class Truth:
    """What an image holds."""

    objects: tuple[tuple[str, tuple[int, int, int, int]], ...]
    """Name and box, pixels."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.objects)


def write_images(data: str, folder: Path, count: int) -> tuple[dict[str, Truth], tuple[str, ...]]:
    """Composed images as files, what each holds, and all names."""
    source = open_source(data, split="test", size=SIDE, seed=WORLD)
    folder.mkdir(parents=True, exist_ok=True)
    truths = {}
    for index in range(count):
        sample = source[index]
        path = folder / f"{index:04d}.png"
        if not path.exists():
            Image.fromarray(sample.image).save(path)
        truths[path.name] = Truth(tuple((instance.name, instance.box) for instance in sample.objects))
    return truths, tuple(source.categories)


def walked(model: Any, images: Path, truths: dict[str, Truth], names: tuple[str, ...], out: Path) -> dict[str, float]:
    """Embeds, searches, finds and classifies with a model; the numbers, in percent but for the speed."""
    begin = time.perf_counter()
    table = rizbin.embed(images, model=model, output=out / "vectors.npz", patches=True, quiet=True)
    seconds = time.perf_counter() - begin
    shown = [name for name in names if sum(name in truth.names for truth in truths.values()) >= FIRST]
    hits = rizbin.search(shown, vectors=table, model=model, top=FIRST, patches=True).hits
    holds = [hit.query in truths[Path(hit.file).name].names for hit in hits]
    chance = [sum(name in truth.names for truth in truths.values()) / len(truths) for name in shown]
    on = [_on(hit.place.box, truths[Path(hit.file).name], hit.query) for hit in hits if hit.place is not None]
    sheet = out / "found.png"
    if not sheet.exists():
        rizbin.search(shown[:6], vectors=table, model=model, top=FIRST, patches=True, sheet=sheet)
    alone = [name for name, truth in truths.items() if len(truth.objects) == 1]
    labels = rizbin.classify([images / name for name in alone], names=names, model=model, quiet=True).labels
    right = [label == truths[name].objects[0][0] for name, label in zip(alone, labels, strict=True)]
    return {
        f"the first {FIRST} hits hold the name": 100 * float(np.mean(holds)),
        "the same by chance": 100 * float(np.mean(chance)),
        "the middle of a hit's box is on the object": 100 * float(np.mean(on)),
        "images of one object named rightly": 100 * float(np.mean(right)),
        "names searched": float(len(shown)),
        "images of one object": float(len(alone)),
        "images a second, embedded with patches": len(truths) / seconds,
    }


def _on(box: tuple[float, float, float, float], truth: Truth, name: str) -> bool:
    """Whether the box's middle lies in a box of that name."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return any(
        left <= x < right and top <= y < bottom for own, (left, top, right, bottom) in truth.objects if own == name
    )


def given_back(adapted: Any, images: Path, out: Path) -> dict[str, Any]:
    """Exports, loads with open_clip itself, and compares the vectors of eight images."""
    import open_clip
    import torch

    if not out.exists():
        rizbin.export(adapted, out, format="open_clip")
    files = sorted(images.glob("*.png"))[:8]
    made: Any = open_clip.create_model_and_transforms(f"local-dir:{out}")
    network, _, transform = made
    ours = load_encoder(out).encode_image(files).cpu()
    with torch.no_grad():
        pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in files])
        theirs = torch.nn.functional.normalize(network.eval().encode_image(pixels), dim=-1)
    # open_clip resizes by Pillow and Rizbin by OpenCV, so the vectors of the same files differ a little.
    return {"format": "open_clip", "least cosine with open_clip's own": float((ours * theirs).sum(dim=-1).min())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stamps", type=Path, default=INSTALLED)
    parser.add_argument("--output", type=Path, default=Path("runs/walk"))
    parser.add_argument("--images", type=int, default=400, help="to search and name")
    parser.add_argument("--names", type=int, default=64, help="at most, those with the most photographs first")
    parser.add_argument("--adapt", type=int, default=1500, help="steps of the adaptation")
    parser.add_argument("--train", type=int, default=3000, help="steps of the training from the start")
    given = parser.parse_args()
    if not given.stamps.is_dir():
        print(f"{given.stamps} is not there, so nothing is walked; the first lines of this script say how to get it.")
        return
    out: Path = given.output
    prepared = prepare(given.stamps, out / "cutouts", given.names)
    data = f"cutouts:{out / 'cutouts'}"
    truths, names = write_images(data, out / "images", given.images)
    print(f"{prepared.used} photographs of {len(prepared.names)} names; {len(truths)} composed images of {SIDE} pixels")
    adapted, trained = out / "adapt", out / "train"
    if not (adapted / "adapt.json").exists():
        print(rizbin.adapt(START, data, run=adapted, steps=given.adapt))
    if not (trained / "finished.json").exists():
        rizbin.train("detailclip", data=data, run=trained, steps=given.train)
    results: dict[str, dict[str, float]] = {}
    models = {"bundled, of drawings": START, "adapted": adapted / "adapted", "trained on them alone": trained}
    for label, model in models.items():
        folder = out / label.split(",")[0].replace(" ", "-")
        folder.mkdir(exist_ok=True)
        results[label] = walked(model, out / "images", truths, names, folder)
    export = given_back(adapted / "adapted", out / "images", out / "exported")
    rows = [f"| | {' | '.join(results)} |", "|---|" + "---:|" * len(results)]
    rows += [
        f"| {name} | " + " | ".join(f"{figures[name]:.1f}" for figures in results.values()) + " |"
        for name in results["adapted"]
    ]
    text = "\n".join([*rows, "", f"Exported: {export}"]) + "\n"
    print(text)
    (out / "results.md").write_text(text, encoding="utf-8")
    (out / "results.json").write_text(json.dumps({"results": results, "export": export}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
