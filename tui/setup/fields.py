"""The setup form's fields as a table: where each stands, which setting it is, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.config import OptimizerConfig, RunConfig, ScheduleConfig
from profiles.presets import shelf

Kind = Literal["text", "number", "numbers", "path", "file", "choice", "lines"]


@dataclass(frozen=True)
class Field:
    """One row of the form. ``key`` is the setting's dotted name, "" where the form itself makes something of it."""

    id: str
    label: str
    kind: Kind
    key: str
    help: str
    choices: tuple[tuple[str, str], ...] = ()
    """Values and how they are called."""
    empty: str = ""
    """What an empty field means."""


@dataclass(frozen=True)
class Group:
    """A heading and the fields under it."""

    title: str
    fields: tuple[Field, ...]


POCKET, FILES = "pocket", "files"
OWN = "own"
"""The preset of a form that began with another run's settings: those settings."""

SLOTS = {"transformer": "Transformer", "autoencoder": "Autoencoder", "clip_l": "CLIP-L", "t5": "T5-XXL"}
"""The four files of a base model and how they are called."""

WHERE = {
    "transformer": "flux1-dev.safetensors, from black-forest-labs/FLUX.1-dev on Hugging Face (or FLUX.1-schnell's)",
    "autoencoder": "ae.safetensors, from black-forest-labs/FLUX.1-schnell on Hugging Face",
    "clip_l": "clip_l.safetensors, from comfyanonymous/flux_text_encoders on Hugging Face",
    "t5": "t5xxl_fp16.safetensors or t5xxl_fp8_e4m3fn.safetensors, from comfyanonymous/flux_text_encoders",
}
"""What to get for each slot, and where."""


