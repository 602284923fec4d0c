"""What runs on this machine really needed, against what had been forecast for them, to correct later forecasts.

One small file a card lies in the user's state folder, named by the card and its memory. Neither driver nor torch are
part of the name: a new one changes little, and the newest measurements decide anyway. What was forecast by other
arithmetic than today's says nothing about it and is left out: each measurement carries a digest of that arithmetic.

A correction is the median of the newest measurements with the same settings; where there are none, half the step
towards that of the others on this card. It is bounded, so that a wrong measurement cannot spoil a plan. A file that
cannot be read is set aside and said in :attr:`Measured.remarks`; nothing here keeps a run from being trained.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import platformdirs

from engine.files import atomic_write, disk_error, slug
from engine.sealed import sealed, unsealed
from engine.text import safe_text
from profiles.schema import GIB, NONE, Correction, Machine, Settings

Kind = tuple[str, str, str, bool]
"""What of the settings decides how far a forecast is off: precision, products, checkpointing, streaming or not."""

FORMAT = 1
MOST = 60
"""Measurements kept in a file, the oldest dropped first."""

NEWEST = 7
"""Measurements whose median counts."""

MOST_BYTES = 200_000
"""A file larger than this is none of ours."""

FACTOR = (0.95, 1.25)
"""Bounds of the factor on memory. Below one a forecast is trusted more than a measurement: too much said is a slower
run, too little is none."""

STEP_FACTOR = (0.5, 4.0)
EXTRA_GB = (-0.5, 2.0)

ARITHMETIC = (
    "activations.py", "adapters.py", "efficiency.py", "estimate.py", "memory_model.py", "products.py", "sizes.py",
    "time_model.py",
)  # fmt: skip
"""The files that make a forecast."""


@dataclass(frozen=True)
class Measurement:
    """One run or probe: what it needed, and what the uncorrected forecast said of the same. 0 was not measured.

    Attributes:
        precision, compute, checkpointing: as in :class:`~profiles.schema.Settings`; ``streamed``: some blocks were.
        vram_gb: what torch held at most, GiB; ``vram_forecast_gb`` all that was forecast but the context.
        context_gb: what the driver held besides.
        step_s: a step's time.
        at: when, in Unix seconds.
        arithmetic: of the forecast.
        source: "probe" or "run".
    """

    precision: str
    compute: str
    checkpointing: str
    streamed: bool
    vram_gb: float = 0.0
    vram_forecast_gb: float = 0.0
    context_gb: float = 0.0
    context_forecast_gb: float = 0.0
    step_s: float = 0.0
    step_forecast_s: float = 0.0
    at: float = 0.0
    arithmetic: str = ""
    source: str = "run"

    def is_like(self, settings: Settings) -> bool:
        """Whether it was made with settings that matter alike."""
        return kind_of(settings) == (self.precision, self.compute, self.checkpointing, self.streamed)


def kind_of(settings: Settings) -> Kind:
    """What settings have in common with those that measurements serve; the rest is arithmetic that holds for all."""
    compute = settings.compute if settings.precision in ("int8", "fp8") else "wide"  # others have no 8-bit products
    return settings.precision, compute, settings.checkpointing, settings.blocks_to_swap > 0


class Measured:
    """The measurements of one user's machines.

    Args:
        folder: where the files lie; the user's state folder when None.

    Attributes:
        remarks: what went wrong with a file, in words that are safe to show.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = Path(platformdirs.user_state_dir("lorakiln")) / "measured" if folder is None else folder
        self.remarks: list[str] = []

    def path(self, machine: Machine) -> Path:
        """The file of a machine's card, or of its processor where it has none."""
        card = machine.card
        name = f"{slug(card.name)}-{card.vram_gb:.0f}gb" if card is not None else f"processor-{machine.cores}-cores"
        return self.folder / f"{name}.json"

    def correction_for(self, machine: Machine, settings: Settings) -> Correction:
        """What was learned on this machine for runs with these settings; nothing where nothing was."""
        return _correction(self._known(machine), settings)

    def words(self, machine: Machine) -> str:
        """How much is known of a machine, in a sentence; empty where nothing is."""
        known = self._known(machine)
        return f"Forecasts are corrected by {_counted(known)}." if known else ""

    def _known(self, machine: Machine) -> list[Measurement]:
        return [each for each in self._read(self.path(machine)) if each.arithmetic == arithmetic()]

    def add(self, machine: Machine, measurement: Measurement) -> None:
        """Keep a measurement.

        Raises:
            DiskError: the file cannot be written; what stood there before is unharmed.
        """
        path = self.path(machine)
        with _alone(path):
            kept = [*self._known(machine), measurement][-MOST:]
            table = {"format": FORMAT, "measurements": [asdict(each) for each in kept]}
            atomic_write(path, sealed(json.dumps(table, indent=1)))

    def _read(self, path: Path) -> list[Measurement]:
        """What a file holds; nothing of one that is damaged or of another format, which is set aside."""
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("larger than any of ours")
            table = unsealed(path.read_bytes())
            if not isinstance(table, dict) or table.get("format") != FORMAT:
                raise ValueError("of another format")
            return [_measurement(each) for each in table["measurements"]]
        except FileNotFoundError:
            return []
        except OSError as err:
            self._say(f"{safe_text(path, 400)} cannot be read ({safe_text(err.strerror, 100)})")
        except (ValueError, KeyError, TypeError) as err:
            self._set_aside(path, err)
        return []

    def _set_aside(self, path: Path, err: Exception) -> None:
        aside = path.with_suffix(".damaged")
        why = safe_text(err, 100)
        try:
            os.replace(path, aside)
        except OSError as failed:
            self._say(f"{safe_text(path, 400)} is damaged ({why}) and stays ({safe_text(failed.strerror, 100)})")
        else:
            self._say(
                f"{safe_text(path, 400)} is damaged ({why}): it now ends in .damaged, and measuring begins anew"
            )

    def _say(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)


