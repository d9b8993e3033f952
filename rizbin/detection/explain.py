"""Explanations of a detected box: its tokens' scores, where they looked, a similarity map, and where its query sampled.

All of them come from the pass that finds the box. A map is worth something only if what it marks matters: so what it
marks most is taken out of the image, and as much elsewhere, and the score is measured again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.detection.detections import NMS_IOU, THRESHOLD, Proposals
from rizbin.detection.detector import TILE_OVERLAP, Detector, ImageLike, Place, cut, into_image, pixels_of, places
from rizbin.detection.fast import DeformableSampling
from rizbin.detection.phrases import Phrase, PhraseLike, PromptSpan, PromptText, batch_of, phrase_scores, read_phrases
from rizbin.detection.word_attention import density, recording_fusion

OCCLUDED = 0.1
"""Share of the image that the occlusion check removes."""
ELSEWHERE = 4
"""Other regions that are removed for comparison, one at a time."""


@dataclass(frozen=True)
class Explanation:
    """The explanation of one box."""

    name: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    score: float
    words: tuple[tuple[str, float], ...]
    """The tokens of the prompt that fitted best, each with its own score, 0 to 1; the box's score is their mean."""
    similarity: Float[np.ndarray, "height width"]
    """How much each pixel's neighborhood looks like the phrase, 0 to 1: the score of the encoder's own proposal there,
    the best of all levels."""
    points: Float[np.ndarray, "points 3"]
    """Where the query sampled in the decoder: x and y in pixels, and the share of its attention, largest first. All
    layers and heads together; the shares sum to 1."""
    attention: Float[np.ndarray, "layers height width"]
    """How densely the phrase's tokens attended to each pixel's neighborhood in each layer of the encoder, before any
    box was proposed; 1 is the mean over what was seen. 0 outside the tile in which the box was found."""
    without: float
    """The phrase's best score at this box after the most similar tenth of the image was replaced by gray."""
    elsewhere: float
    """The same with as large a region elsewhere in gray, the mean of `ELSEWHERE` regions."""

    @property
    def honest(self) -> bool:
        """Whether what the map marks matters more to the box than other places do."""
        return self.without < self.elsewhere


def explain(
    detector: Detector,
    image: ImageLike,
    phrases: Sequence[PhraseLike],
    *,
    rivals: Sequence[PhraseLike] = (),
    most: int = 3,
    threshold: float = THRESHOLD,
    nms_iou: float = NMS_IOU,
    tile: int = 0,
    tile_overlap: float = TILE_OVERLAP,
    check: bool = True,
) -> list[Explanation]:
    """Explains the best boxes of an image, best first.

    Args:
        detector: What found them.
        image: A file, a PIL image or RGB pixels.
        phrases: As for `Detector.detect`.
        rivals: Phrases that are searched for too and can win boxes, but are not explained.
        most: Boxes at most.
        threshold: Lowest score of a box.
        nms_iou: As for `Proposals.choose`.
        tile: As for `Detector.detect`; a box that was found in a tile is explained within it.
        tile_overlap: As for `Detector.detect`.
        check: Measure again with parts taken out, five more passes a box; without, both numbers are nan.

    The image is seen at full size. Raises RizbinError when the phrases cannot be looked for, or the
    detector is an exported one.
    """
    if most < 1:
        raise RizbinError(f"most is {most}; give 1 or more boxes to explain.")
    if not detector.has_network:
        raise RizbinError(f"{detector.name} is exported and shows no insides; explain with what it was exported from.")
    count = len(read_phrases(phrases))
    pixels = pixels_of(image)
    prompts = detector.build_prompts([*phrases, *rivals])
    if not prompts.texts:
        return []
    height, width = pixels.shape[:2]
    views = [
        _View(place, text, _pass(detector, cut(pixels, place), text, len(prompts.phrases)))
        for place in places(height, width, tile, tile_overlap)
        for text in prompts.texts
    ]
    proposals, rows = _proposed(views, pixels.shape, prompts.phrases)
    answer = proposals.choose(threshold, nms_iou=nms_iou)
    chosen = [
        (*rows[int(row)], proposals.boxes[row], int(phrase), float(score))
        for row, phrase, score in zip(answer.rows, answer.classes, answer.scores, strict=True)
        if phrase < count
    ]
    return [
        _explanation(detector, pixels, view, query, box, phrase, proposals.names[phrase], score, check=check)
        for view, query, box, phrase, score in chosen[:most]
    ]


