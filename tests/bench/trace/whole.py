"""A run's memory on a card at full size, traced: the engine's own build and its own step, on tensors without values.

Tensors on the meta device have shapes and storages and no memory (fake tensors are made of them, and are slower); a
dispatch mode follows the storages that live. What is made is what a run makes: input and output layers, blocks from
the loader's templates, the streamer's ring, flat adapters, the optimizer and its gate, the offloader, the objective.
What lies in host memory is left out of the count, and 8-bit products take the ways that they take on a card.

Standing memory is traced at full depth. The step is traced over a few blocks of each kind and put together: all
blocks of a kind keep and need the same, so what a phase of the full step has alive is what it has here and what more
blocks keep. :func:`step` at full depth agrees; a test says so.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from engine.blocks import attention
from engine.blocks.transformer import LeanFlux
from engine.config import LoraConfig, ObjectiveConfig, OptimizerConfig
from engine.lora.adapter import LoraSet, describe_linears, make_adapters
from engine.lora.targets import Target, select_targets
from engine.memory import calibration, kernels8, products8
from engine.memory.base_file import InputOutput, block_templates, products_of
from engine.memory.conditioning import CHUNK, Conditioning, HeldLayers, travelling
from engine.memory.copier import DirectCopier
from engine.memory.frozen import BlockWeights, Dense, block_tensors, with_block_tensors
from engine.memory.offload import Offloader
from engine.memory.pinned import HostBlock, HostBuffer, layout_of
from engine.memory.placement import plan_blocks
from engine.memory.precision import Packed8, pack
from engine.memory.products8 import Choice
from engine.memory.streaming import Streamer
from engine.models.autoencoder_layout import AutoencoderSizes
from engine.models.autoencoder_net import AutoencoderNet
from engine.models.family import FLUX1, TextEmbeds
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.modulation import Modulation, modulation_places
from engine.models.t5_net import T5Layer, attention_bias
from engine.models.text_layout import T5Sizes
from engine.training.flow import flow_loss, noisy, velocity_target
from engine.training.gate import Gate
from engine.training.objective import Inputs
from engine.training.optimizer import build_optimizer, clip_gradients
from tests.bench.trace.contenders import fake
from tests.bench.trace.counter import Counter

SHALLOW = {"offload": (4, 2)}
"""Blocks of each kind in a shallow step, else two: offloaded inputs are on their way for some."""

META = torch.device("meta")


@dataclass(frozen=True)
class Setup:
    """A run's settings as far as its memory goes; ``kind`` of products: dense, int8, fp8, unpacked or nf4."""

    params: FluxParams = field(default_factory=FluxParams)
    width: int = 1024
    height: int = 1024
    batch: int = 1
    text: int = 512
    rank: int = 16
    targets: str = "default"
    checkpointing: str = "full"
    precision: str = "auto"
    kind: str = "dense"
    swap: int = 0
    modulation_cache: bool = True
    optimizer: str = "adamw8bit"


@dataclass(frozen=True)
class Standing:
    """Bytes between steps at full depth, and for a moment at a step's end."""

    weights: int
    ring: int
    adapter: int
    optimizer: int
    modulation: int
    update: int

    @property
    def total(self) -> int:
        """What stays."""
        return self.weights + self.ring + self.adapter + self.optimizer + self.modulation


@dataclass(frozen=True)
class Phase:
    """From one block's turn to the next.

    Attributes:
        block: which; -1 before the first, and between forward and backward the last.
        backward: on the way back.
        live: bytes when it began, beyond what stands.
        peak: most while it lasted.
    """

    block: int
    backward: bool
    live: int
    peak: int


