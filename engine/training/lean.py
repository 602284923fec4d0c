"""The transformer of a run: the base from its file to where it lives, over adapters that were made before.

The one place where precision, streaming, offloading, the modulation layers' place and the kernels come together; what
each of them decided is told in :attr:`Lean.notes`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.blocks.compile import CompiledBlocks, wanted
from engine.blocks.kernels_choice import choose_pieces
from engine.blocks.transformer import LeanFlux
from engine.config import RunConfig
from engine.files import default_cache_dir
from engine.lora.adapter import Adapter, describe_linears
from engine.lora.targets import Shape
from engine.memory.base_file import block_templates
from engine.memory.conditioning import Conditioning, HeldLayers, ModulationLayers, PoolMemory
from engine.memory.copier import copier_for
from engine.memory.load import LoadedBase, load_base
from engine.memory.meter import Traffic
from engine.memory.metered import MeteredCopier
from engine.memory.modulation_file import FileLayers, why_from_file
from engine.memory.offload import Offloader
from engine.memory.pinned import HostPool
from engine.memory.placement import Placement, plan_for_host
from engine.memory.plan import Plan
from engine.memory.products8 import Choice, Quantiser, card_of, choose, prove, use_kernels
from engine.memory.streaming import Streamer
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_file import flux_params, flux_part
from engine.models.modulation import modulation_places
from engine.training.device import Compute
from engine.training.prepare import Base

Progress = Callable[[int, int], None]


@dataclass
class Lean:
    """A run's transformer with what feeds it.

    Attributes:
        source: the blocks' weights.
        traffic: what is copied and waited for.
        products: how products with packed weights are computed.
        compiled: the compiled blocks; None where they run as written.
        notes: what was decided and should be told, one sentence each.
    """

    transformer: LeanFlux
    conditioning: Conditioning
    source: Streamer
    copier: MeteredCopier
    traffic: Traffic
    pool: HostPool
    products: Choice
    compiled: CompiledBlocks | None = None
    notes: list[str] = field(default_factory=list)

    def tensors(self) -> Iterator[Tensor]:
        """The frozen base where it computes, with the buffers that it streams through."""
        yield from self.transformer.parameters()
        yield from self.source.tensors()

    def offloader(self) -> Offloader:
        """What puts block inputs into this base's host memory."""
        return Offloader(self.copier, self.pool)

    def close(self) -> None:
        """Drop the blocks and give back what is pinned; nothing may be computed afterwards."""
        try:
            # A card that has failed said so where it was asked for work: that is the error to hear of.
            with contextlib.suppress(RuntimeError):
                self.source.close()
        finally:
            self.pool.close()


def linear_shapes(base: Base) -> dict[str, Shape]:
    """Kind and size of every linear of the base that an adapter may sit on, without reading a weight.

    Raises:
        ModelFileError: the header contradicts itself.
    """
    with torch.device("meta"):
        blank = FluxTransformer(flux_params(flux_part(base.transformer.path)))
    return describe_linears(blank, base.family.lora_modules(blank))


