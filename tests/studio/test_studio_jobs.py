"""Jobs are files and process groups: found again, ended whole, spelled as commands."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rizbin.core.errors import RizbinError
from rizbin.studio import jobs
from rizbin.studio.jobs import Queue, is_alive
from rizbin.studio.places import Places
from rizbin.studio.trainings import curves, list_runs
from rizbin.studio.words import check_names, command_of, line_of, words_of

ASKED: dict[str, Any] = {"words": ["generate", "a cat"], "line": "rizbin generate 'a cat'", "device": "cpu"}
WORKER = """
import json, os, signal, subprocess, sys, time
folder, kind = sys.argv[1:]
stat = open(f"/proc/{os.getpid()}/stat").read().rpartition(")")[2].split()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if kind == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(folder + "/draft", "w") as file:
    json.dump({"pid": os.getpid(), "start": int(stat[19]), "since": time.time(), "child": child.pid}, file)
os.rename(folder + "/draft", folder + "/process.json")
time.sleep(0.05 if kind == "short" else 600)
with open(folder + "/draft", "w") as file:
    json.dump({"state": "done", "message": "", "seconds": 0.05}, file)
os.rename(folder + "/draft", folder + "/done.json")
"""


class Starter:
    """Begins jobs as sleeping processes in groups of their own."""

    def __init__(self, kind: str = "long") -> None:
        self.kind = kind
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, folder: Path) -> None:
        words = [sys.executable, "-S", "-c", WORKER, str(folder), self.kind]
        self.processes.append(subprocess.Popen(words, start_new_session=True))

    def reap(self) -> None:
        for process in self.processes:
            process.poll()


def turn(queue: Queue, starter: Starter, until: Any, seconds: float = 60.0) -> None:
    """Ticks until something holds."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, {name: job.state() for name, job in queue.jobs.items()}
        starter.reap()
        queue.tick()
        time.sleep(0.005)


def groups(starter: Starter) -> list[int]:
    """Members of the jobs' groups that are there still, zombies left out."""
    leaders = {process.pid for process in starter.processes}
    members = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) in leaders and fields[0] not in "ZX":
                members.append(int(place.name))
    return members


def test_one_job_a_lane_at_a_time_in_order(places: Places) -> None:
    starter = Starter("short")
    queue = Queue(places.jobs, starter)
    made = [queue.add(ASKED) for _ in range(3)]
    train = queue.add({**ASKED, "words": ["train", "clip"]})
    queue.tick()
    assert [job.state() for job in made] == ["running", "waiting", "waiting"] and train.state() == "running"
    turn(queue, starter, lambda: queue.is_idle)
    assert [job.state() for job in made] == ["done"] * 3 and not groups(starter)


def test_a_job_that_hears_nothing_is_killed_with_its_group(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.3)
    starter = Starter("deaf")
    queue = Queue(places.jobs, starter)
    job = queue.add(ASKED)
    turn(queue, starter, lambda: job.record("process.json") is not None)
    begin = time.monotonic()
    queue.cancel(job.name)
    assert job.state() == "running"
    turn(queue, starter, lambda: queue.is_idle)
    assert 0.3 <= time.monotonic() - begin < 10
    assert job.state() == "stopped" and not groups(starter)


def test_jobs_are_found_again_by_another_server(places: Places) -> None:
    starter = Starter()
    queue = Queue(places.jobs, starter)
    running, waiting = queue.add(ASKED), queue.add(ASKED)
    turn(queue, starter, lambda: running.record("process.json") is not None)
    second = Queue(places.jobs, starter)  # the first one was killed and ticks no more
    second.find_again()
    assert second.get(running.name).state() == "running" and second.get(waiting.name).state() == "waiting"
    second.tick()
    assert second.get(waiting.name).state() == "waiting", "the lane is taken by the job that was found"
    second.cancel(running.name)
    second.cancel(waiting.name)
    turn(second, starter, lambda: second.is_idle)
    assert second.get(running.name).state() == second.get(waiting.name).state() == "stopped"
    assert not groups(starter)


def test_a_killed_job_says_so(places: Places) -> None:
    starter = Starter()
    queue = Queue(places.jobs, starter)
    job = queue.add(ASKED)
    turn(queue, starter, lambda: job.record("process.json") is not None)
    os.killpg(starter.processes[0].pid, signal.SIGKILL)
    turn(queue, starter, lambda: queue.is_idle)
    assert job.state() == "failed" and "killed" in job.summary()["message"]


def test_another_process_with_the_number_is_left_alone(places: Places) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"], start_new_session=True) as other:
        assert not is_alive({"pid": other.pid, "start": 1})
        jobs._kill_group({"pid": other.pid, "start": 1}, signal.SIGKILL)
        assert other.poll() is None
        other.kill()


