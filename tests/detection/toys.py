"""A Grounding DINO small enough for tests, and pictures of colored shapes."""

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rizbin.data.sample import LabeledObject, Sample
from rizbin.detection.models import DetectorSize, new_model, words_tokenizer
from rizbin.detection.phrases import PromptText, batch_of, build_prompts, read_phrases

COLORS, SHAPES = ("red", "green", "blue"), ("disc", "square")
TINY = DetectorSize(width=32, queries=10, feedforward=64, backbone_width=16, text_width=32, text_tokens=64)


@functools.cache
def tokenizer() -> Any:
    return words_tokenizer((*COLORS, *SHAPES, "cat", "dog", "a", "bird", "tree"))


def tiny(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return new_model(TINY, tokenizer(), image_size=64)


def text_of(*names: str) -> PromptText:
    (text,) = build_prompts(read_phrases(list(names)), tokenizer()).texts
    return text


def run(model: Any, images: torch.Tensor, texts: list[PromptText]) -> tuple[Any, torch.Tensor]:
    """The model's outputs, and the mask of its text."""
    ids, known = batch_of(texts)
    return model(pixel_values=images, input_ids=ids, attention_mask=known.long()), known


PAINTS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 220), "yellow": (230, 210, 50)}
FORMS = ("disc", "square", "triangle")


class Shapes:
    """One to four colored shapes of a fifth to a third of the side on a gray ground with noise; twelve names."""

    name = "shapes"
    fingerprint = "shapes"
    endless = True
    categories = tuple(sorted(f"{color} {form}" for color in PAINTS for form in FORMS))

    def __init__(self, first: int = 0, size: int = 96) -> None:
        self.first, self.size = first, size

    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng((7, self.first + index))
        side = self.size
        image = random.normal(128, 8, (side, side, 3))
        owner = np.full((side, side), -1)
        names = []
        for number in range(int(random.integers(1, 5))):
            color, form = random.choice(list(PAINTS)), random.choice(FORMS)
            across = int(side * random.uniform(0.2, 0.34))
            left, top = random.integers(0, side - across, 2)
            mask = np.zeros((side, side), np.uint8)
            if form == "disc":
                cv2.circle(mask, (int(left + across // 2), int(top + across // 2)), across // 2, 1, -1)
            elif form == "square":
                mask[top : top + across, left : left + across] = 1
            else:
                corners = [[left, top + across], [left + across, top + across], [left + across // 2, top]]
                cv2.fillPoly(mask, [np.array(corners, np.int32)], 1)
            inside = mask.astype(bool)
            image[inside] = np.array(PAINTS[color]) + random.normal(0, 8, (int(inside.sum()), 3))
            owner[inside] = number
            names.append(f"{color} {form}")
        things = []
        for number, name in enumerate(names):
            mask = owner == number
            if mask.sum() > 40:
                rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
                box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
                things.append(LabeledObject(name, box, mask))
        pixels = image.clip(0, 255).astype(np.uint8)
        return Sample(f"shapes/{index}", pixels, " and ".join(names), objects=tuple(things))


def save_sam(path: Path) -> None:
    """A SAM 2 with random weights, small enough for a test."""
    from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor

    torch.manual_seed(0)
    backbone = {
        "hidden_size": 16,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
        "model_type": "sam2_hiera_det_model",
    }
    vision: dict[str, Any] = {
        "backbone_config": backbone,
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    config = Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": 128},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 64, "iou_head_hidden_dim": 32, "num_attention_heads": 2},
    )
    model: Any = Sam2Model(config)
    model.save_pretrained(path)
    Sam2Processor(
        Sam2ImageProcessor(size={"height": 128, "width": 128}, mask_size={"height": 32, "width": 32}), target_size=128
    ).save_pretrained(path)
