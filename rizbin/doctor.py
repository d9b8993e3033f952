"""What is installed here and what this machine can do: the answers that a first look and a fault report need."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rizbin.core.commands import job

Report = dict[str, dict[str, Any]]

# Packages that nothing needs until the named thing is done.
OPTIONAL = {
    "pytest": "make test",
    "hypothesis": "make test",
    "beartype": "shape checks in make test",
    "scikit-learn": "comparisons in make test",
    "ruff": "make check, make format",
    "pyright": "make check",
    "import-linter": "make check",
    "codespell": "make check",
}


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what is installed and what this machine can do."""

    json: bool = False
    """Print it as JSON, for an issue report."""


@job(Doctor)
def doctor(settings: Doctor) -> Report:
    """What `examine` finds."""
    return examine()


def examine() -> Report:
    """Section -> name -> finding, ready for JSON. Takes about three seconds; changes nothing but the sprite cache."""
    return {
        "python": _python(),
        "packages": _packages(),
        "machine": _machine(),
        "torch": _torch(),
        "cache": _cache(),
        "speed": _speed(),
    }


def _python() -> dict[str, Any]:
    return {"version": platform.python_version(), "executable": sys.executable, "system": platform.platform()}


def _packages() -> dict[str, Any]:
    """Package -> its version, or what its absence prevents."""
    import rizbin

    versions: dict[str, Any] = {"rizbin": rizbin.__version__}
    for name in _required():
        versions[name] = _version(name) or "missing: needed by every command"
    for name, purpose in OPTIONAL.items():
        versions[name] = _version(name) or f"missing: needed by {purpose} only"
    return versions


def _required() -> list[str]:
    """The distributions that Rizbin's own metadata asks for, extras left out."""
    try:
        lines = importlib.metadata.requires("rizbin") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        lines = ["torch", "torchvision", "timm", "open_clip_torch", "numpy"]
    names = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
    return [name.group() for name in names if name]


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _machine() -> dict[str, Any]:
    total, free = _memory()
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "cores for us": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory GiB": round(total, 1),
        "memory free GiB": round(free, 1),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        named = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if named:
            return named.group(1).strip()
    return platform.processor() or platform.machine()


def _memory() -> tuple[float, float]:
    """Memory in all and free now, in GiB; zeros where the system does not tell."""
    with contextlib.suppress(OSError):
        text = Path("/proc/meminfo").read_text()
        lines = {name: int(kib) for name, kib in re.findall(r"(\w+):\s+(\d+) kB", text)}
        return lines.get("MemTotal", 0) / 2**20, lines.get("MemAvailable", 0) / 2**20
    return 0.0, 0.0


def _torch() -> dict[str, Any]:
    import torch
    import torch.distributed

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    available = torch.distributed.is_available()
    backends = {
        "gloo": available and torch.distributed.is_gloo_available(),
        "nccl": available and torch.distributed.is_nccl_available(),
    }
    return {
        "threads": torch.get_num_threads(),
        "GPUs": ", ".join(f"{gpu.name} ({gpu.total_memory / 2**30:.0f} GiB)" for gpu in gpus) or "none",
        "CUDA built in": torch.version.cuda or "no",
        "distributed backends": ", ".join(name for name, there in backends.items() if there) or "none",
        "vector unit": torch.backends.cpu.get_cpu_capability(),
    }


def _cache() -> dict[str, Any]:
    from rizbin.data.scenes.sprites import cache_folder

    folder = cache_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    sizes = (path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "folder": str(folder),
        "writable": os.access(existing, os.W_OK),
        "holds MB": round(sum(sizes) / 1e6, 1),
        "disk free GB": round(shutil.disk_usage(existing).free / 1e9, 1),
    }


def _speed() -> dict[str, Any]:
    return {"matrix products GFLOP/s": round(_gflops()), "scenes per second": round(_scenes())}


def _gflops(side: int = 1024) -> float:
    """Speed of float32 matrix products on the device that training would use."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = torch.randn(side, side, device=device), torch.randn(side, side, device=device)

    def product() -> None:
        torch.mm(a, b)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * side**3 * _rate(product) / 1e9


def _scenes() -> float:
    """Scenes of 64 pixels composed in a second by one core, the sprites being cached."""
    from rizbin.data.open import open_source

    source = open_source("scenes", split="train", size=64, seed=0)
    position = iter(range(2**62))
    return _rate(lambda: source[next(position)])


def _rate(work: Callable[[], object], seconds: float = 0.7) -> float:
    """Calls a second, counted for about `seconds` after one call that warms up."""
    work()
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        work()
        count += 1
    return count / spent


def lines(report: Report) -> Iterable[tuple[str, str, str, bool]]:
    """Rows to show: section, name, finding in words, and whether all is well with it."""
    for section, findings in report.items():
        for name, value in findings.items():
            words = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
            well = value is not False and not words.startswith("missing: needed by every")
            yield section, name, words, well
