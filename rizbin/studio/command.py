"""`rizbin studio`: starts the page's server and says how to open it."""

import contextlib
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.studio.places import Places

LOCAL = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class OpenStudio:
    """Open a local page that looks, finds, draws, trains and learns by the same jobs as the command line."""

    folder: Annotated[Place, Argument(short=("-o",))] = "studio"
    """The studio's own folder: pictures, jobs and their results. The server keeps nothing anywhere else."""
    runs: Place = "runs"
    """Folder of the trainings that are shown; those begun in the page go there too."""
    model: Annotated[tuple[str, ...], Argument(check="model")] = ()
    """A further model that the page may use, by name or folder, once for each; beside bundled models and runs."""
    host: str = LOCAL
    """Address to serve on. Any other than 127.0.0.1 lets other machines ask: who has the link may use this machine."""
    port: int = 8765
    """Port to serve on; 0 takes a free one."""


@job(OpenStudio)
def studio(settings: OpenStudio) -> str:
    """Serves the page until Ctrl-C; running jobs go on and are found again by the next start."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise RizbinError(
            "The studio needs starlette and uvicorn: pip install 'rizbin[studio]' brings them."
        ) from error
    assert starlette is not None
    from rizbin.studio.app import make_app

    if _is_unspecified(settings.host):
        raise RizbinError(
            f"{settings.host} stands for all addresses of this machine, and only known ones are answered; "
            "give the one that the other machine uses as --host."
        )
    places = Places(Path(settings.folder), Path(settings.runs))
    places.make()
    token = secrets.token_urlsafe(32)
    listening = _listen(settings.host, settings.port)
    port = int(listening.getsockname()[1])
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{port}/#token={token}"
    print(f"The studio is open at\n\n  {address}\n\nCtrl-C closes it; jobs that run go on.", flush=True)
    if not _is_loopback(settings.host):
        print(
            f"It is served on {settings.host}: every machine that reaches this address and has the link may look at "
            "the studio's pictures and use this machine. Nothing is encrypted; an SSH tunnel to 127.0.0.1 is safer.",
            flush=True,
        )
    app = make_app(places, token=token, hosts=_hosts(shown, port), models=settings.model)
    config = uvicorn.Config(
        app,
        log_level="error",  # not a line for each malformed request
        access_log=False,
        http="h11",
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
        limit_concurrency=200,
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])
    return "The studio is closed."


def _hosts(host: str, port: int) -> frozenset[str]:
    """Values of the Host header that are ours."""
    names = {host, LOCAL, "localhost"}
    return frozenset(f"{name}:{port}".lower() for name in names) | (frozenset(names) if port == 80 else frozenset())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_unspecified(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RizbinError where there can be none."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RizbinError(f"Nothing can be served on {host}:{port} ({reason}); give another --port.") from error
    return listening
