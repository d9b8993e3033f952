"""The pictures of the page: dropped in, or scenes of the embedded world; stored under generated names."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rizbin.core import outputs
from rizbin.core.bounded import parse_json
from rizbin.core.errors import RizbinError
from rizbin.studio.children import DeskClient, decode
from rizbin.studio.places import NotHere, Places, new_name, read_below

MOST = 5000
"""Pictures in the studio's folder."""


class PictureShelf:
    """Adds, lists and removes pictures."""

    def __init__(self, places: Places, desk: DeskClient) -> None:
        self.places, self.desk = places, desk

    async def list(self, request: Request) -> Response:
        """All pictures, the newest first."""
        records = sorted(self.places.pictures.glob("*.json"), key=_changed, reverse=True)
        shown = [record for file in records[:MOST] if (record := _record(file)) is not None]
        return JSONResponse({"pictures": shown})

    async def add(self, request: Request) -> Response:
        """Takes one image as the body of the request; its name, for people, comes in `X-Name`."""
        upload = self.places.incoming / new_name()
        digest = hashlib.sha256()
        try:
            with upload.open("xb") as file:
                async for part in request.stream():
                    digest.update(part)
                    file.write(part)
            title = Path(unquote(request.headers.get("x-name", ""))).name[:80] or "picture"
            return JSONResponse(await self._keep(upload, digest.hexdigest()[:16], title, ""), status_code=201)
        finally:
            upload.unlink(missing_ok=True)

    async def scene(self, request: Request) -> Response:
        """Adds a scene of the embedded world."""
        from rizbin.studio.app import body

        request_body = await body(request)
        preset, number = str(request_body.get("preset", "easy")), int(request_body.get("number", 0))
        made = await self.desk.ask({"do": "scene", "preset": preset, "number": number})
        file = self.places.incoming / made["file"]
        try:
            name = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            title = f"scenes:{preset} {number}"
            return JSONResponse(await self._keep(file, name, title, made["caption"]), status_code=201)
        finally:
            file.unlink(missing_ok=True)

    async def remove(self, request: Request) -> Response:
        """Forgets one picture."""
        file = self.places.picture(request.path_params["name"])
        for path in (file, file.with_suffix(".json")):
            path.unlink(missing_ok=True)
        return JSONResponse({})

    async def _keep(self, upload: Path, name: str, title: str, caption: str) -> dict[str, Any]:
        """The decoded picture under its name, which its bytes give: the same picture twice is one."""
        target = self.places.pictures / f"{name}.png"
        record = target.with_suffix(".json")
        if target.is_file() and (known := _record(record)) is not None:
            return known
        if sum(1 for _ in self.places.pictures.glob("*.json")) >= MOST:
            raise RizbinError(f"There are {MOST} pictures already; remove some first.")
        draft = self.places.incoming / f"{name}.draft"
        draft.unlink(missing_ok=True)
        try:
            size = await decode(upload, draft)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        held = {"id": name, "title": title, "caption": caption, **size}
        outputs.write(record, json.dumps(held, ensure_ascii=False))
        return held


def _changed(path: Path) -> float:
    with suppress(OSError):
        return path.lstat().st_mtime
    return 0.0


def _record(path: Path) -> dict[str, Any] | None:
    try:
        held = parse_json(read_below(path.parent, [path.name], most=1 << 16))
    except (NotHere, ValueError):
        return None
    return held if isinstance(held, dict) and path.with_suffix(".png").is_file() else None
