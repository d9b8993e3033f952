"""What `rizbin visualize` draws: one class a word, each from an encoder and images to sheets of images."""

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
from rizbin.visualization.colors import AnySizeImage, distinct
from rizbin.visualization.grid import beside, enlarge, labelled, sheet, shrunk
from rizbin.visualization.inputs import ShownImage, read_mask
from rizbin.visualization.passes import over
from rizbin.visualization.pca import foregrounds, joint_colors, smooth
from rizbin.visualization.propagate import propagated
from rizbin.visualization.similarity import correspondences, corresponding, nearest, ringed, similar

CELL = 192
"""Shorter side of an image on a sheet, pixels: patches of 8 are seen, and a dozen heads fit on a screen."""
ON_A_SHEET = 24
"""Frames drawn on one sheet."""


@dataclass(frozen=True)
class Sheet:
    """One finished image."""

    name: str
    """For its file: letters, digits and hyphens."""
    image: AnySizeImage
    caption: str
    masks: tuple[UInt8[np.ndarray, "_ _"], ...] = field(default=())
    """Numbers of objects a pixel, where the image shows some."""


class Visualizer(ABC):
    """A visualization. The first line of its docstring says what it shows; its settings are its flags."""

    needs: ClassVar[str]
    """What model and images must bring."""
    least: ClassVar[int] = 1
    """Images without which it cannot be drawn."""
    most: ClassVar[int] = 12
    """Number of images where no limit is given."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        pass

    def __init__(self, settings: Any = None) -> None:
        self.settings: Any = settings or self.Settings()

    def __call__(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """The sheets. Raises RizbinError when the model or the images do not bring what it needs."""
        if len(images) < self.least:
            raise RizbinError(f"This needs {self.least} images and there is {len(images)}; name more of them.")
        return self.draw(encoder, images)

    @abstractmethod
    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """The sheets, from images enough."""


class Attention(Visualizer):
    """Attention of CLS: each head as heat and as the patches that hold most of it, scored where truth is known."""

    needs = "a ViT with a CLS token"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        mass: float = 0.6
        """Share of a head's attention in its mask, over 0 to 1; DINO's figure 4 keeps 0.6 (arXiv 2104.14294)."""
        layer: int = -1
        """Number of the layer from 0; negative numbers count from the last layer."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet of heads for each image, then one of the best masks (or of mean heat) for all."""
        maps = _attention(encoder, images, layer=self.settings.layer)
        sheets, all_cells, told_of, bests, means = [], [], [], [], []
        for number, (shown_image, heads) in enumerate(zip(images, maps, strict=True), 1):
            rows = np.concatenate([heads.mean(axis=0, keepdims=True), heads])
            masks = mass_mask(rows, self.settings.mass)
            names = ["mean", *(f"head {head}" for head in range(1, len(rows)))]
            scores = None if shown_image.truth is None else jaccards(masks, shown_image.truth)
            best, score_text = -1, ""
            if scores is not None:
                best = 1 + int(scores[1:].argmax())
                names = [f"{name}, IoU {score:.2f}" for name, score in zip(names, scores, strict=True)]
                score_text = (
                    f" IoU is that of these patches with the objects' true pixels (Jaccard); best: head {best}."
                )
                bests.append(scores[best])
                means.append(scores[0])
            image = shrunk(shown_image.image, CELL)
            drawn = heads_outlined(image, rows, masks, labels=names, best=best, side=CELL)
            top = labelled(enlarge(image, CELL), shown_image.name)
            sheets.append(
                Sheet(
                    f"attention-{number:03d}",
                    beside([top, drawn]),
                    f"{shown_image.name}: what CLS attends to, and the patches with {self.settings.mass:.0%} of it."
                    f"{score_text}",
                )
            )
            shown = masks[max(best, 0)]
            told_of.append(shown_image.name if scores is None else f"IoU {scores[best]:.2f}, {shown_image.name}")
            all_cells.append(np.concatenate([enlarge(image, CELL), outlined(image, shown, side=CELL)]))
        caption = f"The patches that hold {self.settings.mass:.0%} of "
        caption += "the best head's attention." if bests else "the attention, mean over heads."
        if bests:
            caption += (
                f" Jaccard of the best head with all objects, mean over {len(bests)} images: {np.mean(bests):.3f}; "
                f"of the mean over heads: {np.mean(means):.3f}."
            )
        return [*sheets, Sheet("attention-all", sheet(all_cells, labels=told_of, side=1), caption)]


