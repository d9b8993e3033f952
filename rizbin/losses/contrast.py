"""Contrastive losses. Each process computes its own rows against the columns of all; gathers carry gradient.

With gradients averaged over processes afterwards, that is exactly the gradient of one process with the whole batch.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.precision import wide


def contrast(
    images: Float[Tensor, "batch embedding"],
    texts: Float[Tensor, "batch embedding"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
) -> Float[Tensor, ""]:
    """CLIP's softmax loss, or SigLIP's sigmoid loss when there is a bias."""
    return clip_loss(images, texts, scale) if bias is None else sigmoid_loss(images, texts, scale, bias)


def contrast_of_views(
    images: Float[Tensor, "views embedding"],
    texts: Float[Tensor, "batch embedding"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
) -> Float[Tensor, ""]:
    """The mean `contrast` of several views of each image with its text, the first view's rows first."""
    return torch.stack([contrast(view, texts, scale, bias) for view in images.split(len(texts))]).mean()


def clip_loss(
    images: Float[Tensor, "batch embedding"], texts: Float[Tensor, "batch embedding"], scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of unit-length pairs: row i of `images` belongs to row i of `texts`.

    -1/2 mean_i [log softmax_j(scale <image_i, text_j>)_i + log softmax_j(scale <text_i, image_j>)_i]
    Source: CLIP, arXiv 2103.00020, figure 3. `scale` is 1 / temperature.
    """
    targets = _own(len(images), images.device)
    by_image = scale * images @ parallel.gather(texts).T
    by_text = scale * texts @ parallel.gather(images).T
    return (F.cross_entropy(wide(by_image), targets) + F.cross_entropy(wide(by_text), targets)) / 2


def sigmoid_loss(
    images: Float[Tensor, "batch embedding"],
    texts: Float[Tensor, "batch embedding"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Every image-text pair judged on its own.

    -1/batch sum_ij log sigmoid(z_ij (scale <image_i, text_j> + bias)), z = 1 for i = j, else -1.
    Source: SigLIP, arXiv 2303.15343, equation 1.
    """
    return _sigmoid(wide(scale * images @ parallel.gather(texts).T + bias))


def contrast_of(
    fits: Float[Tensor, "batch all"], scale: Float[Tensor, ""], bias: Float[Tensor, ""] | None
) -> Float[Tensor, ""]:
    """The same losses where image i of this process fits text j of all by `fits`, not by one vector an image."""
    if bias is not None:
        return _sigmoid(wide(scale * fits + bias))
    targets = _own(len(fits), fits.device)
    # The images of all processes stand in the columns of a text: numbers are gathered, not patches.
    by_text = parallel.gather(fits).T[targets]
    return (F.cross_entropy(wide(scale * fits), targets) + F.cross_entropy(wide(scale * by_text), targets)) / 2


def _own(count: int, device: torch.device) -> Int[Tensor, " count"]:
    """Where this process's pairs stand among those of all."""
    return torch.arange(count, device=device) + parallel.rank() * count


def _sigmoid(logits: Float[Tensor, "batch all"]) -> Float[Tensor, ""]:
    signs = -torch.ones_like(logits)
    signs[torch.arange(len(logits), device=logits.device), _own(len(logits), logits.device)] = 1.0
    return -F.logsigmoid(signs * logits).sum(dim=1).mean()


def nt_xent(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    temperature: float,
    *,
    keys: tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]] | None = None,
    count: int | None = None,
) -> Float[Tensor, ""]:
    """SimCLR's loss: each view must pick its sibling among all other views of the batch.

    Takes projections of any length. Views are picked among `keys`, what another network says of the same two views
    (BYOL, arXiv 2006.07733, equation 8 with beta 1); by default among themselves.
    count: how many views of other images each view is compared with, those of the images that follow it in the batch;
    None: all of them, 2 * batch - 2.
    Mean over the 2 * batch views of -log softmax over the others. Source: SimCLR, arXiv 2002.05709, equation 1.
    Differs: the official code sums the two directions; the paper's algorithm 1 takes the mean, and so does this.
    """
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    key_a, key_b = (a, b) if keys is None else (F.normalize(key, dim=-1) for key in keys)
    all_a, all_b = parallel.gather(key_a), parallel.gather(key_b)
    rows = torch.arange(len(a), device=a.device)
    own = rows + parallel.rank() * len(a)
    loss = a.new_zeros(())
    for mine, siblings, others in ((a, all_b, all_a), (b, all_a, all_b)):
        with_siblings = wide(mine @ siblings.T) / temperature
        with_others = wide(mine @ others.T) / temperature
        # A view is not its own negative.
        with_others = with_others.index_put((rows, own), with_others.new_tensor(float("-inf")))
        if count is not None:
            # How many images further on in the batch: 0 is the image itself, whose sibling is the answer.
            distance = (torch.arange(len(siblings), device=a.device) - own[:, None]) % len(siblings)
            with_siblings = with_siblings.masked_fill(distance > (count + 1) // 2, float("-inf"))
            with_others = with_others.masked_fill(distance > count // 2, float("-inf"))
        loss = loss + F.cross_entropy(torch.cat([with_siblings, with_others], dim=1), own)
    return loss / 2