def _named(values: tuple[Any, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((str(value), str(value)) for value in values)


def _choices(schema: Any, name: str) -> tuple[tuple[str, str], ...]:
    return _named(get_args(schema.model_fields[name].annotation))


GROUPS: tuple[Group, ...] = (
    Group("Base model", (
        Field(
            "base", "Model", "choice", "", "What is trained on. The pocket model is for trying everything out",
            ((POCKET, "pocket FLUX (tiny, ships with lorakiln)"), (FILES, "FLUX.1 from the files below")),
        ),
        *(
            Field(slot, label, "file", f"model.{slot}", f"Wanted: {WHERE[slot]}. enter lists what is found")
            for slot, label in SLOTS.items()
        ),
    )),
    Group("Pictures", (
        Field(
            "folder", "Dataset folder", "path", "",
            "Pictures, each with a .txt caption of its name. F6 makes the folders where there are none",
        ),
        Field(
            "repeats", "Repeats", "number", "", "How often an epoch shows each picture",
            empty="1, or as a folder's name says: 10_name",
        ),
        Field(
            "class_folder", "Class folder", "path", "",
            "Pictures of the class without the concept keep the model from forgetting it", empty="none",
        ),
        Field(
            "trigger", "Trigger word", "text", "dataset.captions.trigger_word",
            "Put in front of captions that lack it", empty="a word that the model does not know",
        ),
        Field(
            "masks", "Masks", "choice", "dataset.masks.source",
            "What of each picture the loss counts; v in the dataset shows it",
            (("off", "none: all of each picture counts"), ("folder", "grey PNG files of the pictures' names"),
             ("alpha", "the pictures' own transparency")),
        ),
        Field(
            "mask_folder", "Mask folder", "text", "dataset.masks.folder",
            "Below the dataset folder, or in full: white counts in full, black as below; none of it is trained on",
        ),
        Field(
            "mask_outside", "Outside a mask", "number", "dataset.masks.outside",
            "Weight of the loss where a mask is black; 0 learns nothing there and leaves it to chance",
        ),
    )),
    Group("What it learns", (
        Field(
            "preset", "Preset", "choice", "", "Fills in the numbers below; each can be changed afterwards",
        ),
        Field(
            "resolution", "Resolution", "number", "dataset.resolution",
            "Pictures are brought to this many pixels squared: 1024 for FLUX.1",
        ),
        Field("rank", "Rank", "number", "lora.rank", "Size of the LoRA: more holds more, and overtrains sooner"),
        Field("alpha", "Alpha", "number", "lora.alpha", "Strength is alpha / rank", empty="as rank"),
        Field(
            "optimizer", "Optimizer", "choice", "optimizer.name",
            "adamw8bit needs less memory; prodigy finds the rate itself (start it at 1.0)",
            _choices(OptimizerConfig, "name"),
        ),
        Field("rate", "Learning rate", "number", "optimizer.learning_rate", "1e-4 is where FLUX.1 LoRAs start"),
        Field(
            "schedule", "Schedule", "choice", "schedule.name", "The learning rate's course",
            _choices(ScheduleConfig, "name"),
        ),
    )),
    Group("How long", (
        Field("epochs", "Epochs", "number", "training.epochs", "An epoch sees every picture, times its repeats"),
        Field(
            "batch", "Batch", "number", "training.batch_size", "Pictures at once: more is steadier, and needs memory"
        ),
        Field(
            "accumulation", "Accumulation", "number", "training.accumulation",
            "Batches per step: as steady as a larger batch, without its memory",
        ),
        Field(
            "save_every", "Save every", "number", "saving.every_epochs",
            "Epochs from one LoRA file to the next; 0: only the last",
        ),
        Field(
            "keep_loras", "Keep LoRAs", "number", "saving.keep_loras",
            "So many of the newest LoRA files stay, the recommended and starred ones besides; 0: all",
        ),
        Field(
            "sample_every", "Sample every", "number", "sampling.every_epochs",
            "Epochs from samples to samples; 0: never",
        ),
        Field(
            "strengths", "Strengths", "numbers", "sampling.strengths",
            "Factors on the LoRA; each prompt is drawn at each: 0.6, 0.8, 1",
        ),
        Field(
            "prompts", "Prompts", "lines", "", "One sample a line; {trigger} becomes the trigger word. F9 writes some"
        ),
    )),
    Group("Run", (
        Field("name", "Name", "text", "name", "The run, its folder and its LoRA files are called so"),
        Field("runs_dir", "Runs folder", "path", "runs_dir", "Where the run's own folder is made"),
    )),
)  # fmt: skip


def choices_of(field: Field) -> tuple[tuple[str, str], ...]:
    """Values of a choice and how they are called; presets as they were last read."""
    if field.id == "preset":
        return tuple((name, preset.title) for name, preset in shelf().presets.items())
    return field.choices


def without_meaning(values: Mapping[str, str]) -> frozenset[str]:
    """Fields that another one leaves without a meaning: files of a model that brings its own, masks that are off."""
    away = set() if values["base"] == FILES else set(SLOTS)
    away |= set() if values["masks"] == "folder" else {"mask_folder"}
    away |= {"mask_outside"} if values["masks"] == "off" else set()
    return frozenset(away)


FIELDS: dict[str, Field] = {field.id: field for group in GROUPS for field in group.fields}

NUMBERS: tuple[str, ...] = (
    "resolution", "rank", "alpha", "optimizer", "rate", "schedule", "epochs", "batch", "accumulation", "save_every",
    "keep_loras", "sample_every", "strengths",
)  # fmt: skip
"""Fields that a preset fills in."""

MASKS: tuple[str, ...] = ("masks", "mask_folder", "mask_outside")
"""Fields that belong to the pictures: a preset fills them in only if it says something of masks."""


def schema_default(key: str) -> Any:
    """The default of the setting with this dotted name; None where it has none."""
    field = _schema_field(key)
    return None if field.is_required() else field.default


def schema_type(key: str) -> Any:
    """What the setting with this dotted name can be, as it is annotated."""
    return _schema_field(key).annotation


def _schema_field(key: str) -> Any:
    *tables, name = key.split(".")
    schema: Any = RunConfig
    for table in tables:
        schema = schema.model_fields[table].annotation
    return schema.model_fields[name]


def shown(value: Any) -> str:
    """A setting's value as it stands in its field."""
    if value is None:
        return ""
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value))
    if not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
