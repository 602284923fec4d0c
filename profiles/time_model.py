"""How long the stages of a run take: products, bytes, launches and copies at the rates of a card.

    a step = products / rates + bytes outside products / bandwidth, or the host's launches, whichever is longer;
             streamed weights and offloaded inputs arrive meanwhile, and what does not arrive in time is waited for

What is counted (FLOPs, bytes, launches) is the engine's; the rates' shares are :mod:`profiles.efficiency`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from engine.memory.plan import Plan
from engine.memory.simulate import way
from engine.models.flux_work import FluxWork
from profiles import efficiency
from profiles.memory_model import Held, latent_batch
from profiles.schema import Bucket, Draws
from profiles.sizes import T5_VALUES, FluxSize

ENCODE_FLOP, DECODE_FLOP = 4.13e6, 9.46e6
"""FLOP a pixel of the autoencoder's convolutions, counted."""

REST = {"full": (76.5, 55.8), "none": (69.5, 51.8)}
"""Bytes outside products in block inputs, of a double and of a single block, by what is kept: fused kernels, counted
(``python -m tests.bench.trace``)."""

EAGER_REST = {"full": (217.0, 194.4), "none": (206.0, 186.4)}
"""The same where no fused kernels run."""

FORWARD_REST = (24.1, 19.1)
"""The forward pass's share of the first."""

LAUNCHES = {"full": (116, 37), "none": (101, 34)}
"""Of a double and of a single block, with fused kernels."""

FORWARD = {"none": 0.43, "attention": 0.36, "full": 0.33, "offload": 0.33}
"""The forward pass's share of a step, counted."""

GRID = 1.05
"""Ratio of neighbouring points at which the way of a stream is computed; in between it is interpolated."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one micro-batch, by what they are spent on.

    Attributes:
        computing: products and attention.
        memory: bytes outside products.
        host: launches.
        stall: waiting for what comes over the link.
        link: what crosses it to the card, were there nothing else.
    """

    computing: float
    memory: float
    host: float
    stall: float
    link: float

    @property
    def seconds(self) -> float:
        """The step."""
        return max(self.computing + self.memory + self.stall, self.host)

    @property
    def slowest(self) -> str:
        """What bounds it."""
        if self.host > self.computing + self.memory + self.stall:
            return "host"
        if self.stall > 0.1 * (self.computing + self.memory):
            return "PCIe"
        return "computing" if self.computing >= self.memory else "memory"


