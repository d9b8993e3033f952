"""Measures of collapse, each with its formula, what it detects and what it misses; read them together.

No one of them is enough: the deviation misses a network that uses 8 of 256 dimensions, a rank misses features that are
spread but useless, and whatever centers (LiDAR too) reads a constant with a little noise as spread.
All compute in float64: small singular values drown in float32. Rows are samples.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement

EPSILON = 1e-7
"""Added to each share of a spectrum before its logarithm; RankMe's value. Outside the division, as in the paper."""

PAIRED_ROWS = 2000
"""Rows that `uniformity` compares: all pairs of them are 2 million distances."""

_BLOCK = 1000
"""Rows of the neighbor table at once: 10,000 images then cost 80 MB a table."""


def normalized_std(rows: Float[Tensor, "samples dim"]) -> float:
    """sqrt(dim) mean_j std_i(z_ij / ||z_i||): 1 where the directions are isotropic, 0 where they are one.

    The deviation is the population's (divided by the number of samples), so the range is exactly 0 to 1.
    Catches full collapse. Blind to dimensional collapse: rank 8 of 256 in general position reads 0.97. A mean that all
    rows share lowers it, whatever else they hold.
    Source: SimSiam, arXiv 2011.10566, section 4.1, which plots it without sqrt(dim).
    """
    unit = F.normalize(_checked(rows), dim=1)
    return unit.std(dim=0, correction=0).mean().item() * math.sqrt(rows.shape[1])


def rankme(rows: Float[Tensor, "samples dim"]) -> float:
    """exp(-sum_k p_k log p_k), p_k = s_k / sum(s) + 1e-7, s the singular values of the uncentered matrix.

    From 1 (one direction, or all zero) to min(samples, dim), plus the little that 1e-7 adds. Take several times more
    samples than dimensions.
    Catches full and dimensional collapse. Blind to use: rank is needed, not enough, and noise has full rank. Compare
    runs of one method only.
    Never center: a constant with noise of 1e-4 reads 1.02 here, and full rank centered.
    Source: RankMe, arXiv 2210.02885.
    """
    return _effective_rank(spectrum(rows))


def lidar(grouped: Float[Tensor, "images views dim"], delta: float = 1e-4) -> float:
    """The entropy rank of what tells images apart, measured in units of what tells views of one image apart.

    exp(-sum_k p_k log p_k), p_k = l_k / sum(l) + 1e-7, l the eigenvalues of Sw^-1/2 Sb Sw^-1/2, where
    Sb = mean_i (m_i - m)(m_i - m)^T with m_i the mean of image i's views and m the mean of those, and
    Sw = mean_iv (z_iv - m_i)(z_iv - m_i)^T + delta I.
    From 1 to min(images - 1, dim), plus the little that 1e-7 adds. Take more images than dimensions.
    Catches dimensional collapse and spread that augmentation alone makes. Blind to a common shift and, above
    sqrt(delta), to scale; so to a constant with noise: means of q noisy views keep a q-th of its variance in every
    direction. 512 images of 4 such views read 199 of 256, more than isotropic features that all views keep (184). Read
    it beside `normalized_std`, and compare at equal images, views, dim and delta only: `delta` is in squared units of
    the features.
    Source: LiDAR, arXiv 2312.04000, equations 1 to 4. Unbiased denominators (images - 1, images * (views - 1)) would
    scale all l alike, but for delta, and change nothing.
    Raises RizbinError for fewer than 2 views: then there is no scatter within an image.
    """
    images, views, dim = grouped.shape
    if views < 2:
        raise RizbinError(
            f"LiDAR compares views of one image with each other, and there is {views} view per image; give 2 or more."
        )
    if not delta > 0:
        raise RizbinError(f"LiDAR's delta is {delta:g}; give a number above 0, in squared units of the features.")
    if images < 2:
        raise RizbinError(f"LiDAR compares images with each other, and there is {images}; give 2 or more.")
    grouped = _checked(grouped.flatten(0, 1)).unflatten(0, (images, views))
    means = grouped.mean(dim=1)
    between = means - means.mean(dim=0)
    within = (grouped - means.unsqueeze(1)).flatten(0, 1)
    scatter = within.T @ within / len(within) + delta * torch.eye(dim, dtype=within.dtype, device=within.device)
    values, vectors = torch.linalg.eigh(scatter)
    # Rounding can take a scatter of exact rank below 0 by more than delta where features are as large as 1e6.
    inverse_root = vectors * values.clamp(min=delta).rsqrt() @ vectors.T
    return _effective_rank(torch.linalg.eigvalsh(inverse_root @ (between.T @ between / images) @ inverse_root))


