"""Finds objects by words: images and phrases in, boxes with a score for each phrase out.

Grounding DINO (arXiv 2303.05499), MM-Grounding-DINO (arXiv 2401.02361) and LLMDet (arXiv 2501.18954) load alike, by
name or from a folder, through transformers.
"""

import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.bounded import read_json
from rizbin.core.checksums import write_sums
from rizbin.core.errors import RizbinError
from rizbin.data.image_io import AnyImage, as_rgb
from rizbin.detection.detections import Proposals
from rizbin.detection.fast import disable_fast_attention, enable_fast_attention
from rizbin.detection.phrases import (
    PhraseLike,
    PromptBatch,
    PromptText,
    batch_of,
    build_prompts,
    phrase_scores,
    read_phrases,
)
from rizbin.nets.foreign import transformers_config, transformers_model, transformers_tokenizer

DEFAULT = "iSEE-Laboratory/llmdet_tiny"
"""Apache-2.0. Of grounding-dino-tiny's size and speed, LVIS AP 44.7 instead of 28.8 (its authors' numbers)."""
ImageLike = AnyImage
"""An image file, a PIL image, or pixels as `rizbin.data.image_io.as_rgb` takes them."""
SCALES = {"full": 1.0, "standard": 0.6, "fast": 0.4}
"""Shares of the size that a network was trained at: 800, 480 and 320 pixels of the shorter side for the published ones.
Time goes with the square: on a processor about 24, 9 and 4.5 seconds of one core an image."""
Scale = Literal["full", "standard", "fast"]
KINDS = ("grounding-dino", "mm-grounding-dino")
"""Model types of transformers that are Grounding DINOs."""
TILE_OVERLAP = 0.2
"""Share of a tile's side that the next tile repeats: what is smaller than that lies whole in one of them."""
LARGEST = 16_384
"""Pixels: images are never resized to a side of this length or more."""
BORDER = 2.0
"""Pixels from the inner border of a tile within which a box counts as cut by it."""


@dataclass(frozen=True)
class Preparation:
    """How images are resized and normalized for a network."""

    shorter: int = 800
    """Pixels of the shorter side."""
    longer: int = 1333
    """Most pixels of the longer one, which then decides."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from values of 0 to 1 (ImageNet's)."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divided by, thereafter."""

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        """Height and width at which an image is seen."""
        shorter, longer = max(round(self.shorter * scale), 32), max(round(self.longer * scale), 32)
        low, high = min(height, width), max(height, width)
        exact = min(float(shorter), longer * low / high)
        # As transformers rounds: an image shall be the same pixels in both.
        small, large = max(round(exact), 1), max(int(exact * high / low), 1)
        return (small, large) if height <= width else (large, small)

    def __call__(
        self, image: UInt8[np.ndarray, "height width 3"], size: tuple[int, int]
    ) -> Float[Tensor, "3 rows columns"]:
        """The image at that height and width, normalized."""
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 255
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels[0] - mean) / std


