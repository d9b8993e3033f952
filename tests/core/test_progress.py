import io
import sys
from collections.abc import Callable

import pytest

from rizbin.core import progress
from rizbin.core.progress import Bar


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def catch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., io.StringIO]:
    def install(out: io.StringIO | None = None) -> io.StringIO:
        out = out or io.StringIO()
        monkeypatch.setattr(sys, "stderr", out)
        return out

    return install


def test_plain_lines_first_now_and_then_and_last(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    with Bar(100, "training") as bar:
        for done in range(101):
            bar.update(done, loss=1.23456 / (done + 1), step=done)
            clock.now += 1
    assert out.getvalue().splitlines() == [
        "training: 0/100, loss 1.235  step 0",
        *(
            f"training: {n}/100, 1/s, {n // 60}:{n % 60:02d} elapsed, {(100 - n) // 60}:{(100 - n) % 60:02d} left, "
            f"loss {1.23456 / (n + 1):.4g}  step {n}"
            for n in range(10, 101, 10)
        ),
    ]


def test_the_last_line_comes_even_when_the_work_ends_early(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    with pytest.raises(ValueError), Bar(0, "reading") as bar:
        for done in (1, 2, 3):
            bar.update(done)
            clock.now += 1
        raise ValueError
    assert out.getvalue().splitlines() == ["reading: 1", "reading: 3, 1/s, 0:03 elapsed"]


def test_a_resumed_run_is_not_taken_for_a_fast_one(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    with Bar(2000, "training", start=1000) as bar:
        clock.now += 10
        bar.update(1020)
    assert out.getvalue() == "training: 1020/2000, 2/s, 0:10 elapsed, 8:10 left\n"


def test_terminal_shows_label_count_rate_and_four_numbers(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch(Terminal())
    with Bar(100, "training [x]") as bar:
        bar.update(0)
        clock.now += 10
        bar.update(50, loss=0.5, top1=float("nan"), word="yes", four=4, five=5)
        bar.say("news [of] the day")
        bar.warn("careful")
    shown = out.getvalue()
    for part in ("training [x]", "50/100", "5/s", "loss 0.5", "top1 nan", "word yes", "four 4", "news [of] the day"):
        assert part in shown, part
    assert "five" not in shown
    assert "warning: careful" in shown
    assert shown.count("\n") < 20


def test_quiet_prints_warnings_only(clock: Clock, catch: Callable[..., io.StringIO]):
    for kind in (io.StringIO, Terminal):
        out = catch(kind())
        with Bar(2, "x", quiet=True) as bar:
            bar.update(1)
            bar.update(2)
            bar.say("news")
            bar.warn("careful")
        assert out.getvalue().count("careful") == 1 and "news" not in out.getvalue() and "x" not in out.getvalue()


def test_long_lines_are_not_wrapped_in_a_log(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    with Bar(1, "x") as bar:
        bar.say("word " * 100)
    assert out.getvalue() == "word " * 100 + "\n"


def test_say_works_outside_with(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    Bar(1, "x").say("before")
    assert out.getvalue() == "before\n"


@pytest.mark.parametrize("value, spelled", [(0.000123456, "0.0001235"), (123456.0, "1.23e+05"), (7, "7"), (1.0, "1")])
def test_numbers(value: float, spelled: str):
    assert progress._number(value) == spelled


@pytest.mark.parametrize("seconds, spelled", [(0.0, "0:00"), (249.4, "4:09"), (3727.0, "1:02:07"), (59.9, "1:00")])
def test_durations(seconds: float, spelled: str):
    assert progress._duration(seconds) == spelled


def test_the_time_left_knows_of_a_costly_last_part(clock: Clock, catch: Callable[..., io.StringIO]):
    """Ten steps of a second, then ten of three: at half of the steps 30 seconds are left and not 10."""
    out = catch()
    with Bar(20, "training", costs=[(10, 0.5), (10, 1.5)]) as bar:
        clock.now += 10
        bar.update(10)
        clock.now += 15
        bar.update(15)
        clock.now += 15
        bar.update(20)
    assert [line.split(", ")[-1] for line in out.getvalue().splitlines()] == ["0:30 left", "0:15 left", "0:00 left"]


def test_a_resumed_run_counts_the_costs_of_what_is_left(clock: Clock, catch: Callable[..., io.StringIO]):
    out = catch()
    with Bar(20, "training", start=8, costs=[(10, 1.0), (10, 3.0)]) as bar:
        clock.now += 2
        bar.update(10)
    assert out.getvalue().endswith("0:30 left\n")
