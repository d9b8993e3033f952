"""The studio's routes. Each panel has a file of its own; here stand the page, files, jobs and their events."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rizbin import __version__, zoo
from rizbin.cli import checks
from rizbin.core.bounded import parse_json
from rizbin.core.errors import RizbinError
from rizbin.studio import pictures, trainings
from rizbin.studio.children import DeskClient, Forks
from rizbin.studio.jobs import Queue
from rizbin.studio.places import NotHere, Places, read_below
from rizbin.studio.security import Guard, is_valid, ticket
from rizbin.studio.words import OFFERED, SHOWN, check_names, command_of, line_of, model_of, words_of

STATIC = Path(__file__).with_name("static")
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".gif": "image/gif",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".jsonl": "text/plain; charset=utf-8",
}
TICK = 0.1
"""Seconds between two looks at the jobs."""
SHOWN_JOBS = 100
DESK = {
    "look": ("model", "pictures"),
    "similar": ("model", "pictures", "row", "column"),
    "attention": ("model", "pictures", "layer"),
    "pca": ("model", "pictures"),
    "words": ("model", "pictures", "words"),
    "find": ("model", "picture", "phrases", "distractors"),
    "choose": ("model", "picture", "phrases", "distractors", "thresholds"),
    "why": ("model", "picture", "phrases"),
    "masks": ("masks", "picture", "boxes"),
    "coco": ("picture", "title", "names", "boxes", "size", "masks"),
    "search": ("model", "pictures", "words", "like", "region"),
    "checkpoint": ("run", "step"),
}
"""Questions for the desk and what each holds."""
_LOG = logging.getLogger("rizbin.studio")


class App:
    """What the routes share."""

    def __init__(self, places: Places, *, token: str, models: Sequence[str]) -> None:
        self.places, self.token, self.models = places, token, tuple(models)
        self.forks, self.desk = Forks(), DeskClient(places.folder)
        self.queue = Queue(places.jobs, self.forks.begin)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Watches the jobs while the server runs."""
        self.queue.find_again()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            await self.forks.close()
            await self.desk.close()

    async def _watch(self) -> None:
        while True:
            try:
                self.queue.tick()
                await self.forks.keep()
            except Exception:
                _LOG.exception("The queue stumbled; it goes on.")
            await asyncio.sleep(TICK)

    # ---- the page ------------------------------------------------------------------------------------------------

    async def static(self, request: Request) -> Response:
        """The page's own files."""
        path = request.path_params.get("path", "") or "index.html"
        data = read_below(STATIC, path.split("/"))
        return Response(data, media_type=KINDS.get(Path(path).suffix, "application/octet-stream"))

    async def report(self, request: Request) -> Response:
        """A report, opened by a ticket in a tab of its own."""
        path = request.path_params["path"]
        if not is_valid(self.token, path, request.query_params.get("ticket", "")):
            raise HTTPException(401, "This link is over; open the report from the page again.")
        root, *parts = path.split("/")
        return Response(self.places.read(root, parts), media_type="text/html; charset=utf-8")

    async def start(self, request: Request) -> Response:
        """What the page shows first: models by what they are, and studies and methods."""
        from rizbin.cli import schema

        names = [*zoo.names(), *self.models]
        runs = [f"runs/{run['name']}" for run in trainings.list_runs(self.places) if run["finished"]]
        kinds = {name: "segmenter" if checks.is_segmenter(name) else checks.kind_of(name) for name in names}
        kinds |= {name: checks.kind_of(str(self.places.runs / name.removeprefix("runs/"))) for name in runs}
        return JSONResponse(
            {
                "version": __version__,
                "models": [{"name": name, "kind": kind} for name, kind in kinds.items()],
                "methods": schema.methods(),
                "studies": schema.members("study"),
                "lessons": _lessons(),
            }
        )

    async def form(self, request: Request) -> Response:
        """The flags of a command: what its form is made of."""
        command = command_of(request.query_params.get("command", ""), request.query_params.get("preset", ""))
        return JSONResponse({"about": command.about, "flags": [flag.to_dict() for flag in command.flags]})

    async def file(self, request: Request) -> Response:
        """An image, a log or a record of the studio's folder."""
        root, *parts = request.path_params["path"].split("/")
        kind = KINDS.get(Path(parts[-1] if parts else "").suffix)
        if kind is None or kind.startswith(("text/html", "text/javascript", "image/svg")):
            raise NotHere("There is no such file.")
        return Response(self.places.read(root, parts), media_type=kind)

    async def tickets(self, request: Request) -> Response:
        """A link to a report that is good for a minute."""
        path = str((await body(request)).get("path", ""))
        root, *parts = path.split("/")
        if not path.endswith(".html"):
            raise NotHere("There is no such report.")
        self.places.read(root, parts)
        return JSONResponse({"link": f"/report/{path}?ticket={ticket(self.token, path)}"})

    # ---- jobs ----------------------------------------------------------------------------------------------------

    async def add_job(self, request: Request) -> Response:
        """Checks what is asked for by the command line's own parser, and puts it into its queue."""
        request_body = await body(request)
        given = request_body.get("given")
        if not isinstance(given, dict):
            raise RizbinError("A job has values.")
        command = command_of(str(request_body.get("command", "")), str(given.get("preset", "")))
        given = check_names(command, given, self.places, self.models)
        where = trainings.where(self.places, command, given, resume=request_body.get("resume"))
        words = words_of(command, given | where.given)
        job = self.queue.add(
            {
                "words": words,
                "line": line_of(words),
                "panel": str(request_body.get("panel", ""))[:20],
                "title": str(request_body.get("title", ""))[:200],
                "device": str(given.get("device", "best"))[:20],
                "run": where.run,
                "given": request_body["given"],
            },
            name=where.job,
        )
        return JSONResponse(job.summary(), status_code=201)

    async def check_job(self, request: Request) -> Response:
        """The command that a form's values make, or the sentence of what is wrong with them."""
        request_body = await body(request)
        command = command_of(str(request_body.get("command", "")), offered=(*OFFERED, *SHOWN))
        given = check_names(command, dict(request_body.get("given") or {}), self.places, self.models)
        return JSONResponse({"line": line_of(words_of(command, given))})

    async def stop_job(self, request: Request) -> Response:
        self.queue.cancel(request.path_params["id"])
        return JSONResponse({})

    def _jobs(self) -> list[dict[str, Any]]:
        return [job.summary() for job in list(self.queue.jobs.values())[-SHOWN_JOBS:]][::-1]

    async def list_jobs(self, request: Request) -> Response:
        return JSONResponse({"jobs": self._jobs()})

    async def events(self, request: Request) -> Response:
        """Server-sent events: the jobs when one changes, and what happens in one job, from `Last-Event-ID` on."""
        watched = request.query_params.get("job", "")
        if watched:
            self.queue.get(watched)
        last = request.headers.get("last-event-id", "")
        name, _, place = last.partition(":")
        start = int(place) if name == watched and place.isdigit() and len(place) < 15 else 0
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(self._stream(watched, start), media_type="text/event-stream", headers=headers)

    async def _stream(self, watched: str, place: int) -> AsyncIterator[str]:
        shown, quiet = "", 0.0
        while True:
            sent = False
            if watched:
                lines, place = self.queue.get(watched).events(place)
                if lines:
                    sent = True
                    yield f"id: {watched}:{place}\nevent: job\ndata: {json.dumps(lines)}\n\n"
            listed = json.dumps(self._jobs())
            if listed != shown:
                shown, sent = listed, True
                yield f"event: jobs\ndata: {listed}\n\n"
            quiet = 0.0 if sent else quiet + TICK
            if quiet > 15:
                quiet = 0.0
                yield ": still here\n\n"
            # Jobs say what they do in files, which outlive this process; these are looked at, tick by tick.
            await asyncio.sleep(TICK)

    # ---- the desk ------------------------------------------------------------------------------------------------

    async def ask(self, request: Request) -> Response:
        """A question that is answered at once."""
        do = request.path_params["do"]
        if do not in DESK:
            raise NotHere("There is no such question.")
        request_body = await body(request)
        question: dict[str, Any] = {name: request_body[name] for name in DESK[do] if name in request_body}
        if "run" in question:
            question["run"] = str(self.places.run(question["run"]))
        for name in ("model", "masks"):
            if question.get(name):
                question[name] = model_of(question[name], self.places, self.models)
        for name in [*question.get("pictures", []), *([question["picture"]] if "picture" in question else [])]:
            self.places.picture(name)
        return JSONResponse(await self.desk.ask({"do": do, **question}))


