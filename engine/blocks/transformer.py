"""FLUX.1 over frozen weights from a source: the fast counterpart of :class:`engine.models.flux.FluxTransformer`.

Owns the way from packed latents to a velocity: embedders without gradient, one buffer of hidden states (text first)
through all blocks, the last layer. The blocks' arithmetic is in :mod:`engine.blocks.single` and ``double``, where
their weights live is the source's business, modulation comes ready-made or from ``conditioning``.

Shape suffixes: B samples, S image tokens, T text tokens, L = T + S, D width, K head width, V vectors of modulation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from engine.blocks.attention import Choice, bias_of, choose
from engine.blocks.double import VECTORS as DOUBLE_VECTORS
from engine.blocks.double import double_backward, double_forward
from engine.blocks.joined import Lora, lora_of, narrow, narrow_backward
from engine.blocks.pieces import EAGER, Pieces
from engine.blocks.plain import InputOutput, plain_blocks, plain_conditioning
from engine.blocks.setup import BlockFunctions, BlockSetup, Keep
from engine.blocks.shell import BlockPass, BlockRun, Offload, run_block
from engine.blocks.single import VECTORS as SINGLE_VECTORS
from engine.blocks.single import single_backward, single_forward
from engine.lora.adapter import Adapter
from engine.memory.frozen import Dense, Resident, WeightSource
from engine.models.flux import FluxParams, FluxTransformer, joint_mask, rotary_table
from engine.models.modulation import Modulation, modulation_places

Checkpointing = Literal["none", "attention", "full", "offload"]
"""What is formed again in the backward: nothing, all but attention, all, all with block inputs kept elsewhere."""

EAGER_FUNCTIONS = BlockFunctions(single_forward, single_backward, double_forward, double_backward)
"""The blocks' arithmetic as it is written, not compiled."""

Conditioning = Callable[[Tensor, Tensor, Tensor | None], Modulation]
"""Sigmas (B,), pooled text, guidance (B,) or None: the modulation of these samples."""


class Adapters(Protocol):
    """A set of adapters by the name of their module."""

    adapters: dict[str, Adapter]


STREAM_LINEARS = ("attn.qkv", "attn.proj", "mlp.0", "mlp.2")
"""One stream's linears in the order of :class:`engine.blocks.double.StreamLoras`, after ``img_`` or ``txt_``."""