class HostMemory:
    """Host memory that is not counted."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def take(self, nbytes: int) -> HostBuffer:
        """A buffer."""
        data = torch.empty(nbytes, dtype=torch.uint8)
        self._counter.leave_out(data)
        return HostBuffer(data, pinned=True)


@contextmanager
def as_on_a_card() -> Iterator[None]:
    """8-bit products by the kernels of a card instead of their emulation on a processor."""
    from engine.blocks.kernels_launch import quantise_rows

    def quantise(x: Tensor, dtype: torch.dtype, fold: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return quantise_rows(x, fold) if dtype == products8.INT8 else eager(x, dtype, fold)

    def int8(
        tokens: Tensor, step: Tensor, rows: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        return kernels8.torch.ops.lorakiln.product8(tokens, step, rows.t(), scale, bias, dtype)

    def fp8(
        tokens: Tensor, step: Tensor, columns: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        if scale is None:
            scale = torch.ones(columns.shape[1], dtype=torch.float32)
        return products8._rowwise(tokens, step, columns, scale, bias).to(dtype)

    eager = products8.quantise_rows
    with (
        mock.patch.object(products8, "quantise_rows", quantise),
        mock.patch.object(products8, "_int8", int8),
        mock.patch.object(products8, "_fp8", fp8),
    ):
        yield


class Base:
    """The frozen base as a run has it: its outer layers, its blocks and their ring, its modulation layers."""

    def __init__(self, setup: Setup, counter: Counter) -> None:
        self.setup, self.counter = setup, counter
        with _disable_current_modes(), META:
            self.io = InputOutput(setup.params)
        self.io.load_state_dict({name: torch.empty(t.shape) for name, t in self.io.state_dict().items()}, assign=True)
        self.io.requires_grad_(False)
        self.copier = DirectCopier()
        self.pool: Any = HostMemory(counter)
        self.source = self._source()
        places = modulation_places(setup.params.depth, setup.params.depth_single_blocks)
        self.weights_bytes, before = counter.live, counter.live
        self.conditioning = Conditioning(self.io, places, HeldLayers(self._layers()), copier=self.copier)
        self.modulation_bytes = counter.live - before

    def _source(self) -> Streamer:
        templates = _templates(self.setup.params, self.setup.precision, self.setup.kind)
        plan = plan_blocks(templates, self.setup.swap)
        blocks: list[BlockWeights | HostBlock] = []
        for number, template in enumerate(templates):
            if number in plan.streamed:
                layout = layout_of(template)
                blocks.append(HostBlock(template, self.pool.take(layout.nbytes), layout))
            else:
                blocks.append(_filled(template))
        return Streamer(blocks, plan, self.copier, META)

    def _layers(self) -> Mapping[str, Dense]:
        """Modulation layers on the card, or in host memory."""
        p, found = self.setup.params, {}
        for place in modulation_places(p.depth, p.depth_single_blocks):
            rows = place.count * p.hidden_size
            tensors = [torch.empty(rows, p.hidden_size), torch.empty(rows)]
            if self.setup.modulation_cache:
                for tensor in tensors:
                    self.counter.leave_out(tensor)
            found[place.name] = Dense(*tensors)
        return found

    def table(self, samples: int = CHUNK) -> None:
        """Modulation of many samples in host memory, layers passing through the card two at a time."""
        p, held, copier = self.setup.params, self.conditioning.source, self.copier

        class Away:
            """The layers, as they come from host memory to a card."""

            def layers(self) -> Iterator[tuple[str, Any]]:
                return travelling(held.layers(), META, copier)

        away: Any = Away()
        places = modulation_places(p.depth, p.depth_single_blocks)
        conditioning = Conditioning(self.io, places, away, copier=copier)
        into = conditioning.reserve(samples)
        for tensor in (into.rows, into.vec):
            self.counter.leave_out(tensor)
        levels, guidance = (torch.empty(samples, dtype=torch.float32) for _ in range(2))
        conditioning.table(levels, torch.empty(samples, p.vec_in_dim), guidance, into=into)


class Adapter:
    """What is trained: flat adapters and their optimizer behind the gate."""

    def __init__(self, setup: Setup, counter: Counter) -> None:
        targets, config = _targets(setup.params, setup.rank, setup.targets)
        self.counter, before = counter, counter.live
        # Values are drawn for nothing here, and every draw would be dispatched.
        with mock.patch("engine.lora.adapter._draw_down"):
            self.lora: LoraSet = make_adapters(targets, config, 0, META)
        # The copy that is computed with stands from the first step on.
        next(iter(self.lora.adapters.values())).compute(torch.bfloat16)
        self.adapter_bytes = counter.live - before
        name: Any = setup.optimizer
        rate = 1.0 if name == "prodigy" else 1e-4
        # bitsandbytes computes its table of 8-bit values one by one.
        with mock.patch("bitsandbytes.functional.create_dynamic_map", lambda **_: torch.empty(256)):
            self.optimizer = build_optimizer(self.lora, OptimizerConfig(name=name, learning_rate=rate))

    def update(self) -> None:
        """Clip and step through the gate, cast and zero: what ends a step."""
        with ExitStack() as stack:
            if hasattr(self.optimizer, "update_step"):  # bitsandbytes' kernels need values
                stack.enter_context(mock.patch.object(type(self.optimizer), "update_step"))
            # torch's fused AdamW asks for a device that computes.
            stack.enter_context(mock.patch("torch.optim.adam._device_dtype_check_for_fused"))
            downs = {id(each) for each in self.lora.flat_groups()[0]}
            # Prodigy looks whether a matrix is zero: up matrices are.
            stack.enter_context(mock.patch.object(Tensor, "any", lambda tensor, *_: id(tensor) in downs))
            norm = clip_gradients(self.lora.gradients, 1.0)
            gate = Gate(self.optimizer, late=True)
            if gate.reason:
                self._page()
            else:
                gate.step(torch.zeros(()), norm)
        self.lora.refresh()
        self.lora.zero_grad()

    def _page(self) -> None:
        """What bitsandbytes pages lies in memory that the driver moves; its kernels update it where it is."""
        optimizer: Any = self.optimizer

        def paged(_: Any, piece: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
            buffer = torch.zeros(piece.shape, dtype=dtype, device=piece.device)
            self.counter.leave_out(buffer)
            return buffer

        with mock.patch.object(type(optimizer), "get_state_buffer", paged):
            for number, group in enumerate(optimizer.param_groups):
                for index, piece in enumerate(group["params"]):
                    if not optimizer.state[piece]:
                        optimizer.init_state(group, piece, number, index)


class Built(Base):
    """A run's parts on fake tensors, put together."""

    def __init__(self, setup: Setup, counter: Counter) -> None:
        super().__init__(setup, counter)
        from engine.blocks.kernels_launch import TRITON

        self.trained = Adapter(setup, counter)
        kept: Any = setup.checkpointing
        offload = Offloader(self.copier, self.pool) if kept == "offload" else None
        adapters = self.trained.lora.adapters
        network = LeanFlux(setup.params, self.io, self.source, adapters, self.conditioning, kept, offload)
        self.network = network.train()
        self.network.pieces = TRITON


