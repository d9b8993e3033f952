"""Search: words or an image in, the nearest images of a table of vectors out; and the place in each of them."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, job
from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.core.results import Table, text_of
from rizbin.data.image_io import read_image
from rizbin.data.sample import Refused
from rizbin.models.encoder import Encoder
from rizbin.reports.contact import Shown, contact_sheet
from rizbin.vectors.encode import Region, Square, embed_squares, fingerprint, patch_vectors, read_square
from rizbin.vectors.search import ImagePlace, Index, nearest, nearest_patches, place_of
from rizbin.vectors.table import Vectors, read_table
from rizbin.workflows.detect import paths_of
from rizbin.workflows.load import load_encoder


@dataclass(frozen=True)
class SearchVectors:
    """Find images by words or by an image, in what rizbin embed wrote."""

    words: Annotated[str | Sequence[str], Argument(positional=True, many=True, metavar="WORDS")] = ()
    """What to look for, each in quotes: "a red car". Several are looked for one by one."""
    _: KW_ONLY
    vectors: Annotated[Place | Vectors, Argument(name="in", short=("-i",), check="path")]
    """The table that rizbin embed wrote."""
    image: Annotated[Place | Sequence[Place], Argument(many=True, check="image")] = ()
    """An image to look for others like it, once for each."""
    region: tuple[float, float, float, float] | None = None
    """Look for a part of that image alone: its left, top, right and bottom as shares of the image, 0 to 1. None: for
    the whole image."""
    top: int = 10
    """Images to give for each query, the nearest first."""
    patches: bool = False
    """Also find the place in each image, as a box. A table with patches is searched by them, so that small objects
    count; of any other the nearest images are opened and looked through."""
    sheet: Place | None = None
    """PNG of the images, in rows for each query, with the places drawn. None: not drawn."""
    heat: bool = False
    """Show on the sheet how near each patch is, as colors over the image, in place of the box."""
    output: Annotated[Place | None, Argument(short=("-o",))] = None
    """File for the answers, .csv or .json. None: they are only printed."""
    index: Index = "exact"
    """exact compares all; faiss looks through a tenth of its lists, faster from some 100,000 images on (with
    faiss-cpu)."""
    model: Annotated[Place | None, Argument(check="model")] = None
    """The encoder that made the table, where it is not found by the name in it. None: by that name."""
    device: str = BEST
    """best (a GPU where there is one), cpu, cuda, or cuda:1 for a certain one."""


@dataclass(frozen=True)
class Hit:
    """One image that was found."""

    query: str
    """The words, or the image's file."""
    rank: int
    """From 1."""
    file: str
    path: Path
    score: float
    """Cosine with the query: of the image, or of its best patch in a table with patches."""
    place: ImagePlace | None = None
    """Where in the image; None: not asked for."""


