"""DetailCLIP drawn from a live model: its parts with the shapes of a forward pass, and one batch followed through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.data.phrases import phrases as phrases_of
from rizbin.data.views import denormalize
from rizbin.methods.detailclip import DetailCLIP
from rizbin.pages.charts import clean
from rizbin.pages.page import Page
from rizbin.pages.pieces import Cell, Number, PageImage
from rizbin.training.method import Batch, Progress
from rizbin.visualization.attention import overlay

TERMS = {
    "contrast": ("CLIP", "the image's embedding", "the embedding of its own caption, among those of the batch"),
    "phrase": ("phrases", "single patches", "the noun phrases of the caption"),
    "cls": ("CLS", "the student's [CLS]", "the teacher's distribution over prototypes"),
    "patch": ("hidden patches", "what the decoder says of hidden patches", "the teacher's features of these patches"),
    "visible": ("visible patches", "the student's visible patches", "the teacher's features of these patches"),
    "pixels": ("pixels", "what the decoder paints", "the pixels of hidden patches, normalized patch by patch"),
    "residual": ("residual", "what the decoder paints", "the pixels that a low resolution lost"),
}
"""Record of the loss -> what it is called, what predicts, and what is predicted."""
WIDTH, HIGH, GAP = 380, 50, 30
"""Measures of the drawing, in its units: a box is `HIGH`, and rows stand `GAP` apart."""
LOSSES = {"contrast": 2, "phrase": 2, "cls": 0, "patch": 0, "visible": 0, "pixels": 1, "residual": 1}
"""Column under which each term of the loss stands: teacher, student, text."""


@dataclass(frozen=True)
class Seen:
    """A part of the network as it was in a forward pass."""

    shape: str
    """Shape of its output: "4 x 65 x 96"."""
    parameters: int


@dataclass(frozen=True)
class Traced:
    """One step of a method on a batch."""

    parts: dict[str, Seen]
    """Name of the module -> what it gave when it ran first."""
    terms: dict[str, float]
    """Terms of the loss, unweighted."""
    gradients: dict[str, Float[Tensor, "batch height width"]]
    """Length of each term's gradient with respect to each pixel."""


def batch_of(method: DetailCLIP, images: Float[Tensor, "batch 3 height width"], captions: Sequence[str]) -> Batch:
    """The images as every view of a batch, unaugmented, so that views and masks lie over each other."""
    tokenizer = method.tokenizer
    assert tokenizer is not None
    phrases = None
    if method.most_phrases:
        split = [(phrases_of(caption) or [caption])[: method.most_phrases] for caption in captions]
        phrases = torch.stack(
            [F.pad(tokenizer.encode(parts), (0, 0, 0, method.most_phrases - len(parts))) for parts in split]
        )
    views, count = len(method.views), len(images)
    crops = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(views, count, 4)
    flips = torch.zeros(views, count, dtype=torch.bool)
    return Batch([images] * views, crops, flips, tokenizer.trim(tokenizer.encode(list(captions))), phrases=phrases)


def trace(method: DetailCLIP, images: Float[Tensor, "batch 3 height width"], captions: Sequence[str]) -> Traced:
    """Runs one late step without an update, and notes what every part gave and where each term's gradient falls."""
    parts: dict[str, Seen] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def noted(part: nn.Module, _: Any, given: Any) -> None:
            parts.setdefault(name, _seen(part, given))

        return noted

    handles = [module.register_forward_hook(note(name)) for name, module in _watched(method).items()]
    images = images.clone().requires_grad_()
    try:
        with torch.enable_grad():
            records = next(iter(method.step(batch_of(method, images, captions), Progress(99, 100)))).records
            terms, gradients = {}, {}
            for name in TERMS:
                term = records.get(name)
                if not isinstance(term, Tensor) or not term.requires_grad:
                    continue
                terms[name] = float(term.detach())
                (gradient,) = torch.autograd.grad(term, images, retain_graph=True)
                gradients[name] = gradient.norm(dim=1)
    finally:
        for handle in handles:
            handle.remove()
    return Traced(parts, terms, gradients)


def _watched(method: DetailCLIP) -> dict[str, nn.Module]:
    """The parts that the drawing shows, as far as the settings have them."""
    pair: Any = method.pair
    parts: dict[str, nn.Module | None] = {
        "student": pair.vision,
        "text": pair.text,
        "projection": pair.image_projection,
        "head": method.head,
        "features": method.to_features,
        "decoder": method.decoder,
        "pixels": method.to_pixels,
        "residual": method.to_residual,
    }
    if method.teacher is not None:
        parts |= {f"teacher {name}": part for name, part in method.teacher.items()}
    return {name: part for name, part in parts.items() if part is not None}


