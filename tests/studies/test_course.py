"""The course: twelve questions in ten groups, in two languages, whose figures stand on the pages that they name."""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError
from rizbin.studies import course, questions, small
from rizbin.studies.course import Bilingual, Lesson
from rizbin.studies.learn import listed
from rizbin.studies.verdict import KINDS
from rizbin.workflows.presets import preset
from tests.toys import tiny

PAGES = Path(__file__).resolve().parent.parent.parent / "docs" / "studies"
LESSONS = [lesson for group in course.groups() for lesson in group.lessons]
FIGURE = re.compile(r"(?<![\w.])(?<![a-z]-)\d+(?:\.\d+)?(?![\w])")
SPELLED = re.compile(r"[\u0600-\u06ff]")


def words_of(page: str) -> str:
    """What a reader sees of a page."""
    text = (PAGES / page).read_text(encoding="utf-8")
    body = re.sub(r"<(style|script)>.*?</\1>|data:image[^\"]*", "", text, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", body))


def test_there_are_twelve_questions_in_ten_groups() -> None:
    groups = course.groups()
    assert [group.number for group in groups] == list(range(1, 11)) and len(LESSONS) == 12
    assert len({lesson.name for lesson in LESSONS}) == 12


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_is_whole_in_both_languages(lesson: Lesson) -> None:
    for both in (lesson.question, lesson.reason, lesson.number):
        assert both.en and SPELLED.search(both.fa) and not SPELLED.search(both.en)
    assert lesson.question.en.endswith("?") and lesson.question.fa.endswith("؟")
    assert 2 <= len(re.findall(r"[.?!](?:\s|$)", lesson.reason.en)) <= 3
    assert lesson.verdict in KINDS and lesson.small
    assert sorted(FIGURE.findall(lesson.number.en)) == sorted(FIGURE.findall(lesson.number.fa)), "the same figures"
    assert hasattr(small, lesson.job)
    words = lesson.command.split()
    known = {*questions.names(), *cli.STUDIES}
    assert words[:2] == ["rizbin", "study"] and words[2] in known


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_figures_and_verdict_are_those_of_the_page(lesson: Lesson) -> None:
    seen = set(FIGURE.findall(words_of(lesson.page)))
    assert not [figure for figure in FIGURE.findall(lesson.number.en) if figure not in seen]
    tag = re.search(r'data-verdict="([^"]+)"', (PAGES / lesson.page).read_text(encoding="utf-8"))
    shared = sum(other.page == lesson.page for other in LESSONS) > 1
    assert tag is None or shared or tag[1] == lesson.verdict, "the page was made anew"


@pytest.mark.parametrize("lesson", [one for one in LESSONS if one.job == "study"], ids=lambda lesson: lesson.name)
def test_a_small_size_trains_variants_that_exist_and_shows_itself(lesson: Lesson) -> None:
    settings: dict[str, Any] = {"start_steps": 0, "images": 0, **lesson.settings}
    asked = questions.find(settings.pop("study"))
    less = small.smaller(asked, says="small", **settings)
    assert [one.name for one in less.variants()] == [
        one.name for one in asked.variants() if one.name in settings["only"]
    ]
    assert len(less.variants()) == len(settings["only"]) and less.small == "small"
    if settings["start_steps"]:
        assert less.start is not None and less.start().steps == settings["start_steps"]
    with pytest.raises(RizbinError, match="no variant 'nothing'"):
        small.smaller(asked, only=("nothing",), start_steps=0, images=0, says="")


def test_a_new_question_is_a_lesson_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {**course._asked(), "temperature": "Why is a temperature needed?"}
    assert set(course._asked()) == set(questions.names())
    others = [lesson for lesson in course.lessons() if lesson.name in questions.names()]
    assert others and all(SPELLED.search(lesson.question.fa) for lesson in others), "each is asked in Persian too"
    monkeypatch.setattr(course, "_asked", lambda: asked)
    lesson = course.find("temperature")
    assert lesson.settings == {"study": "temperature"} and lesson.question.en == "Why is a temperature needed?"
    assert "Also asked" in listed() and "temperature" in listed() and "پرسش‌های دیگر" in listed("fa")
    with pytest.raises(RizbinError, match="no question 'nothing' in the course; there are patch-detail"):
        course.find("nothing")


def test_the_list_and_its_refusals(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["learn"]) == 0
    told = capsys.readouterr().out
    assert all(lesson.name in told for lesson in LESSONS) and "10. Images from CLIP" in told
    assert cli.main(["learn", "--language", "fa"]) == 0
    assert "چرا BYOL فرو نمی‌پاشد؟" in capsys.readouterr().out
    assert cli.main(["learn", "nothing"]) == 2 and "there are patch-detail" in capsys.readouterr().err
    assert cli.main(["learn", "dino", "--minutes", "0"]) == 2 and "too few" in capsys.readouterr().err


def test_a_question_is_answered_and_its_page_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `rizbin.learn` to the page, by the real study with networks of toys."""
    asked = questions.find("negatives")
    variants = [
        replace(one, training=replace(preset("simclr", "nano"), settings=tiny("simclr"), batch=8, steps=2))
        for one in asked.variants()
    ]
    monkeypatch.setattr(questions, "find", lambda name: replace(asked, variants=lambda: variants))
    monkeypatch.setattr("rizbin.studies.lab._planned", lambda *words, **more: 2)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    lesson = course.find("simclr-negatives")
    monkeypatch.setattr(course, "find", lambda name: replace(lesson, settings={**lesson.settings, "seeds": 1}))
    page = rizbin.learn("simclr-negatives", run=tmp_path / "run", open=True, quiet=True)
    assert isinstance(page, Path) and opened == [page.resolve().as_uri()]
    text = html.unescape(page.read_text())
    assert "this is a small size" in text and "two of 11 variants" in text and lesson.command in text
    assert re.search(r'data-verdict="[^"]+"', text) and (page.with_suffix(".json")).is_file()
    assert len(list((tmp_path / "run").glob("*/numbers.json"))) == 2


@pytest.mark.parametrize("name", ["grounding", "denoising", "missing", "ascent"])
def test_jobs_are_given_what_they_take(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each small size builds the settings of its study; what the study then does has tests of its own."""
    job = {
        "grounding": "study_grounding",
        "denoising": "study_denoising",
        "missing": "study_missing_objects",
        "ascent": "study_ascent",
    }[name]
    built: list[Any] = []
    monkeypatch.setattr(getattr(small, job), "run", lambda settings: built.append(settings) or settings.output)
    lesson = next(one for one in LESSONS if one.job == name)
    page = getattr(small, name)(tmp_path, 8.0, True, "a small size", **lesson.settings)
    assert page == tmp_path / "study.html" and built[0].small == "a small size" and built[0].quiet


def test_persian_numbers_keep_their_sign_and_names_their_digits() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("docs_tables_course", PAGES.parent / "tables.py")
    assert spec is not None and spec.loader is not None
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    assert tables.in_persian("AP50 برابر 91.0") == "AP50 برابر ۹۱٫۰"
    assert tables.in_persian("-0.2 و 3") == "\u200e\u2212۰٫۲\u200e و ۳"
    assert tables.in_persian("`--seeds 3` 3") == "`--seeds 3` ۳"
    text = (PAGES.parent / "questions.fa.md").read_text(encoding="utf-8")
    assert text.startswith('<div dir="rtl">') and text.rstrip().endswith("</div>")
    assert tables.verdict_of(Lesson(name="x", question=Bilingual("", ""), reason=Bilingual("", ""), command="")) == (
        "",
        False,
    )
