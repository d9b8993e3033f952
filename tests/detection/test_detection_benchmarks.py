"""COCO and LVIS on made miniatures: files to numbers by pycocotools, and LVIS's own rules in plain loops."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.detection.benchmarks import LabeledBoxes, lvis_summary, read_boxes, summarized
from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.phrases import named
from tests.detection.toys import Shapes, tiny, tokenizer

NAMES = ("cat", "dog", "disc", "square")
pytest.importorskip("pycocotools")


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    Detector(tiny(), tokenizer(), Preparation(shorter=64, longer=128)).save(folder / "looks")
    return folder / "looks"


def write_coco(root: Path, *, lvis: bool = False) -> dict[str, Any]:
    random = np.random.default_rng(0)
    data: dict[str, Any] = {"images": [], "annotations": [], "categories": []}
    for number, name in enumerate(NAMES):
        data["categories"].append({"id": 10 * number + 3, "name": name, "frequency": "rcff"[number]})
    for image in range(4):
        pixels = Shapes(size=64)[image].image
        (root / "val2017").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "val2017" / f"{image}.png")
        record: dict[str, Any] = {"id": 100 + image, "width": 64, "height": 64}
        if lvis:
            address = f"http://images.example/val2017/{image}.png"
            record |= {"coco_url": address, "neg_category_ids": [3], "not_exhaustive_category_ids": [13]}
        else:
            record["file_name"] = f"{image}.png"
        data["images"].append(record)
        for _ in range(3):
            left, top, width, height = (float(value) for value in random.integers(4, 40, 4))
            annotation = {
                "id": len(data["annotations"]) + 1,
                "image_id": 100 + image,
                "category_id": int(random.choice([13, 23, 33])),
                "bbox": [left, top, width, height],
                "area": width * height,
            }
            data["annotations"].append(annotation if lvis else annotation | {"iscrowd": 0})
    name = "lvis_v1_val.json" if lvis else "instances_val2017.json"
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / name).write_text(json.dumps(data))
    return data


def test_coco_is_pycocotools_number(looks: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    write_coco(tmp_path)
    found = rizbin.evaluate(looks, benchmark="coco", root=tmp_path, quiet=True)
    detector = rizbin.load(looks, device="cpu")
    assert isinstance(detector, Detector)
    rows = []
    for image in range(4):
        (proposals,) = detector.detect([tmp_path / "val2017" / f"{image}.png"], named(NAMES))
        for query in range(len(proposals.boxes)):
            left, top, right, bottom = (float(value) for value in proposals.boxes[query])
            for place in range(4):
                box = [left, top, right - left, bottom - top]
                score = float(proposals.scores[query, place])
                rows.append({"image_id": 100 + image, "category_id": 10 * place + 3, "bbox": box, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "annotations/instances_val2017.json"))
        results: Any = rows
        judge = COCOeval(truth, truth.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    for place, name in enumerate(("ap", "ap50", "ap75")):
        assert found[f"coco/{name}"].value == pytest.approx(100 * judge.stats[place], abs=1e-3)
    assert found["coco/recall"].value == pytest.approx(100 * judge.stats[8], abs=1e-3) and found.images == 4


def overlap(a: list[float], b: list[float]) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(wide, 0.0) * max(high, 0.0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def lvis_ap(data: dict[str, Any], rows: list[dict[str, Any]], category: int, threshold: float) -> float:
    """AP of a category by LVIS's rules (arXiv 1908.03195, section 3.3), in plain loops; nan where it has no box."""
    records = {record["id"]: record for record in data["images"]}
    hits, total = [], 0
    for image, record in records.items():
        truths = [a for a in data["annotations"] if a["image_id"] == image and a["category_id"] == category]
        total += len(truths)
        if not truths and category not in record["neg_category_ids"]:
            continue
        open_truths = list(truths)
        own = [row for row in rows if row["image_id"] == image and row["category_id"] == category]
        for row in sorted(own, key=lambda row: -row["score"]):
            best = max(open_truths, key=lambda a: overlap(row["bbox"], a["bbox"]), default=None)
            if best is not None and overlap(row["bbox"], best["bbox"]) >= threshold:
                open_truths.remove(best)
                hits.append((row["score"], True))
            elif category not in record["not_exhaustive_category_ids"]:
                hits.append((row["score"], False))
    if not total:
        return float("nan")
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda hit: -hit[0])])
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = right / total
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([float(precision[place]) if place < len(precision) else 0.0 for place in places]))


def test_lvis_follows_its_own_rules(tmp_path: Path) -> None:
    data = write_coco(tmp_path, lvis=True)
    random = np.random.default_rng(1)
    rows = []
    for annotation in data["annotations"]:
        for _ in range(2):  # near the truth, and of any category
            box = [float(value + random.normal() * 2) for value in annotation["bbox"]]
            box[2:] = [max(side, 3.0) for side in box[2:]]
            rows.append({"image_id": annotation["image_id"], "category_id": annotation["category_id"], "bbox": box})
            wrong = [float(value) for value in random.integers(4, 40, 4)]
            category = int(random.choice([3, 13, 23, 33]))
            rows.append({"image_id": annotation["image_id"], "category_id": category, "bbox": wrong})
    rows = [row | {"score": float(random.random())} for row in rows]
    values = lvis_summary(LabeledBoxes(data, tmp_path, rows, [record["id"] for record in data["images"]]))
    at_half = [lvis_ap(data, rows, category, 0.5) for category in (3, 13, 23, 33)]
    assert values["ap50"][1] == pytest.approx(np.nanmean(at_half), abs=1e-6)
    whole = [
        [lvis_ap(data, rows, category, threshold) for threshold in np.linspace(0.5, 0.95, 10)]
        for category in (13, 23, 33)
    ]
    assert values["ap"][1] == pytest.approx(np.nanmean(whole), abs=1e-6)
    assert values["ap_common"][1] == pytest.approx(np.nanmean(whole[0]), abs=1e-6)
    assert values["ap_frequent"][1] == pytest.approx(np.nanmean(whole[1:]), abs=1e-6)
    assert values["ap_rare"][1] == -1  # it has no box
    names = [number.name for number in summarized("lvis", LabeledBoxes(data, tmp_path, rows, [100, 101, 102, 103]))]
    assert "lvis/ap_common" in names and "lvis/ap_rare" not in names


def test_lvis_of_files(looks: Path, tmp_path: Path) -> None:
    write_coco(tmp_path, lvis=True)
    found = rizbin.evaluate(looks, benchmark="lvis", root=tmp_path, limit=3, quiet=True)
    assert found.images == 3 and 0 <= found["lvis/ap"].value <= 100
    assert found.left_out[0][1].startswith("Only the first 3")


def test_nothing_found_is_zero(tmp_path: Path) -> None:
    data = write_coco(tmp_path)
    boxes = LabeledBoxes(data, tmp_path, [], [record["id"] for record in data["images"]])
    assert {number.name: number.value for number in summarized("coco", boxes)}["coco/ap"] == 0


def test_what_is_missing_is_said(looks: Path, tmp_path: Path) -> None:
    for name in ("coco", "lvis"):
        with pytest.raises(RizbinError, match=r"which is not there; its folder holds "):
            rizbin.evaluate(looks, benchmark=name, root=tmp_path, quiet=True)
    (tmp_path / "instances_val2017.json").write_text("[]")
    with pytest.raises(RizbinError, match="has not the lists"):
        read_boxes("coco", tmp_path)
