"""Names, prompts and tokens: whose score is whose, whatever is asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.core.errors import RizbinError
from rizbin.detection.phrases import (
    CLS,
    DOT,
    QUESTION,
    SEP,
    Phrase,
    PromptText,
    batch_of,
    build_prompts,
    named,
    phrase_map,
    phrase_scores,
    read_phrases,
)


class Words:
    """Numbers words as they come; "strange" is unknown, and so is what is no letter."""

    unk_token_id = 100

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens
        return [
            self.unk_token_id if word == "strange" else self.known.setdefault(word, 2000 + len(self.known))
            for word in text.split()
        ]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        special = {"[CLS]": CLS, "[SEP]": SEP, ".": DOT, "?": QUESTION}
        return [special[token] for token in tokens]


def test_all_ways_to_write_a_phrase() -> None:
    found = read_phrases(
        ["A Cat.", "Remote = a Remote Control | TV  remote?", {"bus": ["a bus", "omnibus"], "cup": "mug"}]
    )
    assert found == (
        Phrase("A Cat", ("a cat",)),
        Phrase("Remote", ("a remote control", "tv remote")),
        Phrase("bus", ("a bus", "omnibus")),
        Phrase("cup", ("mug",)),
    )
    assert read_phrases("cat") == (Phrase("cat", ("cat",)),)
    assert read_phrases([Phrase("N", ("No. 1",))])[0].prompts == ("no 1",)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ([], "nothing to look for"),
        (["..."], "no word"),
        (["cat", " "], "no name"),
        (["cat=dog|?!"], "no word"),
        (["=cat"], "no name"),
        (["cat", "dog", "cat"], '"cat" is asked for twice'),
    ],
)
def test_what_cannot_be_looked_for_gets_a_sentence(wanted: list[str], words: str) -> None:
    with pytest.raises(RizbinError, match=words):
        read_phrases(wanted)


def test_texts_are_put_together_from_tokens() -> None:
    asked = build_prompts(read_phrases(["cat", "dog=a dog|hound"]), Words())
    (text,) = asked.texts
    assert text.ids == (CLS, 2000, DOT, 2001, 2002, DOT, 2003, DOT, SEP)
    assert [(span.phrase, span.first, span.end) for span in text.spans] == [(0, 1, 2), (1, 3, 5), (1, 6, 7)]
    assert phrase_map(text, 2, 10).nonzero().tolist() == [[0, 1], [1, 3], [1, 4], [1, 6]]
    ids, kept = batch_of([text, PromptText((CLS, 2000, DOT, SEP), text.spans[:1])])
    assert ids.shape == (2, 9) and kept.sum(dim=1).tolist() == [9, 4]


def test_many_phrases_take_several_texts_and_none_is_lost() -> None:
    names = [f"thing{number} of kind{number}" for number in range(50)]
    asked = build_prompts(read_phrases(names), Words(), limit=20)
    assert all(len(text.ids) <= 20 for text in asked.texts)
    assert [phrase for text in asked.texts for phrase in text.phrases] == list(range(50))
    assert len(asked.texts) == 13  # four phrases of three words and a dot in each, between the two ends
    alone = build_prompts(read_phrases(names[:3]), Words(), separate=True)
    assert [text.phrases for text in alone.texts] == [(0,), (1,), (2,)]


def test_what_does_not_fit_is_cut_and_what_nobody_knows_is_named() -> None:
    long = " ".join(f"word{number}" for number in range(10_000))
    asked = build_prompts(read_phrases([long, "strange", "cat"]), Words(), limit=32)
    assert asked.cut == (long,) and asked.unknown == ("strange",) and asked.unasked == (1,)
    assert max(len(text.ids) for text in asked.texts) == 32


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("zebra. octopus.", ["zebra", "octopus"]),
        ("a zebra . an octopus .", ["a zebra", "an octopus"]),
        ("zebra. octopus", ["zebra", "octopus"]),
        ("Two Cats. red remote control.", ["Two Cats", "red remote control"]),
        ("St. Bernard", ["St. Bernard"]),
        ("dog. St. Bernard. cat.", ["dog", "St. Bernard", "cat"]),
        ("No. 1", ["No. 1"]),
        ("3.5 inch floppy", ["3.5 inch floppy"]),
        ("u.s. flag. tree.", ["u.s. flag", "tree"]),
        ("A. Lincoln", ["A. Lincoln"]),
        ("cat.", ["cat"]),
    ],
)
def test_grounding_dino_s_own_form_names_several(text: str, names: list[str]) -> None:
    found = read_phrases([text])
    assert [one.name for one in found] == names
    assert all(len(one.prompts) == 1 and "." not in one.prompts[0] for one in found)


def test_dots_in_prompts_of_one_name_part_its_prompts_and_names_of_data_stay_one() -> None:
    assert read_phrases(["pets=cat. dog."]) == (Phrase("pets", ("cat", "dog")),)
    assert [one.name for one in named(["bird. white", "a=b", "T. rex"])] == ["bird. white", "a=b", "T. rex"]
    with pytest.raises(RizbinError, match="in quotes"):
        read_phrases(["a", "cat"])


def test_articles_and_unknown_words_never_decide() -> None:
    words = Words()
    asked = build_prompts(read_phrases(["a cat", "strange dog", "cat", "vitamin a"]), words)
    (text,) = asked.texts
    a, cat, dog, vitamin = (words.known[word] for word in ("a", "cat", "dog", "vitamin"))
    assert text.ids == (CLS, a, cat, DOT, dog, DOT, cat, DOT, vitamin, a, DOT, SEP)
    assert [span.deciding for span in text.spans] == [[2], [4], [6], [8, 9]]
    assert asked.partly == (("strange dog", ("strange",)),)
    assert asked.notes == ('The network does not know "strange"; "strange dog" was asked for without it.',)
    probabilities = torch.full((1, 12), 0.01)
    probabilities[0, [2, 4, 6, 8, 9]] = torch.tensor([0.9, 0.8, 0.7, 0.2, 0.4])
    for over in ("mean", "max"):
        scores = phrase_scores(probabilities.logit(), text, 4, token_pooling=over)[0, :3]
        assert torch.allclose(scores, torch.tensor([0.9, 0.8, 0.7]), atol=1e-6)


def test_an_article_that_the_network_does_not_know_is_not_there_at_all() -> None:
    class NoArticles(Words):
        def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
            return [self.unk_token_id] if text in ("a", "an", "the") else super().encode(text, add_special_tokens=False)

    tokenizer = NoArticles()
    (text,) = build_prompts(read_phrases(["a cat"]), tokenizer).texts
    assert (
        text.ids == (CLS, tokenizer.known["cat"], DOT, SEP)
        and not build_prompts(read_phrases(["a cat"]), tokenizer).notes
    )


def test_what_cannot_be_told_apart_is_asked_for_once_and_said() -> None:
    """Neither answers for the other, in whatever order they come."""
    for names in (["cat", "strange cat"], ["strange cat", "cat"], ["the cat", "a strange cat"]):
        asked = build_prompts(read_phrases(names), Words())
        odd = next(place for place, name in enumerate(names) if "strange" in name)
        assert asked.unasked == (odd,) and asked.alike == ((names[odd], names[1 - odd]),)
        assert len(asked.notes) == 1 and "not asked for" in asked.notes[0]
    two = build_prompts(read_phrases(["strange cat", "cat strange"]), Words())
    assert two.unasked == (1,) and two.partly == (("strange cat", ("strange",)),)


def test_a_phrase_has_the_score_of_its_best_prompt() -> None:
    (text,) = build_prompts(read_phrases(["cat", "dog=big dog|hound"]), Words()).texts
    probabilities = torch.full((2, 9), 0.99)  # what is nobody's counts for nobody
    probabilities[0, [1, 3, 4, 6]] = torch.tensor([0.1, 0.4, 0.6, 0.2])
    probabilities[1, [1, 3, 4, 6]] = torch.tensor([0.7, 0.1, 0.3, 0.8])
    logits = probabilities.logit()
    assert torch.allclose(phrase_scores(logits, text, 2), torch.tensor([[0.1, 0.5], [0.7, 0.8]]), atol=1e-6)
    largest = phrase_scores(logits, text, 3, token_pooling="max")
    assert torch.allclose(largest[:, :2], torch.tensor([[0.1, 0.6], [0.7, 0.8]]), atol=1e-6)
    assert largest[:, 2].isnan().all()
    with pytest.raises(RizbinError, match="mean"):
        phrase_scores(logits, text, 2, token_pooling="median")


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    class Other(Words):
        def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
            return list(range(len(tokens)))

    with pytest.raises(RizbinError, match="needs 101, 102, 1012 and 1029"):
        build_prompts(read_phrases(["cat"]), Other())
    with pytest.raises(RizbinError, match="no room"):
        build_prompts(read_phrases(["cat"]), Words(), limit=3)


@settings(deadline=None, max_examples=150)
@given(
    names=st.lists(st.one_of(st.text(max_size=60), st.sampled_from([".", ",a,", "no. 1", "名 前", "x" * 3000]))),
    limit=st.integers(4, 40),
)
def test_no_prompt_of_any_script_crashes(names: list[str], limit: int) -> None:
    try:
        asked = build_prompts(read_phrases(names), Words(), limit=limit)
    except RizbinError as error:
        assert str(error).endswith(".")
        return
    for text in asked.texts:
        assert len(text.ids) <= limit and text.ids[0] == CLS and text.ids[-2:] == (DOT, SEP)
        assert all(text.ids[span.end] == DOT and span.first < span.end for span in text.spans)
    assert [phrase for text in asked.texts for phrase in text.phrases] == list(range(len(asked.phrases)))
