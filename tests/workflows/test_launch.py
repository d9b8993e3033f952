"""Job files: they parse, start the right processes with the right words, go on after a stop, and train as two."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import rizbin
from rizbin import cli
from rizbin.core.errors import RizbinError

COMMAND = "train detailclip --data 'my captions.csv' --batch 64 --run runs/big"
WORDS = ["train", "detailclip", "--data", "my captions.csv", "--batch", "64", "--run", "runs/big"]
# What srun does, as far as the job needs it: a task for each process, and the greatest exit status of them.
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do echo "$1" >> "$CALLS"; shift; done
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & echo $! >> "$CALLS.tasks"
done
status=0
for process in $(jobs -p); do wait "$process"; code=$?; ((code > status)) && status=$code; done
exit $status
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; echo second; else echo "scontrol $*" >> "$CALLS"; fi
"""
PYTHON = """#!/bin/bash
echo "$RANK $LOCAL_RANK $WORLD_SIZE $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $(printf '<%s>' "$@")" >> "$CALLS"
exit "$CODE"
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def started(file: Path, tmp_path: Path, **more: str) -> "subprocess.Popen[str]":
    """A job of SLURM with two tasks, its programs replaced by the small ones above."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        program(tmp_path / "bin" / name, text)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "TORCHELASTIC"))},
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(rizbin.__file__).parents[1]),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_NTASKS": "2",
        "SLURM_JOB_NODELIST": "machines[1-2]",
        **more,
    }
    return subprocess.Popen(["bash", str(file)], cwd=tmp_path, env=environment, stdout=-1, stderr=-2, text=True)


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


@pytest.mark.parametrize(("code", "queued"), [(0, False), (2, False), (75, True)])
def test_a_slurm_job_starts_its_tasks_and_queues_itself_again_when_all_is_saved(
    tmp_path: Path, code: int, queued: bool
) -> None:
    python = program(tmp_path / "bin/python-of-mine", PYTHON)
    file = rizbin.launch(
        "slurm", COMMAND, output=tmp_path / "job", processes=2, setup=("PREPARED=yes",), python=str(python)
    )
    job = started(file, tmp_path, CODE=str(code))
    job.communicate(timeout=60)
    assert job.returncode == code
    lines = calls(tmp_path)
    tasks = sorted(line for line in lines if "<" in line)
    port = 20000 + os.getpid() % 20000
    words = "".join(f"<{word}>" for word in ["-m", "rizbin", *WORDS])
    assert tasks == [f"{rank} {rank} 2 2 127.0.0.1 {port} {words}" for rank in (0, 1)]
    assert (f"scontrol requeue {os.getpid()}" in lines) == queued
    assert {"--kill-on-bad-exit=0", "--wait=0"} <= set(lines)


def test_what_slurm_reads(tmp_path: Path) -> None:
    file = rizbin.launch(
        "slurm", COMMAND, output=tmp_path / "job", nodes=4, processes=8, hours=1.5, partition="long", account="us"
    )
    lines = file.read_text().splitlines()
    given = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH")]
    options = {name: value for name, _, value in given}
    assert options == {
        **{"job-name": "rizbin", "output": "rizbin-%j.log", "open-mode": "append", "requeue": ""},
        **{"nodes": "4", "ntasks-per-node": "8", "cpus-per-task": "8", "mem": "256G", "gpus-per-node": "8"},
        **{"time": "01:30:00", "signal": "TERM@180", "partition": "long", "account": "us"},
    }
    assert lines[0] == "#!/bin/bash" and max(lines.index(line) for line in lines if line.startswith("#SBATCH")) < 16
    plain = rizbin.launch("slurm", COMMAND, output=tmp_path / "cpu", gpus=False).read_text()
    assert "gpus" not in plain and "partition" not in plain


def parsed(words: list[str]) -> Any:
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(words)


def test_a_torchrun_script_says_what_torchrun_understands(tmp_path: Path) -> None:
    file = rizbin.launch(
        "torchrun", COMMAND, output=tmp_path / "several", nodes=2, processes=8, address="first", name="mine"
    )
    words = shlex.split(file.read_text().splitlines()[-1])
    assert words[:4] == ["exec", "python", "-m", "torch.distributed.run"]
    given = parsed(words[4:])
    assert (given.nnodes, given.nproc_per_node, given.rdzv_endpoint, given.rdzv_id) == ("2", "8", "first:29500", "mine")
    assert given.module and given.training_script == "rizbin" and given.training_script_args[-8:] == WORDS
    alone = shlex.split(rizbin.launch("torchrun", COMMAND, output=tmp_path / "alone").read_text().splitlines()[-1])
    assert parsed(alone[4:]).standalone


