"""Job files: a training on many processes as a script for torchrun, a job for SLURM or manifests for Kubernetes.

The files start PyTorch's own way of joining processes (RANK, WORLD_SIZE, MASTER_ADDR) and nothing of ours, so that they
can be read, changed and handed to whoever runs the cluster.
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Literal

from rizbin.core import outputs
from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError

Scheduler = Literal["torchrun", "slurm", "kubernetes"]
STOPPED = 75
"""Exit status of a training that was stopped with everything saved (`rizbin/cli/training.py`)."""
_GRACE = 180
"""Seconds between the signal and the end: a step, and a checkpoint of some gigabytes to a network's disk."""


@dataclass(frozen=True)
class Launch:
    """Write the file that starts a training on many processes: a SLURM job, a Kubernetes Job, a script for torchrun."""

    scheduler: Annotated[Scheduler, Argument(positional=True, metavar="SCHEDULER")]
    """torchrun (the same script on each machine), slurm (for sbatch) or kubernetes (for kubectl apply)."""
    command: Annotated[str, Argument(positional=True, metavar="COMMAND")]
    """What follows `rizbin`, in quotes: "train detailclip --data captions.csv --batch 4096 --run runs/big"."""
    _: KW_ONLY
    output: Annotated[Place, Argument(short=("-o",), metavar="FILE")]
    """The file to write."""
    nodes: int = 1
    """Machines."""
    processes: int = 1
    """Processes on each machine: its GPUs."""
    gpus: bool = True
    """Request a GPU for each process."""
    cores: int = 8
    """Processor cores for each process: itself and its workers that prepare images."""
    memory: int = 32
    """GiB of memory for each process."""
    hours: float = 24.0
    """Time limit of a job; a SLURM job that reaches it saves and queues itself again."""
    name: str = "rizbin"
    """Of the job: small letters, digits and hyphens."""
    setup: Annotated[str | Sequence[str], Argument(metavar="LINE", many=True)] = ()
    """Lines of shell before the training, once for each: ". .venv/bin/activate", "module load cuda"."""
    python: str = "python"
    """The interpreter that has Rizbin, after these lines."""
    address: str = "localhost"
    """torchrun: name of the first machine, as the others reach it."""
    port: int = 29500
    """torchrun and kubernetes: where the processes meet."""
    partition: str = ""
    """slurm: the partition. Empty: the cluster's default."""
    account: str = ""
    """slurm: who pays. Empty: the default."""
    image: str = ""
    """kubernetes: the container image, which has Rizbin installed."""
    volumes: Annotated[str | Sequence[str], Argument(metavar="CLAIM:PATH", many=True)] = ()
    """kubernetes: persistent volume claims and where they are mounted: data and run folder lie there."""

    @property
    def world(self) -> int:
        """Processes on all machines together."""
        return self.nodes * self.processes


@job(Launch)
def launch(settings: Launch) -> Path:
    """Writes the job file and returns its path.

    Raises RizbinError for a command that is no training with a run folder, for a batch that the processes cannot share
    evenly, and for names that the scheduler would refuse.
    """
    words = training_words(settings.command)
    _check(settings, words)
    write = {"torchrun": _torchrun, "slurm": _slurm, "kubernetes": _kubernetes}[settings.scheduler]
    outputs.refuse_taken(Path(settings.output))
    return outputs.write(Path(settings.output), write(settings, words))


