"""What a run was made with: versions, machine, threads, commit. Never fails and imports nothing heavy."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

_UNKNOWN = "unknown"


def describe() -> dict[str, Any]:
    """Name -> finding, ready for JSON; "unknown" where it cannot be found out. Holds no path and no machine's name.

    GPU and threads are torch's answer where torch is already loaded.
    """
    return {
        "rizbin": _tried(_own_version),
        "commit": _tried(_commit),
        "python": platform.python_version(),
        **{name: _tried(lambda name=name: metadata.version(name)) for name in ("torch", "timm", "numpy")},
        "system": _tried(lambda: f"{platform.system()} {platform.machine()}"),
        "cpu": _tried(_cpu),
        "threads": _tried(_threads),
        "gpu": _tried(_gpu),
        "processes": _tried(lambda: int(os.environ.get("WORLD_SIZE", "1"))),
    }


def _tried(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception:  # this is a note beside the work; nothing about it may stop the work
        return _UNKNOWN


def _own_version() -> str:
    import rizbin

    return rizbin.__version__


def _commit() -> str:
    """The commit of the working copy that this code runs from, "-dirty" when files differ; "none" when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return "none"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _threads() -> int:
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else os.cpu_count() or 1


def _gpu() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none"
    return torch.cuda.get_device_name()
