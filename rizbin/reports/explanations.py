"""A page that explains boxes: words as bars, similar pixels as heat, where the query looked as points."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from rizbin.detection.detections import Detections
from rizbin.detection.draw import drawn
from rizbin.detection.explain import Explanation
from rizbin.pages.page import Page
from rizbin.pages.pieces import PageImage, Score
from rizbin.visualization.attention import overlay

POINTS = 48
"""Most sampling points drawn."""


def write_explanations(
    explained: Sequence[tuple[str, UInt8[np.ndarray, "_ _ 3"], Sequence[Explanation]]], target: Path
) -> Path:
    """Writes the page of (name, image, explanations) and returns its path.

    Raises RizbinError when it cannot be written.
    """
    page = Page("Why these boxes", subtitle=f"{sum(len(reasons) for _, _, reasons in explained)} boxes explained")
    page.explained(
        [
            ("Box", "What was found."),
            (
                "Looks like it",
                "How much each place by itself looks like the phrase, before any box is decided: bright is much.",
            ),
            (
                "Words, layer 1, 2, ...",
                "Where the phrase's words looked in each layer of the encoder, before any box was proposed: bright is "
                "densely. Below: how many times as densely as on the image's average they looked into the box.",
            ),
            (
                "Where it looked",
                "The places that the box's query read in the decoder; larger and brighter points weighed more.",
            ),
            (
                "Taken out",
                "The brightest tenth of the map is made gray and the score is measured again; then as much gray at "
                "other places. Where the first lowers the score more than the second, the map shows what matters.",
            ),
            ("Bars", "Each word's own score; the box's score is their mean."),
        ]
    )
    for name, image, explanations in explained:
        page.heading(name)
        if not explanations:
            page.text("Nothing was found.")
        for explanation in explanations:
            _card(page, image, explanation)
    page.credits("Made by Rizbin. This page is one file: it asks nobody for anything.")
    return page.write(target)


def _card(page: Page, image: UInt8[np.ndarray, "_ _ 3"], explanation: Explanation) -> None:
    answer = Detections(
        np.array([explanation.box], np.float32),
        np.zeros(1, np.int64),
        np.array([explanation.score], np.float32),
        (explanation.name,),
        np.zeros(1, np.int64),
    )
    score_text = ""
    if explanation.without == explanation.without:  # not nan: it was checked
        score_text = (
            f"Its score {explanation.score:.2f} is {explanation.without:.2f} with the brightest tenth taken out, and "
            f"{explanation.elsewhere:.2f} with as much taken out elsewhere: the map "
            f"{'shows what matters' if explanation.honest else 'does not show what matters'}."
        )
    page.card(
        f"{explanation.name} {explanation.score:.2f}",
        [
            PageImage(image=drawn(image, answer), caption="Box", alt=f"The box of {explanation.name}"),
            PageImage(
                image=overlay(image, explanation.similarity, low=0.0, high=100.0),
                caption="Looks like it",
                alt=f"Where the image looks like {explanation.name}, as heat",
                smooth=True,
            ),
            *_layers(image, explanation),
            PageImage(
                image=_points(image, explanation), caption="Where it looked", alt="The places that the query read"
            ),
        ],
        small=score_text,
        scores=[Score(name=word, value=value) for word, value in explanation.words],
    )


def _layers(image: UInt8[np.ndarray, "_ _ 3"], explanation: Explanation) -> list[PageImage]:
    """The words' attention of each layer, each on its own scale, with how much of it falls into the box."""
    left, top, right, bottom = (round(value) for value in explanation.box)
    shown = []
    for number, layer in enumerate(explanation.attention, start=1):
        inside = layer[top : max(bottom, top + 1), left : max(right, left + 1)]
        times = float(inside.mean()) if inside.size else 0.0
        shown.append(
            PageImage(
                image=overlay(image, layer, low=0.0, high=99.5),
                caption=f"Words, layer {number}: {times:.1f} times",
                alt=f"Where the words of {explanation.name} looked in layer {number}, as heat",
                smooth=True,
            )
        )
    return shown


def _points(image: UInt8[np.ndarray, "_ _ 3"], explanation: Explanation) -> UInt8[np.ndarray, "_ _ 3"]:
    """The heaviest points on the darkened image, the heaviest on top."""
    scale = max(1, -(-320 // min(image.shape[:2])))
    shown = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    shown = (shown * 0.6).astype(np.uint8)
    left, top, right, bottom = (round(value * scale) for value in explanation.box)
    cv2.rectangle(shown, (left, top), (right, bottom), (255, 255, 255), 1, cv2.LINE_AA)
    heaviest = explanation.points[:POINTS]
    for x, y, share in heaviest[::-1]:
        strength = float(share / heaviest[0, 2])
        center, radius = (round(float(x) * scale), round(float(y) * scale)), round(2 + 5 * strength)
        cv2.circle(shown, center, radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(shown, center, radius, (255, int(90 + 165 * strength), 40), -1, cv2.LINE_AA)
    return shown