def training_words(command: str) -> list[str]:
    """The words after `rizbin` of a training that can be resumed. Raises RizbinError for anything else."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise RizbinError(f"The command cannot be read ({error}); check its quotes.") from error
    words = words[1:] if words[:1] == ["rizbin"] else words
    if len(words) < 2 or words[0] != "train":
        raise RizbinError(f"'{command}' is no training; give what follows rizbin: \"train detailclip ... --run DIR\".")
    if not any(word == "--run" or word.startswith("--run=") for word in words):
        raise RizbinError("The command has no --run; name a folder that all machines see, by which it is resumed.")
    return words


def check_batch(batch: int, settings: Launch) -> None:
    """Raises RizbinError where the processes cannot share a batch evenly."""
    if batch < 1 or batch % settings.world:
        raise RizbinError(
            f"A batch of {batch} cannot be shared evenly by {settings.world} processes; give --batch a multiple of "
            f"{settings.world}."
        )


def _check(settings: Launch, words: Sequence[str]) -> None:
    for field, least in (("nodes", 1), ("processes", 1), ("cores", 1), ("memory", 1), ("port", 1)):
        if getattr(settings, field) < least:
            raise RizbinError(f"--{field} is {getattr(settings, field)}; give {least} or more.")
    if not 0.1 <= settings.hours <= 24 * 365:
        raise RizbinError(f"--hours is {settings.hours:g}; give a tenth of an hour to a year.")
    if settings.port > 65535:
        raise RizbinError(f"--port is {settings.port}; give one up to 65535.")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?", settings.name):
        raise RizbinError(f"--name is {settings.name!r}; give small letters, digits and hyphens, a letter first.")
    for field in ("partition", "account", "address", "image"):
        if not re.fullmatch(r"[\w.:/@,+-]*", getattr(settings, field)):
            raise RizbinError(f"--{field} is {getattr(settings, field)!r}; give a name without spaces and quotes.")
    if settings.scheduler == "torchrun" and settings.nodes > 1 and settings.address in ("localhost", "127.0.0.1"):
        raise RizbinError("--address is missing; name the first machine as the others reach it.")
    batches = [value for flag, value in zip(words, [*words[1:], ""], strict=True) if flag == "--batch"]
    batches += [word.partition("=")[2] for word in words if word.startswith("--batch=")]
    for batch in batches:
        if batch.isdecimal():
            check_batch(int(batch), settings)


def _lines(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _torchrun(settings: Launch, words: Sequence[str]) -> str:
    """A script that is started on each of the machines."""
    meeting = ["--standalone"]
    if settings.nodes > 1:
        endpoint = f"{settings.address}:{settings.port}"
        meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", settings.name]
    number = ["--nnodes", str(settings.nodes), "--nproc-per-node", str(settings.processes)]
    # The lone -- keeps torchrun from taking our --run for one of its own flags.
    command = [settings.python, "-m", "torch.distributed.run", *number, *meeting, "-m", "rizbin", "--", *words]
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Start this on each of {settings.nodes} machines; the same again resumes."
            if settings.nodes > 1
            else "# The same again resumes.",
            "set -e",
            *_lines(settings.setup),
            f'export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-{settings.cores}}}"',
            f"exec {shlex.join(command)}",
            "",
        ]
    )


def _slurm(settings: Launch, words: Sequence[str]) -> str:
    """A batch script. Each process is a task, so that SLURM's signal comes to it and not to a program in between."""
    minutes = max(round(settings.hours * 60), 1)
    options = {
        "job-name": settings.name,
        "output": f"{settings.name}-%j.log",
        "open-mode": "append",
        "nodes": settings.nodes,
        "ntasks-per-node": settings.processes,
        "cpus-per-task": settings.cores,
        "mem": f"{settings.memory * settings.processes}G",
        **({"gpus-per-node": settings.processes} if settings.gpus else {}),
        "time": f"{minutes // 60:02d}:{minutes % 60:02d}:00",
        "signal": f"TERM@{_GRACE}",
        **{name: value for name in ("partition", "account") if (value := getattr(settings, name))},
    }
    task = (
        'export RANK="$SLURM_PROCID" LOCAL_RANK="$SLURM_LOCALID" WORLD_SIZE="$SLURM_NTASKS" '
        f'LOCAL_WORLD_SIZE={settings.processes}; exec "$@"'
    )
    command = shlex.join(["bash", "-c", task, settings.name, settings.python, "-m", "rizbin", *words])
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH --{name}={value}" for name, value in options.items()),
            "#SBATCH --requeue",
            "# Submit with sbatch. The same job again resumes the run.",
            "set -e",
            *_lines(settings.setup),
            'MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"',
            "MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))  # two jobs on one machine do not meet",
            f"export MASTER_ADDR MASTER_PORT OMP_NUM_THREADS={settings.cores}",
            "",
            "# A task that ended first waits for the others: the first one still saves, or writes the report.",
            "set +e",
            f"srun --kill-on-bad-exit=0 --wait=0 {command}",
            "status=$?",
            f"# {STOPPED}: the time is nearly over or the job gives way, and everything is saved.",
            f'if [ "$status" -eq {STOPPED} ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
            'exit "$status"',
            "",
        ]
    )


