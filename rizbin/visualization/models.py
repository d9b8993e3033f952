"""Networks as eyes: Rizbin's own, any ViT of timm and of Hugging Face, by object, by name or from a folder."""

import difflib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.foreign import (
    timm_by_name,
    timm_from_folder,
    timm_from_hub,
    transformers_config,
    transformers_model,
    transformers_untrained,
    written_by,
)
from rizbin.nets.image import ImageEncoder
from rizbin.nets.vision import VisionEncoder
from rizbin.nets.weights import reason
from rizbin.visualization.colors import AnyPicture
from rizbin.visualization.eye import CLS, Eye, NoAttention, normalized, row_of_patches

Three = tuple[float, float, float]
_MOST_PREFIX = 64
"""Tokens before those of the patches (CLS, registers); no network has as many."""


class TimmEye:
    """A timm network. ViTs give attention; cells of the last feature map stand for patches where there are none."""

    def __init__(
        self,
        trunk: nn.Module,
        *,
        name: str = "",
        mean: Three | None = None,
        std: Three | None = None,
        image_size: int = 0,
        pool: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Sets the network to evaluation. What is not given is what timm keeps with it.

        Args:
            trunk: Any timm network.
            name: What messages call it.
            mean: Of the pictures it was trained on, for values from 0 to 1.
            std: Their deviation.
            image_size: Side of the square pictures that a convolutional network was made for, pixels.
            pool: One feature a picture from images, where it is not the network's own pooling.

        Raises RizbinError when the network gives neither tokens nor a feature map.
        """
        facts: dict[str, Any] = getattr(trunk, "pretrained_cfg", None) or {}
        self.trunk = trunk.eval()
        self.name = name or facts.get("architecture") or type(trunk).__name__
        self.mean, self.std = mean or _three(facts.get("mean")) or MEAN, std or _three(facts.get("std")) or STD
        embed: Any = getattr(trunk, "patch_embed", None)
        kept = facts.get("input_size") or (3, 224, 224)
        self.any_size = embed is None or bool(getattr(trunk, "dynamic_img_size", False))
        sides = tuple(getattr(embed, "img_size", None) or [image_size or kept[-1]])
        if min(sides) != max(sides) and not self.any_size:
            raise RizbinError(
                f"{self.name} takes pictures of {'x'.join(map(str, sides))} pixels only; networks for rectangular "
                "pictures are read where timm builds them for any size (dynamic_img_size=True)."
            )
        self.image_size = int(min(sides))
        self._pool = pool
        self._channels = 0
        """Where a feature map has its channels: 1 or 3; 0 where there are tokens."""
        self.patch_size = (
            self._patch(embed) if isinstance(trunk, VisionTransformer | Eva) else self._cell(self._probe())
        )
        self.grid = (self.image_size // self.patch_size, self.image_size // self.patch_size)

    def _patch(self, embed: Any) -> int:
        """Side of the patches that a ViT cuts: of a convolutional stem's too, whose own patch size is another."""
        high, wide = (int(side) // int(count) for side, count in zip(embed.img_size, embed.grid_size, strict=True))
        if high != wide:
            raise RizbinError(f"{self.name} cuts patches of {high}x{wide} pixels; networks with square ones are read.")
        return high

    def _cell(self, rows: int) -> int:
        """Side of what a cell stands for."""
        # A map's last cells may hang over the border: 176 pixels make 6 cells of 32.
        return 2 ** round(math.log2(self.image_size / rows)) if self._channels else self.image_size // rows

    def _probe(self) -> int:
        """Rows of what comes out; finds the channels of a map on the way."""
        blank = torch.zeros(1, 3, self.image_size, self.image_size, device=next(self.trunk.parameters()).device)
        try:
            with torch.inference_mode():
                shape = self._run(blank).shape
        except (AttributeError, AssertionError, RuntimeError) as error:
            raise RizbinError(f"{self.name} cannot be run on a picture ({reason(error)}); choose a ViT.") from error
        width = getattr(self.trunk, "num_features", 0)
        if len(shape) == 4 and width in (shape[1], shape[3]):
            self._channels = 1 if shape[1] == width else 3
            return shape[2] if self._channels == 1 else shape[1]
        grid = getattr(getattr(self.trunk, "patch_embed", None), "grid_size", None)
        if len(shape) == 3 and grid and 0 <= shape[1] - grid[0] * grid[1] <= _MOST_PREFIX:
            return int(grid[0])
        raise RizbinError(f"{self.name} gives neither features of patches nor a feature map; choose a ViT or a ResNet.")

    def _run(self, images: Tensor) -> Tensor:
        """[batch tokens dim], or a feature map."""
        forward: Any = self.trunk.forward_features
        return forward(images)

    def prepare(self, pictures: Sequence[AnyPicture]) -> Float[Tensor, "batch 3 height width"]:
        """RGB pictures of one size as the network wants them: normalized, on its device."""
        return normalized(pictures, self.mean, self.std, next(self.trunk.parameters()).device)

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature a picture."""
        self._grid(images)
        if self._pool is not None:
            return self._pool(images)
        head: Any = self.trunk.forward_head
        return head(self._run(images), pre_logits=True)

    def patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch (or cell), after the last norm."""
        grid, out = self._grid(images), self._run(images)
        if self._channels:
            return out.movedim(self._channels, -1)
        return out[:, -grid[0] * grid[1] :].unflatten(1, grid)

    def attention_rows(
        self, images: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch; see `Eye`."""
        grid = self._grid(images)
        if self._channels:
            raise NoAttention(f"{self.name} has a feature map and no attention between patches; choose a ViT.")
        with _fused(self.trunk):
            return row_of_patches(
                lambda: self._run(images),
                token=token,
                layer=layer,
                grid=grid,
                has_cls=getattr(self.trunk, "cls_token", None) is not None,
                name=self.name,
            )

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return _whole_patches(images, self)


class PairEye(TimmEye):
    """The image tower of an image-text pair; pooled as the pair pools. Words can be asked of its `pair`."""

    def __init__(self, pair: ImageTextPair, *, name: str = "") -> None:
        # Rizbin normalizes alike whatever the trunk, so what timm keeps with it does not hold.
        name = name or pair.settings.vision.name
        super().__init__(pair.vision.trunk, name=name, mean=MEAN, std=STD, pool=pair.pooled)
        self.pair = pair.eval()


_HALVES: Three = (0.5, 0.5, 0.5)
_OPENAI: tuple[Three, Three] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# What each family was trained with, for folders without preprocessor_config.json; ImageNet's for the others.
_NORMALIZED_BY = {
    "vit": (_HALVES, _HALVES),
    "siglip_vision_model": (_HALVES, _HALVES),
    "clip_vision_model": _OPENAI,
}


_POOLED_BY_CLS = ("vit", "deit")
"""Models whose pooler is often not in the file, and then never asked."""


class HuggingFaceEye:
    """A ViT of transformers: ViT, DeiT, DINOv2 with or without registers, DINOv3, the picture tower of CLIP or SigLIP.

    Any model that makes tokens [batch prefix+patches dim] of pictures and attends by PyTorch's fused kernel will do.
    """

    def __init__(
        self, model: nn.Module, *, name: str = "", mean: Three | None = None, std: Three | None = None
    ) -> None:
        """`model` as transformers gives it; of a pair of towers the picture tower is taken.

        Raises RizbinError when it is no model for pictures in patches.
        """
        tower: Any = getattr(model, "vision_model", model)
        self.model = tower.eval()
        self.config = tower.config
        kind = str(getattr(self.config, "model_type", ""))
        self.name = name or kind or type(tower).__name__
        self.image_size, self.patch_size = (self._side(side) for side in ("image_size", "patch_size"))
        self.grid = (self.image_size // self.patch_size, self.image_size // self.patch_size)
        self.any_size = True
        known = _NORMALIZED_BY.get(kind, (MEAN, STD))
        self.mean, self.std = mean or known[0], std or known[1]
        self._must_be_told = "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters
        # The pooler of a ViT is often not in the file and then random; CLS is what it would take.
        self._cls_is_pooled = kind in _POOLED_BY_CLS

    def prepare(self, pictures: Sequence[AnyPicture]) -> Float[Tensor, "batch 3 height width"]:
        """RGB pictures of one size as the network wants them: normalized, on its device."""
        first = next(self.model.parameters())
        return normalized(pictures, self.mean, self.std, first.device).to(first.dtype)

    def _side(self, which: str) -> int:
        """A length in the model's configuration, where older ones have height and width."""
        length: Any = getattr(self.config, which, None)
        if isinstance(length, list | tuple) and length:
            if len(set(length)) > 1:  # transformers resizes the positions of squares alone
                raise RizbinError(
                    f"{self.name} is made for the {which.replace('_', ' ')} {'x'.join(map(str, length))} pixels; "
                    "networks of transformers for rectangular pictures or patches are not read."
                )
            length = length[0]
        if not isinstance(length, int) or length < 1:
            raise RizbinError(f"{self.name} is no model that cuts pictures into patches; choose a ViT.")
        return length

    def _run(self, images: Tensor) -> Any:
        # Positions for other sizes: DINOv2 and DINOv3 make them by themselves, the others when told to.
        told = {"interpolate_pos_encoding": True} if self._must_be_told else {}
        return self.model(pixel_values=images, **told)

    def pooled(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature a picture: the model's own pooling; CLS where that is none or a head of another task."""
        out = self._run(images)
        pooled = None if self._cls_is_pooled else getattr(out, "pooler_output", None)
        if pooled is not None:
            return pooled
        grid, tokens = self._grid(images), out.last_hidden_state
        return tokens[:, 0] if tokens.shape[1] > grid[0] * grid[1] else tokens.mean(dim=1)

    def patches(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch, as the model gives them out."""
        grid, tokens = self._grid(images), self._run(images).last_hidden_state
        if tokens.ndim != 3 or not 0 <= tokens.shape[1] - grid[0] * grid[1] <= _MOST_PREFIX:
            raise RizbinError(f"{self.name} gives no features of single patches; choose a ViT.")
        return tokens[:, -grid[0] * grid[1] :].unflatten(1, grid)

    def attention_rows(
        self, images: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch; see `Eye`."""
        embeddings = getattr(self.model, "embeddings", None)
        return row_of_patches(
            lambda: self._run(images),
            token=token,
            layer=layer,
            grid=self._grid(images),
            has_cls=any(hasattr(embeddings, place) for place in ("cls_token", "class_embedding")),
            name=self.name,
        )

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return _whole_patches(images, self)


def eye_of(model: nn.Module, *, name: str = "") -> Eye:
    """The eye of a network: an ImageTextPair, an ImageEncoder, a VisionEncoder, a model of transformers or of timm.

    Raises RizbinError when it is none of these.
    """
    if isinstance(model, ImageTextPair):
        return PairEye(model, name=name)
    if isinstance(model, ImageEncoder):
        trunk = model.convolutions if model.vision is None else model.vision.trunk
        assert trunk is not None  # one of the two is always built
        name, size = name or model.settings.name, model.image_size
        return TimmEye(trunk, name=name, mean=MEAN, std=STD, image_size=size, pool=model.pooled)
    if isinstance(model, VisionEncoder):
        return TimmEye(model.trunk, name=name or model.settings.name, mean=MEAN, std=STD)
    if hasattr(getattr(model, "config", None), "model_type"):
        return HuggingFaceEye(model, name=name)
    if hasattr(model, "forward_features"):
        return TimmEye(model, name=name)
    raise RizbinError(f"A {type(model).__name__} is no network that can be looked through; give a ViT.")


def open_eye(what: str | Path, *, pretrained: bool = True, others: Sequence[str] = ()) -> Eye:
    """The eye of a published network or of a folder.

    what: a name of timm ("vit_small_patch14_dinov2.lvd142m"); a name on Hugging Face with its owner
    ("facebook/dinov2-small", "timm/vit_tiny_patch16_224.augreg_in21k"); or a folder that timm or transformers saved
    (config.json and model.safetensors). Published weights need the network or the cache of an earlier call.
    pretrained: False gives random weights, for comparison.
    others: more names that what was written may have meant.
    Raises RizbinError when there is no such network, with the nearest names; or when its weights cannot be had.
    """
    text = str(what)
    if Path(text).is_dir():
        return _from_folder(Path(text), pretrained)
    if text.startswith("timm/"):
        return _timm(partial(timm_from_hub, text), text, pretrained)
    architecture, dot, _ = text.partition(".")
    if architecture in timm.list_models():
        published = [name for name in timm.list_pretrained() if name.split(".")[0] == architecture]
        if dot and text not in published:
            raise RizbinError(
                f"timm has no weights {text}; there are {', '.join(published) or 'none of that network'}."
            )
        if pretrained and not published:
            raise RizbinError(f"timm publishes no weights of {text}; choose another name, or look at random weights.")
        return _timm(partial(timm_by_name, text), text, pretrained)
    # What begins like a folder that is here is a folder misspelled, and no reason to ask a server.
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).parent.is_dir():
        return _hugging_face(text, pretrained)
    if "/" in text:
        raise RizbinError(f"There is no folder {text}; give one that timm or transformers saved, or a name.")
    raise RizbinError(
        f"There is no model {text!r}, and no folder of that name; {_nearest(text, [*others, *timm.list_models()])}"
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if not close:
        return "timm.list_models('vit_*') lists names, and names on Hugging Face have an owner, as in owner/name."
    return f"did you mean {', '.join(close[:-1])} or {close[-1]}?" if close[1:] else f"did you mean {close[0]}?"


def _from_folder(folder: Path, pretrained: bool) -> Eye:
    """A folder in timm's or transformers' form, told apart by what its config.json holds."""
    whose = written_by(folder)
    if whose == "timm":
        return _timm(partial(timm_from_folder, folder), str(folder), pretrained)
    if whose == "transformers":
        return _hugging_face(str(folder), pretrained)
    raise RizbinError(
        f"{folder / 'config.json'} names neither an architecture (timm) nor a model_type (transformers); give a folder "
        "that one of them saved."
    )


def _timm(opened: Callable[..., nn.Module], name: str, pretrained: bool) -> TimmEye:
    """A timm network that takes pictures of any size where it can."""
    try:
        trunk = opened(pretrained=pretrained, dynamic_img_size=True)
    except (TypeError, RizbinError) as error:
        if not isinstance(error if isinstance(error, TypeError) else error.__cause__, TypeError):
            raise
        trunk = opened(pretrained=pretrained)  # a convolutional network takes any size anyway
    return TimmEye(trunk, name=name)


def _hugging_face(name: str, pretrained: bool) -> HuggingFaceEye:
    """A model of transformers with the fused kernel, and the normalization that is kept with it."""
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise RizbinError(
            f"{name} needs transformers, which is not installed: pip install 'rizbin[hf]' brings it."
        ) from error
    fused = {"attn_implementation": "sdpa"}
    with _silent():
        if pretrained:
            kind = str(getattr(transformers_config(name), "model_type", ""))
            unused = ("pooler.",) if kind in _POOLED_BY_CLS else ()
            model = transformers_model(AutoModel, name, heads=True, unused=unused, **fused)
        else:
            model = transformers_untrained(name, **fused)
    try:
        facts, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        facts = {}
    return HuggingFaceEye(model, name=name, mean=_three(facts.get("image_mean")), std=_three(facts.get("image_std")))


def _three(values: Sequence[float | int] | None) -> Three | None:
    """Red, green and blue as a tuple, from a list in a file; None where there are none."""
    return (float(values[0]), float(values[1]), float(values[2])) if values and len(values) == 3 else None


def _whole_patches(images: Tensor, eye: Eye) -> tuple[int, int]:
    """Rows and columns of patches. Raises RizbinError for a size that the network does not take."""
    height, width = images.shape[-2:]
    if not eye.any_size and (height, width) != (eye.image_size, eye.image_size):
        raise RizbinError(
            f"The network takes pictures of {eye.image_size}x{eye.image_size} pixels only, not {height}x{width}."
        )
    if height % eye.patch_size or width % eye.patch_size:
        raise RizbinError(
            f"A picture of {height}x{width} pixels does not divide into patches of {eye.patch_size}; resize it."
        )
    return height // eye.patch_size, width // eye.patch_size


@contextmanager
def _silent() -> Iterator[None]:
    """Without the warnings and bars of transformers; what matters of them becomes an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _fused(network: nn.Module) -> Iterator[None]:
    """timm's attention by the fused kernel, which `QueryRows` reads, also where it was switched off."""
    slow: list[Any] = [module for module in network.modules() if getattr(module, "fused_attn", True) is False]
    for module in slow:
        module.fused_attn = True
    try:
        yield
    finally:
        for module in slow:
            module.fused_attn = False
