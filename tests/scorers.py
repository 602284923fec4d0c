"""Tiny random CLIP and DINOv2 folders, laid out as their publishers do."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from pocket import FILES
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model


def clip_folder(folder: Path, seed: int = 0) -> Path:
    """A CLIP of a few thousand weights that reads the pocket model's words."""
    import json

    words = len(json.loads((FILES / "tokenizer" / "vocab.json").read_text()))
    towers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = towers | {"vocab_size": words, "max_position_embeddings": 24, "projection_dim": 8}
    text |= {"bos_token_id": words - 2, "eos_token_id": words - 1}
    vision = towers | {"image_size": 32, "patch_size": 8, "projection_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(FILES / "tokenizer" / name, folder)
    return folder


def dino_folder(folder: Path, seed: int = 0) -> Path:
    """A DINOv2 of a few thousand weights."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    return folder
