"""A transformer, pictures and caches just large enough to train twenty steps on, with modulation from a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from model_files import TINY, random_tensors
from torch import Tensor

from engine.batches import Order
from engine.blocks.transformer import LeanFlux
from engine.config import LoraConfig, RunConfig
from engine.dataset.scan import Sample
from engine.draws import torch_generator
from engine.lora.adapter import LoraSet, describe_linears, make_adapters
from engine.lora.targets import select_targets
from engine.models.family import FLUX1
from engine.models.flux import FluxTransformer
from engine.models.flux_file import layout
from engine.models.modulation import Modulation
from engine.training.entries import Entries
from engine.training.modulations import Modulations
from engine.training.objective import Objective


class WatchedFlux(LeanFlux):
    """The fast transformer; notes what modulation it was given."""

    def forward(self, *args: Any, modulation: Modulation | None = None) -> Tensor:  # type: ignore[override]
        self.__dict__.setdefault("calls", []).append(modulation)
        return super().forward(*args, modulation=modulation)


def watched(config: LoraConfig | None = None, dtype: torch.dtype = torch.float32) -> tuple[Any, LoraSet | None]:
    """A tiny transformer of random weights, with adapters if a configuration is given."""
    plain = FluxTransformer(TINY)
    plain.load_state_dict(random_tensors(layout(TINY), 3, 0.1))
    plain.requires_grad_(False).to(dtype)
    lora = None
    if config is not None:
        targets = select_targets(describe_linears(plain, FLUX1.lora_modules(plain)), config)
        lora = make_adapters(targets, config, 0, torch.device("cpu"))
    return WatchedFlux.from_plain(plain, lora), lora


class MadeStore:
    """Cache entries made from their keys alone; notes what was read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def get(self, key: str) -> dict[str, Tensor]:
        self.read.append(key)
        draw = torch_generator(0, key)
        if key.startswith("text"):
            pooled = torch.randn(TINY.vec_in_dim, generator=draw)
            return {
                "pooled": pooled,
                "states": torch.randn(6, TINY.context_in_dim, generator=draw),
                "mask": torch.ones(6, dtype=torch.bool),
            }
        height, width = (int(side) // 8 for side in key.split("/")[1:3])
        mean = torch.randn(16, height, width, generator=draw)
        return {"mean": mean, "std": torch.full_like(mean, 0.1)}


class _Texts(dict[str, str]):
    def __missing__(self, caption: str) -> str:
        return f"text/{caption}"


class _Latents(dict[Any, str]):
    def __missing__(self, view: Any) -> str:
        placement = view.placement
        return f"latent/{placement.bucket_h}/{placement.bucket_w}/{view.sample.index}/{view.flip}"


def run_config(**changes: Any) -> RunConfig:
    """Micro-batches of two in two sizes, captions that vary from epoch to epoch."""
    base: dict[str, Any] = {
        "name": "t",
        "model": dict.fromkeys(("transformer", "autoencoder", "clip_l", "t5"), "x"),
        "dataset": {
            "folders": [{"path": "/d"}],
            "resolution": 64,
            "buckets": {"min_side": 32, "max_side": 128, "step": 16},
            "flip": True,
            "captions": {"dropout": 0.2, "shuffle": True},
        },
        "lora": {"rank": 2, "dropout": 0.1},
        "training": {"epochs": 12, "batch_size": 2, "accumulation": 2, "device": "cpu"},
        "objective": {"guidance": 2.0},
    }
    for table, values in changes.items():
        base[table] = base.get(table, {}) | values
    return RunConfig.model_validate(base)


def samples(count: int = 7) -> list[Sample]:
    """Pictures of two shapes, each with a caption of its own."""
    sizes = [(640, 640), (960, 640)]
    return [
        Sample(n, Path(f"/d/{n}.png"), f"{n}.png", None, f"a, b, c, number {n}", *sizes[n % 3 == 0], 1, False)
        for n in range(count)
    ]


@dataclass
class Session:
    """What twenty steps need, and what they gave."""

    config: RunConfig = field(default_factory=run_config)
    processes: int = 1
    rank: int = 0
    dtype: torch.dtype = torch.float32
    store: MadeStore = field(default_factory=MadeStore)
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.order = Order(samples(), self.config, self.processes)
        self.entries = Entries(self.store, _Latents(), _Texts(), self.config.seed)  # type: ignore[arg-type]
        self.compute: Any = SimpleNamespace(
            device=torch.device("cpu"), processes=self.processes, rank=self.rank, autocast=lambda: torch.no_grad()
        )
        self.transformer, lora = watched(self.config.lora, self.dtype)
        assert lora is not None
        self.lora: LoraSet = lora
        self.optimizer = torch.optim.AdamW(self.lora.parameters(), lr=1e-2)

    def modulations(self, chunk: int) -> Modulations:
        """The cache under test."""
        ahead = self.transformer.conditioning
        return Modulations(ahead, self.order, self.entries, self.config, FLUX1, self.compute, chunk)

    def train(
        self, modulations: Modulations | None, steps: int = 20, after: int = 0, between: Callable[[Any], None] = id
    ) -> Session:
        """Train from the step after ``after`` to step ``steps``; ``between`` is told each turn before it."""
        self.transformer.train()
        self.compute.autocast = torch.enable_grad
        objective = Objective(self.config, FLUX1, self.transformer, self.entries, self.compute, modulations)
        for turn in self.order.turns(after=after):
            if turn.step > steps:
                break
            between(turn)
            for number, micro in enumerate(self.order.step(turn)):
                if number % self.processes == self.rank:
                    loss, _ = objective.loss(objective.inputs(micro, turn.step, number))
                    loss.backward()
                    self.losses.append(loss.item())
            self.optimizer.step()
            self.lora.zero_grad()
            self.lora.refresh()
        return self

    def same(self, other: Session) -> bool:
        """Equal losses and weights, bit by bit."""
        mine, theirs = self.lora.state(), other.lora.state()
        return self.losses == other.losses and all(torch.equal(mine[name], theirs[name]) for name in mine)
