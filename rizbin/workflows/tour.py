"""The part of the demo's report about other modules: generation, repair, detection and gradient ascent.

Nothing is trained here: the models are bundled.
"""

from itertools import combinations

from rizbin.core import random
from rizbin.core.errors import RizbinError
from rizbin.core.progress import MakeBar, advancing
from rizbin.data.open import open_source
from rizbin.data.scenes.captions import article
from rizbin.detection.draw import drawn as with_boxes
from rizbin.detection.phrases import named
from rizbin.generation.ascent.ascend import ascend
from rizbin.generation.ascent.targets import TextTarget
from rizbin.generation.diffusion.drawing import predicted_images
from rizbin.generation.diffusion.repair import Repaired, RepairStrategy, repair
from rizbin.generation.diffusion.text_to_image import Sampling, TextToImage
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage
from rizbin.workflows import evaluate_diffusion as drawn
from rizbin.workflows.load import load_detector, load_encoder, load_text_to_image
from rizbin.workflows.verifier import DetectorVerifier, judging

DRAWS, FINDS, CLIMBED = "diffusion-mini", "detector-mini", "tecoa-mini"
TRIED = 16
"""Pairs drawn at most until one lacks an object."""
BELIEVED = 0.5
"""Probability from which an object counts as there, and score from which a box is shown."""
_HOW = {
    "draw": "as drawn",
    "reseed": "another seed",
    "attention": "attention guided",
    "place": "drawn into a free place",
}


def tour(page: Page, *, bar: MakeBar | None = None) -> None:
    """Adds an example of each module to a page, or a note where a model cannot be loaded."""
    page.heading("Generation, detection and gradient ascent")
    try:
        text_to_image, judge = load_text_to_image(DRAWS), judging(load_detector(FINDS))
    except RizbinError as error:
        page.note(f"Not shown: {error}")
        return
    names = open_source(drawn.DATA, split="test", size=text_to_image.side).categories
    with advancing(bar, 4, "generation, repair, detection, ascent") as advance:
        _draw(page, text_to_image, names)
        advance(1)
        repaired = _repair(page, text_to_image, judge, names)
        advance(1)
        _find(page, judge, repaired, names)
        advance(1)
        _ascend(page, judge, names)
        advance(1)


def _draw(page: Page, text_to_image: TextToImage, names: tuple[str, ...]) -> None:
    prompt = " and ".join(article(name) for name in names[-2:])
    painted = text_to_image.paint(prompt, Sampling(guidance_scale=drawn.DiffusionSettings().guidance_scale))
    page.heading("Text-to-image", level=3)
    page.text(
        f"\u201c{prompt}\u201d by {DRAWS}: the predicted image at some of {len(painted.frames)} steps, "
        f"{painted.seconds:.1f} seconds in all."
    )
    steps = [*predicted_images(text_to_image, painted.frames, most=7), (painted.image, "the image")]
    page.pictures([PageImage(image=image, caption=words, alt=f"{prompt}, {words}") for image, words in steps])


def _repair(page: Page, text_to_image: TextToImage, judge: DetectorVerifier, names: tuple[str, ...]) -> Repaired:
    """Repairs the first pair, in a fixed order, whose image lacks an object."""
    pairs = list(combinations(names, 2))
    order = random.generator("pairs of the tour", len(pairs)).permutation(len(pairs))[:TRIED]
    for number, place in enumerate(order):
        prompt = " and ".join(article(name) for name in pairs[place])
        sampling = Sampling(guidance_scale=drawn.DiffusionSettings().guidance_scale, seed=number)
        made = repair(text_to_image, prompt, judge, sampling=sampling, strategy=RepairStrategy(), objects=pairs[place])
        if len(made.attempts) > 1:
            break
    page.heading("Repair", level=3)
    first, best = made.attempts[0], made.best
    if len(made.attempts) == 1:
        page.text(
            f"Of {TRIED} pairs none came out without one of its objects; \u201c{prompt}\u201d is the last of them."
        )
    else:
        lacked = [name for name, presence in first.presences.items() if presence.probability < BELIEVED]
        page.text(
            f"\u201c{prompt}\u201d came out without {' and '.join(article(name) for name in lacked)}, says {FINDS}. "
            f"{len(made.attempts) - 1} more were drawn; "
            + (f"{_HOW[best.how]}, all objects are there." if made.whole else "none of them shows all objects.")
        )
    page.pictures(
        [
            PageImage(
                image=attempt.image,
                caption=f"{_HOW[attempt.how]}: "
                + ", ".join(f"{name} {presence.probability:.2f}" for name, presence in attempt.presences.items())
                + (" (kept)" if attempt is best else ""),
                alt=f"{prompt}, {_HOW[attempt.how]}",
            )
            for attempt in made.attempts
        ]
    )
    return made


def _find(page: Page, judge: DetectorVerifier, made: Repaired, names: tuple[str, ...]) -> None:
    image = made.best.image
    (proposals,) = judge.detector.detect([image], named(names))
    answer = proposals.choose(BELIEVED)
    page.heading("Detection", level=3)
    found_text = ", ".join(f"{label} {score:.2f}" for label, score in zip(answer.labels, answer.scores, strict=True))
    page.text(f"All {len(names)} names were searched for at once in the kept image; found: {found_text or 'nothing'}.")
    shown = with_boxes(image, answer)
    page.pictures([PageImage(image=shown, caption=found_text or "nothing", alt=f"boxes found: {found_text or 'none'}")])


def _ascend(page: Page, judge: DetectorVerifier, names: tuple[str, ...]) -> None:
    """An image made by an encoder's gradient alone, with the verdict of the detector, which was not used for it."""
    name = names[0]
    encoder = load_encoder(CLIMBED)
    made = ascend([encoder], [[TextTarget(text=article(name))]])
    (seen_in_it,) = judge(made.images[0], [name])
    page.heading("Gradient ascent", level=3)
    page.text(
        f"\u201c{article(name)}\u201d by {CLIMBED} alone: no generator, only the gradient of its score, which rose "
        f"to {made.scores[-1][0]:.2f} in {made.seconds:.0f} seconds. {FINDS}, which was not used, gives the "
        f"{name} a probability of {seen_in_it.probability:.2f}; `rizbin study ascent` measures "
        "what such images show to other models."
    )
    shown = [*((frame.images[0], f"step {frame.step}") for frame in made.frames), (made.images[0], "the image")]
    page.pictures([PageImage(image=image, caption=words, alt=f"{name}, {words}") for image, words in shown])