class Patch(Visualizer):
    """Attention of chosen patches: each head's map, and the patches that are similar to them."""

    needs = "a ViT"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        points: tuple[tuple[float, float], ...] = ((0.5, 0.5),)
        """Places from the left and from the top, as shares of the image, 0 to 1: 0.5 0.5 is the middle."""
        layer: int = -1
        """Number of the layer from 0; negative numbers count from the last layer."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each image and point."""
        for across, down in self.settings.points:
            if not (0 <= across <= 1 and 0 <= down <= 1):
                raise RizbinError(f"The point {across:g} {down:g} lies outside; both are shares of the image, 0 to 1.")
        features = over(encoder, [shown_image.image for shown_image in images], encoder.patches)
        sheets = []
        for number, (shown_image, seen) in enumerate(zip(images, features, strict=True), 1):
            grid = seen.shape[0], seen.shape[1]
            image = enlarge(shrunk(shown_image.image, CELL), CELL)
            for point, (across, down) in enumerate(self.settings.points, 1):
                row, column = min(int(down * grid[0]), grid[0] - 1), min(int(across * grid[1]), grid[1] - 1)
                token = row * grid[1] + column
                (heads,) = _attention(encoder, [shown_image], token=token, layer=self.settings.layer)
                maps = [heads.mean(axis=0), *heads]
                cells = [
                    ringed(image, row, column, grid),
                    similar(image, seen, row, column, side=CELL),
                    *(ringed(overlay(image, one_map), row, column, grid) for one_map in maps),
                ]
                names = [shown_image.name, "alike", "mean attention", *(f"head {head}" for head in range(1, len(maps)))]
                caption = (
                    f"{shown_image.name}: what the patch in row {row}, column {column} is like, and what it attends to."
                )
                sheets.append(Sheet(f"patch-{number:03d}-{point}", sheet(cells, labels=names, side=1), caption))
        return sheets


class Pca(Visualizer):
    """What patches have in common: their three main directions over all images as colors, on the attended ground."""

    needs = "any network; without a CLS token the border decides what is background"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        foreground: Literal["direction", "mass", "all"] = "direction"
        """Patches that are colored: the side of the first direction that CLS attends to more; those that hold `mass`
        of the attention; or all."""
        mass: float = 0.8
        """Share of the attention, over 0 to 1, for the foreground by mass."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet: each image above its colors."""
        features = over(encoder, [shown_image.image for shown_image in images], encoder.patches)
        attention = _mean_attention(encoder, images)
        if self.settings.foreground == "mass" and attention is None:
            raise NoAttention(
                "This network has no CLS attention to choose the foreground by; ask for another foreground."
            )
        if self.settings.foreground == "all":
            keep = [np.ones(patches.shape[:2], bool) for patches in features]
        elif self.settings.foreground == "mass" and attention is not None:
            keep = [mass_mask(image_attention, self.settings.mass) for image_attention in attention]
        else:
            keep = foregrounds(features, attention)
        cells = []
        for shown_image, colors in zip(images, joint_colors(features, keep, attention), strict=True):
            image = enlarge(shrunk(shown_image.image, CELL), CELL)
            cells.append(np.concatenate([image, smooth(colors, *image.shape[:2])]))
        caption = (
            "Patch features along their three main directions, of all images together; like colors are like features."
        )
        return [Sheet("pca", sheet(cells, labels=[shown_image.name for shown_image in images], side=1), caption)]


