"""How fast `rizbin embed` is beside the bare network: images a second, from files and of batches that lie ready.

    .venv/bin/python benchmarks/embed.py [MODEL] [--images 128] [--side 480]

MODEL is any that `rizbin embed` takes; "vitb16" (the default) is an open_clip ViT-B-16 with random weights, made here.
The images are JPEGs of smoothed noise, 480x360 pixels (as COCO's, about), written into a temporary folder. Both are
measured in turns, three times each, and the medians are compared, so that a machine that slows down slows both.
Processor seconds are compared as well: on a machine that others use, they say what the wall clock cannot.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import rizbin
from rizbin.models.encoder import Encoder
from rizbin.vectors.encode import default_workers, encoded
from rizbin.workflows.load import load_encoder

ROUNDS = 3


def write_images(folder: Path, count: int, side: int) -> list[Path]:
    """JPEGs as large as photographs of that size are."""
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        noise = Image.fromarray(random.integers(0, 255, (24, 32, 3), np.uint8))
        path = folder / f"{number:05d}.jpg"
        noise.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(path, quality=90)
        paths.append(path)
    return paths


def encoder_of(name: str, device: str) -> Encoder:
    """The encoder, a ViT-B-16 of open_clip with random weights for "vitb16"."""
    if name != "vitb16":
        return load_encoder(name, device=device)
    import open_clip

    from rizbin.models.open_clip import OpenClipEncoder

    model = open_clip.create_model("ViT-B-16")
    return OpenClipEncoder(model, None, name=name).frozen(device)


def bare(encoder: Encoder, batch: int, count: int) -> tuple[float, float]:
    """Images a second, and a processor second, of the network alone on one batch that lies ready."""
    pixels = torch.zeros(batch, encoder.image_size, encoder.image_size, 3, dtype=torch.uint8)
    ready = encoder.normalized(pixels.to(encoder.device))
    began, busy = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for _ in range(count // batch):
            encoder.embeddings(ready).cpu()
    done = count // batch * batch
    return done / (time.perf_counter() - began), done / (time.process_time() - busy)


def from_files(encoder: Encoder, paths: list[Path], batch: int, workers: int) -> tuple[float, float]:
    """Images a second, and a processor second, from files to vectors."""
    batches = [[(path, path.name) for path in paths[start : start + batch]] for start in range(0, len(paths), batch)]
    began, busy = time.perf_counter(), time.process_time()
    rows = sum(len(rows.vectors) for rows in encoded(encoder, batches, workers=workers))
    assert rows == len(paths)
    return rows / (time.perf_counter() - began), rows / (time.process_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares rizbin embed with the bare network.")
    parser.add_argument("model", nargs="?", default="vitb16")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=480)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    encoder = encoder_of(given.model, given.device)
    print(
        f"rizbin {rizbin.__version__}, torch {torch.__version__}, {torch.get_num_threads()} thread(s), {given.device}"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), given.images, given.side)
        bare(encoder, given.batch, given.batch)
        rates = [
            (bare(encoder, given.batch, given.images), from_files(encoder, paths, given.batch, default_workers()))
            for _ in range(ROUNDS)
        ]
    for place, unit in enumerate(("second", "processor second")):
        alone, whole = (
            statistics.median(rates_of[place] for rates_of in values) for values in zip(*rates, strict=True)
        )
        print(f"{given.model}: network {alone:.1f} images a {unit}, from files {whole:.1f}: {whole / alone:.2f} of it")


if __name__ == "__main__":
    main()
