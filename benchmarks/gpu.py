"""One GPU, ten minutes: what a step of DetailCLIP costs, and what each of its techniques adds from one start.

    python benchmarks/gpu.py --output runs/gpu [--minutes 10] [--parts speed branches] [--data scenes:hard]
    python benchmarks/gpu.py --output runs/dry --dry-run

speed: images a second, share of the GPU's peak (MFU) and peak memory of a training step at 224 px in bf16: open_clip's
CLIP and DetailCLIP with its teacher at full and at half resolution, ViT-S/16 and ViT-B/16, with and without
torch.compile of the transformer blocks. MFU is the arithmetic that a step makes (torch's FlopCounterMode, 2 for a
multiply and add) by its seconds and by the peak, which stands in the table.
branches: CLIP is trained on rendered images; from that one checkpoint go on CLIP, each technique alone, and all
together, each for equally many steps; each is measured with rizbin.evaluation. Images are rendered once, by the CPUs,
and lie on the GPU, so that data hold nothing up.

results.json and results.md in the output folder (--output, else the environment's OUT) are written after every row. The
same command goes on where it ended: rows that are there are not made again. Rows for which no time is left are listed.
"""

import argparse
import gc
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

CAPTION = "a photo of a small brown dog left of two red cars in front of an old stone house"
PEAKS = {"H200": 989e12, "H100": 989e12, "GH200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 operations a second by the makers' data sheets (SXM where there are several)."""
SPEED_SHARE = 0.45
"""Of the minutes, for the part "speed"."""
PATIENCE = 1.5
"""A branch ends early after so many times the seconds that its steps were to take."""
WANTED = (
    "zero_shot/top1",
    "zero_shot/map",
    "retrieval/*/r1",
    "probe/top1",
    "segmentation/*miou",
    "segmentation/zero_shot/*",
    "boundary/*",
    "words/*",
    "sizes/*",
    "localization/*",
)


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    batch: int = 256
    """Images in a step of the part "speed"."""
    timed: int = 10
    """Timed steps there, after `warm` others."""
    warm: int = 3
    backbones: tuple[str, ...] = ("vits16", "vitb16")
    scenes: int = 60_000
    """Training images of the part "branches"."""
    side: int = 128
    """Their side in pixels."""
    branch_batch: int = 512
    test: int = 1000
    """Images to measure on, and as many of the training source for probes and thresholds."""
    most_steps: int = 100_000
    """Of a branch."""


DRY = Size(batch=4, timed=1, warm=1, backbones=("vits16",), scenes=24, side=64, branch_batch=8, test=16, most_steps=2)


class Table:
    """The rows that are there, in files that are whole after every row."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.rows: dict[str, dict[str, dict[str, Any]]] = {"speed": {}, "branches": {}}
        self.left_out: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "results.json").exists():
            before = json.loads((folder / "results.json").read_text())
            self.rows |= before["rows"]
            self.facts = {**before["facts"], **facts}

    def add(self, part: str, name: str, row: dict[str, Any]) -> None:
        """Writes the files with this row and prints it."""
        self.rows[part][name] = row
        shown = ", ".join(f"{key} {format_number(value)}" for key, value in row.items())
        print(f"{part}: {name}: {shown}", flush=True)
        self.write()

    def skip(self, part: str, name: str) -> None:
        """Says that no time is left for a row."""
        self.left_out.append(f"{part}: {name}")
        print(f"{part}: {name}: left out, no time left", flush=True)
        self.write()

    def write(self) -> None:
        content = {"facts": self.facts, "rows": self.rows, "left_out": self.left_out}
        lines = ["# One GPU", "", *(f"- {key}: {value}" for key, value in self.facts.items())]
        for part, rows in self.rows.items():
            if not rows:
                continue
            columns = list(dict.fromkeys(key for row in rows.values() for key in row))
            # The branches have more measurements than there are branches: those stand in rows.
            names = list(rows)
            lines += ["", f"## {part}", ""]
            if part == "branches":
                lines += ["| measurement | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
                for key in columns:
                    cells = [format_number(rows[name].get(key, "-")) for name in names]
                    lines.append(f"| {key} | " + " | ".join(cells) + " |")
            else:
                lines += ["| step | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
                for name in names:
                    cells = [format_number(rows[name].get(key, "-")) for key in columns]
                    lines.append(f"| {name} | " + " | ".join(cells) + " |")
        if self.left_out:
            lines += ["", "Left out for lack of time:", "", *(f"- {name}" for name in self.left_out)]
        write_whole(self.folder / "results.md", "\n".join(lines) + "\n")
        write_whole(self.folder / "results.json", json.dumps(content, indent=1))


def write_whole(path: Path, text: str) -> None:
    """Replaces a file, so that a stop at any moment leaves the old or the new one."""
    draft = path.with_name(f".{path.name}")
    draft.write_text(text, "utf-8")
    draft.replace(path)


def format_number(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 10 else f"{value:,.1f}"


class Clock:
    """The minutes that are left."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    def left(self) -> float:
        """Seconds."""
        return self.end - time.perf_counter()


# --- speed ------------------------------------------------------------------------------------------------------------


def pair_settings(backbone: str, dry: bool) -> Any:
    """The two towers of a preset; in a dry run small ones of the same kinds."""
    from rizbin.workflows.presets import preset

    pair = preset("clip", backbone).settings.pair
    if not dry:
        return pair
    vision = replace(pair.vision, name="test_vit", image_size=160)
    return replace(pair, vision=vision, text=replace(pair.text, width=64, layers=1, heads=2), embedding=64)


def rizbin_step(device: Any, backbone: str, size: Size, dry: bool, compiled: bool, **changes: Any) -> Callable[[], Any]:
    """One step of DetailCLIP as the trainer makes it, on random images that lie on the device."""
    import torch

    from rizbin import methods
    from rizbin.training.method import Batch
    from rizbin.training.trainer import Trainer
    from rizbin.workflows.presets import preset

    training = preset("detailclip", backbone)
    if dry:
        changes |= {"prototypes": 32, "head_hidden": 32, "head_bottleneck": 16, "decoder_width": 64}
    settings = replace(training.settings, pair=pair_settings(backbone, dry), **changes)
    method = methods.find("detailclip")(settings).to(device).train()
    if compiled:
        compile_all(method, dry)
    trainer = Trainer(training.trainer, batch=size.batch, steps=1000, checkpoint_every=0, seed=0)
    trainer.device = device
    optimizers = trainer.optimizers(method)
    assert method.tokenizer is not None
    texts = method.tokenizer.trim(method.tokenizer.encode([CAPTION] * size.batch)).to(device)
    sides = [view.size for view in method.views]
    views = [torch.randn(size.batch, 3, side, side, device=device) for side in sides]
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0], device=device).expand(len(views), size.batch, 4)
    flips = torch.zeros(len(views), size.batch, dtype=torch.bool, device=device)
    batch = Batch(views, whole, flips, texts)
    # The middle of the run: a technique that starts late runs as well.
    return lambda: float(trainer.step(method, optimizers, batch, 900)["loss"])


