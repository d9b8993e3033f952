"""An encoder as ONNX: its image tower and, where it reads, its text tower, each a file, with the parity checked.

Images enter as pixels from 0 to 1, [batch, 3, size, size]: normalization is inside the file. Tokens enter as the
model's own tokenizer makes them. Both give unit vectors. The number of rows is free.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rizbin.core.errors import RizbinError
from rizbin.models.encoder import Encoder
from rizbin.models.own import RizbinEncoder
from rizbin.nets.text import TextEncoder
from rizbin.nets.weights import reason

IMAGE, TEXT, ABOUT = "image.onnx", "text.onnx", "rizbin_onnx.json"
OPSET = 18
"""The first with the norms as torch writes them."""
PARITY = 1e-4
"""Largest difference of any coordinate of a unit vector; rounding alone comes to 1e-6."""


class _Images(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network = encoder.network
        self._encoder = (encoder,)

    def forward(self, pixels: Tensor) -> Tensor:
        encoder = self._encoder[0]
        return F.normalize(encoder._embed(encoder._standard(pixels)), dim=-1)


class _Texts(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.network: Any = encoder.network
        self._own = isinstance(encoder, RizbinEncoder)
        self._encoder = (encoder,)

    def forward(self, tokens: Tensor) -> Tensor:
        network = self.network
        if self._own and isinstance(text := network.text, TextEncoder):
            # All words of the row and then the one at the end: its own way makes that one alone, and counts rows.
            words = text.words(text.token_embedding(tokens))
            place = tokens.argmax(dim=-1)[:, None, None].expand(-1, 1, words.shape[-1])
            return F.normalize(words.gather(1, place)[:, 0] @ text.text_projection, dim=-1)
        if self._own:
            return network.encode_texts(tokens)
        if hasattr(network, "encode_text"):
            return F.normalize(network.encode_text(tokens), dim=-1)
        out = network.get_text_features(input_ids=tokens)
        return F.normalize(out if isinstance(out, Tensor) else out.pooler_output, dim=-1)


def tokens_of(encoder: Encoder, texts: list[str]) -> Tensor:
    """Texts as the text file takes them."""
    tokenizer = encoder.tokenizer
    if isinstance(encoder, RizbinEncoder):
        return tokenizer.encode(texts)
    if hasattr(encoder.network, "encode_text"):
        return tokenizer(texts)
    config: Any = encoder.network.config
    context = int(getattr(getattr(config, "text_config", None), "max_position_embeddings", 77))
    given = tokenizer(texts, padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    return given["input_ids"]


@torch.no_grad()
def export_encoder(encoder: Encoder, folder: Path) -> dict[str, float]:
    """Writes the encoder into `folder`; returns the largest difference of each file from the network.

    Raises RizbinError where torch cannot write it, or where a file does not answer as the network does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    side = encoder.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, side, side, generator=generator)
    more = torch.rand(3, 3, side, side, generator=generator)
    differences = {IMAGE: _written(_Images(encoder), pixels, more, folder / IMAGE, "pixels")}
    if encoder.reads_text:
        tokens, others = tokens_of(encoder, ["a fox", "two bees"]), tokens_of(encoder, ["a", "a red fox", "a bee"])
        differences[TEXT] = _written(_Texts(encoder), tokens, others, folder / TEXT, "tokens")
    about = {
        "model": encoder.name,
        "image_size": side,
        "pixels": "0 to 1, RGB, [batch, 3, image_size, image_size]; normalized inside",
        "scale": encoder.scale if encoder.reads_text else None,
        "largest_difference": differences,
    }
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return differences


def _written(network: nn.Module, example: Tensor, other: Tensor, path: Path, name: str) -> float:
    """Writes one tower and returns how far the file is from it, on rows other than those it was written with."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RizbinError("ONNX needs onnx and onnxruntime: pip install 'rizbin[onnx]' brings them.") from error
    network.eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator that no exporter knows
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about sizes that are constant here
            torch.onnx.export(
                network,
                (example,),
                str(path),
                input_names=[name],
                output_names=["vectors"],
                dynamic_axes={name: {0: "batch"}, "vectors": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # of the exporter: each operator that it does not know has its own
        raise RizbinError(f"torch cannot write this network as ONNX ({reason(error)}).") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    difference = 0.0
    for rows in (example, other):
        answer: Any = session.run(None, {name: rows.numpy()})[0]
        difference = max(difference, float(np.abs(answer - network(rows).numpy()).max()))
    if not difference <= PARITY:
        raise RizbinError(
            f"{path.name} differs from the network by {difference:.2g}, more than {PARITY:g}, so it was not written as "
            "it should be."
        )
    return difference
