"""A page that shows how pictures were drawn: what the network saw at each step, and what is left of a start picture."""

from collections.abc import Sequence
from pathlib import Path

from rizbin.core.pages import Page
from rizbin.core.pieces import Picture
from rizbin.generate.diffusion.drawing import Drawn, noised_starts
from rizbin.generate.diffusion.film import Labelled, seen
from rizbin.generate.diffusion.painter import Painter, Pixels


def write_film(painter: Painter, made: Sequence[Drawn], start: Pixels | None, target: Path) -> Path:
    """Writes the page and returns its path. Raises RizbinError when it cannot be written."""
    page = Page("How it was drawn", subtitle=f"{len(made)} pictures by {Path(painter.name).name}")
    page.explained(
        [
            (
                "Seen at a step",
                "Under the noise the network guesses the finished picture at every step. First the guess is a blur of "
                "what such pictures have in common, then places and colors are decided, then what things are, and last "
                "their edges.",
            ),
            ("t", "Where the step stands in the noise schedule: 999 is nothing but noise, 0 is none."),
        ]
    )
    if start is not None:
        page.heading("The start picture under noise")
        page.text("What a strength leaves of it before the first step; the network may change what it cannot see.")
        page.pictures(_shown(noised_starts(painter, start, made[0].sampling), "the start picture under noise"))
    for one in made:
        page.heading(one.prompt or "without words")
        page.text(
            f"Seed {one.sampling.seed}, {len(one.painted.frames)} steps by the scheduler {one.sampling.scheduler}, "
            f"guidance {one.sampling.guidance:g}, {one.painted.seconds:.1f} seconds."
        )
        for sentence in one.painted.notes:
            page.note(sentence)
        shown = [*seen(painter, one.painted.frames, most=11), (one.painted.image, "the picture")]
        page.pictures(_shown(shown, one.prompt))
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _shown(pictures: Sequence[Labelled], what: str) -> list[Picture]:
    return [Picture(image=image, caption=words, alt=f"{what}, {words}") for image, words in pictures]
