"""Pictures climbed into a folder: what the command ascend does."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from rizbin.core import outputs
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.data.gate import read_image
from rizbin.generation.ascent.ascend import (
    Ascended,
    Frame,
    NotFinite,
    as_floats,
    check_mask,
)
from rizbin.generation.ascent.ascend import ascend as climb
from rizbin.generation.ascent.layers import middle_layer
from rizbin.generation.ascent.settings import PRESETS, Settings
from rizbin.generation.ascent.targets import Content, Image, Style, Target, Text
from rizbin.generation.film import Pixels, sheet, write_gif, write_png
from rizbin.models.protocol import Embedder
from rizbin.workflows.known_words import unknown_in
from rizbin.workflows.load import load_encoder

ASIDE = 0.3
"""Weight of further texts, and negated of those to stay away from, where none is given. Source: arXiv 2502.07753."""


@dataclass(frozen=True)
class Climbed:
    """One picture on disk."""

    file: Path
    prompt: str
    seed: int
    score: float
    """What was climbed in the end: cosine with the prompt or with the picture's embedding. Not how good it is."""
    seconds: float
    """Of all pictures that climbed with it."""


def ascend(
    prompts: str | Sequence[str] = (),
    *,
    model: str | Path | Sequence[str | Path] = "tecoa-mini",
    to: str | Path = "ascended",
    settings: Any = None,
    also: Sequence[str] = (),
    negative: Sequence[str] = (),
    image: str | Path = "",
    style: str | Path = "",
    content: str | Path = "",
    layer: str = "",
    start: str | Path = "",
    mask: str | Path = "",
    autoencoder: str | Path = "",
    count: int = 1,
    device: str = "cpu",
    quiet: bool = False,
) -> list[Climbed]:
    """Climbs a picture of each prompt with each of `count` seeds into the folder `to`; returns a `Climbed` for each.

    model: one encoder or several, by name: a run, a folder, one of the zoo, open_clip:NAME/WEIGHTS, timm:NAME, or a
        CLIP or SigLIP on Hugging Face.
    settings: a `rizbin.generation.ascent.settings.Settings`, or the name of a preset.
    also, negative: further texts and texts to stay away from, each with a weight or `ASIDE`: "oil painting=0.5".
    image: a picture whose embedding is followed. style, content: pictures whose features at `layer` are followed.
    start: a picture to begin with. mask: white where may be drawn, of the same size.
    autoencoder: a pipeline folder of diffusers whose autoencoder's latents are climbed.
    The same call goes on where it was stopped. In the folder: the pictures as they grow, for each a strip and a GIF,
    and ascended.json.
    """
    settings = PRESETS[settings]() if isinstance(settings, str) else settings or PRESETS["default"]()
    words = [prompts] if isinstance(prompts, str) else list(prompts)
    if count < 1:
        raise RizbinError(f"{count} pictures are none; give --count 1 or more.")
    if any(not one.strip() for one in words):
        raise RizbinError('An empty prompt says nothing; write what to draw: rizbin ascend "a zebra".')
    if not (words or image or style or content):
        raise RizbinError('Say what to draw: rizbin ascend "a zebra and a frog", or give --image.')
    begun, allowed = _begun(start, mask, settings.size)
    sides = [Text(text=text, weight=weight) for text, weight in weighted(also, ASIDE)]
    sides += [Text(text=text, weight=-weight) for text, weight in weighted(negative, ASIDE)]
    shown = {
        kind: as_floats(read_image(path))
        for kind, path in (("image", image), ("style", style), ("content", content))
        if path
    }
    names = [model] if isinstance(model, str | Path) else list(model)
    encoders = [load_encoder(name, device=device) for name in names]
    followed = _followed(shown, layer, encoders)
    wishes = [[*([Text(text=text)] if text else []), *followed, *sides] for text in words or [""]]
    latents = _autoencoder(autoencoder, device)
    folder, made, told = Path(to), [], []
    read = [one for one in (image, style, content, start, mask) if one]
    with Bar(0, "", quiet=quiet) as line, outputs.reading(read):
        for sentence in dict.fromkeys(note for name in names for text in words for note in unknown_in(text, name)):
            line.warn(sentence)
        for number in range(count):
            chosen = replace(settings, seed=settings.seed + number)
            files = [outputs.free_name(folder / f"{place * count + number:04d}.png") for place in range(len(wishes))]
            state = outputs.claim_folder(folder / f"state-{chosen.seed}")

            def seen(frame: Frame, files: list[Path] = files) -> None:
                _write(frame.pictures, files)

            try:
                climbed = climb(
                    encoders,
                    wishes,
                    settings=chosen,
                    start=begun,
                    mask=allowed,
                    autoencoder=latents,
                    folder=state,
                    watch=_now_and_then(seen),
                    say=line.say,
                    bar=lambda total, label: Bar(total, label, quiet=quiet),
                )
            except NotFinite as stopped:
                _write(stopped.kept.pictures, files)
                raise
            _write(climbed.pictures, files)
            _films(climbed, files)
            outputs.remove_folder(state)
            made += [
                Climbed(file, text, chosen.seed, score, climbed.seconds)
                for file, text, score in zip(files, words or [""], climbed.scores[-1], strict=True)
            ]
            told += [_told(one, names, chosen, also, negative) for one in made[-len(files) :]]
            _record(sorted(told, key=lambda one: one["file"]), folder)
    return sorted(made, key=lambda one: one.file)


