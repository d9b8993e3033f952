"""What models know by name: articles and unknown words never decide, and what is unknown is said."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rizbin
from rizbin import cli, zoo
from rizbin.data.open import open_source
from rizbin.detection.detector import Detector
from rizbin.detection.phrases import ARTICLES, build_prompts, read_phrases
from rizbin.workflows.known_words import known_names, unknown_in
from rizbin.workflows.load import load_detector

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return load_detector("detector-mini")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A picture of a drawn world, and the name of something in it that begins with no vowel and is one word."""
    source = open_source("scenes:easy,categories=0", split="test", size=128)
    detector = load_detector("detector-mini")
    for number in range(40):
        sample = source[number]
        for name in sorted(sample.names):
            if name.isalpha() and name[0] not in "aeiou":
                (found,) = detector.detect([sample.image], [name])
                if np.nanmax(found.scores) > 0.6:
                    path = tmp_path_factory.mktemp("scene") / "0.png"
                    Image.fromarray(sample.image).save(path)
                    return path, name
    raise AssertionError("the detector finds nothing")


def test_a_thing_with_its_article_is_the_thing(detector: Detector, scene: tuple[Path, str]) -> None:
    path, name = scene
    plain, *others = (detector.detect([path], [one])[0] for one in (name, f"a {name}", f"The {name}."))
    for one in others:
        np.testing.assert_array_equal(one.scores, plain.scores)
        assert not one.notes
    (verdict,) = rizbin.verify(path, [f"a {name}"], model="detector-mini")
    assert verdict.state == "present" and not verdict.notes


def test_unknown_words_are_said_and_do_not_decide(scene: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    path, name = scene
    words = ["verify", str(path), f"a gleeful {name}", "--model", "detector-mini"]
    assert cli.main([*words, "--distractor", f"toy {name}"]) == 0
    said = capsys.readouterr().out
    assert "present" in said and 'does not know "gleeful"' in said and "toy" in said
    assert cli.main(["verify", str(path), "a zeppelin", "--model", "detector-mini"]) == 3
    assert "unsure" in (said := capsys.readouterr().out) and "knows no word" in said


def test_several_in_the_form_of_grounding_dino(scene: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    path, name = scene
    assert cli.main(["detect", str(path), "--find", f"{name}. zeppelin.", "--model", "detector-mini", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert f"0.png: {name} 0." in said and f"{name}. zeppelin" not in said


def test_whole_phrases_alone_come_back(detector: Detector, scene: tuple[Path, str]) -> None:
    path, name = scene
    for asked in ([name, f"a {name} crossing", f"toy {name}"], [f"toy {name}", f"a {name} crossing", name]):
        (found,) = detector.detect([path], asked)
        assert set(found.choose().labels) == {name}


def asked_in(line: str) -> list[str]:
    """The phrases that a command of detect or verify asks for."""
    words = shlex.split(line.split(";")[0], comments=True)
    if "verify" in words:
        kept = words[words.index("verify") + 2 :]
        return [word for word in kept if not word.startswith("--") and word != "detector-mini"]
    return [words[place + 1] for place, word in enumerate(words) if word in ("--find", "--distractor")]


def lines_that_ask() -> list[str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    found = [line for line in found if line.startswith(("rizbin detect", "rizbin verify"))]
    return [*found, *(cli.COMMANDS[name].example for name in ("detect", "verify"))]


@pytest.mark.parametrize("line", lines_that_ask())
def test_what_the_pages_ask_for_the_bundled_detector_knows(line: str, detector: Detector) -> None:
    """Every word but articles; so that a fresh reader's first command finds what is there."""
    phrases = asked_in(line)
    asked = build_prompts(read_phrases(phrases), detector.tokenizer)
    assert phrases and not asked.notes
    assert all(detector.tokenizer.unk_token_id not in text.ids for text in asked.texts) and "a" in ARTICLES


def test_a_prompt_that_a_model_cannot_know_says_what_it_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", "a cat on a sofa", "--steps", "1", "--output", str(tmp_path), "--quiet"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert '"cat" and "sofa" are not among them' in said
    assert all(name in said for name in known_names("diffusion-mini"))
    assert not unknown_in("a small zebra and two frogs", "diffusion-mini")
    assert not unknown_in("a photo of a unicorn", tmp_path), "of a model without a record nothing is known"
    assert unknown_in("a sofa", "tecoa-mini") and not unknown_in("a zebra", "tecoa-mini")


def test_the_zoo_lists_what_a_model_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["zoo", "detector-mini"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert len(known_names("detector-mini")) == 172 and all(name in said for name in known_names("detector-mini"))
    assert "detector-mini" in zoo.names()


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        ("generate a zebra and a frog", '"a zebra and a frog"'),
        ("repair zebra and frog", '"zebra and frog"'),
        ("ascend a zebra", '"a zebra"'),
        ("edit photo.png a taxi", '"a taxi"'),
        ("verify photo.jpg a cat --model detector-mini", '"a cat"'),
    ],
)
def test_a_prompt_without_its_quotes_is_noticed(
    words: str, quoted: str, empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    assert quoted in capsys.readouterr().err
    assert not list(empty_folder.iterdir())
