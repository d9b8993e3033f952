"""The desk: one process that keeps models, features and proposals at hand, and answers what the page asks at once.

`python -m rizbin.studio.desk FOLDER`: a question a line on standard input, an answer a line on standard output, both
JSON. Each answer comes from the functions that the command line calls; what is kept is only what they returned.
"""

import contextlib
import io
import json
import os
import signal
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rizbin.core.devices import BEST, choose
from rizbin.core.errors import RizbinError
from rizbin.detection.detections import Detections, Proposals
from rizbin.detection.detector import Detector
from rizbin.detection.explain import explain
from rizbin.detection.masks import run_lengths
from rizbin.detection.phrases import read_phrases
from rizbin.detection.presence import Calibration, verify
from rizbin.detection.write import ImageDetections, coco
from rizbin.models.encoder import Encoder
from rizbin.studio.places import Places
from rizbin.studio.stills import stills
from rizbin.studio.words import line_of
from rizbin.vectors.encode import Square, embed_squares, read_square
from rizbin.vectors.search import place_of
from rizbin.visualization.inputs import ShownImage, read_images
from rizbin.visualization.passes import over
from rizbin.visualization.pca import foregrounds, joint_colors
from rizbin.visualization.similarity import similarity_to, unit
from rizbin.visualization.words import similarities
from rizbin.workflows.detect import load_segmenter, phrases_of
from rizbin.workflows.load import calibration_of, load_detector, load_encoder
from rizbin.workflows.search import queries_of

MODELS, FEATURES, PROPOSALS, MASKS, CELLS = 4, 64, 32, 512, 1000
"""How many of each are kept; of more, those that were used last."""
SCENES = ("easy", "several", "hard", "single", "detail")
SCENE_SIDE = 256


class Shelf:
    """Keeps the last `most` results by their key."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held: OrderedDict[Any, Any] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept under the key, made where there is nothing."""
        if key not in self.held:
            self.held[key] = make()
        self.held.move_to_end(key)
        while len(self.held) > self.most:
            self.held.popitem(last=False)
        return self.held[key]


