"""What a detector found in an image: every box with its score for every phrase, from which answers are chosen later.

A threshold, a class's own threshold and the suppression of boxes that cover the same object cost nothing here, so that
they can be tried without another pass through the network.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torchvision.ops import batched_nms

from rizbin.core.errors import RizbinError
from rizbin.detection.average_precision import Boxes
from rizbin.detection.phrases import Phrase

THRESHOLD = 0.3
"""Lowest score of an answer; what the demos of Grounding DINO use is 0.25 to 0.35."""
NMS_IOU = 0.7
"""Intersection over union from which two boxes of one name count as the same object."""


@dataclass(frozen=True)
class Detections:
    """Boxes with their names, the best first."""

    boxes: Float[np.ndarray, "answers 4"]
    """Left, top, right, bottom in pixels of the image, inside it."""
    classes: Int[np.ndarray, " answers"]
    """Positions in the list of phrases that was asked for."""
    scores: Float[np.ndarray, " answers"]
    """0 to 1."""
    names: tuple[str, ...]
    """Names of all phrases that were asked for; `names[classes[i]]` is that of the i-th answer."""
    rows: Int[np.ndarray, " answers"]
    """Which box of `Proposals` each answer is: its scores for the other phrases stand there."""

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def labels(self) -> list[str]:
        """The name of each answer."""
        return [self.names[number] for number in self.classes]

    def to_supervision(self) -> Any:
        """The same as `supervision.Detections`, with the names in `data["class_name"]`.

        supervision's own `from_transformers` fails on Grounding DINO's output (0.31). Raises RizbinError when the
        package is missing.
        """
        try:
            supervision: Any = importlib.import_module("supervision")
        except ImportError as error:
            raise RizbinError("supervision is not installed: pip install supervision brings it.") from error
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            confidence=self.scores.astype(np.float32),
            class_id=self.classes.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )


@dataclass(frozen=True)
class Proposals:
    """All that the network proposes for one image."""

    width: int
    """Width of the image in pixels."""
    height: int
    """Height of the image in pixels."""
    boxes: Float[np.ndarray, "boxes 4"]
    """Boxes in the form of `Detections`."""
    scores: Float[np.ndarray, "boxes phrases"]
    """0 to 1; nan where this box comes from a pass that did not ask for that phrase."""
    phrases: tuple[Phrase, ...]
    notes: tuple[str, ...] = field(default=())
    """What the reader should know: phrases asked for in several passes, cut ones, unknown words."""
    unasked: tuple[int, ...] = ()
    """Positions of phrases that the network was not asked for, as it does not know their words."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the phrases, in their order."""
        return tuple(phrase.name for phrase in self.phrases)

    def choose(
        self,
        threshold: float = THRESHOLD,
        *,
        thresholds: Mapping[str, float] | None = None,
        nms_iou: float = NMS_IOU,
        several: bool = False,
    ) -> Detections:
        """The boxes whose best phrase reaches its threshold, those that repeat a better one of that name left out.

        thresholds: for single names, instead of `threshold`. nms_iou: see `NMS_IOU`; 1 removes none. several: a box may
        answer for every phrase that reaches its threshold, not only for the best. Raises RizbinError for a name that
        was not asked for and for numbers that are no shares.
        """
        own = dict(thresholds or {})
        for name, value in {"threshold": threshold, "nms_iou": nms_iou, **own}.items():
            if not 0 <= value <= 1:
                raise RizbinError(f"{name} is {value:g}; give a share from 0 to 1.")
        if strange := set(own) - set(self.names):
            raise RizbinError(
                f"There is a threshold for {', '.join(sorted(strange))}, which was not looked for; "
                f"there are {', '.join(self.names)}."
            )
        least = np.array([own.get(name, threshold) for name in self.names])
        scores = np.nan_to_num(self.scores, nan=-1.0)
        reached = scores >= least[None]
        if not several and scores.shape[1]:
            # The best among those that reach their own threshold: a strict name leaves the box to the next one.
            best = np.where(reached, scores, -1.0).argmax(axis=1)
            reached &= best[:, None] == np.arange(scores.shape[1])[None]
        rows, classes = np.nonzero(reached)
        values = scores[rows, classes]
        if nms_iou < 1 and len(rows):
            order = batched_nms(
                torch.from_numpy(self.boxes[rows]).float(),
                torch.from_numpy(values).float(),
                torch.from_numpy(classes),
                nms_iou,
            ).numpy()
        else:
            order = np.argsort(-values, kind="stable")
        rows, classes, values = rows[order], classes[order], values[order]
        return Detections(self.boxes[rows], classes, values, self.names, rows)

    def pairs(self, most: int = 300) -> Boxes:
        """The best pairs of box and phrase without threshold or suppression: what COCO's protocol measures."""
        scores = np.nan_to_num(self.scores, nan=-1.0)
        order = np.argsort(-scores, axis=None, kind="stable")[:most]
        rows, classes = np.unravel_index(order, scores.shape)
        valid = scores[rows, classes] >= 0
        rows, classes = rows[valid], classes[valid]
        return Boxes(self.boxes[rows], classes, scores=scores[rows, classes])
