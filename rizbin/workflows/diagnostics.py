"""Diagnostics of a self-supervised method during training: nearest neighbors and collapse."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from rizbin.core.random import generator
from rizbin.data.sample import Source
from rizbin.data.views import View, normalize
from rizbin.evaluation.alarms import collapse_alarms
from rizbin.evaluation.collapse import alignment, health, lidar, uniformity
from rizbin.evaluation.embed import LabeledImages, read
from rizbin.evaluation.knn import vote
from rizbin.nets.image import ImageEncoder
from rizbin.training.method import Method
from rizbin.training.trainer import Diagnostics

MEMORY, QUERIES = 500, 250
"""Training images in the memory and test images as queries of k-NN: it takes seconds and has a standard error of 3
points."""
QUIET = 0.25
"""Share of the run before which nothing is called a collapse: every network starts out looking like one."""
LEAST_STEPS = 100
"""Updates before which nothing is called a collapse, however short the run."""
LEAST_IMAGES = 20
"""With fewer test images there are no diagnostics: a rank is never above their number, and k-NN moves in steps of 5
points."""
K, TEMPERATURE = 20, 0.07
"""Number of neighbors and temperature of their vote, the same as in the full evaluation."""


class CollapseDiagnostics:
    """A `rizbin.training.trainer.Callback` over some images of a source, read once."""

    def __init__(
        self,
        untrained: Method,
        train: Source,
        test: Source,
        *,
        warmup: float = 0.0,
        steps: int = 0,
        memory: int = MEMORY,
        queries: int = QUERIES,
        silent: bool = False,
    ) -> None:
        encoder = untrained.encoder
        assert isinstance(encoder, ImageEncoder)  # who trains a pair is watched by its captions
        size, grid = encoder.image_size, encoder.grid
        parts = []
        for source, count in ((train, memory), (test, queries)):
            count = count if source.endless else min(count, len(source))
            seen, _ = read(source, count, size, seed=0, advance=lambda _: None)
            categories = source.categories or tuple(sorted({name for sample in seen for name in sample.names}))
            parts.append(LabeledImages.of(seen, categories, size, grid))
        self.memory, self.queries = parts
        self.unseen = ""
        """Why some numbers or all of them are missing, in a sentence; empty where none are."""
        enough = len(self.queries) >= LEAST_IMAGES
        if not enough:
            count = len(self.queries)
            are = "is 1 image" if count == 1 else f"are {count} images"
            fewer = f"There {are} to look at while it trains, fewer than {LEAST_IMAGES}"
            if len(self.memory) >= LEAST_IMAGES:
                self.unseen = f"{fewer}: collapse is looked for on training images, and no neighbors are asked."
                self.queries = self.memory.first(queries)
            else:
                self.unseen = f"{fewer}, and so has the training part: the run goes on without its collapse numbers."
        self.blind = len(self.queries) < LEAST_IMAGES
        self.named = (
            enough
            and self.memory.right.shape[1] > 1
            and self.memory.right.shape == (len(self.memory), self.queries.right.shape[1])
            and bool(self.queries.right.any())
        )
        # Two views of each image, also for a method that trains on one view.
        two = [untrained.views[0], untrained.views[min(1, len(untrained.views) - 1)]]
        self.views = [] if self.blind else [self._augmented(View(spec), number) for number, spec in enumerate(two)]
        self.silent, self.quiet_until = silent, max(max(warmup, QUIET) * steps, LEAST_STEPS)
        self.before: tuple[str, ...] = ()
        self.fixed: dict[str, float] = {}
        if self.named:
            pixels = (part.pixels.flatten(1).float() for part in (self.queries, self.memory))
            random = (self._features(untrained, part) for part in (self.queries, self.memory))
            self.fixed = {"knn_pixels": self._top1(*pixels), "knn_random": self._top1(*random)}

    def __call__(self, step: int, method: Method, records: Mapping[str, float]) -> Diagnostics:
        """What the method's encoder and projection look like after `step` updates."""
        numbers = dict(self.fixed)
        alarms: tuple[str, ...] = ()
        if not self.blind:
            alarms = self._spread(method, numbers)
        alarms += tuple(method.alarms(records))
        if step < self.quiet_until:
            alarms = ()
        # Only where it holds twice in a row: one measurement in twenty may be an outlier.
        confirmed, self.before = (alarms if self.before else ()), alarms
        return Diagnostics({name: round(value, 5) for name, value in numbers.items()}, confirmed, self.silent)

    def _spread(self, method: Method, numbers: dict[str, float]) -> tuple[str, ...]:
        """Adds what features and projections say to the numbers; returns the alarms."""
        features = self._features(method, self.queries)
        if self.named:
            numbers["knn"] = self._top1(features, self._features(method, self.memory))
        of_features = health(features)
        numbers |= {"feature_std": of_features.std, "feature_rank": of_features.rank}
        a, b = (self._projected(method, view) for view in self.views)
        if a is None or b is None:
            return ()
        of_projection = health(a)
        numbers |= {"projection_std": of_projection.std, "projection_rank": of_projection.rank}
        numbers |= {"alignment": alignment(a, b), "uniformity": uniformity(a)}
        numbers["lidar"] = lidar(torch.stack((a, b), dim=1))
        numbers |= method.inspect(features)
        return collapse_alarms(of_projection)

    def _augmented(self, view: View, number: int) -> Float[Tensor, "images 3 size size"]:
        pixels = self.queries.pixels.numpy()
        made = [view(image, generator(0, "watch", number, place))[0] for place, image in enumerate(pixels)]
        return normalize(torch.from_numpy(np.stack(made)))

    @torch.no_grad()
    def _features(self, method: Method, images: LabeledImages) -> Float[Tensor, "images dim"]:
        return _resting(method, normalize(images.pixels), project=False)

    @torch.no_grad()
    def _projected(self, method: Method, images: Float[Tensor, "images 3 size size"]) -> Tensor | None:
        return _resting(method, images, project=True)

    def _top1(self, queries: Float[Tensor, "queries dim"], memory: Float[Tensor, "memory dim"]) -> float:
        """Percent of the named queries whose first answer is right."""
        right: Bool[Tensor, "queries categories"] = self.queries.right
        scores = vote(queries, memory, self.memory.right, k=K, temperature=TEMPERATURE)
        known = right.any(dim=1)
        hits = right.gather(1, scores.argmax(dim=1, keepdim=True)).squeeze(1)[known]
        return 100 * hits.double().mean().item()


def _resting(method: Method, images: Tensor, *, project: bool, rows: int = 125) -> Tensor:
    """Features or projections of images by the method in evaluation mode, which then goes on as it was."""
    training = method.training
    device = next(method.parameters()).device
    encoder = method.encoder
    assert isinstance(encoder, ImageEncoder)
    method.eval()
    outputs = []
    for some in images.split(rows):
        features = encoder.pooled(some.to(device))
        made = method.project(features) if project else features
        outputs.append((features if made is None else made).float().cpu())
    method.train(training)
    return torch.cat(outputs)