@dataclass(frozen=True)
class _Pass:
    """The result of one forward pass: one text on one view."""

    boxes: Float[np.ndarray, "queries 4"]
    """Pixels of what was seen, clipped."""
    shares: Float[np.ndarray, "queries 4"]
    """The same boxes as shares of the sides of what was seen."""
    scores: Float[np.ndarray, "queries phrases"]
    tokens: Float[Tensor, "queries width"]
    """Score of every token."""
    encoder: Float[Tensor, "places width"]
    """Logit of every token at every place of every level."""
    levels: list[tuple[int, int]]
    points: Float[np.ndarray, "queries points 3"]
    """x and y as shares of the image, and the share of attention."""
    fusion: tuple[Float[Tensor, "heads tokens places"], ...] = ()
    """The attention of text to image in each layer of the encoder."""


@dataclass(frozen=True)
class _View:
    """A part of the image with the result of one text on it."""

    place: Place
    text: PromptText
    made: _Pass


def _proposed(
    views: Sequence[_View], shape: tuple[int, ...], phrases: tuple[Phrase, ...]
) -> tuple[Proposals, list[tuple[_View, int]]]:
    """What all views propose for an image of that shape, and for each box its view and its query there.

    A box that a tile's border cuts is left to the view that shows all of it.
    """
    rows: list[tuple[_View, int]] = []
    boxes, scores = [], []
    for view in views:
        inside, whole = into_image(view.made.shares, view.place, shape)
        rows += [(view, int(query)) for query in np.flatnonzero(whole)]
        boxes.append(inside[whole])
        scores.append(view.made.scores[whole])
    return Proposals(shape[1], shape[0], np.concatenate(boxes), np.concatenate(scores), phrases), rows


def _explanation(
    detector: Detector,
    pixels: UInt8[np.ndarray, "height width 3"],
    view: _View,
    query: int,
    box: Float[np.ndarray, " 4"],
    phrase: int,
    name: str,
    score: float,
    *,
    check: bool,
) -> Explanation:
    """The explanation of the box that one query of a view proposed; `pixels` are those of the whole image."""
    made, place = view.made, view.place
    part = cut(pixels, place)
    similarity = np.zeros(pixels.shape[:2], np.float32)
    cut(similarity, place)[:] = _similarity(made, view.text, phrase, part.shape[:2])
    span = _best_span(view.text, phrase, made.tokens[query])
    attention = np.zeros((len(made.fusion), *pixels.shape[:2]), np.float32)
    for number, seen in enumerate(density(made.fusion, span.deciding, made.levels, part.shape[:2])):
        cut(attention[number], place)[:] = seen
    without = elsewhere = float("nan")
    if check:
        without, elsewhere = _occluded(detector, part, made, view.text, phrase, made.boxes[query])
    left, top, right, bottom = (float(value) for value in box)
    scale, offset = (place[2] - place[0], place[3] - place[1], 1), (place[0], place[1], 0)
    return Explanation(
        name=name,
        box=(left, top, right, bottom),
        score=score,
        words=_words(detector, view.text, span, made.tokens[query]),
        similarity=similarity,
        points=made.points[query] * np.array(scale, np.float32) + np.array(offset, np.float32),
        attention=attention,
        without=without,
        elsewhere=elsewhere,
    )


@torch.inference_mode()
def _pass(detector: Detector, pixels: UInt8[np.ndarray, "height width 3"], text: PromptText, phrases: int) -> _Pass:
    height, width = pixels.shape[:2]
    view = detector.preparation(pixels, detector.preparation.size(height, width))[None]
    ids, known = batch_of([text])
    with _recording(detector.model) as looks, recording_fusion(detector.model) as fusion:
        outputs = detector.model(
            pixel_values=view.to(detector.device, detector.model.dtype),
            input_ids=ids.to(detector.device),
            attention_mask=known.long().to(detector.device),
        )
    center, side = outputs.pred_boxes[0].float().cpu().split(2, dim=-1)
    corners = torch.cat([center - side / 2, center + side / 2], dim=-1).clamp(0, 1).numpy()
    logits = outputs.logits[0].float().cpu()
    locations, shares, levels = [], [], []
    for sizes, where, weights in looks:
        levels = sizes
        locations.append(where[0].float().cpu().flatten(1, -2))
        shares.append(weights[0].float().cpu().flatten(1))
    weight = torch.cat(shares, dim=1)
    weight = weight / weight.sum(dim=1, keepdim=True)
    points = torch.cat([torch.cat(locations, dim=1), weight[..., None]], dim=-1)
    order = points[..., 2].argsort(dim=1, descending=True)
    return _Pass(
        boxes=corners * np.array([width, height] * 2, np.float32),
        shares=corners,
        scores=phrase_scores(logits, text, phrases).numpy(),
        tokens=logits.sigmoid(),
        encoder=outputs.enc_outputs_class[0].float().cpu(),
        levels=levels,
        points=points.gather(1, order[..., None].expand(-1, -1, 3)).numpy(),
        fusion=tuple(fusion),
    )


