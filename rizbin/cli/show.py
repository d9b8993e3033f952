"""Prints the result of each command and gives its exit code. Imports nothing heavy."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rizbin.cli.parsing import check_quotes
from rizbin.core.errors import RizbinError

if TYPE_CHECKING:  # torch and its company load in seconds; here they are needed for annotations alone
    from rizbin.core.measurement import Report
    from rizbin.detection.presence import Verdicts
    from rizbin.detection.search import DetectionResults
    from rizbin.generation.diffusion.drawing import SavedImage
    from rizbin.generation.diffusion.repair import Repaired
    from rizbin.vectors.table import Vectors
    from rizbin.workflows.ascend import AscendedImage
    from rizbin.workflows.classify import Classified
    from rizbin.workflows.search import SearchResults

ABSENT, UNSURE = 1, 3
"""Exit codes of `rizbin verify`; 2 is said of faults, as everywhere."""
MISSING, CHANGED = 1, 1
"""Exit codes of `rizbin repair` where an object is missing, and of `rizbin replay` where a pixel is another."""


def path(made: Path, settings: Any) -> int:
    """Prints the path of the result."""
    print(made)
    return 0


def text(made: Any, settings: Any) -> int:
    """Prints the result as text."""
    print(made if isinstance(made, str | Path) else made.text())
    return 0


def text_or_json(made: Any, settings: Any) -> int:
    """The result in its own words, or its rows as JSON."""
    print(json.dumps(made.rows(), indent=2, ensure_ascii=False) if settings.json else made.text())
    return 0


def numbers(made: "Report", settings: Any) -> int:
    """Prints a report as a table, or as JSON."""
    print(made.to_json() if settings.json else made.table())
    return 0


def exported(made: Path, settings: Any) -> int:
    """Prints the path of the model, and the lines that load it."""
    from rizbin.workflows.loading_lines import loading_lines

    print(made)
    print(loading_lines(made))
    return 0


def detections(made: "DetectionResults", settings: Any) -> int:
    """Prints a line for each box."""
    for image in made.images:
        if not len(image.answer):
            print(f"{image.file}: nothing")
        for label, score, box in zip(image.answer.labels, image.answer.scores, image.answer.boxes, strict=True):
            print(f"{image.file}: {label} {score:.2f} at {' '.join(str(round(float(value))) for value in box)}")
    _notes((*made.notes, *made.skipped))
    return 0


def embedded(made: "Vectors", settings: Any) -> int:
    """Where the table is, what is in it, and what could not be used."""
    print(made.path)
    grid = "" if made.grid is None else f", and {made.grid[0] * made.grid[1]} patches of each"
    print(f"{len(made.vectors):,} images, {made.vectors.shape[1]} dimensions{grid}, by {made.record['model']}")
    _unusable(made.unusable)
    return 0


def hits(made: "SearchResults", settings: Any) -> int:
    """A line for each image."""
    for hit in made.hits:
        place = "" if hit.place is None else f" at {' '.join(str(round(edge)) for edge in hit.place.box)}"
        print(f"{hit.query}: {hit.file} {hit.score:.3f}{place}")
    _notes(made.notes)
    return 0


def classified(made: "Classified", settings: Any) -> int:
    """A line for each image."""
    for row in made.rows():
        print(f"{row['file']}: {row['label']} {row['probability']:.2f}")
    _unusable(made.unusable)
    return 0


def verdicts(made: "Verdicts", settings: Any) -> int:
    """Prints a line for each phrase."""
    for verdict in made:
        extra = f", {verdict.count} of it" if verdict.state == "present" and verdict.count else ""
        extra += f"; {verdict.rival} fits better" if verdict.rival and verdict.state != "present" else ""
        print(f"{verdict.name}: {verdict.state} ({verdict.probability:.2f}{extra})")
    _notes([note for verdict in made for note in verdict.notes])
    states = {verdict.state for verdict in made}
    return ABSENT if "absent" in states else UNSURE if "unsure" in states else 0


def drawn(made: "Sequence[SavedImage]", settings: Any) -> int:
    """Prints a line for each image."""
    for image in made:
        _notes(image.painted.notes)
        print(f"{image.file}: {image.prompt} (seed {image.sampling.seed}, {image.painted.seconds:.1f} s)")
    return 0


def repaired(made: "Sequence[Repaired]", settings: Any) -> int:
    """Prints a line for each prompt, with the probability of each object."""
    prompts = [settings.prompts] if isinstance(settings.prompts, str) else settings.prompts
    for prompt, image in zip(prompts, made, strict=True):
        _notes(image.notes)
        probabilities = ", ".join(
            f"{name} {presence.probability:.2f}" if presence.known else f"{name} not known"
            for name, presence in image.best.presences.items()
        )
        tried = f"{len(image.attempts)} drawn, {sum(attempt.seconds for attempt in image.attempts):.1f} s"
        print(f"{image.file}: {prompt} ({probabilities or 'nothing to look for'}; {tried})")
    return 0 if all(image.whole for image in made) else MISSING


def ascended(made: "Sequence[AscendedImage]", settings: Any) -> int:
    """Prints a line for each image."""
    for image in made:
        print(f"{image.file}: {image.prompt or 'by its images'} (seed {image.seed}, score {image.score:.2f})")
    return 0


def replayed(made: Any, settings: Any) -> int:
    """Prints whether the images are the same again, or what the failed step of a run shows."""
    if not isinstance(made, list):
        return text(made, settings)
    for image in made:
        print(
            f"{image.file}: {image.prompt} ({'the same to the bit' if image.same else f'not the same: {image.note}'})"
        )
    return 0 if all(image.same for image in made) else CHANGED


def doctor(made: dict[str, dict[str, Any]], settings: Any) -> int:
    """Prints a line for each finding, or JSON."""
    if settings.json:
        print(json.dumps(made, indent=2))
        return 0
    from rich.console import Console

    from rizbin.doctor import lines

    console, last = Console(highlight=False), ""
    for section, name, value, well in lines(made):
        if section != last:
            console.print(f"\n[bold]{section}[/bold]")
        mark = "[green]ok[/green] " if well else "[red]bad[/red]"
        console.print(f"  {mark} {name:<24} ", value, sep="", markup=True)
        last = section
    return 0


def check_detect(given: dict[str, Any]) -> None:
    """Raises RizbinError unless images and phrases are given."""
    if not given.get("images"):
        raise RizbinError('Say which images: rizbin detect FOLDER --find "a cat".')


def check_search(given: dict[str, Any]) -> None:
    """Words in quotes."""
    check_quotes(given.get("words", []), "rizbin search")


def check_verify(given: dict[str, Any]) -> None:
    """Raises RizbinError where the quotes of a phrase were left out."""
    check_quotes(given.get("phrases", []), f"rizbin verify {given.get('image')}")


def check_edit(given: dict[str, Any]) -> None:
    """Raises RizbinError unless there is one prompt, in quotes."""
    prompt = given.get("prompt", [])
    if len(prompt) > 1:
        whole = " ".join(prompt).replace('"', "'")
        raise RizbinError(f'An image is redrawn by one prompt; put all of its words in quotes: "{whole}".')


def check_prompts(command: str) -> Callable[[dict[str, Any]], None]:
    """A check that raises RizbinError where the quotes of a prompt were left out."""
    return lambda given: check_quotes(given.get("prompts", []), f"rizbin {command}")


def _notes(sentences: Sequence[str]) -> None:
    for sentence in dict.fromkeys(sentences):
        print(f"note: {sentence}")


def _unusable(sentences: Sequence[str]) -> None:
    """How many images could not be used, and why the first few."""
    if sentences:
        images = "1 image" if len(sentences) == 1 else f"{len(sentences):,} images"
        print(f"{images} could not be used:")
        for sentence in sentences[:_LISTED]:
            print(f"  {sentence}")
        if len(sentences) > _LISTED:
            print(f"  and {len(sentences) - _LISTED:,} more, listed with their reasons in the result.")


_LISTED = 5
"""Images that could not be used whose reasons are printed."""
