"""The image encoder: a timm VisionTransformer that can run on some of its tokens and say what its CLS token looks at.

timm's weights load unchanged. What timm lacks and this adds: kept tokens at any resolution, and the CLS token's
attention, computed from that one query row (a full attention matrix is never made).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from timm.layers.attention import Attention
from timm.layers.hybrid_embed import HybridEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.precision import wide
from rizbin.nets.attend import attend
from rizbin.nets.backbones import SumsReached, VisibleBatchNorm, norms_given, norms_seeing
from rizbin.nets.chunks import in_chunks, sum_of_chunks
from rizbin.nets.foreign import timm_by_name
from rizbin.nets.layout import for_convolutions

CLS_STD = 1e-6
"""Deviation of the normal numbers at which timm starts a CLS token: every image then has the same one at first."""


@dataclass(frozen=True)
class Features:
    """What the encoder saw, after its last norm."""

    cls: Float[Tensor, "batch dim"]
    patches: Float[Tensor, "batch tokens dim"]
    """All patches in row order, or only the kept ones in the order of `keep`."""
    attention: Float[Tensor, "batch tokens"] | None
    """CLS-to-patch attention, mean over all layers and heads; a row sums to less than 1, the rest goes to CLS and
    registers."""


class RowAttention(Attention):
    """timm's attention, by the cheaper way, that can also hand out the softmax row of its first token (CLS) for the
    price of one query."""

    watched: bool = False
    row: Tensor | None = None
    """The row [batch heads tokens] of a watched pass. One for each attention, not a list that all share: a compiled
    block is compiled again whenever such a list has another length."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if not self.watched and self.attn_drop.p:  # `attend` drops nothing
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        batch, tokens, _ = x.shape
        opens = getattr(self, "gate", None)  # newer versions of timm have it
        gate = opens(x).sigmoid() if opens is not None else None
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        if self.watched:
            # At least float32: under bf16 the row would lose the order of near-equal patches; selection is by order.
            scores = (query[:, :, :1] * self.scale) @ key.transpose(-2, -1)
            self.row = wide(scores).softmax(-1)[:, :, 0]
        x = attend(query, key, value, mask=attn_mask, causal=is_causal)
        x = self.norm(x.transpose(1, 2).reshape(batch, tokens, self.attn_dim))
        x = x if gate is None else x * gate
        return self.proj_drop(self.proj(x))

    def of_first(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch 1 dim"]:
        """What the first token alone gets.

        <query, W x> is <W' query, x>, and a mean of W x is W times the mean of x, so no key and no value is ever made.
        The keys' bias adds the same to all scores of a query, and softmax takes that away.
        """
        shape = (self.num_heads, self.head_dim)
        to_query, to_key, to_value = self.qkv.weight.chunk(3)
        query_bias, _, value_bias = (None,) * 3 if self.qkv.bias is None else self.qkv.bias.chunk(3)
        query = F.linear(x[:, 0], to_query, query_bias).unflatten(1, shape) * self.scale
        query_of_tokens = torch.einsum("bhe,hed->bhd", query, to_key.unflatten(0, shape))
        weights = (query_of_tokens @ x.transpose(1, 2)).softmax(-1)
        gathered = torch.einsum("bhd,hed->bhe", weights @ x, to_value.unflatten(0, shape)).flatten(1)
        gathered = gathered if value_bias is None else gathered + value_bias
        return self.proj_drop(self.proj(self.norm(gathered[:, None])))

    @property
    def plain(self) -> bool:
        """Whether `of_first` knows all that it does: neither norms of queries and keys, nor gates, nor dropout."""
        return (
            isinstance(self.q_norm, nn.Identity)
            and isinstance(self.k_norm, nn.Identity)
            and getattr(self, "gate", None) is None
            and self.attn_drop.p == 0
        )


class LastBlock(Block):
    """timm's block that can also make its first token (CLS) alone, for almost nothing.

    It is made of the parts of a block that timm has built, under the same names: weights and random numbers stay as
    they were. timm's own `block_fn` would also replace blocks of another kind. Should a later version of timm give its
    blocks other parts or state beside them, `fits` says no, the block stays as it is and `VisionEncoder.cls` makes a
    whole pass (tests/nets/test_vision.py notices).
    """

    PARTS = ("norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2")

    def __init__(self, block: Block) -> None:
        nn.Module.__init__(self)  # Block's own would build and draw new parts
        for name, part in block.named_children():
            self.add_module(name, part)
        self.train(block.training)

    @classmethod
    def fits(cls, block: nn.Module) -> bool:
        """Whether `forward` knows all that this block does."""
        if type(block) is not Block or tuple(name for name, _ in block.named_children()) != cls.PARTS:
            return False
        # Of its own state a module of torch has nothing but what every module has.
        stateless = vars(block).keys() == vars(nn.Module()).keys()
        owns_tensors = any(True for _ in block.parameters(recurse=False)) or any(True for _ in block.buffers(False))
        return stateless and not owns_tensors and cast(RowAttention, block.attn).plain

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, *, first_alone: bool = False
    ) -> Tensor:
        if not first_alone:
            return super().forward(x, attn_mask=attn_mask, is_causal=is_causal)
        first = x[:, :1] + self.drop_path1(self.ls1(cast(RowAttention, self.attn).of_first(self.norm1(x))))
        return first + self.drop_path2(self.ls2(self.mlp(self.norm2(first))))