@pytest.mark.slow
def test_100_jobs_started_and_cancelled_in_random_order(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.5)
    draw = random.Random(1)
    starter = Starter()
    queue = Queue(places.jobs, starter)
    names: list[str] = []
    for number in range(100):
        starter.kind = draw.choice(["short", "long", "deaf"])
        names.append(queue.add({**ASKED, "device": f"cuda:{number % 4}"}).name)
        for name in draw.sample(names, min(2, len(names))):
            queue.cancel(name)
        queue.tick()
        starter.reap()
    turn(queue, starter, lambda: [queue.cancel(name) for name in names] and queue.is_idle)
    assert not groups(starter)
    assert {queue.get(name).state() for name in names} <= {"done", "stopped"}


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_memory_after_200_jobs_is_that_after_20(client: TestClient, places: Places) -> None:
    used: dict[int, int] = {}
    for number in range(1, 201):
        asked = {"command": "generate", "given": {"prompts": [f"picture {number}"]}, "panel": "draw"}
        name = client.post("/api/jobs", json=asked).json()["id"]
        events = places.jobs / name / "events.jsonl"
        events.write_text("".join(json.dumps({"kind": "step", "step": step}) + "\n" for step in range(50)))
        client.post(f"/api/jobs/{name}/stop")
        (places.jobs / name / "done.json").write_text('{"state": "stopped", "message": "", "seconds": 1}')
        assert client.get("/api/jobs").status_code == 200
        used[number] = resident()
    assert used[200] < 1.05 * used[20]


def test_the_command_of_a_form_is_what_the_parser_reads() -> None:
    command = command_of("generate")
    given = {"prompts": ["a zebra's frog", 'say "x"'], "seed": 3, "film": True, "guidance_scale": 4.0, "negative": "-x"}
    words = words_of(command, given)
    from rizbin.cli.parsing import parse

    assert parse(command, words[1:]) == given
    assert shlex.split(line_of([*words, "--output=/secret/place"])) == ["rizbin", *words]
    ranges = words_of(command_of("train detailclip"), {"trainer.learning_rate": 0.001, "steps": 20, "report": False})
    assert ranges == ["train", "detailclip", "--trainer.learning-rate=0.001", "--steps=20", "--no-report"]


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("doctor", {}),
        ("export", {}),
        ("data render", {}),
        ("train nothing", {}),
        ("generate", {"prompts": ["--overwrite"]}),
        ("generate", {"prompts": ["a"], "steps": "many"}),
        ("generate", {"prompts": ["a"], "nothing": 1}),
        ("generate", {"prompts": ["a"], "output": "elsewhere"}),
        ("generate", {"prompts": ["a"], "model": "OWNER/NAME"}),
        ("generate", {"prompts": ["a"], "model": "../../model"}),
        ("generate", {"prompts": [{"a": 1}]}),
        ("edit", {"image": "/etc/passwd", "prompt": ["a"]}),
        ("edit", {"image": "0123456789abcdef", "prompt": ["a"]}),
        ("detect", {"images": ["*"], "find": ["a"]}),
        ("detect", {"images": [], "find": ["a"], "masks": "sam2"}),
        ("repair", {"prompts": ["a"], "judge": "OWNER/NAME"}),
        ("train clip", {"data": "/etc"}),
        ("train clip", {"data": "shards:x"}),
        ("train clip", {"run": "elsewhere"}),
        ("train clip", {"validation_data": "/etc"}),
        ("study nothing", {}),
    ],
)
def test_what_the_page_may_not_is_refused(
    client: TestClient, begun: list[Path], command: str, given: dict[str, Any]
) -> None:
    answer = client.post("/api/jobs", json={"command": command, "given": given})
    assert answer.status_code in (400, 404) and answer.json()["error"].endswith(".")
    assert not begun


def test_a_job_is_queued_watched_and_stopped(client: TestClient, places: Places, begun: list[Path]) -> None:
    asked = {"command": "generate", "given": {"prompts": ["a zebra"], "seed": 3}, "panel": "draw", "title": "a zebra"}
    made = client.post("/api/jobs", json=asked)
    assert made.status_code == 201
    name, line = made.json()["id"], made.json()["line"]
    assert line == "rizbin generate 'a zebra' --seed=3"
    end = time.monotonic() + 10
    while not begun and time.monotonic() < end:
        time.sleep(0.02)
    assert begun == [places.jobs / name]
    second = client.post("/api/jobs", json=asked).json()["id"]
    assert client.post(f"/api/jobs/{second}/stop").status_code == 200
    states = {job["id"]: job["state"] for job in client.get("/api/jobs").json()["jobs"]}
    assert states == {name: "running", second: "stopped"}
    assert client.post("/api/jobs/nothing/stop").status_code == 404