class Correspondence(Visualizer):
    """Which patches belong together: those of the first image and of each other one that choose each other."""

    needs = "two images or more"
    least = 2
    most = 5

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        count: int = 16
        """Number of matches drawn, the most similar ones."""
        foreground: Literal["direction", "all"] = "direction"
        """Patches that take part: the side of the first direction that CLS attends to more, or all. Plain background
        corresponds with itself everywhere."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each image after the first."""
        features = over(encoder, [shown_image.image for shown_image in images], encoder.patches)
        keep = [np.ones(patches.shape[:2], bool) for patches in features]
        if self.settings.foreground == "direction":
            keep = foregrounds(features, _mean_attention(encoder, images))
        sheets = []
        for number in range(1, len(images)):
            first, second = images[0], images[number]
            matches = correspondences(features[0], features[number], self.settings.count, keep=(keep[0], keep[number]))
            grids = [(patches.shape[0], patches.shape[1]) for patches in (features[0], features[number])]
            cells = [shrunk(shown_image.image, 2 * CELL) for shown_image in (first, second)]
            drawn = corresponding(cells[0], cells[1], matches, (grids[0], grids[1]), side=2 * CELL)
            caption = f"{first.name} and {second.name}: the {len(matches)} pairs of patches that are most alike."
            sheets.append(Sheet(f"correspondence-{number:03d}", drawn, caption))
        return sheets


class Neighbors(Visualizer):
    """Which images are alike: the nearest of the others to each one, by the cosine of pooled features."""

    needs = "two images or more; the more the better"
    least = 2
    most = 1000

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        queries: int = 8
        """Number of images, from the first, whose neighbors are shown."""
        count: int = 7
        """Neighbors shown for each image."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet with a row for each query image."""
        features = np.stack(over(encoder, [shown_image.image for shown_image in images], encoder.pooled))
        order, cosines = nearest(features, self.settings.count, of=self.settings.queries)
        cells, names = [], []
        for query, (neighbors, scores) in enumerate(zip(order.tolist(), cosines.tolist(), strict=True)):
            cells += [_square(images[index].image) for index in (query, *neighbors)]
            names += [
                images[query].name,
                *(f"cosine {score:.2f}, {images[i].name}" for i, score in zip(neighbors, scores, strict=True)),
            ]
        caption = (
            f"Each row: an image, and those of the other {len(images) - 1} that are nearest to it, with the cosine."
        )
        return [Sheet("neighbors", sheet(cells, labels=names, columns=order.shape[1] + 1, side=1), caption)]


class Propagate(Visualizer):
    """Mask propagation: a mask of the first frame is carried through a folder of frames by patch similarity."""

    needs = "the frames of a film in one size, and a mask of the first"
    least = 2
    most = 100

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        mask: str = ""
        """PNG of the first frame's size with a color for each object, black elsewhere. Empty: the first image's true
        masks where they are known, otherwise the patches that CLS attends to most."""
        previous: int = 7
        """Number of previous frames that labels come from, beside the first frame (DINO)."""
        temperature: float = 0.1
        """Temperature of the weights exp(cosine / temperature) of these patches (DINO)."""
        radius: float = 12.0
        """Largest distance in patches between a patch and those that it takes its labels from (DINO)."""
        most: int = 5
        """Number of most similar patches that a patch takes its labels from (DINO)."""

    settings: Settings

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """One sheet of frames with their masks, evenly chosen where there are many; the masks of all frames with it."""
        features = over(encoder, [shown_image.image for shown_image in images], encoder.patches)
        chosen = self.settings
        masks = propagated(
            features,
            self._first(encoder, images[0]).astype(np.int64),
            previous=chosen.previous,
            temperature=chosen.temperature,
            radius=chosen.radius,
            most=chosen.most,
        )
        palette = distinct(int(masks.max()) + 1)
        places = np.unique(np.linspace(0, len(images) - 1, ON_A_SHEET).round().astype(int)).tolist()
        cells = [shrunk(texts.painted(images[place].image, masks[place] - 1, palette), CELL) for place in places]
        names = [images[place].name for place in places]
        caption = f"The objects of {images[0].name} followed through {len(images)} frames."
        return [Sheet("propagate", sheet(cells, labels=names, side=CELL), caption, tuple(masks.astype(np.uint8)))]

    def _first(self, encoder: FeatureExtractor, image: ShownImage) -> UInt8[np.ndarray, "height width"]:
        """The mask that is followed."""
        if self.settings.mask:
            return read_mask(self.settings.mask, image, encoder)
        out = np.zeros(image.image.shape[:2], np.uint8)
        for number, (_, mask) in enumerate(image.objects, 1):
            out[mask] = number
        if not image.objects:
            (foreground,) = foregrounds(
                over(encoder, [image.image], encoder.patches), _mean_attention(encoder, [image])
            )
            out = np.kron(foreground, np.ones((encoder.patch_size, encoder.patch_size))).astype(np.uint8)
        return out


