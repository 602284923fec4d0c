"""A run's whole configuration: what every setting is called, what it may be, and what it is by default.

Plain pydantic models, frozen, without torch. Reading and writing TOML (with line numbers in errors and comments
kept) is :mod:`engine.config_file`'s. Unknown keys are refused, numbers are bounded and finite: a silent typo that
trains with a default is the costliest error there is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.config_measuring import CANDIDATES, StopConfig, ValidationConfig
from engine.config_memory import Checkpointing, MemoryConfig, kohya_blocks
from engine.config_part import Count, CountOrZero, Fraction, NonNegative, Part, Positive, Side
from engine.config_sampling import PROMPT_KINDS, PromptConfig, SamplingConfig
from engine.config_tracking import TrackingConfig

__all__ = [
    "CANDIDATES", "CONFIG_VERSION", "LORA_KINDS", "PROMPT_KINDS", "BucketConfig", "CaptionConfig", "Count",
    "CountOrZero", "DatasetConfig", "FaultsConfig", "FolderConfig", "LoraConfig", "MaskConfig", "MemoryConfig",
    "ModelConfig",
    "NonNegative", "ObjectiveConfig", "OptimizerConfig", "Part", "Positive", "PromptConfig", "RunConfig",
    "SamplingConfig", "SavingConfig", "ScheduleConfig", "StopConfig", "TrackingConfig", "TrainingConfig",
    "ValidationConfig", "kohya_blocks",
]  # fmt: skip
"""Every table, and what its values are made of, is imported from here, wherever it is defined."""

CONFIG_VERSION: Literal[1] = 1


class ModelConfig(Part):
    """Which files make up the base model."""

    transformer: Path
    """Single-file FLUX transformer (.safetensors)."""
    autoencoder: Path
    """FLUX autoencoder, ae.safetensors."""
    clip_l: Path
    """CLIP-L text encoder."""
    t5: Path
    """T5-XXL text encoder; fp16, bf16, fp8 and scaled fp8 files are understood."""
    clip_tokenizer: Path | None = None
    """Folder or file of the CLIP tokenizer; searched for when unset."""
    t5_tokenizer: Path | None = None
    """Folder or file of the T5 tokenizer; searched for when unset."""
    download_tokenizers: bool = True
    """Fetch missing tokenizers from the Hugging Face hub."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the frozen base and of all products with it; auto follows ``training.mixed_precision``, and where
    that is auto too is bfloat16 on a GPU that has it and float32 elsewhere."""
    t5_length: Annotated[int, Field(ge=0, le=512)] = 0
    """Tokens the T5 prompt is padded to; 0 takes 512 for dev and 256 for schnell."""
    t5_mask: bool = False
    """Mask padding in T5 and in the transformer; FLUX.1 was trained without."""


class FolderConfig(Part):
    """One folder of pictures."""

    path: Path
    repeats: CountOrZero = 0
    """How often each picture is seen per epoch; 0 reads kohya's ``10_name`` and else takes 1."""
    regularization: bool = False
    """Pictures of the class without the concept: weighted by ``dataset.prior_loss_weight``."""
    recursive: bool = True


class BucketConfig(Part):
    """How pictures of many shapes are grouped; exactly as kohya sd-scripts does it."""

    enabled: bool = True
    min_side: Side = 256
    max_side: Side = 2048
    step: Annotated[int, Field(ge=16, le=512, multiple_of=16)] = 64
    no_upscale: bool = False


class CaptionConfig(Part):
    """How the text in a caption file becomes the text the model learns from."""

    extensions: tuple[str, ...] = (".txt", ".caption")
    """Tried in this order beside each picture."""
    trigger_word: str = ""
    """Put in front of captions that lack it."""
    prefix: str = ""
    suffix: str = ""
    separator: str = ","
    shuffle: bool = False
    """Shuffle the tags between separators anew each epoch."""
    keep_tokens: CountOrZero = 0
    """Leading tags that shuffling and tag dropout leave alone."""
    dropout: Fraction = 0.0
    """Chance that a caption is replaced by the empty one."""
    tag_dropout: Fraction = 0.0
    wildcards: bool = False
    """Resolve ``{a|b}`` to one of the choices, and several lines to one of them."""
    template: Annotated[str, Field(max_length=1000)] = ""
    """The sentence that captions are begun with where they are typed, with slots in square brackets; empty takes that
    of the user's settings. Nothing of it is trained on."""


class MaskConfig(Part):
    """What of each picture the loss counts; see :mod:`engine.dataset.masks`."""

    source: Literal["off", "folder", "alpha"] = "off"
    """folder: grey PNG files of the pictures' names, white where the loss counts in full; alpha: the pictures' own
    transparency. A picture without a mask counts in full everywhere."""
    folder: Annotated[str, Field(min_length=1, max_length=4096)] = "masks"
    """Where the masks of ``source`` folder are, below each dataset folder or in full; they are not trained on."""
    outside: Fraction = 0.1
    """Weight of the loss where a mask is black; 0 learns nothing there, and what appears there is left to chance."""


