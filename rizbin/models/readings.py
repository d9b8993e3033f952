"""Dense reading without training: what the last block's attention is replaced by, so that patches meet words in place.

The last block of CLIP mixes patches for the sake of one vector of the image, and what a patch says of its own place is
lost. Each reading below computes the attention of that block otherwise, from its own queries, keys and values or from
another network's features, and nothing is trained. Some leave out the block's residual path and MLP ("attention alone"
here), whose outputs are those of a few loud channels. All work on any tower that `rizbin.models.towers` runs in parts;
`windows` and `guided_upsample` (`rizbin.nets.dense`) go with each.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.models.attention import fused
from rizbin.models.encoder import Encoder
from rizbin.models.open_clip import OpenClipEncoder
from rizbin.models.own import RizbinEncoder
from rizbin.models.protocol import FeatureExtractor, NoPatches
from rizbin.models.towers import OpenClipTower, PublishedTower, TimmTower, TransformersTower, first_of
from rizbin.models.transformers import TransformersEncoder
from rizbin.nets.dense import DenseHead, windows

DenseReading = Literal["plain", "maskclip", "value-value", "sclip", "naclip", "proxyclip"]
"""How the last block of the image tower is read for patches; plain: as it was trained."""
NEIGHBORS = 5.0
"""Deviation of NACLIP's Gaussian in patches, as in its code."""
SHIFT, SHARPNESS = 1.2, 3.0
"""ProxyCLIP's beta and gamma: similarities under beta times their mean are no neighbors; the others times gamma."""

Heads = Float[Tensor, "batch heads tokens dim"]
Weights = Float[Tensor, "batch heads tokens tokens"]


@dataclass(frozen=True)
class Layout:
    """Where the patches stand among the tokens."""

    prefix: int
    """Tokens before them: CLS and registers."""
    grid: tuple[int, int]
    guide: Float[Tensor, "batch patches dim"] | None = None
    """Another network's features of the same patches."""


def itself(query: Heads, key: Heads, value: Heads, layout: Layout) -> Weights:
    """Each token gets its own value: the identity. Source: MaskCLIP, Zhou et al., arXiv 2112.01071, section 3.2."""
    return torch.eye(query.shape[-2], dtype=query.dtype, device=query.device).expand(*query.shape[:-1], -1)


def values_alike(query: Heads, key: Heads, value: Heads, layout: Layout) -> Weights:
    """softmax(v v^T / sqrt(d)): tokens whose values are alike. Source: CLIP Surgery, Li et al., arXiv 2304.05653."""
    return _softmax(value, value)


def queries_and_keys_alike(query: Heads, key: Heads, value: Heads, layout: Layout) -> Weights:
    """softmax(q q^T / sqrt(d)) + softmax(k k^T / sqrt(d)). Source: SCLIP, Wang et al., arXiv 2312.01597, equation 3."""
    return _softmax(query, query) + _softmax(key, key)


def neighbors(query: Heads, key: Heads, value: Heads, layout: Layout) -> Weights:
    """softmax(k k^T / sqrt(d) + w), w a Gaussian of the distance of two patches, 0 for CLS.

    Source: NACLIP, Hajimiri et al., arXiv 2404.08181, equations 4 and 5.
    """
    rows, columns = layout.grid
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).flatten(0, 1)
    distance = torch.cdist(places.double(), places.double()).square()
    near = torch.zeros(query.shape[-2], query.shape[-2], dtype=query.dtype, device=query.device)
    near[layout.prefix :, layout.prefix :] = (-distance / (2 * NEIGHBORS**2)).exp().to(near)
    return (key @ key.transpose(-2, -1) * key.shape[-1] ** -0.5 + near).softmax(-1)


def guided(query: Heads, key: Heads, value: Heads, layout: Layout) -> Weights:
    """softmax over patches of gamma (s - beta mean(s)), s the cosines of another network's features; below 0 none.

    Source: ProxyCLIP, Lan et al., arXiv 2408.04883, equations 5 and 6. Differs: where the grids are not alike, the
    other network's features are brought to this one's, and not the values to the other's.
    """
    assert layout.guide is not None  # `DenseReader` asks for one
    features = F.normalize(layout.guide.to(query.dtype), dim=-1)
    cosines = features @ features.transpose(1, 2)
    scores = (cosines - SHIFT * cosines.mean(dim=(1, 2), keepdim=True)) * SHARPNESS
    # A patch is its own neighbor also where nothing stands out, so that no row is empty.
    own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    weights = scores.masked_fill((scores < 0) & ~own, -torch.inf).softmax(-1)
    whole = torch.eye(query.shape[-2], dtype=query.dtype, device=query.device).repeat(len(query), 1, 1)
    whole[:, layout.prefix :, layout.prefix :] = weights
    return whole[:, None].expand(-1, query.shape[1], -1, -1)


def _softmax(left: Heads, right: Heads) -> Weights:
    return (left @ right.transpose(-2, -1) * left.shape[-1] ** -0.5).softmax(-1)


