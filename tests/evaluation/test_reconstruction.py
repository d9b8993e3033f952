"""Reconstruction of what others hide: errors against slow loops, planted methods with known answers."""

import math

import pytest
import torch
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Measurement
from rizbin.data.resolution import lowered
from rizbin.data.views import STD, normalize
from rizbin.evaluation.frequency import smooth_fill
from rizbin.evaluation.reconstruction import (
    Reconstructor,
    gradient_energy,
    measure,
    patch_errors,
    random_half,
    true_edges,
    unit_values,
)
from rizbin.losses.reconstruct import patch_statistics, patchify, unpatchify
from rizbin.methods.clip import CLIP

GRID, SIDE = (4, 4), 8


def scenes(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of 32x32 pixels; an object over the left half and one over a single corner patch."""
    pixels = torch.randint(0, 256, (count, 32, 32, 3), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.zeros(count, 32, 32, dtype=torch.int16)
    labels[:, :, :16], labels[:, :SIDE, 24:] = 1, 2
    return pixels, labels


def measured(reconstruct: Reconstructor, count: int = 5, **changes) -> dict[str, Measurement]:
    pixels, labels = scenes(count)
    settings = {"block": 2, "seed": 0, "factors": (2, 4), "batch": 2, "device": torch.device("cpu"), **changes}
    found, _ = measure(reconstruct, pixels, labels, GRID, **settings)
    return {each.name.removeprefix("reconstruction/"): each for each in found}


def perfect(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
    return images


def flat(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
    """Each patch in one gray, its own mean."""
    patches = patchify(images, SIDE)
    return unpatchify(patches.mean(dim=-1, keepdim=True).expand_as(patches), SIDE, GRID)


def bicubic(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
    return lowered(images, low_resolution)


def test_half_of_the_blocks_is_hidden_and_always_the_same() -> None:
    hidden = random_half(6, (4, 8), 2, seed=0)
    assert hidden.sum(dim=(1, 2)).tolist() == [16] * 6
    blocks = F.avg_pool2d(hidden.double(), 2)
    assert set(blocks.unique().tolist()) == {0, 1}  # whole blocks
    assert torch.equal(random_half(3, (4, 8), 2, seed=0), hidden[:3])
    assert not torch.equal(random_half(6, (4, 8), 2, seed=1), hidden)
    assert len({tuple(image.flatten().tolist()) for image in hidden}) > 3


def test_errors_of_patches_are_those_of_slow_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    truth, guess = (torch.randn(2, 3, 8, 12, generator=generator) for _ in range(2))
    truth[1, :, 4:, 8:] = torch.tensor([0.2, 0.4, -0.3])[:, None, None]  # colored, but plain
    errors = patch_errors(guess, truth, (2, 3))
    for image in range(2):
        for row in range(2):
            for column in range(3):
                part = (slice(None), slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
                true, wrong = truth[image][part].double(), guess[image][part].double()
                true, wrong = true - true.mean(), wrong - wrong.mean()
                expected = ((wrong - true) ** 2).sum() / (true**2).sum()
                if (image, row, column) == (1, 1, 2):
                    assert errors[image, row, column].isnan()
                else:
                    assert errors[image, row, column].item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_error_is_that_of_normalized_patches() -> None:
    """Up to n - 1 for n, MAE's loss of a method that predicts zero-mean patches and gets the statistics back."""
    pixels, _ = scenes()
    images = normalize(pixels)
    patches = patchify(images, SIDE)
    mean, deviation = patch_statistics(patches)
    predicted = torch.randn(patches.shape, generator=torch.Generator().manual_seed(2))
    predicted = predicted - predicted.mean(dim=-1, keepdim=True)
    errors = patch_errors(unpatchify(predicted * deviation + mean, SIDE, GRID), images, GRID)
    loss = ((predicted - (patches - mean) / deviation) ** 2).mean(dim=-1).unflatten(1, GRID)
    numbers = patches.shape[-1]
    torch.testing.assert_close(errors.float(), loss * numbers / (numbers - 1), rtol=1e-4, atol=0)


def test_perfect_flat_and_wrong_methods() -> None:
    found = measured(perfect)
    for name in ("hidden/object_patches", "hidden/ground_patches", "low_resolution_2/object_patches"):
        assert found[name].value == pytest.approx(0, abs=1e-10) and found[name].unit == "relative"
        assert found[name].worse_than_chance is False
    assert found["low_resolution_2/psnr"].value == 100 and found["low_resolution_2/psnr"].unit == "decibel"
    assert found["low_resolution_4/edge_energy"].value == pytest.approx(1, abs=1e-5)
    found = measured(flat)
    for name in ("hidden/object_patches", "hidden/ground_patches", "low_resolution_4/object_patches"):
        assert found[name].value == pytest.approx(1, abs=1e-5)
    assert measured(lambda images, removed, low_resolution=1: -images)["hidden/object_patches"].value > 3


def test_a_wrong_mean_does_not_count_and_visible_patches_do_not() -> None:
    assert measured(lambda images, removed, low_resolution=1: images + 2)["hidden/object_patches"].value < 1e-9

    def noise_where_visible(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
        hidden = removed.repeat_interleave(SIDE, 1).repeat_interleave(SIDE, 2)[:, None]
        return torch.where(hidden, images, -images)

    assert measured(noise_where_visible)["hidden/object_patches"].value == pytest.approx(0, abs=1e-10)


def test_hidden_patches_are_sorted_into_objects_and_ground() -> None:
    """A method that is perfect on objects and flat elsewhere; counts and rivals by a slow loop."""
    pixels, labels = scenes()
    on_object = labels > 0

    class Method:
        def __init__(self) -> None:
            self.start = 0

        def __call__(self, images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
            part = on_object[self.start : self.start + len(images), None]
            self.start = (self.start + len(images)) % len(labels)
            return torch.where(part, images, flat(images, removed))

    found = measured(Method())
    assert found["hidden/object_patches"].value == pytest.approx(0, abs=1e-10)
    assert found["hidden/ground_patches"].value == pytest.approx(1, abs=1e-5)
    hidden, images = random_half(5, GRID, 2, seed=0), normalize(pixels)
    neighbors = patch_errors(smooth_fill(images, hidden), images, GRID)
    objects, ground = [], []
    for image in range(5):
        for row in range(4):
            for column in range(4):
                if hidden[image, row, column]:
                    patch = labels[image, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
                    share = (patch > 0).float().mean()
                    if share > 0.5:
                        objects.append(neighbors[image, row, column].item())
                    if share == 0:
                        ground.append(neighbors[image, row, column].item())
    for name, errors in (("object", objects), ("ground", ground)):
        one = found[f"hidden/{name}_patches"]
        assert one.items == f"{len(errors)} patches"
        rivals = dict(one.references)
        assert rivals["flat patch"] == 1 and one.chance == min(rivals.values())
        assert rivals["mean of visible neighbors"] == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_what_is_hidden_does_not_depend_on_the_batch() -> None:
    given: list[torch.Tensor] = []

    def method(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor:
        if low_resolution == 1:
            given.append(removed)
        else:
            assert not removed.any()
        return flat(images, removed)

    small = measured(method, batch=2)
    parts, given = given, []
    large = measured(method, batch=5)
    assert torch.equal(torch.cat(parts), torch.cat(given)) and len(parts) == 3
    assert {name: each.value for name, each in small.items()} == pytest.approx(
        {name: each.value for name, each in large.items()}, rel=1e-5
    )


def test_bicubic_stands_where_it_is_the_rival() -> None:
    found = measured(bicubic)
    for factor in (2, 4):
        for name in ("psnr", "edge_energy"):
            one = found[f"low_resolution_{factor}/{name}"]
            assert one.value == one.chance == dict(one.references)["bicubic enlargement"]
            assert one.worse_than_chance is False
        patches = found[f"low_resolution_{factor}/object_patches"]
        assert patches.value == pytest.approx(dict(patches.references)["bicubic enlargement"])
    assert found["low_resolution_2/psnr"].value > found["low_resolution_4/psnr"].value
    assert found["low_resolution_4/edge_energy"].value < found["low_resolution_2/edge_energy"].value < 1


def test_psnr_and_edges_are_those_of_slow_loops() -> None:
    pixels, labels = scenes(2)
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 0.2
    guess = lowered(normalize(pixels), 2) + noise
    found = measured(lambda images, removed, low_resolution=1: guess, count=2, factors=(2,))
    true = pixels.permute(0, 3, 1, 2).double() / 255
    std = torch.tensor(STD).double()[:, None, None]
    mean = torch.tensor((0.485, 0.456, 0.406)).double()[:, None, None]
    values = (guess.double() * std + mean).clamp(0, 1)
    error = ((values - true) ** 2).mean(dim=1)[labels > 0].mean().item()
    assert found["low_resolution_2/psnr"].value == pytest.approx(-10 * math.log10(error), abs=1e-4)

    def energy(image: torch.Tensor, y: int, x: int) -> float:
        total = 0.0
        for color in range(3):
            right = image[color, y, x + 1] - image[color, y, x] if x < 31 else 0.0
            below = image[color, y + 1, x] - image[color, y, x] if y < 31 else 0.0
            total += float(right) ** 2 + float(below) ** 2
        return total / 3

    wrong = right = 0.0
    for image in range(2):
        for y in range(32):
            for x in range(32):
                around = labels[image, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                strength = energy(true[image], y, x)
                if len(around.unique()) > 1 or strength >= 0.01:
                    wrong += energy(values[image], y, x)
                    right += strength
    assert found["low_resolution_2/edge_energy"].value == pytest.approx(wrong / right, rel=1e-4)


def test_edges_lie_at_masks_and_where_colors_jump() -> None:
    values = torch.full((1, 3, 8, 8), 0.5, dtype=torch.double)
    values[..., 6:, :] = 0.9
    labels = torch.zeros(1, 8, 8, dtype=torch.int16)
    labels[:, :2] = 1
    rows = true_edges(values, labels)[0]
    assert rows.all(dim=1).tolist() == [False, True, True, False, False, True, False, False]
    assert torch.equal(rows.any(dim=1), rows.all(dim=1))
    assert gradient_energy(values)[0, 5, 0].item() == pytest.approx(0.16)


def test_values_are_those_of_the_pixels() -> None:
    pixels, _ = scenes()
    torch.testing.assert_close(
        unit_values(normalize(pixels)), pixels.permute(0, 3, 1, 2).double() / 255, rtol=0, atol=1e-6
    )


def test_what_a_method_cannot_do_is_left_out() -> None:
    pixels, labels = scenes()
    settings = {"block": 2, "seed": 0, "factors": (2, 3), "batch": 2, "device": torch.device("cpu")}

    def only_hidden(images: torch.Tensor, removed: torch.Tensor, low_resolution: int = 1) -> torch.Tensor | None:
        return images if low_resolution == 1 else None

    found, left_out = measure(only_hidden, pixels, labels, GRID, **settings)
    assert {each.name.split("/")[1] for each in found} == {"hidden"}
    assert [name for name, _ in left_out] == ["reconstruction/low_resolution_2", "reconstruction/low_resolution_3"]
    found, left_out = measure(CLIP(CLIP.Settings()).reconstruct, pixels, labels, GRID, **settings)
    assert not found and left_out[0][0] == "reconstruction/hidden"
    found, left_out = measure(perfect, pixels, labels, GRID, **{**settings, "block": 3})
    assert "does not divide" in dict(left_out)["reconstruction/hidden"]
    with pytest.raises(RizbinError, match="not finite"):
        measure(lambda images, removed, low_resolution=1: images * torch.nan, pixels, labels, GRID, **settings)


def test_plain_patches_do_not_count() -> None:
    pixels, labels = torch.full((2, 32, 32, 3), 200).byte(), scenes(2)[1]
    settings = {"block": 1, "seed": 0, "factors": (), "batch": 2, "device": torch.device("cpu")}
    assert measure(perfect, pixels, labels, GRID, **settings) == (
        [],
        [("reconstruction/hidden", "No hidden patch of objects or ground has anything to predict.")],
    )
