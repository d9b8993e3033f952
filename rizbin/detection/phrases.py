"""Phrases to detect: names, each with one or more prompts, and the token sequences that ask a network for them.

Grounding DINO reads all prompts as one text in which a dot ends each, and gives a score for every token. Here the
text is put together from tokens, not from characters, so that it is known exactly which tokens are whose: no score can
end up with a neighbor, and no name comes back that nobody asked for.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rizbin.core.errors import RizbinError

CLS, SEP, DOT, QUESTION = 101, 102, 1012, 1029
"""bert-base-uncased's, which transformers has written into its models: no tokenizer with other ids can be used."""
_ENDS = str.maketrans(".?", "  ")
"""What ends a phrase for the network."""
ARTICLES = frozenset(("a", "an", "the"))
"""Words that name nothing: the network may read them, but they never decide."""
_ABBREVIATIONS = frozenset(
    ("st", "dr", "mr", "mrs", "ms", "jr", "sr", "mt", "ft", "no", "nr", "vs", "etc", "approx", "prof", "gen", "capt")
)
"""Words whose dot ends no phrase: "St. Bernard", "No. 1"."""
_DOT_BETWEEN = re.compile(r"\s*[.\u3002](?:\s+|$)")


@runtime_checkable
class PromptTokenizer(Protocol):
    """The methods of a tokenizer that are used here; all of transformers' tokenizers have them."""

    @property
    def unk_token_id(self) -> int | None: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...


@dataclass(frozen=True)
class Phrase:
    """An object to look for, and the prompts that ask for it."""

    name: str
    """Its name in the answer."""
    prompts: tuple[str, ...]
    """What the network is asked, lower case, without dots; the best score of them counts."""


PhraseLike = str | Phrase | Mapping[str, Sequence[str] | str]
"""A phrase as a user may give it: "a cat", "remote=a remote control|tv remote", or {"remote": ["a remote control"]};
several in Grounding DINO's own form, "a cat. a remote control."."""


def read_phrases(phrase_like: Sequence[PhraseLike]) -> tuple[Phrase, ...]:
    """The phrases in the order given; their positions are the class ids of the answer.

    Raises RizbinError when there is none, one has no word, or a name comes twice.
    """
    if isinstance(phrase_like, str):
        phrase_like = [phrase_like]
    phrases = [phrase for some in phrase_like for phrase in _read(some)]
    if not phrases:
        raise RizbinError('There is nothing to look for; name one object or more, such as "a cat".')
    names = [phrase.name for phrase in phrases]
    for name in names:
        if names.count(name) > 1:
            raise RizbinError(
                f'"{_short(name)}" is asked for twice; name it once, with all its prompts: "NAME=PROMPT|PROMPT".'
            )
    return tuple(phrases)


def named(names: Sequence[str]) -> tuple[Phrase, ...]:
    """A phrase for each name of a data set, whatever signs are in it: class ids must stay theirs.

    Raises RizbinError as `read_phrases` does.
    """
    return read_phrases([Phrase(name, (name,)) for name in names])


def _read(phrase_like: PhraseLike) -> list[Phrase]:
    if isinstance(phrase_like, Phrase):
        return [Phrase(phrase_like.name, tuple(_cleaned(prompt) for prompt in phrase_like.prompts))]
    if isinstance(phrase_like, str):
        name, equals, prompts = phrase_like.partition("=")
        if not equals:
            return [Phrase(part, (_cleaned(part),)) for part in _between_dots(phrase_like) if _named(part, part)]
        phrase_like = {name.strip(): prompts.split("|")}
    return [
        Phrase(
            name,
            tuple(
                _cleaned(part)
                for prompt in ([prompts] if isinstance(prompts, str) else prompts)
                for part in _between_dots(prompt)
            ),
        )
        for name, prompts in phrase_like.items()
        if _named(name, prompts)
    ]


def _between_dots(text: str) -> list[str]:
    """The phrases of Grounding DINO's own form, "a cat. a remote control."; a dot within a name parts nothing.

    A dot ends a phrase where a space or nothing follows, unless it belongs to an abbreviation or a single letter
    ("St. Bernard", "No. 1", "U. S. flag").
    """
    parts, start = [], 0
    for match in _DOT_BETWEEN.finditer(text):
        words = text[start : match.start()].split()
        at_end = match.end() == len(text)
        # A dot that stands alone, as in "a cat . a dog .", belongs to no word.
        last = words[-1].casefold() if words and not match.group()[0].isspace() else ""
        if not at_end and (last in _ABBREVIATIONS or "." in last or (len(last) == 1 and last.isalpha())):
            continue
        if words:
            parts.append(" ".join(words))
        start = match.end()
    if rest := text[start:].strip():
        parts.append(rest)
    return parts or [text.strip()]


def _named(name: str, prompts: Sequence[str] | str) -> bool:
    if not name or not prompts:
        raise RizbinError('A phrase has no name or no prompt; write "cat", or "NAME=PROMPT|PROMPT".')
    return True