def open_clip_step(device: Any, backbone: str, size: Size, dry: bool, compiled: bool) -> Callable[[], Any]:
    """One step of open_clip's CLIP with the same towers, as its training loop makes it with --precision amp_bf16."""
    import torch
    from open_clip import CLIP, get_tokenizer
    from open_clip.loss import ClipLoss

    from rizbin.nets.export import open_clip_config

    config = open_clip_config(pair_settings(backbone, dry))["model_cfg"]
    model = CLIP(**config, output_dict=True).to(device).train()
    if compiled:
        compile_all(model, dry)
    decay = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    keep = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.5}, {"params": keep, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-8)
    contrastive_loss = ClipLoss()
    tokens = get_tokenizer("ViT-B-16")([CAPTION] * size.batch).to(device)
    side = pair_settings(backbone, dry).vision.image_size
    images = torch.randn(size.batch, 3, side, side, device=device)

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = contrastive_loss(**model(images, tokens))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def compile_all(model: Any, dry: bool) -> None:
    """Compiles each transformer block in place, of open_clip's towers as of ours."""
    from rizbin.training.sharding import blocks

    for block in blocks(model):
        block.compile(backend="eager" if dry else "inductor")


MODELS: dict[str, Callable[..., Callable[[], Any]]] = {
    "open_clip CLIP": open_clip_step,
    "DetailCLIP, full teacher": lambda *given: rizbin_step(*given, teacher_resolution="full"),
    "DetailCLIP, half-resolution teacher": lambda *given: rizbin_step(*given, teacher_resolution="half"),
}


