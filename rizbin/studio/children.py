"""The server's two helpers: the fork server that begins jobs, and the desk that answers at once. Both end with it."""

import asyncio
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rizbin.core.errors import RizbinError

ANSWER_SECONDS = 300
"""The longest that the desk is waited for: a large model on a slow processor has to be loaded first."""
LONGEST_ANSWER = 64 << 20
"""Bytes of one answer of the desk."""


class Forks:
    """Begins jobs by `rizbin.studio.forks`, which starts with the server, so that torch is there in time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: list[Path] = []

    async def keep(self) -> None:
        """Starts the fork server where none runs; called now and then."""
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rizbin.studio.forks",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
            )
        for folder in self._waiting:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{folder}\n".encode())
        self._waiting.clear()

    def begin(self, folder: Path) -> None:
        """Has the job in the folder begun."""
        self._waiting.append(folder)

    async def close(self) -> None:
        """Ends the fork server; the jobs that it began go on."""
        await _close(self._process)


class DeskClient:
    """Asks `rizbin.studio.desk`, which is started with the first question; questions wait for each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer. Raises RizbinError with the desk's own sentence where there is none."""
        async with self._turn:
            process = await self._ready()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write((json.dumps(question) + "\n").encode())
                await process.stdin.drain()
                line = await asyncio.wait_for(process.stdout.readline(), ANSWER_SECONDS)
            except BaseException:
                # An answer that nobody waits for any more would be taken for that of the next question.
                with suppress(ProcessLookupError):
                    process.kill()
                self._process = None
                raise
            if not line:
                self._process = None
                raise RizbinError(
                    "The process that answers has ended, as memory did not suffice or it was killed; ask again."
                )
        answer = json.loads(line)
        if "error" in answer:
            raise RizbinError(answer["error"])
        return answer

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rizbin.studio.desk",
                str(self.folder),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST_ANSWER,
            )
        return self._process

    async def close(self) -> None:
        """Ends the desk."""
        await _close(self._process)


async def decode(source: Path, target: Path) -> dict[str, Any]:
    """Has an upload decoded (`rizbin.studio.decode`): its width and height. Raises RizbinError for what is no image."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "rizbin.studio.decode",
        str(source),
        str(target),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # each thread takes address space
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
        answer = json.loads(printed)
    except (TimeoutError, ValueError):
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise RizbinError(
            "The picture could not be decoded within the limits of memory and time; make it smaller."
        ) from None
    if "error" in answer:
        raise RizbinError(answer["error"])
    return answer


async def _close(process: asyncio.subprocess.Process | None) -> None:
    if process is None or process.returncode is not None:
        return
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 1)
    except TimeoutError:
        process.kill()
        await process.wait()