Look = tuple[list[tuple[int, int]], Tensor, Tensor]
"""Heights and widths of the levels, where a layer of the decoder sampled, and with what weights."""


@contextmanager
def _recording(model: Any) -> Iterator[list[Look]]:
    """Notes what the decoder's deformable attention samples."""
    looks: list[Look] = []

    def note(_: Any, inputs: tuple, named: dict) -> None:
        sizes = inputs[2] if len(inputs) > 2 else named["value_spatial_shapes_list"]
        where = inputs[4] if len(inputs) > 4 else named["sampling_locations"]
        weights = inputs[5] if len(inputs) > 5 else named["attention_weights"]
        looks.append(([(int(height), int(width)) for height, width in sizes], where, weights))

    hooks = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in model.model.decoder.modules()
        if isinstance(module, DeformableSampling)
    ]
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()


def _best_span(text: PromptText, phrase: int, tokens: Float[Tensor, " width"]) -> PromptSpan:
    """The phrase's prompt that has the best score."""
    spans = [span for span in text.spans if span.phrase == phrase]
    return max(spans, key=lambda span: float(tokens[span.deciding].mean()))


def _words(
    detector: Detector, text: PromptText, span: PromptSpan, tokens: Float[Tensor, " width"]
) -> tuple[tuple[str, float], ...]:
    """The tokens that decide of the phrase's best prompt, with their scores."""
    names = detector.tokenizer.convert_ids_to_tokens([text.ids[place] for place in span.deciding])
    return tuple((str(name), float(tokens[place])) for place, name in zip(span.deciding, names, strict=True))


def _similarity(
    made: _Pass, text: PromptText, phrase: int, shape: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """The best of all levels, each stretched over the image."""
    scores = phrase_scores(made.encoder, text, made.scores.shape[1])[:, phrase].numpy()
    height, width = shape
    best, start = np.zeros(shape, np.float32), 0
    for rows, columns in made.levels:
        level = scores[start : start + rows * columns].reshape(rows, columns).astype(np.float32)
        best = np.maximum(best, cv2.resize(level, (width, height), interpolation=cv2.INTER_LINEAR))
        start += rows * columns
    return best


def _occluded(
    detector: Detector,
    pixels: UInt8[np.ndarray, "height width 3"],
    made: _Pass,
    text: PromptText,
    phrase: int,
    box: Float[np.ndarray, " 4"],
) -> tuple[float, float]:
    """The phrase's best score about the box without the map's best part, and the mean without as much elsewhere."""
    marked = _most(_similarity(made, text, phrase, pixels.shape[:2]))
    draw = random.generator("occlusion", phrase, *[round(float(value)) for value in box])
    others = []
    for _ in range(ELSEWHERE):
        moved = np.roll(marked, tuple(draw.integers(0, side) for side in marked.shape), axis=(0, 1))
        others.append(moved & ~marked)
    count = made.scores.shape[1]
    scores = [_about(box, _pass(detector, _gray(pixels, hidden), text, count), phrase) for hidden in (marked, *others)]
    return scores[0], float(np.mean(scores[1:]))


def _most(similarity: Float[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """The pixels of the highest values, `OCCLUDED` of all."""
    count = max(round(OCCLUDED * similarity.size), 1)
    marked = np.zeros(similarity.size, bool)
    marked[np.argsort(-similarity, axis=None, kind="stable")[:count]] = True
    return marked.reshape(similarity.shape)


def _gray(
    pixels: UInt8[np.ndarray, "height width 3"], hidden: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The image with the masked pixels replaced by its mean color."""
    out = pixels.copy()
    out[hidden] = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    return out


def _about(box: Float[np.ndarray, " 4"], made: _Pass, phrase: int) -> float:
    """The best score that the phrase has on a box about the same place; 0 where none is left."""
    low, high = np.maximum(made.boxes[:, :2], box[:2]), np.minimum(made.boxes[:, 2:], box[2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    area = np.prod(made.boxes[:, 2:] - made.boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    same = both >= 0.5 * np.maximum(area - both, 1e-6)
    return float(np.nan_to_num(made.scores[same, phrase], nan=0.0).max(initial=0.0))
