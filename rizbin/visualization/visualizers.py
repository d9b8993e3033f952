"""What `rizbin visualize` draws: one class a word, each from an encoder and images to sheets of pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, UInt8

from rizbin.core.errors import RizbinError
from rizbin.models.protocol import CLS, FeatureExtractor, NoAttention
from rizbin.models.readings import DenseReading
from rizbin.nets.dense import DenseHead
from rizbin.nets.masks import jaccards, mass_mask
from rizbin.visualization import words as texts
from rizbin.visualization.attention import heads_outlined, outlined, overlay
from rizbin.visualization.colors import AnyPicture, distinct
from rizbin.visualization.grid import beside, enlarge, labelled, sheet, shrunk
from rizbin.visualization.inputs import ShownImage, read_mask
from rizbin.visualization.passes import over
from rizbin.visualization.pca import foregrounds, joint_colors, smooth
from rizbin.visualization.propagate import propagated
from rizbin.visualization.similarity import correspondences, corresponding, nearest, ringed, similar

CELL = 192
"""Shorter side of a picture on a sheet, pixels: patches of 8 are seen, and a dozen heads fit on a screen."""
ON_A_SHEET = 24
"""Frames drawn on one sheet."""


@dataclass(frozen=True)
class Sheet:
    """One finished picture."""

    name: str
    """For its file: letters, digits and hyphens."""
    picture: AnyPicture
    caption: str
    masks: tuple[UInt8[np.ndarray, "_ _"], ...] = field(default=())
    """Numbers of things a pixel, where the picture shows some."""


class Visualizer(ABC):
    """Something that can be drawn. The first line of its docstring says what; its settings are its flags."""

    needs: ClassVar[str]
    """What model and pictures must bring."""
    least: ClassVar[int] = 1
    """Pictures without which it cannot be drawn."""
    most: ClassVar[int] = 12
    """Pictures taken where nobody says how many."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        pass

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings or self.Settings()

    def __call__(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """The sheets. Raises RizbinError when the model or the pictures do not bring what it needs."""
        if len(pictures) < self.least:
            raise RizbinError(f"This needs {self.least} pictures and there is {len(pictures)}; name more of them.")
        return self.draw(encoder, pictures)

    @abstractmethod
    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """The sheets, from pictures enough."""


class Attention(Visualizer):
    """Where CLS looks: each head as heat and as the patches that hold most of it, scored where truth is known."""

    needs = "a ViT with a CLS token"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        mass: float = 0.6
        """Share of a head's attention in its mask, over 0 to 1; DINO's figure 4 keeps 0.6 (arXiv 2104.14294)."""
        layer: int = -1
        """From 0, or from the end with a minus."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet of heads for each picture, then one of the best masks (or of mean heat) for all."""
        maps = _attention(encoder, pictures, layer=self.settings.layer)
        sheets, all_cells, told_of, bests, means = [], [], [], [], []
        for number, (one, heads) in enumerate(zip(pictures, maps, strict=True), 1):
            rows = np.concatenate([heads.mean(axis=0, keepdims=True), heads])
            masks = mass_mask(rows, self.settings.mass)
            names = ["mean", *(f"head {head}" for head in range(1, len(rows)))]
            scores = None if one.truth is None else jaccards(masks, one.truth)
            best, said = -1, ""
            if scores is not None:
                best = 1 + int(scores[1:].argmax())
                names = [f"{name}, IoU {score:.2f}" for name, score in zip(names, scores, strict=True)]
                said = f" IoU is that of these patches with the objects' true pixels (Jaccard); best: head {best}."
                bests.append(scores[best])
                means.append(scores[0])
            image = shrunk(one.image, CELL)
            drawn = heads_outlined(image, rows, masks, labels=names, best=best, side=CELL)
            top = labelled(enlarge(image, CELL), one.name)
            sheets.append(
                Sheet(
                    f"attention-{number:03d}",
                    beside([top, drawn]),
                    f"{one.name}: what CLS attends to, and the patches that hold {self.settings.mass:.0%} of it.{said}",
                )
            )
            shown = masks[max(best, 0)]
            told_of.append(one.name if scores is None else f"IoU {scores[best]:.2f}, {one.name}")
            all_cells.append(np.concatenate([enlarge(image, CELL), outlined(image, shown, side=CELL)]))
        told = f"The patches that hold {self.settings.mass:.0%} of "
        told += "the best head's attention." if bests else "the attention, mean over heads."
        if bests:
            told += (
                f" Jaccard of the best head with all things, mean over {len(bests)} pictures: {np.mean(bests):.3f}; "
                f"of the mean over heads: {np.mean(means):.3f}."
            )
        return [*sheets, Sheet("attention-all", sheet(all_cells, labels=told_of, side=1), told)]


class Patch(Visualizer):
    """Where chosen patches look: their attention for each head, and which patches are like them."""

    needs = "a ViT"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        points: tuple[tuple[float, float], ...] = ((0.5, 0.5),)
        """Places from the left and from the top, as shares of the picture, 0 to 1: 0.5 0.5 is the middle."""
        layer: int = -1
        """From 0, or from the end with a minus."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each picture and point."""
        for across, down in self.settings.points:
            if not (0 <= across <= 1 and 0 <= down <= 1):
                raise RizbinError(
                    f"The point {across:g} {down:g} lies outside; both are shares of the picture, 0 to 1."
                )
        features = over(encoder, [one.image for one in pictures], encoder.patches)
        sheets = []
        for number, (one, seen) in enumerate(zip(pictures, features, strict=True), 1):
            grid = seen.shape[0], seen.shape[1]
            image = enlarge(shrunk(one.image, CELL), CELL)
            for point, (across, down) in enumerate(self.settings.points, 1):
                row, column = min(int(down * grid[0]), grid[0] - 1), min(int(across * grid[1]), grid[1] - 1)
                token = row * grid[1] + column
                (heads,) = _attention(encoder, [one], token=token, layer=self.settings.layer)
                maps = [heads.mean(axis=0), *heads]
                cells = [
                    ringed(image, row, column, grid),
                    similar(image, seen, row, column, side=CELL),
                    *(ringed(overlay(image, one_map), row, column, grid) for one_map in maps),
                ]
                names = [one.name, "alike", "mean attention", *(f"head {head}" for head in range(1, len(maps)))]
                said = f"{one.name}: what the patch in row {row}, column {column} is like, and what it attends to."
                sheets.append(Sheet(f"patch-{number:03d}-{point}", sheet(cells, labels=names, side=1), said))
        return sheets


class Pca(Visualizer):
    """What patches have in common: their three main directions over all pictures as colors, on the attended ground."""

    needs = "any network; without a CLS token the border decides what is background"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        foreground: Literal["direction", "mass", "all"] = "direction"
        """Patches that are colored: the side of the first direction that CLS attends to more; those that hold `mass`
        of the attention; or all."""
        mass: float = 0.8
        """Share of the attention, over 0 to 1, for the foreground by mass."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet: each picture above its colors."""
        features = over(encoder, [one.image for one in pictures], encoder.patches)
        attention = _mean_attention(encoder, pictures)
        if self.settings.foreground == "mass" and attention is None:
            raise NoAttention(
                "This network has no CLS attention to choose the foreground by; ask for another foreground."
            )
        if self.settings.foreground == "all":
            keep = [np.ones(one.shape[:2], bool) for one in features]
        elif self.settings.foreground == "mass" and attention is not None:
            keep = [mass_mask(one, self.settings.mass) for one in attention]
        else:
            keep = foregrounds(features, attention)
        cells = []
        for one, colors in zip(pictures, joint_colors(features, keep, attention), strict=True):
            image = enlarge(shrunk(one.image, CELL), CELL)
            cells.append(np.concatenate([image, smooth(colors, *image.shape[:2])]))
        said = (
            "Patch features along their three main directions, of all pictures together; like colors are like features."
        )
        return [Sheet("pca", sheet(cells, labels=[one.name for one in pictures], side=1), said)]


class Correspondence(Visualizer):
    """Which patches belong together: those of the first picture and of each other one that choose each other."""

    needs = "two pictures or more"
    least = 2
    most = 5

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        count: int = 16
        """Matches drawn, the most alike."""
        foreground: Literal["direction", "all"] = "direction"
        """Patches that take part: the side of the first direction that CLS attends to more, or all. Plain background
        corresponds with itself everywhere."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each picture after the first."""
        features = over(encoder, [one.image for one in pictures], encoder.patches)
        keep = [np.ones(one.shape[:2], bool) for one in features]
        if self.settings.foreground == "direction":
            keep = foregrounds(features, _mean_attention(encoder, pictures))
        sheets = []
        for number in range(1, len(pictures)):
            first, second = pictures[0], pictures[number]
            found = correspondences(features[0], features[number], self.settings.count, keep=(keep[0], keep[number]))
            grids = [(one.shape[0], one.shape[1]) for one in (features[0], features[number])]
            images = [shrunk(one.image, 2 * CELL) for one in (first, second)]
            drawn = corresponding(images[0], images[1], found, (grids[0], grids[1]), side=2 * CELL)
            said = f"{first.name} and {second.name}: the {len(found)} pairs of patches that are most alike."
            sheets.append(Sheet(f"correspondence-{number:03d}", drawn, said))
        return sheets


class Neighbors(Visualizer):
    """Which pictures are alike: the nearest of the others to each one, by the cosine of pooled features."""

    needs = "two pictures or more; the more the better"
    least = 2
    most = 1000

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        queries: int = 8
        """The first so many pictures are asked about."""
        count: int = 7
        """Neighbors shown of each."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet, a row for each picture that is asked about."""
        features = np.stack(over(encoder, [one.image for one in pictures], encoder.pooled))
        order, cosines = nearest(features, self.settings.count, of=self.settings.queries)
        cells, names = [], []
        for query, (found, scores) in enumerate(zip(order.tolist(), cosines.tolist(), strict=True)):
            cells += [_square(pictures[index].image) for index in (query, *found)]
            names += [
                pictures[query].name,
                *(f"cosine {score:.2f}, {pictures[i].name}" for i, score in zip(found, scores, strict=True)),
            ]
        said = (
            f"Each row: a picture, and those of the other {len(pictures) - 1} that are nearest to it, with the cosine."
        )
        return [Sheet("neighbors", sheet(cells, labels=names, columns=order.shape[1] + 1, side=1), said)]


class Propagate(Visualizer):
    """Where things go: a mask of the first frame, carried through a folder of frames by what looks alike."""

    needs = "the frames of a film in one size, and a mask of the first"
    least = 2
    most = 100

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        mask: str = ""
        """PNG of the first frame's size, a color a thing, black elsewhere. Empty: the things of the first picture where
        their truth is known, else the part that CLS attends to most."""
        previous: int = 7
        """Frames before each one that are looked at, beside the first (DINO)."""
        temperature: float = 0.1
        """Similarities weigh exp(cosine / this) (DINO)."""
        radius: float = 12.0
        """How far a thing may move from a frame that is looked at, in patches (DINO)."""
        most: int = 5
        """Patches that a patch takes its labels from (DINO)."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet of frames with their masks, evenly chosen where there are many; the masks of all frames with it."""
        features = over(encoder, [one.image for one in pictures], encoder.patches)
        chosen = self.settings
        masks = propagated(
            features,
            self._first(encoder, pictures[0]).astype(np.int64),
            previous=chosen.previous,
            temperature=chosen.temperature,
            radius=chosen.radius,
            most=chosen.most,
        )
        palette = distinct(int(masks.max()) + 1)
        places = np.unique(np.linspace(0, len(pictures) - 1, ON_A_SHEET).round().astype(int)).tolist()
        cells = [shrunk(texts.painted(pictures[place].image, masks[place] - 1, palette), CELL) for place in places]
        names = [pictures[place].name for place in places]
        said = f"The things of {pictures[0].name} followed through {len(pictures)} frames."
        return [Sheet("propagate", sheet(cells, labels=names, side=CELL), said, tuple(masks.astype(np.uint8)))]

    def _first(self, encoder: FeatureExtractor, picture: ShownImage) -> UInt8[np.ndarray, "height width"]:
        """The mask that is followed."""
        if self.settings.mask:
            return read_mask(self.settings.mask, picture, encoder)
        out = np.zeros(picture.image.shape[:2], np.uint8)
        for number, (_, mask) in enumerate(picture.things, 1):
            out[mask] = number
        if not picture.things:
            (kept,) = foregrounds(over(encoder, [picture.image], encoder.patches), _mean_attention(encoder, [picture]))
            out = np.kron(kept, np.ones((encoder.patch_size, encoder.patch_size))).astype(np.uint8)
        return out


class WordMap(Visualizer):
    """Which patches answer to which words: heat for each word, and each place in the color of its best word."""

    needs = "an image-text encoder with a linear image projection: of Rizbin, CLIP"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        words: tuple[str, ...] = ()
        """What to look for. Empty: the words of each picture's caption."""
        dense_head: DenseHead = "plain"
        """plain: one pass over the image, a cosine for each patch; windows: also sliding windows of the image enlarged
        twice, and cosines at each pixel along the image's colors. Sharper and better (docs/evaluate.md), at several
        times the cost."""
        dense: DenseReading = "plain"
        """How the last block is read for patches, without training: maskclip, value-value, sclip, naclip, proxyclip;
        plain: as it was trained (docs/forms.md)."""
        guide: str = ""
        """The model whose patch features lead proxyclip, such as dino-mini. Empty: none."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each picture."""
        if not encoder.localizes:
            raise RizbinError(
                f"Words can be asked of image-text encoders whose patches meet the texts, and {encoder.name} is none; "
                "give one such as detailclip-mini."
            )
        sheets = []
        for number, one in enumerate(pictures, 1):
            asked = [*self.settings.words] or texts.words_of(one.caption, [name for name, _ in one.things])
            if not asked:
                raise RizbinError(f"{one.name} has no caption to take words from; name some words to look for.")
            maps = texts.similarities(encoder, one.image, asked, dense_head=self.settings.dense_head)
            colors = distinct(len(asked))
            image = enlarge(shrunk(one.image, CELL), CELL)
            height, width = image.shape[:2]
            painted = texts.painted(image, texts.segmented(maps, height, width), colors)
            parts = [labelled(image, one.name), labelled(painted, "best word")]
            heat = texts.heat_of_words(image, maps, asked, side=1, colors=colors)
            each = "patch" if self.settings.dense_head == "plain" else "pixel (dense head: windows)"
            said = f"{one.name}: cosine of each {each} with {', '.join(asked)}, all on one scale."
            sheets.append(Sheet(f"words-{number:03d}", beside([*parts, heat]), said))
        return sheets


VISUALIZERS: dict[str, type[Visualizer]] = {
    "attention": Attention,
    "patch": Patch,
    "pca": Pca,
    "correspondence": Correspondence,
    "neighbors": Neighbors,
    "propagate": Propagate,
    "words": WordMap,
}
"""What can be drawn, by the word that asks for it."""


def does(what: type[Visualizer]) -> str:
    """What it draws, in one sentence."""
    return (what.__doc__ or "").split("\n", 1)[0]


def _attention(
    encoder: FeatureExtractor, pictures: Sequence[ShownImage], *, token: int = CLS, layer: int = -1
) -> list[Float[np.ndarray, "heads _ _"]]:
    """The attention of one token of each picture."""
    return over(encoder, [one.image for one in pictures], lambda images: encoder.attention_rows(images, token, layer))


def _mean_attention(encoder: FeatureExtractor, pictures: Sequence[ShownImage]) -> list[Float[np.ndarray, "_ _"]] | None:
    """The attention of CLS, mean over heads; None where there is none."""
    try:
        return [heads.mean(axis=0) for heads in _attention(encoder, pictures)]
    except NoAttention:
        return None


def _square(picture: AnyPicture) -> AnyPicture:
    """The middle of a picture, at the size of a cell: rows of neighbors are compared at a glance when all are alike."""
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return enlarge(shrunk(picture[top : top + side, left : left + side], CELL // 2), CELL // 2)
