"""The whole evaluation on a toy world with known answers, by a network that sees colors."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.settings import every_field
from rizbin.data.sample import LabeledObject, Refused, Sample
from rizbin.data.scenes import Scenes
from rizbin.data.views import denormalize, normalize, whole
from rizbin.evaluation import Evaluation, Report, evaluate
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.models.own import RizbinEncoder
from rizbin.nets import Features, ImageTextPair
from tests.toys import NANO

NAMES = ("apple", "bus", "cat", "dog", "egg", "fox")
SIZE, PATCH = 32, 4
GRID = SIZE // PATCH


def color(category: int) -> tuple[int, int, int]:
    return (40 * category + 30, 255 - 40 * category, 128)


class Blocks:
    """One to three colored squares of whole patches on black, under a faint checkerboard; nothing else to know."""

    name = "blocks"
    fingerprint = "blocks"
    endless = True
    categories: tuple[str, ...] = NAMES

    def __init__(self, first: int = 0, *, masks: bool = True, labels: bool = True, captions: bool = True) -> None:
        self.first, self.masks, self.labels, self.captions = first, masks, labels, captions
        self.categories = NAMES if labels else ()

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(self.first + index)
        image, owner = np.zeros((SIZE, SIZE, 3), np.uint8), np.full((SIZE, SIZE), -1)
        chosen = random.choice(len(NAMES), size=1 + index % 3, replace=False)
        # Quarters of the picture, so that nothing is hidden; sides of 1 to 4 patches.
        for category, quarter in zip(chosen, random.permutation(4), strict=False):
            side = PATCH * int(random.integers(1, 5))
            top, left = quarter // 2 * SIZE // 2, quarter % 2 * SIZE // 2
            image[top : top + side, left : left + side] = color(int(category))
            owner[top : top + side, left : left + side] = category
        image[..., 2] += (np.indices((SIZE, SIZE)).sum(axis=0) % 2).astype(np.uint8)
        names = [NAMES[category] for category in chosen]
        things = tuple(
            LabeledObject(NAMES[category], (0, 0, SIZE, SIZE), owner == category) for category in chosen if self.masks
        )
        return Sample(
            key=f"blocks/{index}",
            image=image,
            caption=" and ".join(f"a {name}" for name in names) if self.captions else "",
            label=names[0] if self.labels and not self.masks else "",
            objects=things if self.labels else (),
        )


@dataclass(frozen=True)
class Vision:
    pretrained: bool = False


@dataclass(frozen=True)
class Sight:
    vision: Vision = field(default_factory=Vision)
    wrong_by: int = 0
    """Texts point at the category so many places further on."""


class Words:
    """Which of the names a text holds."""

    def encode(self, texts: list[str]) -> Tensor:
        return torch.tensor([[int(name in text.split()) for name in NAMES] for text in texts])


class Colors(nn.Module):
    """Knows every category by its color once `know` is called; random weights mix the categories up."""

    image_size = SIZE
    grid = (GRID, GRID)

    def __init__(self, settings: Sight) -> None:
        super().__init__()
        self.settings, self.tokenizer = settings, Words()
        self.order = nn.Parameter(torch.randn(len(NAMES) + 1, len(NAMES)))
        self.seen = 0

    def know(self) -> "Colors":
        self.order.data = torch.cat([torch.eye(len(NAMES)), torch.full((1, len(NAMES)), 1e-3)])
        return self

    def features(self, images: Tensor) -> Features:
        self.seen += len(images)
        pixels = denormalize(images).float()
        known = torch.stack([torch.tensor(color(category)) for category in range(len(NAMES))]).float()
        kind = (pixels.unsqueeze(-2) - known).abs().sum(dim=-1)
        nearest = torch.where(kind.amin(dim=-1) < 6, kind.argmin(dim=-1), len(NAMES))
        shares = F.avg_pool2d(F.one_hot(nearest, len(NAMES) + 1).permute(0, 3, 1, 2).float(), PATCH)
        patches = shares.flatten(2).transpose(1, 2)
        return Features(cls=patches.mean(dim=1), patches=patches, attention=1 - patches[:, :, -1])

    def attention_heads(self, images: Tensor) -> Tensor:
        """One head looks at the objects, one at the ground."""
        attention = self.features(images).attention
        assert attention is not None
        return torch.stack([attention, 1 - attention], dim=1).unflatten(2, self.grid)

    def pool(self, features: Features) -> Tensor:
        return features.cls

    def embed(self, features: Features) -> Tensor:
        return F.normalize(features.cls @ self.order, dim=-1)

    def dense(self, images: Tensor, how: str = "plain") -> Tensor:
        found = F.normalize(self.features(images).patches @ self.order, dim=-1).unflatten(1, self.grid)
        return found if how == "plain" else found.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)

    def encode_texts(self, tokens: Tensor) -> Tensor:
        return F.normalize(tokens.float().roll(self.settings.wrong_by, dims=1) + 1e-4, dim=-1)


SETTINGS = Evaluation.Settings(images=60, train_images=80, batch=25, k=5, threshold_images=40, probe_steps=20, mass=1.0)


@dataclass(frozen=True)
class Shown:
    attention: Tensor
    removed: Tensor
    reconstruction: Tensor | None


def look(images: Tensor) -> Shown:
    """Removes the left half and paints it perfectly; attends to the right."""
    attention = torch.arange(GRID).expand(len(images), GRID, GRID).float()
    return Shown(attention, attention < GRID / 2, images)


def reconstruct(images: Tensor, removed: Tensor, low_resolution: int = 1) -> Tensor:
    """Knows all pixels."""
    return images


@pytest.fixture(scope="module")
def report() -> Report:
    return everything(SETTINGS)


def everything(settings: Evaluation.Settings) -> Report:
    return evaluate(
        Colors(Sight()).know(),
        Blocks(),
        train_source=Blocks(10**6),
        settings=settings,
        look=look,
        reconstruct=reconstruct,
    )


def test_a_network_that_knows_is_right_about_everything(report: Report) -> None:
    for name in (
        "zero_shot/top1",
        "zero_shot/top5",
        "segmentation/zero_shot/objects_miou",
        "segmentation/zero_shot/patch_accuracy",
        "segmentation/zero_shot/patch_accuracy_present",
        "segmentation/dense_head/objects_miou",
        "segmentation/dense_head/patch_accuracy",
        "sizes/small/classified",
        "sizes/small/localized",
        "sizes/large/localized",
        "attention/best_head_jaccard",
    ):
        assert report[name].value == pytest.approx(100), name
    # Between pictures the cosine also depends on how much else is in them.
    assert report["zero_shot/map"].value > 95
    assert report["segmentation/zero_shot/miou"].value > 60  # bilinear upsampling of 4 px patches rounds corners
    assert report["segmentation/linear/miou"].value > 60
    assert report["probe/top1"].value > 90
    assert report["retrieval/image_to_text/r1"].value > 3 * (report["retrieval/image_to_text/r1"].chance or 0)
    # Inside patches there is nothing but the texture, which is of the highest frequency.
    assert not {"reconstruction/low_frequency", "reconstruction/middle_frequency"} & {
        one.name for one in report.measurements
    }
    assert report["reconstruction/high_frequency"].value == 0
    for name in ("pair_objects", "pair_both", "pair_patches", "present_objects"):
        assert report[f"grounding/zero_shot/{name}"].value == report[f"grounding/dense_head/{name}"].value == 100, name
    assert report["grounding/zero_shot/confused_pixels"].value < 2  # at corners, by bilinear upsampling
    assert report["grounding/dense_head/confused_pixels"].value < 2
    assert report["segmentation/zero_shot/boundary_iou"].value > 40
    assert report["segmentation/dense_head/boundary_iou"].value > 40
    assert report["segmentation/linear/boundary_iou"].value > 40
    assert report["reconstruction/low_resolution_2/psnr"].value == 100
    assert report["reconstruction/low_resolution_4/edge_energy"].value == pytest.approx(1, abs=1e-4)
    # A texture of one level in 255 is nothing that could be reconstructed.
    assert [name for name, _ in report.left_out] == ["reconstruction/hidden"] and report.images == 60


def test_beside_each_number_stands_the_same_of_random_weights(report: Report) -> None:
    for one in report.measurements:
        if one.name.startswith(("reconstruction", "tokens/object_pixels_hidden")):
            assert one.baseline is None  # its network is the method's, not the pair's
        else:
            assert one.baseline is not None
    assert (report["zero_shot/top1"].baseline or 0) < 70
    assert (report["segmentation/zero_shot/miou"].baseline or 0) < report["segmentation/zero_shot/miou"].value - 20


def test_protocols_are_made_from_the_settings_used(report: Report) -> None:
    assert "the 5 nearest of 80 training images" in report["knn/top1"].protocol
    assert "cosine / 0.07" in report["knn/top1"].protocol
    assert "40 training images" in report["segmentation/zero_shot/miou"].protocol
    changed = replace(
        SETTINGS,
        k=7,
        temperature=0.2,
        templates="plain",
        keep_ratio=0.3,
        block=1,
        size_edges=(0.05, 0.2),
        baseline=False,
    )
    other = evaluate(Colors(Sight()).know(), Blocks(), train_source=Blocks(10**6), settings=changed)
    assert "the 7 nearest" in other["knn/top1"].protocol and "cosine / 0.2" in other["knn/top1"].protocol
    assert "7 prompts" in other["zero_shot/top1"].protocol and "template set plain" in other["zero_shot/top1"].protocol
    assert "keep ratio 0.3, single patches" in other["tokens/object_pixels_kept"].protocol
    assert "under 0.05" in other["sizes/small/localized"].protocol
    assert all(one.baseline is None for one in other.measurements)


def test_texts_that_are_off_by_one_are_noticed() -> None:
    settings = replace(SETTINGS, baseline=False)
    wrong = evaluate(Colors(Sight(wrong_by=1)).know(), Blocks(), train_source=Blocks(10**6), settings=settings)
    for name in ("segmentation/zero_shot/patch_accuracy", "sizes/small/localized", "sizes/large/classified"):
        assert wrong[name].value < 10, name  # a wrong one may be another that is there
    assert wrong["zero_shot/top1"].value < 50
    assert wrong["segmentation/zero_shot/miou"].value < 25
    assert wrong["probe/top1"].value > 90  # reads no text


def test_the_threshold_comes_from_the_training_pictures_it_says(report: Report) -> None:
    class LaterWrong(Blocks):
        """From the picture on at which the threshold is no longer asked: everything is a cat."""

        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            everywhere = LabeledObject("cat", (0, 0, SIZE, SIZE), np.ones((SIZE, SIZE), bool))
            return sample if index < SETTINGS.threshold_images else replace(sample, objects=(everywhere,))

    settings = replace(SETTINGS, baseline=False)
    found = evaluate(Colors(Sight()).know(), Blocks(), train_source=LaterWrong(10**6), settings=settings)
    name = "segmentation/zero_shot/miou"
    assert (found[name].value, found[name].protocol) == (report[name].value, report[name].protocol)


def test_the_dense_head_sees_as_many_images_as_it_is_given(report: Report) -> None:
    assert "of 60 images" in report["segmentation/dense_head/objects_miou"].protocol
    few = replace(SETTINGS, dense_images=12, baseline=False)
    found = evaluate(Colors(Sight()).know(), Blocks(), train_source=Blocks(10**6), settings=few)
    for name in ("miou", "objects_miou"):
        assert "of 12 images" in found[f"segmentation/dense_head/{name}"].protocol
        assert "of 60 images" in found[f"segmentation/zero_shot/{name}"].protocol
    assert "on 12 training images" in found["segmentation/dense_head/miou"].protocol
    assert found["segmentation/dense_head/boundary_iou"].images == 12
    # One to three objects in turn: every third image of 12 holds two, every third three.
    for room, pairs, several in (("dense_head", 4, 8), ("zero_shot", 20, 40)):
        assert found[f"grounding/{room}/pair_both"].images == pairs
        assert found[f"grounding/{room}/present_objects"].images == several
        assert found[f"grounding/{room}/confused_pixels"].images == several
    none = replace(SETTINGS, dense_images=0, baseline=False)
    found = evaluate(Colors(Sight()).know(), Blocks(), train_source=Blocks(10**6), settings=none)
    for name in ("segmentation/dense_head", "grounding/dense_head"):
        assert "dense_images" in dict(found.left_out)[name]
    assert not [one.name for one in found.measurements if "dense_head" in one.name]


def test_the_filter_looks_through_the_methods_eyes_when_it_shows_them(report: Report) -> None:
    alone = evaluate(Colors(Sight()).know(), Blocks(), settings=replace(SETTINGS, baseline=False))
    assert alone["tokens/object_pixels_kept"].value > 95
    assert report["tokens/object_pixels_kept"].value < 75
    assert "the method shows" in report["tokens/object_pixels_kept"].protocol
    # It shows the left half as removed and attends to the right one.
    hidden, kept = report["tokens/object_pixels_hidden"], report["tokens/object_pixels_kept"]
    assert hidden.chance == 50 and 25 < hidden.value < 75 and kept.value > 100 - hidden.value - 1e-6


def test_a_number_says_how_many_images_stand_behind_it(report: Report) -> None:
    pairs = report["grounding/zero_shot/pair_objects"]
    assert report.behind(pairs) == "40 objects in 20 images" and report.behind(report["zero_shot/top1"]) == "60 images"
    assert report.behind(report["grounding/zero_shot/pair_both"]) == "20 images"
    assert report.behind(report["retrieval/image_to_text/r1"]) == "60 images"
    assert all(one.images is None or 0 < one.images <= 60 for one in report.measurements)


def test_words_that_stand_elsewhere_are_noticed() -> None:
    """A network that names everything in the image everywhere in it."""

    class Painted(Colors):
        def dense(self, images: Tensor, how: str = "plain") -> Tensor:
            patches = super().dense(images, how)
            return F.normalize(patches.mean(dim=(1, 2), keepdim=True).expand_as(patches), dim=-1)

    settings = replace(SETTINGS, baseline=False)
    found = evaluate(Painted(Sight()).know(), Blocks(), train_source=Blocks(10**6), settings=settings)
    assert found["zero_shot/top1"].value == 100
    assert found["grounding/zero_shot/pair_both"].value == 0
    assert found["grounding/zero_shot/pair_objects"].value <= 50
    assert found["grounding/zero_shot/present_objects"].value <= 100 * 40 / 100


@pytest.mark.parametrize(
    ("source", "train", "missing"),
    [
        (Blocks(), None, {"knn", "probe", "segmentation/linear/miou", "segmentation/zero_shot/miou"}),
        (Blocks(masks=False), Blocks(10**6, masks=False), {"segmentation", "sizes", "attention", "tokens"}),
        (Blocks(captions=False), Blocks(10**6), {"retrieval"}),
        (Blocks(labels=False), Blocks(10**6, labels=False), {"zero_shot", "knn", "probe", "segmentation", "sizes"}),
    ],
    ids=["no training source", "no masks", "no captions", "captions only"],
)
def test_what_cannot_be_measured_is_left_out_with_a_reason(source: Blocks, train: Blocks | None, missing: set) -> None:
    found = evaluate(Colors(Sight()).know(), source, train_source=train, settings=replace(SETTINGS, baseline=False))
    left_out = dict(found.left_out)
    assert missing <= set(left_out)
    assert "reconstruction" in left_out
    assert all(reason.endswith(".") for reason in left_out.values())
    assert not [one.name for one in found.measurements for name in left_out if one.name.startswith(name)]


def test_the_same_evaluation_gives_the_same_report(report: Report) -> None:
    torch.rand(3)  # the caller's random state has no say
    again = everything(SETTINGS)
    assert again.to_json() == report.to_json()


def test_batch_size_changes_no_number(report: Report) -> None:
    again = everything(replace(SETTINGS, batch=7))
    for one, two in zip(report.measurements, again.measurements, strict=True):
        assert one.value == pytest.approx(two.value, abs=1e-3), one.name


def test_each_picture_is_read_once_and_embedded_once() -> None:
    pair = Colors(Sight()).know()
    evaluate(pair, Blocks(), train_source=Blocks(10**6), settings=replace(SETTINGS, baseline=False))
    # 60 and 80 pictures; the two dense heads again for 60 test and at most 50 (two batches) of the training pictures;
    # and where the heads of the 60 look.
    assert pair.seen <= 60 + 80 + 2 * (60 + 50) + 60


def test_the_pair_comes_back_as_it_was() -> None:
    pair = Colors(Sight()).know()
    pair.train()
    state = torch.random.get_rng_state()
    evaluate(pair, Blocks(), settings=SETTINGS)
    assert pair.training
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("part", ["pictures", "texts"])
def test_embeddings_that_are_no_numbers_are_no_success(part: str) -> None:
    """nan compares false with everything; unchecked it would take the first rank."""

    class Lost(Colors):
        def embed(self, features: Features) -> Tensor:
            return super().embed(features) * (torch.nan if part == "pictures" else 1)

        def encode_texts(self, tokens: Tensor) -> Tensor:
            return super().encode_texts(tokens) * (torch.nan if part == "texts" else 1)

    with pytest.raises(RizbinError, match="not finite"):
        evaluate(Lost(Sight()).know(), Blocks(masks=False), settings=SETTINGS)


class Broken(Blocks):
    """Every third sample cannot be used, or all."""

    def __init__(self, every: int, *, endless: bool) -> None:
        super().__init__()
        self.every, self.endless = every, endless

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> Sample:
        if index % self.every == 0:
            raise Refused(f"image {index} is truncated; replace it.")
        return super().__getitem__(index)


def test_refused_pictures_are_listed_and_replaced_where_there_are_more() -> None:
    seen, refused = read(Broken(3, endless=True), 20, SIZE, seed=0, advance=lambda more: None)
    assert len(seen) == 20 and len(refused) == 10
    seen, refused = read(Broken(3, endless=False), 30, SIZE, seed=0, advance=lambda more: None)
    assert len(seen) == 20 and len(refused) == 10
    with pytest.raises(RizbinError, match="gave no image"):
        evaluate(Colors(Sight()), Broken(1, endless=True), settings=SETTINGS)


def test_a_finite_source_gives_a_random_choice_without_repeats() -> None:
    class Listed(Blocks):
        endless = False

        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), caption=str(index))

    first, _ = read(Listed(), 50, SIZE, seed=0, advance=lambda more: None)
    other, _ = read(Listed(), 50, SIZE, seed=1, advance=lambda more: None)
    numbers = [int(one.caption) for one in first]
    assert len(set(numbers)) == 50 and max(numbers) > 200
    assert numbers != [int(one.caption) for one in other]


def test_masks_stay_on_their_pixels_through_crop_and_resize() -> None:
    image, mask = np.zeros((96, 160, 3), np.uint8), np.zeros((96, 160), bool)
    mask[10:70, 60:120] = True
    image[mask] = 255

    class One(Blocks):
        def __getitem__(self, index: int) -> Sample:
            return Sample("one", image, "an egg", objects=(LabeledObject("egg", (60, 10, 120, 70), mask),))

    seen, _ = read(One(), 1, 48, seed=0, advance=lambda more: None)
    found = LabeledImages.of(seen, NAMES, 48, (6, 6))
    np.testing.assert_array_equal(found.labels[0].numpy() == 1 + NAMES.index("egg"), whole(image, 48)[..., 0] >= 128)
    assert found.objects.area.item() == pytest.approx(60 * 60 / 96**2, abs=0.01)
    assert found.objects.cover.sum().item() == pytest.approx(found.objects.area.item() * 36, abs=1e-3)


def test_later_objects_lie_in_front() -> None:
    lower, upper = np.zeros((SIZE, SIZE), bool), np.zeros((SIZE, SIZE), bool)
    lower[:], upper[:8] = True, True

    class Two(Blocks):
        def __getitem__(self, index: int) -> Sample:
            box = (0, 0, SIZE, SIZE)
            things = (LabeledObject("cat", box, lower), LabeledObject("dog", box, upper))
            return Sample("two", np.zeros((SIZE, SIZE, 3), np.uint8), "", objects=things)

    seen, _ = read(Two(), 1, SIZE, seed=0, advance=lambda more: None)
    labels = LabeledImages.of(seen, NAMES, SIZE, (GRID, GRID)).labels[0]
    assert set(labels[:8].unique().tolist()) == {4} and set(labels[8:].unique().tolist()) == {3}


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"k": 0},
        {"temperature": 0.0},
        {"keep_ratio": 0.0},
        {"decays": ()},
        {"size_edges": (0.2, 0.1)},
        {"low_resolutions": (1,)},
    ],
    ids=str,
)
def test_settings_that_measure_nothing_are_refused(change: dict) -> None:
    with pytest.raises(RizbinError, match=next(iter(change))):
        evaluate(Colors(Sight()), Blocks(), settings=replace(SETTINGS, **change))


def test_settings_are_explained() -> None:
    assert all(field.text for field in every_field(Evaluation.Settings))


def test_the_bar_is_told_of_every_picture() -> None:
    told: list[tuple[int, ...]] = []

    class Told:
        def __init__(self, total: int, label: str) -> None:
            self.total = total

        def __enter__(self) -> "Told":
            return self

        def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
            told.append((-1, -1))

        def update(self, done: int, **numbers: float) -> None:
            told.append((done, self.total))

    evaluate(Colors(Sight()).know(), Blocks(), train_source=Blocks(10**6), settings=SETTINGS, bar=Told)
    assert told[-2] == (5 * 140, 5 * 140) and told[-1] == (-1, -1)
    assert told[:-1] == sorted(told[:-1])


def test_the_report_speaks(report: Report) -> None:
    data = json.loads(report.to_json())
    assert data["measurements"][0]["name"] == "zero_shot/top1" and data["images"] == 60
    table = report.table(protocols=True)
    assert "zero_shot/top1" in table and report["knn/top1"].protocol in table
    assert "knn/top1" in report and "knn/top0" not in report
    with pytest.raises(KeyError):
        report["knn/top0"]


def small_pair() -> ImageTextPair:
    settings = ImageTextPair.Settings()
    return ImageTextPair(replace(settings, text=replace(settings.text, layers=1)))


def test_the_real_pair_is_measured_whole() -> None:
    class Larger(Blocks):
        """The same at the pair's size."""

        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            things = tuple(replace(one, mask=one.mask.repeat(2, 0).repeat(2, 1)) for one in sample.objects)
            return replace(sample, image=sample.image.repeat(2, 0).repeat(2, 1), objects=things)

    pair = small_pair()
    settings = replace(SETTINGS, images=20, train_images=20, threshold_images=10, batch=10, probe_steps=5)
    found = evaluate(pair, Larger(), train_source=Larger(10**6), settings=settings)
    assert [name for name, _ in found.left_out] == ["tokens/object_pixels_hidden", "reconstruction"]
    assert all(one.baseline is not None and np.isfinite(one.value) for one in found.measurements)


