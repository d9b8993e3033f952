"""What SimCLR, BYOL, DINO and LoGo each promise beyond what every method does: losses, gradients, order of events."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core import parallel
from rizbin.core.errors import RizbinError
from rizbin.data.views import View
from rizbin.losses.contrast import nt_xent
from rizbin.losses.distill import regression, teacher_distribution
from rizbin.methods.byol import BYOL
from rizbin.methods.dino import DINO, multi_crop_loss
from rizbin.methods.logo import LoGo, queue_contrast, tell_apart
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Batch, Method, Minimize, Progress, Work
from rizbin.training.trainer import Trainer
from tests.processes import run_in_processes
from tests.toys import batch_for, build, tiny

CONVOLUTIONS = ImageEncoder.Settings(name="rizbin_conv_mini_32", image_size=32)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """All in float64, so that an equality of formulas may be asked to 1e-9."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def made(name: str, **extra: Any) -> Any:
    """The method at toy size, in training."""
    return build(name, extra).train()


def engine(steps: int = 10, **changes: Any) -> Trainer:
    return Trainer(Trainer.Settings(**changes), batch=8, steps=steps, checkpoint_every=0, seed=0)


def first(method: Method, batch: Batch | None = None, at: Progress = Progress(4, 10)) -> Minimize:
    """The first update that the method wants."""
    return next(iter(method.step(batch or batch_for(method), at)))


def gradients(loss: Tensor, *modules: nn.Module) -> list[Tensor]:
    """Of every parameter, zero where there is none."""
    parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(one) if got is None else got for one, got in zip(parameters, found, strict=True)]


def norm(tensors: list[Tensor]) -> float:
    return torch.stack([tensor.detach().norm() for tensor in tensors]).norm().item()


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    """Length of the difference as a share of the length of `b`."""
    return norm([x - y for x, y in zip(a, b, strict=True)]) / norm(b)


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    return (a @ b).item() / math.sqrt((a @ a).item() * (b @ b).item())


# ---- losses, in slow loops


def slow_nt_xent(a: Tensor, b: Tensor, u: Tensor, v: Tensor, temperature: float) -> float:
    """BYOL, equation 8 with beta 1, S a cosine divided by the temperature.

    Mean over views i of log(sum over j not i of exp S(i, key of j) + sum over j of exp S(i, other key of j)), less S(i,
    other key of i).
    """
    total, count = 0.0, len(a)
    for said, own, other in ((a, u, v), (b, v, u)):
        for i in range(count):
            everything = sum(math.exp(cosine(said[i], own[j]) / temperature) for j in range(count) if j != i)
            everything += sum(math.exp(cosine(said[i], other[j]) / temperature) for j in range(count))
            total += math.log(everything) - cosine(said[i], other[i]) / temperature
    return total / (2 * count)


def test_contrast_with_a_targets_keys_is_byols_equation_8() -> None:
    a, b, u, v = (gaussian(6, 5, seed=seed) for seed in range(4))
    expected = slow_nt_xent(a, b, u, v, 0.3)
    assert abs(float(nt_xent(a, b, 0.3, keys=(u, v))) - expected) < 1e-9
    assert abs(float(nt_xent(a, b, 0.3)) - slow_nt_xent(a, b, a, b, 0.3)) < 1e-9
    # Planted mistakes: own view and other view exchanged, no keys, a wrong sign.
    for wrong in (nt_xent(a, b, 0.3, keys=(v, u)), nt_xent(a, b, 0.3), nt_xent(-a, -b, 0.3, keys=(u, v))):
        assert abs(float(wrong) - expected) > 1e-2


def told_of(scores: Tensor, center: Tensor, temperature: float) -> list[list[float]]:
    rows = []
    for row in scores.tolist():
        powers = [math.exp((value - middle) / temperature) for value, middle in zip(row, center.tolist(), strict=True)]
        rows.append([power / sum(powers) for power in powers])
    return rows


def slow_dino(student: list[Tensor], told: list[list[list[float]]], temperature: float) -> float:
    """DINO, equation 3, one pair of views, one picture and one prototype at a time."""
    terms = []
    for large, distributions in enumerate(told):
        for number, scores in enumerate(student):
            if number == large:
                continue
            total = 0.0
            for picture, distribution in enumerate(distributions):
                row = [value / temperature for value in scores[picture].tolist()]
                whole = math.log(sum(math.exp(value) for value in row))
                total -= sum(p * (value - whole) for p, value in zip(distribution, row, strict=True))
            terms.append(total / len(distributions))
    assert len(terms) == len(told) * (len(student) - 1)
    return sum(terms) / len(terms)


