"""Prompts that name several objects, by the templates of the benchmarks; each knows what its image should show."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rizbin.core.errors import RizbinError
from rizbin.data.scenes.captions import article
from rizbin.data.scenes.vocabulary import held_out_pairs
from rizbin.generation.diffusion.spans import objects_in, phrases_in

Family = Literal["world", "geneval", "tiam", "colored", "similar", "attend-and-excite"]
FAMILIES: tuple[Family, ...] = get_args(Family)

ANIMALS = ("cat", "dog", "bird", "bear", "lion", "horse", "elephant", "monkey", "frog", "turtle", "rabbit", "mouse")
"""The twelve of Attend-and-Excite, arXiv 2301.13826, section 5."""
OBJECTS = (
    *("backpack", "glasses", "crown", "suitcase", "chair", "balloon", "bow", "car", "bowl", "bench", "clock", "apple"),
)
"""Its twelve objects."""
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray", "black", "white")
"""Its eleven colors."""
ALIKE = (
    *(("horse", "zebra"), ("sheep", "goat"), ("wolf", "fox"), ("leopard", "tiger"), ("crow", "pigeon")),
    *(("alligator", "turtle"), ("duck", "goose"), ("rabbit", "squirrel"), ("bus", "truck"), ("apple", "peach")),
    *(("guitar", "violin"), ("cup", "bowl"), ("chair", "bench"), ("hat", "helmet"), ("lemon", "orange")),
)
"""Pairs that resemble each other, chosen by us: what Self-Cross (arXiv 2411.18936) found to be hardest."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and what its image should show."""

    text: str
    objects: tuple[str, ...]
    """The objects as they stand in the text, without article."""
    kind: str
    """A group whose share is reported: "animals", "never seen together"."""
    nouns: tuple[str, ...] = ()
    """The nouns, for a judge that knows no colors; empty: the objects."""

    @property
    def queries(self) -> tuple[str, ...]:
        """The phrases that a judge verifies, one for each object."""
        return self.nouns or self.objects


def listed(objects: Sequence[str]) -> str:
    """ "a zebra and a frog", "a zebra, a frog and a taxi": how the embedded world's captions speak."""
    words = [_with_article(name) for name in objects]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def chained(objects: Sequence[str]) -> str:
    """ "a zebra and a frog and a taxi"."""
    return " and ".join(_with_article(name) for name in objects)


def _with_article(noun: str) -> str:
    # The one plural of Attend-and-Excite's lists.
    return noun if noun.split()[-1] == "glasses" else article(noun)


def world(names: Sequence[str], count: int = 2) -> list[Prompt]:
    """ "a X and a Y" in both orders, more objects in one; pairs that training never shows together are told apart."""
    apart = {frozenset((names[i], names[j])) for i, j in held_out_pairs(tuple(names))}
    made = []
    for objects in _groups(names, count):
        unseen = any(frozenset(pair) in apart for pair in combinations(objects, 2))
        kind = "never seen together in training" if unseen else "pairs of the kind seen in training"
        made.append(Prompt(listed(objects), objects, kind if count == 2 else f"{count} objects"))
    return made


def geneval(names: Sequence[str], count: int = 2) -> list[Prompt]:
    """GenEval's two-object template, "a photo of a X and a Y" (arXiv 2310.11513), over these names."""
    return [Prompt(f"a photo of {listed(objects)}", objects, f"{count} objects") for objects in _groups(names, count)]


def tiam(names: Sequence[str], count: int = 2) -> list[Prompt]:
    """TIAM's template, "a photo of a X and a Y", joined by "and" however many there are (arXiv 2307.05134)."""
    return [Prompt(f"a photo of {chained(objects)}", objects, f"{count} objects") for objects in _groups(names, count)]


def colored(names: Sequence[str], count: int = 2, *, seed: int = 0) -> list[Prompt]:
    """TIAM's template with a color for each object, no color twice."""
    random = np.random.default_rng(seed)
    made = []
    for nouns in _groups(names, count):
        colors = random.permutation(len(COLORS))[:count].tolist()
        objects = tuple(f"{COLORS[color]} {noun}" for color, noun in zip(colors, nouns, strict=True))
        made.append(Prompt(f"a photo of {chained(objects)}", objects, f"{count} colored objects", nouns))
    return made


def similar() -> list[Prompt]:
    """Pairs that resemble each other, in both orders."""
    return [Prompt(listed(objects), objects, "alike") for pair in ALIKE for objects in (pair, pair[::-1])]


def attend_and_excite(*, seed: int = 0) -> list[Prompt]:
    """The 276 of Attend-and-Excite by its templates: 66 of animals, 144 of an animal and a colored object, 66 of these.

    Source: arXiv 2301.13826, section 5. Differs: colors are drawn by lot, since its own draws are not in the paper.
    """
    random = np.random.default_rng(seed)

    def some(count: int) -> list[str]:
        return [COLORS[index] for index in random.permutation(len(COLORS))[:count].tolist()]

    made = [Prompt(listed(pair), pair, "two animals") for pair in combinations(ANIMALS, 2)]
    for animal in ANIMALS:
        for noun in OBJECTS:
            objects = (animal, f"{some(1)[0]} {noun}")
            made.append(Prompt(listed(objects), objects, "an animal and a colored object", (animal, noun)))
    for pair in combinations(OBJECTS, 2):
        first_color, other = some(2)
        objects = (f"{first_color} {pair[0]}", f"{other} {pair[1]}")
        made.append(Prompt(listed(objects), objects, "two colored objects", pair))
    return made


def from_file(path: Path) -> list[Prompt]:
    """One prompt a line; after a tab, what its image should show, with commas; else what the prompt seems to name.

    Raises RizbinError for a file without prompts, or with one that names nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise RizbinError(f"{path} cannot be read as prompts ({error}); give one a line, in UTF-8.") from error
    made = []
    for number, line in enumerate(lines, 1):
        text, _, named = line.partition("\t")
        if not text.strip():
            continue
        objects = tuple(name.strip() for name in named.split(",") if name.strip()) or tuple(objects_in(text))
        if not objects:
            raise RizbinError(f'Line {number} of {path} names nothing; add what to look for after a tab: "{text}".')
        nouns = () if named.strip() else tuple(phrase.noun for phrase in phrases_in(text))
        made.append(Prompt(text.strip(), objects, f"{len(objects)} objects", nouns))
    if not made:
        raise RizbinError(f"{path} holds no prompt; give one a line.")
    return made


def prompts_named(what: str, names: Sequence[str], count: int = 2) -> list[Prompt]:
    """The prompts of a family, or of a file. `names` and `count` are for the families that are made of names.

    Raises RizbinError when there are none.
    """
    if what not in FAMILIES:
        if not Path(what).is_file():
            raise RizbinError(f"There are no prompts {what!r}; give {', '.join(FAMILIES)} or a file.")
        return from_file(Path(what))
    if what == "similar":
        return similar()
    if what == "attend-and-excite":
        return attend_and_excite()
    if not 1 <= count <= len(names):
        raise RizbinError(f"Prompts of {count} objects cannot be made of {len(names)} names.")
    makers = {"world": world, "geneval": geneval, "tiam": tiam, "colored": colored}
    return makers[what](names, count)


def _groups(names: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Pairs in both orders; of more objects each set once, or there would be tens of thousands."""
    return list(permutations(names, count) if count <= 2 else combinations(names, count))
