"""Makes Rizbin's small backbones known to timm, and so to open_clip, in every program of an installation.

open_clip builds an image tower by the name that timm has for it. Neither of them reads entry points, but torch, which
both import first, calls what is installed under "torch.backends". So a model that was exported here loads in plain
open_clip and timm wherever Rizbin is installed. Nothing is imported before timm itself is; this module alone, which
needs the standard library, is what a program that never imports timm pays. TORCH_DEVICE_BACKEND_AUTOLOAD=0 turns it
off.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

AWAITED = "timm.models"
"""The module that lists timm's networks."""


def announce() -> None:
    """Registers the backbones as soon as timm has been imported; called by torch while it is imported."""
    if AWAITED not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the awaited module where it is anyway, once, and has its loader do one thing more."""

    # `path` of a package without __init__.py is a kind of its own, and no Sequence as typeshed has it.
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != AWAITED:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader)
        return spec


class _Then(Loader):
    """timm's own loader, and the backbones after it."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._own
        module.__loader__ = self._own
        self._own.exec_module(module)
        try:
            import_module("rizbin.nets.backbones")
        except Exception as error:  # whoever imports timm for another purpose shall have it
            warnings.warn(f"Rizbin's backbones could not be registered with timm ({error}).", stacklevel=2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