def test_multi_crop_loss_is_dinos_equation_3() -> None:
    student = [gaussian(5, 7, seed=seed) for seed in range(5)]
    scores, center = [gaussian(5, 7, seed=seed) for seed in (10, 11)], gaussian(7, seed=12)
    told = [teacher_distribution(one, center, 0.5) for one in scores]
    slow = [told_of(one, center, 0.5) for one in scores]
    assert all(torch.allclose(a, torch.tensor(b), atol=1e-12) for a, b in zip(told, slow, strict=True))
    expected = slow_dino(student, slow, 0.3)
    assert abs(float(multi_crop_loss(student, told, 0.3)) - expected) < 1e-9
    # Planted mistakes: the teacher's views exchanged, so that each meets itself; the center added.
    wrong = [teacher_distribution(one, -center, 0.5) for one in scores]
    for mutated in (multi_crop_loss(student, told[::-1], 0.3), multi_crop_loss(student, wrong, 0.3)):
        assert abs(float(mutated) - expected) > 1e-3


def test_queue_contrast_is_mocos_equation_1() -> None:
    queries, keys, queue = (F.normalize(gaussian(count, 5, seed=count), dim=1) for count in (6, 6, 9))
    keys = keys.roll(1, 0)
    expected = 0.0
    for query, key in zip(queries, keys, strict=True):
        own, others = cosine(query, key) / 0.2, [cosine(query, other) / 0.2 for other in queue]
        expected += (math.log(math.exp(own) + sum(math.exp(other) for other in others)) - own) / len(queries)
    assert abs(float(queue_contrast(queries, keys, queue, 0.2)) - expected) < 1e-9
    for wrong in (queue_contrast(queries, keys, queue[1:], 0.2), queue_contrast(queries, -keys, queue, 0.2)):
        assert abs(float(wrong) - expected) > 1e-3


def test_tell_apart_is_the_logistic_loss_of_both_kinds() -> None:
    same, different = gaussian(6, seed=1), gaussian(6, seed=2)
    expected = sum(-math.log(1 / (1 + math.exp(-score))) for score in same.tolist()) / 6
    expected += sum(-math.log(1 - 1 / (1 + math.exp(-score))) for score in different.tolist()) / 6
    assert abs(float(tell_apart(same, different)) - expected) < 1e-9
    assert abs(float(tell_apart(different, same)) - expected) > 1e-2


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_regression_is_byols_equation_2(stop_gradient: bool) -> None:
    a, b = gaussian(6, 5, seed=1).requires_grad_(), gaussian(6, 5, seed=2).requires_grad_()
    loss = regression(a, b, stop_gradient=stop_gradient)
    slow = sum(2 - 2 * cosine(x, y) for x, y in zip(a.detach(), b.detach(), strict=True)) / 6
    loss.backward()
    assert abs(float(loss.detach()) - slow) < 1e-9
    assert a.grad is not None and (b.grad is None) == stop_gradient


# ---- SimCLR and BYOL


def test_byol_with_negatives_and_nothing_else_is_simclr() -> None:
    """The other end of the paper's ablation."""
    simclr = made("simclr", head_norm=False)
    byol = made("byol", negatives=True, predictor=False, stop_gradient=False, head_norm=False, together=True)
    byol.load_state_dict(simclr.state_dict())
    batch = batch_for(simclr)
    ours, theirs = first(byol, batch).loss, first(simclr, batch).loss
    assert abs(ours.item() - theirs.item()) < 1e-12
    assert apart(gradients(ours, byol), gradients(theirs, simclr)) < 1e-9
    # Planted mistake: with the stopped gradient it is not.
    stopped = made("byol", negatives=True, predictor=False, target="copy", head_norm=False, together=True)
    stopped.load_state_dict(simclr.state_dict())
    assert apart(gradients(first(stopped, batch).loss, stopped), gradients(theirs, simclr)) > 0.1


def test_simclr_without_negatives_is_minus_the_siblings_cosine() -> None:
    method = made("simclr", negatives=False, together=False)
    batch = batch_for(method)
    a, b = (method.projector(method.backbone(view)) for view in batch.views)
    expected = -sum(cosine(x, y) for x, y in zip(a, b, strict=True)) / len(a)
    assert abs(first(method, batch).loss.item() - expected) < 1e-9


