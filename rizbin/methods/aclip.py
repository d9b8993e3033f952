"""A-CLIP: CLIP on two crops without the tokens to which a teacher, seeing the whole image, attends least.

Source: Yang et al., "Attentive Mask CLIP", arXiv 2212.08653: CLIP on both masked crops, SimCLR between them, BYOL
towards the teacher's whole image. The official code cannot run (missing modules, SimCLR comparing a view with
itself); this follows the paper, with the code's selection rule (2x2 blocks, 25 of 49 at 0.5, attention of all layers
and heads).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.data.views import View
from rizbin.losses.contrast import contrast_of_views, nt_xent
from rizbin.losses.distill import regression
from rizbin.models.published import build_pair
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.heads import mlp_head
from rizbin.nets.momentum import Teacher
from rizbin.nets.selection import select
from rizbin.training.method import Batch, Method, MethodView, Minimize, Progress
from rizbin.training.presets import MILD, small, vitb16, vits16, yfcc15m
from rizbin.training.settings import ImageTextSettings, Presets


def crop_map(
    attention: Float[Tensor, "batch 1 rows columns"],
    whole: Float[Tensor, "batch 4"],
    crop: Float[Tensor, "batch 4"],
    flipped: Bool[Tensor, " batch"],
) -> Float[Tensor, "batch patches"]:
    """The map of a `whole` image as a `crop` of it sees it, on the same grid: bilinear at the crop's patch centers.

    Rectangles are left, top, right, bottom as fractions of the source image. What lies outside `whole` takes its
    border's value.
    """
    rows, columns = attention.shape[-2:]
    across = (torch.arange(columns, device=crop.device) + 0.5) / columns
    down = (torch.arange(rows, device=crop.device) + 0.5) / rows
    across = torch.where(flipped[:, None], 1 - across, across)  # a mirrored view's left patch shows the crop's right
    x = crop[:, 0:1] + across * (crop[:, 2:3] - crop[:, 0:1])
    y = crop[:, 1:2] + down * (crop[:, 3:4] - crop[:, 1:2])
    x = 2 * (x - whole[:, 0:1]) / (whole[:, 2:3] - whole[:, 0:1]) - 1  # grid_sample's frame: -1 to 1
    y = 2 * (y - whole[:, 1:2]) / (whole[:, 3:4] - whole[:, 1:2]) - 1
    at = torch.stack([x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)], dim=-1)
    return F.grid_sample(attention, at.to(attention), padding_mode="border", align_corners=False).flatten(1)


class ACLIP(Method):
    """Two masked views against the caption, each other and the teacher."""

    arxiv = "2212.08653"

    @dataclass(frozen=True, kw_only=True)
    class Settings(ImageTextSettings):
        view: View.Settings = View.Settings(
            crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333), jitter=0.8, grayscale=0.2, blur=0.5
        )
        """Each of the two augmented views; the teacher's view is the whole image as it is."""
        selection: Literal["attention", "random", "none"] = "attention"
        """Which tokens the student keeps: those the teacher's CLS attends to most, random ones, or all (no removal)."""
        keep_ratio: float = 0.5
        """Share of the image that the student sees, above 0 to 1."""
        block: int = 2
        """Side in patches of the squares that are kept or removed together."""
        simclr_weight: float = 1.0
        """Weight of SimCLR between the two masked views."""
        simclr_temperature: float = 0.1
        """SimCLR's temperature."""
        byol_weight: float = 2.0
        """Weight of BYOL towards the teacher's whole image, mean of both views (code: 2)."""
        projection_hidden: int = 4096
        """Width of the projection and prediction heads."""
        projection: int = 256
        """Size of the projections."""
        momentum: float = 0.996
        """EMA momentum: share of its weights that the teacher keeps at each update, at the start of the run."""
        final_momentum: float = 1.0
        """EMA momentum at the end of the run, reached by a cosine."""

    @classmethod
    def presets(cls) -> Presets:
        return {
            "small": small(cls.name, cls.Settings(view=MILD, projection_hidden=512, projection=128)),
            "vits16": vits16(cls.name, cls.Settings()),
            "vitb16": vitb16(cls.name, cls.Settings()),
            "paper": yfcc15m(cls.name, cls.Settings()),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if not 0 < settings.keep_ratio <= 1:
            raise RizbinError(
                f"keep_ratio is {settings.keep_ratio}; the student must see something: "
                "choose a number above 0, up to 1."
            )
        self.settings = settings
        self.pair = build_pair(settings.pair)
        self.tokenizer = self.pair.tokenizer
        dim, hidden, out = self.pair.vision.dim, settings.projection_hidden, settings.projection
        self.simclr_head = mlp_head(dim, hidden, out)
        self.projector = mlp_head(dim, hidden, out, layers=2)
        self.predictor = mlp_head(out, hidden, out, layers=2)
        self.teacher = Teacher(self.taught())
        size = self.pair.image_size
        view = replace(settings.view, size=size)
        self.views = (view, view, View.Settings(size=size))

    @property
    def encoder(self) -> ImageTextPair:
        return self.pair

    def taught(self) -> dict[str, nn.Module]:
        return {"vision": self.pair.vision, "projector": self.projector}

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [self.pair, self.simclr_head, self.projector, self.predictor]}

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        settings, rows = self.settings, len(batch.views[0])
        assert batch.texts is not None  # who has a tokenizer gets captions
        with torch.no_grad():
            whole = self.teacher["vision"](batch.views[2], attend=True)
            target = self.teacher["projector"](self.pair.pool(whole))
        features = self.pair.vision(torch.cat(batch.views[:2]), self._keep(whole.attention, batch, progress))
        pooled = self.pair.pool(features)
        texts = self.pair.encode_texts(batch.texts)
        scale = self.pair.scale
        language = contrast_of_views(self.pair.embed(features), texts, scale, self.pair.logit_bias)
        u, v = self.simclr_head(pooled).split(rows)
        simclr = nt_xent(u, v, settings.simclr_temperature)
        u, v = self.predictor(self.projector(pooled)).split(rows)
        byol = (regression(u, target) + regression(v, target)) / 2
        loss = language + settings.simclr_weight * simclr + settings.byol_weight * byol
        yield Minimize(loss, records={"contrast": language, "simclr": simclr, "byol": byol, "scale": scale})
        self.pair.limit_scale()
        momentum = progress.cosine(settings.momentum, settings.final_momentum)
        self.teacher.follow(self.taught(), momentum)

    def _keep(self, attention: Tensor, batch: Batch, progress: Progress) -> Int[Tensor, "views kept"] | None:
        """Kept patches of both views: the teacher's map of the whole image, cut as the views were."""
        settings, grid, rows = self.settings, self.pair.grid, len(batch.views[0])
        if settings.selection == "none":
            return None
        if settings.selection == "random":
            scores = progress.uniform_of_views("removal", 2, rows, grid[0] * grid[1], attention.device)
        else:
            maps = attention.view(rows, 1, *grid)
            scores = torch.cat(
                [crop_map(maps, batch.crops[2], batch.crops[view], batch.flips[view]) for view in (0, 1)]
            )
        return select(scores, grid, keep_ratio=settings.keep_ratio, block=settings.block)[0]

    @torch.no_grad()
    def look(self, images: Float[Tensor, "batch 3 height width"]) -> MethodView | None:
        grid = images.shape[-2] // self.pair.patch_size, images.shape[-1] // self.pair.patch_size
        attention = self.teacher["vision"](images, attend=True).attention
        removed = select(attention, grid, keep_ratio=self.settings.keep_ratio, block=self.settings.block)[1]
        chosen = self.settings.selection == "attention"
        return MethodView.of(attention, removed if chosen else removed[:, :0], grid)
