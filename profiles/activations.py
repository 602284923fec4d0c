"""What a step's own tensors take on the card: kept from forward to backward, and at work in the fullest moment.

Follows the blocks' code (:mod:`engine.blocks.single`, ``double``) tensor by tensor, as the fused kernels run it on a
card. A block's backward has a handful of moments at which much is alive; the fullest decides. A test traces the real
step and holds these sums against it.

In the names of the sums: ``a`` one block input of all tokens, ``m`` the MLP of all tokens; ``i`` and ``t`` as an
index the image's and the text's share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from profiles.products import Product
from profiles.sizes import FluxSize

AHEAD = 2
"""Block inputs that come back while one is worked on, or never left (:mod:`engine.memory.offload`)."""


@dataclass(frozen=True)
class Shape:
    """One micro-batch: ``image`` and ``text`` tokens of a sample, ``batch`` samples, values of ``wide`` bytes."""

    image: int
    text: int
    batch: int
    wide: int = 2

    @property
    def tokens(self) -> int:
        """Of all samples."""
        return (self.image + self.text) * self.batch


@dataclass(frozen=True)
class Activations:
    """Bytes of a step.

    Attributes:
        kept: what all blocks' forward passes leave for the backward.
        working: most that the backward needs on top of ``kept``, less what is let go of until then.
        inputs: pictures, text states, rotary angles, velocity and loss.
        libraries: what attention's backward takes inside, beyond ``working``: no tensor of ours.
    """

    kept: int
    working: int
    inputs: int
    libraries: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.kept + self.working + self.inputs + self.libraries


@lru_cache(maxsize=4096)
def training(
    size: FluxSize, shape: Shape, rank: int, keep: str, product: Product, modulation: bool = False
) -> Activations:
    """A training step.

    Args:
        size: the transformer's.
        shape: the micro-batch.
        rank: the adapter's.
        keep: as ``training.gradient_checkpointing`` has it.
        product: how products with the base are computed.
        modulation: adapters sit on modulation layers too, so shift, scale and gate want gradients.
    """
    ledger = _Ledger(size, shape, rank, keep, product)
    doubles, singles = size.depth * ledger.kept_double, size.depth_single_blocks * ledger.kept_single
    a = ledger.a
    here = (1 + AHEAD) * a if keep == "offload" else 0
    # A double block's turn comes when every single block has let go of what it kept.
    moments = [moment + here for moment in ledger.single()] if size.depth_single_blocks else []
    moments += [moment + here - singles for moment in ledger.double()] if size.depth else []
    # The last block's output stands until the last layer's backward is over; nothing else is large then.
    moments.append(3 * a)
    if modulation:
        moments += [ledger.single_gate() + here, ledger.double_gate() + here - singles]
    ours = max(moments)
    within = max(
        (ledger.single_attention() + here) if size.depth_single_blocks else 0,
        (ledger.double_attention() + here - singles) if size.depth else 0,
    )
    return Activations(doubles + singles, ours, ledger.inputs, max(0, within - ours))


@lru_cache(maxsize=1024)
def sampling(size: FluxSize, shape: Shape, rank: int, keep: str, product: Product) -> int:
    """A forward pass alone, nothing kept: what is alive in its fullest moment."""
    ledger = _Ledger(size, shape, rank, keep, product)
    a, wide, inner, n = ledger.a, 3 * ledger.a + ledger.m, ledger.a + ledger.m, shape.tokens
    width, mlp = size.hidden_size, size.mlp_hidden
    # Linears after a GELU are multiplied wide until a first batch says otherwise.
    last = replace(product, kind="unpacked") if product.kind in ("int8", "fp8") else product
    at_the_end = 4 * a + wide if keep == "none" else a
    moments = [
        2 * a + wide + product.forward(n, width, 3 * width + mlp),
        a + wide + 3 * a + inner,
        at_the_end + inner + 2 * a + last.forward(n, width + mlp, width),
        3 * a + 3 * ledger.a_i + 2 * ledger.m_i + last.forward(ledger.image, mlp, width),
    ]
    return max(moments) + ledger.inputs


class _Ledger:
    """The sums for one micro-batch."""

    def __init__(self, size: FluxSize, shape: Shape, rank: int, keep: str, product: Product) -> None:
        self.size, self.shape, self.keep, self.product = size, shape, keep, product
        row, mlp = size.hidden_size * shape.wide, size.mlp_hidden * shape.wide
        self.image, self.text = shape.image * shape.batch, shape.text * shape.batch
        self.a, self.m = shape.tokens * row, shape.tokens * mlp
        self.a_i, self.a_t = self.image * row, self.text * row
        self.m_i, self.m_t = self.image * mlp, self.text * mlp
        self.narrow = shape.tokens * rank * shape.wide
        self.grads = rank * row
        """Of an adapter's matrix on a side as wide as the block; an MLP's side has four times that."""
        self.sums = shape.tokens * size.num_heads * 4
        """Attention's log-sum-exps."""

    @property
    def kept_single(self) -> int:
        """What a single block leaves: its input, the adapters' narrow products, and what it is told to keep."""
        base = 2 * self.narrow + (0 if self.keep == "offload" else self.a)
        if self.keep == "attention":
            return base + self.a + self.sums
        return base + (4 * self.a + 2 * self.m + self.sums if self.keep == "none" else 0)

    @property
    def kept_double(self) -> int:
        """What a double block leaves."""
        base = 4 * self.narrow + (0 if self.keep == "offload" else self.a)
        if self.keep == "attention":
            return base + self.a + self.sums
        return base + (5 * self.a + 2 * self.m + self.sums if self.keep == "none" else 0)

    @property
    def inputs(self) -> int:
        """What stands besides: rotary angles, latents and noise, text states, the velocity and its loss."""
        size, shape = self.size, self.shape
        angles = shape.tokens * size.head * 4
        latents = self.image * size.out_channels * 4
        states = self.text * size.context_in_dim * shape.wide
        return angles + 6 * latents + states

    def single(self) -> list[int]:
        """Moments of a single block's backward."""
        size, n, a, m, product = self.size, self.shape.tokens, self.a, self.m, self.product
        width, mlp = size.hidden_size, size.mlp_hidden
        wide, inner = 3 * a + m, a + m
        kept = self.keep == "none"
        attended = 0 if self.keep in ("none", "attention") else a + self.sums
        # Gradient of the output, normed input, queries, keys; the fused linear's output or its gradient.
        base = 4 * a + wide + attended + 2 * self.narrow
        return [
            0 if kept else 2 * a + wide + product.forward(n, width, 3 * width + mlp),
            base + a + inner + product.backward(n, width + mlp, width),
            base + a + inner + (0 if kept else m) + 11 * self.grads,
            base + inner + 3 * a + 6 * self.grads,
            2 * a + wide + a + product.backward(n, width, 3 * width + mlp) + 14 * self.grads,
        ]

    def single_gate(self) -> int:
        """The moment at which a gate's gradient is formed, in float32, from the block's last product."""
        attended = 0 if self.keep in ("none", "attention") else self.a + self.sums
        kept = 4 * self.a + 2 * self.m if self.keep == "none" else 0
        wide = 4 * self.a + self.shape.tokens * self.size.hidden_size * 12
        return wide + attended + 4 * self.a + 2 * self.m + self.a - kept

    def double_gate(self) -> int:
        """The same in a double block, for the image."""
        rows = self.a_i + self.image * self.size.hidden_size * 12
        again = 0 if self.keep == "none" else self.a_i + 2 * self.m_i
        again += self.a_i if self.shape.batch > 1 else 0
        return self._double_base + self.a + 2 * self.a_i + again + rows

    def single_attention(self) -> int:
        """The moment inside attention's backward."""
        attended = 0 if self.keep in ("none", "attention") else self.a + self.sums
        return 4 * self.a + 3 * self.a + self.m + attended + self.a + self.m + 3 * self.a + self._inside

    @property
    def _inside(self) -> int:
        # A contiguous copy of the gradient, the queries' gradient in float32 and a sum for each row.
        return self.a + self.a * 4 // self.shape.wide + self.sums

    def double(self) -> list[int]:
        """Moments of a double block's backward; streams come one after the other, the image first."""
        size, product = self.size, self.product
        width, mlp = size.hidden_size, size.mlp_hidden
        a, a_i, a_t, m_i, m_t = self.a, self.a_i, self.a_t, self.m_i, self.m_t
        ends = []
        text_too = a_i + 12 * self.grads
        for tokens, a_s, m_s, before in ((self.image, a_i, m_i, 0), (self.text, a_t, m_t, text_too)):
            # Of several samples a stream's share of attention's output is no view: its rows are copied.
            base = self._double_base + (a_s if self.shape.batch > 1 else 0)
            if self.keep == "none":
                ends += [base + before + 2 * a_s + 2 * m_s + product.backward(tokens, mlp, width)]
                continue
            at = base + before + 2 * a_s
            ends += [
                at + m_s + product.forward(tokens, width, mlp),
                at + a_s + 2 * m_s + product.backward(tokens, mlp, width),
                at + a_s + 3 * m_s + 5 * self.grads,
                at + m_s + a_s + product.backward(tokens, width, mlp),
            ]
        qkv = 3 * a
        return [
            *ends,
            self._double_base + a + 3 * a,
            4 * a + qkv + 3 * a + a_i + product.backward(self.image, width, 3 * width),
        ]

    @property
    def _double_base(self) -> int:
        """Gradient of the output, normed inputs, the heads, attention's output and its gradient; qkv."""
        base = 6 * self.a + 4 * self.narrow
        if self.keep == "none":
            return base
        return base + 3 * self.a + (0 if self.keep == "attention" else self.a + self.sums)

    def double_attention(self) -> int:
        """The moment inside attention's backward."""
        return self._double_base + self.a + 3 * self.a + self._inside
