"""Tokens against open_clip's own tokenizer, and the promises that the text tower rests on."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from open_clip.tokenizer import SimpleTokenizer

from rizbin.core.errors import RizbinError
from rizbin.data.scenes.captions import plural
from rizbin.data.scenes.vocabulary import CODES
from rizbin.data.tokens import SMALL, Tokenizer
from rizbin.data.vocabularies import build

SMALL_TOKENIZER = Tokenizer(Tokenizer.Settings())
CLIP_TOKENIZER = Tokenizer(Tokenizer.Settings(vocabulary="clip", context=77))
CAPTIONS = [
    "A photo of a small red cat.",
    "two fire engines, left of  3 trees!",
    "caf\u00e9 \u65e5\u672c \U0001f600",
    "",
    "it's &amp; don't",
]


def test_clip_tokens_are_open_clips() -> None:
    assert torch.equal(CLIP_TOKENIZER.encode(CAPTIONS), SimpleTokenizer(context_length=77)(CAPTIONS))
    assert (CLIP_TOKENIZER.size, CLIP_TOKENIZER.start, CLIP_TOKENIZER.end) == (49408, 49406, 49407)


def test_small_tokens_are_what_open_clip_makes_of_the_file() -> None:
    theirs = SimpleTokenizer(str(SMALL), context_length=32)
    assert torch.equal(SMALL_TOKENIZER.encode(CAPTIONS), theirs(CAPTIONS))
    assert theirs.vocab_size == SMALL_TOKENIZER.size == 512 + build.MERGE_COUNT + 2
    assert sorted(theirs.encoder.values()) == list(range(SMALL_TOKENIZER.size))  # no hole, no token twice


@settings(deadline=None, max_examples=200)
@given(text=some.text(max_size=300))
def test_any_text_has_one_start_and_one_end(text: str) -> None:
    row = SMALL_TOKENIZER.encode([text])[0].tolist()
    end = row.index(SMALL_TOKENIZER.end)
    assert row[0] == SMALL_TOKENIZER.start and row[end + 1 :] == [0] * (31 - end)
    assert max(row) == SMALL_TOKENIZER.end and row.count(SMALL_TOKENIZER.end) == row.count(SMALL_TOKENIZER.start) == 1


@settings(deadline=None, max_examples=100)
@given(text=some.text(some.characters(categories=("Ll", "Nd", "So")), min_size=1, max_size=6))
def test_what_is_encoded_can_be_decoded(text: str) -> None:
    expected = SMALL_TOKENIZER._simple.clean_fn(text)
    assert SMALL_TOKENIZER.decode(SMALL_TOKENIZER.encode([text])[0]).replace(" ", "") == expected.replace(" ", "")


def test_the_end_is_kept_when_a_caption_is_cut() -> None:
    for tokenizer in (SMALL_TOKENIZER, CLIP_TOKENIZER):
        row = tokenizer.encode(["word " * 1000])[0]
        assert row[-1] == tokenizer.end and (row == tokenizer.end).sum() == 1 and (row == 0).sum() == 0


def test_the_beginning_of_a_long_caption_is_kept() -> None:
    text = "a " + "quixotically zymurgy " * 9  # many pieces a word, so that the cut falls inside one
    longer = Tokenizer(Tokenizer.Settings(context=400)).encode([text])
    assert torch.equal(SMALL_TOKENIZER.encode([text])[0, :-1], longer[0, :31])


def test_a_caption_cannot_end_itself() -> None:
    spelled = SMALL_TOKENIZER.encode(["a cat <end_of_text> <START_OF_TEXT> and a dog"])
    assert torch.equal(spelled, SMALL_TOKENIZER.encode(["a cat and a dog"]))


@pytest.mark.parametrize("text", ["a" * 10**6, "\u65e5" * 10**6, "!" * 10**6, "a b " * 10**6, "&" * 10**5])
def test_monstrous_captions_cost_little(text: str) -> None:
    start = time.process_time()
    SMALL_TOKENIZER.encode([text])
    assert time.process_time() - start < 1  # the square of a million would be days


def test_trim_drops_only_what_follows_the_last_end() -> None:
    tokens = SMALL_TOKENIZER.encode(["a cat", "a small red cat", ""])
    trimmed = SMALL_TOKENIZER.trim(tokens)
    assert trimmed.shape == (3, 6) and torch.equal(trimmed, tokens[:, :6]) and tokens[:, 6:].eq(0).all()
    assert SMALL_TOKENIZER.trim(SMALL_TOKENIZER.encode(["word " * 99])).shape == (1, 32)
    assert SMALL_TOKENIZER.trim(SMALL_TOKENIZER.encode([])).shape == (0, 32)


def test_words_of_the_embedded_world_are_short() -> None:
    words = {word for name in CODES for word in f"{name} {plural(name)}".split() if word.isalpha()}
    words |= set(build.GRAMMAR.split())
    lengths = {word: len(SMALL_TOKENIZER._encode(word)) for word in words}
    assert max(lengths.values()) <= 2, {word for word, length in lengths.items() if length > 2}


def test_the_script_gives_the_same_file_again() -> None:
    assert build.pack(build.learn(build.read_words(), build.MERGE_COUNT)) == SMALL.read_bytes()


def test_merges_are_those_counted_by_hand() -> None:
    words = {"hug": 10, "pug": 5, "pun": 12, "bun": 4, "hugs": 5}
    # p+u 17 (pug, pun); then h+u 15 (hug, hugs), as u+n has only bun left; then pu+n 12; then hu+g 10.
    assert build.learn(words, 4) == [("p", "u"), ("h", "u"), ("pu", "n</w>"), ("hu", "g</w>")]


def test_a_context_too_short_is_named() -> None:
    with pytest.raises(RizbinError, match="context is 2 tokens"):
        Tokenizer(Tokenizer.Settings(context=2))


def test_a_batch_costs_little() -> None:
    captions = [f"a small red cat on the left of {number} large fire engines and a green tree" for number in range(128)]
    SMALL_TOKENIZER.encode(captions)
    start = time.process_time()
    SMALL_TOKENIZER.encode(captions)
    assert time.process_time() - start < 0.05  # 6 ms on an idle core; the bound only catches a lost cache
