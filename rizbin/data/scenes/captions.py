"""Sentences about a scene that are true of it: every category and its count, and sometimes size, place and relation.

All words are decided from the boxes around the visible parts, with margins, so that a person would agree:

- small, large: the box's longer side is at most `SMALL`, at least `LARGE` of the image's side.
- left, right, top, bottom: the box's middle lies in the outer `EDGE` of the image; center: in the middle fifth.
- left of, right of, above, below: each middle lies beyond the other box by `GAP` of the side, and the offset is mostly
  along that axis.
- in front of, behind: the one hides at least `compose.FEWEST_COVERED` of the other.
"""

from typing import NamedTuple

import numpy as np

Box = tuple[int, int, int, int]
Relation = tuple[int, str, int]

SMALL, LARGE = 0.3, 0.45
EDGE = 0.36
MIDDLE = 0.1
GAP = 0.03

OPPOSITE = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
    "in front of": "behind",
    "behind": "in front of",
}
"""Each relation word with the one that holds the other way round."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six")

_IRREGULAR = {"mouse": "mice", "goose": "geese", "ox": "oxen", "loaf": "loaves", "leaf": "leaves", "wolf": "wolves"}
_IRREGULAR |= {"knife": "knives", "shelf": "shelves", "scarf": "scarves", "calf": "calves", "half": "halves"}
_IRREGULAR |= {
    "man": "men",
    "woman": "women",
    "person": "people",
    "child": "children",
    "foot": "feet",
    "tooth": "teeth",
}
_IRREGULAR |= {word: word + "es" for word in ("potato", "tomato", "mango", "buffalo", "mosquito", "hero", "torpedo")}
_IRREGULAR |= {word: word for word in ("sheep", "deer", "fish", "bison", "squid", "shrimp")}
_IRREGULAR |= {word: word for word in ("scissors", "glasses", "trousers", "shorts", "pants", "series", "aircraft")}


def plural(name: str) -> str:
    """Several of it: "fire engines", "mice", "bunches of grapes"."""
    if " of " in name:
        head, tail = name.split(" of ", 1)
        return f"{plural(head)} of {tail}"
    start, last = name[: -len(name.split(" ")[-1])], name.split(" ")[-1]
    if last in _IRREGULAR:
        return start + _IRREGULAR[last]
    if last.endswith("fish"):
        return name
    if last.endswith(("s", "x", "z", "ch", "sh")):
        return f"{name}es"
    if last.endswith("y") and last[-2:-1] not in "aeiou":
        return f"{name[:-1]}ies"
    return f"{name}s"


def article(words: str) -> str:
    """The words with "a" or "an" before them, by sound: "an apple", "a unicorn"."""
    vowel = words[:1] in "aeiou" and not words.startswith(("uni", "use", "usu", "uti", "eu", "one", "ura", "uku"))
    return f"{'an' if vowel or words.startswith(('hour', 'heir', 'honest')) else 'a'} {words}"


def relations(boxes: list[Box], hidden_by: list[tuple[int, ...]], side: int) -> tuple[Relation, ...]:
    """All relations that hold between the objects, each in both directions."""
    relations: list[Relation] = []
    gap = GAP * side
    middles = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in boxes]
    for i, (left, top, right, bottom) in enumerate(boxes):
        x, y = middles[i]
        for j in range(i + 1, len(boxes)):
            other = boxes[j]
            dx, dy = middles[j][0] - x, middles[j][1] - y
            if abs(dx) >= abs(dy):
                if dx > 0 and x + gap <= other[0] and middles[j][0] >= right + gap:
                    relations += (i, "left of", j), (j, "right of", i)
                elif dx < 0 and x - gap >= other[2] and middles[j][0] <= left - gap:
                    relations += (i, "right of", j), (j, "left of", i)
            elif dy > 0 and y + gap <= other[1] and middles[j][1] >= bottom + gap:
                relations += (i, "above", j), (j, "below", i)
            elif dy < 0 and y - gap >= other[3] and middles[j][1] <= top - gap:
                relations += (i, "below", j), (j, "above", i)
            if j in hidden_by[i]:
                relations += (j, "in front of", i), (i, "behind", j)
    return tuple(relations)


def size_word(box: Box, side: int) -> str:
    """ "small", "large" or, between the two, nothing."""
    longer = max(box[2] - box[0], box[3] - box[1])
    return "small" if longer <= SMALL * side else "large" if longer >= LARGE * side else ""


def place_words(box: Box, side: int) -> str:
    """ "on the left", "at the top right", "in the center" or, where it is unclear, nothing."""
    x, y = (box[0] + box[2]) / (2 * side), (box[1] + box[3]) / (2 * side)
    if abs(x - 0.5) <= MIDDLE and abs(y - 0.5) <= MIDDLE:
        return "in the center"
    across = "left" if x <= EDGE else "right" if x >= 1 - EDGE else ""
    down = "top" if y <= EDGE else "bottom" if y >= 1 - EDGE else ""
    if down:
        return f"at the {down} {across}".rstrip()
    return f"on the {across}" if across else ""


class _Group(NamedTuple):
    """The objects of one category."""

    name: str
    members: tuple[int, ...]
    size: str
    """A size word that is true of all of them, or nothing."""
    place: str
    """Where all of them are, or nothing."""

    def phrase(self, sized: bool) -> str:
        words = f"{self.size} " if sized and self.size else ""
        if len(self.members) == 1:
            return article(words + self.name)
        return f"{NUMBERS[len(self.members)]} {words}{plural(self.name)}"


def _shared(words: list[str]) -> str:
    return words[0] if len(set(words)) == 1 else ""


def _join(phrases: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


_BEGINNINGS = ("", "", "", "", "", "a picture of ", "a scene with ", "here we see ")
_PLACED_AT_MOST = 3  # Places told in one caption, to keep it short enough for a small text encoder.


def describe(
    names: list[str],
    boxes: list[Box],
    related: tuple[Relation, ...],
    side: int,
    random: np.random.Generator,
    plain: float = 0.4,
) -> str:
    """A caption for objects with these names and visible boxes, drawn from the grammar.

    `plain` is the share that only names what is there (all of them at 1, and then without a beginning); the others add
    sizes (a quarter of them), places (a third), or a relation (the rest), the last two with sizes as well in half of
    the cases. Words of place and relation are told only of what is meant beyond doubt: a relation only between
    categories that occur once, a place of a category only when all of its objects are there.
    """
    members: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        members.setdefault(name, []).append(position)
    groups = [
        _Group(
            name,
            tuple(own),
            _shared([size_word(boxes[i], side) for i in own]),
            _shared([place_words(boxes[i], side) for i in own]),
        )
        for name, own in members.items()
    ]
    if len(groups) > 1:
        groups = [groups[i] for i in random.permutation(len(groups)).tolist()]
    beginning = _BEGINNINGS[int(random.random() * len(_BEGINNINGS))] if plain < 1 else ""
    kind, sized = random.random(), random.random() < 0.5
    rest = 1 - plain
    if kind < plain:
        body = _join([group.phrase(False) for group in groups])
    elif kind < plain + rest / 4:
        body = _join([group.phrase(True) for group in groups])
    elif kind < plain + rest * 7 / 12:
        body = _with_places(groups, sized)
    else:
        body = _with_relation(groups, related, sized, random) or _with_places(groups, sized)
    return beginning + body


def _with_places(groups: list[_Group], sized: bool) -> str:
    # Those with a place come first: in "a pizza and a cat on the left" the pizza's place would be in doubt.
    placed = [group for group in groups if group.place][:_PLACED_AT_MOST]
    others = [group for group in groups if group not in placed]
    return _join(
        [f"{group.phrase(sized)} {group.place}" for group in placed] + [group.phrase(sized) for group in others]
    )


def _with_relation(
    groups: list[_Group], related: tuple[Relation, ...], sized: bool, random: np.random.Generator
) -> str:
    """ "a cat left of a pizza, with a bus and two bees", or nothing when no relation is beyond doubt."""
    alone = {group.members[0]: group for group in groups if len(group.members) == 1}
    clear = [relation for relation in related if relation[0] in alone and relation[2] in alone]
    if not clear:
        return ""
    first, word, second = clear[int(random.random() * len(clear))]
    if word in ("left of", "right of") and random.random() < 0.5:
        word = f"to the {word}"
    body = f"{alone[first].phrase(sized)} {word} {alone[second].phrase(sized)}"
    others = [group.phrase(sized) for group in groups if group.members[0] not in (first, second)]
    return f"{body}, with {_join(others)}" if others else body
