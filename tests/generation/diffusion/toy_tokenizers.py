"""Tokenizers small enough for tests: CLIP's with a few merges, a word-level one, and one written in Python."""

import gzip
from functools import cache
from typing import Any

from open_clip.tokenizer import default_bpe
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

WORDS = ("a", "an", "and", "cat", "dog", "red", "blue", "car", "on", "the", "photo", "of", "with", "mat", ",")
START, END = "<|startoftext|>", "<|endoftext|>"


def clip(pad: str = END, limit: int = 77) -> CLIPTokenizer:
    """CLIP's byte pairs with merges for the words above; others fall into letters, as rare words do in the real one."""
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
            vocabulary.append(pieces[0])
    vocabulary = [*dict.fromkeys(vocabulary), START, END]
    ids = {token: number for number, token in enumerate(vocabulary)}
    lines: Any = list(dict.fromkeys(merges))
    return CLIPTokenizer(vocab=ids, merges=lines, pad_token=pad, model_max_length=limit)


@cache
def real_clip() -> CLIPTokenizer:
    """CLIP's own 49,408 tokens, from the list that open_clip ships."""
    with gzip.open(default_bpe(), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    ids = {token: number for number, token in enumerate(vocabulary)}
    given: Any = merges
    return CLIPTokenizer(vocab=ids, merges=given, model_max_length=77)


def word_level(limit: int = 16) -> PreTrainedTokenizerFast:
    """One token a word, with start and end tokens, as a model trained from nothing would have."""
    ids = {token: number for number, token in enumerate(("[PAD]", "[UNK]", "[BOS]", "[EOS]", *WORDS))}
    inner = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=limit, **special)


class Slow(PreTrainedTokenizer):
    """Written in Python, without special tokens and without offsets."""

    def __init__(self, **named: Any) -> None:
        self.known = {token: number for number, token in enumerate(("[UNK]", *WORDS))}
        super().__init__(unk_token="[UNK]", pad_token="[UNK]", **named)

    @property
    def vocab_size(self) -> int:
        return len(self.known)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.known)

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return text.replace(",", " , ").split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.known.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return list(self.known)[index]