@dataclass(frozen=True)
class Rule:
    """One reading."""

    weights: Callable[[Heads, Heads, Heads, Layout], Weights]
    whole_block: bool
    """Whether the block's residual path and MLP stay, as SCLIP has it; else the attention's output alone counts."""
    source: str


RULES: Mapping[str, Rule] = {
    "maskclip": Rule(itself, False, "MaskCLIP (arXiv 2112.01071): the last attention gives each patch its own value"),
    "value-value": Rule(values_alike, False, "CLIP Surgery (arXiv 2304.05653): the last attention is of values"),
    "sclip": Rule(
        queries_and_keys_alike, True, "SCLIP (arXiv 2312.01597): the last attention is of queries plus of keys"
    ),
    "naclip": Rule(neighbors, False, "NACLIP (arXiv 2404.08181): the last attention is of keys and of neighbors"),
    "proxyclip": Rule(guided, False, "ProxyCLIP (arXiv 2408.04883): the last attention follows another network"),
}


class _Replaced(TorchFunctionMode):
    """While it is entered, every attention of all tokens to themselves gets other weights."""

    def __init__(self, rule: Rule, layout: Layout) -> None:
        super().__init__()
        self.rule, self.layout = rule, layout
        self.count = layout.prefix + math.prod(layout.grid)
        self.replaced = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention and args[0].shape[-2] == args[1].shape[-2] == self.count:
            return self._mixed(*args[:3])
        if func is F.multi_head_attention_forward and args[0] is args[1] and len(args[0]) == self.count:
            return self._packed(*args, **kwargs)
        return func(*args, **kwargs)

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.replaced += 1
        return self.rule.weights(query, key, value, self.layout) @ value

    def _packed(
        self,
        tokens: Float[Tensor, "tokens batch dim"],
        key: Tensor,
        value: Tensor,
        dim: int,
        heads: int,
        weight: Tensor,
        bias: Tensor | None,
        bias_k: Any,
        bias_v: Any,
        zeros: bool,
        dropout: float,
        out_weight: Tensor,
        out_bias: Tensor | None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        packed = F.linear(tokens.transpose(0, 1), weight, bias).unflatten(-1, (3, heads, -1))
        mixed = self._mixed(*packed.permute(2, 0, 3, 1, 4).unbind(0))
        return F.linear(mixed.transpose(1, 2).flatten(2), out_weight, out_bias).transpose(0, 1), None


class _Reached(Exception):
    """The attention's output is there, and nobody wants the rest of the block."""

    def __init__(self, tokens: Tensor) -> None:
        super().__init__()
        self.tokens = tokens


def tower_of(encoder: FeatureExtractor) -> PublishedTower:
    """The image tower of an adapter, to be run in parts on images as the adapter normalizes them.

    Raises NoPatches for one whose patches cannot be read so.
    """
    facts: dict[str, Any] = {"image_size": encoder.image_size, "patch_size": encoder.patch_size}
    facts |= {"mean": MEAN, "std": STD}  # images come normalized already
    try:
        if isinstance(encoder, RizbinEncoder):
            vision: Any = getattr(encoder.network, "vision", None)
            if isinstance(vision, PublishedTower):
                return vision
            if (trunk := getattr(vision, "trunk", None)) is not None:
                return TimmTower(trunk, **facts)
        if isinstance(encoder, TransformersEncoder):
            return TransformersTower(encoder.module, **facts)
        if isinstance(encoder, OpenClipEncoder):
            visual: Any = encoder.module
            if isinstance(trunk := getattr(visual, "trunk", None), nn.Module):
                return TimmTower(trunk, visual.head, **facts)
            return OpenClipTower(visual, **facts)
    except (RizbinError, AttributeError):
        pass
    raise NoPatches(f"The last block of {encoder.name} cannot be read otherwise; choose a ViT with a text tower.")


@torch.no_grad()
def read_patches(
    tower: PublishedTower,
    images: Float[Tensor, "batch 3 height width"],
    rule: Rule,
    guide: Float[Tensor, "batch patches features"] | None = None,
) -> Float[Tensor, "batch patches dim"]:
    """Patch features after the last norm, the last block read by the rule.

    guide: another network's features of the same patches, for a rule that asks for them.
    """
    tokens, positions = tower.entering(images, None)
    grid = images.shape[-2] // tower.patch_size, images.shape[-1] // tower.patch_size
    *others, last = tower.blocks
    with fused(tower.network):
        for place, block in enumerate(others):
            tokens = tower.run(block, place, tokens, positions)
        with _Replaced(rule, Layout(tower.prefix, grid, guide)) as watch:
            if rule.whole_block:
                tokens = tower.run(last, len(others), tokens, positions)
            else:
                tokens = _attention_alone(tower, last, len(others), tokens, positions)
    if not watch.replaced:
        raise NoPatches("The last block computes no attention that could be read otherwise; choose a ViT.")
    return tower.normed(tokens)[:, tower.prefix :]


def _attention_alone(tower: PublishedTower, block: Any, place: int, tokens: Tensor, positions: Any) -> Tensor:
    """What the attention of a block gives, scaled as the block scales it."""
    attention = next(
        (getattr(block, name) for name in ("attn", "self_attn", "attention") if hasattr(block, name)), None
    )
    if attention is None:
        raise NoPatches("The last block has no attention of a name that is known; choose a ViT.")

    def reached(module: nn.Module, given: Any, out: Any) -> None:
        raise _Reached(first_of(out))

    hook = attention.register_forward_hook(reached)
    try:
        tower.run(block, place, tokens, positions)
    except _Reached as there:
        tokens = there.tokens
    finally:
        hook.remove()
    scale = next((getattr(block, name) for name in ("ls1", "ls_1", "layer_scale1") if hasattr(block, name)), None)
    return tokens if scale is None else scale(tokens)


class DenseReader:
    """An adapter whose `dense` reads the last block of its image tower otherwise; all else is the adapter's own."""

    def __init__(self, encoder: Encoder, reading: DenseReading, guide: Encoder | None = None) -> None:
        """guide: of proxyclip the network whose features lead, such as a DINO; None: not needed.

        Raises RizbinError where the encoder reads no text or has no patches, and where a guide is missing or useless.
        """
        if reading not in RULES:
            raise RizbinError(f"There is no dense reading '{reading}'; there are {', '.join(get_args(DenseReading))}.")
        if not encoder.reads_text:
            raise NoPatches(f"{encoder.name} reads no words, so its patches cannot meet any.")
        if (reading == "proxyclip") != (guide is not None):
            raise RizbinError(
                "proxyclip follows a second network: name one as --guide, such as dino-mini or timm's DINO."
                if guide is None
                else f"{reading} follows no second network; leave --guide out, or read by proxyclip."
            )
        if guide is not None and not guide.has_patches:
            raise NoPatches(f"{guide.name} has no features of patches that could guide; choose a ViT.")
        self.encoder, self.guide = encoder, guide
        self.reading: DenseReading = reading
        self.rule = RULES[reading]
        self._tower = tower_of(encoder)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    @property
    def localizes(self) -> bool:
        """Whether patches can be compared with texts."""
        return True

    @property
    def architecture(self) -> Any:
        """What decides its numbers with random weights."""
        own = self.encoder.architecture
        return None if own is None or self.guide is not None else [own, self.reading]

    def untrained(self, seed: int) -> "DenseReader | None":
        """The same network with random weights, read alike; the guide keeps its own."""
        other = self.encoder.untrained(seed)
        return None if other is None else DenseReader(other, self.reading, self.guide)

    def dense(
        self, images: Float[Tensor, "batch 3 height width"], how: DenseHead = "plain"
    ) -> Float[Tensor, "batch rows columns embedding"]:
        """Unit-length patch embeddings in the space of the texts."""
        if how == "windows":
            reader: Any = self  # the adapter's own properties are passed on
            return windows(reader, images)
        encoder, tower = self.encoder, self._tower
        grid = images.shape[-2] // tower.patch_size, images.shape[-1] // tower.patch_size
        guide = None if self.guide is None else self._guided(images, grid)
        patches = read_patches(tower, images, self.rule, guide)
        return F.normalize(self._projected(encoder, tower, patches), dim=-1).unflatten(1, grid)

    def _projected(self, encoder: Encoder, tower: PublishedTower, patches: Tensor) -> Tensor:
        """Patches in the space of the texts."""
        if isinstance(encoder, RizbinEncoder):
            network: Any = encoder.network
            return network.project(patches)
        alone = tower.alone(patches)
        if isinstance(encoder, TransformersEncoder):
            projection = getattr(encoder.network, "visual_projection", None)
            return alone if projection is None else projection(alone)
        return tower.project(alone)

    def _guided(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """The guide's patch features on the grid of this encoder."""
        guide, own = self.guide, self.encoder
        assert guide is not None
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (own.mean, own.std))
        pixels = (images * std.to(images) + mean.to(images)).to(guide.device)
        side = guide.image_size if not guide.any_size else max(grid[0] * guide.patch_size, guide.patch_size)
        shape = (side, side) if not guide.any_size else (side, grid[1] * guide.patch_size)
        shown = F.interpolate(pixels, size=shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        features = guide.patches(guide._standard(shown).to(guide.dtype)).permute(0, 3, 1, 2)
        features = F.interpolate(features.float(), size=grid, mode="bilinear", align_corners=False)
        return features.flatten(2).transpose(1, 2).to(images.device)


def read_by(encoder: Encoder, reading: DenseReading, guide: Encoder | None = None) -> Any:
    """The adapter, its patches read so; the adapter itself for plain without a guide."""
    if reading == "plain" and guide is None:
        return encoder
    return DenseReader(encoder, reading, guide)
