"""The steps of a drawing as files and events while it is drawn: what is expected, the noise, where words are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rizbin.generation.diffusion.sampling import DenoisingFrame
from rizbin.generation.diffusion.spans import objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import write_png
from rizbin.visualization.attention import overlay


class Steps:
    """The `watch` of a drawing: writes three kinds of images a step and says so."""

    def __init__(self, folder: Path, say: Callable[[dict[str, Any]], None]) -> None:
        self.folder, self.say = folder / "steps", say
        self.number, self.image = 0, 0

    def __call__(self, text_to_image: TextToImage, prompt: str, frame: DenoisingFrame) -> None:
        """Called after each step of each image."""
        if frame.step == 0 and self.number:
            self.image += 1
        stem = f"{self.number:05d}"
        seen = text_to_image.decode(frame.clean)
        write_png(seen, self.folder / f"{stem}-seen.png")
        event: dict[str, Any] = {
            "kind": "step",
            "image": self.image,
            "step": frame.step,
            "t": round(frame.timestep),
            "prompt": prompt,
            "seen": f"steps/{stem}-seen.png",
            "words": [],
        }
        if frame.noisy is not None:
            write_png(text_to_image.decode(frame.noisy), self.folder / f"{stem}-noisy.png")
            event["noisy"] = f"steps/{stem}-noisy.png"
        if frame.attention is not None:
            spans, _ = spans_of(prompt, objects_in(prompt), text_to_image.pipeline.tokenizer)
            for place, span in enumerate(spans):
                values = np.asarray(frame.attention[..., list(span.tokens)].mean(dim=-1).float())
                write_png(overlay(seen, values), self.folder / f"{stem}-word{place}.png")
                event["words"].append({"word": span.word, "file": f"steps/{stem}-word{place}.png"})
        self.number += 1
        self.say(json.loads(json.dumps(event)))
