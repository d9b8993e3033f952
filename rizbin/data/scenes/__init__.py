"""The embedded world: endless composed images whose every truth is known."""

from rizbin.data.scenes.source import CREDIT, Scenes
from rizbin.data.scenes.vocabulary import CATEGORIES

__all__ = ["CATEGORIES", "CREDIT", "Scenes"]