class WordMap(Visualizer):
    """Which patches answer to which words: heat for each word, and each place in the color of its best word."""

    needs = "an image-text encoder with a linear image projection: of Rizbin, CLIP"

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        words: tuple[str, ...] = ()
        """What to look for. Empty: the words of each image's caption."""
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

    def draw(self, encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Sheet]:
        """A sheet for each image."""
        if not encoder.localizes:
            raise RizbinError(
                f"Words need an image-text encoder whose patch features are compared with texts, and {encoder.name} is "
                "none; give one such as detailclip-mini."
            )
        sheets = []
        for number, shown_image in enumerate(images, 1):
            queries = [*self.settings.words] or texts.words_of(
                shown_image.caption, [name for name, _ in shown_image.objects]
            )
            if not queries:
                raise RizbinError(f"{shown_image.name} has no caption to take words from; name some words to look for.")
            maps = texts.similarities(encoder, shown_image.image, queries, dense_head=self.settings.dense_head)
            colors = distinct(len(queries))
            image = enlarge(shrunk(shown_image.image, CELL), CELL)
            height, width = image.shape[:2]
            painted = texts.painted(image, texts.segmented(maps, height, width), colors)
            parts = [labelled(image, shown_image.name), labelled(painted, "best word")]
            heat = texts.heat_of_words(image, maps, queries, side=1, colors=colors)
            each = "patch" if self.settings.dense_head == "plain" else "pixel (dense head: windows)"
            caption = f"{shown_image.name}: cosine of each {each} with {', '.join(queries)}, all on one scale."
            sheets.append(Sheet(f"words-{number:03d}", beside([*parts, heat]), caption))
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
"""Visualizations by name."""


def does(what: type[Visualizer]) -> str:
    """The first sentence of the docstring: what the visualization shows."""
    return (what.__doc__ or "").split("\n", 1)[0]


def _attention(
    encoder: FeatureExtractor, images: Sequence[ShownImage], *, token: int = CLS, layer: int = -1
) -> list[Float[np.ndarray, "heads _ _"]]:
    """The attention of one token of each image."""
    return over(
        encoder,
        [shown_image.image for shown_image in images],
        lambda images: encoder.attention_rows(images, token, layer),
    )


def _mean_attention(encoder: FeatureExtractor, images: Sequence[ShownImage]) -> list[Float[np.ndarray, "_ _"]] | None:
    """The attention of CLS, mean over heads; None where there is none."""
    try:
        return [heads.mean(axis=0) for heads in _attention(encoder, images)]
    except NoAttention:
        return None


def _square(image: AnySizeImage) -> AnySizeImage:
    """The middle of an image, at the size of a cell: rows of neighbors are compared at a glance when all are alike."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return enlarge(shrunk(image[top : top + side, left : left + side], CELL // 2), CELL // 2)
