"""Denoising queries: true boxes, shifted and partly mislabeled, from which the decoder learns to recover the truth.

Source: Li et al., "DN-DETR", arXiv 2203.01305, section 4; far boxes that are to be refused, of "DINO", arXiv
2203.03605, section 3.3. What a query answers for is known beforehand, so no matching stands between a box and its
lesson, which early matchings, being accidental, do. While training alone: the network that is kept has no such queries.
Differs from MMDetection, where a noised query starts as a learned embedding of its class: here as the mean of the
tokens of its name, as the encoder gives them, since names are free.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import box_convert

from rizbin.detection.criterion import BoxTargets, Predicted, Weights, layer_loss, layers_of

LABEL_NOISE = 0.5
"""Twice the share of names that are drawn anew, possibly the right one (DINO, MMDetection)."""
BOX_NOISE = 1.0
"""How far a corner moves at most, in half widths and heights of its box (DINO, MMDetection); of far boxes from there to
twice as far."""
MOST = 50
"""Objects of an image that get noised queries; of more, the first (MMDetection: 100 queries in all)."""
DRAWS = 18
"""Random numbers that one object needs in one group: two for its name, eight for each of its two boxes."""


@dataclass(frozen=True)
class Noised:
    """The noised queries of a batch: `groups` times each image's objects near and then far, padded with the rest."""

    boxes: Float[Tensor, "batch noised 4"]
    """Center, width and height, shares of the image."""
    tokens: Bool[Tensor, "batch noised width"]
    """Whose name each begins as, right or wrong; none on padding."""
    groups: int
    counts: tuple[int, ...]
    """Objects of each image."""

    @property
    def room(self) -> int:
        """Objects of a group, near or far, with padding."""
        return self.boxes.shape[1] // (2 * self.groups)

    def places(self, image: int) -> tuple[Int[Tensor, " near"], Int[Tensor, " far"]]:
        """Indices of an image's queries of near boxes, group by group, and of far boxes."""
        count, room = self.counts[image], self.room
        first = 2 * room * torch.arange(self.groups)[:, None] + torch.arange(count)
        return first.flatten(), (first + room).flatten()


def noised(
    truths: Sequence[BoxTargets], names: Sequence[Bool[Tensor, "_ width"]], draws: Tensor, groups: int
) -> Noised:
    """Noised queries for the objects of a batch.

    Args:
        truths: What is in each image.
        names: The tokens of each name that its text asks for, to draw wrong ones from.
        draws: Random numbers from 0 to 1, `groups * MOST * DRAWS` for each image.
        groups: How often each object is noised.
    """
    counts = tuple(min(len(truth.boxes), MOST) for truth in truths)
    room, width = max(counts, default=0), truths[0].tokens.shape[1]
    device = truths[0].boxes.device
    boxes = torch.full((len(truths), groups, 2, room, 4), 0.5, device=device)
    tokens = torch.zeros(len(truths), groups, 2, room, width, dtype=torch.bool, device=device)
    for row, (truth, count, own_names) in enumerate(zip(truths, counts, names, strict=True)):
        if not count:
            continue
        drawn = draws[row].to(device).view(groups, MOST, DRAWS)[:, :count]
        wrong = drawn[..., 0] < LABEL_NOISE / 2
        instead = own_names.to(device)[(drawn[..., 1] * len(own_names)).long()]
        tokens[row, :, :, :count] = torch.where(wrong[..., None], instead, truth.tokens[:count])[:, None]
        moves = drawn[..., 2:].view(groups, count, 2, 2, 4).permute(2, 0, 3, 1, 4)
        boxes[row, :, :, :count] = _moved(truth.boxes[:count], *moves)
    return Noised(boxes.flatten(1, 3), tokens.flatten(1, 3), groups, counts)


def _moved(
    boxes: Float[Tensor, "objects 4"],
    amounts: Float[Tensor, "groups 2 objects 4"],
    signs: Float[Tensor, "groups 2 objects 4"],
) -> Float[Tensor, "groups 2 objects 4"]:
    """The boxes with each side moved: near ones up to half the width or height, far ones from there to all of it."""
    far = torch.tensor([0.0, 1.0], device=boxes.device).view(1, 2, 1, 1)
    sides = boxes[:, 2:].repeat(1, 2)
    shift = (amounts + far) * torch.where(signs < 0.5, -1.0, 1.0) * sides * BOX_NOISE / 2
    corners = (box_convert(boxes, "cxcywh", "xyxy") + shift).clamp(0, 1)
    # What has been turned inside out is turned back, that no width is negative.
    low, high = corners[..., :2], corners[..., 2:]
    return box_convert(torch.cat([torch.minimum(low, high), torch.maximum(low, high)], dim=-1), "xyxy", "cxcywh")