class VisionEncoder(nn.Module):
    """A timm VisionTransformer without its classifier. Images are normalized floats [batch 3 height width]."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        name: str = "rizbin_vit_mini_patch8_64"
        """timm's name of a VisionTransformer; the default learns the embedded world on two cores."""
        image_size: int = 64
        """Side of the square image in pixels at which position embeddings are made."""
        registers: int = 0
        """Extra tokens without a place, which take over the artefacts that large ViTs put on background patches (arXiv
        2309.16588)."""
        drop_path: float = 0.0
        """Probability of skipping a block in training, growing linearly with depth to this value."""
        pretrained: bool = False
        """Start from timm's published weights (needs the network or timm's cache)."""
        freeze_patch_embedding: bool = False
        """Keep the patch embedding at its random start, as MoCo v3 and the DetailCLIP code do (arXiv 2104.02057)."""
        cls_std: float = CLS_STD
        """Standard deviation of the CLS token at a random start: 1e-6 as in timm; 0.02 as in timm 0.5, on which the
        DetailCLIP code stands. Pretrained weights bring their own token."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        keywords = {"num_classes": 0, "img_size": settings.image_size, "drop_path_rate": settings.drop_path}
        if settings.registers:
            keywords["reg_tokens"] = settings.registers
        try:
            trunk = timm_by_name(
                settings.name,
                pretrained=settings.pretrained,
                attn_layer=RowAttention,
                dynamic_img_size=True,
                **keywords,
            )
        except (RuntimeError, TypeError) as error:
            raise RizbinError(
                f"timm cannot build '{settings.name}' as a VisionTransformer ({error}); "
                "choose a name from timm.list_models('vit_*')."
            ) from error
        if not isinstance(trunk, VisionTransformer) or trunk.cls_token is None:
            raise RizbinError(
                f"'{settings.name}' is not a VisionTransformer with a CLS token; "
                "choose a name such as vit_small_patch16_224."
            )
        if not all(isinstance(getattr(block, "attn", None), RowAttention) for block in trunk.blocks):
            raise RizbinError(
                f"The blocks of '{settings.name}' are of a kind whose attention cannot be read; "
                "choose a name such as vit_small_patch16_224."
            )
        self.trunk = trunk
        last = trunk.blocks[-1]
        if LastBlock.fits(last):
            trunk.blocks[-1] = LastBlock(cast(Block, last))
        if settings.cls_std != CLS_STD and not settings.pretrained:
            nn.init.trunc_normal_(trunk.cls_token, std=settings.cls_std)
        if settings.freeze_patch_embedding:
            trunk.patch_embed.requires_grad_(False)
        self.chunk = 0
        """Images that go through the blocks at once, where that is fewer than a batch; 0: all."""
        self.dim = int(trunk.embed_dim)
        self.grid = cast(tuple[int, int], tuple(trunk.patch_embed.grid_size))
        """Height and width in patches at `image_size`."""
        self.patch_size = settings.image_size // self.grid[0]
        # A convolutional stem sees beyond its patch: removed patches are blanked before it, or they would leak into
        # kept ones.
        self._stem_overlaps = isinstance(trunk.patch_embed, HybridEmbed)
        self._stem_norms = [module for module in trunk.patch_embed.modules() if isinstance(module, VisibleBatchNorm)]

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        keep: Int[Tensor, "batch kept"] | None = None,
        *,
        attend: bool = False,
        track: bool = True,
    ) -> Features:
        """Features of whole images, or of the patches whose indices (row order) stand in `keep`.

        `attend` also gives attention. Without `track` a pass in training leaves the running statistics of a stem's
        batch norm alone: where whole images train beside kept patches or small crops, those of whole images are
        what evaluation needs.
        """
        if 0 < self.chunk < len(images) and not (attend and torch.is_grad_enabled()):
            return self._in_chunks(images, keep, attend=attend, track=track)
        with self.rows(attend) as rows:
            tokens = self.trunk.norm(self.trunk.blocks(self.tokens(images, keep, track=track)))
        prefix = self.trunk.num_prefix_tokens
        attention = torch.stack(rows).mean(dim=(0, 2))[:, prefix:] if attend else None
        return Features(cls=tokens[:, 0], patches=tokens[:, prefix:], attention=attention)

    def _in_chunks(self, images: Tensor, keep: Tensor | None, *, attend: bool, track: bool) -> Features:
        """The same, a part of the batch at a time (`rizbin.nets.chunks`).

        The batch norms of a stem are of the whole batch all the same: first their sums are taken over the chunks, of
        one norm after the other, and then given to each chunk, gradient and all.
        """
        norms = self._stem_norms if self.training else []
        chunk, count = self.chunk, len(images)

        def pairs(values: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
            return list(zip(values[::2], values[1::2], strict=True))

        def sums(images: Tensor, keep: Tensor | None, *given: Tensor) -> tuple[Tensor, ...]:
            try:
                with norms_given(norms, pairs(given), measure=True):
                    self.tokens(images, keep, track=False)
            except SumsReached as reached:
                return (reached.sums,)
            raise AssertionError("every norm of a stem is reached")

        def whole(images: Tensor, keep: Tensor | None, *given: Tensor) -> tuple[Tensor, ...]:
            with self.rows(attend) as rows, norms_given(norms, pairs(given)):
                tokens = self.trunk.norm(self.trunk.blocks(self.tokens(images, keep, track=False)))
            seen = (torch.stack(rows).mean(dim=(0, 2))[:, self.trunk.num_prefix_tokens :],) if attend else ()
            return tokens, *seen

        given: list[Tensor] = []
        for norm in norms:
            total = sum_of_chunks(sums, count, chunk, images, keep, shared=given)
            given += norm.statistics(total, track=track)
        parts = in_chunks(whole, count, chunk, images, keep, shared=given)
        tokens, prefix = parts[0], self.trunk.num_prefix_tokens
        return Features(cls=tokens[:, 0], patches=tokens[:, prefix:], attention=parts[1] if attend else None)

    def cls(self, images: Float[Tensor, "batch 3 height width"], *, track: bool = True) -> Float[Tensor, "batch dim"]:
        """The CLS token as `forward` gives it, where nobody asks for patches: the last block makes no other token."""
        *blocks, last = self.trunk.blocks
        if not isinstance(last, LastBlock):
            return self(images, track=track).cls
        tokens = self.tokens(images, track=track)
        for block in blocks:
            tokens = block(tokens)
        return self.trunk.norm(last(tokens, first_alone=True))[:, 0]

    def tokens(
        self,
        images: Float[Tensor, "batch 3 height width"],
        keep: Int[Tensor, "batch kept"] | None = None,
        *,
        track: bool = True,
    ) -> Float[Tensor, "batch tokens dim"]:
        """What enters the first block: prefix tokens (CLS, registers), then embedded patches with their positions."""
        if images.shape[-1] % self.patch_size or images.shape[-2] % self.patch_size:
            raise RizbinError(
                f"An image of {images.shape[-2]}x{images.shape[-1]} pixels does not divide into patches of "
                f"{self.patch_size}; resize it."
            )
        visible = None
        if keep is not None and self._stem_overlaps:
            visible = self.visible(keep, images.shape[-2], images.shape[-1]).to(images.dtype)
            images = images * visible
        if self._stem_overlaps:
            images = for_convolutions(images)
        with norms_seeing(self._stem_norms, visible, track=track):
            # timm's private name for adding positions and prefix tokens; its public `forward_features` goes on to the
            # blocks. The test that features equal timm's fails when it changes.
            tokens = self.trunk._pos_embed(self.trunk.patch_embed(images))
        if keep is not None:
            prefix = self.trunk.num_prefix_tokens
            patches = tokens[:, prefix:].gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :prefix], patches], dim=1)
        return self.trunk.norm_pre(tokens)

    def visible(
        self, keep: Int[Tensor, "batch kept"], height: int, width: int
    ) -> Float[Tensor, "batch 1 height width"]:
        """1 on the pixels of kept patches, 0 on those of removed ones."""
        rows, columns = height // self.patch_size, width // self.patch_size
        mask = torch.zeros(keep.shape[0], rows * columns, device=keep.device).scatter_(1, keep, 1.0)
        return F.interpolate(mask.view(-1, 1, rows, columns), scale_factor=self.patch_size, mode="nearest")

    @contextmanager
    def rows(self, watch: bool = True) -> Iterator[list[Tensor]]:
        """Collects the CLS rows [batch heads tokens] of every block that runs inside, there once that has ended."""
        collected: list[Tensor] = []
        attentions = self._attentions()
        for attention in attentions:
            attention.watched = watch
        try:
            yield collected
        finally:
            collected += [attention.row for attention in attentions if attention.row is not None]
            for attention in attentions:
                attention.watched, attention.row = False, None

    def _attentions(self) -> list[RowAttention]:
        """The attention of each block, all made by `attn_layer`."""
        return [cast(RowAttention, block.attn) for block in self.trunk.blocks]

    def attention_heads(
        self, images: Float[Tensor, "batch 3 height width"], layer: int = -1
    ) -> Float[Tensor, "batch heads rows columns"]:
        """CLS-to-patch attention of each head of one layer (the last by default), as a map."""
        with self.rows() as collected:
            self.trunk.blocks(self.tokens(images))
        row = collected[layer][:, :, self.trunk.num_prefix_tokens :]
        return row.unflatten(-1, (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size))