class Detector:
    """A Grounding DINO network, its tokenizer and its preprocessing."""

    has_network = True
    """Whether `model` is a torch network, as explanations need; an exported file has none."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        preparation: Preparation = Preparation(),
        name: str = "",
        *,
        folder: Path | None = None,
    ) -> None:
        """name: what messages and reports call it. folder: where its weights lie, and what else belongs to them."""
        self.model = model.eval()
        enable_fast_attention(self.model)
        self.tokenizer = tokenizer
        self.preparation = preparation
        self.name = name or type(model).__name__
        self.folder = folder

    def __repr__(self) -> str:
        return f"<detector {self.name}>"

    @staticmethod
    def is_saved_in(folder: str | Path) -> bool:
        """Whether the folder holds a Grounding DINO, as transformers writes it."""
        try:
            config = read_json(Path(folder) / "config.json")
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and config.get("model_type") in KINDS

    @classmethod
    def from_pretrained(cls, what: str | Path = DEFAULT, *, device: str = "cpu") -> "Detector":
        """A detector by its name on Hugging Face or from a folder, its weights from safetensors alone.

        Raises RizbinError when there is none, or it is of another kind.
        """
        try:
            import transformers
        except ImportError as error:
            raise RizbinError(
                "Finding objects by words needs transformers, which is not installed: pip install 'rizbin[detect]' "
                "brings it."
            ) from error
        assert transformers is not None

        kind = transformers_config(what).model_type
        if kind not in KINDS:
            raise RizbinError(f"{what} is a {kind}, not a Grounding DINO; give one such as {DEFAULT}.")
        with quietly():
            model = transformers_model(_class_of(kind), what, dtype=torch.float32)
        tokenizer = transformers_tokenizer(what)
        folder = Path(what) if Path(what).is_dir() else None
        return cls(model.to(device), tokenizer, _preparation(str(what)), str(what), folder=folder)

    def save(self, folder: Path, *, half: bool = False) -> None:
        """Writes a folder that `from_pretrained` and transformers load; half: with the weights in 16 bits."""
        disable_fast_attention(self.model)
        model = copy.deepcopy(self.model).half() if half else self.model
        enable_fast_attention(self.model)
        with quietly():
            model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        preparation = self.preparation
        config = {
            "image_processor_type": "GroundingDinoImageProcessor",
            "size": {"shortest_edge": preparation.shorter, "longest_edge": preparation.longer},
            "image_mean": list(preparation.mean),
            "image_std": list(preparation.std),
        }
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        write_sums(Path(folder), ("*.json", "model*.safetensors", "vocab.txt"))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def build_prompts(self, phrases: Sequence[PhraseLike], *, separate: bool = False) -> PromptBatch:
        """The texts that these phrases need. Raises RizbinError when they cannot be looked for."""
        return build_prompts(read_phrases(phrases), self.tokenizer, self.longest_text, separate=separate)

    @property
    def longest_text(self) -> int:
        """Tokens that one pass reads at most."""
        return self.model.config.max_text_len

    @torch.inference_mode()
    def detect(
        self,
        images: Sequence[ImageLike],
        phrases: Sequence[PhraseLike],
        *,
        scale: Scale | float = "full",
        token_pooling: Literal["mean", "max"] = "mean",
        separate: bool = False,
        tile: int = 0,
        tile_overlap: float = TILE_OVERLAP,
        batch: int = 4,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[Proposals]:
        """All that the network proposes for each image.

        Args:
            images: Of any sizes; those that are seen at one size run together, `batch` at a time.
            phrases: See `rizbin.detection.phrases.read_phrases`; their positions are the class ids.
            scale: One of `SCALES`, or a share of the size the network was trained at.
            token_pooling: How a phrase's score follows from those of its tokens: see `phrase_scores`.
            separate: One pass for each phrase: slower, but long descriptions do not influence each other.
            tile: Side in pixels of square tiles in which small objects are searched for as well; 0: no tiles.
            tile_overlap: Share of a tile's side that the next tile repeats.
            advance: Called with the number of images that were finished since the last call.
        """
        prompts = self.build_prompts(phrases, separate=separate)
        share = SCALES[scale] if isinstance(scale, str) else scale
        _check(share, batch, tile, tile_overlap)
        arrays = [pixels_of(image) for image in images]
        pieces = [
            (number, place)
            for number, image in enumerate(arrays)
            for place in places(image.shape[0], image.shape[1], tile, tile_overlap)
        ]
        left = Counter(number for number, _ in pieces)
        # Nothing is proposed where the network knows no word of any phrase, and so is asked for nothing.
        boxes: list[list[np.ndarray]] = [[np.zeros((0, 4), np.float32)] for _ in arrays]
        scores: list[list[np.ndarray]] = [[np.zeros((0, len(prompts.phrases)), np.float32)] for _ in arrays]
        for size, members in self._sizes(arrays, pieces, share).items():
            for start in range(0, len(members), batch):
                some = members[start : start + batch]
                for number, its_boxes, its_scores in self._proposals(arrays, some, size, prompts, token_pooling):
                    boxes[number].append(its_boxes)
                    scores[number].append(its_scores)
                for number, _ in some:
                    left[number] -= 1
                    advance(left[number] == 0)
        return [
            Proposals(
                image.shape[1],
                image.shape[0],
                np.concatenate(its_boxes),
                np.concatenate(its_scores),
                prompts.phrases,
                prompts.notes,
                prompts.unasked,
            )
            for image, its_boxes, its_scores in zip(arrays, boxes, scores, strict=True)
        ]

    @torch.inference_mode()
    def expected_seconds(
        self,
        size: tuple[int, int],
        phrases: Sequence[PhraseLike],
        *,
        scale: Scale | float = "full",
        separate: bool = False,
        tile: int = 0,
        tile_overlap: float = TILE_OVERLAP,
    ) -> float:
        """About how long `detect` will take for an image of that height and width, seconds.

        A blank image of half the height and width is run twice, and the first pass, which is a warm-up, does not count;
        time goes with the pixels, over all tiles and texts. What is small anyway is looked at in full.
        """
        share = SCALES[scale] if isinstance(scale, str) else scale
        prompts = self.build_prompts(phrases, separate=separate)
        if not prompts.texts:
            return 0.0
        side = self.preparation.size(*size, share / 2 if self.preparation.shorter * share >= 256 else share)
        blank = torch.zeros(1, 3, *side)
        for _ in range(2):
            begin = time.perf_counter()
            self.run_pass(blank, prompts.texts[0], len(prompts.phrases), "mean")
        seconds = time.perf_counter() - begin
        sizes = [
            self.preparation.size(bottom - top, right - left, share)
            for left, top, right, bottom in places(*size, tile, tile_overlap)
        ]
        pixels = sum(height * width for height, width in sizes)
        return seconds * pixels / (side[0] * side[1]) * len(prompts.texts)

    def _sizes(
        self, shown: Sequence[np.ndarray], pieces: Sequence[tuple[int, "Place"]], share: float
    ) -> dict[tuple[int, int], list[tuple[int, "Place"]]]:
        """The pieces by the size at which they are seen: padding would change what Swin sees at the border."""
        by_size: dict[tuple[int, int], list[tuple[int, Place]]] = {}
        for number, place in pieces:
            height, width = place[3] - place[1], place[2] - place[0]
            by_size.setdefault(self.preparation.size(height, width, share), []).append((number, place))
        return by_size

    def _proposals(
        self,
        images: Sequence[np.ndarray],
        pieces: Sequence[tuple[int, "Place"]],
        size: tuple[int, int],
        prompts: PromptBatch,
        token_pooling: str,
    ) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """For each text and each piece of an image: the image's number, boxes in its pixels, and their scores."""
        views = torch.stack([self.preparation(cut(images[number], place), size) for number, place in pieces])
        proposals = []
        for text in prompts.texts:
            all_boxes, all_scores = self.run_pass(views, text, len(prompts.phrases), token_pooling)
            for (number, place), boxes, scores in zip(pieces, all_boxes, all_scores, strict=True):
                inside, whole = into_image(boxes, place, images[number].shape)
                proposals.append((number, inside[whole], scores[whole]))
        return proposals

    def run_pass(
        self, views: Float[Tensor, "batch 3 height width"], text: PromptText, phrases: int, token_pooling: str
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Boxes (shares of the view, corners) and scores of each view for one text."""
        ids, known = batch_of([text] * len(views))
        outputs = self.model(
            pixel_values=views.to(self.device, self.model.dtype),
            input_ids=ids.to(self.device),
            attention_mask=known.long().to(self.device),
        )
        center, side = outputs.pred_boxes.float().split(2, dim=-1)
        corners = torch.cat([center - side / 2, center + side / 2], dim=-1).cpu().numpy()
        scores = [
            phrase_scores(logits.float(), text, phrases, token_pooling=token_pooling).cpu().numpy()
            for logits in outputs.logits
        ]
        return list(corners), scores


def _check(share: float, batch: int, tile: int, tile_overlap: float) -> None:
    if not 0 < share <= 4:
        raise RizbinError(f"scale is {share:g}; give {', '.join(SCALES)} or a share above 0, up to 4.")
    if batch < 1:
        raise RizbinError(f"batch is {batch}; give 1 or more images a pass.")
    if tile < 0 or not 0 <= tile_overlap < 1:
        raise RizbinError(
            f"Tiles of {tile} pixels that repeat {tile_overlap:g} cannot be cut; give 0 or more, and under 1."
        )


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' bars for the second that reading or writing weights takes; downloads show their own."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


Place = tuple[int, int, int, int]
"""Left, top, right, bottom of a piece, pixels of the image."""


def pixels_of(image: ImageLike) -> UInt8[np.ndarray, "height width 3"]:
    """The RGB pixels of an image, 0 to 255. Raises Refused when it cannot be used."""
    return as_rgb(image, name="the image")


def places(height: int, width: int, tile: int, tile_overlap: float) -> list[Place]:
    """The whole image, and the tiles that cover it where it is larger than one."""
    whole = [(0, 0, width, height)]
    if not tile or max(height, width) <= tile:
        return whole
    step = max(round(tile * (1 - tile_overlap)), 1)

    def starts(length: int) -> list[int]:
        return [0] if length <= tile else [*range(0, length - tile, step), length - tile]

    return whole + [
        (left, top, min(left + tile, width), min(top + tile, height))
        for top in starts(height)
        for left in starts(width)
    ]


def cut(image: np.ndarray, place: Place) -> np.ndarray:
    """What of an image, or of a map of it, lies in a place; a view of its memory."""
    return image[place[1] : place[3], place[0] : place[2]]


def into_image(
    boxes: Float[np.ndarray, "boxes 4"], place: Place, shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, "boxes 4"], Bool[np.ndarray, " boxes"]]:
    """Boxes in pixels of the whole image, clipped to it; and which are whole.

    A box that ends at a tile's inner border is a part of an object that another tile or the whole view shows.
    """
    height, width = shape[:2]
    left, top, right, bottom = place
    scale = np.array([right - left, bottom - top] * 2, np.float32)
    moved = boxes * scale + np.array([left, top] * 2, np.float32)
    inner = np.array([left > 0, top > 0, right < width, bottom < height])
    at_border = np.abs(moved - np.array(place, np.float32)) < BORDER
    whole = np.asarray(~(at_border & inner[None]).any(axis=1))
    return np.clip(moved, 0, np.array([width, height] * 2, np.float32)), whole


def _class_of(kind: str) -> Any:
    from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection

    return MMGroundingDinoForObjectDetection if kind == "mm-grounding-dino" else GroundingDinoForObjectDetection


def _preparation(what: str) -> Preparation:
    """Preparation by the model's own preprocessor_config.json; transformers' defaults where there is none."""
    from transformers.utils.hub import cached_file

    try:
        config = read_json(str(cached_file(what, "preprocessor_config.json")))
    except OSError:
        return Preparation()
    except (ValueError, RecursionError) as error:
        raise RizbinError(f"The preprocessor_config.json of {what} cannot be read; get the model again.") from error
    usual = Preparation()
    try:
        size = config.get("size") or {}
        sides = [
            int(size.get(name, own)) for name, own in (("shortest_edge", usual.shorter), ("longest_edge", usual.longer))
        ]
        colors = [
            [float(value) for value in config.get(f"image_{name}") or getattr(usual, name)] for name in ("mean", "std")
        ]
        (red, green, blue), (wide_red, wide_green, wide_blue) = colors
        if not all(1 <= side <= LARGEST for side in sides) or not all(value > 0 for value in colors[1]):
            raise ValueError
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise RizbinError(
            f"The preprocessor_config.json of {what} says of sizes and colors what cannot be; get the model again."
        ) from error
    return replace(
        usual, shorter=sides[0], longer=sides[1], mean=(red, green, blue), std=(wide_red, wide_green, wide_blue)
    )
