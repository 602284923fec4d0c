"""What each stage of a run holds on the card and in host memory, by part. Pure arithmetic.

Counted by the engine's own formats and followed by a trace of the real step; what no count can tell is an assumption
and stands in :data:`CONTEXT`, :data:`LOST` and :data:`PROCESS` until a card has been measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from engine.memory.plan import Plan, block_bytes, make_plan
from profiles.activations import Activations, Shape, sampling, training
from profiles.adapters import trained
from profiles.products import Product, kind_of, wide_bytes
from profiles.schema import Bucket, Job, Machine, Settings
from profiles.sizes import CLIP_VALUES, T5, T5_LAYER, T5_TABLE, T5_VALUES, FluxSize, size_of

MIB, GIB = 2**20, 2**30

CONTEXT = int(0.6e9)
"""CUDA's context, the libraries' handles and kernels: 0.4 to 0.7 GB on published cards. An assumption."""

LOST = 0.03
"""Share of what is allocated that the allocator cannot hand out: rounding, gaps between buckets. An assumption."""

CONVOLUTIONS = 0.10
"""Workspace of the autoencoder's convolutions, as a share of what they read and write. An assumption."""

PROCESS = {"card": int(2.6e9), "processor": int(0.6e9)}
"""Python, torch and the interface: 0.5 GB measured on a processor; with CUDA's libraries an assumption."""

AUTOENCODER = 4 * 83_819_683
"""The autoencoder in float32, both halves."""

ENCODE_PIXEL, DECODE_PIXEL = 2560, 3072
"""Bytes a pixel that the autoencoder has alive at its fullest, in float32; a test traces both."""

BATCH_PIXELS, MOST_IN_BATCH = 2**20, 16
"""Pictures that are encoded together (:mod:`engine.cache.latents`)."""

DECODER_CHILD, DECODER_PIXEL, AHEAD = 64 * MIB, 12, 256 * MIB
"""A decoding process, what it holds of each of a picture's pixels, and decoded pictures that wait
(:mod:`engine.dataset.decoder_pool`)."""

T5_NEAR = 128 * MIB
"""States that stay on the card between two of T5's layers (:mod:`engine.models.t5_layers`)."""

HOST_MARGIN = 2 * GIB
"""Host memory that the engine leaves to the system (:mod:`engine.memory.pinned`)."""

TABLE = 256
"""Samples whose modulation is computed in one pass (:mod:`engine.memory.conditioning`)."""

Parts = dict[str, int]


class Held:
    """The run's memory on a machine; everything that stages share, computed once.

    Attributes:
        size: the transformer's.
        wide: bytes of a value that the base computes in.
        plan: which blocks stream.
        product: how the blocks' linears multiply.
        trained: adapter and optimizer.
    """

    def __init__(self, job: Job, settings: Settings, machine: Machine) -> None:
        self.job, self.settings, self.machine = job, settings, machine
        self.card = machine.card
        self.size = size_of(job.model.params)
        self.wide = wide_bytes(settings.precision, self.card)
        self.plan = plan_of(self.size, settings.precision, self.wide, settings.blocks_to_swap)
        self.product = Product(kind_of(settings.precision, settings.compute, self.card), self.wide)
        self.trained = trained(self.size, settings.rank, settings.targets, settings.optimizer, self.wide)

    @property
    def weights(self) -> int:
        """Blocks that stay, and what is before and after them."""
        return resident_bytes(self.size, self.settings.precision, self.wide, self.plan) + self.wide * self.size.outer

    @property
    def ring(self) -> int:
        """Buffers that the other blocks pass through."""
        return self.plan.slots * self.plan.slot_bytes

    def table_of(self, samples: int) -> int:
        """Modulation of so many samples in host memory, in one table or as much as fits it."""
        return min(TABLE, samples) * (self.size.vectors + 1) * self.size.hidden_size * self.wide

    @property
    def autoencoder(self) -> int:
        """The autoencoder in float32: FLUX's, or a small one as large as its file."""
        stored = self.job.model.autoencoder_bytes
        return AUTOENCODER if stored > AUTOENCODER // 4 else stored

    @property
    def t5_share(self) -> float:
        """How large the text encoder is beside T5-XXL."""
        return min(1.0, self.job.model.t5_bytes / T5_VALUES)

    @property
    def layers_on_host(self) -> int:
        """The modulation layers where the host keeps them; where it has no room they are read from their file.

        Without a card they are where everything is.
        """
        needed = self.size.modulation * self.wide
        if self.card is None:
            return needed
        if not self.settings.modulation_cache:
            return 0
        free = self.machine.free_ram_gb * GIB - HOST_MARGIN - self.plan.host_bytes
        return needed if needed <= free else self.size.largest_modulation * self.wide

    def modulation(self, samples: int) -> int:
        """Of a step's samples, on the card, and the layers that give it where they stay there."""
        rows = samples * (self.size.vectors + 1) * self.size.hidden_size * self.wide
        held = self.card is not None and not self.settings.modulation_cache
        return rows + (self.size.modulation * self.wide if held else 0)

    def step(self, bucket: Bucket) -> Activations:
        """A step's own tensors on a full micro-batch of this bucket."""
        batch = min(self.settings.batch, bucket.count)
        shape = shape_of(bucket, self.job.model.text_tokens, batch, self.wide)
        keep, products = self.settings.checkpointing, {self.product}
        if self.product.kind in ("int8", "fp8"):
            # The first batch is computed with widened weights, to judge the 8-bit products by.
            products.add(Product("unpacked", self.wide))
        modulated = self.settings.targets == "all"
        found = [training(self.size, shape, self.settings.rank, keep, product, modulated) for product in products]
        return max(found, key=lambda each: each.total)

    @property
    def largest(self) -> Bucket:
        """The bucket whose micro-batches take most."""

        def tokens(bucket: Bucket) -> int:
            batch = min(self.settings.batch, bucket.count)
            return shape_of(bucket, self.job.model.text_tokens, batch, self.wide).tokens

        return max(self.job.buckets, key=tokens)


