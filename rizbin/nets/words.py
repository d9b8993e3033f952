"""The small vocabulary as a tokenizer of Hugging Face, for software that knows no other; no package is needed.

open_clip takes a vocabulary from a model's own folder in this form alone: the file of merges that its own tokenizer
reads must be named with a path, which no folder that is moved about can know.
"""

import json
from pathlib import Path
from typing import Any

from rizbin.data.tokens import Tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json")
_PAD = "<|padding|>"
"""Fills up with zeros, as `Tokenizer` does. A name of its own for the number: what has it otherwise is "!"."""
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What SimpleTokenizer takes for a word, without its special tokens: a caption cannot end itself, and those are left
out where one spells them."""


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which give captions the same numbers. Raises OSError."""
    texts = (json.dumps(_model(tokenizer), ensure_ascii=False), json.dumps(_settings(tokenizer), indent=2))
    for name, text in zip(FILES, texts, strict=True):
        (folder / name).write_text(text + "\n", encoding="utf-8")


def _model(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary and what is done before and after it, as the library `tokenizers` keeps them."""
    simple = tokenizer._simple
    spelled = {number: piece for piece, number in simple.encoder.items()}
    start, end = spelled[tokenizer.start], spelled[tokenizer.end]
    merges = sorted(simple.bpe_ranks, key=lambda pair: simple.bpe_ranks[pair])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}

    def special(kind: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": kind, "type_id": 0}}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": _PAD, **flags}],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Lowercase"},
                *({"type": "Replace", "pattern": {"String": piece}, "content": " "} for piece in (start, end)),
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special(start), {"Sequence": {"id": "A", "type_id": 0}}, special(end)],
            "pair": [special(start), *({"Sequence": {"id": part, "type_id": 0}} for part in "AB"), special(end)],
            "special_tokens": {
                piece: {"id": piece, "ids": [number], "tokens": [piece]}
                for piece, number in ((start, tokenizer.start), (end, tokenizer.end))
            },
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**simple.encoder, _PAD: 0},
            "merges": [list(pair) for pair in merges if "".join(pair) in simple.encoder],
        },
    }


def _settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """What says how the vocabulary is used."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": _PAD,
        "padding_side": "right",
        "model_max_length": tokenizer.settings.context,
        "clean_up_tokenization_spaces": False,
    }