class DatasetConfig(Part):
    """The pictures, their captions and how they are brought to size."""

    folders: Annotated[tuple[FolderConfig, ...], Field(min_length=1)]
    resolution: Annotated[int, Field(ge=64, le=4096)] = 1024
    """Square root of the area in pixels that pictures are resized to."""
    buckets: BucketConfig = BucketConfig()
    captions: CaptionConfig = CaptionConfig()
    masks: MaskConfig = MaskConfig()
    flip: bool = False
    """Train on mirrored pictures too, half of the time."""
    random_crop: bool = False
    background: Literal["white", "black", "grey"] = "white"
    """Colour under transparent pixels."""
    max_megapixels: Annotated[float, Field(gt=0, le=1000)] = 64.0
    """Larger pictures are refused before they are decoded."""
    allow_missing_captions: bool = False
    """Train pictures without a caption on the trigger word alone."""
    prior_loss_weight: NonNegative = 1.0
    """Weight of the loss on regularization pictures."""


class LoraConfig(Part):
    """The adapter: where it sits and how large it is."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Positive | None = None
    """Strength is alpha / rank; unset means alpha = rank."""
    targets: Literal["default", "all"] = "default"
    """default: attention and MLP linears of all blocks; all: modulation too, kohya's 304 modules."""
    double_blocks: str = "all"
    """Which double blocks: all, none, or numbers and ranges like ``0,1,4-8``."""
    single_blocks: str = "all"
    include: tuple[str, ...] = ()
    """Regular expressions on module names; when given, a module must match one."""
    exclude: tuple[str, ...] = ()
    """Regular expressions on module names; a match leaves a module out."""
    ranks: dict[str, Annotated[int, Field(ge=0, le=1024)]] = {}
    """Rank by kind (img_attn, txt_attn, img_mlp, txt_mlp, img_mod, txt_mod, single, single_mod); 0 leaves it out."""
    alphas: dict[str, Positive] = {}
    """Alpha by kind; kinds not named use ``alpha``."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Chance to drop a value between down and up."""
    rank_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    module_dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    max_norm: NonNegative = 0.0
    """Largest Frobenius norm of a module's update, scaled down after each step; 0 is off."""
    resume_from: Path | None = None
    """A LoRA file whose weights are the start."""

    @model_validator(mode="after")
    def _known_kinds(self) -> LoraConfig:
        kinds = set(LORA_KINDS)
        for table, given in (("ranks", self.ranks), ("alphas", self.alphas)):
            unknown = sorted(set(given) - kinds)
            if unknown:
                raise ValueError(f"{table}: unknown kind {unknown[0]!r}; known are {', '.join(LORA_KINDS)}")
        return self


LORA_KINDS = ("img_attn", "txt_attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod", "single", "single_mod")


class ObjectiveConfig(Part):
    """What the model is asked to predict, at which noise levels, and how its error is measured."""

    timestep_sampling: Literal["sigma", "uniform", "sigmoid", "shift", "flux_shift"] = "flux_shift"
    sigmoid_scale: Positive = 1.0
    discrete_flow_shift: Positive = 3.0
    """How far ``shift`` and ``sigma`` sampling lean towards noise; the others ignore it."""
    weighting: Literal["none", "logit_normal", "mode"] = "none"
    """How ``sigma`` sampling draws; ignored by the other samplings."""
    logit_mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    logit_std: Positive = 1.0
    mode_scale: Annotated[float, Field(allow_inf_nan=False)] = 1.29
    min_sigma: Fraction = 0.0
    max_sigma: Fraction = 1.0
    guidance: NonNegative = 1.0
    """Embedded guidance while training (dev); 1.0 as most recipes have it."""
    loss: Literal["l2", "huber", "smooth_l1"] = "l2"
    huber_c: Positive = 0.1
    """Where huber and smooth_l1 turn from square to linear; l2 ignores it."""
    huber_schedule: Literal["constant", "exponential"] = "constant"
    prediction: Literal["raw"] = "raw"
    """Velocity. sd-scripts' ``additive`` and ``sigma_scaled`` compare against an unconverted target: refused."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_inconsistent(cls, data: Any) -> Any:
        value = data.get("prediction", "raw") if isinstance(data, dict) else "raw"
        if value in ("additive", "sigma_scaled"):
            raise ValueError(
                f'prediction = "{value}" compares the model\'s output with a target of another kind '
                '(the target is never converted), so it trains towards a wrong velocity; use "raw"'
            )
        return data

    @model_validator(mode="after")
    def _ordered(self) -> ObjectiveConfig:
        if self.min_sigma >= self.max_sigma:
            raise ValueError(f"min_sigma {self.min_sigma} must be below max_sigma {self.max_sigma}")
        return self


class OptimizerConfig(Part):
    """The optimizer and its own settings."""

    name: Literal[
        "adamw", "adamw8bit", "paged_adamw", "paged_adamw8bit", "lion", "lion8bit", "paged_lion8bit",
        "adafactor", "prodigy", "adamw_schedulefree",
    ] = "adamw"  # fmt: skip
    learning_rate: Positive = 1e-4
    weight_decay: NonNegative = 0.01
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the gradient's average; Adafactor keeps none."""
    beta2: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Decay of the second average; unset takes the published 0.99 for Lion and 0.999 for the others."""
    eps: Positive = 1e-8
    """Of the Adam family; Adafactor and Lion have none."""
    d_coef: Positive = 1.0
    """Prodigy's factor on its own estimate."""
    lora_plus_ratio: Positive = 1.0
    """Learning rate of the up matrices relative to the down matrices (LoRA+)."""
    max_grad_norm: NonNegative = 1.0
    """Gradients are scaled down to this norm; 0 is off."""

    @property
    def betas(self) -> tuple[float, float]:
        """Both decays, the second resolved by the optimizer's name."""
        beta2 = (0.99 if "lion" in self.name else 0.999) if self.beta2 is None else self.beta2
        return self.beta1, beta2