def projected(method: BYOL, view: Tensor) -> Tensor:
    return method.projector(method.backbone(view))


def test_byol_with_a_copy_as_target_is_simsiam() -> None:
    """SimSiam's loss is minus the mean cosine of both directions (arXiv 2011.10566, equation 4), BYOL's 4 + 4 of it."""
    method = made("byol", target="copy")
    assert method.teacher is None
    batch = batch_for(method)
    z1, z2 = (projected(method, view) for view in batch.views)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    simsiam = -F.cosine_similarity(p1, z2.detach()).mean() / 2 - F.cosine_similarity(p2, z1.detach()).mean() / 2
    loss = first(method, batch).loss
    assert abs(loss.item() - (4 + 4 * simsiam.item())) < 1e-9
    assert apart(gradients(loss, method), [4 * one for one in gradients(simsiam, method)]) < 1e-9
    # Planted mistake: nothing detached.
    mutated = -F.cosine_similarity(p1, z2).mean() / 2 - F.cosine_similarity(p2, z1).mean() / 2
    assert apart(gradients(loss, method), [4 * one for one in gradients(mutated, method)]) > 0.05


def test_without_stop_gradient_the_target_moves_as_well() -> None:
    stopped, free = made("byol", target="copy"), made("byol", stop_gradient=False)
    free.load_state_dict(stopped.state_dict())
    batch = batch_for(stopped)
    with_stop, without = first(stopped, batch).loss, first(free, batch).loss
    assert abs(with_stop.item() - without.item()) < 1e-12, "the same numbers are compared"
    assert apart(gradients(without, free), gradients(with_stop, stopped)) > 0.05


@pytest.mark.parametrize(("name", "extra"), [("byol", {}), ("byol", {"target": "fixed"}), ("dino", {}), ("logo", {})])
def test_no_gradient_reaches_a_teacher(name: str, extra: dict[str, Any]) -> None:
    method = made(name, **extra)
    said: list[Tensor] = []
    for part in method.teacher.values():
        part.register_forward_hook(lambda _, __, output: said.append(output))
    updates = method.step(batch_for(method), Progress(4, 10))
    for update in updates:
        (update.loss if update.bounded is None else update.loss + update.bounded).backward()
        updates.close()  # what follows the first update is not asked for
    assert said and not any(output.requires_grad for output in said)
    assert all(parameter.grad is None for parameter in method.teacher.parameters())


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("byol", {"momentum": 0.8}),
        ("dino", {"momentum": 0.8}),
        ("logo", {"momentum": 0.8}),
        ("byol", {"target": "fixed"}),
    ],
)
def test_the_teacher_follows_the_updated_student(name: str, extra: dict[str, Any]) -> None:
    """Update first, then the mean (many copies of BYOL take it first)."""
    method, trainer = made(name, **extra), engine()
    with torch.no_grad():  # elsewhere than its student, so that following twice is not following once
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
    start = copy.deepcopy(method)
    trainer.step(method, trainer.optimizers(method), batch_for(method), 4)
    share = {"logo": 0.8}.get(name, Progress(4, 10).cosine(0.8, 1.0)) if "momentum" in extra else 1.0
    old, after = (list(one.teacher.parameters()) for one in (start, method))
    stale, new = ([p for part in method.teacher for p in getattr(one, part).parameters()] for one in (start, method))
    expected = [share * a + (1 - share) * b for a, b in zip(old, new, strict=True)]
    assert apart(after, expected) < 1e-12
    if share < 1:  # planted mistake: the student before its update
        assert apart(after, [share * a + (1 - share) * b for a, b in zip(old, stale, strict=True)]) > 1e-5


# ---- DINO


