"""Pages are whole, escaped, and ask nobody for anything."""

import base64
import hashlib
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rizbin.core.errors import RizbinError
from rizbin.core.outputs import RECORD
from rizbin.pages.charts import Mark, Series, clean
from rizbin.pages.page import MOST_COLUMNS, Page
from rizbin.pages.pieces import BarCell, Fact, Link, Number, PageImage, Score, Strong, Swatch, figure_html, png

VOID = {"meta", "img", "br", "link", "input"}
EVIL = "<script>alert('x')</script> \"quoted\" & <img src=x onerror=y> \x00\x0b"


class Parser(html.parser.HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def parsed(page: str) -> Parser:
    parser = Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def picture(height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def full(text: str) -> Page:
    """A page with everything on it, the text everywhere that text can go."""
    page = Page(text, subtitle=text)
    page.heading(text)
    page.heading(text, level=3)
    page.heading("two")
    page.text(text, Strong(text), Link(text, 'https://example.org/?a=1&b="2"'))
    page.lead(text)
    page.note(text)
    page.warning(text)
    page.facts([Fact(value=text, label=text, detail=text)])
    page.explained([(text, text)])
    page.details(text, [(text, text)])
    page.curves(text, [Series(name=text, x=[1, 2], y=[1, 2])], marks=[Mark(x=1, text=text)], x_label=text)
    page.curves("second", [Series(name="a", x=[1], y=[1]), Series(name="b", x=[1, 2], y=[3, 4])], log=True)
    bar = BarCell(value=0.5, ticks=((text, 0.2), (text, None)))
    page.table([text, "b", "c", "d"], [(text, [[text, 1.5, Number(text, None), bar]])], caption=text, legend=[text])
    shown = PageImage(image=picture(), caption=text, alt=text, good=True)
    page.pictures([shown])
    page.card(
        text, [shown], small=text, legend=[Swatch(color=(1, 2, 3), text=text)], scores=[Score(name=text, value=0.5)]
    )
    page.credits(text)
    return page


def test_every_text_is_escaped():
    parser = parsed(full(EVIL).html())
    assert [tag for tag, _ in parser.tags].count("script") == 1  # the page's own
    assert not any(name.startswith("on") for _, attributes in parser.tags for name in attributes)
    assert parser.text.count("<script>alert('x')</script>") > 20  # as words, everywhere
    assert "\x00" not in full(EVIL).html()


@settings(deadline=None, max_examples=30)
@given(text=st.text(max_size=40))
def test_any_text_gives_a_page_that_can_be_written(text: str):
    parsed(full(text).html()).text.encode("utf-8")


def test_lone_surrogates_and_controls_are_replaced():
    assert clean("a\ud800b\x1fc\td") == "a\ufffdb\ufffdc\td"


def test_nothing_is_fetched():
    page = full("words").html()
    parser = parsed(page)
    for tag, attributes in parser.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "srcset", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:")
        if "href" in attributes:
            assert tag == "a"
    outside = re.findall(r"https?:", re.sub(r'<a href="https?:', "", page))
    assert outside == []
    assert "@import" not in page
    assert "url(" not in page


def test_the_policy_allows_only_what_is_inside():
    page = full("words").html()
    policy = next(
        str(attributes["content"]) for tag, attributes in parsed(page).tags if attributes.get("http-equiv") is not None
    )
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    # A style attribute would be refused by this policy, and the page would look wrong.
    assert not any("style" in attributes for _, attributes in parsed(page).tags)


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "//example.org", "", "HTTPS:/x"])
def test_links_lead_to_pages_only(address: str):
    with pytest.raises(RizbinError, match="https://"):
        Page("a").text(Link("x", address))


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 40), width=st.integers(1, 40), flat=st.booleans())
def test_pictures_of_any_size_come_back_exactly(height: int, width: int, flat: bool):
    image = np.full((height, width, 3), 7, np.uint8) if flat else picture(height, width)
    with Image.open(io.BytesIO(png(image))) as opened:
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), image)


def test_pictures_that_are_views_of_others_come_back_exactly():
    image = picture(30, 20)[::2, ::-1]
    with Image.open(io.BytesIO(png(image))) as opened:
        np.testing.assert_array_equal(np.asarray(opened), image)


def test_an_empty_picture_is_refused():
    with pytest.raises(RizbinError, match="0 x 4"):
        png(np.zeros((4, 0, 3), np.uint8))


def test_small_pictures_keep_their_pixels_sharp():
    assert 'class="sharp" width="8" height="8"' in figure_html(PageImage(image=picture(), alt="a"))
    assert 'class="soft"' in figure_html(PageImage(image=picture(300, 300), alt="a"))
    assert 'class="soft"' in figure_html(PageImage(image=picture(), alt="a", smooth=True))