@dataclass(frozen=True, repr=False)
class SearchResults(Table):
    """The images that were found, the nearest first, query by query."""

    hits: tuple[Hit, ...]
    queries: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    """What the reader should know: images that are no longer where they were."""

    def __repr__(self) -> str:
        return f"SearchResults({len(self.hits)} images for {', '.join(self.queries)})"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each image: query, rank, file, score, path, and left, top, right, bottom where places are known."""
        rows = []
        for hit in self.hits:
            row = {"query": hit.query, "rank": hit.rank, "file": hit.file, "score": hit.score, "path": str(hit.path)}
            if hit.place is not None:
                row |= dict(zip(("left", "top", "right", "bottom"), hit.place.box, strict=True))
            elif any(other.place is not None for other in self.hits):
                row |= dict.fromkeys(("left", "top", "right", "bottom"))
            rows.append(row)
        return rows


@job(SearchVectors)
def search(settings: SearchVectors) -> SearchResults:
    """The images nearest to words or to an image.

    Raises RizbinError when there is nothing to look for, and when the table was made by another network.
    """
    words, images = _listed(settings.words), paths_of(settings.image)
    if not words and not images:
        raise RizbinError('Say what to look for: rizbin search "a cat" --in vectors.npz, or --image FILE.')
    if settings.top < 1:
        raise RizbinError(f"--top is {settings.top}; give 1 or more images.")
    if settings.region is not None and (words or len(images) != 1):
        raise RizbinError("A region is a part of one image; give that one as --image, and words by themselves.")
    for place in (settings.sheet, settings.output):
        if place is not None:
            outputs.refuse_taken(Path(place))
    if settings.output is not None:
        text_of([], Path(settings.output).suffix.lower())
    table = opened(settings.vectors)
    encoder = encoder_of_table(table, settings.model, device=settings.device)
    by_patches = settings.patches and table.grid is not None
    if settings.patches and words and not encoder.localizes:
        raise RizbinError(
            f"{encoder.name} has no patches that can be compared with words, so it finds no places by them; leave "
            "--patches out, or embed with an image-text encoder such as detailclip-mini."
        )
    queries = queries_of(encoder, words, images, patches=by_patches, region=settings.region)
    if by_patches:
        rows, scores = nearest_patches(table, queries, settings.top)
    else:
        rows, scores = nearest(table.vectors, queries, settings.top, settings.index)
    hits: list[Hit] = []
    notes: list[str] = []
    places = (
        queries
        if by_patches or not settings.patches
        else queries_of(encoder, words, images, patches=True, region=settings.region)
    )
    names: list[str] = [*words, *images]
    for query, some, values, place_query in zip(names, rows, scores, places, strict=True):
        for rank, (row, score) in enumerate(zip(some.tolist(), values.tolist(), strict=True), 1):
            hit = Hit(query, rank, str(table.files[row]), table.image_path(row), float(score))
            if settings.patches:
                cells = _patches_of(table, row, encoder, notes)
                place = None if cells is None else place_of(cells, place_query, table.sizes[row].tolist())
                hit = replace(hit, place=place)
            hits.append(hit)
    results = SearchResults(tuple(hits), (*words, *images), tuple(notes))
    return _written(results, settings)


def _written(results: SearchResults, settings: SearchVectors) -> SearchResults:
    """The same results once their files are written."""
    with outputs.reading([hit.path for hit in results.hits]):
        if settings.output is not None:
            outputs.write(Path(settings.output), text_of(results.rows(), Path(settings.output).suffix.lower()))
        if settings.sheet is not None:
            shown, notes = [], list(results.notes)
            for hit in results.hits:
                try:
                    pixels = read_image(hit.path, name=hit.file)
                except Refused as reason:
                    notes.append(str(reason))
                    pixels = np.full((64, 64, 3), 200, np.uint8)
                place = hit.place
                shown.append(
                    Shown(
                        group=hit.query,
                        label=f"{hit.score:.2f} {hit.file}",
                        image=pixels,
                        box=None if place is None or settings.heat else place.box,
                        heat=place.heat if place is not None and settings.heat else None,
                    )
                )
            outputs.write(Path(settings.sheet), contact_sheet(shown))
            results = replace(results, notes=tuple(dict.fromkeys(notes)))
    return results


def opened(vectors: Place | Vectors) -> Vectors:
    """The table itself, or the one in a file."""
    return vectors if isinstance(vectors, Vectors) else read_table(Path(vectors))


def encoder_of_table(table: Vectors, model: Place | None, *, device: str) -> Encoder:
    """The encoder that made a table. Raises RizbinError where its weights are others."""
    name = model if model is not None else str(table.record.get("model", ""))
    encoder = load_encoder(name, device=str(choose(device)))
    if f"sha256:{fingerprint(encoder)}" != table.record.get("network"):
        raise RizbinError(
            f"{table.path} was made by other weights than those of {name}; give --model the encoder that made it, or "
            "embed the images again."
        )
    return encoder


def queries_of(
    encoder: Encoder, words: Sequence[str], images: Sequence[str], *, patches: bool, region: Region | None = None
) -> Float[np.ndarray, "queries dim"]:
    """Unit vectors of words and images; with a region of that part of each image.

    Patches of an image-text encoder are compared with the image's own embedding, which in the embedded world is nearer
    to the right places than the mean of its patches (88 and 71 percent of them); those of an image encoder, whose
    pooled features may be of another space, are compared with the mean.

    Raises RizbinError where words are not read or an image cannot be used.
    """
    parts: list[np.ndarray] = []
    if words:
        parts.append(encoder.encode_text(list(words)).float().cpu().numpy())
    for image in images:
        square = read_square(Path(image).expanduser(), str(image), encoder.image_size, region=region)
        if not isinstance(square, Square):
            raise RizbinError(square)
        rows = embed_squares(encoder, [square], patches=patches and not encoder.localizes)
        vector = rows.vectors[0] if rows.patches is None else rows.patches[0].astype(np.float32).mean(axis=(0, 1))
        parts.append((vector / max(float(np.linalg.norm(vector)), 1e-12))[None])
    return np.concatenate(parts).astype(np.float32)


def _patches_of(table: Vectors, row: int, encoder: Encoder, notes: list[str]) -> np.ndarray | None:
    """Patches of a row's image: from the table, else of the image, where it is still there."""
    if table.grid is not None:
        return table.patches_of(row)
    square = read_square(table.image_path(row), table.files[row], encoder.image_size)
    if not isinstance(square, Square):
        notes.append(square)
        return None
    with torch.inference_mode():
        batch = encoder.normalized(torch.from_numpy(square.pixels[None]).to(encoder.device))
        return patch_vectors(encoder, batch)[0].float().cpu().numpy()


def _listed(words: str | Sequence[str]) -> list[str]:
    return [words] if isinstance(words, str) else list(words)
