"""Rendering: samples of any data as webdataset tars, for fast loading."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rizbin.core.commands import Argument, Place, job, part
from rizbin.core.progress import Bar
from rizbin.data.render import Render, Rendered


@dataclass(frozen=True, kw_only=True)
class RenderData(Render.Settings):
    """Write samples of any data as webdataset tars, with captions and exact masks where they are known."""

    data: Annotated[str, Argument(positional=True, metavar="DATA", check="data")] = "scenes:detail"
    """What to render, as for train."""
    output: Annotated[Place, Argument(short=("-o",), metavar="DIR")]
    """A new folder, or one that the same command began."""
    quiet: bool = False
    """Show no progress bar."""


@job(RenderData)
def render(settings: RenderData) -> Rendered:
    """Writes samples into a folder that `shards:` reads back with masks. The same call goes on where it stopped."""
    quiet = settings.quiet
    rendering = Render(part(settings, Render.Settings))
    return rendering.write(Path(settings.output), bar=lambda total, label: Bar(total, label, quiet=quiet))
