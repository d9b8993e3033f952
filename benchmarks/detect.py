"""Finding by words against transformers, in CPU seconds of one thread and one run.

The forward: Grounding DINO (MM) of the published tiny size with random weights, one image of 480x640 and ten phrases.
The whole: ten phrases in one image by `Detector.detect`, against transformers' zero-shot-object-detection pipeline on
the same network (`--small`: the network of the tests instead of the published size, a minute instead of five).

    OMP_NUM_THREADS=1 python benchmarks/detect.py
"""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    pipeline,
)

from rizbin.detection.detector import Detector, Preparation
from rizbin.detection.fast import disable_fast_attention, enable_fast_attention
from rizbin.detection.models import DetectorSize, new_model, words_tokenizer

PHRASES = ["a cat", "a dog", "a bus", "a tree", "a red car", "a person", "a remote", "a blue cup", "a chair", "a bird"]
REPEATS = 3


def seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """CPU seconds of one call: the median of some, after one that warms up."""
    work()
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        spent.append(time.process_time() - begin)
    return median(spent)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = words_tokenizer({word for phrase in PHRASES for word in phrase.split()})
    if "--small" in sys.argv:
        model, shorter = new_model(DetectorSize(), tokenizer, image_size=96), 96
    else:
        model, shorter = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig()), 480
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    detector = Detector(model, tokenizer, Preparation(shorter=shorter, longer=2 * shorter))
    (text,) = detector.build_prompts(PHRASES).texts
    ids = torch.tensor([text.ids])
    pixels = torch.randn(1, 3, *detector.preparation.size(480, 640))

    def forward() -> Any:
        with torch.inference_mode():
            return model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))

    fast, mine = seconds(forward), forward()
    disable_fast_attention(model)
    stock, theirs = seconds(forward), forward()
    valid = theirs.enc_outputs_class.isfinite()
    apart = max(
        (mine.encoder_last_hidden_state_vision - theirs.encoder_last_hidden_state_vision).abs().max().item(),
        (mine.enc_outputs_class[valid] - theirs.enc_outputs_class[valid]).abs().max().item(),
    )
    # Random weights give proposals that all but tie: where two change places, the decoder begins otherwise.
    same = ((mine.pred_boxes - theirs.pred_boxes).abs().amax(dim=-1) < 1e-4).float().mean().item()
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"forward, {parameters:.1f} million parameters, {tuple(pixels.shape[2:])}: transformers {stock:.2f} s,")
    print(f"  rizbin {fast:.2f} s: {stock / fast:.2f} times as fast")
    print(f"  largest difference of the encoder's outputs {apart:.1e}, boxes equal to 1e-4: {same:.1%}")

    size = {"shortest_edge": shorter, "longest_edge": 2 * shorter}
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(size=size, do_pad=False), tokenizer)
    theirs = pipeline(
        "zero-shot-object-detection",
        model=model,
        image_processor=processor.image_processor,
        tokenizer=tokenizer,
        processor=processor,
        device="cpu",
    )
    pipelined = seconds(lambda: theirs(image, candidate_labels=PHRASES), 1)
    enable_fast_attention(model)
    whole = seconds(lambda: detector.detect([image], PHRASES))
    print(f"ten phrases: the pipeline {pipelined:.2f} s, rizbin {whole:.2f} s: {pipelined / whole:.1f} times as fast")


if __name__ == "__main__":
    main()