def dino_scores(method: DINO, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    """What student and teacher say of each view."""
    assert method.teacher is not None
    with torch.no_grad():
        large, small = torch.cat(batch.views[:2]), torch.cat(batch.views[2:])
        student = [method.head(method.backbone(views, track=False)) for views in (large, small)]
        teacher = method.teacher["head"](method.teacher["backbone"](large))
    return [
        view for part, count in zip(student, (2, len(batch.views) - 2), strict=True) for view in part.chunk(count)
    ], [*teacher.chunk(2)]


def test_dinos_step_is_the_formula_with_the_center_of_the_step_before() -> None:
    method = made("dino", teacher_temperature_start=0.04, teacher_temperature=0.07, teacher_temperature_warmup=0.8)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1.1)
        method.center.value.copy_(gaussian(32, seed=3) / 20)
    before, batch = method.center.value.clone(), batch_for(method)
    student, teacher = dino_scores(method, batch)
    loss = first(method, batch).loss.item()
    temperature = 0.04 + 0.03 * 0.4 / 0.8
    assert abs(loss - slow_dino(student, [told_of(one, before, temperature) for one in teacher], 0.1)) < 1e-9
    after = method.center.value
    # The mean is taken in float32, as under bf16 autocast.
    assert torch.allclose(after, 0.9 * before + 0.1 * torch.cat(teacher).mean(0), atol=1e-7)
    assert not torch.equal(after, before)
    # Planted mistakes: the center updated before it is used; a view that meets itself.
    assert abs(loss - slow_dino(student, [told_of(one, after, temperature) for one in teacher], 0.1)) > 1e-6
    own = slow_dino([student[1], student[0], *student[2:]], [told_of(one, before, temperature) for one in teacher], 0.1)
    assert abs(loss - own) > 1e-6


def test_dinos_switches() -> None:
    """No center: it stays where it is. No sharpening: the student's temperature for both."""
    method = made("dino", centering=False, sharpening=False)
    batch = batch_for(method)
    student, teacher = dino_scores(method, batch)
    zero = torch.zeros(32)
    expected = slow_dino(student, [told_of(one, zero, 0.1) for one in teacher], 0.1)
    assert abs(first(method, batch).loss.item() - expected) < 1e-9
    assert torch.equal(method.center.value, zero)


def test_dino_without_stop_gradient_is_its_own_teacher_with_gradient() -> None:
    method = made("dino", stop_gradient=False)
    batch = batch_for(method)
    loss = first(method, batch).loss
    features = [method.backbone(torch.cat(views), track=False) for views in (batch.views[:2], batch.views[2:])]
    scores = method.head(torch.cat(features))
    told = [teacher_distribution(view, torch.zeros(32), 0.04) for view in scores.chunk(4)[:2]]
    free = multi_crop_loss(list(scores.chunk(4)), told, 0.1)
    stopped = multi_crop_loss(list(scores.chunk(4)), [one.detach() for one in told], 0.1)
    assert abs(loss.item() - free.item()) < 1e-9
    assert apart(gradients(loss, method), gradients(free, method)) < 1e-9
    assert apart(gradients(loss, method), gradients(stopped, method)) > 0.05


def test_prototypes_rest_as_long_as_they_are_frozen() -> None:
    method, trainer = made("dino", freeze_last_layer=0.5), engine(weight_decay=0.5, learning_rate=0.01)
    optimizers, batch = trainer.optimizers(method), batch_for(method)
    start = method.head.prototypes.detach().clone()
    for step in (0, 4):
        hidden = method.head.mlp[0].weight.detach().clone()
        trainer.step(method, optimizers, batch, step)
        assert method.head.prototypes.grad is None
        assert torch.equal(method.head.prototypes, start), "neither gradient nor weight decay"
        assert not torch.equal(method.head.mlp[0].weight, hidden)
    trainer.step(method, optimizers, batch, 5)
    assert not torch.equal(method.head.prototypes, start)


def dino_of(**changes: Any) -> DINO:
    return DINO(tiny("dino", {"prototypes": 1024, **changes}))


def test_dinos_alarms_name_both_collapses_and_nothing_else() -> None:
    method, uniform = dino_of(), math.log(1024)
    healthy = {"loss": 4.0, "teacher_entropy": 2.8, "kl": 1.2, "code_entropy": 5.5, "top_share": 0.1}
    assert method.alarms(healthy) == [] and method.alarms({}) == []
    # A confident teacher whose pictures share no prototype, and the loss of the first steps.
    assert method.alarms({**healthy, "teacher_entropy": 0.1}) == []
    assert method.alarms({**healthy, "loss": uniform}) == []
    (flat,) = method.alarms({**healthy, "loss": uniform, "teacher_entropy": uniform, "code_entropy": uniform})
    assert f"ln K = {uniform:.4f}" in flat and "--method.teacher-temperature" in flat
    (single,) = method.alarms({**healthy, "loss": 0.1, "teacher_entropy": 0.04, "code_entropy": 0.1, "top_share": 0.97})
    assert "One prototype wins for 97 percent" in single and "--method.centering on" in single


