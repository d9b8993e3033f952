"""The image encoder of methods that read no captions: any timm backbone, a VisionTransformer or a convolutional one."""

import difflib
from dataclasses import dataclass
from typing import Any, Literal, cast

import timm
import torch
from jaxtyping import Float
from timm.layers.norm_act import BatchNormAct2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.core.settings import added
from rizbin.nets.backbones import VisibleBatchNorm, norms_seeing
from rizbin.nets.foreign import timm_by_name
from rizbin.nets.layout import for_convolutions
from rizbin.nets.tuning import TuningSettings
from rizbin.nets.vision import Features, VisionEncoder


class ImageEncoder(nn.Module):
    """Images in, one feature each out; patches and attention too where the backbone has them.

    Images are normalized floats [batch 3 height width] (`rizbin.data.views.normalize`), of any size that the backbone
    takes: crops of several sizes go through one encoder.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        name: str = "rizbin_vit_mini_patch8_64"
        """timm's name of a VisionTransformer or of a convolutional network (resnet50, convnext_tiny)."""
        image_size: int = 64
        """Side of the whole image in pixels."""
        registers: int = 0
        """Extra tokens without a place, for VisionTransformers (arXiv 2309.16588)."""
        drop_path: float = 0.0
        """Probability of skipping a block in training, growing linearly with depth to this value (DINO: 0.1)."""
        pretrained: bool = False
        """Start from timm's published weights (needs the network or timm's cache)."""
        pool: Literal["cls", "mean", "both"] = "cls"
        """The one feature of an image: the CLS token (DINO), the mean of the patches, or the mean of those two. A
        convolutional network has its own pooling, whatever stands here."""
        published: str = added("")
        """An image tower of another library in the place of the backbone, which `--start` puts here; it pools as that
        library does. Empty: the backbone above."""
        tuning: TuningSettings = added(TuningSettings())
        """How far training moves an encoder that was trained before."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.vision: VisionEncoder | None = None
        self.convolutions: nn.Module | None = None
        if _is_transformer(settings.name):
            self.vision = VisionEncoder(
                VisionEncoder.Settings(
                    name=settings.name,
                    image_size=settings.image_size,
                    registers=settings.registers,
                    drop_path=settings.drop_path,
                    pretrained=settings.pretrained,
                )
            )
            self.dim, self.grid = self.vision.dim, self.vision.grid
            return
        if settings.registers:
            raise RizbinError(f"{settings.name} has no tokens, so it takes no registers; set registers to 0.")
        keywords: dict[str, Any] = {"drop_path_rate": settings.drop_path} if settings.drop_path else {}
        try:
            trunk = timm_by_name(settings.name, pretrained=settings.pretrained, num_classes=0, **keywords)
        except (RuntimeError, TypeError) as error:
            raise RizbinError(f"timm cannot build '{settings.name}' ({error}); choose another backbone.") from error
        self.convolutions = _with_gathered_norms(trunk)
        self.dim, self.grid = _measured(trunk, settings)

    @property
    def image_size(self) -> int:
        """Side of the whole image in pixels."""
        return self.settings.image_size

    @property
    def patch_size(self) -> int:
        """Side in pixels of what one patch (or one place of the last feature map) stands for."""
        return self.image_size // self.grid[0]

    @property
    def attends(self) -> bool:
        """Whether there is a CLS token whose attention can be looked at."""
        return self.vision is not None

    def check_crop(self, size: int, flag: str) -> None:
        """Raises RizbinError, naming the flag that sets it, when small crops of `size` pixels cannot be taken."""
        if size > self.image_size:
            raise RizbinError(
                f"A small crop of {size} pixels is larger than the image of {self.image_size}; set {flag} to less."
            )
        patch = self.patch_size
        if self.attends and size % patch:
            raise RizbinError(
                f"A small crop of {size} pixels does not divide into patches of {patch}; "
                f"set {flag} {max(patch, size // patch * patch)}."
            )

    def features(
        self, images: Float[Tensor, "batch 3 height width"], *, attend: bool = True, track: bool = True
    ) -> Features:
        """CLS and patches; a convolutional network gives its pooled feature and its last map, without attention.

        `track`: whether a pass in training shapes the running statistics of batch norms, which evaluation uses.
        """
        if self.vision is not None:
            return self.vision(images, attend=attend, track=track)
        assert self.convolutions is not None  # one of the two is always built
        norms = [module for module in self.convolutions.modules() if isinstance(module, VisibleBatchNorm)]
        with norms_seeing(norms, track=track):
            places, pooled = _map_and_pooled(self.convolutions, for_convolutions(images))
        return Features(cls=pooled, patches=places.flatten(2).transpose(1, 2), attention=None)

    def pool(self, features: Features) -> Float[Tensor, "batch dim"]:
        """The one feature of each image."""
        if self.vision is None or self.settings.pool == "cls":
            return features.cls
        patches = features.patches.mean(dim=1)
        return patches if self.settings.pool == "mean" else (features.cls + patches) / 2

    def forward(self, images: Float[Tensor, "batch 3 height width"], *, track: bool = True) -> Float[Tensor, "batch _"]:
        """The one feature of each image."""
        if self.vision is not None and self.settings.pool == "cls":
            return self.vision.cls(images, track=track)
        return self.pool(self.features(images, attend=False, track=track))

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch _"]:
        """The same: what k-NN and probes are measured on."""
        return self(images)

    def attention(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns"]:
        """CLS-to-patch attention, mean over all layers and heads. Raises RizbinError for a convolutional network."""
        attention = self._transformer()(images, attend=True).attention
        assert attention is not None
        return attention.unflatten(1, (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size))

    def attention_heads(
        self, images: Float[Tensor, "batch 3 height width"], layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """CLS-to-patch attention of each head of one layer. Raises RizbinError for a convolutional network."""
        return self._transformer().attention_heads(images, layer)

    def _transformer(self) -> VisionEncoder:
        if self.vision is None:
            raise RizbinError(f"{self.settings.name} is no VisionTransformer, so it has no attention to look at.")
        return self.vision


def _is_transformer(name: str) -> bool:
    """Whether timm's model of that name is a VisionTransformer. Raises RizbinError when there is no such model."""
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        raise RizbinError(
            f"timm has no model '{name}'; "
            + (f"did you mean {', '.join(near)}?" if near else "timm.list_models() names what there is.")
        )
    with torch.device("meta"):  # its kind alone is asked for: no memory, and no random number is drawn
        return isinstance(timm_by_name(name), VisionTransformer)