@lru_cache(maxsize=4096)
def plan_of(size: FluxSize, precision: str, wide: int, swap: int) -> Plan:
    """Which blocks stream."""
    return make_plan(block_bytes(size, precision, wide), swap)


@lru_cache(maxsize=4096)
def resident_bytes(size: FluxSize, precision: str, wide: int, plan: Plan) -> int:
    """Blocks that stay on the card, which need no alignment."""
    sizes, streamed = block_bytes(size, precision, wide, aligned=1), set(plan.streamed)
    return sum(each for block, each in enumerate(sizes) if block not in streamed)


def shape_of(bucket: Bucket, text: int, batch: int, wide: int) -> Shape:
    """A micro-batch of a bucket; a token is 16 pixels wide."""
    return Shape((bucket.width // 16) * (bucket.height // 16), text, batch, wide)


def train(held: Held) -> tuple[Parts, Parts]:
    """Card and host while steps run."""
    settings, bucket = held.settings, held.largest
    step = held.step(bucket)
    standing = _standing(held) | {"modulation": held.modulation(min(settings.batch, bucket.count))}
    activations = {"activations": step.kept + step.inputs, "working": step.working, "libraries": step.libraries}
    between = max(held.trained.update, filling(held))
    vram = standing | (activations if between <= step.total else {"working": between})
    ram = _host(held) | {"state copy": held.trained.state, "LoRA file": _lora_writing(held)}
    if settings.checkpointing == "offload":
        shape = shape_of(bucket, held.job.model.text_tokens, min(settings.batch, bucket.count), held.wide)
        each = shape.tokens * held.size.hidden_size * held.wide
        ram["offloaded inputs"] = held.size.blocks * (-(-each // MIB) * MIB)
    if held.job.draws.times:
        ram["autoencoder"] = held.autoencoder
    return placed(held, vram, ram)


def filling(held: Held) -> int:
    """On the card while a table of modulation is computed: two layers on their way and what they give."""
    if not held.settings.modulation_cache or held.card is None:
        return 0
    results = TABLE * held.size.hidden_size * held.wide
    return 2 * held.size.largest_modulation * held.wide + (2 * 6 + 6) * results


def _standing(held: Held) -> Parts:
    """What a run has on the card between steps."""
    return {
        "weights": held.weights,
        "ring": held.ring,
        "adapter": held.trained.adapter,
        "optimizer": held.trained.optimizer,
    }


def _host(held: Held) -> Parts:
    """What a loaded run has in host memory, where there is a card."""
    parts = {
        "streamed blocks": held.plan.host_bytes,
        "modulation layers": held.layers_on_host,
        "optimizer": held.trained.paged,
    }
    if held.settings.modulation_cache:
        turns = sum(bucket.count for bucket in held.job.buckets) * max(1, held.job.epochs)
        parts["modulation table"] = held.table_of(turns)
    return parts


def _lora_writing(held: Held) -> int:
    """The adapter in the file's dtype, and the file's bytes before they are written."""
    return 2 * held.job.lora_itemsize * held.trained.values


def load(held: Held) -> tuple[Parts, Parts]:
    """Card and host while the base is loaded and packed."""
    size = held.size
    largest = size.hidden_size * (3 * size.hidden_size + size.mlp_hidden)
    vram = {
        "weights": held.weights,
        "adapter": 8 * held.trained.values,
        "modulation": held.modulation(0),
        "working": packing(held.settings.precision, largest, held.wide),
    }
    ram = {
        "streamed blocks": held.plan.host_bytes,
        "modulation layers": held.layers_on_host,
        "reading": 2 * largest * 2,
    }
    return placed(held, vram, ram)


def packing(precision: str, values: int, wide: int) -> int:
    """On the card while a matrix is packed: wide as it comes from the file, its codes, and a piece on the way."""
    if precision not in ("int8", "fp8", "nf4"):
        return values * wide
    return values * 2 + int(values * (0.5 if precision == "nf4" else 1)) + (9 if precision == "fp8" else 1) * 2**24


def sample(held: Held) -> tuple[Parts, Parts]:
    """Card and host while pictures are drawn: the transformer's forward pass, then the decoder beside it all."""
    draws = held.job.draws
    shape = shape_of(Bucket(draws.width, draws.height, 1), held.job.model.text_tokens, 1, held.wide)
    forward = sampling(held.size, shape, held.settings.rank, held.settings.checkpointing, held.product)
    decoding = draws.width * draws.height * DECODE_PIXEL
    workspace = int(decoding * CONVOLUTIONS)
    decoder = held.autoencoder + decoding
    vram = _standing(held) | {"modulation": held.modulation(1)}
    vram |= {"autoencoder": held.autoencoder, "working": decoding, "libraries": workspace}
    if forward > decoder + workspace:
        vram |= {"autoencoder": 0, "working": forward, "libraries": 0}
    ram = _host(held) | {
        "autoencoder": held.autoencoder,
        "sampling table": held.table_of(draws.steps * (2 if draws.cfg else 1)),
        "state copy": held.trained.state,
    }
    return placed(held, vram, ram)


def encode_latents(held: Held) -> tuple[Parts, Parts]:
    """Card and host while pictures become latents."""
    pixels = max(bucket.width * bucket.height * latent_batch(bucket) for bucket in held.job.buckets)
    working = pixels * ENCODE_PIXEL
    vram = {"autoencoder": held.autoencoder, "working": working, "libraries": int(working * CONVOLUTIONS)}
    children = max(1, min(held.machine.cores, 16))
    each = DECODER_CHILD + int(held.job.picture_megapixels * 1e6) * DECODER_PIXEL
    ram = {"decoders": children * each, "pictures": AHEAD + pixels * 12}
    return placed(held, vram, ram)


def latent_batch(bucket: Bucket) -> int:
    """Pictures of a bucket that are encoded together."""
    return max(1, min(MOST_IN_BATCH, BATCH_PIXELS // (bucket.width * bucket.height)))


def encode_captions(held: Held) -> tuple[Parts, Parts]:
    """Card and host while captions are encoded: two of T5's layers at a time, CLIP beside them."""
    wide, tokens = (2 if held.card is not None else 4), held.job.model.text_tokens
    states, share = tokens * held.size.context_in_dim * wide, held.t5_share
    waiting = held.job.captions * states
    near = min(waiting, T5_NEAR // states * states) if held.card is not None else 0
    vram = {
        "CLIP": min(CLIP_VALUES * wide, held.job.model.clip_bytes * wide // 2),
        "T5": int(share * max(2 * T5_LAYER, T5_TABLE)) * wide,
        "working": int(share * t5_working(tokens, wide)) + near,
    }
    limit = max(states, int(held.machine.free_ram_gb * GIB) // 4)
    ram = {"waiting captions": min(waiting, limit), "reading": int(share * 2 * T5.d_model * T5.d_ff)}
    return placed(held, vram, ram)


def t5_working(tokens: int, wide: int) -> int:
    """What one caption has alive in one of T5's layers at its fullest: the gated feed-forward part."""
    bias = T5.num_heads * tokens * tokens * wide
    return 2 * bias + (4 * T5.d_ff + 3 * T5.d_model) * tokens * wide


def placed(held: Held, vram: Parts, ram: Parts) -> tuple[Parts, Parts]:
    """Both kinds of memory with what every stage has; without a card all of it is the host's."""
    if held.card is None:
        return {}, _nonzero({"process": PROCESS["processor"]} | _added(vram, ram))
    allocated = sum(vram.values())
    vram = vram | {"lost": int(allocated * LOST), "context": CONTEXT}
    return _nonzero(vram), _nonzero({"process": PROCESS["card"]} | ram)


def _added(*several: Mapping[str, int]) -> Parts:
    total: Parts = {}
    for parts in several:
        for name, size in parts.items():
            total[name] = total.get(name, 0) + size
    return total


def _nonzero(parts: Parts) -> Parts:
    return {name: size for name, size in parts.items() if size}