def settings_from(flags: Mapping[str, Any]) -> Settings:
    """A preset with what the flags of the command say otherwise; 0, "preset", smoothness and noise below 0 leave it."""
    settings = PRESETS[flags["preset"]]()
    kept = ("parametrization", "optimizer", "steps", "copies", "learning_rate")
    changes = {name: flags[name] for name in kept if flags[name] not in (0, "preset")}
    if not flags["smooth"] < 0:  # what is no number is refused by the settings
        changes["smooth"] = flags["smooth"]
    if not flags["noise"] < 0:
        changes["augment"] = replace(settings.augment, noise=flags["noise"])
    if flags["resolutions"] != "preset":
        # Who names resolutions wants a picture made of them.
        changes = {"parametrization": "resolutions", **changes, "resolutions": resolutions_from(flags["resolutions"])}
    return replace(settings, **changes, **{name: flags[name] for name in ("change", "size", "seed", "chunk")})


def resolutions_from(text: str) -> Any:
    """all, powers, or numbers with commas."""
    if text in ("all", "powers"):
        return text
    try:
        return tuple(int(one) for one in text.split(","))
    except ValueError as error:
        raise RizbinError(f"{text!r} names no resolutions; write all, powers, or sides such as 1,4,16,64.") from error


def weighted(texts: Sequence[str], weight: float) -> list[tuple[str, float]]:
    """Texts with the weight that stands behind them after "=", or else the given one."""
    found = []
    for text in texts:
        words, sign, number = text.rpartition("=")
        try:
            found.append((words.strip(), float(number)) if sign else (text.strip(), weight))
        except ValueError as error:
            raise RizbinError(f"{number!r} in {text!r} is not a weight; write a number: {words}=0.3.") from error
    return found


def _followed(shown: dict[str, Tensor], layer: str, encoders: Sequence[Embedder]) -> list[Target]:
    """The targets that are pictures."""
    found: list[Target] = []
    if "image" in shown:
        found.append(Image(picture=shown["image"]))
    if "style" in shown or "content" in shown:
        if len(encoders) > 1 and not layer:
            raise RizbinError("Several encoders have no layer in common; give one --model, or name a --layer of all.")
        at = layer or middle_layer(encoders[0])
        if "content" in shown:
            found.append(Content(picture=shown["content"], layer=at))
        if "style" in shown:
            found.append(Style(picture=shown["style"], layer=at))
    return found


def _begun(start: str | Path, mask: str | Path, size: int) -> tuple[Tensor | None, Tensor | None]:
    """The start picture and the mask at the canvas's size: `size` is their shorter side; 0 leaves them."""
    if not start:
        if mask:
            raise RizbinError("A mask says where a picture may change; give the picture too: --start photo.png.")
        return None, None
    picture = read_image(start)
    allowed = read_image(mask).mean(axis=-1) if mask else None
    if allowed is not None:
        check_mask(allowed.shape, picture.shape[:2])
    if size:
        scale = size / min(picture.shape[:2])
        sides = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
        picture = np.asarray(cv2.resize(picture, sides, interpolation=cv2.INTER_AREA), np.uint8)
        allowed = None if allowed is None else cv2.resize(allowed, sides, interpolation=cv2.INTER_AREA)
    white = None if allowed is None else torch.from_numpy(np.asarray(allowed) > 127).float()[None]
    return as_floats(picture)[None], white


def _autoencoder(folder: str | Path, device: str) -> Any:
    """The autoencoder of a pipeline; None where none is asked for."""
    if not folder:
        return None
    from rizbin.workflows.load import load_painter

    return load_painter(folder, device=device).pipeline.vae


def _now_and_then(seen: Any) -> Any:
    """Lets a few of the frames through: every tenth of the way is enough for a preview."""

    def watch(frame: Frame) -> None:
        if frame.step * 10 // frame.steps != (frame.step - 1) * 10 // frame.steps:
            seen(frame)

    return watch


def _write(pictures: Sequence[Pixels], files: Sequence[Path]) -> None:
    for picture, file in zip(pictures, files, strict=True):
        write_png(picture, file)


def _films(climbed: Ascended, files: Sequence[Path]) -> None:
    """A strip and a GIF beside each picture."""
    for place, file in enumerate(files):
        pictures = [(frame.pictures[place], f"step {frame.step}") for frame in climbed.frames]
        write_png(sheet([pictures]), file.with_name(f"{file.stem}-film.png"))
        write_gif([image for image, _ in pictures], file.with_suffix(".gif"))


def _told(
    one: Climbed, names: Sequence[str | Path], settings: Settings, also: Sequence[str], negative: Sequence[str]
) -> dict[str, Any]:
    return {
        "file": one.file.name,
        "prompt": one.prompt,
        "models": [Path(name).name for name in names],
        "also": list(also),
        "negative": list(negative),
        "score": round(one.score, 4),
        "seconds": round(one.seconds, 2),
        **asdict(settings),
    }


def _record(told: Sequence[dict[str, Any]], folder: Path) -> None:
    outputs.write(folder / "ascended.json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
