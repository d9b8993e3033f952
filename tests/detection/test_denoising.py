"""Denoising queries: how far they are moved, who sees them, what they are taught, and that nothing else notices."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_convert

from rizbin.core.random import key
from rizbin.detection.criterion import BoxTargets, Weights, grounding_loss, predictions
from rizbin.detection.denoising import (
    DRAWS,
    MOST,
    Noised,
    denoising,
    denoising_loss,
    hidden_from,
    noised,
)
from rizbin.detection.phrases import batch_of, phrase_map
from rizbin.training.method import Batch, Minimize, Progress
from tests.detection.test_detector_training import SMALL, Shapes, made, trainer
from tests.detection.toys import text_of, tiny

GROUPS = 3
TEXTS = [text_of("cat", "a red disc", "bird"), text_of("dog"), text_of("tree", "blue square")]
BOXES = [
    torch.tensor([[0.3, 0.3, 0.2, 0.4], [0.7, 0.6, 0.3, 0.3]]),
    torch.tensor([[0.5, 0.5, 0.2, 0.3]]),
    torch.zeros(0, 4),
]
NAMED = [[1, 0], [0], []]
MAPS = [phrase_map(text, len(text.phrases), 64) for text in TEXTS]
TRUTHS = [
    BoxTargets(boxes, tokens[named], torch.arange(64) < len(text.ids))
    for boxes, tokens, named, text in zip(BOXES, MAPS, NAMED, TEXTS, strict=True)
]


def drawn(seed: int = 0, groups: int = GROUPS, rows: int = 3) -> Tensor:
    return torch.rand(rows, groups * MOST * DRAWS, generator=torch.Generator().manual_seed(seed))


def noise_of(seed: int = 0) -> Noised:
    return noised(TRUTHS, MAPS, drawn(seed), GROUPS)


def test_noise_stays_within_its_range() -> None:
    groups, kept = 200, 0
    truth = BoxTargets(BOXES[0], MAPS[0][NAMED[0]], TRUTHS[0].text)
    noise = noised([truth], [MAPS[0]], drawn(1, groups, 1), groups)
    near, far = noise.places(0)
    sides = truth.boxes[:, 2:].repeat(groups, 2)
    corners = box_convert(truth.boxes, "cxcywh", "xyxy").repeat(groups, 1)
    moved = ((box_convert(noise.boxes[0, near], "cxcywh", "xyxy") - corners) / sides).abs()
    # A near box cannot be turned inside out, so that each of its corners is the one that was moved.
    assert moved.max() <= 0.5 + 1e-4 and moved.min() < 0.01 and moved.max() > 0.48
    away = box_convert(noise.boxes[0, far], "cxcywh", "xyxy")
    assert (away[:, :2] <= away[:, 2:]).all() and away.min() >= 0 and away.max() <= 1
    # A far one can: then its left is where its right went. What the picture's edge stopped says nothing.
    straight, turned = ((away - one).div(sides).abs().view(-1, 2, 2) for one in (corners, corners.roll(2, dims=1)))
    inside = ((away > 0) & (away < 1)).view(-1, 2, 2).all(dim=1)
    fits = [((one > 0.5 - 1e-4) & (one < 1 + 1e-4)).all(dim=1) for one in (straight, turned)]
    assert inside.sum() > 200 and (fits[0] | fits[1])[inside].all() and not (fits[0] | fits[1]).all()
    assert not fits[0][inside].all() and fits[0][inside].any()
    for place in (near, far):
        kept += int((noise.tokens[0, place] == truth.tokens.repeat(groups, 1)).all(dim=1).sum())
    # A quarter is drawn anew, and of three names a third of those is the right one after all.
    assert abs(kept / (4 * groups) - 5 / 6) < 0.05
    asked = {tuple(row.tolist()) for row in MAPS[0]}
    assert {tuple(row.tolist()) for row in noise.tokens[0]} == asked


def test_near_and_far_of_an_object_have_the_same_name_and_padding_has_none() -> None:
    noise = noise_of()
    assert noise.boxes.shape == (3, GROUPS * 2 * 2, 4) and noise.counts == (2, 1, 0)
    for picture, count in enumerate(noise.counts):
        near, far = noise.places(picture)
        assert len(near) == len(far) == GROUPS * count
        assert torch.equal(noise.tokens[picture, near], noise.tokens[picture, far])
        left = torch.ones(noise.boxes.shape[1], dtype=torch.bool)
        left[torch.cat([near, far])] = False
        assert not noise.tokens[picture, left].any()


def passed(model: Any, noise: Noised | None) -> tuple[Any, list[Any], Tensor]:
    """Outputs, what the noised queries gave, and the mask of the text."""
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    ids, known = batch_of(TEXTS)
    given = {"pixel_values": images, "input_ids": ids, "attention_mask": known.long()}
    if noise is None:
        return model(**given), [], known
    with denoising(model, noise, known) as answer:
        return model(**given), answer.layers, known


def test_the_networks_own_queries_do_not_see_noised_ones() -> None:
    model = tiny().eval()
    with torch.no_grad():
        plain, _, _ = passed(model, None)
        seen = [passed(model, noise_of(seed)) for seed in (0, 1)]
        after, _, _ = passed(model, None)
    for outputs, _, _ in seen:
        for name in ("logits", "pred_boxes", "intermediate_hidden_states", "intermediate_reference_points"):
            assert torch.allclose(outputs[name], plain[name], atol=1e-5), name
    assert (seen[0][1][0].logits[..., :3] - seen[1][1][0].logits[..., :3]).abs().max() > 1e-3, "noised ones differ"
    assert plain.intermediate_hidden_states.shape[2] == model.config.num_queries
    assert torch.equal(after.logits, plain.logits), "nothing is left behind"


def test_gradient_shows_who_sees_whom() -> None:
    """Of the content that noised queries begin with: it reaches their own group and nobody else."""
    model, noise = tiny().eval(), noise_of()
    decoder, queries = model.model.decoder, model.config.num_queries
    begun: list[Tensor] = []

    def keep(_: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        begun[:] = [given["inputs_embeds"].detach().requires_grad_()]
        return args, given | {"inputs_embeds": begun[0]}

    ids, known = batch_of(TEXTS)
    with denoising(model, noise, known) as answer:
        hook = decoder.register_forward_pre_hook(keep, with_kwargs=True)
        outputs = model(pixel_values=torch.randn(3, 3, 64, 64), input_ids=ids, attention_mask=known.long())
    hook.remove()
    (reached,) = torch.autograd.grad(outputs.intermediate_hidden_states.square().sum(), begun, retain_graph=True)
    assert reached[:, :queries].abs().sum() > 0 and reached[:, queries:].abs().sum() == 0
    # One query of the second group of the first picture, then what it was reached by.
    group = 2 * noise.room
    (reached,) = torch.autograd.grad(answer.layers[-1].logits[0, group, : len(TEXTS[0].ids)].sum(), begun)
    by = reached.abs().sum(dim=-1) > 0
    assert by[0, :queries].all() and by[0, queries + group : queries + 2 * group].all()
    assert not by[0, queries : queries + group].any() and not by[0, queries + 2 * group :].any() and not by[1:].any()


def test_padding_is_seen_by_nobody() -> None:
    hidden = hidden_from(noise_of(), 5)
    assert hidden.shape == (3, 17, 17) and not hidden[:, :, :5].any() and hidden[:, :5, 5:].all()
    assert not hidden[0, 5:9, 5:9].any() and hidden[0, 5:9, 9:].all()
    assert hidden[1, 5:9, 5:9].tolist() == [[False, True, False, True]] * 4, "one object of two places, near and far"
    assert hidden[2, :, 5:].all()


def test_the_loss_is_of_near_boxes_against_their_objects() -> None:
    """Against the loss of one picture and one group at a time, the pairs written out."""
    noise = noise_of()
    _, layers, _ = passed(tiny().eval(), noise)
    total, records = denoising_loss(layers, noise, TRUTHS, Weights())
    focal = l1 = 0.0
    for picture, truth in enumerate(TRUTHS):
        near, far = noise.places(picture)
        count = len(truth.boxes)
        for place, query in enumerate(near.tolist()):
            mine, thing = layers[-1].boxes[picture, query], place % max(count, 1)
            l1 += 5 * (mine - truth.boxes[thing]).abs().sum().item() / (count * GROUPS) / 3
        for place, query in enumerate([*near.tolist(), *far.tolist()]):
            target = truth.tokens[place % max(count, 1)] & (place < len(near))
            p = layers[-1].logits[picture, query, truth.text].sigmoid()
            right = target[truth.text]
            wrong = 0.75 * p**2 * -(1 - p).log()
            focal += 2 * torch.where(right, 0.25 * (1 - p) ** 2 * -p.log(), wrong).sum().item() / (count * GROUPS) / 3
    assert records["denoising/l1"].item() == pytest.approx(l1, rel=1e-4)
    assert records["denoising/focal"].item() == pytest.approx(focal, rel=1e-4)
    assert total.item() > sum(value.item() for value in records.values()), "the other layers too"


def wish(denoised: int, batch: Batch) -> Minimize:
    (found,) = made(replace(SMALL, denoising=denoised)).step(batch, Progress(0, 2, seed=key(5, "a")))
    return found


def test_without_denoising_the_loss_is_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit that of a plain pass; with denoising the queries' own terms stay beside the new ones."""
    batch = trainer(2).batch_of(made(), Shapes(), 0)[1]
    plain, more = wish(0, batch), wish(2, batch)
    method, outputs, known = made(), [], []
    hook = method.model.register_forward_hook(lambda *given: outputs.append(given[2]))
    truth = method._truth
    monkeypatch.setattr(method, "_truth", lambda *given: known.append(truth(*given)) or known[-1])
    list(method.step(batch, Progress(0, 2, seed=key(5, "a"))))
    hook.remove()
    layers = predictions(method.model, outputs[0], outputs[0].input_ids != 0)
    assert torch.equal(grounding_loss(layers, known, SMALL.weights)[0], plain.loss)
    assert len(known) == len(batch.objects) and not any(name.startswith("denoising") for name in plain.records)
    for name, value in plain.records.items():
        assert float(more.records[name]) == pytest.approx(float(value), rel=1e-4), name
    assert {"denoising/focal", "denoising/l1", "denoising/giou"} == set(more.records) - set(plain.records)
    assert more.loss > plain.loss + 0.1


def test_pictures_of_nothing_have_nothing_noised() -> None:
    batch = trainer(2).batch_of(made(), Shapes(), 0)[1]
    empty = Batch(batch.views, batch.crops, batch.flips, None, [() for _ in batch.objects])
    assert not any(name.startswith("denoising") for name in wish(2, empty).records)
    half = Batch(batch.views, batch.crops, batch.flips, None, [batch.objects[0], *(() for _ in batch.objects[1:])])
    found = wish(2, half)
    assert torch.isfinite(found.loss) and "denoising/giou" in found.records
