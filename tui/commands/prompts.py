"""`kiln prompts RUN.toml`: sample prompts that show what the LoRA has learned, written from the captions.

Two captions as they are trained on (is it learned?), the trigger in two new scenes (does it carry over?), once where
it does not belong (does it still obey?), and one prompt without it (has the base changed?). `--write` puts them into
the configuration, where they can be edited.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine.config import PromptConfig, RunConfig
from engine.config_file import load_config, parse_config, read_text
from engine.config_writer import edited_text
from engine.errors import ConfigError
from engine.files import atomic_write
from engine.text import safe_text

WIDTH = 12


def add_parser(subparsers: Any) -> None:
    """Add `kiln prompts` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "prompts", help="write sample prompts from a dataset's captions", description=__doc__
    )
    parser.add_argument("config", type=Path, metavar="RUN.toml")
    parser.add_argument("--write", action="store_true", help="put them into the file, if it has no prompts yet")
    parser.add_argument("--replace", action="store_true", help="put them in place of the prompts that it has")


def run(args: argparse.Namespace) -> int:
    """Show the prompts, and write them if asked.

    Raises:
        EngineError: the configuration or the dataset cannot be read, or the file has prompts already.
    """
    config = load_config(args.config)
    if args.write and not args.replace and config.sampling.prompts:
        raise ConfigError(
            "There are prompts already",
            f"{safe_text(args.config)} has {len(config.sampling.prompts)} under [[sampling.prompts]]",
            "--replace puts others in their place.",
        )
    prompts = prompts_of_dataset(config)
    for prompt in prompts:
        print(f"{prompt.kind:<{WIDTH}}{safe_text(prompt.prompt, 2000)}")
    if not args.write and not args.replace:
        print("\nNothing is written: --write puts them into the file.")
        return 0
    write_prompts(args.config, prompts)
    print(f"\nWritten to {safe_text(args.config)}")
    return 0


def prompts_of_dataset(config: RunConfig) -> tuple[PromptConfig, ...]:
    """The prompts for a run, from the captions of the pictures that it will be trained on.

    Raises:
        EngineError: the dataset cannot be read, or has no captions and no trigger word.
    """
    from engine.dataset.decoder import Decoder
    from engine.dataset.held_out import set_aside
    from engine.dataset.prompts import prompts_for
    from engine.dataset.scan import scan_dataset
    from profiles.prompts import templates_for

    with Decoder(config.dataset.max_megapixels) as decoder:
        found = scan_dataset(config.dataset, decoder)
        training, _ = set_aside(found.samples, config.validation, decoder)
    prompts = prompts_for(training, config, templates_for(config))
    if not prompts:
        raise ConfigError(
            "There is nothing to write prompts from",
            "the pictures have no captions, and dataset.captions.trigger_word is empty",
            "Write captions, or set the trigger word.",
        )
    return prompts


def write_prompts(path: Path, prompts: tuple[PromptConfig, ...]) -> None:
    """Put ``prompts`` in the place of those in a configuration file; its comments stay, but for theirs.

    Raises:
        ConfigError: the file cannot be edited so.
        DiskError: it could not be written; nothing was changed.
    """
    # Taken out first: an empty list would keep its place, and tables cannot stand in the middle of one.
    text = edited_text(read_text(path), {"sampling.prompts": None})
    tables = [{"prompt": one.prompt, "kind": one.kind, "seed": one.seed} for one in prompts]
    text = edited_text(text, {"sampling.prompts": tables})
    if parse_config(text, path).sampling.prompts != prompts:
        raise ConfigError("The configuration cannot be edited", safe_text(path), "Copy the prompts into it by hand.")
    atomic_write(path, text)
