"""Published benchmarks on made miniatures of their layouts, against the reference implementations' numbers."""

import io
import json
import tarfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import rizbin
from rizbin.core.errors import RizbinError
from rizbin.data.image_io import read_image
from rizbin.data.open import open_source
from rizbin.evaluation.benchmarks import compositions, names, segmentation
from rizbin.evaluation.benchmarks.protocol import BenchmarkOptions
from rizbin.evaluation.zero_shot import templates
from rizbin.models.encoder import Encoder
from rizbin.workflows.benchmark import BENCHMARKS, benchmarks
from rizbin.workflows.load import load_encoder

FORMAT = {".jpg": "JPEG", ".JPEG": "JPEG", ".png": "PNG", ".webp": "WEBP"}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("detailclip-mini")


@pytest.fixture(scope="module")
def scenes() -> list[Any]:
    source = open_source("scenes:easy", split="test", size=96, seed=0)
    return [source[number] for number in range(24)]


def save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95} if path.suffix != ".png" else {}
    Image.fromarray(pixels).save(path, FORMAT[path.suffix], **options)


def run(name: Any, root: Path, **options: Any) -> Any:
    return rizbin.evaluate("detailclip-mini", benchmark=name, root=root, quiet=True, **options)


class Reference:
    """An encoder as clip_benchmark calls it: tensors that are prepared, tokens that are texts."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def encode_image(self, batch: torch.Tensor) -> torch.Tensor:
        return self.encoder.embeddings(batch)

    def encode_text(self, texts: "Texts") -> torch.Tensor:
        return self.encoder.encode_text(texts.texts)


class Texts:
    def __init__(self, texts: list[str]) -> None:
        self.texts = list(texts)

    def to(self, device: str) -> "Texts":
        return self


class Loader(list):
    """Batches with the classes that clip_benchmark looks for."""

    def __init__(self, batches: Any, classes: list[str]) -> None:
        super().__init__(batches)
        self.dataset = type("Dataset", (), {"classes": classes})


def reference_classification(
    encoder: Encoder, paths: list[Path], labels: list[int], classes: list[str], prompts: list[str]
) -> dict[str, float]:
    from clip_benchmark.metrics import zeroshot_classification as reference
    from sklearn.metrics import top_k_accuracy_score

    # Its own `accuracy` calls float() on an array, which NumPy 2 refuses; scikit-learn counts the same.
    def accuracy(scores: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...]) -> list[float]:
        every = range(scores.shape[1])
        return [
            float(top_k_accuracy_score(target, scores, k=k, labels=every))
            if scores.shape[1] > 2
            else float((scores.argmax(1) == target).float().mean())
            for k in topk
        ]

    loader = Loader([(encoder.preprocess(paths), torch.tensor(labels))], classes)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that were predicted and are in no image
        patch.setattr(reference, "accuracy", accuracy)
        return reference.evaluate(Reference(encoder), loader, Texts, classes, prompts, "cpu", amp=False)


def test_imagenet_is_clip_benchmarks_number(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    """Seven of the 1,000 folders, as of ImageNet-R; and the names are those of their WordNet ids."""
    identities = ["n01440764", "n02119789", "n02391049", "n02510455", "n03345487", "n07753592", "n04146614"]
    classes = ["tench", "kit fox", "zebra", "giant panda", "fire truck", "banana", "school bus"]
    paths, labels = [], []
    for number, sample in enumerate(scenes):
        label = number % 7
        path = tmp_path / "val" / identities[label] / f"{number}.JPEG"
        save(sample.image, path)
    for label, identity in sorted(enumerate(identities), key=lambda item: item[1]):
        for path in sorted((tmp_path / "val" / identity).iterdir(), key=lambda path: int(path.stem)):
            paths.append(path)
            labels.append(label)
    prompts = [template.replace("{}", "{c}") for template in templates("openai80")]
    expected = reference_classification(encoder, paths, labels, classes, prompts)
    found = run("imagenet", tmp_path)
    assert found["imagenet/top1"].value == pytest.approx(100 * expected["acc1"], abs=1e-4)
    assert found["imagenet/top5"].value == pytest.approx(100 * expected["acc5"], abs=1e-4)
    assert found["imagenet/mean_class_recall"].value == pytest.approx(100 * expected["mean_per_class_recall"], abs=1e-4)
    assert found["imagenet/top1"].chance == pytest.approx(100 / 7) and found.images == 24
    quick = run("imagenet", tmp_path, limit=5)
    assert quick.images == 5 and quick.left_out[0][1].startswith("Only the first 5")


def test_folders_have_names_and_prompts_of_their_own(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    for number, sample in enumerate(scenes[:8]):
        save(sample.image, tmp_path / ["a_fox", "bee"][number % 2] / f"{number}.png")
    (tmp_path / "bee/broken.png").write_bytes(b"no image")
    found = run("folders", tmp_path)
    assert found.images == 8 and "broken.png" in found.refused[0][1]
    (tmp_path / "classnames.txt").write_text("fox\nbumble bee\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c}\nthe {c}\n")
    paths = [tmp_path / ["a_fox", "bee"][number % 2] / f"{number}.png" for number in [0, 2, 4, 6, 1, 3, 5, 7]]
    expected = reference_classification(encoder, paths, [0] * 4 + [1] * 4, ["fox", "bumble bee"], ["a {c}", "the {c}"])
    found = run("folders", tmp_path)
    assert found["folders/top1"].value == pytest.approx(100 * expected["acc1"])
    (tmp_path / "classnames.txt").write_text("fox\n")
    with pytest.raises(RizbinError, match="1 names for 2 folders"):
        run("folders", tmp_path)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def webp(pixels: np.ndarray) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "WEBP", lossless=True)
    return held.getvalue()


def test_webdatasets_of_clip_benchmark(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    """Classes in two tars, read by clip_benchmark's own numbers."""
    classes = ["fox", "bee", "tiger", "panda", "penguin", "rocket"]
    root = tmp_path / "classes"
    for tar in range(2):
        samples = scenes[tar * 6 : tar * 6 + 6]
        parts = {}
        for number, sample in enumerate(samples):
            parts |= {f"s{number:07d}.cls": str(number).encode(), f"s{number:07d}.webp": webp(sample.image)}
        write_tar(root / "test" / f"{tar}.tar", parts)
    (root / "test/nshards.txt").write_text("2")
    (root / "classnames.txt").write_text("\n".join(classes))
    (root / "zeroshot_classification_templates.txt").write_text("a photo of {c}.")
    for number in range(12):
        save(scenes[number].image, tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    expected = reference_classification(encoder, paths, list(range(6)) * 2, classes, ["a photo of {c}."])
    found = run("webdataset", root)
    assert found["webdataset/top1"].value == pytest.approx(100 * expected["acc1"])
    assert found["webdataset/mean_class_recall"].value == pytest.approx(100 * expected["mean_per_class_recall"])
    (root / "test/1.tar").unlink()
    with pytest.raises(RizbinError, match=r"1.tar, which is not there; its folder holds test/nshards.txt"):
        run("webdataset", root)


def reference_retrieval(encoder: Encoder, paths: list[Path], captions: list[list[str]]) -> dict[str, float]:
    from clip_benchmark.metrics.zeroshot_retrieval import evaluate

    loader = [(encoder.preprocess(paths), captions)]
    return evaluate(Reference(encoder), loader, Texts, "cpu", amp=False, recall_k_list=[1, 5, 10])


def check_retrieval(found: Any, expected: dict[str, float], name: str) -> None:
    for k in (1, 5, 10):
        for way, other in (("image_to_text", "text"), ("text_to_image", "image")):
            value = 100 * expected[f"{other}_retrieval_recall@{k}"]
            assert found[f"{name}/{way}/r{k}"].value == pytest.approx(value, abs=1e-4)


def captions_of(sample: Any, count: int) -> list[str]:
    named = [thing.name for thing in sample.objects]
    starts = ("a picture of", "here is", "one can see", "there is", "look,", "and", "also")
    return [f"{start} {' and '.join(named)}" for start in starts[:count]]


def test_retrieval_on_karpathys_files(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    """The first five of each image's captions, of the test split alone; both ways as clip_benchmark counts."""
    records, paths, captions = [], [], []
    for number, sample in enumerate(scenes):
        split = "train" if number % 6 == 5 else "test"
        texts = captions_of(sample, 3 + number % 5)
        sentences = [{"raw": text} for text in texts]
        records.append({"filename": f"{number}.png", "filepath": "val2014", "split": split, "sentences": sentences})
        save(sample.image, tmp_path / "val2014" / f"{number}.png")
        if split == "test":
            paths.append(tmp_path / "val2014" / f"{number}.png")
            captions.append(texts[:5])
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": records}))
    found = run("coco-retrieval", tmp_path)
    check_retrieval(found, reference_retrieval(encoder, paths, captions), "coco-retrieval")
    assert found.images == 20
    for record in records:
        record.pop("filepath")
    (tmp_path / "dataset_flickr30k.json").write_text(json.dumps({"images": records}))
    with pytest.raises(RizbinError, match="flickr30k-images, which is not there"):
        run("flickr30k", tmp_path)
    (tmp_path / "val2014").rename(tmp_path / "flickr30k-images")
    again = run("flickr30k", tmp_path)
    assert again["flickr30k/text_to_image/r1"].value == found["coco-retrieval/text_to_image/r1"].value


def test_retrieval_on_a_webdataset(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    parts, captions = {}, []
    for number, sample in enumerate(scenes[:12]):
        captions.append(captions_of(sample, 1 + number % 3))
        parts |= {f"s{number}.webp": webp(sample.image), f"s{number}.txt": "\n".join(captions[-1]).encode()}
        save(sample.image, tmp_path / "plain" / f"{number}.png")
    write_tar(tmp_path / "test/0.tar", parts)
    (tmp_path / "test/nshards.txt").write_text("1\n")
    (tmp_path / "dataset_type.txt").write_text("retrieval\n")
    paths = [tmp_path / "plain" / f"{number}.png" for number in range(12)]
    check_retrieval(run("webdataset", tmp_path), reference_retrieval(encoder, paths, captions), "webdataset")


def test_sugarcrepe_is_clip_benchmarks_number(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    from clip_benchmark.metrics.image_caption_selection import evaluate

    for number, sample in enumerate(scenes):
        save(sample.image, tmp_path / "val2017" / f"{number}.jpg")
    expected = {}
    for place, part in enumerate(compositions.SUGAR_PARTS):
        cases = {}
        for number in range(place, place + 8):
            right, wrong = scenes[number].objects[0].name, scenes[(number + 5) % 24].objects[0].name
            caption, negative = f"a {right} on the ground", f"a {wrong} on the ground"
            cases[str(number * 3)] = {"filename": f"{number}.jpg", "caption": caption, "negative_caption": negative}
        (tmp_path / f"{part}.json").write_text(json.dumps(cases))
        paths = [tmp_path / "val2017" / case["filename"] for case in cases.values()]
        texts = [[case["caption"], case["negative_caption"]] for case in cases.values()]
        loader = [(encoder.preprocess(paths), texts)]
        expected[part] = evaluate(Reference(encoder), loader, Texts, "cpu", amp=False)["text_acc"]
    found = run("sugarcrepe", tmp_path)
    for part, value in expected.items():
        # clip_benchmark takes the right caption where both are the same; here a tie is wrong.
        same = np.mean(
            [
                case["caption"] == case["negative_caption"]
                for case in json.loads((tmp_path / f"{part}.json").read_text()).values()
            ]
        )
        assert found[f"sugarcrepe/{part}"].value == pytest.approx(100 * (value - same), abs=1e-4)
    mean = np.mean([found[f"sugarcrepe/{part}"].value for part in compositions.SUGAR_PARTS])
    assert found["sugarcrepe/mean"].value == pytest.approx(mean)
    (tmp_path / "swap_obj.json").unlink()
    with pytest.raises(RizbinError, match=r"swap_obj.json, which is not there; its folder holds add_att.json and"):
        run("sugarcrepe", tmp_path)


def test_aro_crops_and_averages_as_published(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    """Against a plain loop: Pillow's crop, accuracy by relation or pair of attributes, those left out left out."""
    cases = []
    for number in range(48):
        sample = scenes[number % 24]
        save(sample.image, tmp_path / "images" / f"{number % 24}.jpg")
        thing, other = sample.objects[0], scenes[(number + 7) % 24].objects[0]
        left, top, right, bottom = thing.box
        cases.append(
            {
                "image_path": f"{number % 24}.jpg",
                "bbox_x": left - 3,
                "bbox_y": top,
                "bbox_w": right - left + 9,
                "bbox_h": bottom - top,
                "true_caption": f"the {thing.name} is here",
                "false_caption": f"the {other.name} is here" if number % 3 else f"no {thing.name} is anywhere",
                "relation_name": ["on", "next to", "behind"][number % 3],
                "attributes": ["red", "small"] if number < 30 else ["blue", "large"],
            }
        )
    won = defaultdict(list)
    for case in cases:
        with Image.open(tmp_path / "images" / case["image_path"]) as image:
            box = [case[f"bbox_{side}"] for side in "xywh"]
            crop = image.convert("RGB").crop((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        score = encoder.similarity(crop, [case["true_caption"], case["false_caption"]])[0]
        won[case["relation_name"], tuple(case["attributes"])].append(bool(score[0] > score[1]))
    for part in ("relation", "attribution"):
        (tmp_path / f"visual_genome_{part}.json").write_text(json.dumps(cases))
    everything = [right for some in won.values() for right in some]
    relation = run("aro-relation", tmp_path)
    assert relation["aro-relation/accuracy"].value == pytest.approx(100 * np.mean(everything))
    by_relation = [
        np.mean([r for key, some in won.items() if key[0] == name for r in some]) for name in ("on", "behind")
    ]
    assert relation["aro-relation/macro_accuracy"].value == pytest.approx(100 * np.mean(by_relation))
    attribution = run("aro-attribution", tmp_path)
    red = [right for key, some in won.items() if key[1] == ("red", "small") for right in some]
    assert len(red) == 30 and attribution["aro-attribution/macro_accuracy"].value == pytest.approx(100 * np.mean(red))
    cases[0]["image_path"] = "../../secret.jpg"
    (tmp_path / "visual_genome_relation.json").write_text(json.dumps(cases))
    with pytest.raises(RizbinError, match="lies outside"):
        run("aro-relation", tmp_path)


def reference_segmentation(
    data: segmentation.DenseSet, encoder: Encoder, pairs: list[tuple[Path, np.ndarray]]
) -> dict[str, float]:
    """mmseg's sliding windows and IoUMetric in plain loops, by their published formulas."""
    prompts = templates("openai80")
    words = []
    for name, _ in data.words:
        vectors = encoder.encode_text([prompt.replace("{}", name) for prompt in prompts])
        words.append(F.normalize(vectors.mean(dim=0), dim=0))
    matrix = torch.stack(words).double()
    count = len(data.classes) + data.background
    intersect, union, label_area = np.zeros(count), np.zeros(count), np.zeros(count)
    for path, truth in pairs:
        image, side = read_image(path), encoder.image_size
        short = round(data.enlarged * side)
        factor = short / min(image.shape[:2])
        import cv2

        large = cv2.resize(image, (round(image.shape[1] * factor), round(image.shape[0] * factor)))
        height, width, step = *large.shape[:2], side // 2
        total, seen = torch.zeros(len(matrix), height, width).double(), torch.zeros(height, width).double()
        tops = sorted({min(top, height - side) for top in range(0, height - side + step, step)})
        lefts = sorted({min(left, width - side) for left in range(0, width - side + step, step)})
        for top in tops:
            for left in lefts:
                crop = large[top : top + side, left : left + side]
                cells = encoder.dense(encoder.prepare([crop]))[0].double()
                scores = torch.einsum("rcd,wd->wrc", cells, matrix)
                part = F.interpolate(scores[None], size=(side, side), mode="bilinear")[0]
                total[:, top : top + side, left : left + side] += part
                seen[top : top + side, left : left + side] += 1
        logits = F.interpolate((total / seen)[None], size=truth.shape, mode="bilinear")[0] * data.scale
        probabilities = logits.softmax(dim=0)
        numbers = torch.tensor([number for _, number in data.words])
        by_class = torch.stack([probabilities[numbers == number].max(dim=0).values for number in range(count)])
        chosen = by_class.argmax(dim=0)
        if data.background:
            chosen[by_class.max(dim=0).values < 0.1] = 0
        predicted, known = chosen.numpy(), truth != 255
        for number in range(count):
            p, t = (predicted == number) & known, (truth == number) & known
            intersect[number] += (p & t).sum()
            union[number] += (p | t).sum()
            label_area[number] += t.sum()
    with np.errstate(invalid="ignore"):
        return {
            "miou": 100 * float(np.nanmean(intersect / union)),
            "mean_accuracy": 100 * float(np.nanmean(intersect / label_area)),
            "pixel_accuracy": 100 * float(intersect.sum() / label_area.sum()),
        }


SETS = {data.name: data for data in segmentation.SETS}


def write_set(data: segmentation.DenseSet, root: Path, scenes: list[Any]) -> list[tuple[Path, np.ndarray]]:
    """A miniature of the layout: the labels of the files are random classes in boxes, some pixels are left out."""
    random, found, lines = np.random.default_rng(0), [], []
    count = len(data.classes) + data.background
    for number, sample in enumerate(scenes[:3]):
        pixels = sample.image[: 96 - 20 * (number == 1), : 96 - 30 * (number == 2)]
        folder = "city/" if data.name == "cityscapes" else ""
        path = root / data.images / f"{folder}im{number}{data.endings[0]}"
        truth = np.full(pixels.shape[:2], 255, np.uint8)
        for _ in range(6):
            top, left = random.integers(0, 60, 2)
            truth[top : top + 30, left : left + 25] = random.choice([int(random.integers(count)), 255])
        raw = np.where(truth == 255, 0, truth + 1).astype(np.uint8) if data.zero == "ignored" else truth
        save(pixels, path)
        save(raw, root / data.labels / f"{folder}im{number}{data.endings[1]}")
        lines.append(f"im{number}")
        found.append((path, truth))
    if data.listed:
        (root / data.listed).parent.mkdir(parents=True)
        (root / data.listed).write_text("\n".join(lines))
    return found


@pytest.mark.parametrize("name", SETS)
def test_segmentation_is_the_published_formula(
    name: str, encoder: Encoder, scenes: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SETS[name]
    few = ("a {}.", "the {}.")  # 80 prompts of 171 names take a minute
    monkeypatch.setattr(segmentation.zero_shot, "templates", lambda which: few)
    monkeypatch.setitem(globals(), "templates", lambda which: few)
    pairs = write_set(data, tmp_path, scenes)
    found = segmentation.measure(data, encoder, tmp_path, BenchmarkOptions(batch=3), None)
    expected = reference_segmentation(data, encoder, pairs)
    for number, value in expected.items():
        # A pixel on an edge between two names may fall to the other by rounding.
        assert found[f"{name}/{number}"].value == pytest.approx(value, abs=0.05)
    assert expected["pixel_accuracy"] < 100 and found.images == 3


def test_labels_that_are_no_class_are_refused(encoder: Encoder, scenes: list[Any], tmp_path: Path) -> None:
    data = SETS["voc20"]
    write_set(data, tmp_path, scenes)
    save(np.full((96, 96), 200, np.uint8), tmp_path / data.labels / "im0.png")
    found = segmentation.measure(data, encoder, tmp_path, BenchmarkOptions(), None)
    assert found.images == 2 and "has the label 199" in found.refused[0][1]


def test_the_classes_are_those_of_the_data_sets() -> None:
    counts = {"voc20": 20, "voc21": 21, "context59": 59, "context60": 60, "coco-stuff": 171, "coco-object": 81}
    counts |= {"ade20k": 150, "cityscapes": 19}
    for name, count in counts.items():
        data = SETS[name]
        assert len(data.classes) + data.background == count == max(number for _, number in data.words) + 1
        assert len(set(data.classes)) >= len(data.classes) - (name == "ade20k") and all(data.classes)
    assert names.ADE20K[0] == "wall" and names.ADE20K[149] == "flag" and names.CITYSCAPES[13] == "car"
    assert list(names.CONTEXT) == sorted(names.CONTEXT)


@pytest.mark.parametrize("name", [name for name, one in BENCHMARKS.items() if not one.detects])
def test_what_is_missing_is_one_sentence_with_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(RizbinError, match=r"which is not there; its folder holds ") as error:
        run(name, tmp_path)
    assert "\n" not in str(error.value) and BENCHMARKS[name].layout[:25] in str(error.value)


def test_they_are_listed_with_their_layouts() -> None:
    listed = benchmarks()
    assert [row["name"] for row in listed.rows()] == list(BENCHMARKS)
    assert "folder: images/validation/NAME.jpg" in benchmarks("ade20k").text()
    with pytest.raises(RizbinError, match="There is no benchmark 'ade'"):
        benchmarks("ade")


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        ("detailclip-mini", {"benchmark": "ade20k"}, "Say where ade20k lies with --root"),
        ("detailclip-mini", {"benchmark": "ade20k", "root": "nowhere"}, "There is no folder nowhere"),
        ("detailclip-mini", {"benchmark": "coco", "root": "."}, "is no detector"),
        ("dino-mini", {"benchmark": "ade20k", "root": "."}, "reads no words"),
        ("detailclip-mini", {"benchmark": "ade20k", "root": ".", "data": "scenes"}, "brings its own images"),
        ("detailclip-mini", {"benchmark": "ade20k", "root": ".", "limit": 0}, "--limit is 0"),
    ],
)
def test_what_cannot_be_meant_is_said(model: str, given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RizbinError, match=sentence):
        rizbin.evaluate(model, quiet=True, **given)
