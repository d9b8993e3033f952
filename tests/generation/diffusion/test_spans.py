"""Objects of a prompt and their tokens, for every kind of tokenizer and any text."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.generation.diffusion.spans import ObjectPhrase, TokenSpan, end_of_text, objects_in, phrases_in, spans_of
from tests.generation.diffusion.toy_tokenizers import END, Slow, clip, real_clip, word_level

KINDS: dict[str, Callable[[], Any]] = {
    "clip": cache(clip),
    "clip padded with !": cache(lambda: clip(pad="!")),
    "word level": cache(word_level),
    "slow": cache(lambda: Slow(model_max_length=16)),
}


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a cat and a dog", ["cat", "dog"]),
        ("A photo of a red car, and the small blue bird.", ["red car", "small blue bird"]),
        ("a lion with a crown next to an old wooden fire hydrant", ["lion", "crown", "old wooden fire hydrant"]),
        ("a cat sitting on the left of a pair of shoes", ["cat", "shoes"]),
        ("an oil painting of a monkey, highly detailed, 4k", ["monkey"]),
        ("an orange in a bowl of soup", ["orange", "bowl of soup"]),
        ("a sandcastle", ["sandcastle"]),  # "and" within a word is no border
        ("", []),
        (" , . ! ", []),
    ],
)
def test_objects_are_proposed(prompt: str, expected: list[str]) -> None:
    assert objects_in(prompt) == expected


def test_the_noun_is_told_from_its_adjectives() -> None:
    assert phrases_in("two small red fire hydrants and an orange with a glass of water") == [
        ObjectPhrase("two small red fire hydrants", "fire hydrants"),
        ObjectPhrase("orange", "orange"),
        ObjectPhrase("glass of water", "glass"),
    ]


def test_positions_in_clip_count_the_start_token() -> None:
    spans, notes = spans_of("a Cat and a red  car", ["cat", "red car"], clip())
    assert spans == [TokenSpan("cat", (2,)), TokenSpan("red car", (5, 6))] and not notes
    names = clip().convert_ids_to_tokens(clip()("a Cat and a red  car").input_ids)
    assert [names[token] for span in spans for token in span.tokens] == ["cat</w>", "red</w>", "car</w>"]


@pytest.mark.parametrize(
    ("prompt", "word", "tokens"),
    [
        ("a photo of a zebra and a frog", "frog", (8,)),
        ("a photo of a zebra and a frog", "zebra", (5,)),
        ("an axolotl's bowl, red", "axolotl", (2, 3, 4, 5)),
        ("an axolotl's bowl, red", "bowl", (7,)),
        ("ein Quokka", "quokka", (2, 3, 4)),
    ],
)
def test_positions_among_clips_own_tokens(prompt: str, word: str, tokens: tuple[int, ...]) -> None:
    import open_clip

    (ids,) = open_clip.get_tokenizer("ViT-B-32")(prompt).tolist()
    assert real_clip()(prompt).input_ids == ids[: ids.index(49407) + 1]
    assert end_of_text(prompt, real_clip()) == ids.index(49407)
    spans, notes = spans_of(prompt, [word], real_clip())
    names = real_clip().convert_ids_to_tokens([ids[token] for token in spans[0].tokens])
    assert not notes and "".join(names) == word + "</w>"
    assert spans == [TokenSpan(word, tokens)]


def test_a_rare_word_has_several_tokens() -> None:
    prompt = "a zebra and a cat"
    (zebra, cat), notes = spans_of(prompt, ["zebra", "cat"], clip())
    names = clip().convert_ids_to_tokens(clip()(prompt).input_ids)
    assert "".join(names[token] for token in zebra.tokens) == "zebra</w>"
    assert len(zebra.tokens) > 1 and names[cat.tokens[0]] == "cat</w>" and not notes


@pytest.mark.parametrize(("kind", "first"), [("clip", 2), ("clip padded with !", 2), ("word level", 2), ("slow", 1)])
def test_every_kind_of_tokenizer(kind: str, first: int) -> None:
    spans, notes = spans_of("a cat and a dog, a catalog", ["dog", "cat"], KINDS[kind]())
    assert spans == [TokenSpan("dog", (first + 3,)), TokenSpan("cat", (first,))] and not notes


def test_a_word_asked_for_twice_takes_its_two_occurrences() -> None:
    spans, notes = spans_of("a cat and a red cat", ["cat", "cat", "cat"], clip())
    assert [span.tokens for span in spans] == [(2,), (6,)]
    assert notes == ['"cat" stands 2 times in the prompt and is taken there already, so one is left out.']


def test_a_longer_phrase_chooses_first() -> None:
    spans, notes = spans_of("a red car and a car", ["car", "red car"], clip())
    assert spans == [TokenSpan("car", (6,)), TokenSpan("red car", (2, 3))] and not notes


def test_what_is_missing_or_beyond_the_limit_is_said() -> None:
    prompt = "a cat and a dog " + "on the mat " * 40 + "with a car"
    spans, notes = spans_of(prompt, ["cat", "car", "zebra", " "], clip())
    assert spans == [TokenSpan("cat", (2,))]
    assert any("car" in note and "beyond the 77 tokens" in note for note in notes)
    assert any("zebra" in note and "not in the prompt" in note for note in notes)
    assert any("empty" in note for note in notes) and len(notes) == 3
    # 77 - 2 special tokens: the last that is read stands at 75, and the end token at 76.
    assert spans_of("cat " * 74 + "dog car", ["dog"], clip())[0] == [TokenSpan("dog", (75,))]
    assert spans_of("cat " * 75 + "dog car", ["dog"], clip())[0] == []


def test_two_encoders_must_agree() -> None:
    both = [clip(), clip(pad="!")]
    assert spans_of("a cat", ["cat"], both) == ([TokenSpan("cat", (2,))], [])
    spans, notes = spans_of("a zebra", ["zebra"], [clip(), word_level()])
    assert not spans and "differently" in notes[0]


@pytest.mark.parametrize("pad", [END, "!"])
@pytest.mark.parametrize("prompt", ["", "a cat", "a zebra, a cat!!!", "cat " * 100])
def test_the_end_of_text_is_where_the_padded_prompt_first_shows_it(pad: str, prompt: str) -> None:
    tokenizer = clip(pad=pad)
    ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=77).input_ids
    assert end_of_text(prompt, tokenizer) == ids.index(tokenizer.eos_token_id)


def test_the_end_of_text_without_such_a_token() -> None:
    assert end_of_text("a cat and", KINDS["slow"]()) == 3
    assert end_of_text("a cat and", word_level()) == 4
    assert end_of_text("a cat and " * 9, word_level(limit=10)) == 9


TEXT = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["cat", "گربه", "سگ و", "می‌روم", "🐈", "a", ",", "İ", "e\u0301", END, "\x00"])).map(
        " ".join
    ),
    st.just("cat dog " * 100),
)


@settings(deadline=None, max_examples=150)
@given(prompt=TEXT, words=st.lists(TEXT, max_size=4), kind=st.sampled_from(sorted(KINDS)))
def test_no_text_breaks_it(prompt: str, words: list[str], kind: str) -> None:
    tokenizer = KINDS[kind]()
    asked = [*words, *objects_in(prompt)]
    spans, notes = spans_of(prompt, asked, tokenizer)
    end = end_of_text(prompt, tokenizer)
    assert len(spans) + len(notes) == len(asked)
    assert 0 <= end <= tokenizer.model_max_length
    tokens = [token for span in spans for token in span.tokens]
    assert all(0 <= token < end for token in tokens) and len(tokens) == len(set(tokens))


@settings(deadline=None, max_examples=60)
@given(prompt=st.lists(st.sampled_from(["a", "cat", "dog", "red", "car", ",", "zebra"]), min_size=1, max_size=20))
def test_positions_hold_the_word(prompt: list[str]) -> None:
    tokenizer, text = KINDS["clip"](), " ".join(prompt)
    spans, _ = spans_of(text, prompt, tokenizer)
    assert [span.word for span in spans] == prompt
    names = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    for span in spans:
        assert "".join(names[token] for token in span.tokens) == span.word + "</w>"