def test_events_go_on_after_the_last_that_was_seen(places: Places) -> None:
    queue = Queue(places.jobs, lambda folder: None)
    job = queue.add(ASKED)
    file = job.folder / "events.jsonl"
    file.write_text('{"kind": "a"}\n{"kind": "b"}\n{"ki')
    lines, place = job.events(0)
    assert [line["kind"] for line in lines] == ["a", "b"] and job.events(place) == ([], place)
    with file.open("a") as more:
        more.write('nd": "c"}\n')
    assert [line["kind"] for line in job.events(place)[0]] == ["c"]


def test_a_training_gets_a_run_of_its_own_and_goes_on(client: TestClient, places: Places) -> None:
    asked = {"command": "train clip", "given": {"steps": 20, "batch": 8}}
    made = client.post("/api/jobs", json=asked).json()
    run = made["run"]
    assert run.startswith("clip-") and made["line"] == "rizbin train clip --steps=20 --batch=8"
    assert client.post("/api/jobs", json={**asked, "resume": run}).status_code == 404
    (places.runs / run).mkdir(parents=True)
    (places.runs / run / "settings.json").write_text(json.dumps({"method": "clip", "steps": 20, "data": "scenes"}))
    assert client.post("/api/jobs", json={**asked, "resume": run}).json()["run"] == run
    records = [{"step": step, "images": 8 * step, "seconds": 1.0 * step, "loss": 3.0 - step / 10} for step in (1, 2, 3)]
    records[2]["alarm"] = "Features collapse."
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (places.runs / run / "metrics.jsonl").write_text(lines)
    (places.runs / "link").symlink_to(places.runs / run)
    assert [each["name"] for each in list_runs(places)] == [run]
    got = client.get(f"/api/runs/{run}").json()
    assert got["steps"] == [1, 2, 3] and got["series"]["loss"] == [2.9, 2.8, 2.7]
    assert got["alarms"] == [{"step": 3, "text": "Features collapse."}] and not got["finished"]
    assert client.get(f"/api/runs/{run}?after=2").json()["steps"] == [3]
    assert client.get("/api/runs/link").status_code == client.get("/api/runs/..%2fx").status_code == 404


def test_long_curves_are_thinned_and_rare_numbers_stay() -> None:
    records: list[dict[str, Any]] = [{"step": step, "loss": 1.0} for step in range(9000)]
    records[4001] |= {"knn": 50.0, "feature_std": 1.0, "rank": 3}
    steps, series = curves(records)
    assert len(steps) < 2000 and 50.0 in series["knn"]


def test_pictures_become_paths_in_a_command(client: TestClient, places: Places) -> None:
    name = "0123456789abcdef"
    (places.pictures / f"{name}.png").write_bytes(b"x")
    command = command_of("detect")
    checked = check_names(command, {"images": [name], "find": ["a cat"], "model": "detector-mini"}, places, ())
    assert checked["images"] == [str(places.pictures / f"{name}.png")]
    with pytest.raises(RizbinError):
        check_names(command, {"images": ["0123456789abcdee"]}, places, ())


def test_questions_reach_the_desk_with_what_they_may_hold_alone(
    client: TestClient, places: Places, answers: Any
) -> None:
    questions = answers({"maps": []})
    name = "0123456789abcdef"
    asked = {"model": "detailclip-mini", "pictures": [name], "row": 1, "column": 2, "folder": "/etc"}
    assert client.post("/api/ask/similar", json=asked).status_code == 404
    (places.pictures / f"{name}.png").write_bytes(b"x")
    assert client.post("/api/ask/similar", json=asked).json() == {"maps": []}
    assert questions == [{"do": "similar", "model": "detailclip-mini", "pictures": [name], "row": 1, "column": 2}]
    assert client.post("/api/ask/similar", json={**asked, "model": "OWNER/NAME"}).status_code == 400
    assert client.post("/api/ask/__init__", json={}).status_code == 404


def test_the_page_is_served_whole_and_asks_nobody(client: TestClient) -> None:
    from rizbin.studio.app import STATIC

    page = client.get("/").text
    assert 'lang="en"' in page and "ریزبین" in page
    for file in STATIC.rglob("*"):
        if file.is_file() and file.suffix in (".js", ".css", ".svg", ".html"):
            name = file.relative_to(STATIC).as_posix()
            assert client.get(f"/{name}").status_code == 200
            text = file.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
            assert "vendor" in name or ("http://" not in text and "https://" not in text), name
            assert "innerHTML" not in text or "vendor" in name, name


def test_both_languages_have_the_same_words() -> None:
    import re

    from rizbin.studio.app import STATIC

    text = (STATIC / "i18n.js").read_text(encoding="utf-8")
    english, persian = text.split("  fa: {", 1)
    pattern = re.compile(r'(?:^|[ {])(\w+): "')
    assert set(pattern.findall(english.split("en: {")[1])) == set(pattern.findall(persian.split("export const")[0]))