def test_dinos_cautions_are_about_imagenets_numbers_in_small_runs() -> None:
    small, large = Work(images=5000, batch=64, steps=300), Work(images=1_281_167, batch=1024, steps=125_000)
    prototypes, momentum = dino_of(prototypes=65536).cautions(small)
    assert "65536 prototypes" in prototypes and "5,000 images" in prototypes and "--method.prototypes 256" in prototypes
    assert "momentum of 0.996" in momentum and "--method.momentum 0.967" in momentum
    assert dino_of(prototypes=65536).cautions(large) == []
    assert dino_of(prototypes=2048, momentum=0.97).cautions(small) == []
    assert dino_of(prototypes=2048, stop_gradient=False).cautions(small) == [], "without a teacher no momentum counts"


def test_byols_caution_is_about_a_target_that_stays_at_its_start() -> None:
    work = Work(images=5000, batch=64, steps=300)
    (caution,) = BYOL(tiny("byol")).cautions(work)
    assert "momentum of 0.996 in 300 steps" in caution and "--method.momentum 0.967" in caution
    for changes in ({"momentum": 0.97}, {"target": "fixed"}, {"target": "copy"}, {"stop_gradient": False}):
        assert BYOL(tiny("byol", changes)).cautions(work) == []


# ---- LoGo


def updates(method: LoGo, trainer: Trainer) -> Iterator[tuple[Minimize, set[str]]]:
    """Each update of one step, and the parts that it moved."""
    optimizers = trainer.optimizers(method)
    for update in trainer.updates(method, batch_for(method), 4):
        before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
        trainer._update(update, optimizers[update.by], 4, method, None, None)
        moved = {
            name.split(".")[0] for name, value in method.named_parameters() if not torch.equal(value, before[name])
        }
        yield update, moved


@pytest.mark.parametrize("weighting", ["bound", "weight"])
@pytest.mark.parametrize("base", ["moco", "byol", "simsiam"])
def test_encoder_and_affinity_each_move_by_their_own_update(base: str, weighting: str) -> None:
    method = made("logo", base=base, weighting=weighting, repulsion_weight=1.0)
    main = {"backbone", "projector", *([] if base == "moco" else ["predictor"])}
    assert [(update.by, moved) for update, moved in updates(method, engine())] == [
        ("affinity", {"regressor"}),
        ("main", main),
    ]


@pytest.mark.parametrize(("bound", "cut"), [(0.015, True), (1e6, False)])
def test_repulsion_is_cut_to_a_share_of_attraction(bound: float, cut: bool) -> None:
    method, trainer = made("logo", repulsion_bound=bound), engine(optimizer="sgd", learning_rate=0.0)
    parts = (method.backbone, method.projector)
    optimizers = trainer.optimizers(method)
    for update in trainer.updates(method, batch_for(method), 4):
        if update.by == "main":
            assert update.bounded is not None
            attraction, repulsion = gradients(update.loss, *parts), gradients(update.bounded, *parts)
        trainer._update(update, optimizers[update.by], 4, method, None, None)
    share = bound * norm(attraction) / norm(repulsion) if cut else 1.0
    assert (share < 1) == cut
    got = [torch.zeros_like(p) if p.grad is None else p.grad for part in parts for p in part.parameters()]
    added = [one - other for one, other in zip(got, attraction, strict=True)]
    assert norm(added) <= bound * norm(attraction) * (1 + 1e-9)
    assert apart(added, [share * one for one in repulsion]) < 1e-6, "it keeps its direction"


def test_a_fixed_weight_adds_the_mean_score() -> None:
    method = made("logo", weighting="weight", repulsion_weight=0.5)
    update = list(method.step(batch_for(method), Progress(4, 10)))[1]
    parts = [torch.as_tensor(update.records[name]) for name in ("attraction", "repulsion")]
    assert update.bounded is None and abs(update.loss.item() - parts[0].item() - 0.5 * parts[1].item()) < 1e-12