def speed(table: Table, clock: Clock, device: Any, size: Size, dry: bool, share: float) -> None:
    """Measures the rows of the first part, the quick ones first, in this share of the minutes."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    end = clock.left() * (1 - share)
    peak = table.facts["peak TFLOP/s"] * 1e12
    for compiled in (False, True):
        for backbone in size.backbones:
            for name, make in MODELS.items():
                row = f"{backbone}, {name}{', compiled' if compiled else ''}"
                plain = table.rows["speed"].get(f"{backbone}, {name}", {})
                if row in table.rows["speed"] or "failed" in plain:
                    continue
                if clock.left() - end < (40 if compiled else 10) and not dry:
                    table.skip("speed", row)
                    continue
                try:
                    began = time.perf_counter()
                    torch.manual_seed(0)
                    step = make(device, backbone, size, dry, compiled)
                    numbers = time_step(step, device, size)
                    if not compiled:
                        with FlopCounterMode(display=False) as counter:
                            step()
                        numbers["TFLOP a step"] = counter.get_total_flops() / 1e12
                    else:  # the same arithmetic, which a compiled block hides from the counter
                        numbers["TFLOP a step"] = plain.get("TFLOP a step", float("nan"))
                    numbers["MFU %"] = 100 * numbers["TFLOP a step"] * 1e12 / numbers["ms a step"] * 1e3 / peak
                    base = table.rows["speed"].get(f"{backbone}, open_clip CLIP", numbers)
                    numbers["x open_clip"] = numbers["ms a step"] / base.get("ms a step", float("nan"))
                    numbers["seconds to build"] = time.perf_counter() - began
                    table.add("speed", row, numbers)
                except (torch.OutOfMemoryError, RuntimeError) as problem:
                    table.add("speed", row, {"failed": str(problem).splitlines()[0][:100]})
                step = None
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch._dynamo.reset()


def time_step(step: Callable[[], Any], device: Any, size: Size) -> dict[str, float]:
    """Median milliseconds of a step, images a second and peak memory."""
    import torch

    for _ in range(size.warm):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(size.timed):
        begin = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    median = sorted(seconds)[len(seconds) // 2]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return {"images/s": size.batch / median, "ms a step": 1000 * median, "peak GiB": peak}


def matmul_peak(device: Any, dry: bool) -> float:
    """bf16 operations a second of a large product of matrices: the highest that this device shows."""
    import torch

    side = 256 if dry else 8192
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(2 if dry else 20):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        torch.matmul(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best


# --- branches ---------------------------------------------------------------------------------------------------------

_OFF = {"selection": "none", "distillation": False, "reconstruction": False}
_ALL = {"selection": "attention", "distillation": True, "reconstruction": True}
_PAPER = {
    **_ALL,
    **{"contrast_view": "masked", "view_count": 2, "hide": "removed", "teacher_resolution": "full"},
    **{"patch_target": "prototypes", "head_norm": False, "low_resolution": 1, "decoder_blocks": 1},
    **{"phrase_weight": 0.0, "cls_weight": 1.0, "visible_weight": 0.0},
}
BRANCHES: dict[str, dict[str, Any]] = {
    "CLIP": {**_OFF, "phrase_weight": 0.0},
    # The phrase term is none of the three techniques; the rows below have it too.
    "CLIP and phrases": _OFF,
    "+ token removal": {**_OFF, "selection": "attention"},
    "+ distillation": {**_OFF, "distillation": True},
    "+ reconstruction": {**_OFF, "reconstruction": True},
    "all three": _ALL,
    "the paper's setting": _PAPER,
}
START = "CLIP"


def branch_settings(name: str, size: Size, dry: bool) -> Any:
    """The small recipe on a ViT-S/8, with this branch's techniques, all from the first step: the start is trained."""
    from rizbin.workflows.presets import preset

    training = preset("detailclip", "small")
    settings = training.settings
    if not dry:
        vision = replace(settings.pair.vision, name="vit_small_patch8_224", image_size=size.side)
        text = replace(settings.pair.text, width=256, layers=4, heads=8)
        pair = replace(settings.pair, vision=vision, text=text, embedding=256)
        settings = replace(settings, pair=pair, prototypes=2048, head_hidden=1024, head_bottleneck=256)
        settings = replace(settings, decoder_width=384, decoder_heads=6)
    return replace(training, settings=replace(settings, late_start=0.0, **BRANCHES[name]))