def _seen(module: nn.Module, given: Any) -> Seen:
    """The shape of what a part gave: of patches and [CLS] together where it gave both."""
    patches, cls = getattr(given, "patches", None), getattr(given, "cls", None)
    if isinstance(patches, Tensor) and isinstance(cls, Tensor):
        shape = f"{patches.shape[0]} x (1 + {patches.shape[1]}) x {patches.shape[2]}"
    else:
        value = given[0] if isinstance(given, tuple) else given
        shape = " x ".join(map(str, value.shape)) if isinstance(value, Tensor) else ""
    return Seen(shape, sum(parameter.numel() for parameter in module.parameters()))


@dataclass(frozen=True)
class _Box:
    column: int
    row: int
    title: str
    lines: tuple[str, ...]
    kind: str = ""
    span: int = 1


def boxes(method: DetailCLIP, traced: Traced, count: int) -> list[_Box]:
    """What the drawing shows: only parts that ran."""
    parts, settings, size = traced.parts, method.settings, method.pair.image_size
    made = [
        _Box(0, 0, "views of the images", (f"{settings.view_count} x {count} x 3 x {size} x {size}",), "data", 2),
        _Box(2, 0, "captions", (f"{count}, and their phrases",), "data"),
        _Box(1, 1, "student", _facts(parts.get("student"), "sees what is visible"), "net"),
        _Box(2, 1, "text tower", _facts(parts.get("text"), ""), "net"),
        _Box(2, 2, "projections", _facts(parts.get("projection"), "one space for both"), "net"),
    ]
    if "teacher vision" in parts:
        made.append(_Box(0, 1, "teacher (EMA)", _facts(parts["teacher vision"], "sees all of it"), "teacher"))
    if "teacher head" in parts or "features" in parts:
        target = "features are the target" if "features" in parts else "prototypes are the target"
        made.append(_Box(0, 2, "teacher's targets", (target, "no gradient"), "teacher"))
    if "decoder" in parts:
        made.append(_Box(1, 2, "decoder", _facts(parts["decoder"], "fills hidden places"), "net"))
    return made


def _facts(seen: Seen | None, says: str) -> tuple[str, ...]:
    if seen is None:
        return (says or "did not run",)
    return tuple(line for line in (seen.shape, f"{seen.parameters / 1e3:,.0f}k weights", says) if line)


def diagram(method: DetailCLIP, traced: Traced, count: int) -> str:
    """The drawing as SVG: data above, towers, decoder and targets, and the terms of the loss below what they judge."""
    made = boxes(method, traced, count)
    places = {(box.column, box.row) for box in made} | {(1, 0)}
    out = []
    for box in made:
        for column in range(box.column, box.column + box.span):
            below = (column, box.row + 1)
            if below in places:
                out.append(_arrow(column, box.row, column, box.row + 1))
    out.append(_arrow(1, 1, 2, 2))  # the image's embedding
    out += [_drawn(box) for box in made]
    weights = {name: _weight(method, name) for name in traced.terms}
    counts = [0, 0, 0]
    for name, value in traced.terms.items():
        column = LOSSES[name]
        row = 3 + counts[column]
        if counts[column] == 0:
            above = max((box.row for box in made if box.column == column), default=0)
            out.insert(0, _arrow(column, above, column, 3))
        counts[column] += 1
        lines = (f"{value:.3f}, weight {weights[name]:g}",)
        out.append(_drawn(_Box(column, row, TERMS[name][0], lines, "loss")))
    high = _top(3 + max(counts)) - GAP + 8
    spoken = (
        "DetailCLIP: views into teacher and student, captions into the text tower; decoder, targets and losses below."
    )
    return (
        f'<svg class="diagram" viewBox="0 0 {WIDTH} {high}" role="img" aria-label="{clean(spoken)}">'
        f"{''.join(out)}</svg>"
    )


def _wide() -> float:
    return (WIDTH - 4 * 8) / 3


def _left(column: int) -> float:
    return 8.0 + column * (_wide() + 8)


def _top(row: int) -> float:
    return 8.0 + row * (HIGH + GAP)


def _arrow(column: int, row: int, to_column: int, to_row: int) -> str:
    x1, x2 = (_left(side) + _wide() / 2 for side in (column, to_column))
    return (
        f'<line class="flow" x1="{x1:.0f}" y1="{_top(row) + HIGH:.0f}" x2="{x2:.0f}" y2="{_top(to_row) - 2:.0f}"/>'
        f'<circle class="tip" cx="{x2:.0f}" cy="{_top(to_row) - 2:.0f}" r="3"/>'
    )