async def body(request: Request) -> dict[str, Any]:
    """The JSON object of a request. Raises RizbinError for anything else."""
    try:
        held = parse_json(await request.body())
    except (ValueError, RecursionError) as error:
        raise RizbinError("The request is no JSON.") from error
    if not isinstance(held, dict):
        raise RizbinError("The request is no JSON object.")
    return held


def make_app(places: Places, *, token: str, hosts: frozenset[str], models: Sequence[str] = ()) -> Starlette:
    """The whole application behind its guard."""
    app = App(places, token=token, models=models)
    shelf = pictures.PictureShelf(places, app.desk)
    runs = trainings.Runs(places, token)
    routes = [
        Route("/api/start", app.start),
        Route("/api/form", app.form),
        Route("/api/jobs", app.list_jobs),
        Route("/api/jobs", app.add_job, methods=["POST"]),
        Route("/api/check", app.check_job, methods=["POST"]),
        Route("/api/jobs/{id}/stop", app.stop_job, methods=["POST"]),
        Route("/api/events", app.events),
        Route("/api/file/{path:path}", app.file),
        Route("/api/tickets", app.tickets, methods=["POST"]),
        Route("/api/ask/{do}", app.ask, methods=["POST"]),
        Route("/api/pictures", shelf.list),
        Route("/api/pictures", shelf.add, methods=["POST"]),
        Route("/api/pictures/{name}", shelf.remove, methods=["DELETE"]),
        Route("/api/scenes", shelf.scene, methods=["POST"]),
        Route("/api/runs", runs.list),
        Route("/api/runs/{name}", runs.curves),
        Route("/report/{path:path}", app.report),
        Route("/", app.static),
        Route("/{path:path}", app.static),
    ]
    handlers: dict[Any, Any] = {
        NotHere: _refuse(404),
        RizbinError: _refuse(400),
        HTTPException: _http,
        ClientDisconnect: _gone,
        Exception: _fault,
    }
    middleware = [Middleware(Guard, hosts=hosts, token=token)]
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=app.lifespan)


def _lessons() -> dict[str, Any]:
    """What the course says of each study, in both languages, by the study's name; of the first lesson that asks it."""
    from rizbin.studies import course

    by_study: dict[str, Any] = {}
    for lesson in course.lessons():
        program, _, name = lesson.command.partition(" study ")
        if program == "rizbin" and lesson.reason.en:
            words = {"question": lesson.question, "reason": lesson.reason, "number": lesson.number}
            by_study.setdefault(name.split()[0], {what: asdict(both) for what, both in words.items()})
    return by_study


def _refuse(status: int) -> Any:
    async def refuse(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": " ".join(str(error).split())}, status_code=status)

    return refuse


async def _http(request: Request, error: Any) -> Response:
    return JSONResponse({"error": unquote(str(error.detail))}, status_code=error.status_code)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"A fault of Rizbin ({type(error).__name__}); its trace is in the terminal."}, 500)
