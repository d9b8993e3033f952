"""Cost of a training step of SimCLR, BYOL and DINO here against lightly's, in one run.

    python benchmarks/selfsupervised.py [--repeats 7] [--batch 32] [--threads 1] [--method dino] [--backbone vit]

Both sides have the same timm backbone and heads of the sizes of lightly's examples, with equal weights; the same
images; fused AdamW. Ours is the method's own step as the trainer makes it, with all views of one size in one pass;
theirs is the loop of lightly's examples, each view in a pass of its own. That both give the same loss is checked first,
in evaluation mode: in training, batch norm counts the images of a pass, and the passes differ. Seconds are CPU
seconds of a whole step (forward, backward, optimizer, teacher); the sides take turns.
"""

import argparse
import datetime
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models import modules as heads
from lightly.models.utils import deactivate_requires_grad, update_momentum
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rizbin.core.environment import describe
from rizbin.methods.byol import BYOL
from rizbin.methods.dino import DINO
from rizbin.methods.simclr import SimCLR
from rizbin.nets.heads import PrototypeHead
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Progress
from rizbin.training.trainer import Trainer

SIZE, LOCAL_SIZE, LOCAL_CROPS = 64, 32, 8
STEPS = 1000
"""Of the run in whose middle the timed steps stand: past DINO's frozen prototypes."""
MOMENTUM = 0.996

default_cfgs = generate_default_cfgs({"vit_bench_patch8_64": {"url": "", "input_size": (3, SIZE, SIZE)}})
"""Where timm looks for it."""


@register_model
def vit_bench_patch8_64(pretrained: bool = False, **keywords: Any) -> VisionTransformer:
    """ViT-Ti cut to 6 blocks, 64 tokens of 8x8 pixels."""
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 192, "depth": 6, "num_heads": 3}
    return build_model_with_cfg(VisionTransformer, "vit_bench_patch8_64", pretrained, **{**sizes, **keywords})


BACKBONES = {"vit": "vit_bench_patch8_64", "resnet18": "resnet18"}


@dataclass
class Rival:
    """Lightly's side."""

    trained: nn.ModuleList
    copies: nn.ModuleList
    """What follows the trained parts."""
    loss: Callable[[list[Tensor]], Tensor]


def lightly_simclr(method: SimCLR) -> Rival:
    """As examples/pytorch/simclr.py."""
    backbone, head = plain(method.backbone), heads.SimCLRProjectionHead(method.backbone.dim, 512, 128)
    head.layers.load_state_dict(method.projector.state_dict())
    criterion = NTXentLoss(temperature=0.5)

    def loss(views: list[Tensor]) -> Tensor:
        z0 = head(backbone(views[0]))
        z1 = head(backbone(views[1]))
        return criterion(z0, z1)

    return Rival(nn.ModuleList([backbone, head]), nn.ModuleList(), loss)


def lightly_byol(method: BYOL) -> Rival:
    """As examples/pytorch/byol.py."""
    (backbone, head), (slow_backbone, slow_head) = (
        (plain(method.backbone), heads.BYOLProjectionHead(method.backbone.dim, 1024, 256)) for _ in range(2)
    )
    predictor = heads.BYOLPredictionHead(256, 1024, 256)
    assert method.predictor is not None  # on by default
    for made, own in ((head, method.projector), (slow_head, method.projector), (predictor, method.predictor)):
        made.layers.load_state_dict(own.state_dict())
    criterion = NegativeCosineSimilarity()

    def loss(views: list[Tensor]) -> Tensor:
        update_momentum(backbone, slow_backbone, m=MOMENTUM)
        update_momentum(head, slow_head, m=MOMENTUM)
        p0 = predictor(head(backbone(views[0])))
        z0 = slow_head(slow_backbone(views[0])).detach()
        p1 = predictor(head(backbone(views[1])))
        z1 = slow_head(slow_backbone(views[1])).detach()
        return 0.5 * (criterion(p0, z1) + criterion(p1, z0))

    return Rival(nn.ModuleList([backbone, head, predictor]), nn.ModuleList([slow_backbone, slow_head]), loss)


def lightly_dino(method: DINO) -> Rival:
    """As examples/pytorch/dino.py, but for the teacher's head, which starts there with weights of its own."""
    (student, student_head), (teacher, teacher_head) = (
        (plain(method.backbone), _prototypes(method.head, method.backbone.dim)) for _ in range(2)
    )
    criterion = DINOLoss(output_dim=2048)

    def loss(views: list[Tensor]) -> Tensor:
        update_momentum(student, teacher, m=MOMENTUM)
        update_momentum(student_head, teacher_head, m=MOMENTUM)
        teacher_outputs = [teacher_head(teacher(view)) for view in views[:2]]
        student_outputs = [student_head(student(view)) for view in views]
        return criterion(teacher_outputs, student_outputs, epoch=1)

    return Rival(nn.ModuleList([student, student_head]), nn.ModuleList([teacher, teacher_head]), loss)


