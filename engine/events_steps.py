"""What a run tells of its steps and of what it leaves on the disk: a part of :mod:`engine.events`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepDone:
    """One optimizer step. ``loss`` belongs to this step; times in seconds; step and epoch count from 1.

    ``model_s`` is forward and backward together. ``stall_s`` is the part of them in which the device waited for
    weights or activations on their way from the host, ``moved_mb`` what was copied between host and device in
    1e6 bytes, ``tokens`` what the transformer saw, text and image. Files of earlier versions lack these.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    step_s: float
    data_s: float
    model_s: float
    optimizer_s: float
    forward_s: float = 0.0
    backward_s: float = 0.0
    stall_s: float = 0.0
    tokens: int = 0
    moved_mb: float = 0.0


@dataclass(frozen=True)
class EpochDone:
    """An epoch is complete; ``loss`` is the mean over its steps."""

    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class CheckpointSaved:
    """A LoRA file stands on disk.

    ``kind`` is "epoch", "step", "manual", "stop", "final" or "candidate": of an epoch that is not saved by the
    cadence and may turn out to be the best.
    """

    path: str
    step: int
    epoch: int
    kind: str
    size_bytes: int


@dataclass(frozen=True)
class CheckpointRemoved:
    """A LoRA file that the run wrote is gone, to make room for newer ones."""

    path: str
    step: int
    epoch: int


@dataclass(frozen=True)
class Kept:
    """The user wants to keep the LoRA files of these epochs, and of no others as far as the run decides."""

    epochs: tuple[int, ...]


@dataclass(frozen=True)
class SampleSaved:
    """A sample picture stands on disk; epoch 0 is the base model.

    ``index`` is the prompt's number from 0, ``kind`` what the prompt is to show (:data:`engine.config.PROMPT_KINDS`;
    empty: the user's own), ``strength`` the factor on the LoRA.
    """

    path: str
    step: int
    epoch: int
    index: int
    prompt: str
    seed: int
    kind: str = ""
    strength: float = 1.0


@dataclass(frozen=True)
class Scored:
    """What a model of the user's says of a sample picture, from -1 to 1.

    ``name`` is "clip_image" or "dino" (how like the mean of the training pictures) or "clip_text" (how like its
    prompt); ``path`` that of the :class:`SampleSaved`.
    """

    path: str
    name: str
    value: float


@dataclass(frozen=True)
class NearCopy:
    """A sample picture shows nearly what a training picture shows: the LoRA may have learned it by heart.

    ``sample`` is the path of the :class:`SampleSaved`, ``picture`` that of the training picture, ``distance`` goes
    from 0, the same, to 1, nothing in common.
    """

    sample: str
    picture: str
    distance: float
