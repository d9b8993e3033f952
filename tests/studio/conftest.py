"""A studio in a folder of its own, asked through Starlette's client: no browser and no port."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rizbin.studio.app import make_app
from rizbin.studio.children import DeskClient, Forks
from rizbin.studio.places import Places

TOKEN = "t" * 43
HOST = "127.0.0.1:8765"


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path / "studio", tmp_path / "runs")
    places.make()
    return places


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of jobs that would have been begun: nothing is forked, and the desk is not asked."""
    folders: list[Path] = []

    async def nothing(forks: Forks) -> None:
        return None

    monkeypatch.setattr(Forks, "begin", lambda forks, folder: folders.append(folder))
    monkeypatch.setattr(Forks, "keep", nothing)
    return folders


@pytest.fixture
def client(places: Places, begun: list[Path]) -> Iterator[TestClient]:
    """A client with the right host and token."""
    app = make_app(places, token=TOKEN, hosts=frozenset({HOST}))
    with TestClient(app, base_url=f"http://{HOST}", headers={"X-Rizbin-Token": TOKEN}) as client:
        yield client


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Has the desk answer what is given; returns the list that its questions come into."""

    def stand_in(answer: dict[str, Any]) -> list[dict[str, Any]]:
        questions: list[dict[str, Any]] = []

        async def ask(desk: DeskClient, question: dict[str, Any]) -> dict[str, Any]:
            questions.append(question)
            return answer

        monkeypatch.setattr(DeskClient, "ask", ask)
        return questions

    return stand_in
