"""The `kiln` command: finds the subcommand, imports that one module only, and turns errors into exit codes.

Each file in ``tui/commands`` offers ``add_parser(subparsers)`` and ``run(args) -> int``. Their names and one-line
descriptions stand here too, so that `kiln --help` imports none of them: it answers at once, without torch.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, TracebackType

COMMANDS = {
    "attach": "come back to the workstation of a folder, and to the run it trains",
    "demo": "train a LoRA on the pocket model that ships with lorakiln, in about a minute",
    "new": "write a commented configuration to start from",
    "train": "train a LoRA as a configuration says",
    "resume": "go on with a run that was stopped",
    "sample": "draw pictures with a model and a LoRA",
    "blend": "average the LoRA files of several epochs",
    "measure": "measure LoRA files as their run measured itself",
    "losses": "which pictures a run learned badly, and whose captions do not fit",
    "prompts": "write sample prompts from a dataset's captions",
    "plan": "what a run will hold and take, and the settings that make it fit",
    "bench": "measure training steps and leave nothing behind",
    "cache": "fill the caches of latents and text embeddings, without training",
    "runs": "list and show runs",
    "compare": "compare runs: settings that differ, curves, best epochs",
    "report": "write what came out of a run as one HTML file, with a contact sheet",
    "sweep": "train a configuration at several rates, ranks or seeds, and compare the runs",
    "models": "find model files and tell what they are",
    "use": "take an epoch's LoRA along, and say how it is used",
    "dataset": "check a folder of pictures and captions",
    "caption": "have a model on this machine describe the pictures of a folder",
    "config": "check a configuration file",
    "doctor": "check this machine, and say what to do about each problem",
}
"""Every subcommand, in the order of the help text; the module is ``tui.commands.<name>``."""

_EPILOG = """\
Without a command the full-screen workstation of the current folder opens, or comes back.
Try `kiln demo` first: it needs no model, no pictures and no GPU.
`kiln COMMAND --help` tells more about one.

exit codes: 0 done, 1 failed, 2 bad input or usage, 3 run stopped on request, 130 and 143 stopped by a signal
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `kiln` with ``argv`` (default: the process's) and return its exit code."""
    _set_environment()
    sys.excepthook = _tell_uncaught
    if os.environ.get("RANK", "0") != "0":
        # One of several processes of a run (`accelerate launch`): only the main one speaks.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except SystemExit as ended:  # argparse's way to end after --help or bad usage
        return ended.code if isinstance(ended.code, int) else 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`kiln runs | head`): keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _set_environment() -> None:
    """Settings that libraries read once, at import; what the user has set stays."""
    # Idle OpenMP threads that spin take the processor from the screen, and from any other busy process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # CUDA counts the fastest card first otherwise: cuda:1 here is nvidia-smi's GPU 1.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    # Progress is shown by us; bars of libraries would tear the screen.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # What imports make stays; looking for garbage among it every 700 objects is a tenth of the time to first frame.
    gc.set_threshold(50_000)


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A defect of ours: its traceback, without secrets and without what a terminal would obey."""
    import traceback

    from engine.text import safe_text

    text = "".join(traceback.format_exception(kind, error, trace))
    print(safe_text(text, 100_000, newlines=True), file=sys.stderr, end="")


def _dispatch(words: list[str]) -> int:
    parser = _parser()
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None or name not in COMMANDS:
        return _without_command(parser, words, name)
    command = _load(name)
    command.add_parser(parser.add_subparsers(dest="command", prog="kiln"))
    args = parser.parse_args(words)
    return _tell_errors(lambda: int(command.run(args)))


def _tell_errors(work: Callable[[], int]) -> int:
    """Do ``work``; errors meant for the user become text and an exit code."""
    from engine.errors import CacheError, DiskError, EngineError

    try:
        return work()
    except EngineError as error:
        from tui.error_text import error_text

        print(error_text(error), file=sys.stderr)
        return 1 if isinstance(error, CacheError | DiskError) else 2


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"tui.commands.{name}")


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    listing = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="kiln",
        usage="kiln [COMMAND ...]",
        description=f"Trains FLUX.1 LoRAs in the terminal, on your own GPU.\n\ncommands:\n{listing}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument(
        "--foreground", action="store_true", help="without a command: no host, the workstation ends with its screen"
    )
    return parser


def _without_command(parser: argparse.ArgumentParser, words: list[str], name: str | None) -> int:
    if name is not None:
        import difflib

        nearest = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        guess = f"did you mean `kiln {nearest[0]}`?" if nearest else f"commands are {', '.join(COMMANDS)}"
        parser.error(f"there is no command {name!a}; {guess}")
    args = parser.parse_args(words)
    if args.version:
        from tui.version import VERSION

        print(f"lorakiln {VERSION}")
        return 0
    from engine.text import safe_text
    from tui.launch import full_screen, lacking

    if (lack := lacking()) is None:
        return _tell_errors(lambda: full_screen({}, args.foreground))
    if sys.stdin.isatty() and sys.stdout.isatty():  # somebody looks on who knows what `kiln` is
        hint = "`kiln train RUN.toml` shows its progress in plain lines."
        print(f"The workstation cannot open here: {safe_text(lack.detail)}. {hint}", file=sys.stderr)
        return 2
    parser.print_help()
    print(f"\nThe workstation cannot open here: {safe_text(lack.detail)}.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
