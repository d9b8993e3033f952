"""Trains a Grounding DINO on images whose objects are known by box and name.

Source: Liu et al., "Grounding DINO", arXiv 2303.05499, section 3; sampled negative names as in MM-Grounding-DINO, arXiv
2401.02361. Each image has a text of its own: the names of what is in it and some of what is not, in random order, so
that neither a place in the text nor a name is ever right by itself. Some are asked for one name alone, as
`verify` asks.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rizbin.core.errors import RizbinError
from rizbin.data.sample import Named
from rizbin.data.views import View
from rizbin.detection.criterion import BoxTargets, Weights, grounding_loss, predictions
from rizbin.detection.denoising import DRAWS, MOST, Noised, denoising, denoising_loss, noised
from rizbin.detection.detector import DEFAULT, Detector, Preparation
from rizbin.detection.lora import adapt, merged
from rizbin.detection.models import DetectorSize, new_model, pieces, words_tokenizer
from rizbin.detection.phrases import PromptText, batch_of, build_prompts, named, phrase_map
from rizbin.training.method import Batch, Method, Minimize, Progress, Work
from rizbin.training.settings import Presets, TrainerSettings, Training

SEEN = 0.3
"""Least share of a box that a crop must leave, so that its name still holds."""


class GroundingDINOTraining(Method):
    """Training of Grounding DINO: matched losses on every prediction layer, and a separate text for every image."""

    name = "detector"
    arxiv = "2303.05499"
    least_batch = 1

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        names: tuple[str, ...] = ()
        """All names that the data may hold: negatives are drawn from them, and a new network's tokenizer knows them."""
        held_out: tuple[str, ...] = ()
        """Names of the data that are never taught nor asked for: on them the report measures what a trained network
        still finds that it found before."""
        words: tuple[str, ...] = ()
        """More words for a new network's tokenizer, so that it can be asked for objects that it was not trained on."""
        start: str = ""
        """Name or folder of a trained Grounding DINO to go on from; empty: a new one of `size`."""
        size: DetectorSize = DetectorSize()
        """Size of a new network."""
        image_size: int = 96
        """Side in pixels of the square views that it learns from."""
        view: View.Settings = View.Settings(crop_area=(0.5, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5)
        """Augmentation of the images; its size is `image_size`."""
        negatives: int = 40
        """Names of absent objects in a text, at most; how many is drawn each time, so that a score means the same
        beside few and many (MMDetection: 85; Open-GroundingDino: up to 50 with those present)."""
        alone: float = 0.2
        """Share of images whose text holds a single name, of a present or an absent object alike."""
        weights: Weights = Weights(focal=6.0)
        """Weights of the loss's terms; focal's is three times the paper's: in short runs from nothing several queries
        else say the same thing (docs/LOG.md). A published network was trained with the paper's 2."""
        denoising: int = 5
        """How often each object is given to the decoder a second time, shifted and perhaps misnamed, to be put right
        (DN-DETR, DINO; MMDetection: about 100 divided by twice the objects of an image). 0: never. Costs time with the
        square."""
        freeze: tuple[Literal["text", "backbone"], ...] = ()
        """Parts whose weights stay fixed: for small data sets, both (MMDetection's advice)."""
        text_rate: float = 1.0
        """Share of the learning rate for the text encoder: 0.1 for a published network (MMDetection), 1 from
        nothing."""
        backbone_rate: float = 1.0
        """Share of the learning rate for the image backbone."""
        lora: int = 0
        """Rank of low-rank adapters, which are trained instead of all weights but the heads' (LoRA, arXiv 2106.09685):
        for a published network that shall forget little, 8 to 16. 0: none."""

    @classmethod
    def presets(cls) -> Presets:
        """Two: from nothing, and from a published network.

        small: a Grounding DINO of 1.3 million parameters on the embedded world; half an hour on one core.
        finetune: a published one on a small set; both backbones rest, rates of MM-Grounding-DINO's guide (arXiv
        2401.02361). Tried on small networks only: no published weights were at hand.
        """
        published = cls.Settings(
            start=DEFAULT,
            image_size=640,
            view=View.Settings(crop_area=(0.6, 1.0), crop_ratio=(0.75, 1.3333), flip=0.5),
            # As it was trained; denoising is not tried on published weights.
            weights=Weights(),
            denoising=0,
            freeze=("text", "backbone"),
        )
        return {
            "small": Training(
                method=cls.name,
                data="scenes:several",
                settings=cls.Settings(),
                steps=4000,
                batch=16,
                trainer=TrainerSettings(learning_rate=1e-3, weight_decay=1e-4, warmup=0.1, clip=1.0),
            ),
            "finetune": Training(
                method=cls.name,
                settings=published,
                steps=2000,
                batch=4,
                trainer=TrainerSettings(learning_rate=1e-4, weight_decay=1e-4, warmup=0.05, clip=0.1),
            ),
        }

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if len(settings.names) < 2:
            raise RizbinError("There are no two names to tell apart; give `names`, all that the data may hold.")
        if settings.lora and not settings.start:
            raise RizbinError(
                "A network from nothing has nothing for adapters to add to; give --method.start, or no lora."
            )
        self.settings = settings
        self.phrases = named(settings.names)
        self.number = {phrase.name: place for place, phrase in enumerate(self.phrases)}
        if settings.start:
            taught = Detector.from_pretrained(settings.start)
            self.model, self.text_tokenizer = taught.model, taught.tokenizer
        else:
            words = {word for phrase in self.phrases for prompt in phrase.prompts for word in pieces(prompt)}
            self.text_tokenizer = words_tokenizer(words | set(settings.words))
            self.model = new_model(settings.size, self.text_tokenizer, image_size=settings.image_size)
        self.parts = {"text": self.model.model.text_backbone, "backbone": self.model.model.backbone}
        resting = [self.parts[name] for name in settings.freeze]
        if settings.lora:
            adapt(self.model, settings.lora, without=resting)
        for part in resting:
            part.requires_grad_(False)
        limit = self.model.config.max_text_len
        prompts = build_prompts(self.phrases, self.text_tokenizer, limit)
        if lost := [*prompts.unknown, *(prompt for prompt, _ in prompts.alike)]:
            raise RizbinError(
                f"The network to start from does not know the words of {len(lost)} of {len(self.phrases)} names "
                f'("{lost[0]}"), so they could not be told apart; start from a published network, or from nothing.'
            )
        self.lengths = [
            len(build_prompts([phrase], self.text_tokenizer, limit).texts[0].ids) - 2 for phrase in self.phrases
        ]
        self.limit = limit - 2  # [CLS] and [SEP]
        self.views = (replace(settings.view, size=settings.image_size),)

    @classmethod
    def completed(
        cls, settings: "GroundingDINOTraining.Settings", categories: Sequence[str]
    ) -> "GroundingDINOTraining.Settings":
        if strange := set(settings.held_out) - set(categories):
            raise RizbinError(f"{', '.join(sorted(strange))} is to be held out, but the data do not name it.")
        taught = tuple(name for name in categories if name not in settings.held_out)
        return settings if settings.names else replace(settings, names=taught)

    @property
    def encoder(self) -> nn.Module:
        """The network alone; `detector` is the same ready for use."""
        return self.model

    def optimizers(self) -> dict[str, list[nn.Module]]:
        return {"main": [self.model]}

    def rates(self) -> list[tuple[nn.Module, float]]:
        return [(self.parts["text"], self.settings.text_rate), (self.parts["backbone"], self.settings.backbone_rate)]

    def detector(self) -> Detector:
        """The network as a `Detector` that sees images at the size it was taught at."""
        side = self.settings.image_size
        model = merged(self.model) if self.settings.lora else self.model
        return Detector(model, self.text_tokenizer, Preparation(shorter=side, longer=2 * side))

    def save(self, folder: Path) -> None:
        self.detector().save(folder)

    def step(self, batch: Batch, progress: Progress) -> Iterator[Minimize]:
        images = batch.views[0]
        draws = progress.uniform("names", len(images), 3 + 2 * len(self.phrases), torch.device("cpu"))
        visible = [
            in_view(objects, crop, bool(flip))
            for objects, crop, flip in zip(batch.objects, batch.crops[0].cpu(), batch.flips[0], strict=True)
        ]
        texts = [self._text([name for name, _ in objects], row) for objects, row in zip(visible, draws, strict=True)]
        ids, text_mask = (tensor.to(images.device) for tensor in batch_of(texts))
        width = self.limit + 2
        truths = [
            self._truth(objects, text, width, images.device) for objects, text in zip(visible, texts, strict=True)
        ]
        noise = self._noise(truths, texts, progress)
        with nullcontext() if noise is None else denoising(self.model, noise, text_mask) as answer:
            outputs = self.model(pixel_values=images, input_ids=ids, attention_mask=text_mask.long())
        loss, records = grounding_loss(predictions(self.model, outputs, text_mask), truths, self.settings.weights)
        if noise is not None and answer is not None:
            more, terms = denoising_loss(answer.layers, noise, truths, self.settings.weights)
            loss, records = loss + more, records | terms

        yield Minimize(loss, records=records)

    def _noise(self, truths: Sequence[BoxTargets], texts: Sequence[PromptText], progress: Progress) -> Noised | None:
        """Noised queries for a batch; None where none are wanted, or nothing is there to be noised."""
        groups = self.settings.denoising
        if not groups or not any(len(truth.boxes) for truth in truths):
            return None
        maps = [phrase_map(text, len(self.phrases), self.limit + 2) for text in texts]
        names = [tokens[list(text.phrases)] for tokens, text in zip(maps, texts, strict=True)]
        draws = progress.uniform("noise", len(texts), groups * MOST * DRAWS, torch.device("cpu"))
        return noised(truths, names, draws, groups)

    def _text(self, present: Sequence[str], draws: Float[Tensor, " draws"]) -> PromptText:
        """The names in an image and some that are not, in random order, as far as one text holds them; or one name."""
        count = len(self.phrases)
        alone, which, amount = draws[-3:].tolist()
        order = draws[:count].argsort().tolist()
        known = {self.number[name] for name in present if name in self.number}
        there = [place for place in order if place in known]
        absent = [place for place in order if place not in known]
        if alone < self.settings.alone:
            candidates = there[:1] if there and (which < 0.5 or not absent) else absent[:1]
        else:
            # An image of nothing is asked for something all the same.
            candidates = [*there, *absent[: max(int(amount * (self.settings.negatives + 1)), not there)]]
        chosen, used = [], 0
        for place in candidates:
            if used + self.lengths[place] <= self.limit:
                chosen.append(place)
                used += self.lengths[place]
        chosen.sort(key=lambda place: float(draws[count + place]))
        (text,) = build_prompts([self.phrases[place] for place in chosen], self.text_tokenizer, self.limit + 2).texts
        # Spans count the phrases of this text; here they are to name those of all.
        spans = tuple(replace(span, phrase=chosen[span.phrase]) for span in text.spans)
        return PromptText(text.ids, spans)

    def _truth(
        self, visible: Sequence[tuple[str, Float[Tensor, " 4"]]], text: PromptText, width: int, device: torch.device
    ) -> BoxTargets:
        tokens = phrase_map(text, len(self.phrases), width)
        objects = [(self.number[name], box) for name, box in visible if name in self.number]
        objects = [(place, box) for place, box in objects if tokens[place].any()]
        boxes = torch.stack([box for _, box in objects]) if objects else torch.zeros(0, 4)
        named = tokens[[place for place, _ in objects]]
        return BoxTargets(boxes.to(device), named.to(device), (torch.arange(width) < len(text.ids)).to(device))

    def cautions(self, work: Work) -> list[str]:
        if self.settings.start and not self.settings.freeze and work.images < 1000:
            return [
                f"{work.images} images are few for all weights of a trained network; set --method.freeze text backbone."
            ]
        return []


def in_view(objects: Sequence[Named], crop: Float[Tensor, " 4"], flip: bool) -> list[tuple[str, Float[Tensor, " 4"]]]:
    """Names and boxes (center, width, height, shares of the view) of what a crop still shows enough of."""
    left, top, right, bottom = crop.tolist()
    visible = []
    for known in objects:
        low_x, low_y, high_x, high_y = known.box
        area = (high_x - low_x) * (high_y - low_y)
        low_x, high_x = max(low_x, left), min(high_x, right)
        low_y, high_y = max(low_y, top), min(high_y, bottom)
        if area <= 0 or high_x <= low_x or high_y <= low_y or (high_x - low_x) * (high_y - low_y) < SEEN * area:
            continue
        wide, high = right - left, bottom - top
        x, y = ((low_x + high_x) / 2 - left) / wide, ((low_y + high_y) / 2 - top) / high
        box = torch.tensor([1 - x if flip else x, y, (high_x - low_x) / wide, (high_y - low_y) / high])
        visible.append((known.name, box))
    return visible
