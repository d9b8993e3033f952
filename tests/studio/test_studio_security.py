"""What a page of another site, another host, a guessed path or a hostile file gets: nothing."""

import asyncio
import json
import os
import random
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from rizbin.core.errors import RizbinError
from rizbin.studio.app import make_app
from rizbin.studio.command import _hosts, _is_loopback, studio
from rizbin.studio.places import NotHere, Places, read_below
from rizbin.studio.security import JSON_BYTES, Guard, is_valid, ticket
from tests.studio.conftest import HOST, TOKEN


def picture(side: int = 16, seed: int = 0) -> bytes:
    held = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)).save(held, "PNG")
    return held.getvalue()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:8765", ""])
@pytest.mark.parametrize("path", ["/", "/api/start", "/studio.css"])
def test_another_host_is_refused(client: TestClient, host: str, path: str) -> None:
    assert client.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8765", "http://localhost:8765"])
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    assert client.post("/api/check", json={}, headers={"Origin": origin}).status_code == 403
    assert client.get("/", headers={"Origin": origin}).status_code == 403


def test_the_own_origin_is_taken(client: TestClient) -> None:
    own = {"Origin": f"http://{HOST}", "Sec-Fetch-Site": "same-origin"}
    assert client.get("/api/jobs", headers=own).json() == {"jobs": []}
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_other_sites_do_not_fetch(client: TestClient, site: str) -> None:
    assert client.get("/api/jobs", headers={"Sec-Fetch-Site": site}).status_code == 403
    if site != "none":
        assert client.get("/", headers={"Sec-Fetch-Site": site}).status_code == 403


@pytest.mark.parametrize("token", ["", "x", TOKEN + "t", TOKEN[:-1], "é"])
def test_without_the_token_nothing_is_answered(client: TestClient, token: str) -> None:
    headers = {"X-Rizbin-Token": token.encode()}
    for path in ("/api/start", "/api/jobs", "/api/pictures", "/api/events", "/api/file/pictures/a.png", "/api/nothing"):
        assert client.get(path, headers=headers).status_code == 401  # type: ignore[arg-type]
    assert client.post("/api/pictures", content=picture(), headers=headers).status_code == 401  # type: ignore[arg-type]


def test_every_answer_carries_the_policy(client: TestClient) -> None:
    for path in ("/", "/api/jobs", "/nothing", "/api/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert client.get("/api/jobs").headers["cache-control"] == "no-store"


PATHS = [
    "../pyproject.toml",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "pictures/../../secret.txt",
    "pictures/%2e%2e/secret.txt",
    "pictures/..%5csecret.txt",
    "pictures/%252e%252e/secret.txt",
    "pictures//etc/passwd",
    "pictures/.hidden.png",
    "pictures/a%00.png",
    "pictures/link.png",
    "pictures/folder/inside.png",
    "jobs/pipe.txt",
    "studio/secret.txt",
    "pictures",
    "",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_and_no_link_is_followed(client: TestClient, places: Places, path: str) -> None:
    secret = places.folder / "secret.txt"
    secret.write_text("secret")
    (places.folder / "inside.png").write_text("secret")
    (places.pictures / ".hidden.png").write_text("secret")
    (places.pictures / "link.png").symlink_to(secret)
    (places.pictures / "folder").symlink_to(places.folder)
    os.mkfifo(places.jobs / "pipe.txt")
    answer = client.get(f"/api/file/{path}")
    assert answer.status_code == 404 and "secret" not in answer.text
    assert client.get(f"/{path}").status_code in (200, 404) and "secret" not in client.get(f"/{path}").text


def test_what_lies_there_is_sent(client: TestClient, places: Places) -> None:
    (places.pictures / "a.png").write_bytes(picture())
    assert client.get("/api/file/pictures/a.png").content == picture()
    with pytest.raises(NotHere):
        read_below(places.pictures, ["a.png"], most=3)
    (places.pictures / "a.html").write_text("<script>")
    assert client.get("/api/file/pictures/a.html").status_code == 404


def test_a_ticket_opens_one_report_for_a_minute(client: TestClient, places: Places) -> None:
    run = places.runs / "mine"
    run.mkdir(parents=True)
    (run / "report.html").write_text("<h1>report</h1>")
    (run / "other.html").write_text("other")
    link = client.post("/api/tickets", json={"path": "runs/mine/report.html"}).json()["link"]
    plain = TestClient(client.app, base_url=f"http://{HOST}")
    answer = plain.get(link)
    assert answer.text == "<h1>report</h1>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert plain.get(link.replace("report.html", "other.html")).status_code == 401
    assert plain.get("/report/runs/mine/report.html").status_code == 401
    old = ticket(TOKEN, "runs/mine/report.html", now=time.time() - 3600)
    assert not is_valid(TOKEN, "runs/mine/report.html", old)
    assert not is_valid("another", "runs/mine/report.html", ticket(TOKEN, "runs/mine/report.html"))
    assert client.post("/api/tickets", json={"path": "runs/mine/settings.json"}).status_code == 404
    (run / "link.html").symlink_to(run / "report.html")
    assert client.post("/api/tickets", json={"path": "runs/mine/link.html"}).status_code == 404


def test_an_announced_gigabyte_is_not_read() -> None:
    read = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it must not come so far")

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"x-rizbin-token", TOKEN.encode()), (b"content-length", b"1073741824")]
    scope = {"type": "http", "path": "/api/check", "raw_path": b"/api/check", "headers": headers}
    asyncio.run(Guard(application, hosts=frozenset({HOST}), token=TOKEN)(scope, receive, send))
    assert sent[0]["status"] == 413 and read == 0


