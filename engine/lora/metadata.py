"""What a LoRA file says about itself: kohya's ``ss_`` keys and the model specification's, all strings.

Torch-free. Nothing that could tell on its maker is written unless asked for in ``[saving]``: no paths, no folder
names, no tag counts, no comment, no prompts. What is asked for passes the gate for text from outside: whoever lists a
file's metadata in a terminal gets no orders in it. Hashes of the contents are added by
:func:`engine.lora.formats.save_lora`, which has the contents. Keys follow kohya sd-scripts (``train_network.py``,
``library/sai_model_spec.py``); values that are off are written as ``None``, as there.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.models.header import read_header
from engine.text import safe_text

MAX_TAGS = 2000
"""Tags counted in all at most, the most frequent ones; readers refuse headers of more than a megabyte."""

MAX_TAG = 100
"""Longest tag counted, in characters: whole sentences are no tags."""

MAX_TEXT = 20_000
"""Longest text, such as a comment, in characters."""

MAX_PROMPTS = 100
"""Sample prompts written at most, each cut at 2000 characters."""

_OPTIMIZERS = {
    "adamw": "torch.optim.adamw.AdamW",
    "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
    "paged_adamw": "bitsandbytes.optim.adamw.PagedAdamW",
    "paged_adamw8bit": "bitsandbytes.optim.adamw.PagedAdamW8bit",
    "lion": "lion",
    "lion8bit": "bitsandbytes.optim.lion.Lion8bit",
    "paged_lion8bit": "bitsandbytes.optim.lion.PagedLion8bit",
    "adafactor": "transformers.optimization.Adafactor",
    "prodigy": "prodigyopt.prodigy.Prodigy",
    "adamw_schedulefree": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
}


_OFF: dict[str, Any] = {
    "noise_offset": None,
    "noise_offset_random_strength": False,
    "multires_noise_iterations": None,
    "multires_noise_discount": None,
    "adaptive_noise_scale": None,
    "zero_terminal_snr": False,
    "min_snr_gamma": None,
    "debiased_estimation": False,
    "ip_noise_gamma": None,
    "ip_noise_gamma_random_strength": False,
    "caption_dropout_every_n_epochs": 0,
    "face_crop_aug_range": None,
    "color_aug": False,
}
"""What kohya's trainer can do and this one does not: written as off, so that readers of the keys find them."""


@dataclass(frozen=True)
class LoraFacts:
    """What is known of a run when it saves.

    Attributes:
        config: the run's configuration.
        architecture: the model specification's name, such as ``flux-1-dev/lora``.
        base_model_version: kohya's name of the family, such as ``flux1``.
        model_type: kohya's ``flux`` or ``chroma``.
        output_name: the file's name without folder and ending.
        session_id: the run's number; any text that differs between runs.
        started_at, saved_at: seconds since 1970.
        step, epoch: what has been trained; ``total_steps`` and ``total_epochs`` what is planned.
        num_train_images, num_reg_images: pictures times repeats; ``batches_per_epoch`` micro-batches.
        guidance_embedded: whether the model takes a guidance value.
        text_length: T5 tokens.
        mixed_precision: ``no``, ``bf16`` or ``fp16``, as resolved.
        tool: name and version of the program that trains.
        buckets: pictures per size ``(width, height)``.
        tag_counts: per folder name, how often each tag occurs; written when asked for.
        folders: per folder name, repeats and pictures; written when asked for.
    """

    config: RunConfig
    architecture: str
    base_model_version: str
    output_name: str
    session_id: str
    started_at: float
    saved_at: float
    step: int
    epoch: int
    total_steps: int
    total_epochs: int
    num_train_images: int
    num_reg_images: int
    batches_per_epoch: int
    guidance_embedded: bool = True
    text_length: int = 512
    mixed_precision: str = "no"
    model_type: str = "flux"
    tool: str = "lorakiln"
    buckets: Mapping[tuple[int, int], int] = field(default_factory=dict)
    tag_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    folders: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def build_metadata(facts: LoraFacts) -> dict[str, str]:
    """All keys of a file saved now, as strings."""
    training = {
        **_identity(facts),
        **_run(facts),
        **_objective(facts),
        **_data(facts),
        **_on_request(facts),
    }
    keys = {f"ss_{key}": _text(value) for key, value in training.items()}
    return {**keys, **{f"modelspec.{key}": _text(value) for key, value in _specification(facts).items()}}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file's header.

    Raises:
        ModelFileError: the file is no readable safetensors file.
    """
    return dict(read_header(path).metadata)


def legacy_model_hash(path: Path) -> str:
    """kohya's short hash of a base model: eight digits of the SHA-256 over 64 KiB at 1 MiB; cheap for any size."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(_gated(value), ensure_ascii=False)
    return safe_text(value, MAX_TEXT, newlines=True)