@pytest.mark.parametrize("weighting", ["bound", "weight"])
@pytest.mark.parametrize("affinity", ["learned", "cosine"])
def test_repulsion_is_the_affinity_of_small_crops_of_one_picture(affinity: str, weighting: str) -> None:
    """By the affinity after its own update, with running statistics; softplus where the gradient is cut. It sees unit
    vectors."""
    method, trainer = made("logo", affinity=affinity, weighting=weighting), engine()
    small = torch.cat(batch_for(method).views[2:])
    updates = trainer.updates(method, batch_for(method), 4)
    for update in updates:
        if update.by == "affinity":
            trainer._update(update, trainer.optimizers(method)["affinity"], 4, method, None, None)
            continue
        projected = method.projector(method.backbone(small, track=False))
        l1, l2 = (projected / projected.norm(dim=1, keepdim=True)).chunk(2)
        if affinity == "cosine":
            expected = F.cosine_similarity(l1, l2).mean()
        else:
            judge = copy.deepcopy(method.regressor).eval()
            score = (judge(torch.cat([l1, l2], dim=1)) + judge(torch.cat([l2, l1], dim=1))) / 2
            expected = (F.softplus(score) if weighting == "bound" else score).mean()
            assert method.regressor.training
        repulsion = torch.as_tensor(update.records["repulsion"])
        assert abs(repulsion.item() - expected.item()) < 1e-9
        assert apart(gradients(repulsion, method.projector), gradients(expected, method.projector)) < 1e-9
        break
    else:
        pytest.fail("no main update")


@pytest.mark.parametrize("affinity", ["learned", "cosine"])
def test_repulsion_lowers_the_affinity_of_a_picture_and_lengths_cannot(affinity: str) -> None:
    """Its gradient leads down, and is across each embedding: a longer or shorter one is no answer."""
    method = made("logo", affinity=affinity).eval()
    l1, l2 = (gaussian(8, 16, seed=seed).requires_grad_() for seed in (1, 2))
    asked = method._repulsion(*(F.normalize(small, dim=1) for small in (l1, l2)))
    along = torch.autograd.grad(asked, (l1, l2))
    with torch.no_grad():
        moved = method._repulsion(*(F.normalize(x - 0.1 * g, dim=1) for x, g in zip((l1, l2), along, strict=True)))
    assert moved < asked
    assert max((g * x).sum(1).abs().max().item() for x, g in zip((l1, l2), along, strict=True)) < 1e-9


@pytest.mark.parametrize("weighting", ["bound", "weight"])
@pytest.mark.parametrize("base", ["moco", "simsiam", "byol"])
def test_attraction_is_the_papers_sum_or_the_codes_mean(base: str, weighting: str) -> None:
    """Equations 3 and 4: large crops to each other, each small crop to both large ones, which do not move for it."""
    method = made("logo", base=base, affinity="none", weighting=weighting)
    batch = batch_for(method)
    large, small = (torch.cat(views) for views in (batch.views[:2], batch.views[2:]))
    backbone, projector = (method.backbone, method.projector) if method.teacher is None else method.teacher.values()
    with torch.no_grad():
        k1, k2 = F.normalize(projector(backbone(large, track=False)), dim=1).chunk(2)
    said = torch.cat([method.projector(method.backbone(views, track=False)) for views in (large, small)])
    if method.predictor is not None:
        said = method.predictor(said)
    g1, g2, l1, l2 = F.normalize(said, dim=1).chunk(4)

    def similar(query: Tensor, key: Tensor) -> Tensor:
        if base == "moco":
            return queue_contrast(query, key, method.queue, 0.07)
        return -(query * key).sum(1).mean()

    to_large = sum(similar(one, key) for one in (l1, l2) for key in (k1, k2))
    between = similar(g1, k2) + similar(g2, k1)
    expected = (between + to_large) / 6 if weighting == "bound" else between / 2 + to_large
    loss = first(method, batch).loss
    assert abs(loss.item() - expected.item()) < 1e-9
    assert apart(gradients(loss, method), gradients(expected, method)) < 1e-9


def _pairs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Here, small crops that the affinity is asked about, those of other pictures beside them, and all second crops."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # in the other processes as well
    method = made("logo")
    asked: list[Tensor] = []
    method.regressor.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].detach()))
    own = slice(parallel.rank() * rows, (parallel.rank() + 1) * rows)
    l1, l2 = (gaussian(rows * parallel.world_size(), 16, seed=seed)[own] for seed in (1, 2))
    method._judged(l1, l2, Progress(0, 10))
    torch.set_default_dtype(before)
    forth, back = asked[0].chunk(4)[2:]
    assert torch.equal(forth, back.roll(16, 1)), "both ways around"
    return forth[:, :16], forth[:, 16:], l2