def test_a_body_of_unknown_length_is_cut_off() -> None:
    read = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1 << 16
        return {"type": "http.request", "body": b"x" * (1 << 16), "more_body": read < 1 << 30}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", HOST.encode()), (b"x-rizbin-token", TOKEN.encode())]
    scope = {"type": "http", "path": "/api/check", "raw_path": b"/api/check", "headers": headers}
    asyncio.run(Guard(application, hosts=frozenset({HOST}), token=TOKEN)(scope, receive, send))
    assert sent[0]["status"] == 413 and read <= JSON_BYTES + (1 << 17)


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it is 60,000 pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20)))
        + chunk(b"IEND", b"")
    )


HOSTILE = {
    "a bomb": bomb(),
    "nothing": b"",
    "a drawing of XML": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "a cut file": picture()[:60],
    "a page": b"<html><script>alert(1)</script>",
    "noise": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_refused_in_a_sentence(client: TestClient, places: Places, name: str) -> None:
    answer = client.post("/api/pictures", content=HOSTILE[name], headers={"X-Name": "..%2F..%2Fx.png"})
    assert answer.status_code == 400 and answer.json()["error"].startswith("the image ")
    assert not list(places.pictures.iterdir()) and not list(places.incoming.iterdir())


def test_an_image_is_written_anew_under_a_generated_name(client: TestClient, places: Places) -> None:
    content = picture(24)
    first = client.post("/api/pictures", content=content, headers={"X-Name": "..%2F..%2Fmy%20cat.png"})
    assert first.status_code == 201
    held = first.json()
    assert held["title"] == "my cat.png" and (held["width"], held["height"]) == (24, 24)
    assert client.post("/api/pictures", content=content).json()["id"] == held["id"]
    assert [one["id"] for one in client.get("/api/pictures").json()["pictures"]] == [held["id"]]
    shown = Image.open(BytesIO(client.get(f"/api/file/pictures/{held['id']}.png").content))
    assert np.array_equal(np.asarray(shown), np.asarray(Image.open(BytesIO(content))))
    assert client.delete(f"/api/pictures/{held['id']}").status_code == 200
    assert not list(places.pictures.glob("[0-9a-f]*"))
    assert client.delete("/api/pictures/..%2F..%2Fsecret").status_code == 404


def test_requests_that_are_no_json_objects_are_refused(client: TestClient) -> None:
    for content in (b"", b"[]", b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff", b'"x"', b"1" * 10_000):
        assert client.post("/api/jobs", content=content).status_code == 400


def test_addresses_of_this_machine_alone_are_served_by_default() -> None:
    assert _is_loopback("127.0.0.1") and not _is_loopback("0.0.0.0") and not _is_loopback("example.org")
    with pytest.raises(RizbinError, match="stands for all addresses"):
        studio(host="0.0.0.0")
    assert _hosts("127.0.0.1", 8765) == {"127.0.0.1:8765", "localhost:8765"}


@pytest.fixture
def served(places: Places, begun: list[Path], capfd: pytest.CaptureFixture[str]) -> Iterator[tuple[int, Any]]:
    """A real server on a free port, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port = listening.getsockname()[1]
        app = make_app(places, token=TOKEN, hosts=frozenset({f"127.0.0.1:{port}"}))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", log_config=None, http="h11", ws="none", lifespan="on")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield port, capfd
        server.should_exit = True
        thread.join(10)


def speak(port: int, data: bytes) -> bytes:
    """What comes back for raw bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        try:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            return line.recv(65536)
        except OSError:
            return b""


def test_500_malformed_requests_leave_no_traceback(served: tuple[int, Any]) -> None:
    port, capfd = served
    draw = random.Random(0)
    whole = (
        f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Rizbin-Token: {TOKEN}\r\nContent-Length: 20\r\n\r\n"
    )
    whole += json.dumps({"command": "x"})
    for number in range(500):
        data = bytearray(whole.encode())
        for _ in range(draw.randint(1, 8)):
            place = draw.randrange(len(data))
            if draw.random() < 0.3:
                del data[place : place + draw.randint(1, 30)]
                data = data or bytearray(b"\0")
            else:
                data[place] = draw.randrange(256)
        answer = speak(port, bytes(data) if number % 10 else draw.randbytes(200))
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        assert not answer.startswith(b"HTTP/1.1 500")
    assert speak(port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()).startswith(b"HTTP/1.1 200")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_gigabyte_is_cut_off_early_on_the_line(served: tuple[int, Any]) -> None:
    port, _ = served
    head = f"POST /api/jobs HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Rizbin-Token: {TOKEN}\r\n"
    head += f"Content-Length: {1 << 30}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(head.encode())
        assert line.recv(100).startswith(b"HTTP/1.1 413")
        sent = 0
        with pytest.raises(OSError):
            while sent < 1 << 30:
                sent += line.send(b"x" * 65536)
        assert sent < 64 << 20
