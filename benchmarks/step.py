"""Cost of a training step: DetailCLIP here against open_clip's own CLIP with the same towers, in one run.

    python benchmarks/step.py [--steps 5] [--threads 1] [--batch 8] [--context both] [--parts methods removal]

ViT-S/16 at 224 px, 12 text layers of width 512, a context of 77 tokens, AdamW, fp32; with captions of 20 tokens and
with captions that fill all 77. Part "methods": each method beside open_clip's CLIP. Part "removal": a step on the kept
tokens beside the same step on all tokens of the same views. Each variant runs in a process of its own, so that its peak
memory is its own, and the processes take their steps in turns, so that all meet the machine's slow and fast moments.
Seconds are CPU seconds of the whole step (forward, backward, optimizer, teacher), the median of the timed steps after
two that warm up: the first step allocates, the second still costs more than those behind it.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

CAPTION = "a photo of a small brown dog left of two red cars in front of an old stone house"
CONTEXTS = {"short": CAPTION, "full": " ".join([CAPTION] * 5)}
"""Captions of 20 tokens, and such that are cut to all 77 of the context."""
WARM_UP = 2
"""Steps before the timed ones."""


def rizbin_step(batch: int, caption: str, **changes: Any) -> Callable[[int], float]:
    """One step of our method as the trainer makes it."""
    import torch

    from rizbin import methods
    from rizbin.training.method import Batch
    from rizbin.training.trainer import Trainer
    from rizbin.workflows.presets import preset

    name = changes.pop("method", "detailclip")
    training = preset(name, "vits16")
    method = methods.find(name)(replace(training.settings, **changes)).train()
    trainer = Trainer(replace(training.trainer, precision="fp32"), batch=batch, steps=100, checkpoint_every=0, seed=0)
    trainer.device = torch.device("cpu")
    optimizers = trainer.optimizers(method)
    assert method.tokenizer is not None
    texts = method.tokenizer.trim(method.tokenizer.encode([caption] * batch))
    views = [torch.randn(batch, 3, 224, 224) for _ in method.views]
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(views), batch, 4)
    made = Batch(views, whole, torch.zeros(len(views), batch, dtype=torch.bool), texts)
    return lambda step: float(trainer.step(method, optimizers, made, step)["loss"])


def open_clip_step(batch: int, caption: str) -> Callable[[int], float]:
    """One step of open_clip's CLIP with the towers of our vits16 preset, as its own training loop makes it."""
    import torch
    from open_clip import CLIP, get_tokenizer
    from open_clip.loss import ClipLoss

    from rizbin.nets.export import open_clip_config
    from rizbin.workflows.presets import preset

    config = open_clip_config(preset("clip", "vits16").settings.pair)["model_cfg"]
    model = CLIP(**config, output_dict=True).train()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    keep = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.5}, {"params": keep, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-8)
    contrastive_loss = ClipLoss()
    tokens = get_tokenizer("ViT-B-16")([caption] * batch)
    images = torch.randn(batch, 3, 224, 224)

    def step(_: int) -> float:
        optimizer.zero_grad()
        loss = contrastive_loss(**model(images, tokens))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


_CONTRAST_ALONE = {"distillation": False, "reconstruction": False}
_HALF = {"teacher_resolution": "half"}
PARTS: dict[str, dict[str, dict[str, Any] | None]] = {
    # The first of a part is what the others are divided by; None is open_clip's CLIP.
    "methods": {
        "open_clip CLIP": None,
        "rizbin CLIP": {"method": "clip"},
        "rizbin A-CLIP": {"method": "aclip"},
        "rizbin DetailCLIP, full teacher": {},
        "rizbin DetailCLIP, half-resolution teacher": _HALF,
    },
    "removal": {
        "contrast of both views, all tokens": {"selection": "none", **_CONTRAST_ALONE},
        "  kept tokens, half-resolution teacher": {**_CONTRAST_ALONE, **_HALF},
        "  kept tokens, full teacher": _CONTRAST_ALONE,
        "  a quarter of the tokens, half-resolution teacher": {**_CONTRAST_ALONE, **_HALF, "keep_ratio": 0.25},
        "  tokens kept at random": {**_CONTRAST_ALONE, "selection": "random"},
    },
}
ASKED = {"methods": 1.45, "removal": 0.75}
"""At most so many times the first row's step."""


def variant_of(name: str, batch: int, caption: str) -> Callable[[int], float]:
    """The step that a row's name stands for."""
    changes = {key: value for part in PARTS.values() for key, value in part.items()}[name]
    return open_clip_step(batch, caption) if changes is None else rizbin_step(batch, caption, **changes)


def serve(name: str, context: str, batch: int, threads: int) -> None:
    """Makes one step for each line read, and answers with its CPU seconds and this process's peak memory in GB."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step = variant_of(name, batch, CONTEXTS[context])
    for index, _ in enumerate(sys.stdin):
        begin = time.process_time()
        step(index)
        seconds = time.process_time() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "peak_gb": peak}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant, after two to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", choices=[*CONTEXTS, "both"], default="both", help="captions of 20 or 77 tokens")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    contexts = list(CONTEXTS) if options.context == "both" else [options.context]
    if options.serve:
        serve(options.serve, contexts[0], options.batch, options.threads)
        return
    print(
        f"ViT-S/16, 224 px, batch {options.batch}, {options.threads} thread(s), "
        f"{options.steps} timed steps after {WARM_UP}"
    )
    for part in options.parts:
        for context in contexts:
            print(f"\n{part}, captions of {'77' if context == 'full' else '20'} tokens; asked {ASKED[part]}\n")
            print(f"| {'variant':50} | CPU s/step | least to most | x the first | peak GB |")
            print(f"|{'-' * 52}|-----------:|--------------:|------------:|--------:|", flush=True)
            table(part, context, options)


def table(part: str, context: str, options: argparse.Namespace) -> None:
    """Measures and prints the rows of one part: processes that take their steps in turns, so that all meet the same
    slow and fast moments of the machine."""
    command = [sys.executable, __file__, "--batch", str(options.batch), "--context", context]
    command += ["--threads", str(options.threads), "--serve"]
    servers = {
        name: subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in PARTS[part]
    }
    steps: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    try:
        for _ in range(WARM_UP + options.steps):
            for name, server in servers.items():
                steps[name].append(step_of(server))
    finally:
        for server in servers.values():
            server.kill()
            server.wait()
    base = 0.0
    for name, results in steps.items():
        seconds = [result["seconds"] for result in results[WARM_UP:]]
        base = base or median(seconds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(
            f"| {name:50} | {median(seconds):10.2f} | {spread:>13} | {median(seconds) / base:11.2f} | "
            f"{results[-1]['peak_gb']:7.2f} |",
            flush=True,
        )


def step_of(server: subprocess.Popen[str]) -> dict[str, float]:
    """Has a process make its next step."""
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("step\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    if not answer:
        raise SystemExit(f"A process ended before its step ({server.args}).")
    return json.loads(answer)


if __name__ == "__main__":
    main()
