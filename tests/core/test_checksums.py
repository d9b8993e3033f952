"""A folder that was given away is what was written, byte for byte, or the file that is not is named."""

import shutil
import subprocess
from pathlib import Path

import pytest

from rizbin.core.checksums import SUMS, check_sums, write_sums
from rizbin.core.errors import RizbinError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "unet").mkdir(parents=True)
    (made / "config.json").write_text("{}\n")
    (made / "unet/model.safetensors").write_bytes(bytes(range(256)))
    (made / "empty ریز").write_bytes(b"")
    write_sums(made)
    return made


def test_what_was_written_is_accepted_and_more_may_lie_beside_it(folder: Path) -> None:
    check_sums(folder)
    (folder / "card.json").write_text("{}")
    check_sums(folder)
    write_sums(folder)
    assert "card.json" in (folder / SUMS).read_text() and SUMS not in (folder / SUMS).read_text()


def test_files_of_others_can_be_left_out(folder: Path) -> None:
    write_sums(folder, ("*.json", "unet/*"))
    (folder / "empty ریز").write_bytes(b"not ours")
    check_sums(folder)
    (folder / "config.json").write_text("")
    with pytest.raises(RizbinError, match=r"config\.json does not match"):
        check_sums(folder)


def test_the_list_is_that_of_the_usual_tool(folder: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    assert subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=folder, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["config.json", "unet/model.safetensors"])
def test_any_flipped_bit_is_named(folder: Path, name: str) -> None:
    path = folder / name
    for place in range(0, path.stat().st_size, 37):
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(RizbinError, match=f"{name} does not match its checksum"):
            check_sums(folder)
        path.write_bytes(whole)
    path.unlink()
    with pytest.raises(RizbinError, match=f"{name} is missing"):
        check_sums(folder)


def test_a_list_that_is_none_is_refused(folder: Path) -> None:
    (folder / SUMS).write_bytes(b"\xff\xfe")
    with pytest.raises(RizbinError, match="cannot be read"):
        check_sums(folder)
    for text in ("nothing\n", ""):
        (folder / SUMS).write_text(text)
        with pytest.raises(RizbinError, match="not what was written"):
            check_sums(folder)
    (folder / SUMS).write_text("nothing\n")
    with pytest.raises(RizbinError, match="not what was written"):
        check_sums(folder)
    (folder / SUMS).write_text(f"{'0' * 64}  ../secret\n")
    with pytest.raises(RizbinError, match="outside its folder"):
        check_sums(folder)
    (folder / SUMS).unlink()
    check_sums(folder)
