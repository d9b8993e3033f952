"""Small models of all libraries, as their own software writes them."""

import json
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import save_file

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def save_open_clip_model(folder: Path, **vision: Any) -> Any:
    """A folder of open_clip with its own image tower; returns the model."""
    torch.manual_seed(0)
    config = {**CLIP_CONFIG, "vision_cfg": {**CLIP_CONFIG["vision_cfg"], **vision}}
    folder.mkdir(parents=True)
    written = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    model: Any = open_clip.CLIP(**config)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return model.eval()


def save_timm_model(folder: Path, name: str = "vit_tiny_patch16_224", **arguments: Any) -> Any:
    """A folder of timm; returns the network."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    trunk: Any = timm.create_model(name, num_classes=5, **arguments)
    save_for_hf(trunk, str(folder), model_args=arguments, safe_serialization=True)
    return trunk.eval()


VIT: dict[str, Any] = {"img_size": 64, "depth": 2, "embed_dim": 32, "num_heads": 2}
"""Arguments of a small ViT of timm."""


def save_clip(folder: Path) -> Any:
    """A CLIP of transformers with a tokenizer of a few words; returns the model."""
    from transformers import CLIPConfig, CLIPModel

    texts = {**SIZES, "max_position_embeddings": 8, "vocab_size": 40, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(0)
    images = {**SIZES, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config={**texts, "pad_token_id": 1}, vision_config=images, projection_dim=16)
    model: Any = CLIPModel(config)
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_siglip(folder: Path) -> Any:
    """The same of a SigLIP."""
    from transformers import SiglipConfig, SiglipModel

    texts = {**SIZES, "max_position_embeddings": 8, "vocab_size": 40, "eos_token_id": 1, "bos_token_id": 2}
    torch.manual_seed(0)
    images = {**SIZES, "image_size": 32, "patch_size": 8}
    config = SiglipConfig(text_config={**texts, "pad_token_id": 1, "projection_size": 32}, vision_config=images)
    model: Any = SiglipModel(config)
    model.eval().save_pretrained(folder)
    save_tokenizer(folder)
    return model


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of transformers that knows three words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2, "fox": 3, "bee": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[PAD]").save_pretrained(folder)


def save_dinov2(folder: Path) -> Any:
    """A DINOv2 of transformers, which reads no text; returns the model."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    model: Any = Dinov2Model(Dinov2Config(**SIZES, image_size=32, patch_size=8))
    model.eval().save_pretrained(folder)
    return model
