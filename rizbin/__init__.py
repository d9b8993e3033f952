"""Rizbin trains, measures, inspects and uses vision-language models that keep the detail.

Every job is a function here; importing the package loads nothing heavy:

    import rizbin

    run = rizbin.train("detailclip", data="scenes", minutes=6)
    print(rizbin.evaluate(run))
    model = rizbin.load(run)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rizbin.studies.compare import compare
    from rizbin.studies.learn import learn
    from rizbin.studies.study import study
    from rizbin.workflows.adapt import adapt
    from rizbin.workflows.ascend import ascend
    from rizbin.workflows.classify import classify
    from rizbin.workflows.detect import detect
    from rizbin.workflows.embed import embed
    from rizbin.workflows.evaluate_model import evaluate
    from rizbin.workflows.export import export
    from rizbin.workflows.generate import edit, generate, repair
    from rizbin.workflows.launch import launch
    from rizbin.workflows.load import load
    from rizbin.workflows.report import report
    from rizbin.workflows.search import search
    from rizbin.workflows.train import train
    from rizbin.workflows.verify import verify
    from rizbin.workflows.visualize import visualize

__version__ = "0.1.0.dev0"
_JOBS = {
    "adapt": "workflows.adapt",
    "ascend": "workflows.ascend",
    "classify": "workflows.classify",
    "compare": "studies.compare",
    "detect": "workflows.detect",
    "edit": "workflows.generate",
    "embed": "workflows.embed",
    "evaluate": "workflows.evaluate_model",
    "export": "workflows.export",
    "generate": "workflows.generate",
    "launch": "workflows.launch",
    "learn": "studies.learn",
    "load": "workflows.load",
    "repair": "workflows.generate",
    "report": "workflows.report",
    "search": "workflows.search",
    "study": "studies.study",
    "train": "workflows.train",
    "verify": "workflows.verify",
    "visualize": "workflows.visualize",
}
"""Function -> the module that it lies in."""
__all__ = [
    "__version__",
    "adapt",
    "ascend",
    "classify",
    "compare",
    "detect",
    "edit",
    "embed",
    "evaluate",
    "export",
    "generate",
    "launch",
    "learn",
    "load",
    "repair",
    "report",
    "search",
    "study",
    "train",
    "verify",
    "visualize",
]


def __getattr__(name: str) -> Any:
    """The public functions, imported when first asked for: torch alone takes seconds to load."""
    if name in _JOBS:
        return getattr(import_module(f"rizbin.{_JOBS[name]}"), name)
    raise AttributeError(f"module 'rizbin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
