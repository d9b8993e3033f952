"""Rizbin trains, measures, inspects and uses vision-language models that keep the detail.

Three lines do the whole thing; importing the package loads nothing heavy:

    import rizbin
    run = rizbin.fit("detailclip", data="scenes", minutes=6)
    print(rizbin.measure(run))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rizbin.api import export, fit, load, measure, report

__version__ = "0.1.0.dev0"
__all__ = ["__version__", "export", "fit", "load", "measure", "report"]


def __getattr__(name: str) -> Any:
    """The public functions, imported when first asked for: torch alone takes seconds to load."""
    if name in __all__:
        return getattr(import_module("rizbin.api"), name)
    raise AttributeError(f"module 'rizbin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
