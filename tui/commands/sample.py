"""`kiln sample RUN.toml|RUN_DIR`: draw pictures with a configuration's model, and with a LoRA on it.

Given a run's folder, its last LoRA is used unless `--lora` names another file; given a configuration file, only what
`--lora` names. Without `--prompt` the configuration's sample prompts are drawn, with whatever else is given here in
place of their own.

With `--epochs` a run's own prompts are drawn with its LoRA files of these epochs, 0 being the base model: the
pictures stand among the run's samples, and the workstation shows them with the others. While the run is trained they
go to the folder by-hand instead.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from engine.config import PromptConfig, RunConfig
from engine.config_file import load_config
from engine.errors import ConfigError, RunError
from engine.files import RunFolder
from engine.text import safe_text
from tui.elsewhere import holder_of
from tui.epochs import standing_loras
from tui.job import run_job
from tui.run_list import read_view
from tui.run_loras import span
from tui.view import RunView


def add_parser(subparsers: Any) -> None:
    """Add `kiln sample` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "sample", help="draw pictures with a model and a LoRA", description=__doc__
    )
    parser.add_argument("source", type=Path, metavar="RUN.toml|RUN_DIR")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="a LoRA file; `none` draws with the base model")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    parser.add_argument("--negative", metavar="TEXT", help="what to keep away from; needs a cfg other than 1")
    parser.add_argument(
        "--cfg", type=_number(0, 100), help="classifier-free guidance, two passes a step; 1 is off (as configured)"
    )
    parser.add_argument(
        "--epochs", type=_epochs, metavar="N,N-M|all", help="draw a run's prompts with its LoRAs of these epochs"
    )
    parser.add_argument(
        "--strengths", type=_strengths, metavar="X,X", help="factors on the LoRA, from 0 to 2: 0.6,0.8,1.0"
    )
    parser.add_argument("--seed", type=_whole(0))
    parser.add_argument("--size", type=_size, metavar="WxH", help="in pixels, for example 1024x768")
    parser.add_argument("--steps", type=_whole(1, 1000))
    parser.add_argument("--guidance", type=_number(0, 1000), help="the distilled guidance of dev models")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--json", action="store_true", help="write events to stdout as JSON lines, nothing else")


def run(args: argparse.Namespace) -> int:
    """Draw.

    Raises:
        EngineError: nothing to draw, or a file cannot be loaded or written.
    """
    is_run = args.source.is_dir()
    config = load_config(RunFolder(args.source).config if is_run else args.source)
    if args.cfg is not None:
        config = config.model_copy(update={"sampling": config.sampling.model_copy(update={"cfg": args.cfg})})
    strengths = args.strengths or config.sampling.strengths
    if args.epochs is not None:
        return _run_epochs(args, config, strengths, is_run)
    prompts = _prompts(args, config)
    lora = _lora(args, is_run)
    out = args.out or (RunFolder(args.source).samples / "by-hand" if is_run else Path("samples"))
    from engine.jobs import sample_pictures

    def job(events: Any, should_stop: Any) -> bool:
        return bool(sample_pictures(config, lora, prompts, out, events, should_stop, strengths)) and not should_stop()

    return run_job(job, args.json)


def _run_epochs(args: argparse.Namespace, config: RunConfig, strengths: tuple[float, ...], is_run: bool) -> int:
    """Draw a run's prompts with its epochs."""
    own = (args.lora, args.negative, args.cfg, args.seed, args.size, args.steps, args.guidance, args.out)
    if not is_run or args.prompt or any(value is not None for value in own):
        raise ConfigError(
            "--epochs draws what the run draws",
            "it goes with a run's folder, --strengths and --json alone",
            "For other prompts or settings name one file: kiln sample RUN_DIR --lora FILE --prompt TEXT.",
        )
    prompts = _prompts(args, config)
    wanted = epochs_of(read_view(args.source), args.source, args.epochs)
    from engine.jobs import sample_epochs, sample_pictures

    if holder := holder_of(RunFolder(args.source).lock):
        by_hand = RunFolder(args.source).samples / "by-hand"
        told = f"The process {safe_text(holder)} holds the run: pictures go to {safe_text(by_hand)}"
        print(told, file=sys.stderr)

        def aside(events: Any, should_stop: Any) -> bool:
            for _, lora in wanted.values():
                sample_pictures(config, lora, prompts, by_hand, events, should_stop, strengths)
            return not should_stop()

        return run_job(aside, args.json)

    def job(events: Any, should_stop: Any) -> bool:
        if not sample_epochs(args.source, wanted, strengths, events, should_stop) and not should_stop():
            print("All of that was drawn before: nothing to do", file=sys.stderr)
        return not should_stop()

    return run_job(job, args.json)


