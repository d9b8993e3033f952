"""What adaptation gives and takes: from the bundled model to cut-outs, over seeds, plain fine-tuning beside it.

    python benchmarks/adapt.py CUTOUTS --steps 1500 --seeds 3 --output adapt.json

CUTOUTS is a folder of PNGs with transparency, named after what they show (`cutouts:` data): those of walk.py, or
openclipart's drawings. Scenes are composed of them, with captions and exact masks; training scenes and those that are
measured are different ones. The old world is the embedded one. Three ways are compared, each from `detailclip-mini`:

- `plain`: the method `clip` on the same images for as many steps, at the same learning rate; no distillation, no choice
- `last`: `adapt` without a choice: the last weights as they are
- `adapt`: `rizbin adapt` as it comes, with mixtures of weights and the choice on validation images

For each measure the mean over seeds of the change from the start is printed with its standard deviation. The claim to
be judged: dense and retrieval up beyond the spread on the new domain, the old one down by a point at most.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rizbin.core.environment import describe
from rizbin.nets.dual import ImageTextPair
from rizbin.workflows.adapt import GROUPS, Adapt, adapt, images_of, numbers_of
from rizbin.workflows.load import open_model
from rizbin.workflows.presets import preset
from rizbin.workflows.runs import train

MODEL = "detailclip-mini"
Numbers = Mapping[str, Mapping[str, float]]
"""World -> measure -> value."""


def main() -> None:
    """Runs what is asked for and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cutouts", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--runs", type=Path, default=Path("runs/adapt"))
    parser.add_argument("--output", type=Path, default=Path("adapt.json"))
    words = parser.parse_args()
    changes: dict[str, list[Numbers]] = {"plain": [], "last": [], "adapt": []}
    for seed in range(words.seeds):
        settings = Adapt(
            MODEL,
            f"cutouts:{words.cutouts}",
            steps=words.steps,
            images=words.images,
            seed=seed,
            quiet=True,
            run=words.runs / f"adapt-{seed}",
        )
        made = adapt.run(settings)
        worlds = [world for world in made.numbers if "drift" not in world]
        before = {world: {name: pair["before"] for name, pair in made.numbers[world].items()} for world in worlds}
        after = {world: {name: pair["after"] for name, pair in made.numbers[world].items()} for world in worlds}
        changes["adapt"].append(_less(after, before))
        changes["last"].append(_less(_measured(words.runs / f"adapt-{seed}", settings), before))
        changes["plain"].append(_less(_measured(_plain(settings, words.runs / f"plain-{seed}"), settings), before))
    words.output.write_text(json.dumps({"environment": describe(), "changes": changes}, indent=2) + "\n")
    print(_table(changes))


def _plain(settings: Adapt, run: Path) -> Path:
    """Fine-tuning by the contrast alone."""
    training = preset("clip")
    network = open_model(MODEL).encoder.network
    assert isinstance(network, ImageTextPair)  # the bundled model is one
    training = replace(
        training,
        data=settings.data,
        steps=settings.steps,
        batch=settings.batch,
        seed=settings.seed,
        start=MODEL,
        settings=replace(training.settings, pair=network.settings),
        trainer=replace(training.trainer, learning_rate=settings.learning_rate),
    )
    return train(training, run, quiet=True)


def _measured(run: Path, settings: Adapt) -> dict[str, dict[str, float]]:
    """What the last weights of a run give on the images that are reported on."""
    network: Any = open_model(run).encoder.network
    worlds = images_of(settings, network.image_size)
    return {world: numbers_of(network, halves[1], settings) for world, halves in worlds.items()}


def _less(after: Numbers, before: Numbers) -> dict[str, dict[str, float]]:
    return {
        world: {name: value - before[world][name] for name, value in figures.items() if name in before[world]}
        for world, figures in after.items()
    }


def _table(changes: Mapping[str, list[Numbers]]) -> str:
    """A row a world and group of measures, a column a way: mean and deviation over seeds, in points."""
    lines = [f"{'change from the start, points':34}" + "".join(f"{way:>18}" for way in changes)]
    worlds = next(iter(changes.values()))[0]
    for world in worlds:
        for group, names in GROUPS.items():
            cells = []
            for runs in changes.values():
                means = [
                    statistics.mean(values)
                    for run in runs
                    if (values := [run[world][name] for name in names if name in run[world]])
                ]
                spread = statistics.stdev(means) if len(means) > 1 else 0.0
                cells.append(f"{statistics.mean(means):+8.1f} ± {spread:.1f}" if means else "-")
            lines.append(f"{world}: {group:{32 - len(world)}}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
