"""The training loss of Grounding DINO: every prediction layer matched to the true boxes, then focal, L1 and GIoU.

Source: Liu et al., "Grounding DINO", arXiv 2303.05499, section 3.5; matching of DETR, arXiv 2005.12872.
Differs from transformers 5.24, whose loss takes the wrong class targets when prompts differ within a batch (it shifts
class ids by the length of this image's list, not of those before) and sends no gradient to the proposal heads (it
reads their boxes detached and their scores from the text before the encoder). Here every image has its own map from
phrases to tokens, is normalized by its own number of boxes, and a batch's loss is the mean over its images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert, generalized_box_iou


@dataclass(frozen=True)
class BoxTargets:
    """The ground truth of one image."""

    boxes: Float[Tensor, "objects 4"]
    """Center, width and height as shares of the image, 0 to 1."""
    tokens: Bool[Tensor, "objects width"]
    """Which columns of the logits name each object: those of its phrase in this image's own text."""
    text: Bool[Tensor, " width"]
    """Which columns are this image's text at all; the rest is padding. [CLS], [SEP] and dots count as text: they are
    taught to fit nothing."""


@dataclass(frozen=True)
class Predicted:
    """The predictions of one layer for a batch."""

    logits: Float[Tensor, "batch queries width"]
    """Minus infinity on padding."""
    boxes: Float[Tensor, "batch queries 4"]
    """Boxes in the form of `BoxTargets`."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights of the three terms; the loss and the matching use the same."""

    focal: float = 2.0
    """Classification (paper's code: 2 in the loss; MMDetection 2 in matching, the paper's code 1)."""
    l1: float = 5.0
    """Distance of box coordinates (DETR)."""
    giou: float = 2.0
    """Generalized intersection over union (DETR)."""


def focal_loss(
    logits: Float[Tensor, "*shape"], targets: Float[Tensor, "*shape"], *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, "*shape"]:
    """-alpha_t (1 - p_t)^gamma log p_t of each element (RetinaNet, arXiv 1708.02002, equation 5)."""
    probability = logits.sigmoid()
    fits = probability * targets + (1 - probability) * (1 - targets)
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * (1 - fits) ** gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


