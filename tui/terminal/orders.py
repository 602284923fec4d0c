"""What a command asks of a host: a table of plain values that the command fills and the host turns into a run.

The host does the reading of files, so the client imports next to nothing and the screen is there sooner; what is
wrong with them comes back as an error before the terminal is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.commands import StopAtEpoch
from engine.errors import RunError

if TYPE_CHECKING:
    from tui.bridge import RunLike


def demo(runs_dir: Path) -> dict[str, Any]:
    """Train the demonstration."""
    return {"command": "demo", "runs_dir": str(runs_dir)}


def train(file: Path, resume: bool = False, stop_after: int = 0) -> dict[str, Any]:
    """Train as ``file`` says, or go on with its last unfinished run; with an end after an epoch if one is given."""
    return {"command": "train", "file": str(file), "resume": resume} | _end(stop_after)


def resume(folder: Path, stop_after: int = 0) -> dict[str, Any]:
    """Go on with the run in ``folder``; with an end after an epoch if one is given."""
    return {"command": "resume", "folder": str(folder)} | _end(stop_after)


def _end(stop_after: int) -> dict[str, Any]:
    return {"stop_after": stop_after} if stop_after else {}


def config_file(order: dict[str, Any]) -> Path | None:
    """The file whose configuration the order's run has; None where it comes from elsewhere."""
    new = order.get("command") == "train" and not order.get("resume")
    return Path(str(order.get("file", ""))).absolute() if new else None


def run_for(order: dict[str, Any]) -> RunLike | None:
    """The run that ``order`` asks for, not begun; None for an order that asks for none.

    Raises:
        ConfigError: the configuration cannot be used.
        RunError: there is nothing to resume, or the order is not understood.
    """
    run, epoch = _made(order), order.get("stop_after")
    if run is not None and isinstance(epoch, int) and epoch > 0:
        run.submit(StopAtEpoch(epoch))
    return run


def _made(order: dict[str, Any]) -> RunLike | None:
    command = order.get("command")
    if command is None:
        return None
    from engine.run import Run, open_run

    if command == "demo":
        from profiles.starters import demo_config

        return Run(demo_config(Path(str(order.get("runs_dir", "runs")))))
    if command == "resume":
        return open_run(Path(str(order.get("folder", ""))))
    if command == "train":
        from engine.config_file import load_config

        config = load_config(Path(str(order.get("file", ""))))
        if order.get("resume"):
            from tui.run_list import latest_unfinished

            return open_run(latest_unfinished(config.runs_dir, config.name))
        return Run(config)
    raise RunError("The host does not know this order", "", "Is another version of lorakiln installed?")
