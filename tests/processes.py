"""Runs a function in several gloo processes, as torchrun would, from inside a test.

The processes are kept for the whole test session, so that importing torch is paid once; each call joins them anew in a
group of its own.
"""

import atexit
import multiprocessing
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

Result = TypeVar("Result")


class RemoteTraceback(Exception):
    """Carries the other process's traceback, as the cause of the error that is raised here."""

    def __str__(self) -> str:
        return str(self.args[0])


def run_in_processes(
    function: Callable[..., Result], world: int = 2, *args: Any, time_limit: float = 600.0
) -> list[Result]:
    """What `function(*args)` returns in each of `world` processes, in order of rank.

    function: of a module's top level; it is called with `rizbin.core.parallel` started on the CPU, one thread and
    torch's seed 0. Arguments and results are pickled (tensors by value, so detach them).
    time_limit: seconds after which processes that have not answered are ended and TimeoutError is raised; on a busy
    machine importing torch alone may take a hundred.
    Raises the error that came first, with its process's traceback as cause.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    while len(_pool) < world:
        _pool.append(_Worker())
    workers = _pool[:world]
    # Port 0: one that is free, without a race.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    call = pickle.dumps((function, args))
    for rank, worker in enumerate(workers):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",  # as under torchrun, the store lives in the parent
        }
        worker.connection.send_bytes(pickle.dumps((sys.path, environment, call)))
    return _collect(workers, time.monotonic() + time_limit)


def _collect(workers: list["_Worker"], deadline: float) -> list[Any]:
    results: dict[int, Any] = {}
    errors: list[tuple[float, int, BaseException]] = []
    pending = {worker.connection: rank for rank, worker in enumerate(workers)}
    while pending:
        ready = wait(list(pending), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for connection in ready:
            rank = pending.pop(connection)  # type: ignore[arg-type]
            when, error, results[rank] = _answer(workers[rank], rank)
            if error is not None:
                errors.append((when, rank, error))
                deadline = min(deadline, time.monotonic() + 20.0)  # the others fail too, or wait for the lost one
    for rank in pending.values():
        _drop(workers[rank])
    if errors:
        raise min(errors, key=lambda entry: entry[:2])[2]
    if pending:
        raise TimeoutError(f"the processes {sorted(pending.values())} of {len(workers)} have not answered in time")
    return [results[rank] for rank in range(len(workers))]


def _answer(worker: "_Worker", rank: int) -> tuple[float, BaseException | None, Any]:
    """When it failed (on the clock that all processes share), the error, and the result."""
    try:
        when, content, text, joined = pickle.loads(worker.connection.recv_bytes())
    except (EOFError, ConnectionError):
        _drop(worker)
        return 0.0, ChildProcessError(f"process {rank} died with exit code {worker.process.exitcode}"), None
    if not joined:
        _drop(worker)  # torch numbers groups in each process and goes on counting after a failure, so it fits no other
    if when is None:
        return 0.0, None, content
    content.__cause__ = RemoteTraceback(f"\nin process {rank}:\n{text}")
    return when, content, None


class _Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads in an unknown state
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()


_pool: list[_Worker] = []


def _drop(worker: _Worker) -> None:
    if worker in _pool:
        _pool.remove(worker)
    worker.connection.close()
    worker.process.kill()
    worker.process.join()


@atexit.register
def _drop_all() -> None:
    for worker in list(_pool):
        _drop(worker)


def _serve(connection: Connection) -> None:
    """The life of one process of the pool."""
    import torch
    from jaxtyping import install_import_hook

    torch.set_num_threads(1)
    with install_import_hook("rizbin", "beartype.beartype"):  # shapes are checked here as in the parent
        while True:
            try:
                path, environment, call = pickle.loads(connection.recv_bytes())
            except EOFError:
                return
            sys.path[:] = path
            os.environ.update(environment)
            connection.send_bytes(_perform(call))


def _perform(call: bytes) -> bytes:
    import torch

    from rizbin.core import parallel

    joined = False
    try:
        function, args = pickle.loads(call)
        parallel.start("cpu", timeout_minutes=1.0)
        joined = True
        torch.manual_seed(0)
        return pickle.dumps((None, function(*args), "", joined))
    except BaseException as error:
        when, text = time.monotonic(), traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot travel goes by its text
            error = RuntimeError(repr(error))
        return pickle.dumps((when, error, text, joined))
    finally:
        parallel.stop()
