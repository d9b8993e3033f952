"""Images of checkpoints: which steps there are, and that no request leads out of the runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rizbin.core.errors import RizbinError
from rizbin.studio.desk import Desk
from rizbin.studio.places import Places
from rizbin.studio.stills import RECORD, key_of, stills


def begun_run(places: Places, name: str = "mine") -> Path:
    run = places.runs / name
    (run / "checkpoints").mkdir(parents=True)
    (run / "settings.json").write_text(json.dumps({"method": name}))
    return run


def test_steps_are_those_of_checkpoints_and_of_images_that_stayed(client: TestClient, places: Places) -> None:
    run = begun_run(places)
    assert client.get("/api/runs/mine").json()["checkpoints"] == []
    for name in ("step_000000200", "step_000000400", ".tmp-step_000000600", "step_x"):
        (run / "checkpoints" / name).mkdir()
    kept = places.stills / key_of(run) / "100"
    kept.mkdir(parents=True)
    assert client.get("/api/runs/mine").json()["checkpoints"] == [0, 100, 200, 400]
    (kept / RECORD).write_text(json.dumps({"kinds": ["image"]}))
    assert stills(places, run, 100) == {"path": f"stills/{key_of(run)}/100", "kinds": ["image"]}
    (kept / "0-image.png").write_bytes(b"pixels")
    assert client.get(f"/api/file/stills/{key_of(run)}/100/0-image.png").content == b"pixels"


def test_only_runs_of_the_folder_are_asked_about(
    client: TestClient, places: Places, answers: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    run = begun_run(places)
    questions = answers({"path": ""})
    assert client.post("/api/ask/checkpoint", json={"run": "mine", "step": 3, "model": "/etc"}).status_code == 200
    assert questions == [{"do": "checkpoint", "run": str(run), "step": 3}]
    (places.runs / "link").symlink_to(run)
    for name in ("../runs/mine", "..", "link", "", None, 3, ["mine"], str(run)):
        assert client.post("/api/ask/checkpoint", json={"run": name, "step": 3}).status_code == 404, name


def test_a_step_is_a_number(places: Places) -> None:
    run = begun_run(places)
    for step in ("3", -1, None, 1.5):
        with pytest.raises(RizbinError, match="named by its step"):
            Desk(places.folder).do_checkpoint(str(run), step)
