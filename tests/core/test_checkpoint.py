import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rizbin.core import checkpoint
from rizbin.core.checkpoint import Checkpoint, SaveFailed, load, save
from rizbin.core.errors import RizbinError
from tests.processes import run_in_processes


def content(step: int) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    base = torch.arange(40, dtype=torch.float32).view(8, 5) + step
    shared = torch.ones(6)
    weights = {
        "base": base,
        "transposed": base.T,
        "every second": base[::2, 1:3],
        "shared": shared,
        "shared too": shared[:3],
        "scalar": torch.tensor(step),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.full((3,), 0.1)),
        "ریزبین": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    kinds = {str(kind): torch.tensor([0, 1, 1]).to(kind) for kind in checkpoint._NAMES}
    state = {"position": step * 64, "losses": [0.1 + 0.2, 1e-300], "note": "ریز", "nested": {"none": None}}
    return {"weights": weights, "optimizer-1": kinds, "nothing": {}}, state


def check(found: Checkpoint | None, step: int) -> None:
    assert found is not None and found.step == step
    tensors, state = content(step)
    assert found.state == state
    assert found.tensors.keys() == tensors.keys()
    for group, named in tensors.items():
        assert found.tensors[group].keys() == named.keys()
        for name, expected in named.items():
            loaded = found.tensors[group][name]
            assert loaded.dtype == expected.dtype and loaded.shape == expected.shape
            assert (
                loaded.contiguous()
                .view(-1)
                .view(torch.uint8)
                .equal(expected.detach().contiguous().view(-1).view(torch.uint8))
            ), f"{group}.{name} differs in its bits"


def no_warning(sentence: str) -> None:
    raise AssertionError(f"unexpected warning: {sentence}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- the plain way ---------------------------------------------------------------------------------------------


def test_there_and_back_bit_for_bit(tmp_path: Path):
    folder = tmp_path / "run" / "checkpoints"
    assert load(folder) is None
    path = save(folder, 123, *content(123))
    assert path == folder / "step_000000123"
    groups = ["nothing.safetensors", "optimizer-1.safetensors", "weights.safetensors"]
    assert names(path) == sorted(["manifest.json", "state.json", *groups])
    check(load(folder, warn=no_warning), 123)


def test_the_library_reads_our_files(tmp_path: Path):
    path = save(tmp_path, 1, *content(1))
    read = safetensors.torch.load_file(path / "weights.safetensors")
    assert torch.equal(read["transposed"], content(1)[0]["weights"]["transposed"])
    header_length = int.from_bytes((path / "weights.safetensors").read_bytes()[:8], "little")
    assert header_length % 8 == 0


def test_loaded_tensors_belong_to_nobody_else(tmp_path: Path):
    path = save(tmp_path, 1, *content(1))
    found = load(tmp_path)
    assert found is not None
    found.tensors["weights"]["base"].add_(1)
    check(load(tmp_path), 1)
    found = load(tmp_path)
    with (path / "weights.safetensors").open("r+b") as file:  # what is read from the file later must not show through
        file.write(b"\0" * (path / "weights.safetensors").stat().st_size)
    check(found, 1)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_are_kept(tmp_path: Path, keep: int):
    for step in (5, 10, 999_999_999, 1_000_000_000):
        save(tmp_path, step, *content(step), keep=keep)
    expected = ["step_000000010", "step_999999999", "step_1000000000"][-keep:]
    assert names(tmp_path) == sorted(expected)
    check(load(tmp_path, warn=no_warning), 1_000_000_000)


def test_a_step_that_was_asked_for(tmp_path: Path):
    save(tmp_path, 1, *content(1))
    save(tmp_path, 2, *content(2))
    check(load(tmp_path, 1), 1)
    with pytest.raises(RizbinError, match=r"step_000000003 cannot be used \(.*\); choose another one \(there: 2, 1\)"):
        load(tmp_path, 3)


def test_the_same_step_again_is_left_alone(tmp_path: Path):
    path = save(tmp_path, 7, *content(7))
    before = path.stat().st_ino
    assert save(tmp_path, 7, *content(8)) == path
    assert path.stat().st_ino == before
    check(load(tmp_path), 7)


def test_a_run_that_went_back_drops_what_came_later(tmp_path: Path):
    for step in (10, 20):
        save(tmp_path, step, *content(step))
    save(tmp_path, 15, *content(15), keep=1)
    assert names(tmp_path) == ["step_000000015"]


def test_other_names_in_the_folder_are_left_alone(tmp_path: Path):
    (tmp_path / "step_best").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 2, 3):
        save(tmp_path, step, *content(step), keep=1)
    assert names(tmp_path) == ["notes.txt", "step_000000003", "step_best"]


