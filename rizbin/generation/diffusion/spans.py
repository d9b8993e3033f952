"""Which tokens of a prompt stand for which object.

Guidance by attention needs the positions of each object's tokens among those that the cross-attention sees. The
originals ask a person for them; here they are found, for any tokenizer of transformers, from the words themselves.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rizbin.core.errors import RizbinError
from rizbin.data.phrases import ADJECTIVES, AMOUNTS, ARTICLES, MATERIALS, NUMBERS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer
else:  # when the module runs, any callable: transformers costs seconds to import
    Tokenizer = Callable


@dataclass(frozen=True)
class ObjectPhrase:
    """An object that a prompt asks for."""

    text: str
    """Without article: "small red car"."""
    noun: str
    """What is left without the adjectives that are known here: "car", "fire hydrant"."""


@dataclass(frozen=True)
class TokenSpan:
    """Where a word stands in a prompt."""

    word: str
    tokens: tuple[int, ...]
    """Positions among the tokens that the text encoder gives, start token included, rising. Never empty."""


# Between two objects: prepositions, and verbs that say how one stands to the other. Longer ones first.
_BETWEEN = """
in front of|on top of|on the left of|on the right of|to the left of|to the right of|left of|right of|next to|close to
|on the left|on the right|on the side of|at the side of|together with|instead of|followed by|surrounded by
|and|or|with|without|on|onto|in|into|inside|at|by|near|beside|besides|behind|under|underneath|below|beneath|above|over
|against|between|among|across|around|along|through|from|to|plus|versus|vs|while|who|which|that|is|are
|sitting|standing|lying|walking|running|playing|sleeping|flying|looking|holding|wearing|riding|eating|carrying|facing
|chasing|watching|made of
"""
_SEPARATOR = re.compile(
    rf"[,;:.!?()\[\]{{}}\n|/&+\"“”]+|(?<![\w-])(?:{''.join(_BETWEEN.split(chr(10)))})(?![\w-])", re.I
)
_IMAGE_OF = re.compile(
    r"^(?:(?:a|an|the|one)\s+)?(?:[\w-]+\s+)?"
    r"(?:photo|photograph|picture|image|painting|drawing|sketch|illustration|render|rendering|view|close-?up|portrait)s?"
    r"\s+of\s+",
    re.I,
)
_AMOUNT = re.compile(r"^(?:group|pair|couple|bunch|herd|flock|pack|set|row|pile|kind|type)s?\s+of\s+", re.I)


def _set(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split("|"))


_ADJECTIVES = ADJECTIVES | MATERIALS | NUMBERS | AMOUNTS
# What prompts add about the image itself; nothing that can be drawn.
_ABOUT_THE_IMAGE = _set(
    "photo|photograph|picture|image|photorealistic|realistic|highly detailed|detailed|4k|8k|hd|hdr|best quality",
    "high quality|high resolution|masterpiece|sharp focus|oil painting|digital art|trending",
    "left|right|front|top|background|foreground",
)


def objects_in(prompt: str) -> list[str]:
    """The noun phrases that an image of the prompt should show, in their order: a proposal, to be corrected by hand.

    No grammar is read: the prompt is split at commas, "and", prepositions and a few verbs (English ones).
    """
    return [phrase.text for phrase in phrases_in(prompt)]


def phrases_in(prompt: str) -> list[ObjectPhrase]:
    """The phrases that `objects_in` finds, each with its noun."""
    phrases = []
    for part in _SEPARATOR.split(prompt):
        words = _IMAGE_OF.sub("", part.strip()).split()
        while words and words[0].casefold() in ARTICLES:
            words = words[1:]
        text = _AMOUNT.sub("", " ".join(words)).strip(string.punctuation + " ")
        if any(letter.isalnum() for letter in text) and text.casefold() not in _ABOUT_THE_IMAGE:
            phrases.append(ObjectPhrase(text, _noun(text)))
    return phrases


def _noun(text: str) -> str:
    """The phrase without leading adjectives and without what follows "of" (a glass of water is a glass)."""
    words = re.split(r"\s+of\s+", text, maxsplit=1, flags=re.I)[0].split()
    while len(words) > 1 and words[0].casefold() in _ADJECTIVES:
        words = words[1:]
    return " ".join(words)


def spans_of(
    prompt: str, words: Sequence[str], tokenizer: Tokenizer | Sequence[Tokenizer]
) -> tuple[list[TokenSpan], list[str]]:
    """Where each of the words (or phrases) stands in the prompt, and a sentence about each that cannot be used.

    Args:
        prompt: What the text encoder reads.
        words: In the order wanted. Letters' case does not count. A word given twice means its first two occurrences.
        tokenizer: Any of transformers; or those of several encoders side by side (SDXL), which must agree.

    The spans keep the order of `words`. No two share a token: longer phrases choose first.
    """
    tokenizers = [tokenizer] if callable(tokenizer) else list(tokenizer)
    if not tokenizers:
        raise RizbinError("No tokenizer was given; give the one that belongs to the text encoder.")
    layouts = [_layout(prompt, tokenizer) for tokenizer in tokenizers]
    places, notes = _places(prompt, words)
    spans = []
    for word, place in zip(words, places, strict=True):
        if place is None:
            continue
        positions = {_positions(prompt, place, *both) for both in zip(tokenizers, layouts, strict=True)}
        tokens = positions.pop()
        if positions:
            notes.append(f'The text encoders split the prompt differently at "{word}", so it is left out.')
        elif not tokens:
            notes.append(f'The tokenizer makes no token of its own of "{word}", so it is left out.')
        elif tokens[-1] >= min(layout.end for layout in layouts):
            read = min(layout.limit for layout in layouts)
            notes.append(f'"{word}" lies beyond the {read} tokens that the text encoder reads; name it earlier.')
        else:
            spans.append(TokenSpan(word, tokens))
    return spans, notes


def end_of_text(prompt: str, tokenizer: Tokenizer) -> int:
    """Position of the end-of-text token: one past the prompt's last token that the encoder reads.

    It is counted, not searched for, so that it holds where the padding is that same token (SD 1.x) and where it is
    another ("!" in SD 2.x). A tokenizer without such a token gives the position at which one would stand.
    """
    return _layout(prompt, tokenizer).end


@dataclass(frozen=True)
class _Layout:
    """How a tokenizer lays a prompt out."""

    ids: tuple[int, ...]
    """Token ids of the prompt alone, however long."""
    start: int
    """Special tokens before them."""
    end: int
    """Position after the last that is read."""
    limit: int
    """Tokens that the encoder reads, special ones included."""


def _layout(prompt: str, tokenizer: Tokenizer) -> _Layout:
    ids = _ids(prompt, tokenizer)
    # Special tokens are counted beside a plain letter, because a prompt may itself spell one.
    bare, whole = _ids("a", tokenizer), tuple(tokenizer("a").input_ids)
    start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
    limit = tokenizer.model_max_length
    after = len(whole) - len(bare) - start
    return _Layout(ids, start, max(min(start + len(ids), limit - after), start), limit)


def _ids(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    # Not verbose: that a prompt is too long is said in our notes.
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


_Place = tuple[int, int]
"""First character and the one after the last."""


def _places(prompt: str, words: Sequence[str]) -> tuple[list[_Place | None], list[str]]:
    """For each word the characters of its first free occurrence, and sentences about those that have none."""
    places: list[_Place | None] = [None] * len(words)
    notes: list[str] = []
    taken: list[_Place] = []
    for index in sorted(range(len(words)), key=lambda index: (-len(words[index]), index)):
        word = words[index]
        parts = word.split()
        if not parts:
            notes.append("An empty word names no object, so it is left out.")
            continue
        pattern = r"(?<!\w)" + r"\s+".join(re.escape(part) for part in parts) + r"(?!\w)"
        occurrences = [match.span() for match in re.finditer(pattern, prompt, re.I)]
        free = [place for place in occurrences if all(place[1] <= start or end <= place[0] for start, end in taken)]
        if free:
            places[index] = free[0]
            taken.append(free[0])
        elif occurrences:
            times = "once" if len(occurrences) == 1 else f"{len(occurrences)} times"
            notes.append(f'"{word}" stands {times} in the prompt and is taken there already, so one is left out.')
        else:
            notes.append(f'"{word}" is not in the prompt, so it is left out.')
    return places, notes


def _positions(prompt: str, place: _Place, tokenizer: Tokenizer, layout: _Layout) -> tuple[int, ...]:
    """The tokens of these characters; empty where the tokenizer draws no border at their ends.

    What precedes a word is tokenized without it and with it: the difference is the word's. That needs no offsets, which
    slow tokenizers do not give, and is checked against the tokens of the whole prompt.
    """
    before, through = (_ids(prompt[:end], tokenizer) for end in place)
    if layout.ids[: len(before)] != before or layout.ids[: len(through)] != through:
        return ()
    return tuple(range(layout.start + len(before), layout.start + len(through)))
