"""What a run may take of a machine, and what a forecast lacks there. No torch.

The margin is what the forecast may be off by and what other programs take later: a share of the card and a piece
that does not grow with it. Of host memory the engine itself keeps 2 GB for the system
(:data:`engine.memory.pinned.MARGIN_BYTES`), so as much is kept here.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiles.schema import GIB, Forecast, Machine, Wishes

VRAM_MARGIN_GB, VRAM_MARGIN_SHARE = 0.25, 0.03
RAM_MARGIN_GB = 2.0
DISK_MARGIN_GB = 1.0
CACHE = "cache"
"""Parts of :attr:`profiles.schema.Forecast.disk` that begin so lie where the caches are."""

PACKED_COPY = "cache packed base"
"""The part of them that a run does without where there is no room: the next start packs the base again."""


@dataclass(frozen=True)
class Lack:
    """Something of which a run wants more than there is.

    Attributes:
        what: "VRAM", "RAM", "cache disk" or "disk".
        wanted_gb: by the forecast, ``there_gb`` what may be taken, the margin left aside.
        stage: the stage that wants it; empty for disks.
    """

    what: str
    wanted_gb: float
    there_gb: float
    stage: str = ""

    @property
    def missing_gb(self) -> float:
        """How much more there would have to be."""
        return self.wanted_gb - self.there_gb

    def text(self) -> str:
        """In words: what is wanted against what is there."""
        place = {"VRAM": "of the card", "RAM": "of host memory", "cache disk": "where the caches go"}
        where = place.get(self.what, "where the runs go")
        at = f" while it does this: {self.stage}" if self.stage else ""
        return f"{self.wanted_gb:.1f} GB {where} wanted{at}, {max(self.there_gb, 0.0):.1f} GB may be taken"


@dataclass(frozen=True)
class Limits:
    """What may be taken, GiB; margins are not part of it.

    Attributes:
        vram_gb: of the card; None where there is no card.
        vram_margin_gb: of the card, kept free beyond that.
        cache_disk_gb: where the caches go; ``runs_disk_gb`` where runs go; one and the same if ``one_disk``.
    """

    vram_gb: float | None
    vram_margin_gb: float
    ram_gb: float
    cache_disk_gb: float
    runs_disk_gb: float
    one_disk: bool

    @classmethod
    def of(cls, machine: Machine, wishes: Wishes) -> Limits:
        """The limits of ``machine`` when others are left what ``wishes`` says."""
        free = max(machine.free_vram_gb - wishes.leave_gb, 0.0)
        margin = VRAM_MARGIN_GB + VRAM_MARGIN_SHARE * free if machine.card is not None else 0.0
        return cls(
            vram_gb=free - margin if machine.card is not None else None,
            vram_margin_gb=margin,
            ram_gb=machine.free_ram_gb - RAM_MARGIN_GB,
            cache_disk_gb=machine.cache_disk_gb - DISK_MARGIN_GB,
            runs_disk_gb=machine.runs_disk_gb - DISK_MARGIN_GB,
            one_disk=machine.one_disk,
        )

    @property
    def card_gb(self) -> float:
        """What the run may take of the card with the margin; 0 where there is none."""
        return 0.0 if self.vram_gb is None else self.vram_gb + self.vram_margin_gb

    def lacking(self, forecast: Forecast) -> tuple[Lack, ...]:
        """All that the forecast wants beyond the limits; nothing where it fits."""
        lacks = []
        if self.vram_gb is not None and forecast.peak_vram_gb > self.vram_gb:
            lacks.append(Lack("VRAM", forecast.peak_vram_gb, self.vram_gb, forecast.peak.name))
        if forecast.peak_ram_gb > self.ram_gb:
            most = max(forecast.stages, key=lambda stage: stage.ram_gb)
            lacks.append(Lack("RAM", most.ram_gb, self.ram_gb, most.name))
        return (*lacks, *self._disk(forecast))

    def fit_in_memory(self, forecast: Forecast) -> bool:
        """Whether card and host memory suffice, disks apart."""
        return forecast.peak_ram_gb <= self.ram_gb and (self.vram_gb is None or forecast.peak_vram_gb <= self.vram_gb)

    def cache_beside_runs(self, forecast: Forecast) -> bool:
        """Whether the caches find no room in their place, but would with the runs."""
        cache, needed = _needed_gb(forecast)
        return not self.one_disk and cache > self.cache_disk_gb and needed <= self.runs_disk_gb

    def keeps_packed_copy(self, forecast: Forecast) -> bool:
        """Whether there is room for the packed copy of the base too."""
        room = self.runs_disk_gb if self.cache_beside_runs(forecast) else self.cache_disk_gb
        return (forecast.disk_gb if self.one_disk else cache_gb(forecast)) <= room

    def _disk(self, forecast: Forecast) -> tuple[Lack, ...]:
        cache, all_of_it = _needed_gb(forecast)
        if self.cache_beside_runs(forecast):
            return ()
        if self.one_disk:
            there = min(self.cache_disk_gb, self.runs_disk_gb)
            return (Lack("disk", all_of_it, there),) if all_of_it > there else ()
        wanted = (("cache disk", cache, self.cache_disk_gb), ("disk", all_of_it - cache, self.runs_disk_gb))
        return tuple(Lack(what, gb, there) for what, gb, there in wanted if gb > there)


def _needed_gb(forecast: Forecast) -> tuple[float, float]:
    """What the caches and what all of it take that a run cannot do without."""
    spared = forecast.disk.get(PACKED_COPY, 0) / GIB
    return cache_gb(forecast) - spared, forecast.disk_gb - spared


def cache_gb(forecast: Forecast) -> float:
    """What the forecast's caches take."""
    return sum(size for part, size in forecast.disk.items() if part.startswith(CACHE)) / GIB