@cache
def arithmetic() -> str:
    """Digest of the code that makes forecasts."""
    digest = hashlib.sha256()
    for name in ARITHMETIC:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _correction(known: Sequence[Measurement], settings: Settings) -> Correction:
    alike = [each for each in known if each.is_like(settings)]
    if not known:
        return NONE
    part, used = (1.0, alike) if alike else (0.5, known)
    return Correction(
        vram_factor=_factor([(each.vram_gb, each.vram_forecast_gb) for each in used], FACTOR, part),
        extra_bytes=_extra([each for each in known if each.context_gb > 0]),
        step_factor=_factor([(each.step_s, each.step_forecast_s) for each in used], STEP_FACTOR, part),
        basis=_counted(used) if alike else f"{_counted(used)}, with other settings",
    )


def _counted(measurements: Sequence[Measurement]) -> str:
    return f"{len(measurements)} measurement{'s' if len(measurements) > 1 else ''} on this machine"


def _factor(pairs: Sequence[tuple[float, float]], bounds: tuple[float, float], part: float) -> float:
    """Median of measured over forecast among the newest, ``part`` of the way there, within ``bounds``."""
    ratios = [measured / forecast for measured, forecast in pairs if measured > 0 and forecast > 0][-NEWEST:]
    if not ratios:
        return 1.0
    return round(min(max(median(ratios) ** part, bounds[0]), bounds[1]), 4)


def _extra(known: Sequence[Measurement]) -> int:
    """How much more the driver keeps than was assumed, in bytes; settings do not matter to it."""
    if not known:
        return 0
    extra = median(each.context_gb - each.context_forecast_gb for each in known[-NEWEST:])
    return int(min(max(extra, EXTRA_GB[0]), EXTRA_GB[1]) * GIB)


_KINDS: Mapping[str, type] = {"str": str, "bool": bool, "float": float}


def _measurement(values: Any) -> Measurement:
    """One measurement from JSON.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(values, dict):
        raise ValueError("a measurement is no table")
    read: dict[str, Any] = {}
    for each in fields(Measurement):
        value = values[each.name]
        if each.type == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, _KINDS[str(each.type)]):
            raise ValueError(f"{each.name} is no {each.type}")
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{each.name} is {value}")
        read[each.name] = value
    return Measurement(**read)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file meanwhile.

    Raises:
        DiskError: the lock cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise disk_error(err, path) from err
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