def _cleaned(prompt: str) -> str:
    """Lower case, one space between words, and nothing in it that would end the phrase."""
    # NFKC: signs that look alike become one, so that what a tokenizer makes a dot of is a dot before it.
    text = unicodedata.normalize("NFKC", prompt).translate(_ENDS).lower()
    text = " ".join(text.split())
    if not any(character.isalnum() for character in text):
        raise RizbinError(f'"{_short(prompt)}" has no word to look for; write what the object is called.')
    if text in ARTICLES:
        raise RizbinError(f'"{_short(prompt)}" names nothing; put all words of a phrase in quotes: "a cat".')
    return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class PromptSpan:
    """The tokens of one prompt in a text."""

    phrase: int
    """Position among the phrases."""
    first: int
    end: int
    """Exclusive; the dot that follows is not in it."""
    silent: tuple[int, ...] = ()
    """Tokens of it that never decide: articles."""

    @property
    def deciding(self) -> list[int]:
        """The tokens whose scores count; never empty."""
        return [place for place in range(self.first, self.end) if place not in self.silent]


@dataclass(frozen=True)
class PromptText:
    """What the network reads in one pass."""

    ids: tuple[int, ...]
    """[CLS] prompt . prompt . [SEP]"""
    spans: tuple[PromptSpan, ...]

    @property
    def phrases(self) -> tuple[int, ...]:
        """Positions of the phrases that this text asks for, ascending."""
        return tuple(sorted({span.phrase for span in self.spans}))


@dataclass(frozen=True)
class PromptBatch:
    """All texts that a set of phrases needs, and what became of prompts that cannot be asked for as they are."""

    phrases: tuple[Phrase, ...]
    texts: tuple[PromptText, ...]
    cut: tuple[str, ...] = ()
    """Prompts longer than a whole text; their beginning is asked for."""
    unknown: tuple[str, ...] = ()
    """Prompts without a word that the tokenizer knows; they are not asked for."""
    partly: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Prompts that are asked for without words that the tokenizer does not know, with these words."""
    alike: tuple[tuple[str, str], ...] = ()
    """Prompts that are not asked for, since without the unknown words they are another one, which follows."""

    @property
    def unasked(self) -> tuple[int, ...]:
        """Positions of the phrases of which no prompt is asked for: nothing can be said of them."""
        in_texts = {phrase for text in self.texts for phrase in text.phrases}
        return tuple(place for place in range(len(self.phrases)) if place not in in_texts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know, a sentence each."""
        sentences = []
        if len(self.texts) > 1:
            sentences.append(
                f"The phrases were asked for in {len(self.texts)} passes; scores of different passes compare less well."
            )
        sentences += [
            f'"{prompt[:40]}..." is longer than a whole text; its beginning was asked for.' for prompt in self.cut
        ]
        sentences += [
            f'The network knows no word of "{_short(prompt)}", so it was not asked for it and cannot say whether it is '
            "there."
            for prompt in self.unknown
        ]
        sentences += [
            f'The network does not know {_quoted(words)}; "{_short(prompt)}" was asked for without '
            f"{'it' if len(words) == 1 else 'them'}."
            for prompt, words in self.partly
        ]
        sentences += [
            f'Without the words that the network does not know, "{_short(prompt)}" is "{_short(other)}", so it was not '
            "asked for."
            for prompt, other in self.alike
        ]
        return tuple(sentences)


def _quoted(words: Sequence[str]) -> str:
    shown = [f'"{_short(word)}"' for word in words]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


@dataclass(frozen=True)
class _Read:
    """A prompt as a tokenizer reads it."""

    phrase: int
    """Position among the phrases."""
    text: str
    tokens: tuple[int, ...]
    silent: tuple[int, ...]
    """Places of articles among the tokens."""
    unknown: tuple[str, ...]
    """Words with a part that the tokenizer does not know; these parts are not among the tokens."""

    @property
    def deciding(self) -> tuple[int, ...]:
        return tuple(token for place, token in enumerate(self.tokens) if place not in self.silent)


def build_prompts(
    phrases: Sequence[Phrase], tokenizer: PromptTokenizer, limit: int = 256, *, separate: bool = False
) -> PromptBatch:
    """Puts the prompts into as few texts as `limit` tokens a text allow, the order kept.

    Words that the tokenizer does not know are left out, and articles do not decide: a network that knows "zebra" and
    not "a" answers for "a zebra" as for "zebra". A prompt that without its unknown words is another prompt is not asked
    for: the two could not be told apart. separate: one text for each phrase, for descriptions that would influence each
    other. Raises RizbinError when the tokenizer is not the one that transformers expects, or the limit leaves no room.
    """
    _check(tokenizer, limit)
    prompts = [
        _read_prompt(place, prompt, tokenizer) for place, phrase in enumerate(phrases) for prompt in phrase.prompts
    ]
    usable, alike = _apart([prompt for prompt in prompts if prompt.deciding])
    texts: list[PromptText] = []
    cut: list[str] = []
    ids: list[int] = [CLS]
    spans: list[PromptSpan] = []

    def end() -> None:
        if spans:
            texts.append(PromptText((*ids, SEP), tuple(spans)))
        ids[:], spans[:] = [CLS], []

    last = -1
    for prompt in usable:
        if separate and prompt.phrase != last:
            end()
        last = prompt.phrase
        tokens, silent = prompt.tokens, prompt.silent
        if len(tokens) > limit - 3:
            cut.append(prompt.text)
            tokens = tokens[: limit - 3]
            silent = tuple(place for place in silent if place < len(tokens))
            silent = () if len(silent) == len(tokens) else silent
        if len(ids) + len(tokens) + 2 > limit:
            end()
        first = len(ids)
        spans.append(PromptSpan(prompt.phrase, first, first + len(tokens), tuple(first + place for place in silent)))
        ids += [*tokens, DOT]
    end()
    return PromptBatch(
        tuple(phrases),
        tuple(texts),
        cut=tuple(cut),
        unknown=tuple(prompt.text for prompt in prompts if not prompt.deciding),
        partly=tuple((prompt.text, prompt.unknown) for prompt in usable if prompt.unknown),
        alike=tuple(alike),
    )


