"""The embedded world as a source: scene i is a pure function of settings, seed, split and i."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from rizbin.core.errors import RizbinError
from rizbin.core.random import generator
from rizbin.data.sample import LabeledObject, Refused, Sample
from rizbin.data.scenes.backgrounds import KINDS, WHITE
from rizbin.data.scenes.captions import describe, relations
from rizbin.data.scenes.compose import ComposedScene, World, compose
from rizbin.data.scenes.cutouts import read_cutouts
from rizbin.data.scenes.detail import Detail
from rizbin.data.scenes.sprites import WORLD_VERSION, Sprite, openmoji_sprites, openmoji_stamp, side_for
from rizbin.data.scenes.textures import GROUNDS
from rizbin.data.scenes.vocabulary import CATEGORIES, CODES, DISTRACTORS, HELD_OUT, held_out_pairs
from rizbin.data.views import turn_hue

CREDIT = "Drawings by OpenMoji, the open-source emoji and icon project (openmoji.org), license CC BY-SA 4.0"
"""Goes wherever images of the embedded world are shown: README and report."""

WORLDS = {
    # The preset of the demo and of the figure "85 percent over 32 categories": nothing small, nothing busy.
    # Captions only name: sizes, places and ways of speaking are learned first by a small network, and with them in six
    # captions of ten it still named next to nothing after 25,000 images where it named half with names alone.
    "easy": World(
        objects=(1, 3), sides=(0.25, 0.6), spread="even", turn=0.0, repeat=0.05, plain=1.0, backgrounds=("gradient",)
    ),
    # For finding objects: as easy to see as the first, one more of them, and large and small ones alike.
    "several": World(
        objects=(1, 4), sides=(0.2, 0.5), spread="even", turn=0.0, repeat=0.1, plain=1.0, backgrounds=("gradient",)
    ),
    # For drawing: large enough that 64 pixels show what an object is, one or two of them, on a ground of one color.
    "drawn": World(
        objects=(1, 2), sides=(0.4, 0.56), spread="even", turn=0.0, repeat=0.0, plain=1.0, backgrounds=("plain",)
    ),
    # Small, crowded, turned, on anything; clutter twice, as it is what small objects get lost in.
    "hard": World(
        objects=(1, 6),
        sides=(0.04, 0.7),
        spread="log",
        turn=20.0,
        repeat=0.2,
        plain=0.4,
        backgrounds=(*KINDS, "clutter"),
    ),
    # For methods without captions. They learn what tells an image from others: on grounds of many colors that is the
    # ground, and nearest neighbors by object stay at chance; here there is nothing but the object.
    # The same with hues of its own in every scene: colors tell images apart and name nothing, as on photographs of
    # objects that come in many colors. On "single", where a drawing's colors are its name, to ignore them costs 28
    # points of SimCLR's nearest neighbors; augmentations of color are then to be judged here.
    "tinted": World(
        objects=(1, 1),
        sides=(0.3, 0.8),
        spread="even",
        turn=30.0,
        repeat=0.0,
        plain=1.0,
        backgrounds=(WHITE,),
        tint=0.5,
    ),
    "single": World(
        objects=(1, 1), sides=(0.3, 0.8), spread="even", turn=30.0, repeat=0.0, plain=1.0, backgrounds=(WHITE,)
    ),
    # Several objects on the same white: two crops of an image may show different ones (`rizbin study repulsion`).
    "group": World(
        objects=(2, 4), sides=(0.3, 0.5), spread="even", turn=30.0, repeat=0.0, plain=1.0, backgrounds=(WHITE,)
    ),
    # What flat drawings lack: fur and leaves over the silhouette, lines of a pixel, small objects, busy grounds. A
    # drawing whose longer side is 0.19 of the image's covers about 2 percent of it. Captions only name, as in "easy".
    "detail": World(
        objects=(1, 4),
        sides=(0.18, 0.62),
        spread="log",
        turn=15.0,
        repeat=0.1,
        plain=1.0,
        backgrounds=(*GROUNDS, *GROUNDS, "gradient", "clutter"),
        detail=Detail(
            textures=("none", "fur", "fur", "foliage", "foliage", "scales", "knit"),
            outlined=0.15,
            shortest_outlined=0.32,
            attached=0.3,
            tiny=0.12,
            tiniest=0.09,
            largest_distractor=0.36,
        ),
    ),
}

DETAIL_VERSION = 1
"""Goes up when pixels of presets with detail change; those of the others have `WORLD_VERSION` alone."""

MOST_DISTRACTORS = 8
"""More would leave objects of a size that can be recognized no room."""

NOMINAL_LENGTH = 100_000
"""What `len` says of an endless source: an epoch in name only."""

_END = 2**62


class Scenes:
    """Composed images with captions, boxes, exact masks and relations; endless, at any size, for any index.

    Training scenes hold no held-out category and no held-out pair; test scenes neither, but their random numbers are
    others, so no scene is in both. Raises RizbinError when the settings ask for what the world does not have.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        preset: Literal["easy", "several", "drawn", "hard", "single", "tinted", "group", "detail"] = "easy"
        """easy: 1 to 3 objects of a quarter to 60 percent of the side on a two-color gradient. several: 1 to 4
        of a fifth to a half on the like, for finding objects. drawn: 1 or 2 of 40 to 56 percent on one color, for
        drawing. hard: 1 to 6 objects of
        4 to 70 percent (8 pixels at least), turned by up to 20 degrees, on plain, gradient, textured and cluttered
        grounds. single: one object of 30 to 80 percent, turned by up to 30 degrees, on white, for methods without
        captions. tinted: the same with all hues turned by a random angle. group: 2 to 4 of 30 to 50 percent on white.
        detail: 1 to 4 of 18 to 62 percent and some
        of 9 to 18, turned by up to 15 degrees, with fur, leaves, scales or stitches, thin attached lines or as line
        drawings, mostly on grounds like grass, bark, gravel, water or fabric; for images of 96 pixels and more."""
        size: int = 64
        """Side of the image, pixels, 16 or more. 64 is what the small networks learn from in minutes."""
        categories: int = 32
        """The first so many names of `CATEGORIES`; 0 for all of them. 32 is the demo's number."""
        seed: int = 0
        """Another seed gives other scenes of the same world."""
        split: Literal["train", "test", "heldout", "pairs"] = "train"
        """train; test: new scenes of the same kind; heldout: only categories that training never shows; pairs: two
        categories each that training never shows together."""
        distractors: int = 0
        """Most distractors in a scene, 0 to 8: OpenMoji's tools, clothes and furniture (`vocabulary.DISTRACTORS`),
        which are no category of any split, are never named, and stand in `Sample.distractors` with their masks. A scene
        holds the same objects in the same places with and without them."""

    def __init__(self, settings: Settings) -> None:
        names = HELD_OUT if settings.split == "heldout" else CATEGORIES
        if not 0 <= settings.categories <= len(CATEGORIES):
            raise RizbinError(
                f"The embedded world has {len(CATEGORIES)} categories, not {settings.categories}; "
                "set categories to a number up to that, or to 0 for all of them."
            )
        if settings.split != "heldout":
            names = names[: settings.categories or None]
        _check(settings)
        side = _render_side(settings)
        sprites = openmoji_sprites(names, side)
        self._set_up(settings, names, [[sprite] for sprite in sprites], openmoji_stamp(), "scenes")
        if self._world.detail:
            self._outlines = openmoji_sprites(names, side, outlined=True)

    @classmethod
    def from_cutouts(cls, folder: str | Path, settings: Settings) -> "Scenes":
        """The same world with your own drawings: every PNG with transparency in `folder` and the folders in it.

        The name is what stands in the `.txt` beside the image, else the file's name: "red_mug-03.png" is a "red mug".
        Several images may share a name. `categories` takes the first so many names by alphabet, 0 all of them. No
        category is held out, so there is no split "heldout"; pairs are held out when there are 8 names or more.
        Raises RizbinError when the folder or an image in it cannot be used.
        """
        if settings.split == "heldout":
            raise RizbinError(
                'A folder of cut-outs has no held-out categories; use the split "test" or "pairs" instead.'
            )
        _check(settings)
        cutouts, content = read_cutouts(Path(folder), _render_side(settings))
        if settings.categories < 0 or settings.categories > len(cutouts):
            raise RizbinError(
                f"{folder} holds {len(cutouts)} names, not {settings.categories}; "
                "set categories to a number up to that, or to 0 for all of them."
            )
        names = tuple(sorted(cutouts))[: settings.categories or None]
        source = cls.__new__(cls)
        source._set_up(settings, names, [cutouts[name] for name in names], content, f"cutouts:{folder}")
        return source

    def _set_up(
        self, settings: Settings, names: tuple[str, ...], sprites: list[list[Sprite]], content: str, kind: str
    ) -> None:
        self.settings = settings
        self.endless = True
        self.categories = tuple(sorted(names))
        more = f", {settings.distractors} distractors" if settings.distractors else ""
        kind = f"{kind}:{settings.preset}" if kind == "scenes" else kind
        self.name = f"{kind}{more}, {settings.split}"
        self._names = names
        self._sprites = sprites
        self._outlines: list[Sprite] = []
        self._world = WORLDS[settings.preset]
        self._distractors = _distractors(settings, names)
        self._pairs = held_out_pairs(names) if settings.split != "heldout" else ()
        if settings.split == "pairs" and not self._pairs:
            raise RizbinError(f"No pair among these {len(names)} categories is held out; use more categories.")
        self._apart: list[set[int]] = [set() for _ in names]
        for first, second in self._pairs:
            self._apart[first].add(second)
            self._apart[second].add(first)
        facts = asdict(settings)
        if not settings.distractors:  # which left the fingerprints as they were before there were any
            del facts["distractors"]
        facts_text = f"{WORLD_VERSION} {facts} {self._world} {names} {content} {cv2.__version__} {np.__version__}"
        if self._world.detail:
            facts_text += f" {DETAIL_VERSION} {self._world.detail}"
        if settings.distractors:
            facts_text += f" {DISTRACTORS} {openmoji_stamp()}"
        self.fingerprint = hashlib.sha256(facts_text.encode()).hexdigest()

    def __len__(self) -> int:
        """A nominal epoch; every index below 2**62 is a scene of its own."""
        return NOMINAL_LENGTH

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`, from 0 to 2**62 - 1; IndexError outside."""
        if not 0 <= index < _END:
            raise IndexError(f"scenes are numbered from 0 to 2**62 - 1, there is no {index}")
        key = f"scenes/{self.settings.split}/{index}"
        random = generator("scenes", WORLD_VERSION, self.settings.seed, self.settings.split, index)
        cast = self._cast(random)
        drawings = [(category, self._drawing(category, random)) for category in cast]
        needed = 2 if self.settings.split == "pairs" else 1
        distractors, apart = self._draw_distractors(index)
        scene = compose(self._world, self.settings.size, drawings, needed, random, distractors, apart)
        if scene is None:
            thin = " or ".join(sorted({self._names[category] for category in cast[:needed]}))
            raise Refused(
                f"{key} could not be composed: the drawing of {thin} is too thin to be seen; use a bolder one."
            )
        return self._tell(key, scene, random)

    def _draw_distractors(self, index: int) -> tuple[list[tuple[int, Sprite]], np.random.Generator | None]:
        """The distractors of scene `index`, and random numbers of their own."""
        if not self._distractors:
            return [], None
        random = generator("scenes", WORLD_VERSION, self.settings.seed, self.settings.split, index, "distractors")
        numbers = random.integers(0, len(self._distractors), self.settings.distractors).tolist()
        return [self._distractors[number] for number in numbers], random

    def _cast(self, random: np.random.Generator) -> list[int]:
        """The categories of one scene, back to front."""
        fewest, most = self._world.objects
        if self.settings.split == "pairs":
            pair = self._pairs[int(random.random() * len(self._pairs))]
            first, second = pair if random.random() < 0.5 else pair[::-1]
            more = int(random.random() * (most - 1))
            return [first, second, *(pair[int(random.random() * 2)] for _ in range(more))]
        count = fewest + int(random.random() * (most - fewest + 1))
        cast = [int(random.random() * len(self._names))]
        while len(cast) < count:
            if random.random() < self._world.repeat:
                cast.append(cast[int(random.random() * len(cast))])
                continue
            for _ in range(8):
                candidate = int(random.random() * len(self._names))
                if candidate not in cast and not any(candidate in self._apart[other] for other in cast):
                    cast.append(candidate)
                    break
            else:  # Few names: show one of them again.
                cast.append(cast[int(random.random() * len(cast))])
        return cast

    def _drawing(self, category: int, random: np.random.Generator) -> Sprite:
        choice = self._sprites[category]
        if self._outlines and self._world.detail and random.random() < self._world.detail.outlined:
            return self._outlines[category]
        return choice[0] if len(choice) == 1 else choice[int(random.random() * len(choice))]

    def _tell(self, key: str, scene: ComposedScene, random: np.random.Generator) -> Sample:
        """The image with what is true of it."""
        positions = [position for position, placed in enumerate(scene.placed) if placed.category >= 0]
        names = [self._names[scene.placed[position].category] for position in positions]
        boxes = [scene.placed[position].box for position in positions]
        hidden_by = [
            tuple(positions.index(other) for other in scene.placed[position].hidden_by if other in positions)
            for position in positions
        ]
        related = relations(boxes, hidden_by, self.settings.size)
        all_distractors = list(DISTRACTORS)
        distractors = tuple(
            LabeledObject(all_distractors[-1 - placed.category], placed.box, scene.owner == position)
            for position, placed in enumerate(scene.placed)
            if placed.category < 0 and placed.visible
        )
        image = scene.image
        if self._world.tint:
            image = turn_hue(image, self._world.tint * (2 * random.random() - 1))
        return Sample(
            key=key,
            image=image,
            caption=describe(names, boxes, related, self.settings.size, random, self._world.plain),
            label=names[0] if len(set(names)) == 1 else "",
            objects=tuple(
                LabeledObject(name, box, scene.owner == position)
                for name, box, position in zip(names, boxes, positions, strict=True)
            ),
            relations=related,
            distractors=distractors,
        )


def _distractors(settings: Scenes.Settings, names: tuple[str, ...]) -> list[tuple[int, Sprite]]:
    """Number (below 0) and drawing of each distractor; of cut-outs, a "red mug" keeps out whatever is a mug, too."""
    if not settings.distractors:
        return []
    kinds = {name.split()[-1] for name in names if name not in CODES}
    drawings = openmoji_sprites(tuple(DISTRACTORS), _render_side(settings))
    others = enumerate(zip(DISTRACTORS, drawings, strict=True))
    return [(-1 - number, sprite) for number, (name, sprite) in others if name.split()[-1] not in kinds]


def _check(settings: Scenes.Settings) -> None:
    if not 0 <= settings.distractors <= MOST_DISTRACTORS:
        raise RizbinError(f"A scene holds 0 to {MOST_DISTRACTORS} distractors, not {settings.distractors}.")
    if settings.size < 16:
        raise RizbinError(f"A scene of {settings.size} pixels is too small to show anything; set size to 16 or more.")


def _render_side(settings: Scenes.Settings) -> int:
    return side_for(WORLDS[settings.preset].sides[1] * settings.size)
