"""The optimizers by name, and what is done around a step: clipping, and the weights that schedule-free shows.

They step on flat pieces of all matrices at once, Adafactor, which needs matrices, on stacks of equal ones.
bitsandbytes and schedulefree are imported only where they are chosen. Every group carries
``initial_lr``, the rate it was built with, which :mod:`engine.training.schedule` multiplies.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from engine.config import OptimizerConfig
from engine.errors import ConfigError
from engine.lora.adapter import LoraSet
from engine.lora.flat import ALIGNMENT
from engine.training.adafactor import Adafactor
from engine.training.lion import Lion
from engine.training.prodigy import Prodigy

Groups = list[dict[str, Any]]


def build_optimizer(lora: LoraSet, config: OptimizerConfig) -> Optimizer:
    """The configured optimizer over the adapter's flat storage, ready to step (schedule-free in training mode).

    Raises:
        ConfigError: the settings contradict each other, or a library is missing.
    """
    _check(config)
    optimizer = _BUILDERS[config.name](_groups(lora, config), config)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    set_mode(optimizer, training=True)
    return optimizer


def _check(config: OptimizerConfig) -> None:
    if config.name != "prodigy":
        return
    if config.lora_plus_ratio != 1.0:
        raise ConfigError(
            "Prodigy and LoRA+ exclude each other",
            f"optimizer.lora_plus_ratio = {config.lora_plus_ratio:g} gives the up matrices a learning rate of their "
            "own; Prodigy estimates one rate for all and refuses groups that differ",
            'Set optimizer.lora_plus_ratio = 1, or optimizer.name = "adamw".',
        )
    if config.learning_rate < 0.01:
        raise ConfigError(
            "Prodigy would hardly learn",
            f"optimizer.learning_rate = {config.learning_rate:g}: Prodigy finds the rate itself and multiplies it by "
            "this setting, which belongs near 1",
            "Set optimizer.learning_rate = 1.0; to learn faster or slower change optimizer.d_coef.",
        )


def _groups(lora: LoraSet, config: OptimizerConfig) -> Groups:
    """One group, or with LoRA+ two: down matrices, and up matrices with the higher rate."""
    downs, ups = lora.stacked_groups() if config.name == "adafactor" else lora.flat_groups()
    if config.lora_plus_ratio == 1.0:
        return [{"params": downs + ups, "lr": config.learning_rate}]
    return [
        {"params": downs, "lr": config.learning_rate},
        {"params": ups, "lr": config.learning_rate * config.lora_plus_ratio},
    ]


def _adamw(groups: Groups, config: OptimizerConfig) -> Optimizer:
    # fused: elementwise, so as deterministic as the loop over parameters, in one pass over each and without
    # temporaries; and its kernel looks at the flag that holds a step back.
    return torch.optim.AdamW(groups, config.learning_rate, config.betas, config.eps, config.weight_decay, fused=True)


def _lion(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return Lion(groups, config.learning_rate, config.betas, config.weight_decay)


def _bitsandbytes(name: str) -> Callable[[Groups, OptimizerConfig], Optimizer]:
    def build(groups: Groups, config: OptimizerConfig) -> Optimizer:
        with _quiet_bitsandbytes():
            kind = getattr(_library("bitsandbytes", config.name).optim, name)
        given: dict[str, Any] = {"betas": config.betas, "weight_decay": config.weight_decay}
        if "Adam" in name:
            given["eps"] = config.eps
        optimizer: Optimizer = kind(groups, lr=config.learning_rate, **given)
        return optimizer

    return build


def _adafactor(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return Adafactor(groups, config.learning_rate, config.weight_decay)


def _prodigy(groups: Groups, config: OptimizerConfig) -> Optimizer:
    return Prodigy(groups, config.learning_rate, config.betas, config.eps, config.weight_decay, config.d_coef)


def _adamw_schedulefree(groups: Groups, config: OptimizerConfig) -> Optimizer:
    if not config.beta1:
        raise ConfigError(
            "Schedule-free AdamW needs averaging",
            "optimizer.beta1 = 0: it interpolates between two weights with 1 / beta1",
            "Set optimizer.beta1 = 0.9.",
        )
    optimizer: Optimizer = _library("schedulefree", config.name).AdamWScheduleFree(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )
    return optimizer


_BUILDERS: dict[str, Callable[[Groups, OptimizerConfig], Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _bitsandbytes("AdamW8bit"),
    "paged_adamw": _bitsandbytes("PagedAdamW"),
    "paged_adamw8bit": _bitsandbytes("PagedAdamW8bit"),
    "lion": _lion,
    "lion8bit": _bitsandbytes("Lion8bit"),
    "paged_lion8bit": _bitsandbytes("PagedLion8bit"),
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "adamw_schedulefree": _adamw_schedulefree,
}


def _library(module: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as err:
        # OSError: its native part is there but does not load.
        raise ConfigError(
            f'optimizer.name = "{name}" needs {module}',
            f"{module} cannot be imported: {err}",
            f'Run pip install {module}, or set optimizer.name = "adamw".',
        ) from err


@contextlib.contextmanager
def _quiet_bitsandbytes() -> Iterator[None]:
    """Import bitsandbytes without what it would do and say besides.

    On some CPUs it fetches native code from the Hub if the package ``kernels`` is there, and complains if it is not;
    and it warns that paging does nothing without a GPU. All that goes to a terminal which is not its own.
    """
    warnings.filterwarnings("ignore", message="Paged optimizers are not supported on CPU")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    absent = object()
    before = sys.modules.get("kernels", absent)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is absent:
            del sys.modules["kernels"]
        else:
            sys.modules["kernels"] = before  # type: ignore[assignment]


def set_mode(optimizer: Optimizer, training: bool) -> None:
    """Switch a schedule-free optimizer's weights between training and use; others have one kind only."""
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch is not None:
        switch()


def shows_others(optimizer: Optimizer) -> bool:
    """Whether the weights to save and to draw pictures with are others than those it trains."""
    return hasattr(optimizer, "eval")


@contextlib.contextmanager
def eval_weights(optimizer: Optimizer, lora: LoraSet) -> Iterator[None]:
    """Let the adapter hold the weights to save and to draw pictures with while inside.

    Only schedule-free has others than those it trains. They are put back as copies, not computed back: the way there
    and back rounds, and a run that saves must train on with the same bits as one that does not.
    """
    if not shows_others(optimizer):
        yield
        return
    flags = [group["train_mode"] for group in optimizer.param_groups]
    kept = lora.weights.clone()
    set_mode(optimizer, training=False)
    lora.refresh()
    try:
        yield
    finally:
        lora.weights.copy_(kept)
        lora.refresh()
        for group, flag in zip(optimizer.param_groups, flags, strict=True):
            group["train_mode"] = flag


def clip_gradients(gradients: Tensor, max_norm: float) -> Tensor:
    """Scale ``gradients``, the flat gradient of a LoRA, so that its 2-norm is at most ``max_norm``; 0 only measures.

    Returns:
        The norm before, a scalar on the gradients' device: nothing waits for a GPU here.
    """
    # In rows first: one sum in 32 bits over all values would be off by per cents on a CPU.
    rows = torch.linalg.vector_norm(gradients.view(-1, ALIGNMENT), dim=1)
    norm = torch.linalg.vector_norm(rows, dtype=torch.float64).to(gradients.dtype)
    if max_norm:
        # As torch's clip_grad_norm_: the small number keeps a gradient of zero from dividing by it.
        gradients.mul_((max_norm / (norm + 1e-6)).clamp_max(1.0))
    return norm