def _kubernetes(settings: Launch, words: Sequence[str]) -> str:
    """A headless Service, by which the pods find the first, and an Indexed Job with a pod for each machine."""
    if not settings.image:
        raise RizbinError("--image is missing; name a container image that has Rizbin installed.")
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": settings.name},
        # The pods look for each other before they count as ready.
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": settings.name}},
    }
    whole = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": settings.name},
        "spec": {
            "completionMode": "Indexed",
            "completions": settings.nodes,
            "parallelism": settings.nodes,
            "backoffLimit": 20,
            "activeDeadlineSeconds": round(settings.hours * 3600),
            "template": {"spec": _pod(settings, words)},
        },
    }
    about = "# kubectl apply -f FILE. A pod that fails is started again, and the run is resumed.\n"
    return about + "---\n".join("\n".join([*_yaml(document), ""]) for document in (service, whole))


def _pod(settings: Launch, words: Sequence[str]) -> dict[str, object]:
    """What each machine runs."""
    mounts = [_mount(text) for text in _lines(settings.volumes)]
    run = [
        *(settings.python, "-m", "torch.distributed.run", f"--nnodes={settings.nodes}"),
        *(f"--nproc-per-node={settings.processes}", f"--master-addr={settings.name}-0.{settings.name}"),
        *(f"--master-port={settings.port}", '--node-rank="$JOB_COMPLETION_INDEX"', "-m", "rizbin", "--"),
    ]
    # What the pod sets stays a variable; the words of the training come as arguments, which no shell reads.
    started = " ".join(word if word.startswith("--node-rank") else shlex.quote(word) for word in run)
    script = "\n".join(["set -e", *_lines(settings.setup), f'exec {started} "$@"'])
    limits = {"cpu": settings.cores * settings.processes, "memory": f"{settings.memory * settings.processes}Gi"}
    limits |= {"nvidia.com/gpu": settings.processes} if settings.gpus else {}
    container = {
        "name": "rizbin",
        "image": settings.image,
        "command": ["bash", "-c", script, settings.name, *words],
        "env": [{"name": "OMP_NUM_THREADS", "value": str(settings.cores)}],
        "ports": [{"containerPort": settings.port}],
        "resources": {"requests": limits, "limits": limits},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            *({"name": f"volume-{place}", "mountPath": path} for place, (_, path) in enumerate(mounts)),
        ],
    }
    claims = [
        {"name": f"volume-{place}", "persistentVolumeClaim": {"claimName": claim}}
        for place, (claim, _) in enumerate(mounts)
    ]
    return {
        "subdomain": settings.name,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": _GRACE,
        "containers": [container],
        # Workers hand over images by shared memory, of which a container has 64 MB otherwise.
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}, *claims],
    }


def _mount(text: str) -> tuple[str, str]:
    claim, _, path = text.partition(":")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", claim) or not re.fullmatch(r"/[\w./-]+", path):
        raise RizbinError(f"--volumes has {text!r}; give a claim and where it is mounted, such as data:/data.")
    return claim, path


def _yaml(value: object, indent: str = "") -> list[str]:
    """Lines of YAML of what JSON holds. Its strings are JSON's, which YAML reads alike."""
    if isinstance(value, dict):
        items = [
            (f"{key if re.fullmatch(r'[A-Za-z]+', key) else json.dumps(key)}:", inner) for key, inner in value.items()
        ]
    elif isinstance(value, list):
        items = [("-", inner) for inner in value]
    else:
        return [f"{indent}{json.dumps(value)}"]
    lines: list[str] = []
    for mark, inner in items:
        if not isinstance(inner, dict | list) or not inner:
            lines.append(f"{indent}{mark} {json.dumps(inner)}")
        elif mark == "-":
            first, *rest = _yaml(inner, f"{indent}  ")
            lines += [f"{indent}- {first.strip()}", *rest]
        else:
            lines += [f"{indent}{mark}", *_yaml(inner, f"{indent}  ")]
    return lines
