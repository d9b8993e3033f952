"""Images loaded a second and core from webdataset tars: our loader, plain webdataset, and open_clip's own, in one run.

    pip install 'webdataset<=0.2.86' braceexpand pandas      # open_clip's loader needs all three, and no newer one
    python benchmarks/loader.py [--images 480] [--seconds 6] [--rounds 3] [--side 400]

The same shards are read by all: JPEGs (quality 90) cut from the hard scenes, each with a caption. All three decode,
take a random crop of 90 to 100 percent of the area at 224 pixels, tokenize the caption and end with normalized float
tensors of 32 images. Theirs cut and resize with torchvision (PIL, bicubic) and shuffle within a buffer; ours reads in a
random order over all shards, cuts numpy's arrays and resizes by area or bicubically. One process, one thread, in turns;
on a machine that others use, the seconds of the processor are those to compare.
"""

import argparse
import importlib
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import open_clip
import torch
from PIL import Image
from torch import Tensor

import rizbin
from rizbin.core.environment import describe
from rizbin.data.loader import Loader
from rizbin.data.scenes import Scenes
from rizbin.data.shards import Shards
from rizbin.data.tokens import Tokenizer
from rizbin.data.views import View, normalize

NEEDED = ("'webdataset<=0.2.86'", "braceexpand", "pandas")
SIZE, BATCH, SHARDS = 224, 32, 4
Batches = Iterator[tuple[Tensor, Tensor]]


def write_shards(folder: Path, count: int, side: int) -> str:
    """Tars of JPEGs and captions; the pattern that names them."""
    world = Scenes(Scenes.Settings(size=side, preset="hard"))
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as file:
            for number in range(shard, count, SHARDS):
                sample = world[number]
                image = io.BytesIO()
                Image.fromarray(sample.image[: side * 3 // 4]).save(image, "JPEG", quality=90)
                for ending, data in (("jpg", image.getvalue()), ("txt", sample.caption.encode())):
                    member = tarfile.TarInfo(f"{number:09d}.{ending}")
                    member.size = len(data)
                    file.addfile(member, io.BytesIO(data))
    return f"{folder}/{{00000..{SHARDS - 1:05d}}}.tar"


def ours(pattern: str, count: int) -> Batches:
    """An epoch of Rizbin's loader; what the trainer does on the device, the normalization, is done here as well."""
    view = View.Settings(size=SIZE, crop_area=(0.9, 1.0), crop_ratio=(3 / 4, 4 / 3))
    source, tokenizer = Shards(pattern, split="all", size=SIZE), Tokenizer(Tokenizer.Settings(context=77))
    for batch in Loader(source, (view,), tokenizer, seed=0, batch=BATCH, steps=count // BATCH):
        assert batch.texts is not None
        yield normalize(batch.views[0]), batch.texts


def plain(pattern: str, count: int) -> Batches:
    """An epoch of webdataset as its documentation writes it."""
    wds: Any = importlib.import_module("webdataset")
    transform, tokenizer = open_clip.image_transform(SIZE, is_train=True), open_clip.get_tokenizer("ViT-B-32")
    dataset = (
        wds.WebDataset(pattern, shardshuffle=SHARDS)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "txt")
        .map_tuple(transform, lambda text: tokenizer(text)[0])
        .batched(BATCH, partial=False)
    )
    yield from wds.WebLoader(dataset, batch_size=None, num_workers=0)


def of_open_clip(pattern: str, count: int) -> Batches:
    """An epoch of the loader that open_clip trains with."""
    data: Any = importlib.import_module("open_clip_train.data")
    given = SimpleNamespace(
        train_data=pattern,
        train_num_samples=count,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=0,
        batch_size=BATCH,
        world_size=1,
    )
    transform, tokenizer = open_clip.image_transform(SIZE, is_train=True), open_clip.get_tokenizer("ViT-B-32")
    yield from data.get_wds_dataset(given, transform, is_train=True, floor=True, tokenizer=tokenizer).dataloader


LOADERS: dict[str, Callable[[str, int], Batches]] = {
    "rizbin": ours,
    "webdataset": plain,
    "open_clip": of_open_clip,
}


def rate(load: Callable[[str, int], Batches], pattern: str, count: int, seconds: float) -> tuple[float, float]:
    """Images a second, by the clock and by the processor, over epochs until the time is over."""
    images, began, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        for pixels, texts in load(pattern, count):
            assert pixels.shape == (BATCH, 3, SIZE, SIZE) and pixels.dtype == torch.float32 and len(texts) == BATCH
            images += BATCH
            if time.perf_counter() - began >= seconds:
                break
    return images / (time.perf_counter() - began), images / (time.process_time() - busy)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares loaders of webdataset tars.")
    parser.add_argument("--images", type=int, default=480)
    parser.add_argument("--side", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for needed in ("webdataset", "braceexpand", "pandas"):
        try:
            importlib.import_module(needed)
        except ImportError:
            print(f"{needed} is not installed, so nothing is measured: pip install {' '.join(NEEDED)}")
            return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    processor = describe().get("cpu", "this processor")
    print(f"rizbin {rizbin.__version__}, torch {torch.__version__}, one thread of {processor}")
    with tempfile.TemporaryDirectory() as folder:
        pattern = write_shards(Path(folder), given.images, given.side)
        for load in LOADERS.values():  # imports, indices and the cache of files
            rate(load, pattern, given.images, 0.1)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADERS}
        for _ in range(given.rounds):
            for name, load in LOADERS.items():
                rates[name].append(rate(load, pattern, given.images, given.seconds))
    middle = {
        name: tuple(statistics.median(values) for values in zip(*taken, strict=True)) for name, taken in rates.items()
    }
    print("| loader | images a processor second | of ours | images a second by the clock |")
    print("|---|---:|---:|---:|")
    for name, (clock, processor) in middle.items():
        print(f"| {name} | {processor:.0f} | {processor / middle['rizbin'][1]:.2f} | {clock:.0f} |")


if __name__ == "__main__":
    main()
