"""Commands that look for things by words."""

from pathlib import Path
from typing import Annotated, Literal

from rizbin.cli.parsing import check_quotes, parse
from rizbin.core.errors import RizbinError

ABSENT, UNSURE = 1, 3
"""Exit codes of `rizbin verify`; 2 is said of faults, as everywhere."""


def detect(words: list[str]) -> int:
    """`rizbin detect PICTURES --find ...`."""
    import tyro

    def find(
        pictures: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PICTURES...")],
        /,
        find: tuple[str, ...] = (),
        not_: Annotated[tuple[str, ...], tyro.conf.arg(name="not")] = (),
        model: str = "",
        threshold: float = 0.3,
        per_class: tuple[str, ...] = (),
        overlap: float = 0.7,
        scale: Literal["full", "standard", "fast"] = "full",
        over: Literal["mean", "max"] = "mean",
        alone: bool = False,
        tile: int = 0,
        batch: int = 4,
        out: str = "",
        form: Literal["", "coco", "csv", "yolo", "voc", "labelme"] = "",
        draw: str = "",
        explain: int = 0,
        masks: str = "",
        device: str = "cpu",
        quiet: bool = False,
    ) -> dict:
        """Finds things in pictures by words.

        Args:
            pictures: Files, folders, patterns.
            find: What to look for, once for each: "a cat", or "remote=a remote control|tv remote" for a name with
                several prompts; "a cat. a dog." are two. Only these names come back.
            not_: What might be mistaken for it, once for each: takes its boxes away and is no answer.
            model: A Grounding DINO of Hugging Face by name or folder (MM-Grounding-DINO and LLMDet too), or
                detector-mini, which comes along and knows drawings. Empty: LLMDet tiny, loaded over the network once.
            threshold: Lowest score of an answer, 0 to 1.
            per_class: Another threshold for one name, once for each: "cat=.4".
            overlap: Intersection over union from which two boxes of one name are one thing; 1 keeps both.
            scale: Size at which pictures are seen: 800, 480 or 320 pixels for the published models. Time goes with its
                square: on a processor about 24, 9 and 4.5 seconds of one core a picture.
            over: A phrase's score is the mean of its tokens', as in COCO's protocol, or the largest.
            alone: One pass for each phrase: slower, for long descriptions.
            tile: Also look at squares of so many pixels, for small things; 0 does not.
            batch: Pictures of one size in a pass.
            out: File or folder for the answers. Empty: only said. Files that Rizbin did not make are not replaced.
            form: Of that; empty: by its ending (.json coco, .csv, else yolo).
            draw: Folder for the pictures with their answers drawn.
            masks: A SAM 2 of Hugging Face by name or folder, or sam2 for its tiny one, makes a mask of each box; they
                are drawn, and stand as run lengths in COCO's JSON.
            explain: Boxes of each picture to explain: which words, which pixels, and whether they matter, in
                explained.html in that folder or here. The picture is seen whole and in full size; six passes a box.
            device: cpu, cuda, cuda:1.
            quiet: No progress bar.
        """
        return {**locals()}

    given = parse(find, words, "detect", repeat=True)
    if not given["pictures"]:
        raise RizbinError('Say which pictures: rizbin detect FOLDER --find "a cat".')
    from rizbin import api
    from rizbin.detection.search import Search

    settings = Search(
        thresholds=dict(_threshold(one) for one in given["per_class"]),
        **{name: given[name] for name in ("threshold", "overlap", "scale", "over", "alone", "tile", "batch")},
    )
    found = api.detect(
        list(given["pictures"]),
        list(given["find"]),
        rivals=list(given["not_"]),
        settings=settings,
        to=given["out"],
        **{name: given[name] for name in ("model", "form", "draw", "explain", "masks", "device", "quiet")},
    )
    for one in found.pictures:
        if not len(one.answer):
            print(f"{one.file}: nothing")
        for label, score, box in zip(one.answer.labels, one.answer.scores, one.answer.boxes, strict=True):
            print(f"{one.file}: {label} {score:.2f} at {' '.join(str(round(float(value))) for value in box)}")
    for sentence in (*found.notes, *found.skipped):
        print(f"note: {sentence}")
    return 0


def _threshold(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        if name:
            return name, float(value)
    except ValueError:
        pass
    raise RizbinError(f'"{text}" is no threshold of a name; write it as "cat=.4".')


def verify(words: list[str]) -> int:
    """`rizbin verify PICTURE PHRASE ...`."""
    import tyro

    def check(
        picture: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PICTURE")],
        phrases: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PHRASES...")],
        /,
        not_: Annotated[tuple[str, ...], tyro.conf.arg(name="not")] = (),
        margin: float = 0.0,
        model: str = "",
        calibration: str = "",
        device: str = "cpu",
    ) -> dict:
        """Says whether things are in a picture; exit code 0 all present, 1 one is absent, 3 one is unsure.

        Args:
            picture: A file.
            phrases: What is to be there; each gets a pass of its own.
            not_: What might be mistaken for it, once for each: where that fits a box better, the box does not count.
            margin: By how much a phrase must beat all of those.
            model: As for detect.
            calibration: File that says what probability a score is. Empty: calibration.json in the model's folder where
                there is one, else scores are taken as probabilities.
            device: cpu, cuda, cuda:1.
        """
        return {**locals()}

    given = parse(check, words, "verify", repeat=True)
    check_quotes(given["phrases"], f"rizbin verify {given['picture']}")
    from rizbin import api

    verdicts = api.verify(
        Path(given["picture"]),
        list(given["phrases"]),
        rivals=list(given["not_"]),
        **{name: given[name] for name in ("margin", "model", "calibration", "device")},
    )
    for one in verdicts:
        told = f", {one.count} of it" if one.state == "present" and one.count else ""
        told += f"; {one.rival} fits better" if one.rival and one.state != "present" else ""
        print(f"{one.name}: {one.state} ({one.probability:.2f}{told})")
    for sentence in dict.fromkeys(note for one in verdicts for note in one.notes):
        print(f"note: {sentence}")
    states = {one.state for one in verdicts}
    return ABSENT if "absent" in states else UNSURE if "unsure" in states else 0