@pytest.mark.parametrize("rows", [2, 5, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_no_picture_is_paired_with_itself(rows: int, processes: int) -> None:
    found = [_pairs(rows)] if processes == 1 else run_in_processes(_pairs, 2, rows)
    mine, others, seconds = (torch.cat(parts) for parts in zip(*found, strict=True))
    assert torch.equal(mine, gaussian(rows * processes, 16, seed=1))
    which = (others[:, None] == seconds[None]).all(-1)
    assert bool((which.sum(1) == 1).all()), "another picture of the batch"
    assert not bool(which.diagonal().any()) and bool((which.sum(0) == 1).all())


def test_noise_of_the_given_length_lies_on_pairs_of_one_picture_only() -> None:
    method = made("logo", affinity_noise=0.3)
    asked: list[Tensor] = []
    method.regressor.register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].detach()))
    l1, l2 = gaussian(256, 16, seed=1), gaussian(256, 16, seed=2)
    method._judged(l1, l2, Progress(0, 10))
    same = asked[0][:256] - torch.cat([l1, l2], dim=1)
    # The mean square of 8,192 Gaussian numbers is within 6 percent of its expectation (four deviations).
    assert float(same.square().mean()) * 16 == pytest.approx(0.3**2, rel=0.06)
    assert torch.equal(asked[0][512:768, :16], l1)


def test_keys_are_of_large_crops_and_the_queue_is_first_in_first_out() -> None:
    method, trainer = made("logo", queue=40), engine()
    optimizers, batch, history = trainer.optimizers(method), batch_for(method), [method.queue.clone()]
    for step in range(3):
        teacher = copy.deepcopy(method.teacher)
        pictures = torch.cat(batch.views[:2]) + step
        views = [*pictures.chunk(2), *(torch.randn_like(view) for view in batch.views[2:])]
        trainer.step(method, optimizers, replace(batch, views=views), step)
        keys = F.normalize(teacher["projector"](teacher["backbone"](pictures)), dim=1)
        history.insert(0, keys)
        assert torch.allclose(method.queue, torch.cat(history)[:40], atol=1e-12)
        assert not torch.allclose(method.queue, torch.cat([-history[0], *history[1:]])[:40], atol=1e-12)
    assert "queue" in method.state_dict()


def test_a_queue_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(RizbinError, match=r"queue of 15 keys holds less than the 16.*--method\.queue"):
        first(made("logo", queue=15))
    first(made("logo", queue=16))


@pytest.mark.parametrize("name", ["logo", "dino"])
def test_small_crops_must_divide_into_patches(name: str) -> None:
    view = View.Settings(size=20, crop_area=(0.2, 0.5))
    with pytest.raises(RizbinError, match=r"small crop of 20 pixels.*patches of 8.*--method\.local-view\.size 16"):
        made(name, local_view=view)
    made(name, local_view=view, encoder=CONVOLUTIONS)


@pytest.mark.parametrize("name", ["logo", "dino"])
def test_small_crops_are_no_larger_than_the_picture(name: str) -> None:
    with pytest.raises(RizbinError, match=r"crop of 640 pixels is larger.*--method\.local-view\.size"):
        made(name, local_view=View.Settings(size=640, crop_area=(0.2, 0.5)))


@pytest.mark.parametrize("name", ["byol", "dino", "logo"])
def test_a_momentum_that_is_no_share_is_refused(name: str) -> None:
    with pytest.raises(RizbinError, match=r"momentum is 1\.5"):
        made(name, momentum=1.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"local_crops": -1}, "local_crops is -1"),
        ({"student_temperature": 0.0}, "student_temperature"),
        ({"teacher_temperature_start": -1.0}, "teacher_temperature_start"),
        ({"center_momentum": 2.0}, "center_momentum"),
    ],
)
def test_impossible_settings_of_dino_get_a_sentence(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RizbinError, match=words):
        made("dino", **change)


@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "logo"])
def test_augmentations_that_are_left_out_are_off_in_every_view(name: str) -> None:
    method = made(name, augmentations=("crop", "flip"))
    assert all(view.jitter == view.grayscale == view.blur == view.solarize == 0 for view in method.views)
    assert all(view.flip == 0.5 or name in ("dino", "logo") for view in method.views)
    sizes = [view.size for view in method.views]
    assert sizes == {"simclr": [32] * 2, "byol": [32] * 2}.get(name, [32, 32, 16, 16])
