"""Composed predictions, and the search for a first noise."""

from itertools import combinations
from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from rizbin.core.errors import RizbinError
from rizbin.generation.diffusion.noise import InitialNoise, NoiseRecord, compose, divergence, self_attention_conflict
from rizbin.generation.diffusion.spans import TokenSpan
from tests.generation.diffusion.toy_unets import inputs, unet

# A call of diffusers' own.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

SPANS = [TokenSpan("cat", (2,)), TokenSpan("dog", (5,))]
SHORT = InitialNoise.Settings(rounds=2, updates=3, last_updates=4, cross_threshold=0.0, conflict_threshold=0.0)


def test_compositions_are_sums_of_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    ones = torch.randn(3, 2, 4, 3, 5, generator=generator, dtype=torch.float64)
    weights = torch.tensor([7.5, 2.0, -1.0], dtype=torch.float64)
    expected = base.clone()
    for one, weight in zip(ones, weights.tolist(), strict=True):
        expected += weight * (one - base)
    assert torch.allclose(compose(base, ones, weights), expected, atol=1e-12)
    guided = base + 7.5 * (ones[0] - base)
    assert torch.allclose(compose(base, ones[:1], weights[:1]), guided, atol=1e-12)
    assert torch.equal(compose(base, ones, torch.zeros(3).double()), base)


def test_divergence_equals_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_sigma = torch.randn(2, 30, generator=generator, dtype=torch.float64) / 3
    ours = divergence(mean, log_sigma)
    normal = torch.distributions.Normal
    theirs = torch.distributions.kl_divergence(normal(mean, log_sigma.exp()), normal(0.0, 1.0)).mean()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-12)
    assert float(divergence(0 * mean, 0 * mean)) == 0


def test_conflict_equals_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    looks = torch.rand(4, 5, 20, generator=generator, dtype=torch.float64).softmax(dim=-1)
    own = []
    for one in maps.tolist():
        r, c = max(((r, c) for r in range(4) for c in range(5)), key=lambda at: one[at[0]][at[1]])
        own.append(looks[r, c].tolist())
    found = [
        sum(min(x, y) for x, y in zip(a, b, strict=True)) / sum(x + y for x, y in zip(a, b, strict=True))
        for a, b in combinations(own, 2)
    ]
    assert float(self_attention_conflict(maps, looks)) == pytest.approx(sum(found) / 3, abs=1e-9)
    assert float(self_attention_conflict(maps[:1].repeat(2, 1, 1), looks)) == pytest.approx(0.5, abs=1e-12)
    assert float(self_attention_conflict(maps, torch.eye(20).double().reshape(4, 5, 20))) == 0
    assert float(self_attention_conflict(maps[:1], looks)) == 0
    assert torch.autograd.gradcheck(lambda one: self_attention_conflict(maps, one), (looks.requires_grad_(),))


def searched(settings: InitialNoise.Settings, spans: list[TokenSpan] = SPANS) -> tuple[Tensor, NoiseRecord]:
    model = unet()
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    noise, embeddings = inputs()
    return InitialNoise(settings).search(
        model,
        scheduler,
        noise,
        scheduler.timesteps[0],
        embeddings,
        spans,
        generator=torch.Generator().manual_seed(3),
        sigma=float(scheduler.init_noise_sigma),
    )


def test_a_search_finds_a_better_noise_within_its_bound() -> None:
    _, before = searched(InitialNoise.Settings(rounds=1, updates=0, last_updates=0))
    found, record = searched(InitialNoise.Settings(rounds=1, updates=10, last_updates=10, conflict_threshold=0.0))
    assert record.get("cross", 1.0) + record.get("conflict", 1.0) < before["cross"] + before["conflict"] - 1e-3
    assert 0 < record["divergence"] <= 0.001 * (1 + 1e-3)
    # Bounded so, it still is a standard normal noise to within a few hundredths.
    assert abs(float(found.mean())) < 0.05 and float(found.std()) == pytest.approx(1, abs=0.06)
    # What is said of the noise is true of what comes back.
    again = InitialNoise(InitialNoise.Settings(rounds=1, updates=0, last_updates=0))
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(20)
    embeddings = inputs()[1]
    generator = torch.Generator()
    _, same = again.search(
        unet(), scheduler, found, scheduler.timesteps[0], embeddings, SPANS, generator=generator,
        sigma=float(scheduler.init_noise_sigma),
    )  # fmt: skip
    assert same["cross"] == pytest.approx(record["cross"], abs=1e-5)


def test_rounds_and_passes_are_counted_and_repeatable() -> None:
    found, record = searched(SHORT)
    # Two rounds of three updates and a last look, then four updates and a last look.
    assert (record["rounds"], record["passes"], record["reached"]) == (2, 2 * 4 + 5, False)
    again, same = searched(SHORT)
    assert torch.equal(found, again) and record == same
    first, _ = searched(InitialNoise.Settings(rounds=1, updates=3, last_updates=4, cross_threshold=0.0))
    assert first.shape == found.shape


def test_a_good_noise_is_left_alone() -> None:
    easy = InitialNoise.Settings(cross_threshold=1.0, conflict_threshold=0.5)
    found, record = searched(easy)
    assert torch.equal(found, inputs()[0]) and (record["passes"], record["reached"]) == (1, True)
    found, record = searched(easy, [])
    assert torch.equal(found, inputs()[0]) and "no object" in record["note"]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"updates": -1}, {"learning_rate": 0.0}, {"most_divergence": 0.0}])
def test_noise_settings_out_of_range_are_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(RizbinError, match="Give"):
        InitialNoise(InitialNoise.Settings(**wrong))
