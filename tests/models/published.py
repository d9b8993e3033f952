"""Small models in the published layouts of the libraries that own them, beside those of `tests.models.small`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from tests.models.small import (
    SIZES,
    VIT,
    save_clip,
    save_dinov2,
    save_open_clip_model,
    save_siglip,
    save_timm_model,
)

TEXTS: dict[str, Any] = {
    **SIZES,
    "max_position_embeddings": 8,
    "vocab_size": 40,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "pad_token_id": 1,
}


def save_words(folder: Path) -> None:
    """A tokenizer that opens and closes a text as CLIP's does, and fills up with the token that closes."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "<end>": 1, "<start>": 2, "a": 3, "fox": 4, "bee": 5}
    made = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.post_processor = TemplateProcessing(single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<end>", eos_token="<end>", bos_token="<start>")
    fast.save_pretrained(folder)


def with_words(save: Callable[[Path], Any], folder: Path) -> Any:
    """What `save` writes, with that tokenizer."""
    model = save(folder)
    save_words(folder)
    return model


def save_gemma_words(folder: Path) -> None:
    """SigLIP 2's tokenizer, Gemma's in lower case, with a dozen tokens."""
    from transformers import Siglip2Tokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *"abefox", "\u2581"]
    Siglip2Tokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)


def save_siglip2(folder: Path) -> Any:
    """SigLIP 2 for images of any shape (naflex); returns the model."""
    from transformers import Siglip2Config, Siglip2Model

    torch.manual_seed(0)
    images = {**SIZES, "num_patches": 16, "patch_size": 8}
    model: Any = Siglip2Model(Siglip2Config(text_config={**TEXTS, "projection_size": 32}, vision_config=images))
    model.eval().save_pretrained(folder)
    save_gemma_words(folder)
    return model


def save_dinov2_with_registers(folder: Path) -> Any:
    """DINOv2 with four registers."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    config = Dinov2WithRegistersConfig(**SIZES, image_size=32, patch_size=8, num_register_tokens=4)
    model: Any = Dinov2WithRegistersModel(config)
    model.eval().save_pretrained(folder)
    return model


def save_dinov3(folder: Path) -> Any:
    """DINOv3: rotary positions, four registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    model: Any = DINOv3ViTModel(DINOv3ViTConfig(**SIZES, image_size=32, patch_size=8, num_register_tokens=4))
    model.eval().save_pretrained(folder)
    return model


def save_sharded_clip(folder: Path) -> Any:
    """A CLIP whose weights lie in several files with an index."""
    model = with_words(save_clip, folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    return model


def save_open_clip_siglip(folder: Path) -> Any:
    """A SigLIP of open_clip: a tower of timm pooled by attention, a bias, a text tower and a tokenizer of its own."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "timm_model_name": "rizbin_vit_nano_patch8_32",
            "timm_model_pretrained": False,
            "timm_pool": "map",
            "timm_proj": "none",
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 40,
            "hf_tokenizer_name": "somebody/words",
            "width": 32,
            "heads": 2,
            "layers": 1,
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_type": "none",
        },
    }
    written = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps(written))
    save_words(folder)
    bare: dict[str, Any] = {"load_weights": False, "pretrained_text": False}
    model: Any = open_clip.create_model(f"local-dir:{folder}", **bare)
    with torch.no_grad():
        model.visual.trunk.attn_pool.latent.normal_()
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return model.eval()


def save_timm_dinov3(folder: Path) -> Any:
    """DINOv3 of timm: an Eva with rotary positions and registers."""
    return save_timm_model(folder, "vit_small_patch16_dinov3", **VIT)


def save_timm_siglip(folder: Path) -> Any:
    """SigLIP's image tower of timm, pooled by attention."""
    return save_timm_model(folder, "vit_base_patch16_siglip_224", **VIT)


def save_timm_vit(folder: Path) -> Any:
    """A plain ViT of timm."""
    return save_timm_model(folder, "vit_tiny_patch16_224", **VIT)


PAIRS = {
    "open_clip": save_open_clip_model,
    "open_clip SigLIP": save_open_clip_siglip,
    "CLIP": lambda folder: with_words(save_clip, folder),
    "CLIP in shards": save_sharded_clip,
    "SigLIP": lambda folder: with_words(save_siglip, folder),
    "SigLIP 2 naflex": save_siglip2,
}
TOWERS = {
    "DINOv2": save_dinov2,
    "DINOv2 with registers": save_dinov2_with_registers,
    "DINOv3": save_dinov3,
    "timm ViT": save_timm_vit,
    "timm DINOv3": save_timm_dinov3,
    "timm SigLIP": save_timm_siglip,
}