class ScheduleConfig(Part):
    """The learning rate over time."""

    name: Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"] = "constant"
    warmup_steps: CountOrZero = 0
    cycles: Count = 1
    """Restarts of cosine_with_restarts."""
    power: Positive = 1.0
    """Exponent of polynomial."""
    min_ratio: Fraction = 0.0
    """Lowest learning rate as a part of the highest."""


class TrainingConfig(Part):
    """How long, in what portions."""

    epochs: CountOrZero = 10
    steps: CountOrZero = 0
    """Stop after this many optimizer steps; 0 leaves it to ``epochs``. With both, the earlier end counts."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 1
    accumulation: Annotated[int, Field(ge=1, le=4096)] = 1
    """Micro-batches per optimizer step."""
    gradient_checkpointing: Checkpointing = "full"
    """What a block keeps for the backward pass: "none" recomputes nothing, "attention" keeps attention outputs,
    "full" keeps the block's input alone, "offload" keeps that in host memory. true is "full", false is "none"."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?)$")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of the processor that torch computes with; 0 leaves their number to torch."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """What ``model.dtype`` = auto becomes: bf16 is bfloat16, no is float32. A dtype given there wins. Adapters and
    optimizer are float32 in any case."""
    deterministic: bool = False
    """Only deterministic kernels on the GPU; slower."""
    state_every_steps: CountOrZero = 0
    """Write the training state this often besides saves; 0 writes it with every save and every five minutes."""

    @model_validator(mode="after")
    def _some_end(self) -> TrainingConfig:
        if not self.epochs and not self.steps:
            raise ValueError("epochs and steps are both 0: the run would have no end")
        return self


class SavingConfig(Part):
    """What is written, how often, in which layouts."""

    every_epochs: CountOrZero = 1
    every_steps: CountOrZero = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    layouts: Annotated[tuple[Literal["kohya", "diffusers"], ...], Field(min_length=1)] = ("kohya",)
    keep_states: Count = 2
    keep_loras: CountOrZero = 0
    """So many of the newest LoRA files saved by the cadence stay, older ones go; 0 keeps all. The recommended epochs,
    starred ones, and what you or a stop saved stay in any case."""
    title: str = ""
    author: str = ""
    include_prompts: bool = False
    include_tag_counts: bool = False
    include_folder_names: bool = False
    comment: str = ""


class FaultsConfig(Part):
    """What becomes of a step whose loss or gradient is not a finite number; it never changes anything."""

    on_nonfinite: Literal["skip", "stop"] = "skip"
    """After such a step was tried once again, with the same data and draws, and was no better: leave it out and go
    on, or stop with the state before it saved."""
    patience: Annotated[int, Field(ge=1, le=50)] = 3
    """The run stops at this many such steps within 50."""


class RunConfig(Part):
    """Everything a run needs; saved with the run as it was run."""

    version: Literal[1] = CONFIG_VERSION
    name: Annotated[str, Field(min_length=1, max_length=80)]
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 42
    runs_dir: Path = Path("runs")
    cache_dir: Path | None = None
    model: ModelConfig
    dataset: DatasetConfig
    lora: LoraConfig = LoraConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    memory: MemoryConfig = MemoryConfig()
    validation: ValidationConfig = ValidationConfig()
    stop: StopConfig = StopConfig()
    sampling: SamplingConfig = SamplingConfig()
    saving: SavingConfig = SavingConfig()
    faults: FaultsConfig = FaultsConfig()
    tracking: TrackingConfig = TrackingConfig()
