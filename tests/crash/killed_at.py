"""Trains as a configuration says and kills itself at a moment: ``killed_at.py RUN.toml KIND COUNT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from interrupted import watching
from pocket import finish

from engine.config_file import load_config
from engine.run import Run


def main(file: str, kind: str, count: str) -> None:
    """Train until the moment."""

    def at(_: object, now: str, number: int) -> None:
        if (now, number) == (kind, int(count)):
            os.kill(os.getpid(), signal.SIGKILL)

    with watching(at):
        finish(Run(load_config(Path(file))))


if __name__ == "__main__":
    main(*sys.argv[1:])