@lru_cache(maxsize=32)
def _templates(params: FluxParams, precision: Any, kind: str) -> Sequence[BlockWeights]:
    with _disable_current_modes():
        choice: Any = kind if kind in ("int8", "fp8") else "wide"
        return block_templates(params, precision, torch.bfloat16, products_of(params, Choice(choice)))


def _filled(template: BlockWeights) -> BlockWeights:
    tensors = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in block_tensors(template).items()}
    return with_block_tensors(template, tensors)


@lru_cache(maxsize=32)
def _targets(params: FluxParams, rank: int, targets: Any) -> tuple[list[Target], LoraConfig]:
    config = LoraConfig(rank=rank, targets=targets)
    with _disable_current_modes(), torch.device("meta"):
        blank = FluxTransformer(params)
        return select_targets(describe_linears(blank, FLUX1.lora_modules(blank)), config), config


@contextmanager
def counting() -> Iterator[Counter]:
    """Tensors on the meta device, bf16 unless said otherwise, whose storages are counted: they stand for a card's."""
    before = torch.get_default_dtype()
    with (
        warnings.catch_warnings(),
        mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()),
        mock.patch.object(LeanFlux, "attention", lambda *_: attention.Choice(attention.CPU)),
        as_on_a_card(),
        META,
        Counter("meta", memory_alone=True) as counter,
    ):
        warnings.simplefilter("ignore")
        torch.set_default_dtype(torch.bfloat16)
        try:
            yield counter
        finally:
            torch.set_default_dtype(before)


@cache
def _base(params: FluxParams, precision: str, kind: str, swap: int, cached: bool) -> tuple[int, int, int]:
    setup = Setup(params, precision=precision, kind=kind, swap=swap, modulation_cache=cached)
    with counting() as counter:
        base = Base(setup, counter)
        ring = sum(base.source._memory.data(slot).numel() for slot in range(base.source._memory.slots))
        return base.weights_bytes - ring, ring, base.modulation_bytes


@cache
def _trained(params: FluxParams, rank: int, targets: str, optimizer: str) -> tuple[int, int, int]:
    with counting() as counter:
        trained = Adapter(Setup(params, rank=rank, targets=targets, optimizer=optimizer), counter)
        trained.update()
        after = counter.live
        counter.tally.peak_bytes = after
        trained.update()  # the second, when all states are there
        return trained.adapter_bytes, after - trained.adapter_bytes, counter.tally.peak_bytes - after


