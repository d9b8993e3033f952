"""What the studies of DetailCLIP measure, and how they show it."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from rizbin.data.open import open_source
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.evaluation.suite import Evaluation, evaluate
from rizbin.methods.detailclip import DetailCLIP
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number
from rizbin.studies.lab import Numbers, Results, Variant, beyond_chance
from rizbin.studies.mechanism import mechanism
from rizbin.workflows.runs import load_run

WORLD = "scenes:easy,seed=2"
"""Scenes of a world by whose numbers no recipe was chosen."""
SMALL = "scenes:hard,seed=2"
"""Small and crowded: for objects by size. Nothing was trained on its like."""
COLUMNS = {
    "zero_shot/top1": "zero-shot top-1",
    "retrieval/image_to_text/r1": "captions found, R@1",
    "segmentation/zero_shot/objects_miou": "objects mIoU",
    "segmentation/zero_shot/miou": "mIoU with background",
    "segmentation/zero_shot/boundary_iou": "boundary IoU",
    "segmentation/zero_shot/patch_accuracy_present": "patch accuracy among the names in the image",
    "grounding/zero_shot/pair_objects": "two objects, own word first (chance 50)",
    "grounding/zero_shot/pair_both": "two objects, both right (chance 25)",
    "probe/top1": "linear probe, top-1",
    "segmentation/linear/miou": "linear mIoU",
    "small/segmentation/linear/miou": "linear mIoU on hard scenes",
    "small/grounding/zero_shot/pair_objects": "own word first on hard scenes",
    "small/sizes/small/localized": "small objects localized",
    "tokens/object_pixels_kept": "object pixels kept by attention",
    "hidden/object_pixels": "object pixels hidden and predicted",
    "hidden/chance": "patches hidden and predicted",
    "reconstruction/hidden/object_patches": "error on hidden object patches (flat: 1)",
    "reconstruction/low_resolution_2/psnr": "PSNR from half resolution, dB",
    "target/objects": "patch target on objects, nats",
    "gradient/patch": "gradient of the patch term on objects (even: 1)",
    "gradient/pixels": "gradient of the pixel term on objects (even: 1)",
    "milliseconds": "ms of one core a step",
}
"""What stands in the table."""
IMAGES, TRAIN_IMAGES = 600, 1000
"""Images of each world to measure and to fit probes: with more, measuring a branch takes longer than training it."""
MECHANISM_IMAGES = 128
"""Test images on which a step is taken apart."""


def measure_pair(folder: Path, images: int = 0) -> Numbers:
    """The usual numbers on new scenes, objects by size on hard ones, and what a step cost; of an encoder without words
    those that need none. images: of each world, to measure and to fit probes; 0: as many as the studies take."""
    run = load_run(folder)
    pair = run.encoder
    settings = Evaluation.Settings(
        baseline=False, dense_images=0, images=images or IMAGES, train_images=images or TRAIN_IMAGES
    )
    train, test = (open_source(WORLD, split=part, size=pair.image_size) for part in ("train", "test"))
    method = run.method
    report = evaluate(
        pair, test, train_source=train, settings=settings, look=method.look, reconstruct=method.reconstruct
    )
    numbers = {measurement.name: measurement.value for measurement in report.measurements}
    if isinstance(method, DetailCLIP):
        seen, _ = read(test, MECHANISM_IMAGES, pair.image_size, seed=0, advance=lambda _: None)
        numbers |= mechanism(method, LabeledImages.of(seen, test.categories, pair.image_size, pair.grid))
    hard_train, hard = (open_source(SMALL, split=part, size=pair.image_size) for part in ("train", "test"))
    of_hard = evaluate(pair, hard, train_source=hard_train, settings=settings)
    numbers |= {f"small/{measurement.name}": measurement.value for measurement in of_hard.measurements}
    return numbers


def table(page: Page, variants: Sequence[Variant], results: Results) -> None:
    """All variants that were trained with their numbers, mean and spread."""
    variants = [variant for variant in variants if results.trained(variant.name)]
    columns = [
        name
        for name in COLUMNS
        if any(results.mean(variant.name, name) == results.mean(variant.name, name) for variant in variants)
    ]
    groups: dict[str, list[list[Cell]]] = {}
    for variant in variants:
        cells = [Number(results.shown(variant.name, name), results.mean(variant.name, name)) for name in columns]
        groups.setdefault(variant.group, []).append([variant.name, *cells])
    page.table(
        ["Variant", *(COLUMNS[name] for name in columns)],
        list(groups.items()),
        caption=f"Percent, mean ± standard deviation over {results.seeds} seeds",
    )


def apart(results: Results, variant: str, other: str, name: str) -> str:
    """How `one` stands to `other` in a number, and whether the seeds can tell: "+3.1 (beyond the spread)"."""
    gaps = results.gaps(variant, other, name)
    return f"{mean(gaps):+z.1f} ({'beyond' if beyond_chance(gaps) else 'within'} the spread)" if gaps else "n/a"
