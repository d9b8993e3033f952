"""The adapter of a network that is at hand, whoever wrote it."""

from typing import Any

from torch import nn

from rizbin.core.errors import RizbinError
from rizbin.data.views import MEAN, STD
from rizbin.models.encoder import Encoder
from rizbin.models.open_clip import OpenClipEncoder
from rizbin.models.own import RizbinEncoder
from rizbin.models.protocol import FeatureExtractor
from rizbin.models.timm import TimmEncoder
from rizbin.models.transformers import TransformersEncoder
from rizbin.nets.dual import ImageTextPair
from rizbin.nets.image import ImageEncoder
from rizbin.nets.vision import VisionEncoder

AnyEncoder = FeatureExtractor | nn.Module
"""An adapter, or a network of Rizbin that is wrapped as it is."""


def encoder_of(model: nn.Module, *, name: str = "", tokenizer: Any = None) -> Encoder:
    """The adapter of a network, which is set to evaluation.

    model: an ImageTextPair, an ImageEncoder, a VisionEncoder, or a model of open_clip, transformers or timm.
    tokenizer: of a model of open_clip or transformers, to read text with.
    Raises RizbinError when it is none of these.
    """
    if isinstance(model, ImageTextPair | ImageEncoder):
        return RizbinEncoder(model.eval(), name=name)
    if isinstance(model, VisionEncoder):
        return TimmEncoder(model.trunk, name=name or model.settings.name, mean=MEAN, std=STD)
    if hasattr(getattr(model, "config", None), "model_type"):
        return TransformersEncoder(model, name=name, tokenizer=tokenizer)
    if hasattr(model, "visual") and hasattr(model, "encode_image"):
        return OpenClipEncoder(model, tokenizer, name=name or type(model).__name__)
    if hasattr(model, "forward_features"):
        return TimmEncoder(model, name=name)
    raise RizbinError(f"A {type(model).__name__} is no network that can be looked through; give a ViT.")


def extractor(encoder: AnyEncoder) -> FeatureExtractor:
    """The encoder itself, or the adapter of one of Rizbin's own networks, in the mode in which it is."""
    return RizbinEncoder(encoder) if isinstance(encoder, nn.Module) else encoder
