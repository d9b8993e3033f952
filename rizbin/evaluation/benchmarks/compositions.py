"""Which of two captions is right: ARO (arXiv 2210.01936) and SugarCrepe (arXiv 2306.14610).

The right caption must have the greater cosine; equal ones are wrong. ARO crops the image to the box of the two objects.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement, Report
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.image_io import read_image
from rizbin.data.listing import leads_out
from rizbin.data.sample import Refused
from rizbin.evaluation.benchmarks.classification import texts_embedded
from rizbin.evaluation.benchmarks.names import SYMMETRIC_RELATIONS
from rizbin.evaluation.benchmarks.protocol import (
    Benchmark,
    BenchmarkOptions,
    Image,
    embed_images,
    first,
    json_of,
    missing,
    report,
)
from rizbin.models.encoder import Encoder

LEAST_CASES = 25
"""Cases of a pair of attributes under which ARO leaves it out."""
SUGAR_PARTS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
SUGAR = "add_att.json and its six siblings (or in data/), and COCO's images in val2017/ (or images/val2017/)"
ARO = "visual_genome_{part}.json, and the images in images/"


@dataclass(frozen=True)
class CaptionPair:
    """One image with a right and a wrong caption."""

    image: Image
    right: str
    wrong: str
    group: str
    """What its accuracy is averaged in."""


def measure(
    cases: Sequence[CaptionPair], encoder: Encoder, options: BenchmarkOptions, bar: MakeBar | None, name: str
) -> tuple[dict[str, list[bool]], tuple[tuple[str, str], ...]]:
    """Group -> whether the right caption of each case won; and the refused images."""
    some = first(cases, options.limit)
    with advancing(bar, len(some), name) as advance:
        seen = embed_images(encoder, [case.image for case in some], options.batch, advance)
    chosen = [some[place] for place in seen.positions]
    scores = [
        (seen.vectors * texts_embedded(encoder, [getattr(case, which) for case in chosen])).sum(dim=1)
        for which in ("right", "wrong")
    ]
    won: dict[str, list[bool]] = defaultdict(list)
    for case, right in zip(chosen, torch.gt(*scores).tolist(), strict=True):
        won[case.group].append(right)
    return won, seen.refused


def _sugarcrepe(encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    place = root / "data" if (root / "data").is_dir() else root
    folder = next((root / name for name in ("val2017", "images/val2017") if (root / name).is_dir()), None)
    if folder is None:
        raise missing("sugarcrepe", root / "val2017", SUGAR)
    cases = []
    for part in SUGAR_PARTS:
        file = place / f"{part}.json"
        if not file.is_file():
            raise missing("sugarcrepe", file, SUGAR)
        content = json_of(file)
        records = content.values() if isinstance(content, dict) else content
        for record in records:
            path = _inside(folder, _field(record, "filename", file))
            right, wrong = _field(record, "caption", file), _field(record, "negative_caption", file)
            cases.append(CaptionPair(partial(read_image, path), right, wrong, part))
    won, refused = measure(cases, encoder, options, bar, "sugarcrepe")
    numbers = [
        _number(f"sugarcrepe/{part}", float(np.mean(won[part])), len(won[part]), "")
        for part in SUGAR_PARTS
        if won[part]
    ]
    mean = float(np.mean([number.value for number in numbers])) / 100
    total = sum(map(len, won.values()))
    numbers.append(_number("sugarcrepe/mean", mean, total, f", averaged over {len(numbers)} kinds of change"))
    return report("sugarcrepe", numbers, total, refused, options.limit)


def read_aro(root: Path, part: str) -> list[CaptionPair]:
    """The cases of "relation" or "attribution"."""
    file, folder, layout = root / f"visual_genome_{part}.json", root / "images", ARO.format(part=part)
    for path, there in ((file, file.is_file()), (folder, folder.is_dir())):
        if not there:
            raise missing(f"aro-{part}", path, layout)
    cases = []
    for record in json_of(file):
        path = _inside(folder, _field(record, "image_path", file))
        try:
            left, top, width, height = (int(record[f"bbox_{side}"]) for side in "xywh")
        except (KeyError, TypeError, ValueError) as error:
            raise RizbinError(f"A case of {file} has no box (bbox_x, bbox_y, bbox_w, bbox_h); get it again.") from error
        attributes = record.get("attributes", [])
        group = "_".join(map(str, attributes[:2])) if part == "attribution" else _field(record, "relation_name", file)
        right, wrong = _field(record, "true_caption", file), _field(record, "false_caption", file)
        cases.append(CaptionPair(partial(_cropped, path, (left, top, width, height)), right, wrong, group))
    return cases


def _aro(part: str, encoder: Encoder, root: Path, options: BenchmarkOptions, bar: MakeBar | None) -> Report:
    name = f"aro-{part}"
    won, refused = measure(read_aro(root, part), encoder, options, bar, name)
    if part == "relation":
        groups = {group: cases for group, cases in won.items() if group not in SYMMETRIC_RELATIONS}
        how = f"relations whose sides cannot change places ({len(won) - len(groups)} others left out, as published)"
    else:
        groups = {group: cases for group, cases in won.items() if len(cases) >= LEAST_CASES}
        how = f"pairs of attributes with {LEAST_CASES} cases and more ({len(won) - len(groups)} others left out)"
    total = sum(map(len, won.values()))
    numbers = [_number(f"{name}/accuracy", sum(map(sum, won.values())) / total, total, "")]
    if groups:
        macro = float(np.mean([np.mean(cases) for cases in groups.values()]))
        counted = sum(map(len, groups.values()))
        numbers.insert(0, _number(f"{name}/macro_accuracy", macro, counted, f", averaged over {len(groups)} {how}"))
    return report(name, numbers, total, refused, options.limit)


def _number(name: str, share: float, cases: int, how: str) -> Measurement:
    return Measurement(
        name=name,
        value=100 * share,
        chance=50.0,
        protocol=f"Share of {cases:,} images whose right caption has a greater cosine than the wrong one{how}.",
        images=cases,
    )


def _field(record: Any, name: str, file: Path) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise RizbinError(f"A case of {file} has no {name}; get it again.")
    return value


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if leads_out(path, folder):
        raise RizbinError(f"{name} lies outside of {folder}; get the file again.")
    return path


def _cropped(path: Path, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box (left, top, width, height) of an image; what hangs over its border is black, as Pillow crops."""
    pixels = read_image(path)
    left, top, width, height = box
    if width < 1 or height < 1 or width * height > 4 * pixels.shape[0] * pixels.shape[1]:
        raise Refused(f"{path} has a box of {width}x{height} pixels; get the file of cases again.")
    out = np.zeros((height, width, 3), np.uint8)
    rows, columns = (max(0, top), min(top + height, len(pixels))), (max(0, left), min(left + width, pixels.shape[1]))
    if rows[0] < rows[1] and columns[0] < columns[1]:
        part = pixels[rows[0] : rows[1], columns[0] : columns[1]]
        out[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = part
    return out


BENCHMARKS = (
    *(
        Benchmark(
            name=f"aro-{part}",
            about=f"Is the {what} that way round? (Visual Genome {part.title()} of ARO)",
            layout=ARO.format(part=part),
            source="arXiv 2210.01936",
            run=partial(_aro, part),
        )
        for part, what in (("relation", "relation"), ("attribution", "assignment of attributes"))
    ),
    Benchmark(
        name="sugarcrepe",
        about="Right captions against plausible wrong ones, in seven kinds of change.",
        layout=SUGAR,
        source="arXiv 2306.14610",
        run=_sugarcrepe,
    ),
)
