"""Cost of a training step: DetailCLIP here against open_clip's own CLIP with the same towers, in one run.

    python benchmarks/step.py [--steps 3] [--threads 1] [--batch 8]

ViT-S/16 at 224 px, 12 text layers of width 512, captions of about 20 tokens in a context of 77, AdamW, fp32. Each
variant runs in a process of its own, so that its peak memory is its own. Seconds are CPU seconds of the whole step
(forward, backward, optimizer, teacher).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

WORDS = "a photo of a small brown dog left of two red cars in front of an old stone house"


def rizbin_step(batch: int, **changes: Any) -> Callable[[int], float]:
    """One step of our method as the trainer makes it."""
    import torch

    from rizbin import methods
    from rizbin.recipes.presets import preset
    from rizbin.train.method import Batch
    from rizbin.train.trainer import Trainer

    name = changes.pop("method", "detailclip")
    training = preset(name, "vits16")
    method = methods.find(name)(replace(training.settings, **changes)).train()
    trainer = Trainer(replace(training.trainer, precision="fp32"), batch=batch, steps=100, checkpoint_every=0, seed=0)
    trainer.device = torch.device("cpu")
    optimizers = trainer.optimizers(method)
    assert method.tokenizer is not None
    texts = method.tokenizer.trim(method.tokenizer.encode([WORDS] * batch))
    views = [torch.randn(batch, 3, 224, 224) for _ in method.views]
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(views), batch, 4)
    made = Batch(views, whole, torch.zeros(len(views), batch, dtype=torch.bool), texts)
    return lambda step: float(trainer.step(method, optimizers, made, step)["loss"])


def open_clip_step(batch: int) -> Callable[[int], float]:
    """One step of open_clip's CLIP with the towers of our vits16 preset, as its own training loop makes it."""
    import torch
    from open_clip import CLIP, get_tokenizer
    from open_clip.loss import ClipLoss

    from rizbin.nets.export import open_clip_config
    from rizbin.recipes.presets import preset

    config = open_clip_config(preset("clip", "vits16").settings.pair)["model_cfg"]
    model = CLIP(**config, output_dict=True).train()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    keep = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.5}, {"params": keep, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-8)
    loss_of = ClipLoss()
    tokens = get_tokenizer("ViT-B-16")([WORDS] * batch)
    images = torch.randn(batch, 3, 224, 224)

    def step(_: int) -> float:
        optimizer.zero_grad()
        loss = loss_of(**model(images, tokens))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


VARIANTS = {
    "open_clip CLIP": lambda batch: open_clip_step(batch),
    "rizbin CLIP": lambda batch: rizbin_step(batch, method="clip"),
    "rizbin A-CLIP": lambda batch: rizbin_step(batch, method="aclip"),
    "rizbin DetailCLIP, full teacher": lambda batch: rizbin_step(batch),
    "rizbin DetailCLIP, half-resolution teacher": lambda batch: rizbin_step(batch, teacher_resolution="half"),
}


def measure(name: str, batch: int, steps: int, threads: int) -> dict[str, float]:
    """CPU seconds of a step (median of `steps` after one to warm up) and peak memory of this process in GB."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = VARIANTS[name](batch)
    step(0)
    seconds = []
    for index in range(1, steps + 1):
        begin = time.process_time()
        step(index)
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": sorted(seconds)[len(seconds) // 2], "peak_gb": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", help="measure one variant here and print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.batch, options.steps, options.threads)))
        return
    base = 0.0
    print(f"ViT-S/16, 224 px, batch {options.batch}, {options.threads} thread(s), {options.steps} timed steps\n")
    print(f"| {'variant':44} | CPU s/step | x open_clip | peak GB |\n|{'-' * 46}|-----------:|------------:|--------:|")
    for name in VARIANTS:
        command = [sys.executable, __file__, "--only", name, "--batch", str(options.batch)]
        command += ["--steps", str(options.steps), "--threads", str(options.threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        base = base or result["seconds"]
        print(
            f"| {name:44} | {result['seconds']:10.2f} | {result['seconds'] / base:11.2f} | {result['peak_gb']:7.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