def _drawn(box: _Box) -> str:
    x, y = _left(box.column), _top(box.row)
    wide = box.span * _wide() + (box.span - 1) * 8
    middle = x + wide / 2
    texts = f'<text class="name" x="{middle:.0f}" y="{y + 16:.0f}">{clean(box.title)}</text>'
    for number, line in enumerate(box.lines):
        texts += f'<text x="{middle:.0f}" y="{y + 29 + 11 * number:.0f}">{clean(line)}</text>'
    rectangle = f'<rect x="{x:.0f}" y="{y:.0f}" width="{wide:.0f}" height="{HIGH + 6}" rx="6"/>'
    return f'<g class="box {box.kind}">{rectangle}{texts}</g>'


def _weight(method: DetailCLIP, name: str) -> float:
    """Weight of a term in the loss."""
    own = {"contrast": "contrast_weight", "pixels": "reconstruction_weight"}
    return float(getattr(method.settings, own.get(name, f"{name}_weight"), 1.0))


def show_architecture(
    page: Page,
    method: DetailCLIP,
    images: Float[Tensor, "batch 3 height width"],
    captions: Sequence[str],
    objects: Bool[Tensor, "batch height width"] | None = None,
) -> Traced:
    """Adds the drawing, the terms with their targets and gradients, and each image followed through a step.

    images: normalized. objects: which pixels belong to an object, where that is known.
    """
    traced = trace(method, images, captions)
    page.heading("The network")
    page.text(
        "Shapes are those of one forward pass, batch first. The teacher, in dashes, is a moving average of the "
        "student. Losses stand under the column that they judge."
    )
    page.drawing(diagram(method, traced, len(images)))
    page.heading("What each term asks")
    shares = {name: _share(traced.gradients[name], objects) for name in traced.terms}
    rows: list[list[Cell]] = [
        [
            TERMS[name][0],
            TERMS[name][1],
            TERMS[name][2],
            Number(f"{value:.3f}", value),
            Number(f"{_weight(method, name):g}", _weight(method, name)),
            Number("n/a" if shares[name] is None else f"{shares[name]:.2f}", shares[name]),
        ]
        for name, value in traced.terms.items()
    ]
    page.table(["Term", "predicts with", "target", "value", "weight", "gradient on objects (even: 1)"], [("", rows)])
    _follow(page, method, images, captions, traced)
    return traced


def _share(gradient: Tensor, objects: Tensor | None) -> float | None:
    """How much of a term's squared gradient lies on objects, divided by their share of the pixels; 1: no preference."""
    if objects is None or not objects.any():
        return None
    energy = gradient.double().square()
    share = (energy * objects).sum() / energy.sum().clamp(min=1e-30)
    return float(share / objects.double().mean())


def _follow(page: Page, method: DetailCLIP, images: Tensor, captions: Sequence[str], traced: Traced) -> None:
    """Each image: what the teacher attends to, what is visible and hidden, what is painted, where gradients fall."""
    look = method.look(images)
    assert look is not None  # DetailCLIP always has something to show
    page.heading("One batch, followed")
    for place, caption in enumerate(captions):
        pixels = denormalize(images[place][None])[0].numpy()
        removed = F.interpolate(look.removed[place][None, None].float(), images.shape[-2:])[0, 0].bool().numpy()
        shown = [PageImage(image=pixels, caption="the view", alt=caption)]
        attended = overlay(pixels, look.attention[place].numpy())
        shown.append(
            PageImage(image=attended, caption="the teacher's attention", alt="where the teacher's [CLS] looks")
        )
        if removed.any():
            seen = np.where(removed[..., None], np.uint8(128), pixels)
            hidden = np.where(removed[..., None], pixels, np.uint8(235))
            shown.append(PageImage(image=seen, caption="visible", alt="what the student sees, hidden patches gray"))
            shown.append(PageImage(image=hidden, caption="hidden, to be predicted", alt="the hidden patches"))
        if look.reconstruction is not None:
            painted = denormalize(look.reconstruction[place][None])[0].numpy()
            shown.append(PageImage(image=painted, caption="the pixels it paints there", alt="its reconstruction"))
        for name in traced.terms:
            heat = overlay(pixels, traced.gradients[name][place].numpy())
            words = f"gradient of {TERMS[name][0]}"
            shown.append(PageImage(image=heat, caption=words, alt=words))
        page.card(caption, shown)