def epochs_of(view: RunView, folder: Path, asked: tuple[int, ...]) -> dict[int, tuple[int, Path | None]]:
    """Step and LoRA file of the epochs ``asked`` for, of all that have a file without any; 0 is the base model.

    Raises:
        RunError: an epoch has no file, or not any more.
    """
    found = standing_loras(view, folder)
    wanted = asked or tuple(sorted(found))
    lacking = [epoch for epoch in wanted if epoch and epoch not in found]
    if lacking or not wanted:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise RunError(
            "There is no LoRA of that epoch" if asked else "The run has no LoRA yet",
            f"{safe_text(folder)}: wanted {', '.join(map(str, lacking)) or 'any'}; there are files of: {there}",
            "saving.every_epochs says which epochs leave one.",
        )
    return {epoch: found[epoch] if epoch else (0, None) for epoch in wanted}


def _prompts(args: argparse.Namespace, config: RunConfig) -> tuple[PromptConfig, ...]:
    if not args.prompt and not config.sampling.prompts:
        raise ConfigError("Nothing to draw", "no --prompt is given and [sampling] has none", 'Add --prompt "..."')
    if args.negative and config.sampling.cfg == 1:
        where = "--cfg 1" if args.cfg is not None else "sampling.cfg of the configuration is 1"
        raise ConfigError(
            "--negative would do nothing",
            f"{where}: classifier-free guidance, which a negative prompt works through, is off",
            "Add --cfg 3, say (each step then takes twice as long), or leave out --negative.",
        )
    width, height = args.size or (None, None)
    given = {
        "negative": args.negative,
        "seed": args.seed,
        "width": width,
        "height": height,
        "steps": args.steps,
        "guidance": args.guidance,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if args.prompt:
        return tuple(PromptConfig(prompt=text, **changes) for text in args.prompt)
    return tuple(prompt.model_copy(update=changes) for prompt in config.sampling.prompts)


def _lora(args: argparse.Namespace, is_run: bool) -> Path | None:
    """The LoRA to draw with: as named, else the run's last one, else none."""
    if args.lora is not None:
        return None if str(args.lora) == "none" else args.lora
    if not is_run:
        return None
    saved = [Path(item.path).name for item in read_view(args.source).checkpoints]
    for name in reversed(saved):
        if (args.source / name).is_file():
            return Path(args.source / name)
    raise RunError(
        "The run has no LoRA yet",
        f"{safe_text(args.source)} holds no file that its events name",
        "Name one with --lora FILE, or draw with the base model: --lora none.",
    )


def _epochs(text: str) -> tuple[int, ...]:
    """Numbers and ranges; none of them stands for all."""
    if text == "all":
        return ()
    numbers: list[int] = []
    for part in text.split(","):
        first, last = span(part)
        if not first <= last < first + 10_000:
            raise argparse.ArgumentTypeError("give epochs like 4,8,12 or 4-8, or all; 0 is the base model")
        numbers += range(first, last + 1)
    return tuple(dict.fromkeys(numbers))


def _strengths(text: str) -> tuple[float, ...]:
    return tuple(dict.fromkeys(_number(0, 2)(part) for part in text.split(",")))


def _whole(least: int, most: int = 10**9) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not in {least} to {most}")
        return value

    return number


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,4})[xX](\d{2,4})", text)
    if match is None or not all(64 <= int(side) <= 4096 for side in match.groups()):
        raise argparse.ArgumentTypeError("give WIDTHxHEIGHT, each 64 to 4096, for example 1024x768")
    return int(match[1]), int(match[2])


def _number(least: float, most: float) -> Any:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"give a number from {least} to {most}")
        return value

    return number
