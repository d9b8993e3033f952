"""Work is given up in time, and somebody else's alarm goes on."""

import signal
import threading
import time

import pytest

from rizbin.core.deadlines import DeadlinePassed, deadline


def test_work_is_given_up_and_the_alarm_of_others_goes_on() -> None:
    before, (waiting, _) = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    with pytest.raises(DeadlinePassed), deadline(0.05):
        for _ in range(10**9):
            pass
    with deadline(60.0):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert (0 < left < waiting) if waiting else left == 0


def test_in_another_thread_nothing_happens() -> None:
    done: list[float] = []

    def work() -> None:
        with deadline(0.0):
            done.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
