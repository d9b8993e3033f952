"""Collapse diagnostics on matrices whose answer is known, and against slow loops."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.evaluation import collapse
from rizbin.evaluation.collapse import (
    PAIRED_ROWS,
    alignment,
    color_nearness,
    color_shortcut,
    health,
    lidar,
    normalized_std,
    partners_found,
    rankme,
    spectrum,
    teacher_health,
    uniformity,
)


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values: Tensor, rows: int = 2048, dim: int = 256) -> Tensor:
    """A matrix with exactly these singular values, in general position."""
    left, right = torch.linalg.qr(gaussian(rows, len(values), seed=1)).Q, torch.linalg.qr(gaussian(dim, dim, seed=2)).Q
    return left * values @ right[: len(values)]


def entropy_rank(values: Tensor) -> float:
    """The formula in a slow loop."""
    shares = [value / sum(values.tolist()) + 1e-7 for value in values.tolist()]
    return math.exp(-sum(p * math.log(p) for p in shares))


ISOTROPIC = gaussian(2048, 256)
NEARLY_CONSTANT = 1 + 1e-4 * ISOTROPIC


def test_isotropic_rows_are_healthy() -> None:
    assert normalized_std(ISOTROPIC) == pytest.approx(1, abs=1e-3)
    # Not 256: singular values of a finite Gaussian matrix spread.
    assert rankme(ISOTROPIC) == pytest.approx(251.9, abs=0.1)
    assert health(ISOTROPIC).text() == "std 1.00, rank 251.9 of 256"
    # E exp(4 cosine) = exp(8 / dim) for nearly Gaussian cosines.
    assert uniformity(ISOTROPIC) == pytest.approx(-4 + 8 / 256, abs=1e-3)


def test_a_spectrum_of_one_over_k_comes_back_with_its_rank() -> None:
    values = 1 / torch.arange(1, 257, dtype=torch.float64)
    rows = with_spectrum(values)
    assert torch.allclose(spectrum(rows), values / math.sqrt(2048), atol=1e-12)
    assert rankme(rows) == pytest.approx(entropy_rank(values), abs=1e-6)
    assert entropy_rank(values) == pytest.approx(74.64, abs=0.01)
    # Planted mistake: shares of eigenvalues, as of PCA's explained variance.
    assert entropy_rank(values**2) < 5


def test_rank_8_is_seen_by_the_rank_and_missed_by_the_deviation() -> None:
    rows = with_spectrum(torch.ones(8, dtype=torch.float64))
    assert rankme(rows) == pytest.approx(8.0, abs=0.01)
    assert normalized_std(rows) > 0.95
    assert (spectrum(rows)[8:] < 1e-12).all()


def test_a_constant_with_noise_is_collapsed_unless_one_centers() -> None:
    assert rankme(NEARLY_CONSTANT) == pytest.approx(1.02, abs=0.01)
    assert normalized_std(NEARLY_CONSTANT) < 1e-3
    assert uniformity(NEARLY_CONSTANT) == pytest.approx(0, abs=1e-6)
    # Planted mistake: a centered rank reads full.
    assert rankme(NEARLY_CONSTANT - NEARLY_CONSTANT.mean(dim=0)) > 250


def test_a_large_shared_mean_is_not_hidden() -> None:
    rows = ISOTROPIC + 10
    assert normalized_std(rows) == pytest.approx(1 / math.sqrt(101), abs=1e-3)
    assert rankme(rows) < 60 < 250 < rankme(rows - rows.mean(dim=0))
    assert spectrum(rows)[0] == pytest.approx(math.sqrt(256 * 100), rel=0.01)


def test_orthonormal_rows_have_their_number_as_rank() -> None:
    for count in (2, 16):
        assert rankme(torch.eye(count, 64, dtype=torch.float64)) == pytest.approx(count, abs=1e-3)


def test_rows_that_are_all_zero_or_all_equal_have_rank_one_and_no_deviation() -> None:
    for rows in (torch.zeros(5, 32), torch.ones(5, 32)):
        assert rankme(rows) == pytest.approx(1, abs=1e-4)
        assert normalized_std(rows) == pytest.approx(0, abs=1e-12)


def test_deviation_is_that_of_a_slow_loop() -> None:
    rows = gaussian(7, 5, seed=3) + 0.5
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows.tolist()]
    deviations = []
    for channel in zip(*unit, strict=True):
        mean = sum(channel) / 7
        deviations.append(math.sqrt(sum((x - mean) ** 2 for x in channel) / 7))
    assert normalized_std(rows) == pytest.approx(math.sqrt(5) * sum(deviations) / 5, abs=1e-12)
    # Planted mistake: no unit length.
    assert rows.std(dim=0, correction=0).mean() * math.sqrt(5) != pytest.approx(normalized_std(rows), abs=1e-2)


def test_half_precision_and_gradient_are_taken_and_measured_in_float64() -> None:
    rows = gaussian(64, 8).bfloat16().requires_grad_()
    assert health(rows) == health(rows.detach().double())
    assert spectrum(rows).dtype == torch.float64
    assert not spectrum(rows).requires_grad


def slow_lidar(grouped: Tensor, delta: float) -> float:
    images, views, dim = grouped.shape
    values = grouped.tolist()
    means = [[sum(view[d] for view in image) / views for d in range(dim)] for image in values]
    middle = [sum(mean[d] for mean in means) / images for d in range(dim)]
    between, within = np.zeros((dim, dim)), delta * np.eye(dim)
    for image, mean in zip(values, means, strict=True):
        for r in range(dim):
            for c in range(dim):
                between[r, c] += (mean[r] - middle[r]) * (mean[c] - middle[c]) / images
                within[r, c] += sum((v[r] - mean[r]) * (v[c] - mean[c]) for v in image) / (images * views)
    # Sw^-1 Sb is similar to Sw^-1/2 Sb Sw^-1/2: the same eigenvalues without a matrix root.
    return entropy_rank(torch.from_numpy(np.linalg.eigvals(np.linalg.solve(within, between)).real.copy()))


def test_lidar_is_that_of_slow_loops() -> None:
    stretch = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    grouped = gaussian(9, 1, 6, seed=4) * stretch + gaussian(9, 4, 6, seed=5) * 0.3 + 2
    for delta in (1e-4, 0.1):
        assert lidar(grouped, delta) == pytest.approx(slow_lidar(grouped, delta), abs=1e-9)
    # Planted mistakes: the delta left out, views grouped across images, no whitening by the scatter within.
    assert lidar(grouped, 0.1) != pytest.approx(slow_lidar(grouped, 1e-4), abs=1e-2)
    assert lidar(grouped.transpose(0, 1).reshape(9, 4, 6)) != pytest.approx(lidar(grouped), abs=1e-2)
    between = grouped.mean(dim=1) - grouped.mean(dim=(0, 1))
    assert entropy_rank(torch.linalg.svdvals(between) ** 2) != pytest.approx(lidar(grouped), abs=1e-2)


def clusters(directions: int, *, noise: float, dim: int = 32) -> Tensor:
    """Images around plus and minus 10 in each of so many orthogonal directions, 6 views each; their mean is 0."""
    means = 10 * torch.eye(directions, dim, dtype=torch.float64)
    return torch.cat([means, -means]).repeat(8, 1).unsqueeze(1) + noise * gaussian(16 * directions, 6, dim, seed=6)


@pytest.mark.parametrize("directions", [1, 3, 12])
def test_lidar_counts_the_directions_that_tell_images_apart(directions: int) -> None:
    assert lidar(clusters(directions, noise=0.1)) == pytest.approx(directions, rel=0.02)


def test_lidar_of_separate_images_without_symmetry_is_one_less_than_their_number() -> None:
    """The mean of all is taken out, and with it one direction."""
    grouped = 10 * torch.eye(5, 32, dtype=torch.float64).unsqueeze(1) + 0.1 * gaussian(5, 40, 32)
    assert lidar(grouped) == pytest.approx(4, rel=0.02)


def test_lidar_sees_spread_that_views_alone_make_and_rankme_does_not() -> None:
    """Three directions tell images apart; a larger spread in the other 29 is different in every view."""
    grouped = clusters(3, noise=0.1)
    grouped[..., 3:] += 20 * gaussian(*grouped.shape, seed=7)[..., 3:]
    assert lidar(grouped) < 4
    assert rankme(grouped.flatten(0, 1)) > 28


def test_lidar_is_blind_to_a_shift_and_to_a_constant_with_noise() -> None:
    grouped = clusters(3, noise=0.1)
    assert lidar(grouped + 100) == pytest.approx(lidar(grouped), abs=1e-6)
    independent, collapsed = gaussian(128, 6, 32), 1 + 1e-4 * gaussian(128, 6, 32)
    assert lidar(collapsed) == pytest.approx(lidar(independent), rel=0.05)
    assert lidar(collapsed) > 25
    assert normalized_std(collapsed.flatten(0, 1)) < 1e-3


def test_lidar_of_equal_embeddings_is_one() -> None:
    assert lidar(torch.ones(5, 2, 3)) == pytest.approx(1, abs=1e-4)


def test_alignment_and_uniformity_are_those_of_slow_loops() -> None:
    a, b = gaussian(9, 4, seed=8), gaussian(9, 4, seed=9) + 1
    x, y = [[row / row.norm() for row in rows] for rows in (a, b)]
    gaps = [float(((p - q) ** 2).sum()) for p, q in zip(x, y, strict=True)]
    assert alignment(a, b) == pytest.approx(sum(gaps) / 9, abs=1e-12)
    for t in (2.0, 0.5):
        terms = [math.exp(-t * float(((x[i] - x[j]) ** 2).sum())) for i in range(9) for j in range(i + 1, 9)]
        assert uniformity(a, t) == pytest.approx(math.log(sum(terms) / len(terms)), abs=1e-12)
        # Planted mistake: each row paired with itself as well.
        assert uniformity(a, t) != pytest.approx(math.log((2 * sum(terms) + 9) / 81), abs=1e-2)


def test_alignment_and_uniformity_have_their_bounds() -> None:
    rows = gaussian(4, 3)
    assert alignment(rows, 5 * rows) == pytest.approx(0, abs=1e-12)
    assert alignment(rows, -rows) == pytest.approx(4, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-8, abs=1e-12)
    assert uniformity(torch.ones(4, 3)) == 0


def test_uniformity_compares_the_first_rows_only() -> None:
    rows = gaussian(PAIRED_ROWS + 5, 4)
    assert uniformity(rows) == uniformity(rows[:PAIRED_ROWS])


K = 8


def one_hot(kinds: Tensor) -> Tensor:
    return F.one_hot(kinds, K).double()


def test_a_uniform_teacher_has_highest_entropy_and_nothing_to_teach() -> None:
    uniform = torch.full((24, K), 1 / K)
    found = teacher_health(uniform, uniform)
    assert found.entropy == pytest.approx(math.log(K))
    assert found.mean_entropy == pytest.approx(math.log(K))
    assert found.highest == math.log(K)
    assert found.divergence == pytest.approx(0, abs=1e-12)
    assert found.top_share == 1  # all tie: against the network
    assert found.text() == "h 2.08, mean h 2.08 of ln K 2.08, KL 0.00, top prototype 100%"


def test_only_the_mean_entropy_and_the_top_share_tell_one_winner_from_confidence() -> None:
    same, spread = one_hot(torch.zeros(24, dtype=torch.long)), one_hot(torch.arange(24) % K)
    collapsed, confident = teacher_health(same, same), teacher_health(spread, spread)
    assert collapsed.entropy == confident.entropy == collapsed.divergence == confident.divergence == 0
    assert (collapsed.mean_entropy, collapsed.top_share) == (0, 1)
    assert confident.mean_entropy == pytest.approx(math.log(K))
    assert confident.top_share == pytest.approx(1 / K)


def test_teacher_health_is_that_of_slow_loops() -> None:
    teacher, student = (3 * gaussian(20, K, seed=1)).softmax(1), gaussian(20, K, seed=2).softmax(1)
    found = teacher_health(teacher, student)
    told, said = teacher.tolist(), student.tolist()
    entropy = -sum(p * math.log(p) for row in told for p in row) / 20
    divergence = sum(p * math.log(p / q) for r, s in zip(told, said, strict=True) for p, q in zip(r, s, strict=True))
    mean = [sum(row[k] for row in told) / 20 for k in range(K)]
    winners = [row.index(max(row)) for row in told]
    assert found.entropy == pytest.approx(entropy, abs=1e-12)
    assert found.divergence == pytest.approx(divergence / 20, abs=1e-12)
    assert found.mean_entropy == pytest.approx(-sum(p * math.log(p) for p in mean), abs=1e-12)
    assert found.top_share == max(winners.count(k) for k in range(K)) / 20
    # DINO's loss is the sum of the two; and the divergence has a direction.
    assert found.entropy + found.divergence == pytest.approx(-(teacher * student.log()).sum(1).mean().item(), abs=1e-12)
    assert teacher_health(student, teacher).divergence != pytest.approx(found.divergence, abs=1e-2)


def test_a_student_that_rules_out_what_the_teacher_expects_diverges_infinitely() -> None:
    assert teacher_health(torch.full((2, K), 1 / K), one_hot(torch.tensor([0, 1]))).divergence == math.inf


def plain(colors: list[tuple[int, int, int]], size: int = 4) -> Tensor:
    """A picture of one color each."""
    return torch.tensor(colors, dtype=torch.uint8)[:, None, None].expand(-1, size, size, 3).contiguous()


GROUPS = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (90, 90, 90)]


def test_rows_that_are_the_histograms_find_neighbors_in_color_only() -> None:
    pixels = plain(GROUPS * 11)
    by_color = torch.eye(len(GROUPS)).repeat(11, 1)
    assert color_shortcut(pixels, by_color, k=10).share == 1
    # The same features given to other pictures: a group of 11 now holds every color once or twice.
    assert color_shortcut(pixels, torch.eye(len(GROUPS)).repeat_interleave(11, dim=0), k=10).share < 0.2


def noisy(pictures: int) -> Tensor:
    """Pictures of a tint each with noise, so that all histograms differ."""
    generator = torch.Generator().manual_seed(0)
    tint = torch.randint(0, 200, (pictures, 1, 1, 3), generator=generator)
    return (tint + torch.randint(0, 56, (pictures, 8, 8, 3), generator=generator)).to(torch.uint8)


def test_random_rows_share_neighbors_as_often_as_chance_and_a_constant_exactly() -> None:
    pixels = noisy(400)
    found = color_shortcut(pixels, gaussian(400, 16), k=10)
    assert found.chance == 10 / 399
    # 4,000 draws at 2.5 percent: one deviation is 0.25 points.
    assert found.share == pytest.approx(found.chance, abs=0.0075)
    # One direction in many lengths: equal but for rounding, which must not choose neighbors.
    constant = gaussian(1, 37) * torch.arange(1, 401).unsqueeze(1)
    assert color_shortcut(pixels, constant, k=10).share == pytest.approx(found.chance, abs=1e-12)
    mean_color = pixels.double().mean(dim=(1, 2)) - 128
    assert color_shortcut(pixels, mean_color, k=10).share > 5 * found.chance


@pytest.mark.parametrize("bins", [2, 4, 5])
def test_color_shortcut_is_that_of_slow_loops(bins: int) -> None:
    pixels, rows, k = noisy(14), gaussian(14, 5), 3
    counts = np.zeros((14, bins, bins, bins))
    for picture, image in enumerate(pixels.tolist()):
        for r, g, b in (pixel for line in image for pixel in line):
            counts[picture, r * bins // 256, g * bins // 256, b * bins // 256] += 1
    unit = [row / row.norm() for row in rows]
    total = 0.0
    for i in range(14):
        others = [j for j in range(14) if j != i]
        color = {j: float(np.minimum(counts[i], counts[j]).sum()) for j in others}
        cosine = {j: float(unit[i] @ unit[j]) for j in others}
        # The part of j in the k nearest, over all orders of those that tie.
        parts = []
        for near in (color, cosine):
            last = sorted(near.values(), reverse=True)[k - 1]
            above, level = (sum(test(v, last) for v in near.values()) for test in (float.__gt__, float.__eq__))
            parts.append({j: 1.0 if v > last else (k - above) / level * (v == last) for j, v in near.items()})
        total += sum(parts[0][j] * parts[1][j] for j in others)
    found = color_shortcut(pixels, rows, k=k, bins=bins)
    assert found.share == pytest.approx(total / (14 * k), abs=1e-12)
    assert found.chance == 3 / 13


def test_neither_order_nor_blocks_matter_even_where_all_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = plain(GROUPS * 4)
    rows = torch.eye(3).repeat(8, 1)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    found = color_shortcut(pixels, rows, k=5)
    assert color_shortcut(pixels[order], rows[order], k=5).share == pytest.approx(found.share, abs=1e-12)
    monkeypatch.setattr(collapse, "_BLOCK", 7)
    assert color_shortcut(pixels, rows, k=5).share == pytest.approx(found.share, abs=1e-12)
    assert found.text() == f"{found.share:.0%} of neighbors are neighbors in color (22% by chance)"


GOOD, FLAT = gaussian(4, 3), torch.full((4, 3), 1 / 3)
PIXELS = torch.zeros(4, 2, 2, 3, dtype=torch.uint8)


def spoiled(rows: Tensor, value: float) -> Tensor:
    rows = rows.clone()
    rows[1, 2] = value
    return rows


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "measure",
    [
        normalized_std,
        rankme,
        spectrum,
        uniformity,
        health,
        lambda rows: alignment(GOOD, rows),
        lambda rows: alignment(rows, GOOD),
        lambda rows: lidar(rows.unflatten(0, (2, 2))),
        lambda rows: teacher_health(rows, FLAT),
        lambda rows: teacher_health(FLAT, rows),
        lambda rows: color_shortcut(PIXELS, rows, k=1),
    ],
)
def test_numbers_that_are_not_finite_are_refused(measure: Callable[[Tensor], Any], value: float) -> None:
    with pytest.raises(RizbinError, match="1 of 4 rows hold numbers that are not finite"):
        measure(spoiled(GOOD, value))


@pytest.mark.parametrize(
    ("measure", "sentence"),
    [
        (lambda: rankme(GOOD[:1]), "there is 1; give 2 or more"),
        (lambda: health(GOOD[:0]), "there is 0; give 2 or more"),
        (lambda: uniformity(GOOD[:1]), "there is 1"),
        (lambda: alignment(GOOD[:1], GOOD[:1]), "there is 1"),
        (lambda: teacher_health(FLAT[:1], FLAT[:1]), "there is 1"),
        (lambda: lidar(GOOD.unsqueeze(1)), "1 view per image; give 2 or more"),
        (lambda: lidar(GOOD.unsqueeze(0)), "images with each other, and there is 1"),
        (lambda: lidar(GOOD.unflatten(0, (2, 2)), delta=0.0), "delta is 0; give a number above 0"),
        (lambda: teacher_health(GOOD, FLAT), "The teacher's rows are not distributions"),
        (lambda: teacher_health(FLAT, 2 * FLAT), "The student's rows are not distributions"),
        (lambda: color_shortcut(PIXELS, GOOD, k=3), "choose a k from 1 to 2"),
        (lambda: color_shortcut(PIXELS, GOOD, k=1, bins=0), "cannot be cut into 0 bins"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason(measure: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(RizbinError, match=sentence):
        measure()


def test_a_bf16_softmax_is_still_a_distribution() -> None:
    rows = (3 * gaussian(16, 4096)).softmax(dim=1).bfloat16()
    assert teacher_health(rows, rows).divergence == 0


def test_partners_found_is_that_of_slow_loops() -> None:
    rows = gaussian(12, 3)
    near = rows @ rows.T
    hits = 0
    for view in range(12):
        others = [near[view, other].item() for other in range(12) if other != view]
        hits += near[view, (view + 6) % 12].item() == max(others)
    assert 0 < hits < 12
    assert partners_found(near) == pytest.approx(hits / 12)


def test_partners_are_found_by_what_both_views_keep() -> None:
    own = F.normalize(gaussian(20, 64), dim=1)
    both = torch.cat([own, own + 0.01 * gaussian(20, 64, seed=1)])
    assert partners_found(both @ both.T) == 1
    assert partners_found(torch.ones(40, 40)) == pytest.approx(1 / 39), "where all tie nothing is known"
    with pytest.raises(RizbinError, match="3 views are not two each"):
        partners_found(torch.eye(3))


def test_color_alone_finds_partners_whose_colors_are_kept() -> None:
    """Ten images of one color each; their second views are of another shape, then of other colors."""
    colors = torch.arange(10)[:, None, None, None] * 25 + torch.tensor([0, 1, 2])
    first = colors.expand(10, 8, 8, 3).to(torch.uint8)
    half = first.clone()
    half[:, :3] = 0
    assert partners_found(color_nearness(torch.cat([first, half]), bins=16)) == 1
    assert partners_found(color_nearness(torch.cat([first, first.roll(3, dims=0)]), bins=16)) == 0
