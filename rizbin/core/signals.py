"""Ctrl-C and SIGTERM as requests to stop, so that work ends after a whole step and is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether somebody asked to stop, and how."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        """The first signal that came."""

    @property
    def requested(self) -> bool:
        """True once the first SIGINT or SIGTERM has come."""
        return self.signal is not None


@contextmanager
def graceful() -> Iterator[Stop]:
    """Inside, the first SIGINT or SIGTERM only sets `stop.requested`; a SIGINT after it raises KeyboardInterrupt.

    A SIGTERM after the first is ignored: schedulers send several. On leaving, the handlers from before are back. In a
    thread other than the main one, where Python takes no signals, nothing is touched and `requested` stays false.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.requested:
            stop.signal = signal.Signals(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            # None: the handler was set outside Python and cannot be put back; the default is the nearest.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