def standing(setup: Setup) -> Standing:
    """What a run has on the card between steps, at full depth."""
    weights, ring, modulation = _base(setup.params, setup.precision, setup.kind, setup.swap, setup.modulation_cache)
    adapter, optimizer, update = _trained(setup.params, setup.rank, setup.targets, setup.optimizer)
    return Standing(weights, ring, adapter, optimizer, modulation, update)


@cache
def filling(params: FluxParams) -> int:
    """Most that computing a table of modulation has alive beyond what stands."""
    with counting() as counter:
        base = Base(Setup(replace(params, depth=1, depth_single_blocks=1)), counter)
        before = counter.live
        counter.tally.peak_bytes = before
        base.table()
        return counter.tally.peak_bytes - before


def step(setup: Setup, judged: bool = False) -> list[Phase]:
    """One micro-batch, forward and backward, phase by phase.

    Args:
        setup: as it is, at its own depth.
        judged: a run's first batch, which is computed wide and on which 8-bit products are measured.
    """
    with counting() as counter, ExitStack() as stack:
        run = Built(setup, counter)
        if judged:
            _watch(run.source, stack)
        return _phases(run)


def _watch(source: Streamer, stack: ExitStack) -> None:
    """What :func:`engine.memory.calibration.calibrate` does before a first batch."""
    blocks = [*source._resident.values(), *(block.weights for block in source._streamed.values())]
    for linear in calibration.packed_linears(blocks).values():
        assert isinstance(linear, Packed8)
        for name, value in (("forward", False), ("input_grad", False), ("watch", calibration._Watch())):
            stack.enter_context(mock.patch.object(linear.products, name, value))


def _phases(run: Built) -> list[Phase]:
    counter, base = run.counter, run.counter.live
    counter.tally.peak_bytes = base
    found: list[Phase] = []
    open_: list[tuple[int, bool, int]] = [(-1, False, base)]

    def turn(block: int, backward: bool) -> None:
        number, back, live = open_[-1]
        found.append(Phase(number, back, live - base, counter.tally.peak_bytes - base))
        open_.append((block, backward, counter.live))
        counter.tally.peak_bytes = counter.live

    use, backward = run.source.use, False

    def told(block: int) -> Any:
        turn(block, backward)
        return use(block)

    inputs = _inputs(run)  # a run holds them until the backward pass is over
    with mock.patch.object(run.source, "use", told):
        loss = _loss(run, inputs)
        backward = True
        turn(run.setup.params.depth + run.setup.params.depth_single_blocks, True)
        loss.backward()
    turn(-1, True)
    del inputs
    return found


