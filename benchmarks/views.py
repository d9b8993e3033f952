"""Images augmented a second and core: our views against lightly's transforms, in one run.

    python benchmarks/views.py [--repeats 5] [--size 224] [--method dino]

The views of SimCLR (2), BYOL (2) and DINO (2 large and 8 small) with equal settings on both sides: areas and ratios of
crops, probabilities, strengths of color changes, blur, solarize. Both begin with images in memory and end with
normalized float tensors, a batch a view; lightly takes PIL's, as its documentation says, ours numpy's. One thread,
CPU seconds; the sides take turns. That each operation is torchvision's, to one level of 255, is held by
tests/data/test_views.py; crops are resized by other filters (area and bicubic here, antialiased bilinear and bicubic
there).
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform
from lightly.transforms.dino_transform import DINOTransform
from lightly.transforms.simclr_transform import SimCLRTransform
from PIL import Image
from torch import Tensor

from rizbin.core.environment import describe
from rizbin.data.scenes import Scenes
from rizbin.data.views import View, ViewSpec, normalize
from rizbin.methods.byol import BYOL
from rizbin.methods.dino import DINO
from rizbin.methods.simclr import SimCLR

Transform = Callable[[Image.Image], Any]
"""Of lightly: a tensor a view."""
LOCAL_CROPS = 8
PICTURES = ((256, 256), (375, 500), (500, 333), (320, 400))
"""Height and width, cut from scenes of the embedded world."""
GOAL = 3.0
"""How many times as fast as lightly ours must be."""


def pictures() -> list[np.ndarray]:
    world = Scenes(Scenes.Settings(size=512, preset="hard"))
    return [np.ascontiguousarray(world[n].image[:height, :width]) for n, (height, width) in enumerate(PICTURES)]


def settings(method: str, size: int) -> tuple[ViewSpec, Transform]:
    """Our views, and lightly's transform with the same settings (all of them its defaults)."""
    if method == "simclr":
        return (replace(SimCLR.Settings().view, size=size),) * 2, SimCLRTransform(input_size=size)
    if method == "byol":
        byol = BYOL.Settings()
        theirs = BYOLTransform(BYOLView1Transform(input_size=size), BYOLView2Transform(input_size=size))
        return (replace(byol.view_1, size=size), replace(byol.view_2, size=size)), theirs
    dino, small = DINO.Settings(), 96 if size == 224 else size // 2
    large = (replace(dino.global_view_1, size=size), replace(dino.global_view_2, size=size))
    theirs = DINOTransform(global_crop_size=size, local_crop_size=small, n_local_views=LOCAL_CROPS)
    return large + (replace(dino.local_view, size=small),) * LOCAL_CROPS, theirs


def ours(images: list[np.ndarray], spec: ViewSpec, random: np.random.Generator) -> list[Tensor]:
    """A batch a view, as the loader and the trainer make them."""
    views = [View(settings) for settings in spec]
    made = [[view(image, random)[0] for image in images] for view in views]
    return [normalize(torch.from_numpy(np.stack(squares))) for squares in made]


def theirs(images: list[Image.Image], transform: Transform) -> list[Tensor]:
    """A batch a view, as lightly's default collation makes them."""
    made = [transform(image) for image in images]
    return [torch.stack(squares) for squares in zip(*made, strict=True)]


def measure(method: str, size: int, repeats: int, batch: int = 32) -> tuple[list[float], list[float]]:
    """Images a CPU second: lightly's, ours."""
    spec, transform = settings(method, size)
    arrays = [image for image in pictures() for _ in range(batch // len(PICTURES))]
    loaded, random = [Image.fromarray(image) for image in arrays], np.random.default_rng(0)
    rates: tuple[list[float], list[float]] = ([], [])
    for count in range(repeats + 1):  # the first one warms up
        sides = (lambda: theirs(loaded, transform), lambda: ours(arrays, spec, random))
        for side, make in zip(rates, sides, strict=True):
            begin = time.process_time()
            views = make()
            taken = time.process_time() - begin
            assert [view.shape for view in views] == [(batch, 3, settings.size, settings.size) for settings in spec]
            if count:
                side.append(batch / taken)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="timed batches of 32 pictures on each side")
    parser.add_argument("--method", choices=("simclr", "byol", "dino"), help="this one alone")
    parser.add_argument("--size", type=int, choices=(224, 96), help="this side of the (large) views alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)  # lightly's blur and solarization draw from it
    machine = describe()
    where = f"{datetime.date.today()}, commit {machine['commit']}, {machine['cpu']}"
    print(f"{where}, one thread, pictures of {min(map(min, PICTURES))} to {max(map(max, PICTURES))} pixels\n")
    print("| method | side | lightly, pictures/s | rizbin, pictures/s | times as fast (range) | goal |")
    print("|--------|-----:|--------------------:|-------------------:|----------------------:|-----:|")
    for size in [options.size] if options.size else (224, 96):
        for method in [options.method] if options.method else ("simclr", "byol", "dino"):
            rival, own = measure(method, size, options.repeats)
            ratios = [b / a for a, b in zip(rival, own, strict=True)]
            middle = statistics.median(own) / statistics.median(rival)
            spread = f"{middle:.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            print(
                f"| {method:6} | {size:4} | {statistics.median(rival):19.0f} | {statistics.median(own):18.0f} "
                f"| {spread:>21} | {GOAL:4} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
