"""What DetailCLIP gains over CLIP and A-CLIP on the embedded world, at equal images and at equal time, over seeds.

    python benchmarks/gain.py [--steps 800] [--seeds 3] [--jobs 2] [--variants clip aclip detailclip ...]
    python benchmarks/gain.py --world detail,distractors=4 --size 96    # with texture, thin things and distractors

Every variant has the same towers, batch, optimizer and data (the preset `small`). Each cell is a run folder: stopped
and started again, finished cells are kept. Equal time means equal CPU seconds: the cheaper variants get as many more
steps as their cells at equal images were cheaper than DetailCLIP's. Measured on 1,000 test scenes of a world of its
own (seed 2), by whose numbers no recipe was chosen; objects by size on the hard preset, on which nothing was trained.
Steps are computed in bf16 where the processor multiplies it itself, which halves their time there, else in fp32: a
processor with AVX2 alone took 10.7 seconds for a step in bf16 and 1.5 in fp32.
With --jobs 2 on two cores each cell has one thread; nothing else should run beside.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from rizbin.workflows.presets import Training, preset

EASY = (
    "zero_shot/top1",
    "retrieval/image_to_text/r1",
    "probe/top1",
    "segmentation/zero_shot/miou",
    "segmentation/zero_shot/objects_miou",
    "segmentation/zero_shot/patch_accuracy",
    "segmentation/zero_shot/patch_accuracy_present",
    "grounding/zero_shot/pair_objects",
    "grounding/zero_shot/pair_both",
    "grounding/zero_shot/pair_patches",
    "segmentation/zero_shot/boundary_iou",
    "segmentation/dense_head/miou",
    "segmentation/dense_head/objects_miou",
    "segmentation/dense_head/boundary_iou",
    "segmentation/linear/miou",
    "segmentation/linear/boundary_iou",
)
HARD = (
    "zero_shot/top1",
    "grounding/zero_shot/pair_objects",
    "grounding/zero_shot/pair_both",
    "segmentation/zero_shot/objects_miou",
    "sizes/small/localized",
    "sizes/small/classified",
    "sizes/medium/localized",
    "sizes/large/localized",
)
ROWS = ("steps", "CPU minutes", *EASY, *(f"hard: {name}" for name in HARD))


def _changed(**changes: Any) -> Training[Any]:
    training = preset("detailclip", "small")
    return replace(training, settings=replace(training.settings, **changes))


VARIANTS: dict[str, Callable[[], Training[Any]]] = {
    "clip": lambda: preset("clip", "small"),
    "aclip": lambda: preset("aclip", "small"),
    # CLIP and the term that ties phrases to patches: the three techniques rest in the small preset.
    "detailclip": lambda: preset("detailclip", "small"),
    # With all three, the late ones in the last third of the run.
    "techniques": lambda: _changed(selection="attention", distillation=True, reconstruction=True),
    # The paper's own setting on the same towers: what is not attended is hidden, every weight is 1, from the start.
    "paper": lambda: _changed(
        **{"selection": "attention", "distillation": True, "reconstruction": True},
        **{"contrast_view": "masked", "view_count": 2, "hide": "removed", "teacher_resolution": "full"},
        **{"patch_target": "prototypes", "head_norm": False, "low_resolution": 1, "decoder_blocks": 1},
        **{"phrase_weight": 0.0, "cls_weight": 1.0, "visible_weight": 0.0, "late_start": 0.0},
    ),
}
REFERENCE = "detailclip"


def in_world(training: Training[Any], world: str, size: int) -> Training[Any]:
    """The training on scenes of `world` at `size` pixels."""
    settings = training.settings
    vision = replace(settings.pair.vision, image_size=size)
    settings = replace(settings, pair=replace(settings.pair, vision=vision))
    # What oneDNN emulates costs far more than it saves.
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    trainer = replace(training.trainer, precision="bf16" if native else "fp32")
    return replace(training, data=f"scenes:{world}", settings=settings, trainer=trainer)


def cell(folder: Path, variant: str, seed: int, steps: int, world: str, size: int) -> None:
    """Trains and measures one cell."""
    import rizbin
    from rizbin.workflows.runs import train

    begin = time.process_time()
    training = in_world(VARIANTS[variant](), world, size)
    train(replace(training, seed=seed, steps=steps), folder, quiet=True)
    numbers = {"steps": float(steps), "CPU minutes": (time.process_time() - begin) / 60}
    easy = rizbin.evaluate(folder, data=f"scenes:{world},seed=2", baseline=False, quiet=True)
    numbers |= {name: easy[name].value for name in EASY if name in easy}
    hard = rizbin.evaluate(folder, data="scenes:hard,seed=2", baseline=False, train_images=0, quiet=True)
    numbers |= {f"hard: {name}": hard[name].value for name in HARD if name in hard}
    (folder / "numbers.json").write_text(json.dumps(numbers, indent=1))


def run(cells: list[tuple[Path, str, int, int]], jobs: int, world: str, size: int) -> None:
    """All cells that have no numbers yet, `jobs` at a time, each in a process with its share of the cores."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // jobs))

    def train_one(what: tuple[Path, str, int, int]) -> None:
        words = [*(str(part) for part in what), world, str(size)]
        subprocess.run(
            [sys.executable, __file__, "--cell", *words], check=True, env=os.environ | {"OMP_NUM_THREADS": threads}
        )
        print(f"done: {what[0].name}", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(train_one, [what for what in cells if not (what[0] / "numbers.json").exists()]))


def numbers_of(folder: Path) -> dict[str, float]:
    return json.loads((folder / "numbers.json").read_text())


def table(title: str, columns: dict[str, list[dict[str, float]]]) -> None:
    print(f"\n{title}\n\n| measurement | " + " | ".join(columns) + " |\n|---|" + "---:|" * len(columns))
    for name in ROWS:
        row = []
        for cells in columns.values():
            values = [numbers[name] for numbers in cells if name in numbers]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            row.append(f"{mean(values):.1f}{spread}" if values else "-")
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800, help="of each cell at equal pictures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="cells at the same time")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/gain"))
    parser.add_argument("--world", default="easy", help="preset of the scenes, with its settings")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--cell", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        folder, variant, seed, steps, world, size = options.cell
        cell(Path(folder), variant, int(seed), int(steps), world, int(size))
        return
    seeds = range(options.seeds)

    def at(variant: str, seed: int, kind: str = "pictures") -> Path:
        return options.folder / f"{kind}-{variant}-{seed}"

    run(
        [(at(variant, seed), variant, seed, options.steps) for seed in seeds for variant in options.variants],
        options.jobs,
        options.world,
        options.size,
    )
    equal = {variant: [numbers_of(at(variant, seed)) for seed in seeds] for variant in options.variants}
    table(f"Equal pictures: {options.steps} steps, {options.seeds} seeds (mean ± standard deviation)", equal)
    if REFERENCE not in equal:
        return
    cost = {variant: mean(numbers["CPU minutes"] for numbers in cells) for variant, cells in equal.items()}
    steps = {
        variant: round(options.steps * cost[REFERENCE] / cost[variant])
        for variant in ("clip", "aclip")
        if variant in cost
    }
    run(
        [(at(variant, seed, "time"), variant, seed, steps[variant]) for seed in seeds for variant in steps],
        options.jobs,
        options.world,
        options.size,
    )
    timed = {variant: [numbers_of(at(variant, seed, "time")) for seed in seeds] for variant in steps}
    table(f"Equal time: the CPU minutes of {REFERENCE} at equal pictures", {**timed, REFERENCE: equal[REFERENCE]})


if __name__ == "__main__":
    main()