def _gated(value: Any) -> Any:
    """``value`` with every text in it, keys too, made safe to show."""
    if isinstance(value, dict):
        return {safe_text(key): _gated(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_gated(item) for item in value]
    return safe_text(value) if isinstance(value, str) else value


def _identity(facts: LoraFacts) -> dict[str, Any]:
    config = facts.config
    lora = config.lora
    return {
        "session_id": facts.session_id,
        "training_started_at": facts.started_at,
        "training_finished_at": facts.saved_at,
        "output_name": facts.output_name,
        "base_model_version": facts.base_model_version,
        "v2": False,
        "network_module": "networks.lora_flux",
        "network_dim": lora.rank,
        "network_alpha": lora.alpha or float(lora.rank),
        "network_dropout": lora.dropout or None,
        "network_args": _network_args(facts),
        "sd_model_name": config.model.transformer.name,
        "sd_model_hash": legacy_model_hash(config.model.transformer) if config.model.transformer.is_file() else None,
        "sd_scripts_commit_hash": None,
        "new_sd_model_hash": None,
        "vae_name": config.model.autoencoder.name,
        "vae_hash": legacy_model_hash(config.model.autoencoder) if config.model.autoencoder.is_file() else None,
        "new_vae_hash": None,
    }


def _network_args(facts: LoraFacts) -> dict[str, Any]:
    """The adapter's other settings, in kohya's words where it has them."""
    lora = facts.config.lora
    args: dict[str, Any] = {"targets": lora.targets}
    for stream, blocks in (("double", lora.double_blocks), ("single", lora.single_blocks)):
        if blocks != "all":
            args[f"train_{stream}_block_indices"] = blocks
    args.update({f"{kind}_dim": rank for kind, rank in lora.ranks.items()})
    args.update({f"{kind}_alpha": alpha for kind, alpha in lora.alphas.items()})
    args.update({key: list(texts) for key in ("include", "exclude") if (texts := getattr(lora, key))})
    args.update({key: rate for key in ("rank_dropout", "module_dropout") if (rate := getattr(lora, key))})
    if facts.config.optimizer.lora_plus_ratio != 1.0:
        args["loraplus_lr_ratio"] = facts.config.optimizer.lora_plus_ratio
    return args


def _run(facts: LoraFacts) -> dict[str, Any]:
    config = facts.config
    training, optimizer = config.training, config.optimizer
    return {
        "learning_rate": optimizer.learning_rate,
        "unet_lr": optimizer.learning_rate,
        "text_encoder_lr": None,
        "optimizer": _OPTIMIZERS[optimizer.name] + _optimizer_args(facts),
        "lr_scheduler": config.schedule.name,
        "lr_warmup_steps": config.schedule.warmup_steps,
        "max_grad_norm": optimizer.max_grad_norm,
        "num_train_images": facts.num_train_images,
        "num_reg_images": facts.num_reg_images,
        "num_batches_per_epoch": facts.batches_per_epoch,
        "num_epochs": facts.total_epochs,
        "epoch": facts.epoch,
        "max_train_steps": facts.total_steps,
        "steps": facts.step,
        "gradient_checkpointing": training.gradient_checkpointing != "none",
        "gradient_accumulation_steps": training.accumulation,
        "mixed_precision": facts.mixed_precision,
        "full_fp16": False,
        "seed": config.seed,
        "cache_latents": True,
        "max_token_length": facts.text_length,
        "fp8_base": False,
        "fp8_base_unet": False,
        "lowram": False,
        "clip_skip": None,
        "num_validation_images": 0,
        "validation_seed": None,
        "validation_split": 0.0,
        "max_validation_steps": None,
        "validate_every_n_epochs": None,
        "validate_every_n_steps": None,
        "resize_interpolation": "lanczos",
    }


def _optimizer_args(facts: LoraFacts) -> str:
    optimizer = facts.config.optimizer
    args: dict[str, Any] = {"weight_decay": optimizer.weight_decay}
    if optimizer.name != "adafactor":
        args.update(betas=optimizer.betas, eps=optimizer.eps)
    if optimizer.name == "prodigy":
        args["d_coef"] = optimizer.d_coef
    return "(" + ",".join(f"{key}={value}" for key, value in args.items()) + ")"


def _objective(facts: LoraFacts) -> dict[str, Any]:
    config = facts.config
    objective, captions = config.objective, config.dataset.captions
    return {
        "model_type": facts.model_type,
        "apply_t5_attn_mask": config.model.t5_mask,
        "weighting_scheme": objective.weighting,
        "logit_mean": objective.logit_mean,
        "logit_std": objective.logit_std,
        "mode_scale": objective.mode_scale,
        "guidance_scale": objective.guidance if facts.guidance_embedded else None,
        "timestep_sampling": objective.timestep_sampling,
        "sigmoid_scale": objective.sigmoid_scale,
        "model_prediction_type": objective.prediction,
        "discrete_flow_shift": objective.discrete_flow_shift,
        "min_timestep": round(objective.min_sigma * 1000),
        "max_timestep": round(objective.max_sigma * 1000),
        "loss_type": objective.loss,
        "huber_schedule": objective.huber_schedule,
        "huber_c": objective.huber_c,
        "huber_scale": 1.0,
        "scale_weight_norms": config.lora.max_norm or None,
        "prior_loss_weight": config.dataset.prior_loss_weight,
        "caption_dropout_rate": captions.dropout,
        "caption_tag_dropout_rate": captions.tag_dropout,
        **_OFF,
    }


def _data(facts: LoraFacts) -> dict[str, Any]:
    data, training = facts.config.dataset, facts.config.training
    return {
        "batch_size_per_device": training.batch_size,
        "total_batch_size": training.batch_size * training.accumulation,
        "resolution": (data.resolution, data.resolution),
        "flip_aug": data.flip,
        "random_crop": data.random_crop,
        "shuffle_caption": data.captions.shuffle,
        "keep_tokens": data.captions.keep_tokens,
        "enable_bucket": data.buckets.enabled,
        "bucket_no_upscale": data.buckets.no_upscale,
        "min_bucket_reso": data.buckets.min_side,
        "max_bucket_reso": data.buckets.max_side,
        "bucket_info": {
            "buckets": {
                str(number): {"resolution": list(size), "count": count}
                for number, (size, count) in enumerate(sorted(facts.buckets.items()))
            }
        },
    }


def _on_request(facts: LoraFacts) -> dict[str, Any]:
    """What is written only because ``[saving]`` asks for it."""
    saving = facts.config.saving
    wanted: dict[str, Any] = {}
    if saving.comment:
        wanted["training_comment"] = saving.comment
    if saving.include_folder_names:
        wanted["dataset_dirs"] = {
            name: {"n_repeats": repeats, "img_count": count} for name, (repeats, count) in facts.folders.items()
        }
    if saving.include_tag_counts:
        # Folder names only where they are asked for too.
        names = {name: name if saving.include_folder_names else str(n) for n, name in enumerate(facts.tag_counts)}
        wanted["tag_frequency"] = {
            names[name]: _frequent(counts, MAX_TAGS // len(names)) for name, counts in facts.tag_counts.items()
        }
    if saving.include_prompts:
        wanted["sample_prompts"] = [prompt.prompt[:2000] for prompt in facts.config.sampling.prompts[:MAX_PROMPTS]]
    return wanted


def _frequent(counts: Mapping[str, int], most: int) -> dict[str, int]:
    tags = [(tag, count) for tag, count in counts.items() if len(tag) <= MAX_TAG]
    return dict(sorted(tags, key=lambda item: (-item[1], item[0]))[:most])


def _specification(facts: LoraFacts) -> dict[str, str]:
    config = facts.config
    date = datetime.datetime.fromtimestamp(facts.saved_at, tz=datetime.UTC)
    optional = {
        "author": config.saving.author,
        "trigger_phrase": config.dataset.captions.trigger_word,
        "description": config.saving.comment,
    }
    return {
        "sai_model_spec": "1.0.1",
        "architecture": facts.architecture,
        "implementation": "https://github.com/black-forest-labs/flux",
        "implementation_version": facts.tool,
        "title": config.saving.title or facts.output_name,
        "resolution": f"{config.dataset.resolution}x{config.dataset.resolution}",
        "date": date.strftime("%Y-%m-%dT%H:%M:%SZ"),
        **{key: value for key, value in optional.items() if value},
    }