def spectrum(rows: Float[Tensor, "samples dim"]) -> Float[Tensor, " ranks"]:
    """Singular values of the uncentered matrix over sqrt(samples), descending; there are min(samples, dim), all >= 0.

    The k-th is the root of the mean square along the k-th direction, in units of the features.
    Catches dimensional collapse: a cliff in its logarithm. Blind to use, as every rank is.
    Source: Jing et al., arXiv 2110.09348, section 3. Differs: they plot the singular values of the centered covariance;
    those are squares of these where the mean is 0. Uncentered, a shared mean stands out as one large first value
    instead of being hidden.
    """
    checked = _checked(rows)
    return torch.linalg.svdvals(checked) / math.sqrt(len(checked))


def alignment(a: Float[Tensor, "pairs dim"], b: Float[Tensor, "pairs dim"]) -> float:
    """mean_i ||x_i - y_i||^2 of the rows at unit length: 0 where both views of each image agree, at most 4.

    Catches views that do not find each other. Blind to collapse, which makes it 0: read it beside `uniformity`.
    Source: Wang and Isola, arXiv 2005.10242, section 4.1, with alpha = 2.
    """
    x, y = F.normalize(_checked(a), dim=1), F.normalize(_checked(b), dim=1)
    return (x - y).square().sum(dim=1).mean().item()


def uniformity(rows: Float[Tensor, "samples dim"], t: float = 2.0) -> float:
    """log mean_{i<j} exp(-t ||z_i - z_j||^2) of the rows at unit length: 0 where all are one point, lower is better.

    Never below -4 t (two opposite points); spread evenly over a sphere of many dimensions it nears -2 t.
    Only the first 2,000 rows are compared; shuffle rows that are sorted by kind.
    Catches full collapse, and dimensional collapse to a few dimensions only. Blind to which points are near.
    Source: Wang and Isola, arXiv 2005.10242, section 4.1.
    """
    unit = F.normalize(_checked(rows)[:PAIRED_ROWS], dim=1)
    return torch.pdist(unit).square().mul(-t).exp().mean().log().item()


@dataclass(frozen=True, kw_only=True)
class TeacherHealth:
    """What a teacher's distributions over prototypes say about DINO's two collapses (arXiv 2104.14294, section 5.3).

    Without centering one prototype wins always: entropy 0, mean entropy 0, top share 1. Without sharpening all are
    equal: entropy ln K and divergence 0. Health is a mean entropy near ln K with an entropy clearly below it.
    """

    entropy: float
    """h: the mean over samples of -sum_k p_k ln p_k, from 0 to ln K, in nats. Near 0 it can be confidence or collapse:
    `mean_entropy` tells which."""
    divergence: float
    """The mean of KL(teacher || student) = sum_k p_k ln(p_k / q_k), from 0, in nats; 0 means that there is nothing left
    to learn. Infinite where the student rules out what the teacher expects."""
    mean_entropy: float
    """The entropy of the mean distribution, from h to ln K, in nats: how many prototypes are used over all samples.
    Bounded by ln(samples) + h, so take more samples than prototypes."""
    top_share: float
    """The share of samples, 1/K to 1, whose likeliest prototype is the most common one. Ties count for every prototype
    in them, so an exactly uniform teacher reads 1."""
    prototypes: int
    """K."""

    @property
    def highest(self) -> float:
        """ln K, the entropy of the uniform distribution; a loss that stays there learns nothing."""
        return math.log(self.prototypes)

    def text(self) -> str:
        """One line: h 2.81, mean h 5.20 of ln K 5.55, KL 0.53, top prototype 3%."""
        return (
            f"h {self.entropy:.2f}, mean h {self.mean_entropy:.2f} of ln K {self.highest:.2f}, "
            f"KL {self.divergence:.2f}, top prototype {self.top_share:.0%}"
        )