def test_kubernetes_reads_a_service_and_an_indexed_job(tmp_path: Path) -> None:
    file = rizbin.launch(
        "kubernetes",
        COMMAND,
        output=tmp_path / "job.yaml",
        nodes=4,
        processes=2,
        name="big-run",
        image="registry:5000/us/rizbin@sha256:0a",
        volumes=("data:/data", "runs:/runs"),
        setup=". /venv/bin/activate",
    )
    service, job = yaml.safe_load_all(file.read_text())
    assert (service["kind"], service["spec"]["clusterIP"], service["metadata"]["name"]) == (
        "Service",
        "None",
        "big-run",
    )
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (4, 4, "Indexed")
    assert (pod["subdomain"], pod["restartPolicy"]) == ("big-run", "OnFailure")
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": 16, "memory": "64Gi", "nvidia.com/gpu": 2}
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]} == {
        **{"shm": "/dev/shm", "volume-0": "/data", "volume-1": "/runs"},
    }
    assert {volume["name"] for volume in pod["volumes"]} == {"shm", "volume-0", "volume-1"}
    assert pod["volumes"][2]["persistentVolumeClaim"] == {"claimName": "runs"}
    # The command of the container, run with a program that shows what it got.
    program(tmp_path / "bin/python", '#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (bash, flag, script, *rest) = container["command"]
    script = script.replace(". /venv/bin/activate", f"PATH={tmp_path}/bin:$PATH")
    shown = subprocess.run(
        [bash, flag, script, *rest], env={**os.environ, "JOB_COMPLETION_INDEX": "3"}, capture_output=True, text=True
    ).stdout.splitlines()
    given = parsed(shown[2:])
    assert shown[:2] == ["-m", "torch.distributed.run"] and (given.nnodes, given.nproc_per_node) == ("4", "2")
    assert (given.node_rank, given.master_addr, given.master_port) == (3, "big-run-0.big-run", 29500)
    assert given.training_script == "rizbin" and given.training_script_args[-8:] == WORDS


@pytest.mark.parametrize(
    ("command", "more", "says"),
    [
        ("evaluate runs/a", {}, "is no training"),
        ("train", {}, "is no training"),
        ("train clip --steps 5", {}, "has no --run"),
        ("train clip --run 'a", {}, "cannot be read"),
        (COMMAND, {"nodes": 3}, "batch of 64 cannot be shared evenly by 3 processes"),
        ("train clip --batch=10 --run a", {"processes": 4}, "batch of 10"),
        (COMMAND, {"nodes": 0}, "--nodes is 0"),
        (COMMAND, {"hours": 0.0}, "--hours is 0"),
        (COMMAND, {"port": 70000}, "--port is 70000"),
        (COMMAND, {"name": "Mine"}, "--name is 'Mine'"),
        (COMMAND, {"partition": "a\n#SBATCH --exclusive"}, "--partition is"),
        (COMMAND, {"scheduler": "torchrun", "nodes": 2}, "--address is missing"),
        (COMMAND, {"scheduler": "kubernetes"}, "--image is missing"),
        (COMMAND, {"scheduler": "kubernetes", "image": "a", "volumes": ("data",)}, "--volumes has 'data'"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(
    tmp_path: Path, command: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(RizbinError, match=r"^[^\n]+$") as error:
        rizbin.launch(**{"scheduler": "slurm", "command": command, "output": tmp_path / "job"} | more)
    assert says in str(error.value) and not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train detailclip --run a --stepz 3", "--stepz"),
        ("train detailclop --run a", "no method 'detailclop'"),
        ("train clip --preset huge --run a", "no preset 'huge'"),
        ("train clip --preset small --run a", "batch of 32 cannot be shared evenly by 3 processes"),
    ],
)
def test_the_words_of_the_training_are_parsed_before_they_go_to_a_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, says: str
) -> None:
    assert cli.main(["launch", "slurm", command, "--processes", "3", "-o", str(tmp_path / "job")]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "job").exists()


def test_a_file_of_somebody_stays(tmp_path: Path) -> None:
    (tmp_path / "job").write_text("mine")
    with pytest.raises(RizbinError, match="job"):
        rizbin.launch("slurm", COMMAND, output=tmp_path / "job")
    assert (tmp_path / "job").read_text() == "mine"


SMALL = (
    "train clip --data scenes:easy --batch 4 --steps {} --run run --no-report --quiet --trainer.workers 0 --device cpu"
)


@pytest.mark.slow
def test_a_slurm_job_of_two_processes_is_stopped_and_goes_on_with_one(tmp_path: Path) -> None:
    """The generated file as it stands, with real trainings as its two tasks, over gloo."""
    file = rizbin.launch(
        "slurm", SMALL.format(80), output=tmp_path / "job", processes=2, cores=1, python=sys.executable, gpus=False
    )
    job = started(file, tmp_path)
    metrics, deadline = tmp_path / "run/metrics.jsonl", time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n")):
        assert job.poll() is None and time.monotonic() < deadline, job.communicate()[0]
        time.sleep(0.2)
    for task in (tmp_path / "calls.tasks").read_text().split():  # as --signal does
        os.kill(int(task), signal.SIGTERM)
    text, _ = job.communicate(timeout=240)
    assert job.returncode == 75 and f"scontrol requeue {os.getpid()}" in calls(tmp_path), text
    assert not (tmp_path / "run/finished.json").exists()

    # Queued again it may get fewer processes: the batch is theirs together, so the run goes on all the same.
    job = started(file, tmp_path, SLURM_NTASKS="1")
    text, _ = job.communicate(timeout=280)
    assert job.returncode == 0 and (tmp_path / "run/finished.json").exists(), text
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 80


@pytest.mark.slow
def test_a_torchrun_script_trains_with_two_processes(tmp_path: Path) -> None:
    file = rizbin.launch(
        "torchrun", SMALL.format(3), output=tmp_path / "script", processes=2, cores=1, python=sys.executable
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(rizbin.__file__).parents[1])}
    done = subprocess.run(["bash", str(file)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "run/finished.json").exists(), done.stdout + done.stderr