class Rendered:
    """Images of a source, rendered once and kept."""

    endless = False

    def __init__(self, source: Any, samples: Sequence[Any]) -> None:
        self.name, self.fingerprint, self.categories = source.name, source.fingerprint, source.categories
        self.samples = list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def render(job: tuple[str, str, int, int, int, int, bool]) -> list[Any]:
    """Some samples of a source, in a process of its own; with `bare` only image and caption, as training needs them."""
    import cv2

    from rizbin.data.open import open_source
    from rizbin.data.sample import Refused
    from rizbin.data.views import whole

    data, split, side, seed, first, last, bare = job
    cv2.setNumThreads(1)
    source = open_source(data, split=split, size=side, seed=seed)  # pyright: ignore[reportArgumentType]
    samples = []
    for index in range(first, last if source.endless else min(last, len(source))):
        try:
            sample = source[index]
        except Refused:
            continue
        samples.append((whole(sample.image, side), sample.caption) if bare else sample)
    return samples


def rendered(data: str, split: str, side: int, seed: int, count: int, workers: int, *, bare: bool) -> list[Any]:
    """`count` samples, by all cores."""
    chunk = max(1, min(500, count // workers))
    jobs = [(data, split, side, seed, first, min(first + chunk, count), bare) for first in range(0, count, chunk)]
    if workers == 1:
        return [sample for job in jobs for sample in render(job)]
    # Not forked: the parent may hold a GPU.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [sample for part in pool.map(render, jobs) for sample in part]


class Feed:
    """Batches of views cut on the device out of images that lie there."""

    def __init__(self, samples: Sequence[Any], tokenizer: Any, device: Any) -> None:
        import numpy as np
        import torch

        self.images = torch.from_numpy(np.stack([image for image, _ in samples])).to(device)
        self.captions = [caption for _, caption in samples]
        self.texts = tokenizer.encode(self.captions).to(device)
        self.phrases: dict[int, Any] = {}
        self.tokenizer, self.device = tokenizer, device

    def batch(self, method: Any, count: int, step: int, seed: int) -> Any:
        """The batch of a step: a function of seed and step."""
        import torch

        from rizbin.core import random
        from rizbin.data.views import normalize
        from rizbin.training.method import Batch

        generator = torch.Generator().manual_seed(random.key(seed, "feed", step))
        chosen = torch.randint(len(self.images), (count,), generator=generator).to(self.device)
        images = normalize(self.images[chosen])
        cut = [crop(images, view, generator) for view in method.views]
        return Batch(
            [view for view, _ in cut],
            torch.stack([box for _, box in cut]),
            torch.zeros(len(cut), count, dtype=torch.bool, device=self.device),
            self.tokenizer.trim(self.texts[chosen]),
            **self.phrases_of(chosen, method.most_phrases),
        )

    def phrases_of(self, chosen: Any, most: int) -> dict[str, Any]:
        """The tokens of the captions' noun phrases, for a method that wants them."""
        if not most:
            return {}
        if most not in self.phrases:
            import torch

            from rizbin.data.phrases import phrases

            tokens = torch.zeros(len(self.captions), most, self.texts.shape[1], dtype=torch.long)
            known: dict[str, Any] = {}
            for row, caption in enumerate(self.captions):
                for column, phrase in enumerate((phrases(caption) or [caption])[:most]):
                    if phrase not in known:
                        known[phrase] = self.tokenizer.encode([phrase])[0]
                    tokens[row, column] = known[phrase]
            longest = int((tokens != 0).any(dim=0).any(dim=0).sum())
            self.phrases[most] = tokens[:, :, :longest].to(self.device)
        return {"phrases": self.phrases[most][chosen]}


def crop(images: Any, view: Any, generator: Any) -> tuple[Any, Any]:
    """Random crops of a view's area and ratio, bilinear, and their boxes as shares of the image; nothing else of it."""
    import torch
    from torch.nn import functional as F

    count = len(images)
    draws = torch.rand(4, count, generator=generator)
    area = view.crop_area[0] + (view.crop_area[1] - view.crop_area[0]) * draws[0]
    low, high = (torch.tensor(ratio).log() for ratio in view.crop_ratio)
    ratio = (low + (high - low) * draws[1]).exp()
    width, height = (area * ratio).sqrt().clamp(max=1.0), (area / ratio).sqrt().clamp(max=1.0)
    left, top = (1 - width) * draws[2], (1 - height) * draws[3]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2], theta[:, 1, 2] = 2 * left + width - 1, 2 * top + height - 1
    grid = F.affine_grid(theta.to(images.device), [count, 3, view.size, view.size], align_corners=False)
    boxes = torch.stack([left, top, left + width, top + height], dim=1).to(images.device)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False), boxes