def teacher_health(
    teacher: Float[Tensor, "samples prototypes"], student: Float[Tensor, "samples prototypes"]
) -> TeacherHealth:
    """The entropies of `TeacherHealth`; both are distributions (after centering, sharpening and softmax), not scores.

    Source: DINO, arXiv 2104.14294, section 5.3: their cross-entropy H(teacher, student) is h + KL.
    Raises RizbinError where a row is negative or does not sum to 1.
    """
    teacher_shares, student_shares = _distributions(teacher, "teacher"), _distributions(student, "student")
    own = torch.xlogy(teacher_shares, teacher_shares).sum(dim=1)
    mean = teacher_shares.mean(dim=0)
    return TeacherHealth(
        # Each is at least 0; rounding must not print -0.00.
        entropy=max(0.0, -own.mean().item()),
        divergence=max(0.0, (own - torch.xlogy(teacher_shares, student_shares).sum(dim=1)).mean().item()),
        mean_entropy=max(0.0, -torch.xlogy(mean, mean).sum().item()),
        top_share=(teacher_shares >= teacher_shares.amax(dim=1, keepdim=True)).double().mean(dim=0).max().item(),
        prototypes=teacher_shares.shape[1],
    )


@dataclass(frozen=True, kw_only=True)
class Health:
    """The two numbers to watch in every run; each catches what the other misses."""

    std: float
    """`normalized_std`, 0 to 1."""
    rank: float
    """`rankme`, 1 to `dim`."""
    dim: int
    """Dimensions of a row."""

    def text(self) -> str:
        """One line: std 0.98, rank 33.7 of 64."""
        return f"std {self.std:.2f}, rank {self.rank:.1f} of {self.dim}"


def health(rows: Float[Tensor, "samples dim"]) -> Health:
    """`normalized_std` and `rankme` of the rows.

    Take the projection that the loss sees: pooled features keep a deviation of 0.3 and a rank of 13 beside a constant
    projection. An untrained network reads as collapsed, so early in a run this is no alarm.
    """
    return Health(std=normalized_std(rows), rank=rankme(rows), dim=rows.shape[1])


@dataclass(frozen=True, kw_only=True)
class ColorShortcut:
    """How far nearest neighbors are nearest in color, and what neighbors drawn by lot would give."""

    share: float
    """0 to 1; see `color_shortcut`."""
    chance: float
    """k / (images - 1): the expectation for neighbors drawn by lot, and exactly what a constant encoder gets."""

    def text(self) -> str:
        """One line: 31% of neighbors are neighbors in color (5% by chance)."""
        return f"{self.share:.0%} of neighbors are neighbors in color ({self.chance:.0%} by chance)"


def color_shortcut(
    pixels: UInt8[Tensor, "images size size 3"], rows: Float[Tensor, "images dim"], k: int = 10, bins: int = 4
) -> ColorShortcut:
    """The share of each image's k nearest by cosine of `rows` that are among its k nearest by color histogram.

    mean_i |N_rows(i) and N_color(i)| / k. A histogram counts pixels in bins^3 joint red, green and blue bins of equal
    width; two are as near as their intersection sum_b min(h_b, g_b) (Swain and Ballard, IJCV 1991). Images that tie
    for the last places hold equal parts of them in either set, so the order of images does not matter. From 0 to 1;
    chance is k / (images - 1).
    Catches an encoder that tells images apart by color, which solves a contrastive task whose views keep their
    colors. Blind to other shortcuts. Above chance is no fault in itself: things of a kind share colors, so compare with
    another encoder on the same images.
    Source: the shortcut, SimCLR, arXiv 2002.05709, section 3.1 and figure 6; the score is ours.
    """
    images = len(rows)
    embeddings = F.normalize(_checked(rows), dim=1)
    if not 1 <= k < images - 1:
        raise RizbinError(
            f"Of {images} images each has {images - 1} others, so {k} nearest say nothing; "
            f"choose a k from 1 to {images - 2}, or give more images."
        )
    if not 1 <= bins <= 256:
        raise RizbinError(f"A color channel has 256 values and cannot be cut into {bins} bins; choose 1 to 256.")
    colors = _histograms(pixels, bins).double()
    shared = 0.0
    for start in range(0, images, _BLOCK):
        own = torch.arange(start, min(start + _BLOCK, images), device=rows.device)
        # Rounded: equal rows must tie, however the multiplication orders its sums.
        by_rows = (embeddings[own] @ embeddings.T).round(decimals=9)
        # With equal sums, the intersection is the number of pixels less half the distance; whole numbers, so exact.
        by_color = -torch.cdist(colors[own], colors, p=1)
        shared += (_nearest(by_rows, own, k) * _nearest(by_color, own, k)).sum().item()
    return ColorShortcut(share=shared / (k * images), chance=k / (images - 1))