@pytest.mark.parametrize("group", ["../weights", "", "a/b", "a.b"])
def test_a_group_cannot_become_a_path(tmp_path: Path, group: str):
    with pytest.raises(ValueError, match="file name"):
        save(tmp_path, 1, {group: {}}, {})
    assert names(tmp_path) == []


# ---- damage ----------------------------------------------------------------------------------------------------


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.fixture(scope="module")
def two_saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        save(folder, step, *content(step))
    return folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_flipped_bit_is_found_and_the_one_before_is_used(two_saved: Path, data: st.DataObject):
    newest = two_saved / "step_000000002"
    path = newest / data.draw(st.sampled_from(names(newest)))
    bit = data.draw(st.integers(0, path.stat().st_size * 8 - 1))
    flip(path, bit)
    try:
        warnings: list[str] = []
        check(load(two_saved, warn=warnings.append), 1)
        assert len(warnings) == 1
        assert "step_000000002 is damaged" in warnings[0]
        assert f"({path.name} " in warnings[0]
        with pytest.raises(RizbinError, match="step_000000002 cannot be used"):
            load(two_saved, 2)
    finally:
        flip(path, bit)
    check(load(two_saved, warn=no_warning), 2)


def cut(path: Path) -> None:
    (path / "weights.safetensors").write_bytes((path / "weights.safetensors").read_bytes()[:-5])


def lengthen(path: Path) -> None:
    with (path / "state.json").open("ab") as file:
        file.write(b" ")


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(manifest)
    (path / "manifest.json").write_bytes(checkpoint._spelled(checkpoint._sealed(manifest)))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights.safetensors has": cut,
    "state.json has": lengthen,
    "manifest.json: No such file": lambda path: (path / "manifest.json").unlink(),
    "state.json: No such file": lambda path: (path / "state.json").unlink(),
    "names a file '../../secret'": lambda path: rewrite(
        path, lambda m: m["files"].update({"../../secret": m["files"]["state.json"]})
    ),
    "manifest.json is not": lambda path: (path / "manifest.json").write_bytes(b""),
    "json is not what": lambda path: (path / "manifest.json").write_bytes(b"[" * 100_000),
    "is not what was": lambda path: rewrite(path, lambda m: m.update(files=[])),
    "not what was written": lambda path: rewrite(path, lambda m: m["files"].pop("state.json")),
    "was written": lambda path: (path / "manifest.json").write_bytes((path / "manifest.json").read_bytes() + b"\n"),
    "what was written": lambda path: path.rename(path.with_name("step_000000003")),
    "No such file": lambda path: (shutil.rmtree(path), path.mkdir()),
}


@pytest.mark.parametrize("says", DAMAGE)
def test_damage_is_named_and_the_one_before_is_used(tmp_path: Path, says: str):
    save(tmp_path, 1, *content(1))
    DAMAGE[says](save(tmp_path, 2, *content(2)))
    warnings: list[str] = []
    check(load(tmp_path, warn=warnings.append), 1)
    assert len(warnings) == 1 and says in warnings[0] and "\n" not in warnings[0]


def test_a_damaged_one_is_written_anew_and_costs_no_good_one(tmp_path: Path):
    save(tmp_path, 1, *content(1))
    cut(save(tmp_path, 2, *content(2)))
    save(tmp_path, 2, *content(2))
    check(load(tmp_path, warn=no_warning), 2)
    cut(tmp_path / "step_000000002")
    save(tmp_path, 1, *content(1), keep=1)
    check(load(tmp_path), 1)


