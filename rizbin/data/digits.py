"""Scikit-learn's handwritten digits: 1,797 real images of 8 x 8 that need no download, for quick experiments.

Source: the test part of "Optical Recognition of Handwritten Digits", UCI, CC BY 4.0.
"""

import hashlib

import cv2
import numpy as np

from rizbin.core.errors import RizbinError
from rizbin.data.listing import Split
from rizbin.data.sample import Sample

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EVERY = 5
"""One of so many digits is for the test."""


class Digits:
    """The digits as a source: black on white, enlarged to `size`. Raises RizbinError without scikit-learn."""

    def __init__(self, *, split: Split, size: int) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise RizbinError("The digits come with scikit-learn; pip install scikit-learn.") from error
        pixels, labels = load_digits(return_X_y=True)
        rows = np.arange(len(pixels))
        if split != "all":
            rows = rows[(rows % EVERY == 0) == (split == "test")]
        ink = np.asarray(pixels)[rows].reshape(-1, 8, 8)  # 0 to 16
        self._images = (255 - ink * (255 / 16)).round().astype(np.uint8)
        self._labels = np.asarray(labels)[rows]
        self._size, self.endless = size, False
        self.name = f"digits, {split}"
        self.categories: tuple[str, ...] = tuple(sorted(NAMES))
        content = self._images.tobytes() + self._labels.tobytes() + str(size).encode()
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        name = NAMES[int(self._labels[index])]
        gray = cv2.resize(self._images[index], (self._size, self._size), interpolation=cv2.INTER_CUBIC)
        image = np.ascontiguousarray(np.repeat(gray[..., None], 3, axis=2))
        return Sample(key=f"digits/{index}", image=image, caption=f"a handwritten {name}", label=name)