def partners_found(near: Float[Tensor, "views views"]) -> float:
    """The share of views that are nearer to the other view of their image than to every view of the other images.

    near: nearness of all pairs, the higher the nearer; row i and row i + images are the two views of image i; the
    diagonal is not read. Of n views that tie for nearest each counts as 1 / n. From 0 to 1; chance is 1 / (views - 1).
    This is the contrastive task of SimCLR (arXiv 2002.05709), answered by the nearness that is given.
    """
    views = len(near)
    if views < 4 or views % 2:
        raise RizbinError(f"{views} views are not two each of two images or more.")
    near = near.masked_fill(torch.eye(views, dtype=torch.bool, device=near.device), -torch.inf)
    rows = torch.arange(views, device=near.device)
    partners = near[rows, rows.roll(views // 2)][:, None]
    nearest = (near > partners).sum(dim=1) == 0
    return (nearest / (near == partners).sum(dim=1)).double().mean().item()


def color_nearness(pixels: UInt8[Tensor, "images size size 3"], bins: int = 4) -> Float[Tensor, "images images"]:
    """How near two images are in color: minus the number of pixels by which their histograms differ; 0 is equal.

    The histograms are those of `color_shortcut`, and so is the order, by their intersection.
    """
    colors = _histograms(pixels, bins).double()
    return -torch.cdist(colors, colors, p=1)


def measure(pooled: Float[Tensor, "images dim"]) -> list[Measurement]:
    """Whether the features are spread, and over how many directions."""
    spread = health(pooled)
    return [
        Measurement(
            name="collapse/std",
            value=spread.std,
            unit="number",
            protocol="Standard deviation of the unit-length pooled features, mean over channels, times the root of "
            "their number: 1 when spread evenly in all directions, 0 when constant.",
        ),
        Measurement(
            name="collapse/rank",
            value=spread.rank,
            unit="number",
            protocol="RankMe of the pooled features, not centered: the effective number of directions, of "
            f"{spread.dim}.",
        ),
    ]


def _checked(rows: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
    """The rows in float64, without gradient; refused where no spread can be measured."""
    if len(rows) < 2:
        raise RizbinError(f"Collapse shows between samples, and there is {len(rows)}; give 2 or more.")
    bad = int((~rows.isfinite()).any(dim=1).sum())
    if bad:
        raise RizbinError(
            f"{bad} of {len(rows)} rows hold numbers that are not finite, so their spread cannot be measured; "
            "go back to an earlier checkpoint of the run."
        )
    return rows.detach().double()


def _distributions(rows: Float[Tensor, "samples prototypes"], whose: str) -> Float[Tensor, "samples prototypes"]:
    checked = _checked(rows)
    # A hundredth: a softmax in bf16 keeps 8 bits of each probability, so its sum may be off by 0.4 percent.
    if checked.min() < 0 or (checked.sum(dim=1) - 1).abs().max() > 0.01:
        raise RizbinError(
            f"The {whose}'s rows are not distributions (each at least 0, sum 1); give them after the softmax."
        )
    return checked


def _effective_rank(values: Float[Tensor, " values"]) -> float:
    """exp of the entropy of `values` / their sum + 1e-7; 1 for all zero."""
    values = values.clamp(min=0)  # eigenvalues of 0 come out as -1e-17
    # Tiny, so that nothing at all is divided by something and only the epsilons stay: exp(almost 0).
    shares = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + EPSILON
    return math.exp(-(shares * shares.log()).sum().item())


def _histograms(pixels: UInt8[Tensor, "images size size 3"], bins: int) -> Int[Tensor, "images colors"]:
    """How many pixels of each image fall into each of the bins^3 joint color bins."""
    red, green, blue = (pixels.long() * bins // 256).unbind(dim=-1)
    place = ((red * bins + green) * bins + blue).flatten(1)
    counts = place.new_zeros(len(pixels), bins**3)
    return counts.scatter_add_(1, place, torch.ones_like(place))


def _nearest(near: Float[Tensor, "some all"], own: Int[Tensor, " some"], k: int) -> Float[Tensor, "some all"]:
    """How far each belongs to the k nearest: 1, 0, or an equal part of the places left among those that tie for them.

    A row sums to k. `own` are the columns of the rows themselves, which are no neighbors.
    """
    near = near.clone()
    near[torch.arange(len(own), device=own.device), own] = -torch.inf
    last = near.topk(k, dim=1).values[:, -1:]
    surely, tied = near > last, near == last
    left = k - surely.sum(dim=1, keepdim=True)
    return surely.double() + tied.double() * left / tied.sum(dim=1, keepdim=True)
