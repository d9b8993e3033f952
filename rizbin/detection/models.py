"""Grounding DINO of transformers: built small from scratch, or loaded by name or folder."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rizbin.core.errors import RizbinError
from rizbin.detection.phrases import CLS, DOT, QUESTION, SEP

PAD, UNKNOWN, MASK = 0, 100, 103
"""The other tokens that stand at a fixed place in bert-base-uncased's vocabulary."""
_FIRST_WORD = 1030
"""The first place that no fixed token needs."""


@dataclass(frozen=True, kw_only=True)
class DetectorSize:
    """How large a network is that starts from nothing. The defaults make 1.3 million parameters."""

    width: int = 64
    """Width of all tokens after the backbones; a multiple of 32, because group norm has 32 groups."""
    queries: int = 30
    """Boxes that are predicted in an image, at most as many as its smallest size has places."""
    layers: int = 2
    """Number of layers of the feature enhancer and of the decoder each (paper: 6)."""
    heads: int = 4
    """Number of attention heads; even, and a divisor of the width."""
    feedforward: int = 128
    """Width inside the layers."""
    backbone_width: int = 24
    """Width of the first stage of the Swin transformer, a multiple of 24 or below it; each of the three others doubles
    it."""
    backbone_depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    """Blocks of its stages (Swin-T: 2, 2, 6, 2)."""
    window: int = 6
    """Side in patches of the squares within which it attends."""
    text_width: int = 64
    """Width of the text encoder."""
    text_layers: int = 2
    """Number of layers of the text encoder (BERT: 12)."""
    text_tokens: int = 128
    """The longest text that one pass reads."""


_PIECES = re.compile(r"[^\W_]+|[^\w\s]|_")


def pieces(text: str) -> list[str]:
    """The words of a text as BERT tells them apart: letters and digits together, every other sign by itself."""
    return _PIECES.findall(text.lower())


def words_tokenizer(words: Iterable[str]) -> Any:
    """A tokenizer of transformers that knows `words` and nothing else, with BERT's own tokens where BERT has them.

    Other words become one unknown token. Raises RizbinError when a word is none.
    """
    from transformers import BertTokenizer

    fixed = {"[PAD]": PAD, "[UNK]": UNKNOWN, "[CLS]": CLS, "[SEP]": SEP, "[MASK]": MASK, ".": DOT, "?": QUESTION}
    known = sorted({word.lower() for word in words} - set(fixed))
    for word in known:
        if pieces(word) != [word]:
            raise RizbinError(f'"{word}" is not one word of letters; give the words of the names one by one.')
    names = {place: token for token, place in fixed.items()}
    listed = [names.get(place, f"[unused{place}]") for place in range(_FIRST_WORD)] + known
    return BertTokenizer(vocab={token: place for place, token in enumerate(listed)})


def new_model(size: DetectorSize, tokenizer: Any, *, image_size: int) -> Any:
    """An untrained MM-Grounding-DINO of that size, for square images of `image_size` pixels and larger.

    The MM variant, because its scores are scaled and start at a bias of -4.6: the original's first loss is a hundred
    times as large, and from nothing it hardly learns.
    """
    from transformers import BertConfig, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection

    _check(size, image_size)
    # Swin's heads have 24 to 32 channels; here as many at the first stage, doubled with the width.
    heads = [max(size.backbone_width // 24, 1) * 2**stage for stage in range(4)]
    return MMGroundingDinoForObjectDetection(
        MMGroundingDinoConfig(
            backbone_config={
                "model_type": "swin",
                "image_size": image_size,
                "embed_dim": size.backbone_width,
                "depths": list(size.backbone_depths),
                "num_heads": heads,
                "window_size": size.window,
                "out_indices": [2, 3, 4],
                "drop_path_rate": 0.0,
            },
            text_config=BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=size.text_width,
                num_hidden_layers=size.text_layers,
                num_attention_heads=size.heads,
                intermediate_size=2 * size.text_width,
                max_position_embeddings=size.text_tokens,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            d_model=size.width,
            num_queries=size.queries,
            encoder_layers=size.layers,
            decoder_layers=size.layers,
            encoder_attention_heads=size.heads,
            decoder_attention_heads=size.heads,
            encoder_ffn_dim=size.feedforward,
            decoder_ffn_dim=size.feedforward,
            num_feature_levels=3,
            max_text_len=size.text_tokens,
            # Small networks on endless images do not learn by heart: nothing is dropped here nor in the backbones.
            dropout=0.0,
            fusion_droppath=0.0,
        )
    )


def _check(size: DetectorSize, image_size: int) -> None:
    if size.width % 32 or size.width % size.heads or size.heads % 2:
        raise RizbinError(
            f"A width of {size.width} with {size.heads} heads cannot be built; the width must be a multiple of 32 and "
            "of the heads, and the heads even."
        )
    places = sum((image_size // stride) ** 2 for stride in (8, 16, 32))
    if size.queries > places:
        raise RizbinError(
            f"{size.queries} queries are more than the {places} places of an image of {image_size} pixels; "
            "set fewer queries."
        )