def test_right_and_wrong_are_told_without_color():
    assert "✓" in figure_html(PageImage(image=picture(), alt="a", good=True))
    assert "✗" in figure_html(PageImage(image=picture(), alt="a", good=False))


def test_a_bar_is_as_long_as_its_value():
    page = Page("a")
    page.table(["b"], [("", [[BarCell(value=30, high=120, ticks=(("base", 60.0),))]])])
    page.table(["b"], [("", [[BarCell(value=float("nan"))], [BarCell(value=-5)], [BarCell(value=5)]])])
    widths = [
        float(str(attributes["width"]))
        for tag, attributes in parsed(page.html()).tags
        if attributes.get("class") == "fill"
    ]
    assert widths == [25, 0, 0, 100]
    assert '<line class="t0" x1="50.0"' in page.html()


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(RizbinError, match="2 cells"):
        Page("a").table(["one"], [("", [["x", "y"]])])


def test_order_is_the_order_of_the_calls():
    page = Page("a")
    page.text("first")
    page.curves("second", [])
    page.curves("third", [])
    page.text("fourth")
    whole = page.html()
    assert whole.index("first") < whole.index("second") < whole.index("third") < whole.index("fourth")
    assert whole.count('<div class="charts">') == 1


def contrast(first: str, second: str) -> float:
    """The contrast of two #rrggbb colors as WCAG 2.2 defines it."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1])
def test_colors_can_be_read_in_both_modes(mode: int):
    style = (Path(__file__).parents[2] / "rizbin/pages/page.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.S)[mode]))
    for ground in ("paper", "sheet"):
        for ink in ("ink", "quiet", "accent", "yes", "no"):
            assert contrast(colors[ink], colors[ground]) >= 4.5, (ink, ground)  # WCAG 1.4.3, text
        for line in range(8):
            assert contrast(colors[f"c{line}"], colors[ground]) >= 3, line  # WCAG 1.4.11, graphics
    assert contrast(colors["warn"], colors["warn-wash"]) >= 4.5


def test_writing_replaces_and_leaves_nothing_behind(tmp_path: Path):
    path = tmp_path / "report.html"
    assert full("old words").write(path) == path
    assert full("new words").write(path) == path
    assert "new words" in path.read_text(encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == [tmp_path / RECORD, path]
    path.write_text("changed by hand")
    assert full("newer words").write(path) == tmp_path / "report-2.html"
    assert path.read_text() == "changed by hand"


def test_a_page_that_cannot_be_written_says_so_and_keeps_the_old(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(RizbinError, match="could not be written"):
        Page("a").write(file / "report.html")
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "kept"


def test_a_wide_table_comes_in_parts_that_fit():
    """22 columns were cut off at 1,200 pixels; now each part has the first column and the rows of its own."""
    columns = ["Variant", *(f"number {place}" for place in range(21))]
    rows = [[name, *(100 * row + place for place in range(21))] for row, name in enumerate(("one", "other"))]
    page = Page("a")
    page.table(columns, [("group", rows)], caption="Percent")
    html = page.html()
    heads = [re.findall(r"<th scope=.col.[^>]*>(.*?)</th>", part) for part in re.findall(r"<thead>.*?</thead>", html)]
    assert all(head[0] == "Variant" and len(head) <= MOST_COLUMNS for head in heads)
    assert [name for head in heads for name in head[1:]] == columns[1:]
    assert [html.count(f">{value}<") for value in (0, 20, 100, 120)] == [1, 1, 1, 1]
    assert html.count('data-label="Variant"') == 2 * len(heads) and "Percent (1 of 3)" in html


def test_a_sheet_is_as_wide_as_it_is_up_to_the_page():
    """Not a cell of a grid: contact sheets of 1,200 pixels were shown 195 wide."""
    page = Page("a")
    page.sheets([PageImage(image=picture(100, 1200), alt="a", caption="a sheet")])
    assert '<div class="sheets"><figure><img class="soft" width="1200"' in page.html()
    assert re.search(r"\.sheets img \{ width: auto; max-width: 100%; \}", page.html())


def test_a_page_goes_where_no_folder_is_yet_and_says_why_not(tmp_path: Path):
    """A missing folder is made, and space is blamed only where there is none."""
    assert Page("a").write(tmp_path / "new" / "folder" / "page.html").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(RizbinError, match="choose another folder") as refused:
        Page("a").write(tmp_path / "file" / "page.html")
    assert "space" not in str(refused.value)