def test_all_damaged_is_none_with_a_warning_for_each(tmp_path: Path):
    for step in (1, 2):
        cut(save(tmp_path, step, *content(step)))
    warnings: list[str] = []
    assert load(tmp_path, warn=warnings.append) is None
    assert len(warnings) == 2
    with pytest.warns(UserWarning, match="damaged"):
        load(tmp_path)


def test_a_flip_in_the_manifest_names_the_manifest_and_no_other_file(tmp_path: Path):
    path = save(tmp_path, 1, {"weights": {"a": torch.ones(3)}}, {}) / "manifest.json"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 3):  # every byte, one of its bits
        flip(path, bit)
        said: list[str] = []
        assert load(tmp_path, warn=said.append) is None
        assert "(manifest.json is not what was written)" in said[0]
        path.write_bytes(whole)


def test_a_checkpoint_of_the_first_format_still_loads(tmp_path: Path):
    path = save(tmp_path, 1, *content(1)) / "manifest.json"
    manifest = json.loads(path.read_bytes())
    del manifest["sha256"]
    path.write_bytes(checkpoint._spelled({**manifest, "format": 1}))
    check(load(tmp_path, warn=no_warning), 1)
    path.write_bytes(checkpoint._spelled(manifest))
    assert load(tmp_path, warn=lambda said: None) is None


