"""Masks carried through the frames of a film by what looks alike, without any training for it.

DINO's protocol (arXiv 2104.14294, section 4.2.2, after arXiv 2006.14613): a patch takes the labels of the most similar
patches in the first frame and in the last few ones, near its place.
"""

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from rizbin.core.errors import RizbinError

_ROWS_AT_ONCE = 1024
"""Patches compared with a frame at a time, so that large frames fit into any memory."""


def propagated(
    features: Sequence[Float[np.ndarray, "rows columns dim"]],
    first: Int[np.ndarray, "height width"],
    *,
    previous: int = 7,
    temperature: float = 0.1,
    radius: float = 12.0,
    most: int = 5,
) -> Int[np.ndarray, "frames height width"]:
    """The mask of each frame, the given one first.

    Differs from DINO's code: labels enter as each patch's share of pixels, not as those of its middle pixel, so that
    objects smaller than a patch live on; "near" is a circle, not a square, as in DINOv3's; and labels are brought to a
    largest of 1 without taking off the least, by which something would be seen in a frame where nothing is left.

    Args:
        features: Of each frame's patches, in order.
        first: Numbers of objects in the first frame, 0 for none.
        previous: Frames before this one that are looked at beside the first.
        temperature: Similarities weigh exp(cosine / this).
        radius: How far an object may move from a frame that is looked at, in patches.
        most: Patches, over all frames looked at, that a patch takes its labels from.

    Raises RizbinError when the frames differ in size or the mask names nothing.
    """
    sizes = {frame.shape for frame in features}
    if len(sizes) != 1:
        raise RizbinError("The frames differ in size, so nothing can be carried through them; give frames of one film.")
    labels_present = np.unique(first)
    if not labels_present.any():
        raise RizbinError("The mask of the first frame is empty; mark what is to be followed with numbers over 0.")
    (rows, columns, _) = sizes.pop()
    shares = np.stack([_shrunk(first == label, rows, columns) for label in labels_present], axis=-1).reshape(
        rows * columns, -1
    )
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float()
    anchor = (_unit(features[0]), torch.from_numpy(shares).float())
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=previous)
    labels: list[Tensor] = []
    for frame in features[1:]:
        asking = _unit(frame)
        seen = [anchor, *recent]
        known = torch.cat([frame_features for _, frame_features in seen])
        labels.append(
            _taken(asking, [frame_labels for frame_labels, _ in seen], known, places, temperature, radius, most)
        )
        recent.append((asking, labels[-1]))
    maps = [frame_labels.numpy().reshape(rows, columns, -1) for frame_labels in labels]
    return np.stack([first, *(_decided(label_map, labels_present, *first.shape) for label_map in maps)])


def _unit(features: Float[np.ndarray, "rows columns dim"]) -> Float[Tensor, "patches dim"]:
    return F.normalize(torch.from_numpy(features).float().flatten(0, 1), dim=-1)


def _taken(
    asking: Float[Tensor, "patches dim"],
    context: list[Float[Tensor, "patches dim"]],
    known: Float[Tensor, "all objects"],
    places: Float[Tensor, "patches 2"],
    temperature: float,
    radius: float,
    most: int,
) -> Float[Tensor, "patches objects"]:
    """The labels that one frame takes from the frames before it, weighted over the most similar near patches."""
    out = []
    for start in range(0, len(asking), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        far = torch.cdist(places[part], places) > radius
        best, where = [], []
        for number, frame in enumerate(context):
            # The best of all frames are among the best of each: a frame at a time needs a fraction of the memory.
            cosines = (asking[part] @ frame.T).masked_fill(far, -torch.inf)
            top = cosines.topk(min(most, cosines.shape[1]), dim=1)
            best.append(top.values)
            where.append(top.indices + number * len(places))
        top = torch.cat(best, dim=1).topk(min(most, sum(candidates.shape[1] for candidates in best)), dim=1)
        chosen = torch.cat(where, dim=1).gather(1, top.indices)
        # softmax(cosine / temperature) is exp(cosine / temperature) over its sum; those out of reach weigh nothing.
        out.append(((top.values / temperature).softmax(dim=1).unsqueeze(-1) * known[chosen]).sum(dim=1))
    return torch.cat(out)


def _shrunk(mask: Bool[np.ndarray, "height width"], rows: int, columns: int) -> Float[np.ndarray, "{rows} {columns}"]:
    """The share of each patch that is marked."""
    return cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)


def _decided(
    maps: Float[np.ndarray, "rows columns objects"], values: Int[np.ndarray, " objects"], height: int, width: int
) -> Int[np.ndarray, "{height} {width}"]:
    """Each pixel's object: labels enlarged between patches, each brought to a largest of 1, the largest taken."""
    fine = np.stack(
        [cv2.resize(np.ascontiguousarray(maps[..., index]), (width, height)) for index in range(len(values))], axis=-1
    )
    high = fine.max(axis=(0, 1))
    # An object that is gone keeps its traces as they are: brought to 1 they would make it appear anew.
    return values[(fine / np.where(high < 0.1, 1.0, high)).argmax(axis=-1)]