def _apart(prompts: Sequence[_Read]) -> tuple[list[_Read], list[tuple[str, str]]]:
    """The prompts that can be told apart, and those that cannot, each with the one that it would be taken for.

    Of equal ones those count that the network knows whole, then the first.
    """
    takers: dict[tuple[int, ...], _Read] = {}
    for prompt in sorted(prompts, key=lambda prompt: bool(prompt.unknown)):
        takers.setdefault(prompt.deciding, prompt)
    usable, alike = [], []
    for prompt in prompts:
        taker = takers[prompt.deciding]
        if prompt.unknown and taker is not prompt:
            alike.append((prompt.text, taker.text))
        else:
            usable.append(prompt)
    return usable, alike


def _read_prompt(phrase: int, prompt: str, tokenizer: PromptTokenizer) -> _Read:
    """Word by word, so that each unknown token has its word; BERT parts texts at spaces first anyway."""
    tokens: list[int] = []
    silent: list[int] = []
    unknown: list[str] = []
    # A tokenizer's time grows with the length, and no more than a text of it can be asked for.
    words = prompt[:8192].split()
    for place, word in enumerate(words):
        word_tokens = [
            token
            for token in tokenizer.encode(word, add_special_tokens=False)
            if token not in (CLS, SEP, DOT, QUESTION, 0)
        ]
        known = [token for token in word_tokens if token != tokenizer.unk_token_id]
        # The last word is what the object is called, whatever it looks like: "vitamin a".
        article = word in ARTICLES and place + 1 < len(words)
        if len(known) < len(word_tokens) and not article:
            unknown.append(word)
        if article:
            silent += range(len(tokens), len(tokens) + len(known))
        tokens += known
    return _Read(phrase, prompt, tuple(tokens), tuple(silent), tuple(dict.fromkeys(unknown)))


def _check(tokenizer: PromptTokenizer, limit: int) -> None:
    numbers = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"])
    if list(numbers) != [CLS, SEP, DOT, QUESTION]:
        raise RizbinError(
            f"The tokenizer numbers [CLS], [SEP], dot and question mark {', '.join(map(str, numbers))}; transformers' "
            f"Grounding DINO needs {CLS}, {SEP}, {DOT} and {QUESTION}, as bert-base-uncased has them."
        )
    if limit < 4:
        raise RizbinError(f"A text of {limit} tokens has no room for a phrase; give 4 or more.")


def batch_of(texts: Sequence[PromptText]) -> tuple[Int[Tensor, "texts tokens"], Bool[Tensor, "texts tokens"]]:
    """Token ids padded with 0, and where they are no padding: one row for each image of a pass."""
    longest = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text.ids)] = torch.tensor(text.ids)
    return ids, ids != 0


def phrase_map(text: PromptText, phrases: int, width: int) -> Bool[Tensor, "{phrases} {width}"]:
    """Which tokens are each phrase's; of a phrase with several prompts, all of theirs."""
    tokens = torch.zeros(phrases, width, dtype=torch.bool)
    for span in text.spans:
        tokens[span.phrase, span.first : span.end] = True
    return tokens


def phrase_scores(
    logits: Float[Tensor, "boxes tokens"], text: PromptText, phrases: int, *, token_pooling: str = "mean"
) -> Float[Tensor, "boxes {phrases}"]:
    """How well each box fits each phrase, 0 to 1; nan for phrases that this text did not ask for.

    A prompt's score is the mean of its tokens' sigmoids, as in the official COCO evaluation, or with
    token_pooling="max" their largest, as in the first demo; a phrase's is that of its best prompt. Differs: articles do
    not count, so that "a zebra" is what "zebra" is.
    """
    if token_pooling not in ("mean", "max"):
        raise RizbinError(f'Scores are taken over tokens by "mean" or "max", not by "{token_pooling}".')
    probabilities = logits.sigmoid()
    scores = torch.full((len(logits), phrases), torch.nan, device=logits.device)
    for span in text.spans:
        tokens = probabilities[:, span.deciding]
        score = tokens.mean(dim=1) if token_pooling == "mean" else tokens.amax(dim=1)
        scores[:, span.phrase] = torch.fmax(scores[:, span.phrase], score.float())
    return scores
