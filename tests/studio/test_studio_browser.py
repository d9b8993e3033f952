"""Clicks through the studio in Chromium on the bundled models: `make test-browser`.

What the page shows is held against the Python API; no request leaves the machine, nothing is said on the console, and
axe finds no violation in either language, theme or width.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1500)]
PATIENCE = 240_000
"""Milliseconds: a processor that other work shares loads torch and a model in a minute."""
PANELS = ("draw", "find", "look", "search", "runs", "learn")


@dataclass
class Served:
    """A studio that runs as a person starts it."""

    folder: Path
    port: int = 0
    models: tuple[str, ...] = ()
    process: Any = None
    link: str = ""
    foreign: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        words = ["studio", "--folder", str(self.folder / "studio"), "--runs", str(self.folder / "runs")]
        words += [word for model in self.models for word in ("--model", model)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rizbin", *words, "--port", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        for line in self.process.stdout:
            if address := re.search(r"http://127\.0\.0\.1:(\d+)/#token=\S+", line):
                self.link, self.port = address.group(), int(address.group(1))
                return
        raise AssertionError("the studio printed no link")

    @property
    def address(self) -> str:
        return self.link.split("#")[0]

    def kill(self) -> None:
        """As by kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.process.stdout.close()

    def job(self, name: str) -> Path:
        return self.folder / "studio" / "jobs" / name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    from tests.detection.toys import save_sam

    studio = Served(tmp_path_factory.mktemp("served"))
    save_sam(studio.folder / "sam")
    studio.models = (str(studio.folder / "sam"),)
    studio.start()
    yield studio
    studio.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("RIZBIN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    assert path, "Chromium is missing: apt-get install chromium, or name one with RIZBIN_CHROMIUM."
    with sync_playwright() as playwright:
        # Without its own sandbox, which needs what containers forbid; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    """A page that has opened the link; at the end nothing foreign was asked and nothing was said on the console."""
    served.foreign.clear()
    served.said.clear()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    page = watched(context.new_page(), served)
    page.goto(served.link)
    page.wait_for_selector("h1")
    yield page
    context.close()
    assert not served.foreign and not served.said


def watched(page: Any, served: Served) -> Any:
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: _note(request.url, served))
    page.on("console", lambda line: served.said.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: served.said.append(str(error)))
    return page


def _note(url: str, served: Served) -> None:
    if not url.startswith((served.address, "blob:", "data:")):
        served.foreign.append(url)


def go(page: Any, served: Served, panel: str) -> None:
    page.goto(f"{served.address}#/{panel}")
    page.wait_for_selector(f'nav a[href="#/{panel}"][aria-current="page"]')
    page.wait_for_selector("main h1")


def ask(page: Any, path: str, body: Any = None) -> Any:
    """What the server answers to the page."""
    script = """async ([path, body]) => {
        const headers = {"X-Rizbin-Token": localStorage.getItem("rizbin-token")};
        const answer = await fetch("/api/" + path, body === null ? {headers} :
            {method: "POST", headers, body: JSON.stringify(body)});
        return await answer.json();
    }"""
    return page.evaluate(script, [path, body])


def scene(page: Any, number: int, preset: str = "easy") -> dict[str, Any]:
    return ask(page, "scenes", {"preset": preset, "number": number})


