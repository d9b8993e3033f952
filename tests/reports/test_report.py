"""Reports of real (tiny, untrained) networks: complete with a teacher and masks, complete without."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from rizbin.core.measurement import Measurement, Report
from rizbin.data.sample import LabeledObject, Refused, Sample
from rizbin.data.views import normalize
from rizbin.evaluation.suite import Evaluation
from rizbin.evaluation.zero_shot import embed_categories
from rizbin.methods.clip import CLIP
from rizbin.methods.detailclip import DetailCLIP
from rizbin.nets.dual import ImageTextPair
from rizbin.reports import numbers
from rizbin.reports.encoder import write_report
from rizbin.reports.examples import Pool, ask, embedded, first_samples

NAMES = ("circle", "square")


@dataclass
class Shapes:
    """A source of one shape a picture."""

    count: int = 14
    known: bool = True
    captions: bool = True
    size: tuple[int, int] = (64, 64)
    name: str = "shapes & <more>"
    fingerprint: str = "1"
    endless: bool = False

    def __post_init__(self) -> None:
        self.categories: tuple[str, ...] = NAMES if self.known else ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise Refused("The picture 1 is broken; take it away.")
        height, width = self.size
        image = np.full((height, width, 3), 40 + 10 * (index % 12), np.uint8)
        mask = np.zeros((height, width), bool)
        mask[height // 4 : height // 2, width // 4 : width // 2] = True
        image[mask] = (250, 20 * (index % 10), 0)
        name = NAMES[index % 2]
        things = (LabeledObject(name, (width // 4, height // 4, width // 2, height // 2), mask),) if self.known else ()
        caption = f"a <b>{name}</b> number {index}" if self.captions else ""
        return Sample(f"shapes/{index}", image, caption, objects=things)


def measured(value: float, name: str = "zero_shot/top1", baseline: float | None = 5.0) -> Measurement:
    return Measurement(name=name, value=value, protocol="How & why.", baseline=baseline, chance=3.1)


REPORT = Report(
    measurements=(measured(87.25), measured(40.0, "retrieval/text_to_image/r5", None)),
    left_out=(("segmentation/linear/miou", "No <masks>."),),
    images=100,
    source="shapes",
)
HISTORY = [
    {"step": 10, "images": 640, "seconds": 4.0, "loss": 3.0, "learning_rate": 1e-3, "cls": float("nan"), "extra": 1.0},
    {"step": 20, "images": 1280, "seconds": 2.0, "loss": 2.0, "learning_rate": 1e-4, "alarm": "it <collapsed>"},
]


@pytest.fixture(scope="module")
def detailclip() -> DetailCLIP:
    torch.manual_seed(0)
    settings = DetailCLIP.Settings(prototypes=16, head_hidden=16, head_bottleneck=8, decoder_width=32, decoder_heads=2)
    return DetailCLIP(settings).train()


@pytest.fixture(scope="module")
def page(detailclip: DetailCLIP, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    (folder / "settings.json").write_text(json.dumps({"method": "detailclip", "trainer": {"beta1": 0.9}}))
    (folder / "environment.json").write_text(json.dumps({"cpu": "an abacus", "gpu": "none", "threads": 2}))
    path = write_report(
        folder,
        folder / "report.html",
        pair=detailclip.pair,
        method=detailclip,
        source=Shapes(),
        evaluation=REPORT,
        history=HISTORY,
        credits=[("Thanks & more",)],
    )
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_everything_is_on_the_page(page: str):
    for caption in ("Image", "Attention", "Removed", "Reconstruction", "Words", "Truth"):
        assert len(re.findall(rf"<figcaption[^>]*>{caption}</figcaption>", page)) >= 12, caption
    for text in ("87.2 %", "random weights 5.0 %", "How &amp; why.", "No &lt;masks&gt;.", "trainer.beta1", "an abacus"):
        assert text in page
    assert "20 steps · 1,280 images seen · 6 seconds · 213 images a second · an abacus · 2 threads" in page
    assert "step 20: it &lt;collapsed&gt;" in page
    assert "Thanks &amp; more" in page
    assert "a &lt;b&gt;circle&lt;/b&gt; number 0" in page
    assert "<b>circle" not in page
    assert "openmoji" not in page  # these are not scenes


def test_the_same_run_gives_the_same_page(page: str, detailclip: DetailCLIP, tmp_path: Path):
    again = write_report(
        tmp_path,
        tmp_path / "report.html",
        pair=detailclip.pair,
        method=detailclip,
        source=Shapes(),
        evaluation=REPORT,
        history=HISTORY,
    ).read_text(encoding="utf-8")
    pictures = re.compile(r"base64,([^\"]+)")
    assert pictures.findall(again) == pictures.findall(page)


def test_modules_go_back_to_their_own_mode(detailclip: DetailCLIP, tmp_path: Path):
    detailclip.train()
    detailclip.pair.vision.eval()  # as a frozen part would be
    before = [part.training for part in detailclip.modules()]
    assert {True, False} == set(before)
    write_report(
        tmp_path,
        tmp_path / "report.html",
        pair=detailclip.pair,
        method=detailclip,
        source=Shapes(3),
        evaluation=REPORT,
        history=[],
    )
    assert [part.training for part in detailclip.modules()] == before


def test_a_method_without_teacher_and_data_without_truth(tmp_path: Path):
    torch.manual_seed(0)
    method = CLIP(CLIP.Settings())
    source = Shapes(known=False, size=(50, 90))
    empty = Report(measurements=(), left_out=(), images=0, source="shapes")
    page = write_report(
        tmp_path, tmp_path / "report.html", pair=method.pair, method=method, source=source, evaluation=empty, history=[]
    ).read_text(encoding="utf-8")
    for caption in ("Attention", "Removed", "Reconstruction", "Truth"):
        assert f">{caption}</figcaption>" not in page
    assert ">Words</figcaption>" in page
    assert "captions of these images" in page
    assert "Nothing was measured." in page
    assert "No records were kept of this run." in page


@pytest.mark.parametrize("source", [Shapes(0), Shapes(1), Shapes(3, captions=False, known=False)])
def test_little_data_still_gives_a_report(source: Shapes, detailclip: DetailCLIP, tmp_path: Path):
    path = write_report(
        tmp_path, tmp_path / "report.html", pair=detailclip.pair, source=source, evaluation=REPORT, history=HISTORY
    )
    assert "What it can do" in path.read_text(encoding="utf-8")


def test_scenes_are_credited(detailclip: DetailCLIP, tmp_path: Path):
    page = write_report(
        tmp_path,
        tmp_path / "report.html",
        pair=detailclip.pair,
        source=Shapes(0, name="scenes:easy, test"),
        evaluation=REPORT,
        history=[],
    ).read_text(encoding="utf-8")
    assert "https://creativecommons.org/licenses/by-sa/4.0/" in page


def test_refused_samples_are_passed_over():
    assert [sample.key for sample in first_samples(Shapes(), 3)] == ["shapes/0", "shapes/2", "shapes/3"]


def pool() -> Pool:
    samples = [Shapes()[index] for index in (0, 3, 4)]  # circle, square, circle
    chances = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    finds = np.array([[0.1, 0.9, 0.5], [0.0, 1.0, 0.2], [0.3, 0.2, 0.1]])
    return Pool(samples, np.zeros((3, 8, 8, 3), np.uint8), list(NAMES), True, chances, finds)


def test_the_surest_mistakes_come_first():
    assert pool().worst(5) == [2, 1]
    assert pool().worst(1) == [2]
    assert [(one.text, one.right) for one in pool().answers(1)] == [("circle", False), ("square", True)]


def test_pictures_are_found_in_order():
    assert pool().retrieved(0, 2) == ([1, 2], 3)
    assert pool().retrieved(1) == ([1, 2, 0], 1)


def test_asking_gives_probabilities_and_cosines():
    torch.manual_seed(0)
    pair = ImageTextPair(ImageTextPair.Settings()).eval()
    found = ask(pair, first_samples(Shapes(), 5), NAMES)
    np.testing.assert_allclose(found.chances.sum(axis=1), 1, atol=1e-5)
    with torch.no_grad():
        captions = pair.encode_texts(pair.tokenizer.encode([sample.caption for sample in found.samples]))
        images = pair.encode_images(normalize(torch.from_numpy(found.images)))
    slow = [[float(caption @ image) for image in images] for caption in captions]
    np.testing.assert_allclose(found.finds, slow, atol=1e-5)
    own = ask(pair, first_samples(Shapes(known=False), 5), ())
    assert not own.named
    assert own.chances.shape == (5, 5)
    assert all(own.right(index, own.samples[index].caption) for index in range(5))


def test_the_headline_says_what_the_numbers_say():
    assert numbers.better(measured(4.0)) is False
    assert numbers.better(measured(6.0)) is True
    assert numbers.better(measured(6.0, baseline=None)) is None
    low = Measurement(name="a/b", value=2.0, protocol="", unit="rank", higher_is_better=False, baseline=3.0)
    assert numbers.better(low) is True
    assert numbers.label("retrieval/text_to_image/r5") == "Retrieval: text to image, R@5"
    assert numbers.label("knn/top1") == "k-NN: top-1"
    assert numbers.shown(None, "percent") == "n/a"
    assert numbers.shown(12.345, "percent") == "12.3 %"


def test_the_first_sentence_counts_what_is_worse_than_chance():
    fine, poor = measured(4.0), measured(2.0, "grounding/zero_shot/pair_both")
    worse = Measurement(name="a/b", value=2.0, protocol="", unit="relative", higher_is_better=False, chance=1.0)
    neither = Measurement(name="c/d", value=2.0, protocol="", higher_is_better=None, chance=50.0)
    unknown = Measurement(name="e/f", value=2.0, protocol="")
    assert numbers.worse_than_chance([unknown, neither]) == ""
    assert numbers.worse_than_chance([fine]) == "None of 1 number is worse than chance."
    assert (
        numbers.worse_than_chance([fine, poor, worse, neither, unknown])
        == "2 of 3 numbers are worse than chance: Grounding: zero-shot, two objects, both right; A: b."
    )
    assert numbers.worse_than_chance([worse] * 6).endswith("A: b; and 2 more.")


def test_each_number_says_on_how_many_images_it_was_measured(page: str):
    assert "On 100 images of shapes" in page and "None of 2 numbers is worse than chance." in page
    assert page.count(">100 images</td>") == 2


def test_what_shows_detail_stands_at_the_top(detailclip: DetailCLIP, tmp_path: Path):
    names = ("zero_shot/top1", "segmentation/zero_shot/patch_accuracy_present", "grounding/zero_shot/pair_both")
    few = [Measurement(name=name, value=2.0, protocol="", chance=25.0, images=7, items="9 objects") for name in names]
    report = Report(measurements=tuple(few), left_out=(), images=10, source="shapes")
    page = write_report(
        tmp_path, tmp_path / "report.html", pair=detailclip.pair, source=Shapes(0), evaluation=report, history=[]
    ).read_text(encoding="utf-8")
    facts = page.split('<dl class="facts">')[1].split("</dl>")[0]
    for text in ("patch accuracy on objects (among the names in the image)", "two objects, both right"):
        assert text in facts
    assert facts.count("on 9 objects in 7 images") == 3


def test_cards_and_headline_ask_with_the_same_prompts():
    torch.manual_seed(0)
    pair = ImageTextPair(ImageTextPair.Settings()).eval()
    asked = torch.from_numpy(embedded(pair, NAMES))
    used = embed_categories(pair, NAMES, Evaluation.Settings().templates, batch=7)
    torch.testing.assert_close(asked, used)
    samples = first_samples(Shapes(), 5)
    found, other = (ask(pair, samples, NAMES, templates) for templates in ("scenes", "plain"))
    with torch.no_grad():
        images = pair.encode_images(normalize(torch.from_numpy(found.images)))
        chances = (images @ used.T * pair.logit_scale.exp()).softmax(dim=-1)
    np.testing.assert_allclose(found.chances, chances.numpy(), atol=1e-5)
    assert not np.allclose(found.chances, other.chances, atol=1e-4)


def test_a_run_that_learned_nothing_is_told_so(detailclip: DetailCLIP, tmp_path: Path):
    poor = Report(measurements=(measured(4.0),), left_out=(), images=10, source="shapes")
    page = write_report(
        tmp_path, tmp_path / "report.html", pair=detailclip.pair, source=Shapes(0), evaluation=poor, history=[]
    ).read_text(encoding="utf-8")
    assert "No better than the same network with random weights: Zero-shot: top-1." in page
    assert "in 0 of 1 numbers" in page