def build_lean(
    config: RunConfig,
    base: Base,
    compute: Compute,
    adapters: Mapping[str, Adapter],
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Lean:
    """Load the base and put it together with ``adapters``.

    Args:
        progress: told bytes of the checkpoint done and in all; what it raises ends the loading.
        say: told what should be known while the run goes on.

    Raises:
        ModelFileError: the transformer cannot be loaded.
        ConfigError: settings that this machine or model cannot follow.
        RunError: too little host memory for what is to stream.
    """
    pool = HostPool(
        int(config.memory.pinned_gb * 1e9), pin=compute.device.type == "cuda", processes=compute.processes
    )
    try:
        return _build(config, base, compute, adapters, pool, progress, say)
    except BaseException:  # a stop, too: what is pinned stays so until it is given back
        pool.close()
        raise


def _build(
    config: RunConfig,
    base: Base,
    compute: Compute,
    adapters: Mapping[str, Adapter],
    pool: HostPool,
    progress: Progress | None,
    say: Callable[[str], None] | None,
) -> Lean:
    base.family.check_transformer(base.transformer)
    memory, device = config.memory, compute.device
    params = flux_params(flux_part(base.transformer.path))
    card = card_of(device)
    wanted_choice = choose(memory.precision, memory.compute, card)
    kernels = use_kernels(wanted_choice, card, _quantiser(wanted_choice, device))
    choice = prove(wanted_choice, device)
    templates = block_templates(params, memory.precision, compute.dtype)
    plan, shortage = plan_for_host(templates, memory.blocks_to_swap, pool)
    traffic = Traffic(device)
    copier = MeteredCopier(copier_for(device), traffic)
    places = modulation_places(params.depth, params.depth_single_blocks)
    where, from_file = _modulation_place(config, compute, params, pool.free_bytes() - plan.host_bytes)
    loaded, source = _load(config, base, compute, choice, plan, pool, copier, where, progress, say)
    layers: ModulationLayers = (
        HeldLayers(loaded.modulation) if loaded.modulation else FileLayers(loaded.part, places, compute.dtype)
    )
    conditioning = Conditioning(loaded.io, places, layers, PoolMemory(pool), copier)
    kept = config.training.gradient_checkpointing
    offload = Offloader(copier, pool) if kept == "offload" else None
    transformer = LeanFlux(params, loaded.io.requires_grad_(False), source, adapters, conditioning, kept, offload)
    lean = Lean(transformer, conditioning, source, copier, traffic, pool, choice)
    lean.notes = [compute.remark, *loaded.notes, kernels, choice.reason, shortage, from_file, pool.news()]
    _choose_code(config, compute, lean)
    lean.notes = [note for note in lean.notes if note]
    return lean


def _load(
    config: RunConfig,
    base: Base,
    compute: Compute,
    choice: Choice,
    plan: Plan,
    pool: HostPool,
    copier: MeteredCopier,
    modulation: torch.device | None,
    progress: Progress | None,
    say: Callable[[str], None] | None,
) -> tuple[LoadedBase, Streamer]:
    """Read the base, each block to where ``plan`` has it; the modulation layers to their device, None leaves them."""
    placement = Placement(plan, pool, compute.device)
    loaded = load_base(
        base.transformer.path,
        device=compute.device,
        dtype=compute.dtype,
        precision=config.memory.precision,
        choice=choice,
        cache_dir=config.cache_dir or default_cache_dir(),
        room=placement.room,
        place=placement.place,
        modulation_device=modulation,
        progress=progress,
    )
    loaded.blocks.clear()  # the source holds them: a second list would keep their memory through a release
    return loaded, placement.source(copier, loaded.reread, say)


def repack(lean: Lean, config: RunConfig, base: Base, compute: Compute, say: Callable[[str], None] | None) -> None:
    """Read the blocks again, packed as ``config`` has it now; everything around them stays as it is.

    The blocks there were are dropped first: there is no room for both. If this fails there are none.

    Raises:
        ModelFileError, ConfigError, RunError: as :func:`build_lean`.
        torch.OutOfMemoryError: nor is there room for these.
    """
    memory = config.memory
    choice = prove(choose(memory.precision, memory.compute, card_of(compute.device)), compute.device)
    templates = block_templates(lean.transformer.params, memory.precision, compute.dtype)
    lean.source.clear(lean.pool)
    compute.free_unused()
    plan, shortage = plan_for_host(templates, memory.blocks_to_swap, lean.pool)
    loaded, source = _load(config, base, compute, choice, plan, lean.pool, lean.copier, None, None, say)
    lean.source = lean.transformer.source = source
    lean.products = choice
    for text in (*loaded.notes, choice.reason, shortage):
        if text and say is not None:
            say(text)


def _quantiser(choice: Choice, device: torch.device) -> Quantiser | None:
    """The kernel that quantises activations on a GPU; None where int8 products are not wanted or triton fails."""
    if choice.kind != "int8" or device.type != "cuda":
        return None
    try:
        from engine.blocks.kernels_launch import quantise_rows  # imports triton: a second others need not pay
    except ImportError:
        return None
    return quantise_rows


def _modulation_place(
    config: RunConfig, compute: Compute, params: FluxParams, free_bytes: int
) -> tuple[torch.device | None, str]:
    """Where the modulation layers wait, None for their file; and why there, if it should be told.

    Args:
        free_bytes: host memory that the streamed blocks will leave.
    """
    if not config.memory.modulation_cache or compute.device.type == "cpu":
        return compute.device, ""
    places = modulation_places(params.depth, params.depth_single_blocks)
    reason = why_from_file(places, params.hidden_size, compute.dtype, free_bytes)
    return (None if reason else torch.device("cpu")), reason


def _choose_code(config: RunConfig, compute: Compute, lean: Lean) -> None:
    """Fused kernels where they are proven, and compiled blocks where they are wanted."""
    chosen = choose_pieces(compute.device, compute.dtype)
    lean.transformer.pieces = chosen.pieces
    compile_blocks, reason = wanted(config.memory.compile, compute.device, chosen.name)
    attention = lean.transformer.attention(config.model.t5_mask)
    words = f"Blocks run {chosen.name} kernels, attention {attention.attention.name}"
    lean.notes += [words, chosen.reason, attention.reason, reason]
    if compile_blocks:
        lean.notes.append("Blocks are compiled: the first step takes minutes the first time, seconds afterwards")
        lean.compiled = CompiledBlocks(lean.transformer.functions)
        lean.transformer.functions = lean.compiled.functions