class LeanFlux(nn.Module):
    """FLUX.1's transformer with hand-written backwards; same call as the plain one, plus ``modulation``.

    Attributes:
        params: sizes and variant.
        checkpointing: what blocks form again in their backward.
        functions: the blocks' arithmetic; a compiled one may stand in.
        pieces: the elementwise pieces.
        rows: of a part of a micro-batch where it begins in that, and how many samples that has: dropout is drawn for
            all of them.
    """

    rows: tuple[int, int] | None = None

    def __init__(
        self,
        params: FluxParams,
        io: nn.Module,
        source: WeightSource,
        adapters: Mapping[str, Adapter],
        conditioning: Conditioning,
        checkpointing: Checkpointing = "full",
        offload: Offload | None = None,
    ) -> None:
        """Put the parts together; ``io`` holds the layers around the blocks under their released names.

        Raises:
            ValueError: inputs are to be offloaded and there is nowhere to.
        """
        super().__init__()
        if checkpointing == "offload" and offload is None:
            raise ValueError("checkpointing 'offload' needs an offload to put block inputs into")
        self.params = params
        self.io = io
        self.source = source
        self.adapters = adapters
        self.conditioning = conditioning
        self.checkpointing: Checkpointing = checkpointing
        self.offload = offload
        self.functions = EAGER_FUNCTIONS
        self.pieces: Pieces = EAGER
        self._places = modulation_places(params.depth, params.depth_single_blocks)

    @classmethod
    def from_plain(cls, model: FluxTransformer, lora: Adapters | None = None, **options: Any) -> Self:
        """Over a plain transformer's own tensors, which are not copied; its adapters are left aside for ``lora``'s.

        Args:
            model: the plain transformer.
            lora: the adapters; None trains nothing.
            options: ``checkpointing`` and ``offload`` as in the constructor.
        """
        adapters = {} if lora is None else lora.adapters
        source = Resident(plain_blocks(model))
        return cls(model.params, InputOutput(model), source, adapters, plain_conditioning(model), **options)

    @property
    def guidance_in(self) -> nn.Module | None:
        """The embedder of guidance; None for models without (FLUX.1-schnell)."""
        return cast("nn.Module | None", self.io.guidance_in)

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in: the dtype of the layers around the blocks."""
        return self._img_in.weight.dtype

    @property
    def _img_in(self) -> nn.Linear:
        return cast(nn.Linear, self.io.img_in)

    def attention(self, masked: bool) -> Choice:
        """The attention kernel that this device and dtype get, and why none faster."""
        head = self.params.hidden_size // self.params.num_heads
        return choose(self._img_in.weight.device, self.dtype, head, masked)

    def forward(
        self,
        img: Tensor,
        img_ids: Tensor,
        txt: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        y: Tensor,
        guidance: Tensor | None = None,
        txt_mask: Tensor | None = None,
        modulation: Modulation | None = None,
    ) -> Tensor:
        """Predict the velocity; arguments as :meth:`engine.models.flux.FluxTransformer.forward`'s.

        Args:
            img: (B, S, in_channels).
            img_ids: (B, S, 3).
            txt: (B, T, context_in_dim).
            txt_ids: (B, T, 3).
            timesteps: (B,), float32; not read where modulation is given, nor are y and guidance.
            y: (B, vec_in_dim).
            guidance: (B,).
            txt_mask: boolean (B, T), or None.
            modulation: what the modulation layers give for these samples; None has ``conditioning`` make it.

        Returns:
            Tensor (B, S, out_channels).
        """
        expect = getattr(self.source, "expect", None)
        if expect is not None:
            # A source that streams keeps the last blocks for the way back, if there is one.
            expect(backward=torch.is_grad_enabled())
        with torch.autocast(img.device.type, enabled=False):
            with torch.no_grad():
                x = self._enter(img, txt)
                ids = torch.cat([txt_ids, img_ids], dim=1)
                rotary = rotary_table(ids, self.params.axes_dim, self.params.theta)[:, :, 0]
                if modulation is None:
                    modulation = self.conditioning(timesteps, y, guidance)
                rows = modulation.rows.to(self.dtype)
            attention = self.attention(txt_mask is not None).attention
            keep: Keep = "full" if self.checkpointing == "offload" else self.checkpointing
            shared = BlockPass(
                self.source,
                self.functions,
                BlockSetup(self.params.num_heads, txt.shape[1], attention, self.pieces, keep),
                rotary,
                bias_of(joint_mask(txt_mask, img.shape[1]), self.dtype, attention),
                self.offload if self.checkpointing == "offload" else None,
            )
            return self._leave(self._blocks(x, rows, shared, modulation.vec), rows, shared.setup)

    def _enter(self, img: Tensor, txt: Tensor) -> Tensor:
        """Hidden states (B, L, D) of text and image."""
        txt_in = cast(nn.Linear, self.io.txt_in)
        return torch.cat([txt_in(txt.to(self.dtype)), self._img_in(img.to(self.dtype))], dim=1)

    def _blocks(self, x: Tensor, rows: Tensor, shared: BlockPass, vec: Tensor) -> Tensor:
        depth, first = self.params.depth, 0
        for index in range(depth + self.params.depth_single_blocks):
            double = index < depth
            count = DOUBLE_VECTORS if double else SINGLE_VECTORS
            mod = self._adapted(rows[:, first : first + count], first, vec)
            first += count
            x = run_block(x, mod, self._run(x, index, shared))
        return x

    def _run(self, x: Tensor, index: int, shared: BlockPass) -> BlockRun:
        """One block with its adapters drawn and cast for this pass."""
        double = index < self.params.depth
        text, length = shared.setup.text, x.shape[1]
        if double:
            names = [f"double_blocks.{index}.{s}_{linear}" for s in ("img", "txt") for linear in STREAM_LINEARS]
            lengths = [length - text] * 4 + [text] * 4
        else:
            names = [f"single_blocks.{index - self.params.depth}.linear{n}" for n in (1, 2)]
            lengths = [length] * 2
        adapters = tuple(self.adapters.get(name) for name in names)
        loras = tuple(
            lora_of(adapter, x.shape[0], tokens, x.dtype, x.device, self.training, self.rows)
            for adapter, tokens in zip(adapters, lengths, strict=True)
        )
        return BlockRun(shared, index, double, loras, adapters)

    def _adapted(self, rows: Tensor, first: int, vec: Tensor) -> Tensor:
        """A block's vectors (B, V, D) with the updates of adapters on its modulation layers."""
        places = [p for p in self._places if first <= p.first < first + rows.shape[1]]
        if not any(place.name in self.adapters for place in places):
            return rows
        parts = []
        for place in places:
            part = rows[:, place.first - first :][:, : place.count]
            adapter = self.adapters.get(place.name)
            lora = lora_of(adapter, rows.shape[0], 1, rows.dtype, rows.device, self.training, self.rows)
            if adapter is not None and lora is not None:
                active = F.silu(vec.to(rows.dtype))
                part = _Rows.apply(part.flatten(1), active, lora, adapter.down, adapter.up).view(part.shape)
            parts.append(part)
        return torch.cat(parts, dim=1)

    def _leave(self, x: Tensor, rows: Tensor, setup: BlockSetup) -> Tensor:
        """The velocity from the image's hidden states."""
        linear = cast(nn.Linear, cast(nn.Module, self.io.final_layer).linear)
        dense = Dense(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
        return _Leave.apply(x, rows[:, -2], rows[:, -1], dense, setup)


class _Rows(torch.autograd.Function):
    """A modulation layer's output (B, V*D) plus its adapter's, from the activated conditioning vector (B, D)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, active: Tensor, lora: Lora, down: Tensor, up: Tensor) -> Tensor:
        hidden = narrow(active, lora)
        ctx.save_for_backward(active, hidden)
        ctx.lora = lora
        return torch.addmm(rows, hidden, lora.up.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        active, hidden = ctx.saved_tensors
        with torch.autocast(dout.device.type, enabled=False):
            _, grads = narrow_backward(dout, active, ctx.lora, hidden)
        return None, None, None, grads.down.float(), grads.up.float()


class _Leave(torch.autograd.Function):
    """The last modulated norm and projection of the image's tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, linear: Dense, setup: BlockSetup) -> Tensor:
        image = x[:, setup.text :]
        normed, mean, rstd = setup.pieces.norm_modulate(image, shift, scale)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(x, scale, mean, rstd)
            ctx.linear, ctx.setup = linear, setup
        return linear.forward(normed.flatten(0, 1)).view(*image.shape[:2], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Any, ...]:
        x, scale, mean, rstd = ctx.saved_tensors
        image, setup = x[:, ctx.setup.text :], ctx.setup
        dx = torch.empty_like(x)
        dx[:, : setup.text].zero_()
        with torch.autocast(dout.device.type, enabled=False):
            dnormed = ctx.linear.input_grad(dout.flatten(0, 1)).view(image.shape)
            setup.pieces.norm_modulate_backward(dnormed, image, scale, mean, rstd, None, dx[:, setup.text :])
        return dx, None, None, None, None
