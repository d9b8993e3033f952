"""The base class of all adapters of encoders: preprocessing, embeddings, patch features and similarity."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.image_io import as_rgb
from rizbin.data.views import MEAN, STD, whole
from rizbin.models.attention import QueryRows, fused, row_of_patches
from rizbin.models.protocol import CLS, RGB, ImageFeatures, NoAttention, NoPatches
from rizbin.nets.dense import DenseHead, windows

Three = tuple[float, float, float]
"""Red, green and blue."""
Kind = Literal["image-text encoder", "image encoder"]
AT_ONCE = 64
"""Images in one forward pass: enough to fill a processor, few enough for any memory."""
TEXTS_AT_ONCE = 1024
"""Texts in one forward pass; a vocabulary with its templates has more."""
SCALE = 100.0
"""1 / temperature where a network has learned none: CLIP's greatest."""


class Encoder(ABC):
    """An encoder with its preprocessing: images and texts in, unit vectors and patch features out.

    It fulfils `rizbin.models.protocol.FeatureExtractor`, where each question is explained. The network of a library is
    an adapter's business: it says how images are normalized (`mean`, `std`), and gives `_run`, `_embed` and
    `_encode_text`.
    """

    any_size = False
    reads_text = False
    has_patches = True
    attends = False
    localizes = False
    has_cells = False
    """Whether patches are the cells of a feature map, the last of which may hang over the border."""
    tokenizer: Any = None

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        image_size: int,
        patch_size: int,
        mean: Three = MEAN,
        std: Three = STD,
        untrained: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Wraps the network as it is.

        Args:
            network: Both towers of it.
            name: What messages call it.
            image_size: Side of its square input in pixels.
            patch_size: Side of a patch in pixels.
            mean: Of the images that it was trained on, for values from 0 to 1.
            std: Their standard deviation.
            untrained: Builds the same network with random weights; None where that cannot be.
        """
        self._network = network
        self.name, self.image_size, self.patch_size, self.mean, self.std = name, image_size, patch_size, mean, std
        self._untrained = untrained

    # ---- for a person --------------------------------------------------------------------------------------------

    def encode_image(self, images: Any, *, normalize: bool = True) -> Float[Tensor, "images dim"]:
        """Unit vectors of images, one row each.

        images: one image or several: of Pillow, paths of files, arrays [height, width, 3]; a tensor holds pixels
            from 0 to 1 as [3 height width] or [batch 3 height width], and is encoded with gradient.
        normalize: False leaves the vectors at the length that the network gives them.
        """
        if isinstance(images, Tensor):
            vectors = self._embed(self.from_pixels(_batched(images)))
        else:
            with torch.no_grad():
                vectors = torch.cat([self._embed(self.preprocess(part)) for part in _parts(listed(images), AT_ONCE)])
        return F.normalize(vectors, dim=-1) if normalize else vectors

    @torch.no_grad()
    def encode_text(self, texts: str | Sequence[str], *, normalize: bool = True) -> Float[Tensor, "texts dim"]:
        """Unit vectors of texts, one row each. Raises RizbinError where the network reads no text."""
        if not self.reads_text:
            raise RizbinError(f"{self.name} reads no words; give an image-text encoder such as detailclip-mini.")
        spelled = [texts] if isinstance(texts, str) else list(texts)
        if not spelled:
            raise RizbinError("There is no text to encode; give one or more.")
        vectors = torch.cat([self._encode_text(part) for part in _parts(spelled, TEXTS_AT_ONCE)])
        return F.normalize(vectors, dim=-1) if normalize else vectors

    def similarity(self, images: Any, texts: str | Sequence[str]) -> Float[Tensor, "images texts"]:
        """The cosine of each image with each text."""
        return self.encode_image(images) @ self.encode_text(texts).T

    def patch_features(self, images: Any) -> Float[Tensor, "images rows columns dim"]:
        """One feature a patch of images of any kind (`encode_image`), after the last norm.

        Raises NoPatches where the network has none.
        """
        if isinstance(images, Tensor):
            return self.patches(self.from_pixels(_batched(images)))
        with torch.no_grad():
            return torch.cat([self.patches(self.preprocess(part)) for part in _parts(listed(images), AT_ONCE)])

    def preprocess(self, images: Any) -> Float[Tensor, "images 3 size size"]:
        """Images of any kind as central squares of `image_size`, normalized, on the network's device.

        As the evaluation sees them: area resampling where they shrink and bicubic where they grow, without the
        enlarged border or the squashing that some libraries prescribe for their own models.
        """
        squares = [whole(as_rgb(image), self.image_size) for image in listed(images)]
        return self.normalized(torch.from_numpy(np.stack(squares)).to(self.device))

    def __repr__(self) -> str:
        """Its kind, name, parameters and image size."""
        count = sum(value.numel() for value in self.network.parameters())
        patches = f", patches of {self.patch_size}" if self.has_patches else ""
        return (
            f"<{self.kind} {self.name}: {count:,} parameters, images of {self.image_size}x{self.image_size} pixels"
            f"{patches}>"
        )

    # ---- what it is ----------------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        return "image-text encoder" if self.reads_text else "image encoder"

    @property
    def network(self) -> nn.Module:
        """The underlying network, both towers of it."""
        return self._network

    @property
    def module(self) -> nn.Module:
        """The image tower, whose layers are called as its `named_modules` says."""
        return self._network

    @property
    def device(self) -> torch.device:
        first = next(self.network.parameters(), None)
        return first.device if first is not None else torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        first = next(self.network.parameters(), None)
        return first.dtype if first is not None else torch.float32

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches at `image_size`."""
        return self.image_size // self.patch_size, self.image_size // self.patch_size

    @property
    def scale(self) -> float:
        """What cosines of images and texts are multiplied by before a softmax: 1 / temperature."""
        learned = getattr(self.network, "logit_scale", None)
        return float(learned.detach().exp()) if isinstance(learned, Tensor) else SCALE

    @property
    def architecture(self) -> Any:
        """What decides its numbers with random weights, as JSON can hold it; None where that is not known."""
        return None

    def frozen(self, device: str = "") -> "Encoder":
        """This encoder in evaluation mode, its weights without gradient; on the device, where one is named."""
        if device:
            self.network.to(device)
        self.network.eval().requires_grad_(False)
        return self

    def untrained(self, seed: int) -> "Encoder | None":
        """The same network with random weights from `seed`, on the same device; the caller's random state stays.

        None where the library cannot build it without its weights.
        """
        if self._untrained is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            other = self._untrained()
        return self._alike(other.to(device=self.device, dtype=self.dtype))

    def _alike(self, network: nn.Module) -> "Encoder":
        """The adapter of a network of the same architecture; an adapter that is given `untrained` has its own."""
        raise RizbinError(f"{self.name} cannot be built without its weights.")

    # ---- images to tensors ---------------------------------------------------------------------------------------

    def prepare(self, images: Sequence[RGB]) -> Float[Tensor, "images 3 height width"]:
        """RGB images of one size at that size, normalized, on the network's device.

        Other arrays become RGB as of files (`rizbin.data.image_io.as_rgb`). Raises RizbinError for what is no
        image and for images of several sizes.
        """
        shown = [as_rgb(image, name="the image") for image in images]
        if len(sizes := {image.shape[:2] for image in shown}) > 1:
            some = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:3])
            raise RizbinError(f"The images of one call are of one size, and these have {some} pixels; resize them.")
        return self.normalized(torch.from_numpy(np.stack(shown)).to(self.device))

    def normalized(self, pixels: UInt8[Tensor, "images height width 3"]) -> Float[Tensor, "images 3 height width"]:
        """Pixels from 0 to 255 with the network's mean and standard deviation taken off."""
        return self._standard(pixels.permute(0, 3, 1, 2).float() / 255).to(self.dtype)

    def from_pixels(self, pixels: Float[Tensor, "images 3 _ _"]) -> Float[Tensor, "images 3 size size"]:
        """Pixels from 0 to 1, resized to the square `image_size` and normalized with gradient."""
        return self._standard(fitted(pixels.to(self.device), self.image_size)).to(self.dtype)

    def _standard(self, values: Tensor) -> Tensor:
        mean, std = (torch.tensor(colors, device=values.device).view(3, 1, 1) for colors in (self.mean, self.std))
        return (values - mean.to(values)) / std.to(values)

    # ---- the network's own answers -------------------------------------------------------------------------------

    @abstractmethod
    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """One pass: pooled [batch dim]; embedding [batch embedding] where texts are read; patches [batch rows columns
        dim] where there are any."""

    def _embed(self, batch: Tensor) -> Tensor:
        """The vectors of `encode_image` before normalization."""
        pooled, embedding, _ = self._run(batch)
        return pooled if embedding is None else embedding

    def _encode_text(self, texts: list[str]) -> Tensor:
        """Texts embedded, of any length; adapters of networks that read text have their own."""
        raise RizbinError(f"{self.name} reads no text.")

    def _project(self, patches: Tensor) -> Tensor:
        """Patch features [... dim] in the space of the texts, of any length; see `_encode_text`."""
        raise RizbinError(f"{self.name} reads no text, so its patches cannot be compared with any.")

    def features(self, batch: Float[Tensor, "batch 3 height width"]) -> ImageFeatures:
        """All that one forward pass gives."""
        rows, columns = self.patch_grid(batch) if self.has_patches else (1, 1)
        with fused(self.module), QueryRows(0, least=rows * columns) as watch:
            pooled, embedding, patches = self._run(batch)
        attention = None
        if self.attends and watch.rows:
            attention = torch.stack(watch.rows).mean(dim=(0, 2))[:, -rows * columns :]
        return ImageFeatures(
            pooled=pooled,
            embedding=None if embedding is None else F.normalize(embedding, dim=-1),
            patches=None if patches is None else patches.flatten(1, 2),
            attention=attention,
        )

    def pooled(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """One feature an image, before any projection."""
        return self._run(batch)[0]

    def embeddings(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch embedding"]:
        """Unit vectors: in the space of the texts, or of the pooled features where the network reads no text."""
        return F.normalize(self._embed(batch), dim=-1)

    def patches(self, batch: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch rows columns dim"]:
        """One feature a patch, after the last norm. Raises NoPatches where there are none."""
        self._need_patches()
        self.patch_grid(batch)
        patches = self._run(batch)[2]
        assert patches is not None  # `has_patches` says so
        return patches

    def dense(
        self, images: Float[Tensor, "batch 3 height width"], how: DenseHead = "plain"
    ) -> Float[Tensor, "batch rows columns embedding"]:
        """Unit-length patch embeddings in the space of the texts: projected last-layer patches, see `DenseHead`.

        Raises NoPatches where no patch meets a text.
        """
        if not self.localizes:
            raise NoPatches(
                f"{self.name} has no patches that can be compared with words; give an image-text encoder with a linear "
                "image projection, such as detailclip-mini."
            )
        if how == "windows":
            return windows(self, images)
        return F.normalize(self._project(self.patches(images)), dim=-1)

    def attention_rows(
        self, batch: Float[Tensor, "batch 3 height width"], token: int = CLS, layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """How much one token attends to each patch; see `FeatureExtractor`."""
        if not self.has_patches:
            raise NoAttention(f"{self.name} gives no features of single patches; choose a ViT.")
        grid = self.patch_grid(batch)
        with fused(self.module):
            return row_of_patches(
                lambda: self._run(batch), token=token, layer=layer, grid=grid, has_cls=self._has_cls, name=self.name
            )

    @property
    def _has_cls(self) -> bool:
        """Whether the first token stands for the whole image."""
        return self.attends

    def _need_patches(self) -> None:
        if not self.has_patches:
            raise NoPatches(f"{self.name} gives no features of single patches; choose a ViT or a ResNet of timm.")

    def patch_grid(self, batch: Tensor) -> tuple[int, int]:
        """Rows and columns of patches. Raises RizbinError for a size that the network does not take."""
        height, width = batch.shape[-2:]
        if not self.any_size and (height, width) != (self.image_size, self.image_size):
            raise RizbinError(
                f"The network takes images of {self.image_size}x{self.image_size} pixels only, not {height}x{width}."
            )
        if self.has_cells:
            return math.ceil(height / self.patch_size), math.ceil(width / self.patch_size)
        if self.any_size and (height % self.patch_size or width % self.patch_size):
            raise RizbinError(
                f"An image of {height}x{width} pixels does not divide into patches of {self.patch_size}; resize it."
            )
        return height // self.patch_size, width // self.patch_size


def fitted(pixels: Float[Tensor, "images 3 _ _"], side: int) -> Float[Tensor, "images 3 side side"]:
    """Images at a square of that side; larger ones are averaged, so that nothing stands between the pixels read."""
    if pixels.shape[-2:] == (side, side):
        return pixels
    return F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def listed(images: Any) -> list[Any]:
    """One image or several as a list. Raises RizbinError for none."""
    if isinstance(images, str | Path | Image.Image):
        return [images]
    several = [images] if isinstance(images, np.ndarray) and images.ndim < 4 else list(images)
    if not several:
        raise RizbinError("There is no image to encode; give one or more.")
    return several


def three(values: Sequence[float | int] | None) -> Three | None:
    """Red, green and blue as a tuple, from a list in a file; None where there are none."""
    return (float(values[0]), float(values[1]), float(values[2])) if values and len(values) == 3 else None


def _batched(pixels: Tensor) -> Tensor:
    """[batch 3 height width], floats from 0 to 1."""
    batch = pixels if pixels.ndim == 4 else pixels[None]
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise RizbinError(
            f"A tensor of shape {list(pixels.shape)} holds no images; give pixels from 0 to 1 as [batch, 3, height, "
            "width]."
        )
    return batch if batch.is_floating_point() else batch.float() / 255


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
