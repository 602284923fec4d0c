"""A block inside autograd: its functions, the weights it borrows, and what is kept between its two passes.

Weights come from their source for each pass anew, so that a streamed block need not stay in between. Gradients go to
hidden states, to modulation where adapters sit there, and to adapters: those are added to the parameters' ``grad`` in
place, a few kernels a block, where autograd would launch two for every matrix.

Shape suffixes: B samples, L tokens, D width, V vectors of modulation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils import _pytree as pytree

from engine.blocks.double import DoubleLoras, StreamLoras
from engine.blocks.joined import Lora
from engine.blocks.setup import BlockFunctions, BlockGrads, BlockSetup
from engine.blocks.single import SingleLoras
from engine.lora.adapter import Adapter
from engine.memory.frozen import WeightSource


class Offload(Protocol):
    """Keeps block inputs elsewhere between the passes."""

    def put(self, x: Tensor) -> Any:
        """Take a block's input away; returns what :meth:`get` wants."""
        ...

    def get(self, handle: Any) -> Tensor:
        """Bring it back, the same bits."""
        ...


@dataclass(frozen=True)
class BlockPass:
    """What all blocks of one forward share.

    Attributes:
        source: the weights.
        functions: the blocks' arithmetic.
        setup: heads, kernels, what is kept.
        rotary: (2, B or 1, L, K/2), float32.
        bias: on the scores, (B, 1, 1, L), or None.
        offload: where inputs go between the passes; None keeps them.
    """

    source: WeightSource
    functions: BlockFunctions
    setup: BlockSetup
    rotary: Tensor
    bias: Tensor | None
    offload: Offload | None


@dataclass
class BlockRun:
    """One block in one forward.

    Attributes:
        index: the block's number, double ones first.
        double: its kind.
        loras: of the linears in their order (four of the image and four of the text, or two); None has none.
        adapters: whose parameters ``loras`` were cast from, in the same order.
    """

    shared: BlockPass
    index: int
    double: bool
    loras: tuple[Lora | None, ...]
    adapters: tuple[Adapter | None, ...]
    handle: Any = None

    def forward(self, x: Tensor, mod: Tensor) -> tuple[Tensor, Any]:
        """The block's output and what it keeps."""
        shared = self.shared
        run = shared.functions.double_forward if self.double else shared.functions.single_forward
        # Detached: one compiled function serves blocks whose input carries gradient and those whose does not.
        x, mod = x.detach(), mod.detach()
        with shared.source.use(self.index) as weights:
            return run(x, mod, weights, self._named(), shared.rotary, shared.bias, shared.setup)

    def backward(self, dout: Tensor, x: Tensor, mod: Tensor, saved: Any, wants: tuple[bool, bool]) -> BlockGrads:
        """Gradients; ``wants`` says whether those of x and of modulation are."""
        shared = self.shared
        run = shared.functions.double_backward if self.double else shared.functions.single_backward
        x, mod = x.detach(), mod.detach()
        with shared.source.use(self.index) as weights:
            return run(dout, x, mod, weights, self._named(), shared.rotary, shared.bias, shared.setup, saved, *wants)

    def _named(self) -> DoubleLoras | SingleLoras:
        if self.double:
            return DoubleLoras(StreamLoras(*self.loras[:4]), StreamLoras(*self.loras[4:]))
        return SingleLoras(*self.loras)

    def matrices(self) -> list[torch.nn.Parameter]:
        """The parameters that are to get a gradient: down and up of each adapter in use."""
        pairs = zip(self.loras, self.adapters, strict=True)
        return [matrix for lora, a in pairs if lora is not None and a is not None for matrix in (a.down, a.up)]


def run_block(x: Tensor, mod: Tensor, run: BlockRun) -> Tensor:
    """Advance ``x`` (B, L, D) with modulation (B, V, D); keeps nothing where nothing asks for a gradient."""
    matrices = run.matrices()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, mod, *matrices)):
        return _Block.apply(x, mod, run, *matrices)
    return run.forward(x, mod)[0]


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mod: Tensor, run: BlockRun, *matrices: Tensor) -> Tensor:
        out, saved = run.forward(x, mod)
        offload = run.shared.offload
        leaves, ctx.spec = pytree.tree_flatten(saved)
        if offload is not None:
            run.handle = offload.put(x)
        ctx.save_for_backward(x if offload is None else None, mod, *leaves)
        ctx.run = run
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        run: BlockRun = ctx.run
        x, mod, *leaves = ctx.saved_tensors
        if x is None:
            assert run.shared.offload is not None
            x = run.shared.offload.get(run.handle)
        wants = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        with torch.autocast(dout.device.type, enabled=False):
            grads = run.backward(dout.contiguous(), x, mod, pytree.tree_unflatten(leaves, ctx.spec), wants)
        add_grads(run.matrices(), [matrix for grad in grads.loras if grad is not None for matrix in grad])
        nothing = (None,) * (len(ctx.needs_input_grad) - 2)
        return grads.x, None if grads.mod is None else grads.mod.to(mod.dtype), *nothing


def add_grads(matrices: Sequence[torch.nn.Parameter], grads: Sequence[Tensor]) -> None:
    """Add gradients of any precision to those of float32 parameters, in place: views of flat storage stay views."""
    pairs = [(matrix, grad) for matrix, grad in zip(matrices, grads, strict=True) if matrix.requires_grad]
    if not pairs:
        return
    for matrix, _ in pairs:
        if matrix.grad is None:
            matrix.grad = torch.zeros_like(matrix)
    # Widened together: one kernel for all instead of one for each.
    flat = torch.cat([grad.reshape(-1) for _, grad in pairs]).float()
    parts = flat.split([grad.numel() for _, grad in pairs])
    sums = [matrix.grad for matrix, _ in pairs if matrix.grad is not None]
    torch._foreach_add_(sums, [part.view(held.shape) for part, held in zip(parts, sums, strict=True)])
