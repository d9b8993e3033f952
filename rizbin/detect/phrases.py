"""What is looked for: names, each with one or more prompts, and the token sequences that ask a network for them.

Grounding DINO reads all prompts as one text in which a dot ends each, and gives a score for every token. Here the
text is put together from tokens, not from characters, so that it is known exactly which tokens are whose: no score can
end up with a neighbor, and no name comes back that nobody asked for.
"""

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


@runtime_checkable
class Tokenizer(Protocol):
    """What is asked of a tokenizer; all of transformers' are one."""

    @property
    def unk_token_id(self) -> int | None: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]: ...


@dataclass(frozen=True)
class Phrase:
    """One thing to look for."""

    name: str
    """What the answer calls it."""
    prompts: tuple[str, ...]
    """What the network is asked, lower case, without dots; the best score of them counts."""


Wanted = str | Phrase | Mapping[str, Sequence[str] | str]
"""A phrase as a user may give it: "a cat", "remote=a remote control|tv remote", or {"remote": ["a remote control"]}."""


def read_phrases(wanted: Sequence[Wanted]) -> tuple[Phrase, ...]:
    """The phrases in the order given; their positions are the class ids of the answer.

    Raises RizbinError when there is none, one has no word, or a name comes twice.
    """
    if isinstance(wanted, str):
        wanted = [wanted]
    found = [one for some in wanted for one in _read(some)]
    if not found:
        raise RizbinError('There is nothing to look for; name one thing or more, such as "a cat".')
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise RizbinError(
                f'"{_short(name)}" is asked for twice; name it once, with all its prompts: "NAME=PROMPT|PROMPT".'
            )
    return tuple(found)


def _read(wanted: Wanted) -> list[Phrase]:
    if isinstance(wanted, Phrase):
        return [Phrase(wanted.name, tuple(_cleaned(prompt) for prompt in wanted.prompts))]
    if isinstance(wanted, str):
        name, equals, prompts = wanted.partition("=")
        wanted = {name.strip(): prompts.split("|")} if equals else {wanted.strip(): [wanted]}
    return [
        Phrase(name, tuple(_cleaned(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)))
        for name, prompts in wanted.items()
        if _named(name, prompts)
    ]


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
        raise RizbinError(f'"{_short(prompt)}" has no word to look for; write what the thing is called.')
    return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True)
class Span:
    """The tokens of one prompt in a text."""

    phrase: int
    """Position among the phrases."""
    first: int
    end: int
    """Exclusive; the dot that follows is not in it."""


@dataclass(frozen=True)
class Text:
    """What the network reads in one pass."""

    ids: tuple[int, ...]
    """[CLS] prompt . prompt . [SEP]"""
    spans: tuple[Span, ...]

    @property
    def phrases(self) -> tuple[int, ...]:
        """Positions of the phrases that this text asks for, ascending."""
        return tuple(sorted({span.phrase for span in self.spans}))


@dataclass(frozen=True)
class Asked:
    """All texts that a set of phrases needs, and what became of prompts that do not fit."""

    phrases: tuple[Phrase, ...]
    texts: tuple[Text, ...]
    cut: tuple[str, ...]
    """Prompts longer than a whole text; their beginning is asked for."""
    unknown: tuple[str, ...]
    """Prompts without a word that the tokenizer knows: whatever is found for them means nothing."""


def ask(phrases: Sequence[Phrase], tokenizer: Tokenizer, limit: int = 256, *, alone: bool = False) -> Asked:
    """Puts the prompts into as few texts as `limit` tokens a text allow, the order kept.

    alone: one text for each phrase, for descriptions that would disturb each other. Raises RizbinError when the
    tokenizer is not the one that transformers expects, or the limit leaves no room.
    """
    _check(tokenizer, limit)
    texts: list[Text] = []
    cut, unknown = [], []
    ids: list[int] = [CLS]
    spans: list[Span] = []

    def end() -> None:
        if spans:
            texts.append(Text((*ids, SEP), tuple(spans)))
        ids[:], spans[:] = [CLS], []

    for position, phrase in enumerate(phrases):
        if alone:
            end()
        for prompt in phrase.prompts:
            tokens = [token for token in _tokens(prompt, tokenizer) if token not in (CLS, SEP, DOT, QUESTION, 0)]
            if all(token == tokenizer.unk_token_id for token in tokens):
                unknown.append(prompt)
                tokens = tokens or [tokenizer.unk_token_id or 0]
            if len(tokens) > limit - 3:
                cut.append(prompt)
                tokens = tokens[: limit - 3]
            if len(ids) + len(tokens) + 2 > limit:
                end()
            spans.append(Span(position, len(ids), len(ids) + len(tokens)))
            ids += [*tokens, DOT]
    end()
    return Asked(tuple(phrases), tuple(texts), tuple(cut), tuple(unknown))


def _tokens(prompt: str, tokenizer: Tokenizer) -> list[int]:
    # A tokenizer's time grows with the length, and no more than a text of it can be asked for.
    return tokenizer.encode(prompt[:8192], add_special_tokens=False)


def _check(tokenizer: Tokenizer, limit: int) -> None:
    found = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?"])
    if list(found) != [CLS, SEP, DOT, QUESTION]:
        raise RizbinError(
            f"The tokenizer numbers [CLS], [SEP], dot and question mark {', '.join(map(str, found))}; transformers' "
            f"Grounding DINO needs {CLS}, {SEP}, {DOT} and {QUESTION}, as bert-base-uncased has them."
        )
    if limit < 4:
        raise RizbinError(f"A text of {limit} tokens has no room for a phrase; give 4 or more.")


def batch_of(texts: Sequence[Text]) -> tuple[Int[Tensor, "texts tokens"], Bool[Tensor, "texts tokens"]]:
    """Token ids padded with 0, and where they are no padding: one row for each picture of a pass."""
    longest = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text.ids)] = torch.tensor(text.ids)
    return ids, ids != 0


def phrase_map(text: Text, phrases: int, width: int) -> Bool[Tensor, "{phrases} {width}"]:
    """Which tokens are each phrase's; of a phrase with several prompts, all of theirs."""
    tokens = torch.zeros(phrases, width, dtype=torch.bool)
    for span in text.spans:
        tokens[span.phrase, span.first : span.end] = True
    return tokens


def phrase_scores(
    logits: Float[Tensor, "boxes tokens"], text: Text, phrases: int, *, over: str = "mean"
) -> Float[Tensor, "boxes {phrases}"]:
    """How well each box fits each phrase, 0 to 1; nan for phrases that this text did not ask for.

    A prompt's score is the mean of its tokens' sigmoids, as in the official COCO evaluation, or with over="max" their
    largest, as in the first demo; a phrase's is that of its best prompt.
    """
    if over not in ("mean", "max"):
        raise RizbinError(f'Scores are taken over tokens by "mean" or "max", not by "{over}".')
    probabilities = logits.sigmoid()
    scores = torch.full((len(logits), phrases), torch.nan, device=logits.device)
    for span in text.spans:
        tokens = probabilities[:, span.first : span.end]
        score = tokens.mean(dim=1) if over == "mean" else tokens.amax(dim=1)
        scores[:, span.phrase] = torch.fmax(scores[:, span.phrase], score.float())
    return scores
