"""Cost of one pass of attention guidance: ours beside diffusers' deprecated attend-and-excite, in one run.

    python benchmarks/attention_guidance.py [--threads 1] [--only VARIANT]

A UNet of Stable Diffusion 1.x's shape (860 million parameters, random weights), fp32, latents of 64x64, 77 tokens, two
objects: one pass forward, the loss, one gradient with respect to the latents, after a first one that is not counted
(in ours it finds the last layer). Activations are the distinct storages that autograd keeps for the gradient, without
the weights; operations are those of `torch.utils.flop_counter`, forward and backward, with attention written out. Each
variant runs in a process of its own, so that its peak memory is its own. Needs 12 GB.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

OBJECTS = ((2,), (5,))


def sd1_unet() -> Any:
    """The configuration of Stable Diffusion 1.x, weights as torch makes them."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).eval()


def diffusers_pass(model: Any, latents: Any, embeddings: Any) -> Callable[[], Any]:
    """As the deprecated pipeline does it: all attention written out, weights not frozen, the pass made to its end."""
    import torch
    from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
        pipeline_stable_diffusion_attend_and_excite as original,
    )

    warnings.filterwarnings("ignore", message="torch.meshgrid")  # a call of the original's
    store = original.AttentionStore((16, 16))
    places = {"mid_block": "mid", "up_blocks": "up", "down_blocks": "down"}
    names = list(model.attn_processors)
    model.set_attn_processor(
        {name: original.AttendExciteAttnProcessor(store, places[name.split(".")[0]]) for name in names}
    )
    store.num_att_layers = len(names)
    pipeline = original.StableDiffusionAttendAndExcitePipeline

    def run_pass() -> Any:
        leaf = latents.clone().requires_grad_()
        # Not the leaf itself: the counter of operations hangs hooks on what the network is given.
        predicted = model(leaf * 1, 500, encoder_hidden_states=embeddings).sample
        averaged = store.aggregate_attention(["up", "down", "mid"])
        peaks = pipeline._compute_max_attention_per_index(averaged, [tokens[0] for tokens in OBJECTS])
        (gradient,) = torch.autograd.grad(pipeline._compute_loss(peaks), leaf)
        del predicted
        return gradient

    return run_pass


def rizbin_pass(model: Any, latents: Any, embeddings: Any, *, stop: bool) -> Callable[[], Any]:
    """Probabilities beside plain attention at 16x16 only, weights frozen, stopped after the last such layer or not."""
    import torch

    from rizbin.generation.diffusion.attention import Capture
    from rizbin.generation.diffusion.attention_losses import attend_and_excite
    from rizbin.generation.diffusion.guidance import frozen

    capture = Capture(model, stop_after_last=stop)

    def run_pass() -> Any:
        leaf = latents.clone().requires_grad_()
        with frozen(model), capture:
            predicted = capture.run(leaf * 1, 500, embeddings)
            loss = attend_and_excite(capture.mean_map(), OBJECTS)
            capture.clear()
            (gradient,) = torch.autograd.grad(loss, leaf)
        del predicted
        return gradient

    return run_pass


VARIANTS: dict[str, Callable[[Any, Any, Any], Callable[[], Any]]] = {
    "diffusers": diffusers_pass,
    "rizbin, whole pass": lambda *given: rizbin_pass(*given, stop=False),
    "rizbin": lambda *given: rizbin_pass(*given, stop=True),
}


def measure(name: str, threads: int) -> dict[str, Any]:
    """GiB kept for the gradient, TFLOP, CPU seconds, peak memory in GB, and the gradient's first numbers."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(threads)
    model = sd1_unet()
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, 64, 64, generator=generator)
    embeddings = torch.randn(1, 77, 768, generator=generator)
    run_pass = VARIANTS[name](model, latents, embeddings)
    begin = time.process_time()
    run_pass()
    first = time.process_time() - begin
    begin = time.process_time()
    gradient = run_pass()
    seconds = time.process_time() - begin
    # Before the counts: they keep more alive than a pass does.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages: dict[int, int] = {}
    alive = []  # a storage that is freed and made again must not be taken for the same

    def keep(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run_pass()
    alive.clear()
    # The counter does not know the CPU's fused attention and would leave it out: for it, attention is written out.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run_pass()
    return {
        "gib": sum(storages.values()) / 2**30,
        "tflop": counter.get_total_flops() / 1e12,
        "seconds": seconds,
        "first": first,
        "peak_gb": peak,
        "gradient": gradient.flatten()[:64].tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="measure one variant here and print JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.threads)))
        return
    base: dict[str, Any] = {}
    print("Stable Diffusion 1.x's UNet, random weights, fp32, latents of 64x64: one pass of guidance\n")
    print(f"| {'variant':18} | kept GiB | times | TFLOP | times | CPU s | first CPU s | peak GB | gradient differs |")
    print(f"|{'-' * 20}|---------:|------:|------:|------:|------:|------------:|--------:|-----------------:|")
    for name in VARIANTS:
        command = [sys.executable, __file__, "--only", name, "--threads", str(options.threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout.strip().splitlines()[-1])
        base = base or result
        largest = max(abs(value) for value in base["gradient"])
        differs = max(abs(a - b) for a, b in zip(result["gradient"], base["gradient"], strict=True)) / largest
        print(
            f"| {name:18} | {result['gib']:8.2f} | {result['gib'] / base['gib']:5.2f} | {result['tflop']:5.3f} "
            f"| {result['tflop'] / base['tflop']:5.2f} | {result['seconds']:5.1f} | {result['first']:11.1f} "
            f"| {result['peak_gb']:7.2f} | {differs:16.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
