"""What all tests share: one thread each, so that those side by side do not fight for cores; a cache in the checkout."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is first imported
os.environ.setdefault("RIZBIN_CACHE", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "rizbin"))
os.environ["COLUMNS"] = "100"  # frames and tables as wide here as anywhere


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the test: nothing that it writes by a relative path lands in the checkout."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
