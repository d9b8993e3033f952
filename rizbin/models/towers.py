"""Image towers of other libraries as training wants them: on a subset of their patches, at any size, with attention.

A tower here is the library's own module, run in parts: embed the patches, run the blocks, norm, pool. Between the first
and the second the patches that nobody wants are taken out, with their rotary positions where there are any. What is
whole equals what the library itself gives (tests/models/test_published.py).
"""

import inspect
import math
from abc import abstractmethod
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers.format import Format
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.losses.reconstruct import patchify
from rizbin.models.attention import QueryRows, check_layer, fused
from rizbin.models.encoder import Three
from rizbin.models.pool_rows import PoolRows
from rizbin.nets.chunks import in_chunks
from rizbin.nets.vision import Features

Positions = Any
"""What every block is given beside the tokens: rotary positions in the library's own form; None for none."""


class PublishedTower(nn.Module):
    """The interface of `rizbin.nets.vision.VisionEncoder` over a module of another library.

    `Features.cls` is what the library pools, by whatever means: its CLS token, the mean of the patches, or attention.
    Images are normalized as Rizbin trains (`rizbin.data.views.normalize`) and brought to the network's own mean and
    deviation here.
    """

    prefix: int
    """Tokens before those of the patches."""
    cls_first: bool = True
    """Whether the first token stands for the whole image; else the pooling says what matters."""

    def __init__(self, network: nn.Module, *, image_size: int, patch_size: int, dim: int, mean: Three, std: Three):
        super().__init__()
        self.network: Any = network
        self.image_size, self.patch_size, self.dim = image_size, patch_size, dim
        self.grid = (image_size // patch_size, image_size // patch_size)
        self.chunk = 0
        """Images that go through at once, where that is fewer than a batch; 0: all."""
        self._factor = [ours / theirs for ours, theirs in zip(STD, std, strict=True)]
        self._offset = [(ours - theirs) / wide for ours, theirs, wide in zip(MEAN, mean, std, strict=True)]

    # ---- what each family knows ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in the order in which they run."""

    @property
    def behind(self) -> list[nn.Module]:
        """What stands behind the last block: norm, pooling, projection."""
        return []

    @abstractmethod
    def embed(self, images: Tensor) -> tuple[Tensor, Positions]:
        """Tokens [batch prefix+patches dim] that enter the first block, and what every block is given beside them."""

    def keep(self, positions: Positions, keep: Int[Tensor, "batch kept"]) -> Positions:
        """The positions of the kept patches alone."""
        return positions

    def run(self, block: nn.Module, place: int, tokens: Tensor, positions: Positions) -> Tensor:
        """One block; `place` counts them from 0."""
        return first_of(block(tokens))

    @abstractmethod
    def normed(self, tokens: Tensor) -> Tensor:
        """All tokens after the last norm."""

    def pooled(self, tokens: Tensor) -> Tensor:
        """The one feature of the image, from what `normed` gave."""
        return tokens[:, 0]

    def alone(self, patches: Tensor) -> Tensor:
        """Each patch feature [... dim] as the pooling would give it, were it the only one."""
        return patches

    def project(self, pooled: Tensor) -> Tensor:
        """The pooled feature in the space of the texts, where the tower itself holds that projection."""
        return pooled

    # ---- what training asks --------------------------------------------------------------------------------------

    def as_trained(self, images: Tensor) -> Tensor:
        """Images with the network's own mean and deviation."""
        factor = torch.tensor(self._factor, device=images.device, dtype=images.dtype).view(3, 1, 1)
        return images * factor + torch.tensor(self._offset, device=images.device, dtype=images.dtype).view(3, 1, 1)

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        keep: Int[Tensor, "batch kept"] | None = None,
        *,
        attend: bool = False,
        track: bool = True,
    ) -> Features:
        """Features of whole images, or of the patches whose places (row order) stand in `keep`.

        attend: also how much each patch counts: the CLS token's attention, mean over layers and heads; without CLS that
            of the pooling query; where patches are averaged, the softmax of their products with the mean.
        track: there are no running statistics; taken for the sake of one interface.
        """
        if 0 < self.chunk < len(images) and not (attend and torch.is_grad_enabled()):
            names = ("cls", "patches", *(("attention",) if attend else ()))

            def run(images: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
                seen = self._features(images, keep, attend=attend)
                return tuple(getattr(seen, name) for name in names)

            parts = in_chunks(run, len(images), self.chunk, images, keep)
            return Features(**{"attention": None, **dict(zip(names, parts, strict=True))})
        return self._features(images, keep, attend=attend)

    def _features(self, images: Tensor, keep: Tensor | None, *, attend: bool) -> Features:
        tokens, positions = self.entering(images, keep)
        watched = attend and self.cls_first
        with fused(self.network), QueryRows(0, least=tokens.shape[1]) if watched else nullcontext() as watch:
            for place, block in enumerate(self.blocks):
                tokens = self.run(block, place, tokens, positions)
        tokens = self.normed(tokens)
        patches = tokens[:, self.prefix :]
        with fused(self.network), PoolRows() if attend and not watched else nullcontext() as pools:
            pooled = self.pooled(tokens)
        attention = None
        if watched and watch is not None:
            attention = torch.stack(watch.rows).mean(dim=(0, 2))[:, self.prefix :]
        elif attend:
            attention = self._pool_attention(pooled, patches, pools)
        return Features(cls=pooled, patches=patches, attention=attention)

    def _pool_attention(self, pooled: Tensor, patches: Tensor, pools: PoolRows | None) -> Tensor:
        if pools is not None and pools.rows:
            return torch.stack(pools.rows).mean(dim=(0, 2))[:, -patches.shape[1] :]
        products = torch.einsum("bpd,bd->bp", patches.float(), pooled.float())
        return (products / patches.shape[-1] ** 0.5).softmax(dim=-1)

    def entering(self, images: Tensor, keep: Tensor | None) -> tuple[Tensor, Positions]:
        """What enters the first block, and what every block is given beside it."""
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise RizbinError(
                f"An image of {height}x{width} pixels does not divide into patches of {self.patch_size}; resize it."
            )
        tokens, positions = self.embed(self.as_trained(images))
        if keep is None:
            return tokens, positions
        patches = tokens[:, self.prefix :].gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
        return torch.cat([tokens[:, : self.prefix], patches], dim=1), self.keep(positions, keep)

    def tokens(self, images: Tensor, keep: Tensor | None = None, *, track: bool = True) -> Tensor:
        """What enters the first block."""
        return self.entering(images, keep)[0]

    def cls(self, images: Float[Tensor, "batch 3 height width"], *, track: bool = True) -> Float[Tensor, "batch dim"]:
        """What the library pools."""
        return self(images).cls

    def attention_heads(
        self, images: Float[Tensor, "batch 3 height width"], layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """CLS-to-patch attention of each head of one layer; without CLS that of the pooling query."""
        tokens, positions = self.entering(images, None)
        grid = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        mode = QueryRows(0, least=tokens.shape[1]) if self.cls_first else PoolRows()
        with fused(self.network), mode as watch:
            for place, block in enumerate(self.blocks):
                tokens = self.run(block, place, tokens, positions)
            self.pooled(self.normed(tokens))
        if not watch.rows:
            raise RizbinError("The tower averages its patches, so no query attends to them.")
        check_layer(layer, len(watch.rows), "The tower")
        return watch.rows[layer][..., -grid[0] * grid[1] :].unflatten(-1, grid)


class TimmTower(PublishedTower):
    """VisionTransformer and Eva (DINOv3, EVA-02) of timm; of open_clip's towers those that hold one of timm."""

    def __init__(self, trunk: nn.Module, head: nn.Module | None = None, **facts: Any) -> None:
        """`head`: open_clip's projection behind the pooled feature."""
        if not isinstance(trunk, VisionTransformer | Eva):
            raise RizbinError(f"A {type(trunk).__name__} of timm cannot be trained on here; choose a ViT.")
        network: Any = trunk
        super().__init__(network, dim=int(network.embed_dim), **facts)
        self.head = head
        self.prefix = int(network.num_prefix_tokens)
        self.cls_first = network.cls_token is not None and self.pooling is None
        self._rotary = isinstance(trunk, Eva)
        _take_any_size(network)

    @property
    def pooling(self) -> Any:
        """Attention that pools; None where another token or the mean does."""
        return getattr(self.network, "attn_pool", None)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.network.blocks)

    @property
    def behind(self) -> list[nn.Module]:
        names = ("norm", "fc_norm", "attn_pool")
        own = [getattr(self.network, name, None) for name in names]
        return [module for module in (*own, self.head) if isinstance(module, nn.Module)]

    def embed(self, images: Tensor) -> tuple[Tensor, Positions]:
        embedded = self.network._pos_embed(self.network.patch_embed(images))
        tokens, positions = embedded if self._rotary else (embedded, None)
        return self.network.norm_pre(tokens), positions

    def keep(self, positions: Positions, keep: Tensor) -> Positions:
        if not isinstance(positions, Tensor):
            return None
        # Of one place each: [patches dim], or for every layer and head [layers heads patches dim].
        chosen = positions[..., keep, :]
        return chosen.unsqueeze(1) if positions.ndim == 2 else chosen.permute(0, 2, 1, 3, 4)

    def run(self, block: nn.Module, place: int, tokens: Tensor, positions: Positions) -> Tensor:
        if not self._rotary:
            return block(tokens)
        if positions is not None and getattr(self.network, "rope_mixed", False):
            positions = positions[place]
        return block(tokens, rope=positions)

    def normed(self, tokens: Tensor) -> Tensor:
        return self.network.norm(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        return self.network.forward_head(tokens, pre_logits=True)

    def alone(self, patches: Tensor) -> Tensor:
        if self.pooling is not None:
            patches = self.pooling(patches.reshape(-1, 1, patches.shape[-1])).reshape(patches.shape)
        return self.network.fc_norm(patches)

    def project(self, pooled: Tensor) -> Tensor:
        return pooled if self.head is None else self.head(pooled)


class OpenClipTower(PublishedTower):
    """open_clip's own VisionTransformer."""

    prefix = 1

    def __init__(self, visual: nn.Module, **facts: Any) -> None:
        network: Any = visual
        if network.attn_pool is not None or network.pool_type not in ("tok", "avg"):
            raise RizbinError("An image tower of CoCa, which pools by many queries, cannot be trained on here.")
        super().__init__(network, dim=int(network.class_embedding.shape[0]), **facts)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.network.transformer.resblocks)

    @property
    def behind(self) -> list[nn.Module]:
        projection = [] if self.network.proj is None else [nn.ParameterList([self.network.proj])]
        return [self.network.ln_post, *projection]

    def embed(self, images: Tensor) -> tuple[Tensor, Positions]:
        network = self.network
        patches = network.conv1(images)
        rows, columns = patches.shape[-2:]
        patches = patches.flatten(2).transpose(1, 2)
        first = network.class_embedding.to(patches.dtype).expand(len(images), 1, -1)
        table = resized_positions(network.positional_embedding, 1, network.grid_size, (rows, columns))
        return network.ln_pre(torch.cat([first, patches], dim=1) + table.to(patches.dtype)), None

    def normed(self, tokens: Tensor) -> Tensor:
        return tokens if self.network.final_ln_after_pool else self.network.ln_post(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        pooled = tokens[:, 0] if self.network.pool_type == "tok" else tokens[:, 1:].mean(dim=1)
        return self.network.ln_post(pooled) if self.network.final_ln_after_pool else pooled

    def alone(self, patches: Tensor) -> Tensor:
        return self.network.ln_post(patches) if self.network.final_ln_after_pool else patches

    def project(self, pooled: Tensor) -> Tensor:
        return pooled if self.network.proj is None else pooled @ self.network.proj


class TransformersTower(PublishedTower):
    """CLIP, SigLIP, SigLIP 2, ViT, DeiT, DINOv2 and DINOv3 of transformers, told apart by their parts."""

    def __init__(self, model: nn.Module, **facts: Any) -> None:
        network: Any = model
        super().__init__(network, dim=int(network.config.hidden_size), **facts)
        embeddings = network.embeddings
        first = getattr(embeddings, "cls_token", getattr(embeddings, "class_embedding", None))
        registers = getattr(embeddings, "register_tokens", None)
        distilled = getattr(embeddings, "distillation_token", None)
        extra = 0 if registers is None else int(registers.shape[1])
        self.prefix = (first is not None) + extra + (distilled is not None)
        self.cls_first = first is not None
        _layers_of(network)
        self._norm = next((name for name in ("post_layernorm", "layernorm", "norm") if hasattr(network, name)), "")
        if not self._norm:
            raise RizbinError(f"{type(model).__name__} has no last norm that is known here; choose a ViT.")
        # Linear embedding of patches that are cut before: SigLIP 2's for images of any shape.
        self._cut_before = isinstance(getattr(embeddings, "patch_embedding", None), nn.Linear)
        self._rotary = hasattr(network, "rope_embeddings")

    @property
    def pooling(self) -> Any:
        """Attention that pools; None where another token or the mean does."""
        return getattr(self.network, "head", None)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(_layers_of(self.network))

    @property
    def behind(self) -> list[nn.Module]:
        own = [getattr(self.network, self._norm), self.pooling]
        return [module for module in own if isinstance(module, nn.Module)]

    def embed(self, images: Tensor) -> tuple[Tensor, Positions]:
        embeddings = self.network.embeddings
        rows, columns = images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size
        if self._cut_before:
            shapes = torch.tensor([[rows, columns]] * len(images), device=images.device)
            return embeddings(patchify(images, self.patch_size), shapes), None
        if self._rotary:
            return embeddings(images), self.network.rope_embeddings(images)
        if _takes(embeddings.forward, "interpolate_pos_encoding"):
            tokens = embeddings(images, interpolate_pos_encoding=True)
        else:
            tokens = embeddings(images)
        return (self.network.pre_layrnorm(tokens) if hasattr(self.network, "pre_layrnorm") else tokens), None

    def keep(self, positions: Positions, keep: Tensor) -> Positions:
        return None if positions is None else tuple(part[keep].unsqueeze(1) for part in positions)

    def run(self, block: nn.Module, place: int, tokens: Tensor, positions: Positions) -> Tensor:
        if positions is not None:
            return first_of(block(tokens, position_embeddings=positions))
        # CLIP's and SigLIP's layers want a mask said, be it none.
        return first_of(block(tokens, None) if _takes(block.forward, "attention_mask") else block(tokens))

    def normed(self, tokens: Tensor) -> Tensor:
        return getattr(self.network, self._norm)(tokens)

    def pooled(self, tokens: Tensor) -> Tensor:
        if self.pooling is not None:
            return self.pooling(tokens)
        return tokens[:, 0] if self.cls_first else tokens.mean(dim=1)

    def alone(self, patches: Tensor) -> Tensor:
        if self.pooling is None:
            return patches
        return self.pooling(patches.reshape(-1, 1, patches.shape[-1])).reshape(patches.shape)


def resized_positions(
    table: Float[Tensor, "positions dim"], prefix: int, old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "_ dim"]:
    """Learned positions for another grid of patches, the first `prefix` rows as they are: as open_clip resizes them."""
    if tuple(old) == tuple(new):
        return table
    grid = table[prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([table[:prefix], grid.permute(0, 2, 3, 1).reshape(math.prod(new), -1).to(table)])


def first_of(out: Any) -> Tensor:
    """The tokens, which some layers give alone and others first."""
    return out if isinstance(out, Tensor) else out[0]


def _layers_of(network: Any) -> Any:
    """The list of layers, which each family calls otherwise."""
    encoder = getattr(network, "encoder", None) or getattr(network, "model", network)
    for name in ("layers", "layer"):
        if isinstance(layers := getattr(encoder, name, None), nn.ModuleList):
            return layers
    raise RizbinError(f"{type(network).__name__} has no list of layers that is known here; choose a ViT.")


def _takes(function: Any, name: str) -> bool:
    """Whether a function has a parameter of that name of its own, not among others' keywords."""
    return name in inspect.signature(function).parameters


def _take_any_size(trunk: Any) -> None:
    """A ViT that timm built for one size takes all: `dynamic_img_size` after the fact."""
    embed = trunk.patch_embed
    if getattr(trunk, "dynamic_img_size", True) or not hasattr(embed, "strict_img_size"):
        return
    if not embed.flatten or embed.output_fmt != Format.NCHW or trunk.pos_embed is None:
        return
    trunk.dynamic_img_size = True
    embed.flatten, embed.output_fmt, embed.strict_img_size = False, Format.NHWC, False
