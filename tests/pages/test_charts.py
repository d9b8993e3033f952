"""Charts draw any series, with ticks that are round and lines that are true."""

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rizbin.pages.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Mark,
    Series,
    line_chart,
    log_ticks,
    number,
    smoothed,
    tick_labels,
    ticks,
)

values = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40)


def drawn(svg: str) -> list[tuple[float, float]]:
    """All points of the strong lines and dots, in drawing units."""
    root = ElementTree.fromstring(svg)
    points: list[tuple[float, float]] = []
    for part in root.iter():
        kinds = part.get("class", "").split()
        if part.tag == "polyline" and "line" in kinds:
            for pair in part.get("points", "").split():
                x, y = pair.split(",")
                points.append((float(x), float(y)))
        elif part.tag == "circle":
            points.append((float(part.get("cx", "nan")), float(part.get("cy", "nan"))))
    return points


@settings(deadline=None, max_examples=150)
@given(y=values, log=st.booleans())
def test_any_series_draws_inside_the_frame(y: list[float], log: bool):
    svg = line_chart([Series(name="a", x=range(len(y)), y=y)], title="t", log=log)
    for x, height in drawn(svg):
        assert LEFT - 0.1 <= x <= RIGHT + 0.1
        assert TOP - 0.1 <= height <= BOTTOM + 0.1


@pytest.mark.parametrize("y", [[2.0], [2.0] * 5, [0.0, 0.0], [-1e-30, -1e-30]])
def test_constant_and_single_values_are_drawn_in_the_middle(y: list[float]):
    points = drawn(line_chart([Series(name="a", x=range(len(y)), y=y)], title="t"))
    assert len(points) == len(y)
    assert all(TOP + 20 < height < BOTTOM - 20 or y[0] == 0 for _, height in points)


@pytest.mark.parametrize("y", [[], [math.nan] * 3, [math.inf]])
def test_nothing_to_draw_is_said(y: list[float]):
    assert "No values were recorded." in line_chart([Series(name="a", x=range(len(y)), y=y)], title="t")
    assert "No values were recorded." in line_chart([], title="t")


def test_a_gap_cuts_the_line():
    svg = line_chart([Series(name="a", x=[0, 1, 2, 3, 4], y=[1, 2, math.nan, 3, 4])], title="t")
    assert len(re.findall(r"<polyline", svg)) == 2
    assert "nan" not in svg


def test_points_stand_where_their_values_are():
    svg = line_chart([Series(name="a", x=[0, 5, 10], y=[0.0, 5.0, 10.0], smooth=False)], title="t")
    points = drawn(svg)
    low, high = (float(part) for part in ElementTree.fromstring(svg).attrib["data-range"].split()[2:])
    for (x, y), value in zip(points, (0.0, 5.0, 10.0), strict=True):
        assert x == pytest.approx(LEFT + value / 10 * (RIGHT - LEFT), abs=0.06)
        assert y == pytest.approx(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), abs=0.06)


def test_a_logarithmic_axis_spaces_powers_evenly():
    points = drawn(line_chart([Series(name="a", x=[0, 1, 2, 3], y=[1, 10, 100, 0], smooth=False)], title="t", log=True))
    assert len(points) == 3  # zero has no logarithm
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)


def test_thinning_keeps_the_peaks():
    y = np.zeros(100_000)
    y[77_777], y[12_345] = 9.0, -9.0
    svg = line_chart([Series(name="a", x=np.arange(100_000).tolist(), y=y.tolist(), smooth=False)], title="t")
    heights = [height for _, height in drawn(svg)]
    assert len(heights) < 1000
    assert min(heights) < TOP + 20
    assert max(heights) > BOTTOM - 20


def test_smoothing_is_the_centered_mean():
    y = np.random.default_rng(0).normal(size=50)
    y[20] = np.nan
    slow = []
    for i in range(50):
        half = min(3, i, 49 - i)
        near = [value for value in y[i - half : i + half + 1] if not np.isnan(value)]
        slow.append(math.nan if np.isnan(y[i]) else sum(near) / len(near))
    np.testing.assert_allclose(smoothed(y, 7), slow, atol=1e-12)


def test_a_smooth_line_stands_over_a_faint_one():
    y = np.random.default_rng(0).normal(size=500).tolist()
    svg = line_chart([Series(name="a", x=range(500), y=y)], title="t")
    assert 'class="raw s0"' in svg
    assert 'class="line s0"' in svg
    assert 'class="raw s0"' not in line_chart([Series(name="a", x=range(500), y=y, smooth=False)], title="t")


@settings(deadline=None)
@given(low=st.floats(-1e9, 1e9), spread=st.floats(1e-6, 1e3))
def test_ticks_are_round_few_and_inside(low: float, spread: float):
    high = low + spread * max(1.0, abs(low))  # a range that doubles can resolve
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * (high - low) <= tick <= high + 1e-6 * (high - low) for tick in found)
    assert found == sorted(found)


def test_ticks_of_known_ranges():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0, 0.31) == [0, 0.1, 0.2, 0.3]
    assert log_ticks(0.5, 2000) == [1, 10, 100, 1000]
    assert log_ticks(2.5, 7) == [5]


def test_marks_outside_the_range_are_left_out():
    marks = [Mark(x=1, text="<inside>"), Mark(x=99, text="outside")]
    svg = line_chart([Series(name="a", x=[0, 2], y=[1, 2])], title="t", marks=marks)
    assert "&lt;inside&gt;" in svg
    assert "outside" not in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0416, "0.0416"), (1.5, "1.5"), (12000, "12,000"), (3e-7, "3e-7"), (math.nan, "n/a"), (-2.0, "-2")],
)
def test_numbers_are_short(value: float, text: str):
    assert number(value) == text


@pytest.mark.parametrize(
    "low, high", [(5.5445, 5.5468), (0.0, 1.0), (100_000, 100_003), (5.5, 5.5000001), (1e-6, 1.2e-6)]
)
def test_no_label_of_an_axis_stands_there_twice(low: float, high: float) -> None:
    """An entropy that hangs at ln 256 = 5.545 was labelled 5.55, 5.55, 5.55."""
    texts = tick_labels(ticks(low, high))
    assert len(set(texts)) == len(texts) >= 2
    svg = line_chart([Series(name="h", x=[0, 1], y=[low, high])], title="t")
    heights = re.findall(r'text-anchor="end" x="43" [^>]*>([^<]*)<', svg)
    assert len(set(heights)) == len(heights) >= 2