def plain(encoder: ImageEncoder) -> nn.Module:
    """timm's own network with the weights of ours, which is made of one."""
    trunk = encoder.vision.trunk if encoder.vision is not None else encoder.convolutions
    assert trunk is not None  # one of the two is always there
    sized: dict[str, Any] = {"img_size": SIZE, "dynamic_img_size": True} if encoder.attends else {}
    made = timm.create_model(encoder.settings.name, num_classes=0, **sized)
    made.load_state_dict(trunk.state_dict())
    return made


def _prototypes(head: PrototypeHead, dim: int) -> nn.Module:
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # of torch, for lightly's old weight_norm
        made = heads.DINOProjectionHead(dim, 512, 64, 2048)
    assert isinstance(made.layers, nn.Module)
    made.layers.load_state_dict(head.mlp.state_dict())
    made.load_state_dict({"last_layer.weight_v": head.prototypes.detach()}, strict=False)
    return made


def simclr(encoder: ImageEncoder.Settings) -> tuple[SimCLR, Rival]:
    method = SimCLR(SimCLR.Settings(encoder=encoder, projection_hidden=512, projection=128, temperature=0.5))
    return method, lightly_simclr(method)


def byol(encoder: ImageEncoder.Settings) -> tuple[BYOL, Rival]:
    method = BYOL(BYOL.Settings(encoder=encoder, projection_hidden=1024, projection=256, together=True))
    return method, lightly_byol(method)


def dino(encoder: ImageEncoder.Settings) -> tuple[DINO, Rival]:
    local = replace(DINO.Settings().local_view, size=LOCAL_SIZE)
    settings = DINO.Settings(
        encoder=encoder,
        local_view=local,
        local_crops=LOCAL_CROPS,
        prototypes=2048,
        head_hidden=512,
        head_bottleneck=64,
    )
    method = DINO(settings)
    return method, lightly_dino(method)


METHODS = {"simclr": (simclr, 1.05), "byol": (byol, 1.05), "dino": (dino, 1.3)}
"""And how many times as fast as lightly's our step must be."""


def measure(name: str, backbone: str, batch: int, repeats: int) -> tuple[list[float], list[float]]:
    """CPU seconds of lightly's steps and of ours. Raises AssertionError when the two losses differ."""
    torch.manual_seed(0)
    method, rival = METHODS[name][0](ImageEncoder.Settings(name=BACKBONES[backbone], image_size=SIZE))
    deactivate_requires_grad(rival.copies)
    views = [torch.randn(batch, 3, view.size, view.size) for view in method.views]
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(len(views), batch, 4)
    made = Batch(views, whole, torch.zeros(len(views), batch, dtype=torch.bool), None)
    _check(name, method, rival, made)

    trainer = Trainer(Trainer.Settings(), batch=batch, steps=STEPS, checkpoint_every=0, seed=0)
    trainer.device = torch.device("cpu")
    optimizers = trainer.optimizers(method.train())
    settings = trainer.settings
    optimizer = torch.optim.AdamW(
        rival.trained.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    for side in (rival.trained, rival.copies):
        side.train()

    def theirs(_: int) -> None:
        loss = rival.loss(views)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def ours(count: int) -> None:
        trainer.step(method, optimizers, made, STEPS // 2 + count)

    seconds: tuple[list[float], list[float]] = ([], [])
    for count in range(repeats + 1):  # the first one warms up
        for side, step in zip(seconds, (theirs, ours), strict=True):
            begin = time.process_time()
            step(count)
            side.append(time.process_time() - begin)
    return seconds[0][1:], seconds[1][1:]


def _check(name: str, method: SimCLR | BYOL | DINO, rival: Rival, batch: Batch) -> None:
    for side in (method, rival.trained, rival.copies):
        side.eval()
    with torch.no_grad():
        mine, theirs = next(iter(method.step(batch, Progress(STEPS // 2, STEPS)))).loss, rival.loss(batch.views)
    if name == "byol":  # the sum of 2 - 2 cosine over both directions here, the mean of -cosine there
        theirs = 4 + 4 * theirs
    # float32; DINO's teacher multiplies its scores by 25.
    assert torch.allclose(mine, theirs, rtol=1e-4), f"{name}: our loss is {mine:.6f}, lightly's {theirs:.6f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of each side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", choices=METHODS, help="this one alone")
    parser.add_argument("--backbone", choices=BACKBONES, help="this one alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe()
    where = f"{datetime.date.today()}, commit {machine['commit']}, {machine['cpu']}"
    print(f"{where}, torch {torch.__version__}, {options.threads} thread(s), batch {options.batch}, {SIZE} px\n")
    print(f"| {'method':6} | {'backbone':8} | lightly, CPU s | rizbin, CPU s | times as fast (range) | goal |")
    print(f"|{'-' * 8}|{'-' * 10}|---------------:|--------------:|----------------------:|-----:|")
    for backbone in [options.backbone] if options.backbone else BACKBONES:
        for name in [options.method] if options.method else METHODS:
            theirs, ours = measure(name, backbone, options.batch, options.repeats)
            ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
            middle = statistics.median(theirs) / statistics.median(ours)
            spread = f"{middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(
                f"| {name:6} | {backbone:8} | {statistics.median(theirs):14.3f} | {statistics.median(ours):13.3f} "
                f"| {spread:>21} | {METHODS[name][1]:4} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