def _with_gathered_norms(module: nn.Module) -> nn.Module:
    """The network with batch norms that count the images of all processes, on any backend."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d or type(child) is BatchNormAct2d:
            own = VisibleBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum or 0.1, apply_act=False)
            own.load_state_dict(child.state_dict())
            if isinstance(child, BatchNormAct2d):
                own.drop, own.act = cast(nn.Module, child.drop), cast(nn.Module, child.act)
            setattr(module, name, own)
        else:
            _with_gathered_norms(child)
    return module


def _map_and_pooled(trunk: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The last map of a convolutional network of timm, and the feature pooled from it."""
    timms = cast(Any, trunk)  # all of timm's have these two methods, which nn.Module does not know
    places = timms.forward_features(images)
    return places, timms.forward_head(places, pre_logits=True)


@torch.no_grad()
def _measured(trunk: nn.Module, settings: ImageEncoder.Settings) -> tuple[int, tuple[int, int]]:
    """Size of the pooled feature, and rows and columns of the last map, by looking at what comes out."""
    trunk.eval()
    places, pooled = _map_and_pooled(trunk, torch.zeros(1, 3, settings.image_size, settings.image_size))
    trunk.train()
    if places.ndim != 4 or places.shape[1] != pooled.shape[1]:
        raise RizbinError(
            f"'{settings.name}' gives no map of features with the channels of its pooled feature; choose a "
            "VisionTransformer with a CLS token or a convolutional network such as resnet50."
        )
    return int(pooled.shape[1]), (int(places.shape[2]), int(places.shape[3]))