def test_random_weights_are_those_of_the_seed_and_of_no_other() -> None:
    pair = small_pair()
    one, two, other = (RizbinEncoder(pair).untrained(seed).network for seed in (3, 3, 4))
    assert isinstance(one, ImageTextPair) and isinstance(two, ImageTextPair) and isinstance(other, ImageTextPair)
    images = normalize(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    for network in (pair, one, two, other):
        network.eval()
    with torch.no_grad():
        torch.testing.assert_close(one.encode_images(images), two.encode_images(images))
        assert not torch.allclose(one.encode_images(images), other.encode_images(images))
        assert not torch.allclose(one.encode_images(images), pair.encode_images(images))


def test_embedding_from_features_is_what_the_pair_itself_gives() -> None:
    """The suite takes pooled feature and embedding from one pass; they must equal the pair's own."""
    pair = small_pair().eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = pair.features(images)
        torch.testing.assert_close(pair.embed(features), pair.encode_images(images))
        torch.testing.assert_close(pair.pool(features), pair.pooled(images))


def test_time_follows_the_images_and_the_first_numbers_come_early() -> None:
    """Twice as many training images as are measured on, however many there are; and what whole images tell at once."""
    pair = Colors(Sight()).know()
    told: list[tuple[int, list[str]]] = []
    few = replace(SETTINGS, images=20, train_images=2000, baseline=False)
    found = evaluate(
        pair,
        Blocks(),
        train_source=Blocks(10**6),
        settings=few,
        first=lambda some: told.append((pair.seen, [one.name for one in some])),
    )
    assert "40 training images" in found["probe/top1"].protocol
    ((seen, names),) = told
    assert seen == 20 * 4 and {"zero_shot/top1", "retrieval/image_to_text/r1"} <= set(names)
    assert pair.seen > seen, "the others were still to come"


def test_the_numbers_of_random_weights_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By architecture, data, settings and code; another seed or other scenes are measured anew."""
    monkeypatch.setenv("RIZBIN_CACHE", str(tmp_path))
    made: list[int] = []
    untrained = RizbinEncoder.untrained

    def counted(encoder: RizbinEncoder, seed: int) -> RizbinEncoder:
        made.append(seed)
        return untrained(encoder, seed)

    monkeypatch.setattr(RizbinEncoder, "untrained", counted)
    settings = Evaluation.Settings(images=10, train_images=10, batch=10, probe_steps=2, decays=(0.1,), dense_images=0)
    pair = ImageTextPair(NANO)
    size = pair.image_size

    def measured(settings: Evaluation.Settings = settings, **changes: Any) -> Report:
        scenes = [Scenes(Scenes.Settings(size=size, split=split, **changes)) for split in ("test", "train")]
        return evaluate(pair, scenes[0], train_source=scenes[1], settings=settings)

    one = measured()
    again = measured()
    assert again.to_json() == one.to_json() and made == [0]
    with torch.no_grad():
        for parameter in pair.parameters():
            parameter.mul_(0.5)
    other = measured()
    assert made == [0], "other weights of the same architecture"
    assert [m.baseline for m in other.measurements] == [m.baseline for m in one.measurements]
    measured(replace(settings, seed=1))
    measured(seed=1)
    assert made == [0, 1, 0]
    for kept in (tmp_path / "random").iterdir():
        kept.write_text("{")
    assert measured().measurements == other.measurements, "a damaged cache costs time and nothing else"


def test_too_few_images_are_refused_with_their_number() -> None:
    class Few(Blocks):
        endless = False

        def __len__(self) -> int:
            return 3

    with pytest.raises(
        RizbinError, match="has 3 images to measure on, fewer than 10, so its numbers would say nothing"
    ):
        evaluate(Colors(Sight()).know(), Few(), settings=SETTINGS)
    with pytest.raises(RizbinError, match=r"has 15 images .*the first reason: image \d+ is truncated.*fewer than 20"):
        evaluate(Colors(Sight()).know(), Broken(2, endless=False), settings=replace(SETTINGS, least_images=20))
    found = evaluate(Colors(Sight()).know(), Few(), settings=replace(SETTINGS, least_images=1, baseline=False))
    assert found.images == 3