class Desk:
    """Answers by the question's `do`."""

    def __init__(self, folder: Path) -> None:
        self.places = Places(folder, folder)
        self.models, self.features, self.proposals = Shelf(MODELS), Shelf(FEATURES), Shelf(PROPOSALS)
        self.masks, self.cells = Shelf(MASKS), Shelf(CELLS)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question."""
        rest = {name: value for name, value in question.items() if name != "do"}
        return getattr(self, f"do_{question['do']}")(**rest)

    # ---- looking -------------------------------------------------------------------------------------------------

    def do_look(self, model: str, pictures: list[str]) -> dict[str, Any]:
        """What the page needs to know of a model and some pictures; computes and keeps their features."""
        encoder, shown = self._encoder(model), [self._shown(model, name) for name in pictures]
        grids = [list(self._patches(model, name).shape[:2]) for name in pictures]
        sizes = [list(picture.image.shape[:2]) for picture in shown]
        able = {"attends": encoder.attends, "words": encoder.localizes}
        return {"grids": grids, "sizes": sizes, "repr": repr(encoder), **able}

    def do_similar(self, model: str, pictures: list[str], row: int, column: int) -> dict[str, Any]:
        """The cosine of every patch of each picture with one patch of the first."""
        first = self._patches(model, pictures[0])
        maps = [similarity_to(first, row, column)]
        # The chosen patch laid beside another picture's as one more row: the same function for both.
        for name in pictures[1:]:
            other = self._patches(model, name)
            cosines = unit(other) @ unit(first[row, column])
            maps.append(cosines)
        return {"maps": [_rounded(values) for values in maps]}

    def do_attention(self, model: str, pictures: list[str], layer: int = -1) -> dict[str, Any]:
        """The attention of CLS in each picture, for each head of one layer."""
        encoder = self._encoder(model)
        heads = [
            self.features.get(
                ("attention", model, name, layer),
                lambda name=name: over(
                    encoder, [self._shown(model, name).image], lambda batch: encoder.attention_rows(batch, layer=layer)
                )[0],
            )
            for name in pictures
        ]
        return {"heads": [[_rounded(head, 5) for head in rows] for rows in heads]}

    def do_pca(self, model: str, pictures: list[str]) -> dict[str, Any]:
        """One color a patch, the main directions common to all pictures."""
        patches = [self._patches(model, name) for name in pictures]
        colors = joint_colors(patches, foregrounds(patches))
        return {"colors": [image.tolist() for image in colors]}

    def do_words(self, model: str, pictures: list[str], words: list[str]) -> dict[str, Any]:
        """The cosine of each patch with each word."""
        encoder = self._encoder(model)
        maps = [similarities(encoder, self._shown(model, name).image, words) for name in pictures]
        return {"maps": [[_rounded(word) for word in image] for image in maps]}

    # ---- finding -------------------------------------------------------------------------------------------------

    def do_find(self, model: str, picture: str, phrases: list[str], distractors: list[str]) -> dict[str, Any]:
        """The verdict on each phrase; keeps the proposals, from which `do_choose` takes boxes."""
        detector = self._detector(model)
        file = self.places.picture(picture)
        proposals = self._proposals(model, picture, phrases, distractors)
        calibration = calibration_of(detector) or Calibration()
        verdicts = verify(detector, file, phrases_of(phrases), rivals=phrases_of(distractors), calibration=calibration)
        own = len(read_phrases(phrases))
        return {
            "names": list(proposals.names[:own]),
            "verdicts": [
                {"name": each.name, "state": each.state, "probability": round(each.probability, 4), "count": each.count}
                for each in verdicts
            ],
            "notes": list(proposals.notes),
            "size": [proposals.width, proposals.height],
            "threshold": calibration.threshold,
        }

    def do_choose(
        self, model: str, picture: str, phrases: list[str], distractors: list[str], thresholds: dict[str, float]
    ) -> dict[str, Any]:
        """Boxes above each phrase's own threshold: no pass through the network."""
        proposals = self._proposals(model, picture, phrases, distractors)
        chosen = proposals.choose(0.3, thresholds=thresholds)
        own = len(read_phrases(phrases))
        boxes = [
            {"name": label, "score": round(float(score), 4), "box": [round(float(side), 2) for side in box]}
            for label, kind, score, box in zip(chosen.labels, chosen.classes, chosen.scores, chosen.boxes, strict=True)
            if kind < own
        ]
        return {"boxes": boxes}

    def do_why(self, model: str, picture: str, phrases: list[str]) -> dict[str, Any]:
        """The best boxes explained: words, what the place looks like, and where the words look layer by layer."""
        explanations = explain(self._detector(model), self.places.picture(picture), phrases_of(phrases), most=3)
        return {
            "boxes": [
                {
                    "name": each.name,
                    "score": round(each.score, 4),
                    "box": [round(float(side), 1) for side in each.box],
                    "words": [[word, round(float(score), 4)] for word, score in each.words],
                    "without": round(float(each.without), 4),
                    "elsewhere": round(float(each.elsewhere), 4),
                    "honest": bool(each.honest),
                    "map": _rounded(_coarse(each.similarity, 48)),
                    "layers": [_rounded(_coarse(layer, 48), 3) for layer in each.attention],
                }
                for each in explanations
            ]
        }

    def do_masks(self, masks: str, picture: str, boxes: list[list[float]]) -> dict[str, Any]:
        """The mask of each box, as COCO's run lengths; only boxes that are new are looked at."""
        return {"masks": [run_lengths(mask) for mask in self._masks(masks, picture, boxes)]}

    def do_coco(
        self,
        picture: str,
        title: str,
        names: list[str],
        boxes: list[dict[str, Any]],
        size: list[int],
        masks: str = "",
    ) -> dict[str, Any]:
        """Boxes, corrected by hand or not, as COCO's JSON; with their masks where a model for them is named."""
        self.places.picture(picture)
        cut = self._masks(masks, picture, [box["box"] for box in boxes]) if masks and boxes else None
        places = [names.index(box["name"]) for box in boxes]
        detections = Detections(
            np.array([box["box"] for box in boxes], np.float32).reshape(-1, 4),
            np.array(places, np.int64),
            np.array([box["score"] for box in boxes], np.float32),
            tuple(names),
            np.arange(len(boxes)),
        )
        labelled = ImageDetections(title, size[0], size[1], detections, None if cut is None else np.stack(cut))
        return {"coco": coco([labelled], names)}

    # ---- searching and scenes ------------------------------------------------------------------------------------

    def do_search(
        self, model: str, pictures: list[str], words: str, like: str, region: list[Any] | None = None
    ) -> dict[str, Any]:
        """The pictures nearest to the words, or to one picture, by cosine, and the commands that find them as well.

        region: a part of that picture to look for, anywhere in the others; each then has a place, as shares of it.
        Each picture is embedded once for each model.
        """
        encoder = self._encoder(model)
        if region is not None:
            return self._search_region(model, encoder, pictures, like, region)
        rows = {name: self._embedding(model, encoder, name) for name in pictures}
        query = rows[like] if like else encoder.encode_text(words)[0].float().cpu().numpy()
        scores = {name: float(row @ query) for name, row in rows.items() if name != like}
        ranked = sorted(scores.items(), key=lambda item: -item[1])
        table = "vectors.npz"
        query_words = ["--image", str(self.places.picture(like))] if like else [words]
        line = (
            f"{line_of(['embed', str(self.places.pictures), '--model', model, '-o', table])} && "
            f"{line_of(['search', *query_words, '--in', table])}"
        )
        return {"nearest": [[name, round(score, 4)] for name, score in ranked], "line": line}

    def _search_region(
        self, model: str, encoder: Encoder, pictures: list[str], like: str, region: list[Any]
    ) -> dict[str, Any]:
        """The pictures whose best patch is nearest to a part of one, as `rizbin search --patches` finds them."""
        if len(region) != 4 or not all(isinstance(share, int | float) for share in region):
            raise RizbinError("A region has four numbers: left, top, right, bottom.")
        file = str(self.places.picture(like))
        left, top, right, bottom = (float(share) for share in region)
        part = (left, top, right, bottom)
        (query,) = queries_of(encoder, [], [file], patches=True, region=part)
        nearest, boxes = [], {}
        for name in pictures:
            if name != like:
                cells, size = self._cells(model, encoder, name)
                nearest.append([name, round(float((cells @ query).max()), 4)])
                box = place_of(cells, query, size).box
                boxes[name] = [round(side / size[axis % 2], 4) for axis, side in enumerate(box)]
        table = "vectors.npz"
        shares = [f"{share:g}" for share in region]
        line = (
            f"{line_of(['embed', str(self.places.pictures), '--model', model, '--patches', '-o', table])} && "
            f"{line_of(['search', '--image', file, '--region', *shares, '--in', table, '--patches'])}"
        )
        return {"nearest": sorted(nearest, key=lambda row: -row[1]), "boxes": boxes, "line": line}

    def do_scene(self, preset: str, number: int) -> dict[str, Any]:
        """A scene of the embedded world as PNG in `incoming`, with its caption."""
        from PIL import Image

        from rizbin.data.open import open_source

        if preset not in SCENES:
            raise RizbinError(f"There are no scenes {preset!r}; there are {', '.join(SCENES)}.")
        sample = open_source(f"scenes:{preset}", split="test", size=SCENE_SIDE)[int(number) % 100_000]
        held = io.BytesIO()
        Image.fromarray(sample.image).save(held, "PNG")
        target = self.places.incoming / f"scene-{os.getpid()}"
        target.write_bytes(held.getvalue())
        return {"file": target.name, "caption": sample.caption}

    # ---- runs ----------------------------------------------------------------------------------------------------

    def do_checkpoint(self, run: str, step: object) -> dict[str, Any]:
        """What a run makes of the first images of its data at one step, and the command that shows all steps."""
        if not isinstance(step, int) or step < 0:
            raise RizbinError("A checkpoint is named by its step, a number from 0 on.")
        shown = stills(self.places, Path(run), step)
        return {**shown, "line": line_of(["visualize", "checkpoints", run, shown["data"]])}

    # ---- what is kept --------------------------------------------------------------------------------------------

    def _encoder(self, model: str) -> Encoder:
        return self.models.get(("encoder", model), lambda: load_encoder(model, device=str(choose(BEST))))

    def _detector(self, model: str) -> Detector:
        return self.models.get(("detector", model), lambda: load_detector(model, device=str(choose(BEST))))

    def _masks(self, masks: str, picture: str, boxes: Sequence[Sequence[float]]) -> list[np.ndarray]:
        """A mask [height width] of each box."""
        if len(boxes) > MASKS:
            raise RizbinError(f"There are {len(boxes)} boxes, more than {MASKS}; raise the thresholds.")
        file, keys = self.places.picture(picture), [tuple(float(side) for side in box) for box in boxes]
        new = [box for box in dict.fromkeys(keys) if (masks, picture, box) not in self.masks.held]
        if new:
            segmenter = self.models.get(("masks", masks), lambda: load_segmenter(masks, device=str(choose(BEST))))
            for box, mask in zip(new, segmenter.masks(file, np.array(new, np.float32))[0], strict=True):
                self.masks.held[(masks, picture, box)] = mask
        # Not by `get` while they are made: with many, the first would be gone before the last is there.
        made = [self.masks.held[(masks, picture, box)] for box in keys]
        for box in keys:
            self.masks.get((masks, picture, box), lambda: None)
        return made

    def _shown(self, model: str, name: str) -> ShownImage:
        """The picture at the size at which the model sees it."""
        path = str(self.places.picture(name))
        return self.features.get(("shown", model, name), lambda: read_images(path, self._encoder(model)).shown[0])

    def _patches(self, model: str, name: str) -> np.ndarray:
        """Patch features [rows columns dim]."""
        encoder = self._encoder(model)
        return self.features.get(
            ("patches", model, name), lambda: over(encoder, [self._shown(model, name).image], encoder.patches)[0]
        )

    def _embedding(self, model: str, encoder: Encoder, name: str) -> np.ndarray:
        """The unit vector of a picture, kept on disk."""
        safe = "".join(letter if letter.isalnum() else "-" for letter in model)[-60:]
        file = self.places.cache / f"embedding-{safe}-{name}.npy"
        if file.is_file() and not file.is_symlink():
            return np.load(file, allow_pickle=False)
        row = encoder.encode_image(self.places.picture(name))[0].float().cpu().numpy()
        np.save(file, row)
        return row

    def _cells(self, model: str, encoder: Encoder, name: str) -> tuple[np.ndarray, tuple[int, int]]:
        """Vectors of a picture's patches [rows columns dim] as `rizbin embed --patches` keeps them, and its size."""

        def made() -> tuple[np.ndarray, tuple[int, int]]:
            square = read_square(self.places.picture(name), name, encoder.image_size)
            if not isinstance(square, Square):
                raise RizbinError(square)
            rows = embed_squares(encoder, [square], patches=True)
            assert rows.patches is not None
            return rows.patches[0].astype(np.float16), square.size

        cells, size = self.cells.get((model, name), made)
        return cells.astype(np.float32), size

    def _proposals(self, model: str, picture: str, phrases: Sequence[str], distractors: Sequence[str]) -> Proposals:
        key = (model, picture, tuple(phrases), tuple(distractors))
        file = self.places.picture(picture)
        targets = [*read_phrases(phrases), *(read_phrases(distractors) if distractors else ())]
        return self.proposals.get(key, lambda: self._detector(model).detect([file], targets)[0])


def _coarse(values: np.ndarray, most: int) -> np.ndarray:
    """A map with at most `most` rows and columns."""
    step = max(1, -(-max(values.shape) // most))
    return values[::step, ::step]


def _rounded(values: np.ndarray, digits: int = 4) -> list[list[float]]:
    return np.round(values.astype(np.float64), digits).tolist()


def main(folder: str) -> int:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to take
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    desk = Desk(Path(folder))
    for line in sys.stdin:
        try:
            answer = desk.answer(json.loads(line))
        except RizbinError as error:
            answer = {"error": " ".join(str(error).split())}
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = {"error": f"A fault of Rizbin ({type(error).__name__}: {error}); its trace is in the terminal."}
        with contextlib.suppress(BrokenPipeError):
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