def until(page: Any, condition: str) -> None:
    """Waits until JavaScript is true; the page's policy forbids it to look itself, as that evaluates a text."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(5)


def shoot(page: Any, name: str) -> None:
    """A picture of the whole page for a person, in the folder that RIZBIN_SHOTS names."""
    if folder := os.environ.get("RIZBIN_SHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def wait_for(job: Path, seconds: float = 240) -> dict[str, Any]:
    """How a job ended."""
    end = time.monotonic() + seconds
    while not (job / "done.json").is_file():
        assert time.monotonic() < end, (job / "log.txt").read_text()
        time.sleep(0.1)
    return json.loads((job / "done.json").read_text())


def test_the_first_paint_comes_within_a_second_and_the_token_leaves_the_address(page: Any, served: Served) -> None:
    assert "token" not in page.url
    times = [
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        for _ in range(3)
        if page.reload()
    ]
    assert min(times) < 1000
    assert page.title() == "Draw · Rizbin"


def test_without_the_token_the_page_says_what_is_missing(browser: Any, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.address)
    page.wait_for_selector("text=needs the link")
    context.close()


def test_drawing_shows_every_step_and_gives_the_pixels_of_the_command_line(
    page: Any, served: Served, tmp_path: Path
) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from PIL import Image

    from rizbin.workflows.generate import generate
    from rizbin.workflows.load import load_text_to_image

    go(page, served, "draw")
    page.get_by_label("What to draw").fill("a zebra and a frog")
    page.locator('label:has-text("steps") input').first.fill("6")
    page.locator("form button.main").click()
    page.wait_for_selector(".strip button >> nth=2")
    job = served.job(page.url.rsplit("/", 1)[1])
    page.reload()  # in mid-job: what has been seen comes again
    assert wait_for(job)["state"] == "done"
    until(page, "document.querySelectorAll('.strip button').length === 6")
    line = page.locator(".stage .command code").inner_text()
    assert line == "rizbin generate 'a zebra and a frog' --steps=6 --guidance-scale=4"
    events = [json.loads(line) for line in (job / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(6))
    assert {word["word"] for word in steps[0]["words"]} == {"zebra", "frog"}
    page.locator('input[type="range"]').first.focus()
    page.keyboard.press("Home")
    page.wait_for_selector("text=Step 1 of 6")
    (made,) = generate(["a zebra and a frog"], steps=6, guidance_scale=4.0, output=tmp_path / "drawn", quiet=True)
    assert np.array_equal(np.asarray(Image.open(job / "drawn" / "0000.png")), made.painted.image)
    first = np.asarray(Image.open(job / steps[-1]["seen"]))
    assert first.shape == made.painted.image.shape
    model = load_text_to_image("diffusion-mini")
    for event, frame in zip(steps, made.painted.frames, strict=True):
        assert frame.noise_change is not None and frame.without_prompt is not None and frame.with_prompt is not None
        assert event["change"] == round(frame.noise_change, 4) > 0
        for name, latents in (("without", frame.without_prompt), ("with", frame.with_prompt)):
            assert np.array_equal(np.asarray(Image.open(job / event[name])), model.decode(latents)), name
    page.get_by_role("button", name="Guidance").click()
    until(page, "[...document.querySelectorAll('.trio img')].filter((image) => image.naturalWidth > 0).length === 3")
    assert f"the prompt changes {100 * steps[0]['change']:.1f}%" in page.locator(".stage").inner_text()
    page.locator(".spark svg").wait_for()
    for size in (1280, 390):
        page.set_viewport_size({"width": size, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= size
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        shoot(page, f"draw-{size}")


def test_an_ascent_is_seen_as_it_climbs(page: Any, served: Served, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from PIL import Image

    from rizbin.workflows.ascend import ascend

    go(page, served, "draw")
    page.get_by_role("button", name="Ascent").click()
    page.get_by_label("What to draw").fill("a strawberry")
    page.locator('label:has-text("steps") input').first.fill("12")
    page.locator("form button.main").click()
    page.wait_for_selector(".strip button >> nth=1")
    page.reload()  # in mid-job: what has been seen comes again
    job = served.job(page.url.rsplit("/", 1)[1])
    assert wait_for(job)["state"] == "done"
    page.wait_for_selector("text=seed 0")
    assert page.locator(".stage .command code").inner_text() == "rizbin ascend 'a strawberry' --steps=12"
    events = [json.loads(line) for line in (job / "events.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(12))
    frames = []
    (made,) = ascend(
        ["a strawberry"],
        steps=12,
        output=tmp_path / "ascended",
        quiet=True,
        watch=lambda frame, number: frames.append(frame),
    )
    assert [event["score"] for event in steps] == [round(frame.score, 4) for frame in frames]
    for event, frame in zip(steps, frames, strict=True):
        assert np.array_equal(np.asarray(Image.open(job / event["seen"])), frame.images[0])
    assert np.array_equal(np.asarray(Image.open(job / "drawn" / "0000.png")), np.asarray(Image.open(made.file)))
    page.locator('.stage input[type="range"]').focus()
    page.keyboard.press("Home")
    page.wait_for_selector("text=Step 1 of 12")
    page.locator(".spark svg").wait_for()
    assert Axe().run(page).violations_count == 0
    shoot(page, "ascent-1280")


def test_two_tabs_see_one_job_and_stopping_it_leaves_no_process(page: Any, served: Served) -> None:
    job = ask(
        page,
        "jobs",
        {"command": "generate", "panel": "draw", "title": "long", "given": {"prompts": ["a cat"], "steps": 900}},
    )
    second = watched(page.context.new_page(), served)
    for tab in (page, second):
        tab.goto(f"{served.address}#/draw/{job['id']}")
        tab.reload()
        tab.wait_for_selector(".strip button >> nth=1")
    process = json.loads((served.job(job["id"]) / "process.json").read_text())
    second.locator(".stage button", has_text="Stop").click()
    assert wait_for(served.job(job["id"]), 30)["state"] == "stopped"
    end = time.monotonic() + 10
    while Path(f"/proc/{process['pid']}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{process['pid']}").exists()
    page.locator(".stage button", has_text="Stop").wait_for(state="hidden")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Served]:
    """A studio that the test starts, and that ends with it."""
    studio = Served(tmp_path)
    yield studio
    if studio.process is not None and studio.process.poll() is None:
        studio.stop()


def test_a_job_outlives_the_server_and_is_found_again(browser: Any, other: Served) -> None:
    studio = other
    studio.start()
    context = browser.new_context(locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(studio.link)
    page.wait_for_selector("h1")
    given = {"prompts": ["a cat"], "steps": 60}
    job = ask(page, "jobs", {"command": "generate", "panel": "draw", "title": "cat", "given": given})
    page.goto(f"{studio.address}#/draw/{job['id']}")
    page.wait_for_selector(".strip button >> nth=1")
    studio.kill()
    assert not (studio.job(job["id"]) / "done.json").exists()
    studio.start()
    page.goto(studio.link)
    page.wait_for_selector("h1")
    assert [each["id"] for each in ask(page, "jobs")["jobs"]] == [job["id"]]
    page.goto(f"{studio.address}#/draw/{job['id']}")
    assert wait_for(studio.job(job["id"]))["state"] == "done"
    page.wait_for_selector("text=seed 0")
    context.close()
    studio.stop()


def test_a_click_shows_what_is_similar_within_200_milliseconds(page: Any, served: Served) -> None:
    from rizbin.visualization.inputs import read_images
    from rizbin.visualization.passes import over
    from rizbin.visualization.similarity import similarity_to
    from rizbin.workflows.load import load_encoder

    first, second = scene(page, 1), scene(page, 2)
    go(page, served, "look")
    page.reload()
    page.locator(".tray button").nth(1).click()
    page.get_by_label("Compare with a second picture").check()
    page.locator(".tray button").nth(0).click()
    until(page, "document.querySelectorAll('.duo canvas').length === 2")
    shown = page.evaluate("window.studioLook.pictures")
    assert set(shown) == {first["id"], second["id"]}
    canvas = page.locator("canvas.press")
    box = canvas.bounding_box()
    times = []
    for place in (0.2, 0.4, 0.6, 0.8):
        begin = page.evaluate("window.studioLook = null, performance.now()")
        canvas.click(position={"x": box["width"] * place, "y": box["height"] * place})
        until(page, "window.studioLook !== null")
        times.append(page.evaluate("window.studioLook.at") - begin)
    assert sorted(times)[1] < 200
    state = page.evaluate("window.studioLook")
    encoder = load_encoder("detailclip-mini")
    file = str(served.folder / "studio" / "pictures" / f"{state['pictures'][0]}.png")
    features = over(encoder, [read_images(file, encoder).shown[0].image], encoder.patches)[0]
    assert np.allclose(state["maps"][0], similarity_to(features, *state["spot"]), atol=1e-3)
    canvas.focus()
    page.evaluate("window.studioLook = null")
    page.keyboard.press("ArrowLeft")
    until(page, "window.studioLook !== null")
    assert page.evaluate("window.studioLook.spot") == [state["spot"][0], state["spot"][1] - 1]
    for name, selector in (("Attention", ".heads canvas"), ("Colors", ".duo canvas")):
        page.get_by_role("button", name=name).click()
        page.wait_for_selector(selector)
    page.get_by_role("button", name="Words").click()
    page.get_by_label("Words, parted by commas").fill("octopus, elephant")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.heads canvas').length === 4")
    until(page, "document.querySelector('main .command code').textContent.startsWith('rizbin visualize words')")


def test_finding_agrees_with_python_and_a_slider_needs_no_new_pass(page: Any, served: Served) -> None:
    from rizbin.workflows.load import load_detector

    made = scene(page, 1)
    assert made["caption"] == "an elephant and an octopus"
    go(page, served, "find")
    page.reload()
    page.locator(f'.tray button[title="{made["caption"]}"]').first.click()
    page.get_by_label("What to look for").fill("an elephant\nan octopus\na bicycle")
    page.locator("form button.main").click()
    page.wait_for_selector(".slider >> nth=2")
    until(page, "window.studioBoxes !== undefined")
    boxes = page.evaluate("window.studioBoxes")
    file = served.folder / "studio" / "pictures" / f"{made['id']}.png"
    phrases = ["an elephant", "an octopus", "a bicycle"]
    detector = load_detector("detector-mini")
    threshold = float(page.locator(".slider input").first.input_value())
    right = detector.detect([file], phrases)[0].choose(0.3, thresholds=dict.fromkeys(phrases, threshold))
    assert [box["name"] for box in boxes] == right.labels
    assert np.allclose([box["box"] for box in boxes], right.boxes, atol=0.01)
    before = len(boxes)
    begin = page.evaluate("window.studioBoxes = null, performance.now()")
    page.locator(".slider input").nth(0).fill("0.01")
    until(page, "window.studioBoxes !== null")
    assert page.evaluate("performance.now()") - begin < 1000
    assert len(page.evaluate("window.studioBoxes")) > before
    page.locator(".slider input").nth(0).fill(f"{threshold}")
    until(page, f"document.querySelectorAll('svg rect').length === {before}")
    box = page.locator(".boxes svg").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + box["height"] - 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 65, box["y"] + box["height"] - 5, steps=4)
    page.mouse.up()
    assert len(page.evaluate("window.studioBoxes")) == before + 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Export COCO").click()
    coco = json.loads(Path(download.value.path()).read_text())
    assert len(coco["annotations"]) == before + 1 and [each["name"] for each in coco["categories"]] == phrases
    page.locator(".boxes svg").focus()
    page.keyboard.press("Delete")
    assert len(page.evaluate("window.studioBoxes")) == before
    page.get_by_role("button", name="Why these boxes?").click()
    page.wait_for_selector("text=How much each place looks like the phrase")
    shown = ".boxes canvas:not([hidden])"
    likeness = page.eval_on_selector_all(shown, "all => all.map(one => one.toDataURL())")
    page.get_by_role("button", name="Words, layer 2").first.click()
    layer = page.eval_on_selector_all(shown, "all => all.map(one => one.toDataURL())")
    assert len(layer) == len(likeness) and layer != likeness, "where the words look is another map"
    assert page.get_by_role("button", name="Words, layer 1").count() >= 1


def test_masks_are_drawn_and_all_pictures_stand_in_a_grid(page: Any, served: Served) -> None:
    from axe_playwright_python.sync_playwright import Axe

    from rizbin.data.image_io import read_image
    from rizbin.detection.masks import Segmenter, run_lengths

    made = scene(page, 1)
    scene(page, 2)
    go(page, served, "find")
    page.reload()
    page.locator(f'.tray button[title="{made["caption"]}"]').first.click()
    page.get_by_label("What to look for").fill("an elephant\nan octopus")
    page.get_by_text("More settings").click()
    page.get_by_label("Masks by").select_option(served.models[0])
    page.locator("form button.main").click()
    until(page, "window.studioBoxes?.length > 0")
    boxes = page.evaluate("window.studioBoxes")
    until(page, f"document.querySelector('.boxes canvas').dataset.masks === '{len(boxes)}'")
    file = served.folder / "studio" / "pictures" / f"{made['id']}.png"
    segmenter = Segmenter.from_pretrained(served.folder / "sam")
    right = segmenter.masks(file, np.array([box["box"] for box in boxes], np.float32))[0]
    script = """() => { const canvas = document.querySelector('.boxes canvas');
        const cells = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return [canvas.width, canvas.height, [...cells].filter((value, index) => index % 4 === 3)]; }"""
    width, height, alpha = page.evaluate(script)
    assert np.array_equal(np.array(alpha).reshape(height, width) > 0, right.any(axis=0))
    with page.expect_download() as download:
        page.get_by_role("button", name="Export COCO").click()
    coco = json.loads(Path(download.value.path()).read_text())
    assert [each["segmentation"] for each in coco["annotations"]] == [run_lengths(mask) for mask in right]
    assert f"--masks={served.models[0]}" in page.locator(".card .command code").first.inner_text()
    page.get_by_role("button", name="Find in all pictures").click()
    grid = page.get_by_role("region", name="In all pictures")
    grid.locator(".chip.done").wait_for()
    grid.locator("figure >> nth=1").wait_for()
    (job,) = (job for job in ask(page, "jobs")["jobs"] if job["words"][0] == "detect")
    found = json.loads((served.job(job["id"]) / "found.json").read_text())
    count = len(json.loads(json.dumps(ask(page, "pictures")))["pictures"])
    assert grid.locator("figure").count() == len(found["images"]) == count
    assert f"{len(found['annotations'])} boxes in" in grid.inner_text() and "segmentation" in found["annotations"][0]
    until(page, "[...document.querySelectorAll('.grid.wide img')].every((image) => image.naturalWidth > 0)")
    drawn = sorted(np.asarray(read_image(path)).shape[1] for path in (served.job(job["id"]) / "drawn").glob("*.png"))
    widths = page.evaluate("[...document.querySelectorAll('.grid.wide img')].map((image) => image.naturalWidth).sort()")
    assert sorted(widths) == drawn
    grid.locator("figure button").last.focus()
    page.evaluate("window.studioBoxes = null")
    page.keyboard.press("Enter")
    until(page, "window.studioBoxes !== null")
    for size in (1280, 390):
        page.set_viewport_size({"width": size, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= size
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        shoot(page, f"find-{size}")


def test_searching_agrees_with_python(page: Any, served: Served) -> None:
    from rizbin.workflows.load import load_encoder

    for number in (1, 2, 3):
        scene(page, number)
    go(page, served, "search")
    page.reload()
    page.wait_for_selector(".tray button >> nth=2")
    page.get_by_label("Words to search for").fill("an octopus")
    page.keyboard.press("Enter")
    page.wait_for_selector(".grid figure >> nth=1")
    nearest = page.evaluate("window.studioFound")
    assert "rizbin search 'an octopus' --in vectors.npz" in page.locator("code").all_inner_texts()[-1]
    encoder = load_encoder("detailclip-mini")
    files = [served.folder / "studio" / "pictures" / f"{name}.png" for name, _ in nearest]
    right = encoder.similarity(files, ["an octopus"])[:, 0].tolist()
    assert np.allclose([score for _, score in nearest], right, atol=1e-3) and right == sorted(right, reverse=True)
    page.evaluate("window.studioFound = null")
    page.locator(".grid figure button").first.click()
    until(page, "window.studioFound !== null")
    assert len(page.evaluate("window.studioFound")) == len(nearest) - 1


def test_a_part_of_a_picture_is_searched_for(page: Any, served: Served) -> None:
    from axe_playwright_python.sync_playwright import Axe

    from rizbin.studio.desk import Desk

    for number in (1, 2, 3, 4):
        scene(page, number)
    go(page, served, "search")
    page.reload()
    page.locator(".tray button").first.click()
    until(page, "Boolean(window.studioFound)")
    assert page.evaluate("window.studioPlaces") is None
    like = page.evaluate("document.querySelector('.query img').src")
    box = page.locator(".query svg").bounding_box()
    page.evaluate("window.studioPlaces = null")
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.7 * box["height"], steps=4)
    page.mouse.up()
    until(page, "Boolean(window.studioPlaces)")
    nearest, places = page.evaluate("[window.studioFound, window.studioPlaces]")
    line = page.locator("main .command code").last.inner_text()
    words = line.split()
    region = [float(word) for word in words[words.index("--region") + 1 :][:4]]
    assert np.allclose(region, [0.1, 0.2, 0.6, 0.7], atol=0.02)
    pictures = [each["id"] for each in ask(page, "pictures")["pictures"]]
    chosen = Path(words[words.index("--image") + 1]).stem
    desk = Desk(served.folder / "studio")
    right = desk.do_search("detailclip-mini", pictures, "", chosen, region)
    assert nearest == right["nearest"] and places == right["boxes"]
    assert page.locator(".placed rect").count() == len(nearest)
    page.evaluate("window.studioPlaces = null")
    page.keyboard.press("ArrowRight")
    until(page, "Boolean(window.studioPlaces)")
    assert page.evaluate("document.activeElement === document.querySelector('.query svg')")
    moved = page.locator("main .command code").last.inner_text()
    assert f"--region {region[0] + 0.04:g} {region[1]:g} {region[2] + 0.04:g} {region[3]:g}" in moved
    for size in (1280, 390):
        page.set_viewport_size({"width": size, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= size
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        shoot(page, f"search-{size}")
    page.evaluate("window.studioFound = null")
    page.keyboard.press("Delete")
    until(page, "Boolean(window.studioFound)")
    assert page.evaluate("window.studioPlaces") is None and page.locator(".placed").count() == 0
    assert page.evaluate("document.querySelector('.query img').src") == like


def test_a_training_draws_its_curve_and_is_stopped_and_goes_on(page: Any, served: Served) -> None:
    go(page, served, "runs")
    page.get_by_label("Method").select_option("clip")
    until(page, "document.querySelector('main .command code').textContent.includes('train clip')")
    page.locator('label:has-text("steps") input').first.fill("400")
    page.locator('label:has-text("batch") input').first.fill("8")
    page.get_by_text("More settings").click()
    page.get_by_role("checkbox", name="report", exact=True).uncheck()
    page.locator("form button.main").click()
    page.wait_for_selector(".chart canvas")
    (run,) = (served.folder / "runs").iterdir()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Go on").click()
    page.wait_for_selector(".item .chip.done")
    assert json.loads((run / "finished.json").read_text())["steps"] == 400
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 400


def test_the_same_scenes_are_seen_at_each_checkpoint(page: Any, served: Served) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from PIL import Image

    from rizbin.studio.stills import key_of
    from rizbin.training.trainer import Trainer
    from rizbin.workflows import runs
    from rizbin.workflows.checkpoints import images_at
    from rizbin.workflows.presets import Training
    from tests.toys import tiny

    trainer = Trainer.Settings(log_every=1, keep_checkpoints=2)
    training = Training(
        method="detailclip",
        data="scenes:easy",
        steps=3,
        batch=4,
        checkpoint_every=1,
        trainer=trainer,
        settings=tiny("detailclip"),
    )
    run = runs.train(training, served.folder / "runs" / "toy", quiet=True)
    go(page, served, "runs")
    page.reload()
    page.get_by_role("checkbox", name="toy").check()
    until(page, "document.querySelector('.stills')?.dataset.shown === '3'")
    assert "rizbin visualize checkpoints" in page.locator("details code").last.inner_text()
    slider = page.get_by_role("slider", name="Checkpoint")
    slider.focus()
    for key, step in (("Home", 0), ("ArrowRight", 2), ("End", 3)):
        page.keyboard.press(key)
        until(page, f"document.querySelector('.stills').dataset.shown === '{step}'")
    assert slider.get_attribute("aria-valuetext") == "Step 3"
    page.get_by_role("button", name="Hidden patches").click()
    page.get_by_role("button", name="Reconstruction").click()
    until(page, "document.querySelector('.stills').dataset.shown === '3'")
    kept = served.folder / "studio" / "stills" / key_of(run)  # other tests' runs have images there too
    right = images_at(run, 3)
    for number, row in enumerate(right.images):
        for image in row:
            shown = np.asarray(Image.open(kept / "3" / f"{number}-{image.caption.lower()}.png"))
            assert np.array_equal(shown, image.image), image.caption
    width = "(image) => image.naturalWidth"
    assert page.locator(".stills img").nth(1).evaluate(width) == right.images[0][0].image.shape[1]
    shutil.rmtree(run / "checkpoints" / "step_000000002")  # as by a training that goes on
    page.reload()
    until(page, "document.querySelector('.stills')?.dataset.shown === '3'")
    page.get_by_role("slider", name="Checkpoint").focus()
    page.keyboard.press("ArrowLeft")
    until(page, "document.querySelector('.stills').dataset.shown === '2'")
    for size in (1280, 390):
        page.set_viewport_size({"width": size, "height": 900})
        until(page, f"document.documentElement.scrollWidth <= {size}")  # the chart follows the window
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        shoot(page, f"runs-{size}")
    shutil.rmtree(run)


def test_the_page_is_learned_from_questions(page: Any, served: Served) -> None:
    from rizbin.studies import course

    go(page, served, "learn")
    page.wait_for_selector("section.card >> nth=5")
    for lesson in (course.find("byol-collapse"), course.find("missing-objects")):
        study = lesson.command.split()[2]
        said = page.get_by_role("region", name=study, exact=True)
        assert said.locator("h2").inner_text() == lesson.question.en
        assert said.locator("p").first.inner_text() == lesson.reason.en
        said.locator("summary").click()
        assert lesson.number.en in said.inner_text()
    card = page.get_by_role("region", name="collapse")
    card.get_by_label("Minutes").fill("1")
    until(
        page,
        "[...document.querySelectorAll('code')].some((code) => code.textContent.includes('study collapse --budget=1'))",
    )
    card.get_by_role("button", name="Answer it").click()
    card.locator(".chip.running, .chip.waiting").first.wait_for()
    card.get_by_role("button", name="Stop").click()
    card.locator(".chip.stopped, .chip.failed").first.wait_for()


@pytest.mark.parametrize("language", ["en", "fa"])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_panel_is_accessible_and_fits(page: Any, served: Served, language: str, theme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate(
        "([language, theme]) => { localStorage.setItem('rizbin-language', language);"
        "localStorage.setItem('rizbin-theme', theme); }",
        [language, theme],
    )
    page.reload()
    for panel in PANELS:
        go(page, served, panel)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.dir") == ("rtl" if language == "fa" else "ltr")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, panel
        report = Axe().run(page)
        assert report.violations_count == 0, report.generate_report()
        assert (language == "fa") == bool(re.search("[\u0600-\u06ff]", page.locator("h1").inner_text()))
        if panel == "learn" and language == "fa":
            asked = page.locator("section.card h2").all_inner_texts()
            assert sum(bool(re.search("[\u0600-\u06ff]", words)) for words in asked) >= 9, asked


def test_the_keyboard_alone_draws(page: Any, served: Served) -> None:
    go(page, served, "draw")
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "TEXTAREA":
            break
    page.keyboard.type("a frog")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('form button.main')"):
            break
    page.keyboard.press("Enter")
    until(page, "location.hash.length > 10")
    job = page.url.rsplit("/", 1)[1]
    assert wait_for(served.job(job))["state"] == "done"