def load_start(method: Any, start: dict[str, Any]) -> None:
    """Puts the start's weights into a method and into its teacher."""
    method.pair.load_state_dict(start)
    if getattr(method, "teacher", None) is not None:
        method.teacher["vision"].load_state_dict(method.pair.vision.state_dict())


def train_branch(
    name: str,
    feed: Feed,
    start: dict[str, Any] | None,
    steps: int,
    seconds: float,
    device: Any,
    size: Size,
    dry: bool,
    seed: int,
    *,
    planned: int = 0,
) -> tuple[Any, int, float]:
    """Trains one branch for `steps`, or fewer when the seconds end; returns the method, steps and seconds.

    planned: of how many steps the schedules are, where fewer are made.
    """
    import torch

    from rizbin.core import random
    from rizbin.methods import find
    from rizbin.training.trainer import Trainer

    training = branch_settings(name, size, dry)
    torch.manual_seed(random.key(seed, "weights"))
    method = find("detailclip")(training.settings).to(device).train()
    if start is not None:
        load_start(method, start)
    precision = "fp32" if dry else "bf16"
    trainer = Trainer(
        replace(training.trainer, precision=precision),
        batch=size.branch_batch,
        steps=planned or steps,
        checkpoint_every=0,
        seed=seed,
    )
    trainer.device = device
    optimizers = trainer.optimizers(method)
    begin, done = time.perf_counter(), 0
    while done < steps and time.perf_counter() - begin < seconds:
        trainer.step(method, optimizers, feed.batch(method, size.branch_batch, done, seed), done)
        done += 1
    if device.type == "cuda":
        torch.cuda.synchronize()
    return method, done, time.perf_counter() - begin


def branches(table: Table, clock: Clock, device: Any, size: Size, dry: bool, options: argparse.Namespace) -> None:
    """Trains and measures the branches from one start."""
    import torch
    from safetensors.torch import load_file, save_file

    from rizbin.data.open import open_source
    from rizbin.evaluation import Evaluation, evaluate

    if all(name in table.rows["branches"] for name in BRANCHES):
        return
    began = time.perf_counter()
    workers = 1 if dry else max(1, (os.cpu_count() or 2) - 1)
    samples = rendered(options.data, "train", size.side, 0, size.scenes, workers, bare=True)
    learn, test = (
        Rendered(
            open_source(options.data, split=split, size=size.side, seed=2),
            rendered(options.data, split, size.side, 2, size.test, workers, bare=False),
        )
        for split in ("train", "test")
    )
    table.facts["branches: images rendered"] = f"{len(samples):,} in {time.perf_counter() - began:.0f} s"
    feed = Feed(samples, build_tokenizer(size, dry), device)
    settings = Evaluation.Settings(baseline=False, images=size.test, train_images=size.test)

    # The start: a fifth of what is left.
    path = table.folder / "start.safetensors"
    if path.exists():
        start = load_file(path, device=str(device))
    else:
        limit = clock.left() / 5
        _, count, seconds = train_branch(START, feed, None, min(10, size.most_steps), limit, device, size, dry, 1)
        steps = max(1, min(size.most_steps, int(0.9 * limit / (seconds / count))))
        method, count, _ = train_branch(START, feed, None, steps, limit, device, size, dry, 1)
        start = {key: value.detach().clone() for key, value in method.pair.state_dict().items()}
        save_file({key: value.cpu().contiguous() for key, value in start.items()}, path)
        table.facts["branches: start"] = f"CLIP after {count} steps of {size.branch_batch} images"

    # Equal steps: as many as fit, by a few timed steps of each branch. Kept, so that rows made later are equal as well.
    plan_path = table.folder / "plan.json"
    if plan_path.exists():
        plan = json.loads(plan_path.read_text())
    else:
        each = {}
        for name in BRANCHES:
            few = min(6, size.most_steps)
            train_branch(name, feed, start, 1, 60, device, size, dry, 0, planned=1000)
            _, count, seconds = train_branch(name, feed, start, few, 60, device, size, dry, 0, planned=1000)
            each[name] = seconds / count
        measuring = 0 if dry else 12 * len(BRANCHES)
        steps = int((0.9 * clock.left() - measuring) / sum(each.values()))
        plan = {"steps": max(1, min(steps, size.most_steps)), "seconds": each}
        write_whole(plan_path, json.dumps(plan, indent=1))
    table.facts["branches: steps"] = plan["steps"]
    if "start" not in table.rows["branches"]:
        method, _, _ = train_branch(START, feed, start, 0, 0, device, size, dry, 0, planned=1)
        table.add("branches", "start", numbers_of(evaluate(method.pair, test, train_source=learn, settings=settings)))
    for name in BRANCHES:
        if name in table.rows["branches"]:
            continue
        needed = plan["steps"] * plan["seconds"][name]
        if clock.left() < needed and not dry:
            table.skip("branches", name)
            continue
        method, count, seconds = train_branch(
            name, feed, start, plan["steps"], PATIENCE * needed + 5, device, size, dry, 0
        )
        report = evaluate(method.pair, test, train_source=learn, settings=settings)
        facts = {"steps": count, "ms a step": 1000 * seconds / count}
        table.add("branches", name, facts | numbers_of(report))
        del method
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def build_tokenizer(size: Size, dry: bool) -> Any:
    from rizbin.data.tokens import Tokenizer

    return Tokenizer(branch_settings(START, size, dry).settings.pair.text.tokenizer)


