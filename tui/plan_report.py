"""A plan as one plain table of documented keys: what `kiln plan --json` prints, and scripts rely on.

``settings`` has the chosen values by their dotted names in the configuration; sizes are GiB, times seconds:

    verdict, fits                        "fits", "fits, slowly" or "does not fit"; true unless the last
    peak_vram_gb, peak_ram_gb, disk_gb   most over all stages; disk is what is left behind
    limit_gb, margin_gb                  what may be taken of the card, and what of that is kept free on purpose
    step_s, steps, total_s, slowest      slowest: computing, memory, PCIe or host
    lora_mb, price, cost                 the file of one LoRA (1e6 bytes); cost is null without a price per hour
    settings, reasons, stages            reasons: key, label, value, reason, fixed, alternatives
    warnings, remedies, advice           in words
    machine, job                         what it was solved for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from profiles.advice import Advice
from profiles.schema import GIB, Fit, Job, Machine, Reasoned, Stage

Report = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A plan with what it was made for.

    Attributes:
        title: the job in a few words, safe to show.
        price: of an hour of the machine; 0 is not given.
        advice: what the recipe, if one is known, says of the configuration.
    """

    fit: Fit
    job: Job
    machine: Machine
    title: str
    price: float = 0.0
    advice: tuple[Advice, ...] = ()

    @property
    def cost(self) -> float | None:
        """What the run costs; None without a price."""
        return self.fit.forecast.total_s / 3600 * self.price if self.price else None


def report(planned: Planned) -> Report:
    """The plan as JSON can hold it."""
    fit, forecast = planned.fit, planned.fit.forecast
    return {
        "verdict": fit.verdict,
        "fits": fit.fits,
        "peak_vram_gb": round(forecast.peak_vram_gb, 3),
        "peak_ram_gb": round(forecast.peak_ram_gb, 3),
        "disk_gb": round(forecast.disk_gb, 3),
        "limit_gb": round(fit.limit_gb, 3),
        "margin_gb": round(fit.margin_gb, 3),
        "step_s": round(forecast.step_s, 5),
        "steps": forecast.steps,
        "total_s": round(forecast.total_s, 1),
        "slowest": forecast.slowest,
        "lora_mb": round(forecast.lora_bytes / 1e6, 1),
        "price": planned.price or None,
        "cost": None if planned.cost is None else round(planned.cost, 2),
        "settings": fit.changes(),
        "reasons": [_reason(each) for each in fit.reasons],
        "stages": [_stage(each) for each in forecast.stages],
        "disk": _gb(forecast.disk),
        "warnings": list(fit.warnings),
        "remedies": list(fit.remedies),
        "advice": [vars(each) for each in planned.advice],
        "machine": _machine(planned.machine),
        "job": _job(planned),
    }


def _reason(reasoned: Reasoned) -> Report:
    return {
        "key": reasoned.key,
        "label": reasoned.label,
        "value": reasoned.value,
        "reason": reasoned.reason,
        "fixed": reasoned.fixed,
        "alternatives": [
            {
                "value": each.value,
                "fits": each.fits,
                "peak_vram_gb": round(each.vram_gb, 3),
                "peak_ram_gb": round(each.ram_gb, 3),
                "step_s": round(each.step_s, 5),
                "note": each.note,
            }
            for each in reasoned.alternatives
        ],
    }


def _stage(stage: Stage) -> Report:
    return {
        "name": stage.name,
        "vram_gb": round(stage.vram_gb, 3),
        "ram_gb": round(stage.ram_gb, 3),
        "seconds": round(stage.seconds, 1),
        "vram": _gb(stage.vram),
        "ram": _gb(stage.ram),
    }


def _gb(parts: Mapping[str, int]) -> dict[str, float]:
    return {name: round(size / GIB, 3) for name, size in parts.items() if size}


def _machine(machine: Machine) -> Report:
    card = machine.card
    return {
        "gpu": None if card is None else card.name,
        "vram_gb": None if card is None else round(card.vram_gb, 2),
        "free_vram_gb": round(machine.free_vram_gb, 2),
        "link_gb_s": None if card is None else round(card.link_gb_s, 1),
        "ram_gb": round(machine.ram_gb, 2),
        "free_ram_gb": round(machine.free_ram_gb, 2),
        "cores": machine.cores,
        "cache_disk_gb": round(machine.cache_disk_gb, 1),
        "runs_disk_gb": round(machine.runs_disk_gb, 1),
        "bitsandbytes": machine.bitsandbytes,
        "remarks": list(machine.remarks),
    }


def _job(planned: Planned) -> Report:
    job = planned.job
    return {
        "title": planned.title,
        "model": f"{job.model.family}-{job.model.variant}",
        "buckets": [[each.width, each.height, each.count] for each in job.buckets],
        "pictures": job.pictures,
        "epochs": job.epochs,
    }
