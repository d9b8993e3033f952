"""The text encoder: CLIP's causal transformer, with parameters named as in OpenCLIP so that export is a copy.

Source: Radford et al., arXiv 2103.00020, section 2.4; names from open_clip's TextTransformer.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.tokens import Tokenizer
from rizbin.nets.attend import attend
from rizbin.nets.chunks import in_chunks


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x): the approximation that OpenAI's CLIP and its descendants were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class TextAttention(nn.Module):
    """Self-attention in which a word sees only itself and what stands before it, or all that `seen` marks.

    Its parameters are named as those of nn.MultiheadAttention.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        visible: Bool[Tensor, "batch 1 1 length"] | None = None,
        at: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """`at`: only the word at this place of each row is asked for; without `seen` it sees what stands before it."""
        batch, length, width = x.shape
        if at is not None:
            to_query, to_rest = self.in_proj_weight.split([width, 2 * width])
            query_bias, rest_bias = self.in_proj_bias.split([width, 2 * width])
            words = x[torch.arange(batch, device=x.device), at]
            query = F.linear(words, to_query, query_bias).view(batch, self.heads, 1, width // self.heads)
            rest = F.linear(x, to_rest, rest_bias).view(batch, length, 2, self.heads, width // self.heads)
            key, value = rest.permute(2, 0, 3, 1, 4).unbind(0)
            if visible is None:
                visible = (torch.arange(length, device=x.device) <= at[:, None])[:, None, None]
            out = attend(query, key, value, mask=visible)
        else:
            qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias).view(
                batch, length, 3, self.heads, width // self.heads
            )
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            out = attend(query, key, value, mask=visible, causal=visible is None)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class TextMLP(nn.Sequential):
    """The two layers behind the attention, run in the order in which they are set."""

    def __init__(self, width: int, quick_gelu: bool) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU() if quick_gelu else nn.GELU()
        self.c_proj = nn.Linear(4 * width, width)


class TextBlock(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, width: int, heads: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = TextAttention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = TextMLP(width, quick_gelu)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        visible: Bool[Tensor, "batch 1 1 length"] | None = None,
        at: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """All words, or only the one at place `at` of each row."""
        attended = self.attn(self.ln_1(x), visible, at)
        if at is not None:
            x = x[torch.arange(len(x), device=x.device), at].unsqueeze(1)
        x = x + attended
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks under the name that OpenCLIP's weights use."""

    def __init__(self, width: int, layers: int, heads: int, *, quick_gelu: bool = False, shallow: bool = False) -> None:
        super().__init__()
        blocks = [TextBlock(width, heads, quick_gelu) for _ in range(layers)]
        self.resblocks = nn.ModuleList(blocks)
        # CLIP's branches shrink with depth so that their sum keeps its size; few layers need no shrinking.
        branch_std = width**-0.5 if shallow else (2 * layers) ** -0.5 * width**-0.5
        for block in blocks:
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=branch_std)
            nn.init.zeros_(block.attn.out_proj.bias)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=branch_std / 2 if shallow else branch_std)

    def forward(
        self,
        x: Float[Tensor, "batch length width"],
        visible: Bool[Tensor, "batch 1 1 length"] | None = None,
        at: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch _ width"]:
        """All words, or only the one at place `at` of each row: the last block then makes no other."""
        last = len(self.resblocks) - 1
        for index, block in enumerate(self.resblocks):
            x = block(x, visible, at if index == last else None)
        return x


MOST_LAYERS = 512
"""Most layers of a text tower; CLIP's largest have 32. A settings file that names a billion would be built for
hours."""


class TextEncoder(nn.Module):
    """CLIP's text tower up to its projection. Tokens are padded with 0 behind the end token."""

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        tokenizer: Tokenizer.Settings = Tokenizer.Settings()
        """Vocabulary and the longest caption in tokens."""
        width: int = 128
        """Channels of a token; 512 in CLIP's base models."""
        layers: int = 3
        """Transformer blocks; 12 in CLIP."""
        heads: int = 4
        """Attention heads; CLIP uses width / 64, a small width wants more."""
        initialization: Literal["shallow", "clip"] = "shallow"
        """How weights start. clip: as CLIP, quiet branches for deep towers. shallow: words speak at once: token
        embeddings of deviation 1, a silent end token (what is read there is then made of words alone), branches at full
        strength. After 25,000 images of the embedded world CLIP named 29 percent from clip's start and 56 from this
        one."""
        quick_gelu: bool = False
        """The activation of OpenAI's CLIP and of the DetailCLIP code; GELU otherwise."""

    def __init__(self, settings: Settings, embedding: int) -> None:
        super().__init__()
        _check(settings, embedding)
        self.settings = settings
        self.chunk = 0
        """Texts that are read at once, where that is fewer than a batch; 0: all."""
        self.tokenizer = Tokenizer(settings.tokenizer)
        width = settings.width
        self.token_embedding = nn.Embedding(self.tokenizer.size, width)
        self.positional_embedding = nn.Parameter(torch.empty(settings.tokenizer.context, width))
        shallow = settings.initialization == "shallow"
        self.transformer = Transformer(
            width, settings.layers, settings.heads, quick_gelu=settings.quick_gelu, shallow=shallow
        )
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embedding))
        nn.init.normal_(self.token_embedding.weight, std=1.0 if shallow else 0.02)
        if shallow:
            with torch.no_grad():
                self.token_embedding.weight[self.tokenizer.end] = 0.0
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)

    def forward(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embedding"]:
        """Embeddings, not yet of unit length, read at the end token (the highest id)."""
        # Nothing behind the last end token of the batch is ever read: the attention is causal and pooling stops at the
        # end.
        tokens = self.tokenizer.trim(tokens)
        if 0 < self.chunk < len(tokens):
            return in_chunks(lambda some: (self._read(some),), len(tokens), self.chunk, tokens)[0]
        return self._read(tokens)

    def _read(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch embedding"]:
        return self.words(self.token_embedding(tokens), tokens.argmax(-1))[:, 0] @ self.text_projection

    def words(
        self, embedded: Float[Tensor, "batch length width"], at: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch _ width"]:
        """One feature a token after the last norm, from embedded tokens without positions; `at`: of that token only."""
        x = embedded + self.positional_embedding[: embedded.shape[1]]
        return self.ln_final(self.transformer(x, at=at))


def _check(settings: TextEncoder.Settings, embedding: int) -> None:
    numbers = {"embedding": embedding, "width": settings.width, "layers": settings.layers, "heads": settings.heads}
    for name, number in numbers.items():
        if number < 1 or (name == "layers" and number > MOST_LAYERS):
            most = f", up to {MOST_LAYERS}" if name == "layers" else ""
            raise RizbinError(f"{name} of the text tower is {number}; give 1 or more{most}.")
    if settings.width % settings.heads:
        raise RizbinError(
            f"A width of {settings.width} does not divide into {settings.heads} heads; set another width or number of "
            "heads of the text tower."
        )
