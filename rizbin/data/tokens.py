"""Tokens: captions as rows of numbers, with open_clip's SimpleTokenizer and one of two vocabularies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from rizbin.core.errors import RizbinError

SMALL = Path(__file__).parent / "vocabularies" / "small.txt.gz"
"""The merges of the small vocabulary, in SimpleTokenizer's file format (see vocabularies/build.py)."""
SPECIAL = ("<start_of_text>", "<end_of_text>")
"""SimpleTokenizer's special tokens, the two highest of every vocabulary."""
CONTEXTS = {"small": 32, "clip": 77}
"""The usual context of each vocabulary; CLIP's towers were trained with 77 (arXiv 2103.00020)."""

_LONGEST_TEXT = 20_000
_LONGEST_WORD = 100
"""Characters. Byte-pair encoding costs the square of a word's length, and a caption may be anything."""


class Tokenizer:
    """Turns captions into tokens: start, the words' pieces, end, then zeros.

    The same numbers as open_clip's SimpleTokenizer, which it calls, with two differences. Differs: a caption that
    spells a special token ("<end_of_text>") gets no special token for it, so that no caption can end itself; words are
    cut after 100 characters.
    """

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        vocabulary: Literal["small", "clip"] = "small"
        """Byte-pair merges: "small" (2,048 tokens, words of everyday objects) or "clip" (49,408, CLIP's own)."""
        context: int = 32
        """Tokens of a caption with start and end, 3 or more; longer captions are cut, the end token is kept."""

    def __init__(self, settings: Settings):
        from open_clip.tokenizer import SimpleTokenizer, default_bpe  # here: it costs a second, and few need it

        if settings.context < 3:
            raise RizbinError(f"the context is {settings.context} tokens; give 3 or more: start, one piece, end.")
        self.settings = settings
        path = SMALL if settings.vocabulary == "small" else Path(default_bpe())
        self._simple = SimpleTokenizer(str(path), context_length=settings.context)
        self._pieces: dict[str, list[int]] = {word: [] for word in SPECIAL}
        self.size: int = self._simple.vocab_size
        """How many tokens there are; every token is below."""
        self.start: int = self._simple.sot_token_id
        """The token that opens every caption."""
        self.end: int = self._simple.eot_token_id
        """The token that closes every caption: the highest of all, so that `argmax` finds it, as CLIP does."""

    def encode(self, texts: list[str]) -> Int[Tensor, "batch context"]:
        """One row a text: start, pieces, end, zeros."""
        tokens = torch.zeros(len(texts), self.settings.context, dtype=torch.long)
        for row, text in enumerate(texts):
            line = [self.start, *self._encode(text), self.end]
            tokens[row, : len(line)] = torch.tensor(line)
        return tokens

    def decode(self, tokens: Int[Tensor, "length"]) -> str:
        """The words of one row, lower case, without special tokens."""
        row = tokens.tolist()
        return self._simple.decode(row[1 : row.index(self.end)]).strip()

    def trim(self, tokens: Int[Tensor, "batch context"]) -> Int[Tensor, "batch length"]:
        """The rows without the columns after the batch's last end token, which are zeros."""
        if len(tokens) == 0:
            return tokens
        return tokens[:, : int((tokens == self.end).int().argmax(dim=1).max()) + 1]

    def _encode(self, text: str) -> list[int]:
        """The pieces of a text, at most as many as fit between start and end."""
        room = self.settings.context - 2
        pieces: list[int] = []
        simple = self._simple
        for match in simple.pat.finditer(simple.clean_fn(text[:_LONGEST_TEXT])):
            word = match.group()[:_LONGEST_WORD]
            if word not in self._pieces:
                spelled = "".join(simple.byte_encoder[byte] for byte in word.encode("utf-8"))
                self._pieces[word] = [simple.encoder[piece] for piece in simple.bpe(spelled).split(" ")]
            pieces += self._pieces[word]
            if len(pieces) >= room:
                break
        return pieces[:room]
