"""Tiny captioning models with random weights, written as a user would have them on disk: one maker for each class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

LETTERS = [f"{letter}" for letter in "abcdefghijklmnopqrstuvwxyz.,:?!<>/_"]
WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<mask>", "a", "cat", "dog", "on", "the", "mat", "red", *LETTERS]
VOCABULARY = {word: number for number, word in enumerate(dict.fromkeys(WORDS))}
VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}"
)


def tokenizer(framed: bool = False, **options: Any) -> PreTrainedTokenizerFast:
    """Words and letters as tokens; ``framed`` puts ``<s>`` and ``</s>`` around each text."""
    inner = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    if framed:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>", **options,
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


def _saved(model: Any, processor: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def florence(folder: Path) -> Path:
    """Florence-2: a DaViT and a BART."""
    torch.manual_seed(1)
    config = transformers.Florence2Config(
        text_config={
            "model_type": "bart", "vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
            "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
            "decoder_start_token_id": 2, "forced_eos_token_id": None,
        },
        vision_config={
            "embed_dim": [8, 8, 8, 8], "num_heads": [2, 2, 2, 2], "num_groups": [2, 2, 2, 2], "depths": [1, 1, 1, 1],
            "projection_dim": 16, "window_size": 4, "max_temporal_embeddings": 4, "max_position_embeddings": 8,
        },
        image_token_id=4, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = transformers.Florence2ForConditionalGeneration(config)
    processor = transformers.Florence2Processor(
        image_processor=transformers.CLIPImageProcessorPil(
            size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5
        ),
        tokenizer=tokenizer(extra_special_tokens={"image_token": "<image>"}),
    )
    return _saved(model, processor, folder)


def blip(folder: Path) -> Path:
    """BLIP: a ViT and a BERT that looks at it."""
    torch.manual_seed(2)
    config = transformers.BlipConfig(
        text_config=TEXT | {"sep_token_id": 2, "encoder_hidden_size": 16, "projection_dim": 16},
        vision_config=VISION, projection_dim=16,
    )  # fmt: skip
    pictures = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    return _saved(
        transformers.BlipForConditionalGeneration(config),
        transformers.BlipProcessor(pictures, tokenizer(framed=True)),
        folder,
    )


def blip2(folder: Path) -> Path:
    """BLIP-2: a ViT, a Q-Former and an OPT."""
    torch.manual_seed(3)
    opt = {
        "model_type": "opt", "vocab_size": 64, "hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 256, "word_embed_proj_dim": 16,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    former = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "encoder_hidden_size": 16, "pad_token_id": 0,
    }  # fmt: skip
    config = transformers.Blip2Config(
        vision_config=VISION, qformer_config=former, text_config=opt, num_query_tokens=4, image_token_index=4
    )
    pictures = transformers.BlipImageProcessorPil(size={"height": 32, "width": 32})
    return _saved(
        transformers.Blip2ForConditionalGeneration(config),
        transformers.Blip2Processor(pictures, tokenizer(), num_query_tokens=4),
        folder,
    )


def llava(folder: Path) -> Path:
    """LLaVA, as JoyCaption is: a CLIP and a Llama, with a chat template."""
    torch.manual_seed(4)
    config = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16} | VISION,
        text_config={"model_type": "llama"} | TEXT,
        image_token_index=4, vision_feature_layer=-1, vision_feature_select_strategy="default",
    )  # fmt: skip
    pictures = transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.LlavaProcessor(
        pictures, tokenizer(), patch_size=16, vision_feature_select_strategy="default", image_token="<image>",
        num_additional_image_tokens=1, chat_template=TEMPLATE,
    )  # fmt: skip
    return _saved(transformers.LlavaForConditionalGeneration(config), processor, folder)


def gemma(folder: Path) -> Path:
    """A chat-style vision model without a class of its own in lorakiln: Gemma 3."""
    torch.manual_seed(5)
    text = TEXT | {"head_dim": 8, "sliding_window": 32}
    config = transformers.Gemma3Config(
        text_config=text, vision_config={"model_type": "siglip_vision_model"} | VISION,
        mm_tokens_per_image=4, boi_token_index=3, eoi_token_index=3, image_token_index=4,
    )  # fmt: skip
    tokens = {"boi_token": "<unk>", "image_token": "<image>", "eoi_token": "<unk>"}
    processor = transformers.Gemma3Processor(
        transformers.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, do_pan_and_scan=False),
        tokenizer(extra_special_tokens=tokens), chat_template=TEMPLATE.replace("<image>", "<unk>"),
        image_seq_length=4,
    )  # fmt: skip
    return _saved(transformers.Gemma3ForConditionalGeneration(config), processor, folder)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "florence2": florence, "blip": blip, "blip-2": blip2, "llava": llava, "gemma3": gemma,
}  # fmt: skip
"""By the ``model_type`` that their ``config.json`` names."""
