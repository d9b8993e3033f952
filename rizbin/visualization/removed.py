"""What was taken from the student: removed patches gray and hatched, as masked autoencoders are shown."""

import numpy as np
from jaxtyping import Bool

from rizbin.nets.masks import pixels_of
from rizbin.visualization.colors import AnySizeImage, Color, SizedImage
from rizbin.visualization.grid import enlarge

GROUND: Color = (148, 148, 148)
STROKE: Color = (124, 124, 124)


def removed(image: SizedImage, patches: Bool[np.ndarray, "rows columns"], *, side: int = 192) -> AnySizeImage:
    """The image, enlarged to about `side`, with marked patches hatched: their pixels do not shine through."""
    shown = enlarge(image, side).copy()
    height, width = shown.shape[:2]
    mask = pixels_of(patches, height, width)
    across, down = np.arange(width)[None, :], np.arange(height)[:, None]
    strokes = (across + down) % 8 < 2
    shown[mask] = GROUND
    shown[mask & strokes] = STROKE
    return shown
