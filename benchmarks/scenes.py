"""How many scenes a second one core composes, captions and masks included.

The claim: 1,500 or more at 64 pixels, and 250 or more of the preset with detail at 96. CPU seconds of this one thread,
so that other work on the machine does not count.
Nobody else composes these scenes, so there is no rival in the table. For comparison: the small networks of the demo
learn from about 150 images of 64 pixels a second on two cores.
"""

import datetime
import os
import platform
import subprocess
import time
from dataclasses import replace

import cv2

from rizbin.data.scenes import CATEGORIES, Scenes

CASES = ((64, 1500), (96, 500), (128, 500), (224, 250), (512, 50))  # Side of the image, scenes to compose.
DETAILED = (96, 128, 224)
"""Sides at which the preset with detail is measured, too."""


def rate(settings: Scenes.Settings, count: int) -> float:
    """Scenes a second, best of three."""
    source = Scenes(settings)
    source[0]
    best = 0.0
    for repetition in range(3):
        began = time.thread_time()
        for index in range(repetition * count, (repetition + 1) * count):
            source[index]
        best = max(best, count / (time.thread_time() - began))
    return best


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    machine = f"{os.cpu_count()} x {platform.processor() or platform.machine()}"
    print(f"{datetime.date.today()}, commit {described.stdout.strip() or 'unknown'}, {machine}\n")
    print("| preset | distractors | side | categories | scenes a second and core |")
    print("|---|---|---|---|---|")
    for side, count in CASES:
        easy = Scenes.Settings(preset="easy", size=side, categories=32)
        hard = Scenes.Settings(preset="hard", size=side, categories=len(CATEGORIES))
        cases = [easy, hard]
        if side in DETAILED:
            detail = Scenes.Settings(preset="detail", size=side, categories=32)
            cases += [detail, replace(detail, distractors=4)]
        for settings in cases:
            scenes = rate(settings, count)
            print(
                f"| {settings.preset} | {settings.distractors} | {side} | {settings.categories} | {scenes:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
