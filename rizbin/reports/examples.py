"""What an image-text encoder does with single images: the material of a report's image pages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from rizbin.data.sample import Refused, Sample, Source
from rizbin.data.views import normalize, whole
from rizbin.evaluation.suite import Evaluation
from rizbin.evaluation.zero_shot import TemplateSet, embed_categories
from rizbin.models.wrap import AnyEncoder, extractor
from rizbin.training.method import Method, MethodView

BATCH = 64
"""Images encoded together: enough for speed, small enough for any memory."""
TEMPLATES: TemplateSet = Evaluation.Settings().templates
"""Prompts of a category: the evaluation's, so that a report's cards and its headline ask the same."""


@dataclass(frozen=True)
class RankedText:
    """One of the best texts for an image."""

    text: str
    share: float
    """Its probability among all candidate texts, 0 to 1."""
    right: bool


@dataclass(frozen=True)
class Pool:
    """Samples of a source with the scores that an image-text encoder gives them."""

    samples: list[Sample]
    images: UInt8[np.ndarray, "samples size size 3"]
    """The images that evaluation sees: the central square at the pair's size."""
    texts: list[str]
    """The candidate texts: the categories, or without them the samples' own captions; may be empty."""
    named: bool
    """Whether `texts` are categories."""
    chances: Float[np.ndarray, "samples texts"]
    """Each image's probability of each text, rows sum to 1."""
    finds: Float[np.ndarray, "samples samples"]
    """Cosine of each sample's caption (row) with each image (column)."""

    def right(self, index: int, text: str) -> bool:
        """Whether the text is true of the sample."""
        sample = self.samples[index]
        return text in sample.names if self.named else text == sample.caption

    def answers(self, index: int, count: int = 3) -> list[RankedText]:
        """The `count` most probable texts of a sample."""
        row = self.chances[index]
        best = np.argsort(-row, kind="stable")[:count]
        return [RankedText(self.texts[at], float(row[at]), self.right(index, self.texts[at])) for at in best]

    def worst(self, count: int) -> list[int]:
        """Samples whose first answer is wrong, the surest first; fewer than `count` where fewer are."""
        if not self.texts:
            return []
        first = [self.answers(index, 1)[0] for index in range(len(self.samples))]
        wrong = [index for index, answer in enumerate(first) if not answer.right]
        return sorted(wrong, key=lambda index: -first[index].share)[:count]

    def retrieved(self, index: int, count: int = 5) -> tuple[list[int], int]:
        """The images nearest to a sample's caption, and at which place (1 is best) its own image comes."""
        ranked = np.argsort(-self.finds[index], kind="stable").tolist()
        return ranked[:count], ranked.index(index) + 1


def first_samples(source: Source, count: int) -> list[Sample]:
    """The source's first `count` samples that can be used; fewer where it has fewer."""
    samples: list[Sample] = []
    for index in range(min(len(source), 2 * count)):
        if len(samples) == count:
            break
        try:
            samples.append(source[index])
        except Refused:
            continue
    return samples


@torch.no_grad()
def embedded(
    encoder: AnyEncoder, names: Sequence[str], templates: TemplateSet = TEMPLATES
) -> Float[np.ndarray, "names embedding"]:
    """Unit-length embeddings of the names, as the evaluation makes them of its categories."""
    return embed_categories(encoder, tuple(names), templates, batch=BATCH).numpy()


@torch.no_grad()
def ask(
    encoder: AnyEncoder, samples: Sequence[Sample], categories: Sequence[str], templates: TemplateSet = TEMPLATES
) -> Pool:
    """Lets an image-text encoder name and find the samples. It must be in evaluation mode.

    `templates` are the prompts of a category; the evaluation's, where its numbers stand beside.
    """
    network = extractor(encoder)
    images = np.stack([whole(sample.image, network.image_size) for sample in samples])
    embeddings = torch.cat([network.embeddings(network.normalized(part)) for part in _parts(images, network.device)])
    embeddings, captions = embeddings.float(), [sample.caption for sample in samples]
    parts = range(0, len(captions), BATCH)
    texts = torch.cat([network.encode_text(captions[start : start + BATCH]) for start in parts]).float()
    named = bool(categories) and any(sample.names for sample in samples)
    candidates = list(categories) if named else list(dict.fromkeys(caption for caption in captions if caption))
    if named:
        choices = torch.from_numpy(embedded(network, candidates, templates)).to(network.device)
    else:
        choices = texts[[captions.index(caption) for caption in candidates]]
    chances = (embeddings @ choices.T * network.scale).softmax(dim=-1).cpu().numpy()
    return Pool(list(samples), images, candidates, named, chances, (texts @ embeddings.T).cpu().numpy())


@torch.no_grad()
def looks(method: Method | None, images: UInt8[np.ndarray, "batch size size 3"]) -> MethodView | None:
    """What the method shows of the images, on the CPU; None without a method or when it has nothing to show."""
    if method is None or not len(images):
        return None
    device = next(method.parameters()).device
    parts: list[MethodView] = []
    for part in _parts(images, device):
        look = method.look(normalize(part))
        if look is None:
            return None
        parts.append(look)
    made = [part.reconstruction for part in parts if part.reconstruction is not None]
    return MethodView(
        torch.cat([part.attention for part in parts]).float().cpu(),
        torch.cat([part.removed for part in parts]).cpu(),
        torch.cat(made).float().cpu() if len(made) == len(parts) else None,
    )


def _parts(images: UInt8[np.ndarray, "batch size size 3"], device: torch.device) -> list[torch.Tensor]:
    """Batches on the device."""
    starts = range(0, len(images), BATCH)
    return [torch.from_numpy(images[start : start + BATCH]).to(device) for start in starts]