def test_leftovers_are_removed_by_the_next_save(tmp_path: Path):
    for name in (".tmp-step_000000009", ".tmp-old-step_000000001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_bytes(b"half")
    assert load(tmp_path) is None
    save(tmp_path, 1, *content(1))
    assert names(tmp_path) == ["step_000000001"]
    (tmp_path / ".tmp-old-step_000000000").mkdir()
    checkpoint.sweep(tmp_path)
    assert names(tmp_path) == ["step_000000001"]
    checkpoint.sweep(tmp_path / "nothing")


# ---- killed at any moment --------------------------------------------------------------------------------------

KILLER = """
    # Forks once for each system call of a save, dies right before it (or in the middle of a write), and looks at what
    # is left. Prints how many deaths were survived.
    import os, shutil, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from rizbin.core.checkpoint import load, save

    folder = Path(sys.argv[1])
    os.fsync = lambda descriptor: None  # a killed process loses nothing that it has written; only a power cut does
    CALLS = ("open", "write", "fsync", "close", "mkdir", "rename", "unlink", "rmdir")
    REAL = {name: getattr(os, name) for name in CALLS}

    def content(step):
        return {"weights": {"a": torch.full((50,), float(step)), "b": torch.arange(3)}, "ema": {"a": torch.ones(2)}}

    def deadly(countdown, halves):
        def patch(name):
            def call(*args, **kwargs):
                countdown[0] -= 1
                if countdown[0] < 0:
                    if name == "write" and halves:
                        REAL["write"](args[0], args[1][: len(args[1]) // 2])
                    os._exit(9)
                return REAL[name](*args, **kwargs)
            return call
        for name in REAL:
            setattr(os, name, patch(name))

    def fail(sentence):
        raise SystemExit("after death before call %d: %s" % (calls, sentence))

    def is_step(found, step):
        return found.step == step and found.tensors["weights"]["a"][7] == step and found.state == {"step": step}

    deaths = 0
    for halves in (False, True):
        for calls in range(10_000):
            shutil.rmtree(folder, ignore_errors=True)
            save(folder, 1, content(1), {"step": 1}, keep=1)
            child = os.fork()
            if child == 0:
                deadly([calls], halves)
                save(folder, 2, content(2), {"step": 2}, keep=1)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            warnings = []
            found = load(folder, warn=warnings.append)
            if found is None or warnings or not (is_step(found, 1) or is_step(found, 2)):
                fail("no good checkpoint, or a warning: %s %s" % (found, warnings))
            if code == 0 and not is_step(found, 2):
                fail("the save that ended is not the one that loads")
            save(folder, 3, content(3), {"step": 3}, keep=1)
            if not is_step(load(folder), 3) or os.listdir(folder) != ["step_000000003"]:
                fail("the next save left %s" % os.listdir(folder))
            if code == 0:
                break
            if code != 9:
                fail("unexpected exit code %d" % code)
            deaths += 1
    print(deaths)
"""


def test_killed_before_or_in_any_system_call(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(KILLER), str(tmp_path / "checkpoints")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # 4 files of open, write, fsync, close; 2 folders; mkdir, rename; the old one's removal: more than 30, twice.
    assert int(done.stdout) > 60


# ---- a disk that refuses ---------------------------------------------------------------------------------------


def fill_the_disk(folder: str) -> tuple[str, str, bool]:
    """In a process of its own: no file may grow beyond 4 KiB while the second checkpoint is saved."""
    path = Path(folder)
    save(path, 1, *content(1))
    large = {"weights": {"a": torch.zeros(10_000)}}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(SaveFailed) as caught:
            save(path, 2, large, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    left = ",".join(names(path))
    check(load(path, warn=no_warning), 1)
    return left, str(caught.value), save(path, 2, large, {}).exists()


def test_a_full_disk_costs_nothing(tmp_path: Path):
    left, sentence, later = run_in_processes(fill_the_disk, 1, str(tmp_path))[0]
    assert left == "step_000000001"
    assert sentence.startswith("The checkpoint of step 2 could not be saved in") and "File too large" in sentence
    assert "\n" not in sentence
    assert later


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The room in `tmp_path`, bytes: a write that goes beyond it is refused as a full disk refuses it."""
    room = {"bytes": 10**9}
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if taken(tmp_path) + len(data) > room["bytes"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    monkeypatch.setattr(checkpoint.os, "write", write)
    return room


def test_where_only_two_have_room_the_older_one_makes_it(tmp_path: Path, disk: dict[str, int]):
    save(tmp_path, 1, *content(1))
    save(tmp_path, 2, *content(2))
    disk["bytes"] = taken(tmp_path) + 100
    for step in (3, 4):
        save(tmp_path, step, *content(step))
        assert names(tmp_path) == [f"step_{step - 1:09d}", f"step_{step:09d}"]
        check(load(tmp_path, warn=no_warning), step)


def test_making_room_costs_no_good_checkpoint(tmp_path: Path, disk: dict[str, int]):
    save(tmp_path, 1, *content(1))
    save(tmp_path, 2, *content(2))
    cut(tmp_path / "step_000000002")  # the older one is the only good one
    disk["bytes"] = taken(tmp_path) + 100
    save(tmp_path, 3, *content(3))
    assert names(tmp_path) == ["step_000000001", "step_000000003"]
    disk["bytes"] = taken(tmp_path) // 2 + 100  # not even two have room
    with pytest.raises(SaveFailed, match="No space left"):
        save(tmp_path, 4, *content(4))
    check(load(tmp_path, warn=no_warning), 3)
    cut(tmp_path / "step_000000003")
    with pytest.raises(SaveFailed, match="No space left"):
        save(tmp_path, 5, *content(5))
    assert names(tmp_path) == ["step_000000003"]


@pytest.mark.parametrize("call", ["mkdir", "open", "write", "fsync", "rename"])
def test_any_refused_call_is_save_failed_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    save(tmp_path, 1, *content(1))

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, call, refuse)
        with pytest.raises(SaveFailed, match="No space left on device"):
            save(tmp_path, 2, *content(2))
    assert "step_000000001" in names(tmp_path)
    assert "step_000000002" not in names(tmp_path)
    check(load(tmp_path, warn=no_warning), 1)
    save(tmp_path, 2, *content(2), keep=1)
    assert names(tmp_path) == ["step_000000002"]


def test_an_interrupt_while_saving_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 1, *content(1))
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SaveFailed, match="could not be saved"):
        save(tmp_path / "file" / "checkpoints", 1, *content(1))


def test_order_of_calls_makes_it_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every file and the directory are on the disk before the rename, the parent after it."""
    happened: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        happened.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        happened.append(f"-> {Path(target).name}")
        real_rename(source, target)

    monkeypatch.setattr(checkpoint.os, "fsync", fsync)
    monkeypatch.setattr(checkpoint.os, "rename", rename)
    save(tmp_path, 2, {"weights": {"a": torch.ones(1)}}, {})
    assert happened == [
        *("weights.safetensors", "state.json", "manifest.json", ".tmp-step_000000002"),
        *("-> step_000000002", tmp_path.name),
    ]
