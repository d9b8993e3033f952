"""Chooses the scale of every attention guidance on prompts of its own, so that none is judged at another model's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rizbin.core.progress import MakeBar, advancing
from rizbin.core.runs import Records
from rizbin.generation.diffusion.attention_guidance import GuidanceKind
from rizbin.studies.missing.chances import Share
from rizbin.studies.missing.prompts import Prompt
from rizbin.studies.missing.ways import APART, Case, Plan, Studio, cases_of

SCALES = (5.0, 10.0, 20.0, 40.0, 80.0)
"""Factors of two around 20, which the papers use for Stable Diffusion."""
UNSCALED: tuple[GuidanceKind, ...] = ("none", "compose", "initial-noise")
"""Guidances without updates of the latents, which therefore have no scale."""


@dataclass(frozen=True)
class Tuned:
    """What one guidance came to at each scale, on prompts that the study itself does not use."""

    guidance: GuidanceKind
    shares: dict[float, Share]
    """Complete images by scale, by the detector."""

    @property
    def chosen(self) -> float:
        """The scale with most complete images; of equals the smallest, which changes the images least."""
        return max(sorted(self.shares), key=lambda scale: self.shares[scale].hits)


def held_out(prompts: Sequence[Prompt], plan: Plan) -> tuple[list[Case], bool]:
    """The cases for the choice, and whether their prompts are others than the study's.

    Their first noises always are. Prompts are the same where the study uses up all that there are.
    """
    if not plan.tuning:
        return [], False
    used = {case.prompt.text for case in cases_of(prompts, plan)}
    others = [prompt for prompt in prompts if prompt.text not in used]
    lot = cases_of(others or prompts, replace(plan, runs=1, seeds=plan.tuning))
    # Half-way to the seeds of the next study.
    away = 5_000_000 + plan.seed * 10_000_000
    return [replace(case, run=-1, seed=away + APART * case.number) for case in lot], bool(others)


def tune(studio: Studio, cases: Sequence[Case], bar: MakeBar | None = None) -> tuple[Tuned, ...]:
    """Draws the cases with every guidance at every scale, each once in the study's folder; no cases, no choice."""
    plan = studio.plan
    record = Records(studio.run.path / "tuning.jsonl", studio.run.warn)
    whole = {(line["guidance"], line["scale"], line["number"]): bool(line["whole"]) for line in record.read()}
    guidances: list[GuidanceKind] = [kind for kind in plan.guidances if kind not in UNSCALED] if cases else []
    trials = [(kind, scale, case) for case in cases for kind in guidances for scale in SCALES]
    left = [(kind, scale, case) for kind, scale, case in trials if (kind, scale, case.number) not in whole]
    with advancing(bar, len(left), "choosing scales") as advance:
        for kind, scale, case in left:
            drawn, _ = studio.draw(kind, case, scale)
            complete = drawn.whole(plan.strategy.threshold)
            whole[kind, scale, case.number] = complete
            record.append({"guidance": kind, "scale": scale, "number": case.number, "whole": complete})
            advance(1)
    return tuple(
        Tuned(
            kind, {scale: Share(sum(whole[kind, scale, case.number] for case in cases), len(cases)) for scale in SCALES}
        )
        for kind in guidances
    )


def with_own_scales(
    studio: Studio, prompts: Sequence[Prompt], bar: MakeBar | None = None
) -> tuple[Plan, tuple[Tuned, ...], bool]:
    """The studio's plan with the scales that it asks to be chosen, how they were, and whether on other prompts."""
    cases, apart = held_out(prompts, studio.plan)
    tuned = tune(studio, cases, bar)
    return tuned_plan(studio.plan, tuned), tuned, apart


def tuned_plan(plan: Plan, tuned: Sequence[Tuned]) -> Plan:
    """The plan with the chosen scales; repair takes that of its own guidance."""
    if not tuned:
        return plan
    scales = dict(plan.scales) | {choice.guidance: choice.chosen for choice in tuned}
    strategy = replace(plan.strategy, scale=scales.get(plan.strategy.guidance, plan.strategy.scale))
    return replace(plan, scales=tuple(scales.items()), strategy=strategy)
