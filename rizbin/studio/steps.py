"""The steps of a drawing as files and events while it is drawn.

What is expected, the noise, what guidance adds, where words are read; of gradient ascent the image as it climbs.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rizbin.generation.ascent.ascend import AscentFrame
from rizbin.generation.diffusion.sampling import DenoisingFrame
from rizbin.generation.diffusion.spans import objects_in, spans_of
from rizbin.generation.diffusion.text_to_image import TextToImage
from rizbin.generation.film import write_png
from rizbin.visualization.attention import overlay

FRAMES = 60
"""Steps of an ascent that are shown, beside its first ten, in which most is decided."""


class Steps:
    """The `watch` of a drawing: writes some kinds of images a step and says so."""

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
        if frame.without_prompt is not None and frame.with_prompt is not None:
            for name, latents in (("without", frame.without_prompt), ("with", frame.with_prompt)):
                write_png(text_to_image.decode(latents), self.folder / f"{stem}-{name}.png")
                event[name] = f"steps/{stem}-{name}.png"
            event["change"] = round(frame.noise_change or 0.0, 4)
        if frame.attention is not None:
            spans, _ = spans_of(prompt, objects_in(prompt), text_to_image.pipeline.tokenizer)
            for place, span in enumerate(spans):
                values = np.asarray(frame.attention[..., list(span.tokens)].mean(dim=-1).float())
                write_png(overlay(seen, values), self.folder / f"{stem}-word{place}.png")
                event["words"].append({"word": span.word, "file": f"steps/{stem}-word{place}.png"})
        self.number += 1
        self.say(json.loads(json.dumps(event)))


class AscentSteps:
    """The `watch` of a gradient ascent: writes the images as they climb and says so."""

    def __init__(self, folder: Path, say: Callable[[dict[str, Any]], None], count: int, prompts: Sequence[str]) -> None:
        """count: images of each prompt, which tells where among the results an image will stand."""
        self.folder, self.say, self.count, self.prompts = folder / "steps", say, count, prompts

    def __call__(self, frame: AscentFrame, number: int) -> None:
        """Called after each step of the images of one seed."""
        if not (frame.step <= 10 or frame.step % max(1, frame.steps // FRAMES) == 0 or frame.step == frame.steps):
            return
        for place, pixels in enumerate(frame.images):
            image = place * self.count + number
            name = f"{image:03d}-{frame.step:06d}.png"
            write_png(pixels, self.folder / name)
            self.say(
                {
                    "kind": "step",
                    "image": image,
                    "step": frame.step - 1,
                    "steps": frame.steps,
                    "score": round(frame.score, 4),
                    "prompt": self.prompts[place],
                    "seen": f"steps/{name}",
                    "words": [],
                }
            )