def step(held: Held, bucket: Bucket) -> StepTime:
    """One micro-batch of this bucket, forward and backward."""
    size, settings, card = held.size, held.settings, held.card
    batch = min(settings.batch, bucket.count)
    image = (bucket.width // 16) * (bucket.height // 16)
    text = held.job.model.text_tokens
    linear, attention = work_of(size).step(image, text, batch, settings.checkpointing)
    tokens = (image + text) * batch
    linear += _adapters(held, image, text, batch)
    computing = _products(held, linear, attention)
    again = "none" if settings.checkpointing == "none" else "full"
    counted = REST if fused(held) else EAGER_REST
    moved = rest_bytes(size, tokens, held.wide, counted[again])
    moved += unpacked_bytes(held, passes=3 if settings.checkpointing != "none" else 2)
    memory = moved / (efficiency.BANDWIDTH * _bandwidth(held) * 1e9)
    doubles, singles = LAUNCHES[again]
    launches = doubles * size.depth + singles * size.depth_single_blocks + efficiency.UPDATE_LAUNCHES
    host = launches * efficiency.LAUNCH_S if card is not None else 0.0
    busy = max(computing + memory, host)
    offloaded, _ = offloaded_bytes(held, tokens)
    link = _link(held)
    forward = busy * FORWARD[settings.checkpointing]
    stall = streaming_stall(held.plan, forward, busy - forward, link, offloaded)
    return StepTime(computing, memory, host, stall, (held.plan.step_bytes() + offloaded) / link)


def offloaded_bytes(held: Held, tokens: int) -> tuple[int, int]:
    """Block inputs that come back to the card in a step, all but the last two, and that leave it."""
    if held.settings.checkpointing != "offload":
        return 0, 0
    each = tokens * held.size.hidden_size * held.wide
    return max(0, held.size.blocks - 2) * each, held.size.blocks * each


def work_of(size: FluxSize) -> FluxWork:
    """The FLOPs of a transformer of this size."""
    outer = size.in_channels + size.out_channels
    return FluxWork(size.hidden_size, size.depth, size.depth_single_blocks, outer, size.context_in_dim)


def _adapters(held: Held, image: int, text: int, batch: int) -> float:
    """FLOPs of the adapters: forward, again without the narrow product, and both gradients."""
    shares = {True: (image + text) / 2, False: float(image + text)}
    rank, total = held.settings.rank, 0.0
    doubles = 2 * held.size.depth
    for inputs, outputs, count in held.size.adapted("default"):
        total += shares[count == doubles] * count * (4 * (inputs + outputs) + 3 * outputs)
    return 2 * total * rank * batch


def _products(held: Held, linear: float, attention: float) -> float:
    """Seconds of products and attention."""
    cores = held.machine.cores
    rate = efficiency.linear_tflops(held.card, held.product.kind, held.wide, cores)
    return linear / (rate * 1e12) + attention / (efficiency.attention_tflops(held.card, held.wide, cores) * 1e12)


def rest_bytes(size: FluxSize, tokens: int, wide: int, inputs: tuple[float, float]) -> float:
    """Bytes outside products, from how many block inputs a block of each kind reads and writes."""
    double, single = inputs
    return (double * size.depth + single * size.depth_single_blocks) * tokens * size.hidden_size * wide


def fused(held: Held) -> bool:
    """Whether fused kernels run: on a card since Turing."""
    return held.card is not None and held.card.capability >= (7, 5)


def unpacked_bytes(held: Held, passes: int) -> float:
    """Bytes of codes read and wide weights written for products that unpack; 8-bit ones quantise activations."""
    kind = held.product.kind
    if kind not in ("unpacked", "nf4"):
        return 0.0
    values = sum(inputs * outputs * count for inputs, outputs, count in held.size.adapted("default"))
    return passes * values * (held.wide + (0.5 if kind == "nf4" else 1.0))


def _bandwidth(held: Held) -> float:
    """GB/s."""
    return held.card.rates.bandwidth if held.card is not None else 10.0 * max(1, min(held.machine.cores, 8))


def _link(held: Held) -> float:
    """Bytes a second from host to card."""
    return held.card.link_gb_s * 1e9 if held.card is not None else 10e9


def streaming_stall(plan: Plan, forward_s: float, backward_s: float, link: float, offloaded: int = 0) -> float:
    """Seconds a step waits for streamed blocks and offloaded inputs.

    All blocks take equally long. Within a way (forward, or backward, between the first and the last streamed block)
    the least time is :func:`engine.memory.simulate.way`'s; inputs come back on the same link in the backward.
    """
    slower = max(0.0, offloaded / link - backward_s) if offloaded else 0.0
    if len(plan.streamed) <= plan.slots:
        return slower
    blocks = plan.blocks
    there = _way_s(plan, False, forward_s / blocks, link)
    # Inputs take their part of the link from the weights, evenly.
    sized = plan.step_bytes() or 1
    back = _way_s(plan, True, backward_s / blocks, link / (1 + 2 * offloaded / sized))
    inner = plan.streamed[-1] - plan.streamed[0] - 1
    return max(slower, there - inner * forward_s / blocks) + max(0.0, back - inner * backward_s / blocks)


def _way_s(plan: Plan, backward: bool, block_s: float, link: float) -> float:
    """Least seconds of a way whose blocks take ``block_s`` each."""
    ratio = 1 / (block_s * link)
    place = math.log(ratio, GRID)
    below = math.floor(place)
    low, high = GRID**below, GRID ** (below + 1)
    first, second = _way_at(plan, backward, below), _way_at(plan, backward, below + 1)
    return block_s * (first + (second - first) * (ratio - low) / (high - low))


@lru_cache(maxsize=20_000)
def _way_at(plan: Plan, backward: bool, place: int) -> float:
    """A way in units of a block's time, at a point of the grid of seconds a byte."""
    units = [1.0] * plan.blocks
    link = GRID**-place
    if not backward:
        return way(plan.streamed, plan.sizes, plan.slots, units, link)
    mirrored = [plan.blocks - 1 - block for block in reversed(plan.streamed)]
    return way(mirrored, plan.sizes[::-1], plan.slots, units, link)


def mean_step(held: Held) -> StepTime:
    """A micro-batch of the mean bucket, each bucket weighing as many as its micro-batches are."""
    batch = held.settings.batch
    total = [0.0] * 5
    count = 0
    for bucket in held.job.buckets:
        whole, rest = divmod(bucket.count, batch)
        for micros, size in ((whole, batch), (1 if rest else 0, rest)):
            if not micros:
                continue
            found = step(held, Bucket(bucket.width, bucket.height, size))
            parts = (found.computing, found.memory, found.host, found.stall, found.link)
            total = [sum_ + micros * part for sum_, part in zip(total, parts, strict=True)]
            count += micros
    return StepTime(*(part / count for part in total))


def update_s(held: Held) -> float:
    """Clipping, update and cast of the adapters, which read and write all of them a few times."""
    moved = held.trained.values * 24 + 2 * held.trained.optimizer
    return moved / (efficiency.BANDWIDTH * _bandwidth(held) * 1e9)


def table_s(held: Held) -> float:
    """Of each sample's share in a pass over the modulation layers; they wait in memory that is not pinned."""
    if not held.settings.modulation_cache or held.card is None:
        return 0.0
    layers = held.size.modulation * held.wide
    whole = held.layers_on_host >= layers
    rate = efficiency.PAGEABLE * _link(held) if whole else efficiency.DISK_READ
    return layers / rate / 256


def load_s(held: Held) -> float:
    """From the file to the card, packed on the way or read packed; torch's start with it."""
    settings, model = held.settings, held.job.model
    packed = settings.precision in ("int8", "fp8", "nf4")
    kept = packed and settings.precision in held.job.base_is_packed
    outer = (held.size.outer + held.size.modulation) * 2
    read = sum(held.plan.sizes) + outer if kept else model.transformer_bytes
    written = sum(held.plan.sizes) if packed and not kept else 0
    return efficiency.START_S + read / efficiency.DISK_READ + written / efficiency.DISK_WRITE


def encode_latents_s(held: Held) -> float:
    """Decoding on the processor beside encoding on the card, the slower of the two."""
    job = held.job
    if not job.views:
        return 0.0
    cores = max(1, min(held.machine.cores, 16))
    each = efficiency.PICTURE_S + efficiency.DECODE_S_PER_MEGAPIXEL * job.picture_megapixels
    decoding = job.views * each / cores
    turns = sum(bucket.count for bucket in job.buckets) or 1
    pixels = sum(bucket.width * bucket.height * bucket.count for bucket in job.buckets) / turns * job.views
    # A batch that is not full is filled up with grey.
    pixels = max(pixels, max(b.width * b.height * latent_batch(b) for b in job.buckets))
    return held.autoencoder / efficiency.DISK_READ + max(decoding, _convolutions_s(held, pixels * ENCODE_FLOP))


def _convolutions_s(held: Held, flop: float) -> float:
    if held.card is None:
        return flop / (efficiency.PROCESSOR * efficiency.processor_tflops(held.machine.cores) * 1e12)
    return flop / (efficiency.WIDE * efficiency.float32_tflops(held.card.rates) * 1e12)


def encode_captions_s(held: Held) -> float:
    """Passes over T5's file, and its products for every caption."""
    job, card = held.job, held.card
    if not job.captions:
        return 0.0
    wide = 2 if card is not None else 4
    each = job.model.text_tokens * held.size.context_in_dim * wide
    at_once = max(1, int(held.machine.free_ram_gb * 2**30) // 4 // each)
    passes = -(-job.captions // (at_once if card is not None else min(32, at_once)))
    flop = 2.0 * T5_VALUES * held.t5_share * job.model.text_tokens * job.captions
    rate = efficiency.attention_tflops(card, 2 if card is not None else 4, held.machine.cores)
    return 1.0 + passes * job.model.t5_bytes / efficiency.DISK_READ + flop / (rate * 1e12)


def sampling_s(held: Held, draws: Draws) -> float:
    """All pictures of the run: steps of the forward pass alone, then the decoder."""
    pictures = draws.count * draws.times
    if not pictures:
        return 0.0
    image = (draws.width // 16) * (draws.height // 16)
    text = held.job.model.text_tokens
    linear, attention = work_of(held.size).forward(image, text)
    computing = _products(held, linear, attention)
    moved = rest_bytes(held.size, image + text, held.wide, FORWARD_REST)
    moved += unpacked_bytes(held, passes=1)
    seconds = computing + moved / (efficiency.BANDWIDTH * _bandwidth(held) * 1e9)
    seconds = max(seconds, held.plan.step_bytes(backward=False) / _link(held))
    decode = _convolutions_s(held, draws.width * draws.height * DECODE_FLOP)
    return pictures * (
        draws.steps * (2 if draws.cfg else 1) * seconds + decode + 2 * held.autoencoder / _link(held) + 0.3
    )


def saving_s(held: Held, steps_s: float) -> float:
    """What the training waits for: a copy of the state at each save and every five minutes."""
    saves = held.job.saves + steps_s / 300
    return saves * held.trained.state / _link(held)