def _inputs(run: Built) -> Inputs:
    """A micro-batch as it comes from the caches."""
    setup, p = run.setup, run.setup.params
    batch, side = setup.batch, (setup.height // 8, setup.width // 8)
    latents, noise = (torch.empty(batch, 16, *side, dtype=torch.float32) for _ in range(2))
    sigmas, weights = (torch.empty(batch, dtype=torch.float32) for _ in range(2))
    text = TextEmbeds(
        pooled=torch.empty(batch, p.vec_in_dim, dtype=torch.float32),
        states=torch.empty(batch, setup.text, p.context_in_dim),
        mask=torch.empty(batch, setup.text, dtype=torch.bool),
    )
    modulation = None
    if setup.modulation_cache:
        vectors = run.conditioning.vectors
        modulation = Modulation(torch.empty(batch, vectors, p.hidden_size), torch.empty(batch, p.hidden_size))
    return Inputs(latents, noise, sigmas, text, weights, modulation)


def _loss(run: Built, inputs: Inputs) -> Tensor:
    """What :meth:`engine.training.objective.Objective.loss` does."""
    noised = noisy(inputs.latents, inputs.noise, inputs.sigmas)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = FLUX1.velocity(run.network, noised, inputs.sigmas, inputs.text, 1.0, False, inputs.modulation)
    target = velocity_target(inputs.latents, inputs.noise)
    loss, _ = flow_loss(predicted, target, inputs.sigmas, ObjectiveConfig(), inputs.weights)
    return loss


@cache
def later(setup: Setup, judged: bool = False) -> int:
    """Most that a step has alive beyond what stands, from a shallow one."""
    params = setup.params
    doubles, singles = SHALLOW.get(setup.checkpointing, (2, 2))
    shallow = replace(params, depth=doubles, depth_single_blocks=singles)
    phases = step(replace(setup, params=shallow), judged)
    return assembled(phases, params, shallow)


def assembled(phases: Sequence[Phase], params: FluxParams, shallow: FluxParams) -> int:
    """The highest of all phases of a step of ``params`` blocks, from one of ``shallow`` ones."""
    depth, blocks = shallow.depth, shallow.depth + shallow.depth_single_blocks
    forward = {phase.block: phase for phase in phases if not phase.backward}
    turned = next(phase for phase in phases if phase.backward and phase.block == blocks)
    starts = [forward[block].live for block in range(blocks)]
    double = (params.depth - depth) * (starts[depth] - starts[depth - 1])
    single = (params.depth_single_blocks - shallow.depth_single_blocks) * (starts[-1] - starts[-2])
    peaks = [turned.peak + double + single]
    for phase in phases:
        last_double, last_single = phase.block == depth - 1, phase.block == blocks - 1
        if last_single:
            peaks.append(phase.peak + double + single)
        elif last_double:
            peaks.append(phase.peak + double)
    return max(peaks)


def passing(setup: Setup) -> int:
    """Most that any step has alive beyond what stands.

    With 8-bit products that is the first, which is computed wide to judge them by.
    """
    apart = replace(setup, swap=0, optimizer="adamw")  # neither changes what a step makes
    return later(apart, judged=setup.kind in ("int8", "fp8"))


def peak(setup: Setup) -> int:
    """Most on the card in a run's training, context and what the allocator loses apart."""
    stands = standing(setup)
    table = filling(setup.params) if setup.modulation_cache else 0
    return stands.total + max(passing(setup), stands.update, table)


@cache
def drawing(setup: Setup) -> int:
    """Most that a forward pass for a picture has alive beyond what stands."""
    params = replace(setup.params, depth=2, depth_single_blocks=2)
    with counting() as counter, torch.no_grad():
        run = Built(replace(setup, params=params, batch=1), counter)
        before = counter.live
        counter.tally.peak_bytes = before
        inputs = _inputs(run)
        run.network.eval()
        FLUX1.velocity(run.network, inputs.latents, inputs.sigmas, inputs.text, 1.0, False, inputs.modulation)
        return counter.tally.peak_bytes - before


def packing(precision: Any, rows: int, columns: int) -> int:
    """Most that packing one matrix has alive, itself and its codes with it."""
    with (
        counting() as counter,
        mock.patch("bitsandbytes.functional.create_dynamic_map", lambda *_, **__: torch.empty(256)),
    ):
        before = counter.live
        pack(torch.empty(rows, columns), None, precision, torch.bfloat16)
        return counter.tally.peak_bytes - before


def t5_layer(tokens: int, dtype: torch.dtype) -> int:
    """Most that one caption has alive in one of T5's layers beyond the layer's weights."""
    sizes = T5Sizes()
    with fake(dtype), torch.no_grad(), Counter() as counter:
        with torch.device("meta"):
            layer = T5Layer(sizes, 0)
        layer.load_state_dict({name: torch.empty(t.shape) for name, t in layer.state_dict().items()}, assign=True)
        before = counter.live
        positions = layer.position_bias(tokens, sizes)
        counter.tally.peak_bytes = counter.live
        layer(torch.empty(1, tokens, sizes.d_model), attention_bias(positions, None))
        return counter.tally.peak_bytes - before


def autoencoder(width: int, height: int, batch: int = 1) -> tuple[int, int, int]:
    """Weights of the autoencoder in float32, and most alive beyond them to encode a batch and to decode it."""
    sizes = AutoencoderSizes()
    with fake(torch.float32), torch.no_grad(), Counter() as counter:
        with torch.device("meta"):
            net = AutoencoderNet(sizes)
        net.load_state_dict({name: torch.empty(t.shape) for name, t in net.state_dict().items()}, assign=True)
        weights, peaks = counter.live, []
        for part, shape in (
            (net.encoder, (batch, sizes.in_channels, height, width)),
            (net.decoder, (batch, sizes.z_channels, height // 8, width // 8)),
        ):
            given = torch.empty(shape)
            before = counter.live
            counter.tally.peak_bytes = before
            part(given)
            peaks.append(counter.tally.peak_bytes - before)
        return weights, peaks[0], peaks[1]