def numbers_of(report: Any) -> dict[str, float]:
    """The measurements of the table that there are."""
    return {
        measurement.name: float(measurement.value)
        for measurement in report.measurements
        if any(fnmatch(measurement.name, pattern) for pattern in WANTED)
    }


# --- all together -----------------------------------------------------------------------------------------------------


def main() -> int:
    """Measures; without arguments it says how."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", "-o", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu"))
    parser.add_argument("--minutes", type=float, default=10.0, help="for everything together (10)")
    parser.add_argument("--parts", nargs="+", choices=["speed", "branches"], default=["speed", "branches"])
    parser.add_argument("--data", default="scenes:hard", help="what the branches train on (scenes:hard)")
    parser.add_argument("--batch", type=int, default=0, help="images a step of the part speed (256)")
    parser.add_argument("--dry-run", action="store_true", help="everything on the CPU, as small as it goes")
    options = parser.parse_args()
    if len(sys.argv) == 1:  # as `make bench` runs it
        parser.print_help()
        return 0
    clock = Clock(options.minutes)
    import torch

    from rizbin.core.errors import RizbinError

    if not torch.cuda.is_available() and not options.dry_run:
        print("gpu: there is no GPU that torch can use; add --dry-run to try the script on the CPU.", file=sys.stderr)
        return 2
    dry: bool = options.dry_run
    device = torch.device("cpu" if dry else "cuda")
    size = DRY if dry else Size()
    size = replace(size, batch=options.batch) if options.batch else size
    if dry:
        torch.set_num_threads(1)
    else:
        torch.set_float32_matmul_precision("high")
    model = "a CPU (dry run: the numbers mean nothing)" if dry else torch.cuda.get_device_properties(0).name
    measured = matmul_peak(device, dry)
    known = [peak for name, peak in PEAKS.items() if name in model.replace("-", " ").split()]
    facts: dict[str, Any] = {
        "device": model,
        "torch": torch.__version__,
        "peak TFLOP/s": (known[0] if known else measured) / 1e12,
        "peak from": "the maker's data sheet, dense bf16" if known else "the product of matrices below",
        "product of matrices, TFLOP/s": round(measured / 1e12, 1),
        "images a step": size.batch,
    }
    try:
        table = Table(options.output, facts)
        if "speed" in options.parts:
            speed(table, clock, device, size, dry, SPEED_SHARE if "branches" in options.parts else 1.0)
        if "branches" in options.parts:
            branches(table, clock, device, size, dry, options)
        table.write()
    except RizbinError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    print((options.output / "results.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
