"""Published benchmarks by name: which there are, what their folders hold, and the run of one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from rizbin.core.commands import Argument, Place, job
from rizbin.core.errors import RizbinError
from rizbin.core.measurement import Report
from rizbin.core.progress import Bar
from rizbin.core.results import Table
from rizbin.detection import benchmarks as detection
from rizbin.evaluation.benchmarks import classification, compositions, orders, retrieval, segmentation, webdatasets
from rizbin.evaluation.benchmarks.protocol import Benchmark, BenchmarkOptions
from rizbin.workflows.load import Loaded

BenchmarkName = Literal[
    "",
    "imagenet",
    "folders",
    "webdataset",
    "coco-retrieval",
    "flickr30k",
    "voc20",
    "voc21",
    "context59",
    "context60",
    "coco-stuff",
    "coco-object",
    "ade20k",
    "cityscapes",
    "aro-relation",
    "aro-attribution",
    "aro-coco-order",
    "aro-flickr30k-order",
    "sugarcrepe",
    "coco",
    "lvis",
]
"""Empty: none."""
_ROOMS = (classification, webdatasets, retrieval, segmentation, compositions, orders)
BENCHMARKS: dict[str, Benchmark] = {
    **{benchmark.name: benchmark for room in _ROOMS for benchmark in room.BENCHMARKS},
    **{
        name: Benchmark(
            name=name,
            about=detection.ABOUT[name],
            layout=detection.LAYOUTS[name],
            source="arXiv 1405.0312" if name == "coco" else "arXiv 1908.03195",
            run=run,
            detects=True,
        )
        for name, run in detection.RUNS.items()
    },
}
"""Name -> the protocol."""
assert set(BENCHMARKS) == set(get_args(BenchmarkName)) - {""}


def run_benchmark(
    name: str, model: Loaded, root: Place | None, *, batch: int, limit: int | None, quiet: bool
) -> Report:
    """The published numbers of a model. Raises RizbinError for what is not there, saying what the folder must hold."""
    benchmark = BENCHMARKS[name]
    if root is None:
        raise RizbinError(f"Say where {name} lies with --root DIR: a folder with {benchmark.layout}.")
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise RizbinError(f"There is no folder {folder}; {name} needs one with {benchmark.layout}.")
    if limit is not None and limit < 1:
        raise RizbinError(f"--limit is {limit}; give 1 or more images.")
    detector = model.detector
    if benchmark.detects and detector is None:
        raise RizbinError(f"{model.name} is no detector; {name} measures those, such as detector-mini.")
    if not benchmark.detects and not model.encoder.reads_text:
        raise RizbinError(f"{model.name} reads no words; {name} measures image-text encoders.")
    return benchmark.run(
        detector if benchmark.detects else model.encoder,
        folder,
        BenchmarkOptions(batch=batch, limit=limit),
        lambda total, label: Bar(total, label, quiet=quiet),
    )


@dataclass(frozen=True)
class ListBenchmarks:
    """List the benchmarks that rizbin evaluate --benchmark knows, and what their folders must hold."""

    name: Annotated[str, Argument(positional=True, metavar="NAME")] = ""
    """Only this one. Empty: all."""
    json: bool = False
    """Print as JSON."""


@dataclass(frozen=True)
class BenchmarkList(Table):
    """Benchmarks with their layouts."""

    benchmarks: tuple[Benchmark, ...]

    def rows(self) -> list[dict[str, str]]:
        """A row a benchmark: name, what it measures, the layout, the source."""
        return [
            {"name": benchmark.name, "about": benchmark.about, "layout": benchmark.layout, "source": benchmark.source}
            for benchmark in self.benchmarks
        ]

    def text(self) -> str:
        """Three lines a benchmark."""
        return "\n".join(
            f"{benchmark.name}: {benchmark.about}\n    folder: {benchmark.layout}\n    source: {benchmark.source}"
            for benchmark in self.benchmarks
        )


@job(ListBenchmarks)
def benchmarks(settings: ListBenchmarks) -> BenchmarkList:
    """The published benchmarks by name, with the layout that each expects."""
    if settings.name and settings.name not in BENCHMARKS:
        raise RizbinError(f"There is no benchmark {settings.name!r}; there are {', '.join(BENCHMARKS)}.")
    return BenchmarkList(tuple(benchmark for benchmark in BENCHMARKS.values() if settings.name in ("", benchmark.name)))
