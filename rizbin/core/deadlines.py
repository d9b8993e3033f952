"""Work that is given up when it takes too long."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator


class DeadlinePassed(BaseException):
    """The time of a `deadline` is over; no Exception, so that nothing on the way takes it for a fault of its own."""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Within it, `DeadlinePassed` is raised once so many seconds are over.

    In the main thread of a Unix system; elsewhere nothing happens, and the work takes what it takes.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise DeadlinePassed

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    waiting, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if waiting:  # somebody else's alarm goes on, as a test's limit
            signal.setitimer(signal.ITIMER_REAL, max(waiting - (time.monotonic() - began), 1e-3), interval)