def hidden_from(noise: Noised, queries: int) -> Bool[Tensor, "batch all all"]:
    """The attention mask (true: no attention), rows attend to columns: `queries` of the network first, then the noised
    ones.

    Nobody of the network's looks at noised queries, which know the truth; those look at the network's and at their own
    group, without padding.
    """
    total = noise.boxes.shape[1]
    group = torch.arange(total) // (2 * noise.room)
    there = torch.arange(total)[None] % noise.room < torch.tensor(noise.counts)[:, None]
    hidden = torch.ones(len(noise.counts), queries + total, queries + total, dtype=torch.bool)
    hidden[:, :, :queries] = False
    hidden[:, queries:, queries:] = (group[:, None] != group) | ~there[:, None]
    return hidden


@dataclass
class DenoisedQueries:
    """The decoder's predictions for the noised queries of one pass."""

    layers: list[Predicted] = field(default_factory=list)


@contextmanager
def denoising(model: Any, noise: Noised, text: Bool[Tensor, "batch tokens"]) -> Iterator[DenoisedQueries]:
    """Within, a pass of the model decodes noised queries beside its own.

    The outputs are as if they were not there; the decoder's predictions for them are in the object that is yielded.
    """
    decoder = model.model.decoder
    queries, config = model.config.num_queries, decoder.config
    answer = DenoisedQueries()
    begun: list[Tensor] = []

    def add(_: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own, text_states = inputs["inputs_embeds"], inputs["text_encoder_hidden_states"]
        named = noise.tokens[..., : text_states.shape[1]].to(text_states)
        content = named @ text_states / named.sum(dim=-1, keepdim=True).clamp(min=1)
        boxes = noise.boxes.to(inputs["reference_points"])
        hidden = hidden_from(noise, queries)[:, None].to(own.device)
        begun[:] = [text_states, boxes]
        return args, inputs | {
            "inputs_embeds": torch.cat([own, content.to(own.dtype)], dim=1),
            "reference_points": torch.cat([inputs["reference_points"], boxes], dim=1),
            "self_attn_mask": own.new_zeros(()).masked_fill(hidden, torch.finfo(own.dtype).min),
        }

    def take(_: Any, args: tuple[Any, ...], inputs: dict[str, Any], made: Any) -> Any:
        text_states, boxes = begun
        answer.layers += layers_of(
            model,
            made.intermediate_hidden_states[:, :, queries:],
            boxes,
            made.intermediate_reference_points[:, :, queries:],
            text_states,
            text,
        )
        made.last_hidden_state = made.last_hidden_state[:, :queries]
        made.intermediate_hidden_states = made.intermediate_hidden_states[:, :, :queries]
        made.intermediate_reference_points = made.intermediate_reference_points[:, :, :queries]
        return made

    # The decoder repeats the mask of the text for as many queries as its settings say.
    decoder.config = copy(config)
    decoder.config.num_queries = queries + noise.boxes.shape[1]
    hooks = [
        decoder.register_forward_pre_hook(add, with_kwargs=True),
        decoder.register_forward_hook(take, with_kwargs=True),
    ]
    try:
        yield answer
    finally:
        decoder.config = config
        for hook in hooks:
            hook.remove()


def denoising_loss(
    layers: Sequence[Predicted], noise: Noised, truths: Sequence[BoxTargets], weights: Weights
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """Near boxes against their objects, far ones against nothing; the sum over layers, and the last one's terms.

    As in the loss of matched queries: each image by the number of its own objects, here times the groups, and the
    mean over the images.
    """
    terms: dict[str, Tensor] = {}
    total: list[Tensor] = []
    for layer in layers:
        chosen: list[tuple[Predicted, BoxTargets]] = []
        for image, (truth, count) in enumerate(zip(truths, noise.counts, strict=True)):
            near, far = noise.places(image)
            rows = torch.cat([near, far]).to(layer.logits.device)
            mine = Predicted(layer.logits[image, rows][None], layer.boxes[image, rows][None])
            repeated = BoxTargets(
                truth.boxes[:count].repeat(noise.groups, 1), truth.tokens[:count].repeat(noise.groups, 1), truth.text
            )
            chosen.append((mine, repeated))
        losses = [layer_loss(mine, [truth], weights, matching=in_order) for mine, truth in chosen]
        terms = {name: torch.stack([terms_of_image[name] for terms_of_image in losses]).mean() for name in losses[0]}
        total += terms.values()
    return torch.stack(total).sum(), {f"denoising/{name}": value.detach() for name, value in terms.items()}


def in_order(
    logits: Float[Tensor, "queries width"], boxes: Float[Tensor, "queries 4"], truth: BoxTargets, weights: Weights
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """The first query answers for the first object, and so on: instead of `criterion.match`."""
    places = torch.arange(len(truth.boxes), device=boxes.device)
    return places, places
