"""From boxes to masks by SAM 2 (arXiv 2408.00714) through transformers; COCO's run lengths and polygons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float

from rizbin.core.errors import RizbinError
from rizbin.detection.detector import ImageLike, pixels_of, quietly
from rizbin.nets.foreign import transformers_config, transformers_model, transformers_processor

DEFAULT = "facebook/sam2.1-hiera-tiny"
"""Apache-2.0, 39 million parameters."""
AT_ONCE = 64
"""Boxes that are decoded together."""


class Segmenter:
    """A SAM 2 and its processor."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def from_pretrained(cls, what: str | Path = DEFAULT, *, device: str = "cpu") -> "Segmenter":
        """Loads a segmenter by its name on Hugging Face or from a folder. Raises RizbinError when there is none, or
        it is another model."""
        try:
            from transformers import Sam2Model, Sam2Processor
        except ImportError as error:
            raise RizbinError(
                "Masks need transformers, which is not installed: pip install 'rizbin[detect]' brings it."
            ) from error

        kind = transformers_config(what).model_type
        # The published folders hold the model for videos; its image part is the same.
        if kind not in ("sam2", "sam2_video"):
            raise RizbinError(f"{what} is a {kind}, not a SAM 2; give one such as {DEFAULT}.")
        with quietly():
            model = transformers_model(Sam2Model, what, heads=True, dtype=torch.float32)
            processor = transformers_processor(Sam2Processor, what)
        moved: Any = model
        return cls(moved.to(device), processor)

    @torch.inference_mode()
    def masks(
        self, image: ImageLike, boxes: Float[np.ndarray, "boxes 4"]
    ) -> tuple[Bool[np.ndarray, "boxes height width"], Float[np.ndarray, " boxes"]]:
        """The mask of each box, and SAM's own guess of its overlap with the true one, 0 to 1.

        boxes: left, top, right, bottom in pixels. The image is encoded once.
        """
        pixels = pixels_of(image)
        height, width = pixels.shape[:2]
        if not len(boxes):
            return np.zeros((0, height, width), bool), np.zeros(0, np.float32)
        device = next(self.model.parameters()).device
        embeddings: Any = None
        masks, scores = [], []
        for start in range(0, len(boxes), AT_ONCE):
            some = boxes[start : start + AT_ONCE]
            inputs = self.processor(
                images=pixels.copy(), input_boxes=[some.astype(float).tolist()], return_tensors="pt"
            )
            if embeddings is None:
                embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(device))
            outputs = self.model(
                image_embeddings=embeddings, input_boxes=inputs["input_boxes"].to(device), multimask_output=False
            )
            masks_of_some = self.processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"])[0]
            masks.append(masks_of_some[:, 0].numpy().astype(bool))
            scores.append(outputs.iou_scores[0, :, 0].float().cpu().numpy())
        return np.concatenate(masks), np.concatenate(scores)


def run_lengths(mask: Bool[np.ndarray, "height width"]) -> dict[str, Any]:
    """COCO's compressed run lengths: {"size": [height, width], "counts": text}, as pycocotools writes them."""
    height, width = mask.shape
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)  # runs of 0 come first
    text = bytearray()
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append((bits | (32 if more else 0)) + 48)
    return {"size": [height, width], "counts": text.decode("ascii")}


def polygons(mask: Bool[np.ndarray, "height width"]) -> list[list[float]]:
    """The outlines of a mask's parts as COCO has them, [x, y, x, y, ...] in pixels; holes are filled.

    Corners lie on the outer edges of pixels, as COCO counts: a square of 3 pixels has a side of 3.
    """
    # Twice as large, the first and the second half of a pixel tell its left edge from its right one.
    large = np.pad(np.kron(mask.astype(np.uint8), np.ones((2, 2), np.uint8)), 1)
    outlines, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    halves = [(outline[:, 0] - 1) / 2 for outline in outlines]
    return [np.where(half % 1 == 0, half, half + 0.5).reshape(-1).astype(float).tolist() for half in halves]


def tinted(
    image: np.ndarray, masks: Sequence[np.ndarray], colors: Sequence[tuple[int, int, int]], *, strength: float = 0.45
) -> np.ndarray:
    """The image with each mask in its color, the first on top."""
    out = image.astype(np.float32)
    for mask, color in list(zip(masks, colors, strict=True))[::-1]:
        out[mask] = (1 - strength) * out[mask] + strength * np.array(color, np.float32)
    return out.astype(np.uint8)
