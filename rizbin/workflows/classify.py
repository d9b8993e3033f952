"""Classification without training: images and names in, the most probable name of each image out."""

import io
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float

from rizbin.core import outputs
from rizbin.core.bounded import read_regular
from rizbin.core.commands import Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.progress import Bar
from rizbin.core.results import Table, text_of
from rizbin.data.files import image_files
from rizbin.evaluation import zero_shot
from rizbin.models.encoder import TEXTS_AT_ONCE, Encoder
from rizbin.vectors.encode import default_workers, encoded
from rizbin.vectors.parts import Rows
from rizbin.vectors.table import Vectors
from rizbin.workflows.detect import paths_of
from rizbin.workflows.load import load_encoder
from rizbin.workflows.search import encoder_of_table, opened

_MOST_NAMES = 2**20
"""Bytes of a file of names; ImageNet's 21,000 have half of that."""


@dataclass(frozen=True)
class Classify:
    """Say which of some names fits each image best, by words alone (zero-shot)."""

    images: Annotated[
        Place | Sequence[Place], Argument(positional=True, many=True, metavar="IMAGES", check="images")
    ] = ()
    """Files, folders, patterns; or --in for a table of vectors."""
    _: KW_ONLY
    names: Annotated[str | Sequence[str], Argument(many=True)]
    """What to choose among: cat,dog; or a text file with a name on each line."""
    vectors: Annotated[Place | Vectors | None, Argument(name="in", short=("-i",), check="path")] = None
    """A table that rizbin embed wrote, in place of images: nothing is read again."""
    model: Annotated[Place | None, Argument(check="model")] = None
    """An image-text encoder. None: the one that made the table, or detailclip-mini."""
    templates: zero_shot.TemplateSet = "plain"
    """Prompts whose mean stands for a name: plain (seven photos and drawings of it), scenes, openai80."""
    template: Annotated[str | Sequence[str], Argument(many=True)] = ()
    """Prompts of your own in place of these, once for each: "a satellite photo of a {}"."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """File for the answers, .csv or .json, with the probability of each name. None: they are only printed."""
    batch: int = 64
    """Images in a pass of the network; changes speed and memory only."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""
    quiet: bool = False
    """Show no progress bar."""


@dataclass(frozen=True, repr=False)
class Classified(Table):
    """The probability of each name for each image."""

    files: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: Float[np.ndarray, "images names"]
    """A softmax over the names of the cosines times the network's own scale; each row sums to 1."""
    unusable: tuple[str, ...] = ()
    """A sentence for each image that could not be used."""

    def __repr__(self) -> str:
        return f"Classified({len(self.files)} images among {', '.join(self.names)})"

    @property
    def labels(self) -> tuple[str, ...]:
        """The most probable name of each image."""
        return tuple(self.names[place] for place in self.probabilities.argmax(axis=1).tolist())

    def rows(self) -> list[dict[str, Any]]:
        """A row for each image: file, label, probability, and the probability of each name under "p NAME"."""
        return [
            {
                "file": file,
                "label": label,
                "probability": float(row.max()),
                **{f"p {name}": float(value) for name, value in zip(self.names, row, strict=True)},
            }
            for file, label, row in zip(self.files, self.labels, self.probabilities, strict=True)
        ]


@job(Classify)
def classify(settings: Classify) -> Classified:
    """The most probable name of each image, with the probabilities of all.

    A name stands for the mean of its prompts' unit embeddings (CLIP, arXiv 2103.00020, section 3.1.4). Raises
    RizbinError when there are fewer than two names, no image, or a model that reads no words.
    """
    names = names_of(settings.names)
    places = paths_of(settings.images)
    if bool(places) == (settings.vectors is not None):
        raise RizbinError("Say which images: rizbin classify FOLDER --names cat,dog; or a table of vectors with --in.")
    if settings.batch < 1:
        raise RizbinError(f"--batch is {settings.batch}; give 1 or more.")
    if settings.output is not None:
        outputs.refuse_taken(Path(settings.output))
        text_of([], Path(settings.output).suffix.lower())
    located = image_files(*places) if places else {}
    table = opened(settings.vectors) if settings.vectors is not None else None
    if table is not None:
        encoder = encoder_of_table(table, settings.model, device=settings.device)
    else:
        encoder = load_encoder(settings.model or "detailclip-mini", device=str(choose(settings.device)))
    words = words_of(encoder, names, settings)
    if table is not None:
        files, vectors, unusable = list(table.files), np.asarray(table.vectors), table.unusable
    else:
        files, vectors, unusable = _embedded(encoder, located, settings)
    logits = encoder.scale * torch.from_numpy(np.array(vectors, np.float32)) @ words.T
    answers = Classified(tuple(files), names, logits.double().softmax(dim=1).numpy(), unusable)
    if settings.output is not None:
        with outputs.reading(located):
            outputs.write(Path(settings.output), text_of(answers.rows(), Path(settings.output).suffix.lower()))
    return answers


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The names in words such as "cat,dog", or on the lines of a file, in order. Raises RizbinError for one alone."""
    names: list[str] = []
    for text in [given] if isinstance(given, str) else given:
        path = Path(text).expanduser()
        if path.suffix and path.is_file():
            try:
                names += io.StringIO(read_regular(path, _MOST_NAMES).decode("utf-8-sig")).read().splitlines()
            except (OSError, UnicodeError) as error:
                raise RizbinError(f"{path} cannot be read as names ({error}); give text with a name a line.") from error
        else:
            names += text.split(",")
    chosen = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if len(chosen) < 2:
        raise RizbinError("Two or more names are needed to choose among; write --names cat,dog.")
    return chosen


def words_of(encoder: Encoder, names: Sequence[str], settings: Classify) -> Float[torch.Tensor, "names dim"]:
    """One unit vector a name. Raises RizbinError for a template without {}."""
    own = [settings.template] if isinstance(settings.template, str) else list(settings.template)
    if not own:
        return zero_shot.embed_categories(encoder, tuple(names), settings.templates, batch=TEXTS_AT_ONCE)
    for template in own:
        if "{}" not in template:
            raise RizbinError(f'The template "{template}" has no place for a name; write {{}} where it belongs.')
    texts = [template.replace("{}", name) for name in names for template in own]
    vectors = encoder.encode_text(texts).float().cpu()
    return zero_shot.ensemble(vectors.unflatten(0, (len(names), len(own))))


def _embedded(
    encoder: Encoder, located: dict[Path, str], settings: Classify
) -> tuple[list[str], Float[np.ndarray, "images dim"], tuple[str, ...]]:
    """Names and vectors of the images that can be used, and the reasons of the others."""
    items = list(located.items())
    batches = [items[start : start + settings.batch] for start in range(0, len(items), settings.batch)]
    parts: list[Rows] = []
    with Bar(len(items), "classifying", quiet=settings.quiet) as bar:
        for batch, rows in zip(batches, encoded(encoder, batches, workers=default_workers()), strict=True):
            parts.append(rows)
            bar.update(min(len(items), len(parts) * settings.batch))
            assert len(batch) == len(rows.positions) + len(rows.unusable)
    rows = Rows.joined(parts, [len(batch) for batch in batches])
    if not len(rows.positions):
        raise RizbinError(f"No image of {len(items)} could be used. The first reason: {rows.unusable[0]}")
    return [items[place][1] for place in rows.positions.tolist()], rows.vectors, rows.unusable