@torch.no_grad()
def match(
    logits: Float[Tensor, "queries width"], boxes: Float[Tensor, "queries 4"], truth: BoxTargets, weights: Weights
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Assigns queries to objects so that the total cost is least (Hungarian algorithm).

    With more objects than queries, those of the highest cost get none.
    """
    from scipy.optimize import linear_sum_assignment

    probability = logits.float().sigmoid().clamp(1e-8, 1 - 1e-8)
    hit = 0.25 * (1 - probability) ** 2 * -probability.log()
    missed = 0.75 * probability**2 * -(1 - probability).log()
    named = truth.tokens.float()
    focal = (hit - missed) @ (named / named.sum(dim=1, keepdim=True).clamp(min=1)).T
    near = torch.cdist(boxes.float(), truth.boxes.float(), p=1)
    giou = generalized_box_iou(_corners(boxes.float()), _corners(truth.boxes.float()))
    cost = weights.focal * focal + weights.l1 * near - weights.giou * giou
    # A run whose numbers are lost shall stop with the trainer's sentence, not with the algorithm's.
    rows, columns = linear_sum_assignment(torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6).cpu().numpy())
    return torch.from_numpy(rows).to(boxes.device), torch.from_numpy(columns).to(boxes.device)


Matching = Callable[[Tensor, Tensor, BoxTargets, Weights], tuple[Tensor, Tensor]]
"""Logits and boxes of one image's queries in, pairs of query and object out, as `match` gives them."""


def layer_loss(
    predicted: Predicted, truths: Sequence[BoxTargets], weights: Weights, matching: Matching = match
) -> dict[str, Float[Tensor, ""]]:
    """Focal, L1 and GIoU of one prediction layer, each already weighted: means over the images."""
    sums: dict[str, list[Tensor]] = {"focal": [], "l1": [], "giou": []}
    for logits, boxes, truth in zip(predicted.logits, predicted.boxes, truths, strict=True):
        objects = max(len(truth.boxes), 1)
        targets = torch.zeros_like(logits)
        chosen, known = matching(logits, boxes, truth, weights)
        targets[chosen] = truth.tokens[known].to(targets.dtype)
        sums["focal"].append(focal_loss(logits[:, truth.text], targets[:, truth.text]).sum() / objects)
        mine, theirs = boxes[chosen], truth.boxes[known].to(boxes.dtype)
        sums["l1"].append((mine - theirs).abs().sum() / objects)
        giou = torch.diag(generalized_box_iou(_corners(mine), _corners(theirs)))
        sums["giou"].append((1 - giou).sum() / objects)
    return {name: getattr(weights, name) * torch.stack(values).mean() for name, values in sums.items()}


def grounding_loss(
    layers: Sequence[Predicted], truths: Sequence[BoxTargets], weights: Weights = Weights()
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The sum over all layers, and the terms of the last one and of each other under their names.

    `layers` are the encoder's proposals first (see `predictions`), then the decoder's layers in order.
    """
    records: dict[str, Tensor] = {}
    total: list[Tensor] = []
    for number, predicted in enumerate(layers):
        terms = layer_loss(predicted, truths, weights)
        total += terms.values()
        last = number == len(layers) - 1
        where = "" if last else "proposals/" if number == 0 else f"layer{number}/"
        records |= {f"{where}{name}": value.detach() for name, value in terms.items()}
    return torch.stack(total).sum(), records


def predictions(model: Any, outputs: Any, text: Bool[Tensor, "batch tokens"]) -> list[Predicted]:
    """What each prediction layer of a transformers model says, all with gradient: proposals, then decoder layers.

    `outputs` are of a pass without labels; `text` is its attention mask. Of the proposals, those that the model itself
    would hand to its decoder: as many as it has queries, those with the highest score of any token.
    """
    classes, boxes = outputs.enc_outputs_class, outputs.enc_outputs_coord_logits.sigmoid()
    best = classes.detach().amax(dim=-1).topk(model.config.num_queries, dim=1).indices[..., None]
    proposals = [
        Predicted(classes.gather(1, best.expand(-1, -1, classes.shape[-1])), boxes.gather(1, best.expand(-1, -1, 4)))
    ]
    return proposals + layers_of(
        model,
        outputs.intermediate_hidden_states,
        outputs.init_reference_points,
        outputs.intermediate_reference_points,
        outputs.encoder_last_hidden_state_text,
        text,
    )


def layers_of(
    model: Any,
    hidden: Float[Tensor, "batch layers queries dim"],
    begun: Float[Tensor, "batch queries 4"],
    refined: Float[Tensor, "batch layers queries 4"],
    text_features: Float[Tensor, "batch tokens dim"],
    text: Bool[Tensor, "batch tokens"],
) -> list[Predicted]:
    """The predictions of each decoder layer, with gradient.

    Args:
        model: Whose heads read the queries.
        hidden: The queries after each layer.
        begun: The reference boxes of the first layer.
        refined: The boxes after each layer.
        text_features: The encoder's output for the text.
        text: Which of its tokens are no padding.
    """
    layers = []
    for layer in range(hidden.shape[1]):
        before = begun if layer == 0 else refined[:, layer - 1]
        logits = model.class_embed[layer](
            vision_hidden_state=hidden[:, layer], text_hidden_state=text_features, text_token_mask=text
        )
        moved = model.bbox_embed[layer](hidden[:, layer]) + torch.special.logit(before, eps=1e-5)
        layers.append(Predicted(logits, moved.sigmoid()))
    return layers


def _corners(boxes: Float[Tensor, "boxes 4"]) -> Float[Tensor, "boxes 4"]:
    return box_convert(boxes, "cxcywh", "xyxy")
