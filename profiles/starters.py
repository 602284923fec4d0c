"""Configurations to start from: the demonstration on the pocket model, and starters that `kiln new` writes.

The values are data, in ``starters/*.toml``; this module finds the files they belong to. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine
from engine.config import RunConfig
from engine.config_file import parse_toml, read_text
from engine.errors import ConfigError
from engine.files import slug

FOLDER = Path(__file__).parent / "starters"
POCKET = Path(engine.__file__).parent / "models" / "pocket"

STARTERS = ("flux_dev",)
"""Names that :func:`starter` takes."""


def demo_config(runs_dir: Path) -> RunConfig:
    """The demonstration: a LoRA on the pocket model that ships with lorakiln, trained on a processor.

    Args:
        runs_dir: where its run's folder is made; its caches go to ``.cache`` in there.

    Raises:
        ConfigError: the file, a part of the program, is gone or damaged.
    """
    path = FOLDER / "demo.toml"
    values: dict[str, Any] = parse_toml(read_text(path), path)
    values["runs_dir"] = runs_dir.absolute()
    values["cache_dir"] = runs_dir.absolute() / ".cache"
    values["model"] = pocket_model() | values.get("model", {})
    values["dataset"]["folders"] = [
        {**folder, "path": POCKET / "demo" / folder["path"]} for folder in values["dataset"]["folders"]
    ]
    values["validation"]["folder"] = POCKET / "demo" / values["validation"]["folder"]
    return RunConfig.model_validate(values)


def pocket_model() -> dict[str, Any]:
    """The ``[model]`` table of the pocket model that ships with lorakiln."""
    files = POCKET / "files"
    return {
        "transformer": files / "flux-pocket.safetensors",
        "autoencoder": files / "ae-pocket.safetensors",
        "clip_l": files / "clip-pocket.safetensors",
        "t5": files / "t5-pocket.safetensors",
        "clip_tokenizer": files / "tokenizer",
        "t5_tokenizer": files / "tokenizer_2",
        "download_tokenizers": False,
    }


def starter(recipe: str, name: str) -> str:
    """The text of a starter configuration with ``name`` filled in, comments and all.

    Raises:
        ConfigError: there is no such recipe, or its file, a part of the program, is damaged.
    """
    if recipe not in STARTERS:
        raise ConfigError("No such recipe", f"known are {', '.join(STARTERS)}", "")
    text = read_text(FOLDER / f"{recipe}.toml")
    return text.replace('name = "NAME"', f'name = "{slug(name)}"', 1)
