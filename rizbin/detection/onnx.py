"""A detector as an ONNX file, its parity checked, and the way back in through onnxruntime.

Both of torch's exporters fail on transformers' Grounding DINO: on the mask of its text, which counts along the tokens
(`isin`, `cummax`), and on grids traced in double precision. So mask and positions are made here, in Python, and given
to the file as inputs, and every grid is cast to single precision once the file is written. The number of tokens stays
free; height and width of the image are those of the export.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from rizbin.core.bounded import read_json
from rizbin.core.checksums import check_sums
from rizbin.core.errors import RizbinError
from rizbin.detection.detector import Detector, Preparation, quietly
from rizbin.detection.fast import disable_fast_attention, enable_fast_attention
from rizbin.detection.models import UNKNOWN
from rizbin.detection.phrases import CLS, DOT, QUESTION, SEP, PromptSpan, PromptText, batch_of, phrase_scores
from rizbin.nets.foreign import transformers_tokenizer

INPUTS = ("pixels", "ids", "mask", "positions")
OUTPUTS = ("logits", "boxes")
OPSET = 20
"""The first with GridSample as torch means it for volumes too; 16 would do for images."""
PARITY = 1e-3
"""Largest difference of scores and boxes (shares of the image) that an export may have; `detector-mini` comes to
2e-7, and more than this is another network."""


def text_mask(ids: Int[Tensor, " tokens"]) -> tuple[Bool[Tensor, "tokens tokens"], Int[Tensor, " tokens"]]:
    """Which tokens of a text see which, and each token's place in its own phrase: phrases do not see each other.

    A block ends with its delimiter, which belongs to it; [CLS] and the last [SEP] see themselves alone. As transformers
    has it (tests).
    """
    count = len(ids)
    ends = [place for place, token in enumerate(ids.tolist()) if token in (CLS, SEP, DOT, QUESTION)]
    mask, positions = torch.eye(count, dtype=torch.bool), torch.zeros(count, dtype=torch.long)
    for before, end in zip([-1, *ends], ends, strict=False):
        if end not in (0, count - 1):
            mask[before + 1 : end + 1, before + 1 : end + 1] = True
            positions[before + 1 : end + 1] = torch.arange(end - before)
    return mask, positions


class _Traced(nn.Module):
    """The network with mask and positions as inputs, and tensors alone as outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        with _fixed_mask(self.model, mask, positions):
            outputs = self.model(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
        return outputs.logits, outputs.pred_boxes


@contextmanager
def _fixed_mask(model: Any, mask: Tensor, positions: Tensor) -> Iterator[None]:
    """The network's own function for mask and positions replaced by these two until the block ends.

    transformers takes neither as an argument, and both of torch's exporters fail on that function (see above). The test
    that an exported file answers as the network does fails when transformers calls it no more; when it is gone, so does
    the export.
    """
    import importlib

    module = importlib.import_module(type(model).__module__)
    name = "generate_masks_with_special_tokens_and_transfer_map"
    before = getattr(module, name)
    setattr(module, name, lambda *_, **__: (mask, positions))
    try:
        yield
    finally:
        setattr(module, name, before)


def export_onnx(detector: Detector, folder: Path, *, height: int = 0, width: int = 0) -> float:
    """Writes model.onnx with its tokenizer and sizes into `folder`; returns the largest difference to the network.

    height, width: of the images that it will see, pixels, which are brought to that size; 0: the detector's shorter
    side, both. Raises RizbinError when packages are missing or the file's answers differ by more than `PARITY`.
    """
    _needed()
    height, width = height or detector.preparation.shorter, width or detector.preparation.shorter
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "model.onnx"
    text = _text_of(detector, 2, 1)
    pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([text.ids])
    disable_fast_attention(detector.model)
    try:
        with torch.no_grad(), _silent():
            torch.onnx.export(
                _Traced(detector.model).eval(),
                (pixels, ids, *(tensor[None] for tensor in text_mask(ids[0]))),
                str(target),
                input_names=list(INPUTS),
                output_names=list(OUTPUTS),
                dynamic_axes={"ids": {1: "tokens"}, "mask": {1: "tokens", 2: "tokens"}, "positions": {1: "tokens"}},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        enable_fast_attention(detector.model)
    _single_precision(target)
    detector.tokenizer.save_pretrained(folder)
    facts = {"height": height, "width": width, "limit": detector.model.config.max_text_len}
    facts |= {"mean": detector.preparation.mean, "std": detector.preparation.std}
    (folder / "detector.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    apart = _apart(detector, OnnxDetector(folder), pixels)
    if not apart <= PARITY:
        raise RizbinError(f"The exported file answers otherwise than the network (by {apart:.1e}); it is of no use.")
    return apart


def _text_of(detector: Detector, *lengths: int) -> PromptText:
    """A text with phrases of so many unknown tokens, which every tokenizer has at the same place."""
    ids: list[int] = [CLS]
    spans: list[PromptSpan] = []
    for place, length in enumerate(lengths):
        spans.append(PromptSpan(place, len(ids), len(ids) + length))
        ids += [UNKNOWN] * length + [DOT]
    return PromptText((*ids, SEP), tuple(spans))


def _single_precision(path: Path) -> None:
    """Casts every grid of GridSample: tracing leaves double ones, and onnxruntime wants both inputs alike."""
    import onnx

    model = onnx.load(str(path))
    nodes = []
    for number, node in enumerate(model.graph.node):
        if node.op_type == "GridSample":
            cast = f"{node.input[1]}_single_{number}"
            nodes.append(onnx.helper.make_node("Cast", [node.input[1]], [cast], to=onnx.TensorProto.FLOAT))
            node.input[1] = cast
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))


@torch.inference_mode()
def _apart(detector: Detector, exported: "OnnxDetector", pixels: Float[Tensor, "1 3 height width"]) -> float:
    """The largest difference of scores and boxes, over texts of other lengths than the one traced."""
    worst = 0.0
    for lengths in ((2,), (1, 1, 1, 2, 1)):
        text = _text_of(detector, *lengths)
        mine, theirs = (each.run_pass(pixels, text, len(lengths), "mean") for each in (detector, exported))
        for a, b in zip((*mine[0], *mine[1]), (*theirs[0], *theirs[1]), strict=True):
            worst = max(worst, float(np.abs(a - b).max()))
    return worst


class OnnxDetector(Detector):
    """A detector that runs by onnxruntime; every image is seen at the size of the export, one at a time."""

    has_network = False

    def __init__(self, folder: str | Path, *, threads: int = 0) -> None:
        """threads: of onnxruntime; 0: all cores. Raises RizbinError when the folder holds no export."""
        _needed()
        import onnxruntime

        folder = Path(folder)
        check_sums(folder)
        try:
            facts = read_json(folder / "detector.json")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self.session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except (OSError, ValueError) as error:
            raise RizbinError(f"{folder} holds no exported detector ({error}); make one with rizbin export.") from error
        except Exception as error:  # onnxruntime raises types of its own
            raise RizbinError(f"{folder / 'model.onnx'} cannot be run ({error}); export it again.") from error
        self.limit = int(facts["limit"])
        self.tokenizer = transformers_tokenizer(folder)
        height, width = int(facts["height"]), int(facts["width"])
        self.preparation = _Fixed(
            shorter=min(height, width),
            longer=max(height, width),
            mean=tuple(facts["mean"]),
            std=tuple(facts["std"]),
            height=height,
            width=width,
        )
        self.name = str(folder)
        self.folder = folder

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def longest_text(self) -> int:
        return self.limit

    def run_pass(
        self, views: Float[Tensor, "batch 3 height width"], text: PromptText, phrases: int, token_pooling: str
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        ids, _ = batch_of([text])
        mask, positions = text_mask(ids[0])
        inputs = {"ids": ids.numpy(), "mask": mask[None].numpy(), "positions": positions[None].numpy()}
        corners, scores = [], []
        for view in views:
            outputs: Any = self.session.run(list(OUTPUTS), {"pixels": view[None].float().numpy(), **inputs})
            logits, boxes = outputs
            center, side = np.split(boxes[0], 2, axis=-1)
            corners.append(np.concatenate([center - side / 2, center + side / 2], axis=-1))
            scores.append(
                phrase_scores(torch.from_numpy(logits[0]), text, phrases, token_pooling=token_pooling).numpy()
            )
        return corners, scores


@dataclass(frozen=True, kw_only=True)
class _Fixed(Preparation):
    """One size for all images."""

    height: int
    width: int

    def size(self, height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
        if scale != 1.0:
            raise RizbinError(f"An exported detector sees all images at one size; scale {scale:g} is for the others.")
        return self.height, self.width


def _needed() -> None:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise RizbinError(f"{error.name} is not installed: pip install 'rizbin[onnx]' brings it.") from error
    assert onnx is not None and onnxruntime is not None


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's warnings about traced sizes: they are meant to be fixed."""
    import warnings

    with warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")
        yield
