"""A program of the user's on a copy of a picture: an upscaler, a background remover.

The command is a list of words from the user's settings; it is never given to a shell. It reads ``{in}`` and writes
``{out}``, both in a folder of ours that is removed afterwards. It has no terminal, and is ended with all that it
started when the user gives up or it takes too long. What it wrote is a stranger's picture until it was decoded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from engine.errors import DatasetError
from engine.text import safe_text

LIMIT_S = 3600.0
POLL_S = 0.1
_LAST_WORDS = 2000
PLACES = ("{in}", "{out}")


@contextlib.contextmanager
def run_on_copy(
    command: Sequence[str], picture: Path, cancel: threading.Event, tell: Callable[[str], None] = lambda text: None
) -> Iterator[Path]:
    """Run ``command`` on a copy of ``picture``; yields the file that it wrote, which is removed at the end.

    Args:
        command: program and arguments, with ``{in}`` and ``{out}`` in them.
        picture: stays as it is.
        cancel: set to end the program.
        tell: called with how long it runs and what it said last, safe to show.

    Raises:
        DatasetError: it does not start, failed, was cancelled, took too long or wrote nothing.
    """
    with tempfile.TemporaryDirectory(prefix="lorakiln-") as name:
        folder = Path(name)
        source, target, said = folder / f"in{picture.suffix.lower()}", folder / "out.png", folder / "said.txt"
        try:
            shutil.copyfile(picture, source)
        except OSError as err:
            raise DatasetError("The picture cannot be copied", f"{safe_text(picture)}: {err.strerror}") from err
        words = [word.replace("{in}", str(source)).replace("{out}", str(target)) for word in command]
        words[0] = os.path.expanduser(words[0])
        _run(words, folder, said, cancel, tell)
        if not target.is_file() or not target.stat().st_size:
            raise DatasetError(
                "The program wrote no picture",
                f"{safe_text(command[0], 200)} ended well, but {{out}} is not there. {_last_words(said)}",
                "Look at the command in your settings: it must write a PNG to {out}.",
            )
        yield target


def _run(
    words: Sequence[str], folder: Path, said: Path, cancel: threading.Event, tell: Callable[[str], None]
) -> None:
    began = time.monotonic()
    with open(said, "wb") as output:
        try:
            # A session of its own: it gets no key of ours, and all that it starts can be ended with it.
            process = subprocess.Popen(
                [*words], cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except (OSError, ValueError) as err:
            reason = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
            raise DatasetError(
                "The program does not start", f"{safe_text(words[0], 200)}: {safe_text(reason, 200)}",
                "Look at [commands] in your settings: the first word is the program.",
            ) from err  # fmt: skip
    try:
        while (code := process.poll()) is None:
            elapsed = time.monotonic() - began
            if cancel.wait(POLL_S) or elapsed > LIMIT_S:
                why = "it was cancelled" if cancel.is_set() else "it took more than an hour"
                raise DatasetError("The program was ended", why, "The dataset is as it was.")
            tell(f"{elapsed:.0f} s  {_last_words(said, 100)}")
    finally:
        _end(process)
    if code:
        how = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        raise DatasetError(
            "The program failed", f"{safe_text(words[0], 200)}: {how}. {_last_words(said)}", "Try it by hand first."
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, asked first, where it still runs."""
    if process.returncode is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2.0)


def _last_words(said: Path, limit: int = 300) -> str:
    """The last line that the program wrote."""
    with contextlib.suppress(OSError), open(said, "rb") as file:
        file.seek(max(0, said.stat().st_size - _LAST_WORDS))
        lines = file.read().decode("utf-8", "replace").replace("\r", "\n").split("\n")
        return next((safe_text(line.strip(), limit) for line in reversed(lines) if line.strip()), "")
    return ""
