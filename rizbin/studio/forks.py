"""The fork server: imports what jobs need once, and forks a process for each job that is named on standard input.

`python -m rizbin.studio.forks`: a folder a line. It ends when its input does; the jobs that it began go on, each in a
session of its own. So a job begins in milliseconds, and the server itself imports no torch.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path


def main() -> int:
    """Forks until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to take
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel takes away what has ended
    import_module("torch")  # once, for all jobs

    from rizbin.studio import work

    # Not the lines of a buffered file: what a buffer holds would be read by the children too.
    for line in iter(lambda: _line(0), ""):
        if os.fork() == 0:
            _child(work.main, Path(line))
    return 0


def _line(descriptor: int) -> str:
    """One line, byte by byte; empty at the end."""
    held = bytearray()
    while (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        held += byte
    return held.decode()


def _child(run: Callable[[Path], int], folder: Path) -> None:
    """What a fork does; it never returns."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        code = run(folder)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
