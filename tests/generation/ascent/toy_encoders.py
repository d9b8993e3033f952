"""Encoders so small that a step takes milliseconds, and smooth, so that gradients can be checked."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.models.encoder import Encoder


class Grid(nn.Module):
    """Means of a grid of cells, mixed by a random matrix: two layers that can be looked into."""

    def __init__(self, seed: int, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Conv2d(3, 6, 3, padding=1)
        self.head = nn.Linear(6 * 16, dim)
        for value in self.parameters():
            value.data = torch.randn(value.shape, generator=generator) * 0.3

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(torch.tanh(self.mix(pixels)), 4).flatten(1))


class Toy(Encoder):
    """An encoder whose words are random directions, the same for the same words."""

    has_patches = False

    def _run(self, batch: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.network(batch), None, None

    def _encode_text(self, texts: list[str]) -> Tensor:
        dim = len(self.network.get_parameter("head.bias"))
        rows = [torch.randn(dim, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
        return torch.stack(rows)


def toy(seed: int = 0, *, size: int = 16, dim: int = 8, reads: bool = True) -> Toy:
    """A toy with the weights of a seed, frozen."""
    made = Toy(Grid(seed, dim), name=f"toy-{seed}", image_size=size, patch_size=size)
    made.reads_text = reads
    made.frozen()
    return made


class Broken:
    """Gives what is no number from the third question on."""

    name, image_size = "broken", 16

    def __init__(self) -> None:
        self.asked = 0

    def encode_image(self, pixels: Tensor) -> Tensor:
        self.asked += 1
        wrong = float("nan") if self.asked > 2 else 1.0
        return F.normalize(pixels.flatten(1)[:, :8] + 0.1, dim=-1) * wrong

    def encode_text(self, texts: list[str]) -> Tensor:
        return F.normalize(torch.ones(len(texts), 8), dim=-1)


class Wordless:
    """A stranger's encoder that shows no layers and reads nothing."""

    name, image_size = "wordless", 8

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(pixels.flatten(1), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        raise RizbinError("wordless reads no words.")
