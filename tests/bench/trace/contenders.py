"""Steps to be counted: the lean one that trains, the plain reference, and diffusers with peft.

All are FLUX transformers of the same size with LoRA of the same rank on the same linears, bf16 weights, 512 text
tokens, their blocks checkpointed. They are built inside a fake mode: shapes and strides without values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from engine.blocks.pieces import EAGER, Pieces
from engine.config import LoraConfig
from engine.lora.adapter import describe_linears, inject
from engine.lora.layouts import PLACES
from engine.lora.targets import Target, select_targets
from engine.memory.frozen import BlockWeights, Resident, block_tensors, with_block_tensors
from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids
from engine.models.modulation import Modulation, modulation_places
from tests.bench.trace.counter import Counter, Tally

SMALL = FluxParams(hidden_size=768, num_heads=6, depth=2, depth_single_blocks=4)
"""The small configuration: width 768, 2 and 4 blocks, heads of 128."""

SMALL_TEXT, SMALL_PX = 128, 512
"""1152 tokens."""

PEFT_TARGETS = [
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj",
    "attn.to_add_out", "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp",
    "proj_out",
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """What a step works on.

    Attributes:
        checkpointing: as ``training.gradient_checkpointing`` has it.
    """

    params: FluxParams = field(default_factory=FluxParams)
    px: int = 1024
    batch: int = 1
    text: int = 512
    rank: int = 16
    checkpointing: str = "full"

    @property
    def image_tokens(self) -> int:
        """S of one sample: a token is 16 pixels wide."""
        return (self.px // 16) ** 2

    @property
    def tokens(self) -> int:
        """L of the batch."""
        return (self.image_tokens + self.text) * self.batch


@dataclass
class Counted:
    """A step as counted.

    Attributes:
        forward: the forward pass, the loss with it.
        backward: the backward pass.
        kept_bytes: alive between the two: what the forward pass keeps, the output with it.
        peak_bytes: most alive at once beyond weights, adapters and inputs.
    """

    forward: Tally
    backward: Tally
    kept_bytes: int
    peak_bytes: int

    @property
    def flops(self) -> float:
        """Products and attention of the step."""
        return self.forward.flops + self.backward.flops

    @property
    def working_bytes(self) -> int:
        """What the backward pass needs on top of all that is kept: its peak is at the last block, where all is."""
        return self.peak_bytes - self.kept_bytes

    @property
    def launches(self) -> int:
        """Kernels of the step."""
        return self.forward.launches + self.backward.launches

    @property
    def product_gb(self) -> float:
        """Bytes of products and attention."""
        return (self.forward.product_bytes + self.backward.product_bytes) / 1e9

    @property
    def rest_gb(self) -> float:
        """Bytes of everything else."""
        return (self.forward.rest_bytes + self.backward.rest_bytes) / 1e9


@contextmanager
def fake(dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Tensors without values, of ``dtype`` unless said otherwise."""
    before = torch.get_default_dtype()
    with FakeTensorMode():
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


Contender = Callable[[], Tensor]
"""A forward pass on fixed inputs."""


def count(build: Callable[[Case], Contender], case: Case) -> Counted:
    """Count one step of a contender: forward, mean of squares, backward."""
    with fake():
        forward = build(case)
        with Counter() as counter:
            with counter.part() as first:
                loss = forward().float().square().mean()
            kept = counter.live
            with counter.part() as second:
                loss.backward()
            del loss
    return Counted(first, second, kept, counter.tally.peak_bytes)


def count_block(build: Callable[[Case], Contender], case: Case, kind: str) -> Counted:
    """What one block of ``kind`` ("double" or "single") adds to a step: three of them less two."""
    name = {"double": "depth", "single": "depth_single_blocks"}[kind]
    two, three = (count(build, _shallow(case, name, blocks)) for blocks in (2, 3))
    return _difference(three, two)


def count_scaled(build: Callable[[Case], Contender], case: Case) -> Counted:
    """A whole step from shallow ones: blocks of a kind cost the same, so the figures are linear in their numbers."""
    base = shallow = count(build, _shallow(case))
    for name in ("depth", "depth_single_blocks"):
        more = _difference(count(build, _shallow(case, name, 3)), shallow)
        times = getattr(case.params, name) - 2
        kept = base.kept_bytes + times * more.kept_bytes
        base = Counted(
            base.forward.plus(more.forward, times),
            base.backward.plus(more.backward, times),
            kept,
            kept + base.working_bytes,
        )
    return base


def _shallow(case: Case, name: str = "depth", blocks: int = 2) -> Case:
    return replace(case, params=replace(case.params, **({"depth": 2, "depth_single_blocks": 2} | {name: blocks})))


def _difference(more: Counted, less: Counted) -> Counted:
    return Counted(
        more.forward.since(less.forward),
        more.backward.since(less.backward),
        more.kept_bytes - less.kept_bytes,
        more.peak_bytes - less.peak_bytes,
    )


def inputs_of(case: Case) -> dict[str, Tensor]:
    """Inputs of our forward pass."""
    p, side = case.params, case.px // 8
    return {
        "img": torch.empty(case.batch, case.image_tokens, p.in_channels),
        "img_ids": image_ids(case.batch, side, side),
        "txt": torch.empty(case.batch, case.text, p.context_in_dim),
        "txt_ids": text_ids(case.batch, case.text),
        "timesteps": torch.empty(case.batch, dtype=torch.float32),
        "y": torch.empty(case.batch, p.vec_in_dim),
        "guidance": torch.empty(case.batch, dtype=torch.float32),
    }


def targets_of(model: FluxTransformer, rank: int) -> tuple[list[Target], LoraConfig]:
    """Attention and MLP linears of all blocks."""
    config = LoraConfig(rank=rank)
    depths = {"double_blocks": model.params.depth, "single_blocks": model.params.depth_single_blocks}
    kinds = {
        f"{blocks}.{index}.{rest}": place.kind
        for blocks, places in PLACES.items()
        for index in range(depths[blocks])
        for rest, place in places.items()
    }
    return select_targets(describe_linears(model, kinds), config), config


def plain(case: Case) -> Contender:
    """The readable reference under autocast, its blocks checkpointed by torch."""
    model = FluxTransformer(case.params).requires_grad_(False).train()
    model.gradient_checkpointing = case.checkpointing != "none"
    inject(model, *targets_of(model, case.rank), 0)
    inputs = inputs_of(case)

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return model(**inputs)

    return forward


def lean(case: Case) -> Contender:
    """The step that trains, eager: block functions with a backward of their own, modulation from the table."""
    return _lean(case, EAGER)


def fused(case: Case) -> Contender:
    """The same with the elementwise pieces as Triton kernels, each counted by what it declares to read and write."""
    from engine.blocks.kernels_launch import TRITON

    return _lean(case, TRITON)


def packed(precision: str, kind: str) -> Callable[[Case], Contender]:
    """The eager step over packed weights; ``kind`` of products: int8, fp8 or wide."""
    return lambda case: _lean(case, EAGER, precision, kind)


def _lean(case: Case, pieces: Pieces, precision: str = "auto", kind: str = "wide") -> Contender:
    from engine.blocks.transformer import LeanFlux
    from engine.lora.adapter import make_adapters

    model = FluxTransformer(case.params).requires_grad_(False)
    targets, config = targets_of(model, case.rank)
    lora = make_adapters(targets, config, 0, torch.device("cpu"))
    network = LeanFlux.from_plain(model, lora, checkpointing=case.checkpointing).train()
    network.pieces = pieces
    if precision != "auto":
        network.source = Resident(_packed_blocks(case, precision, kind))
    places = modulation_places(case.params.depth, case.params.depth_single_blocks)
    vectors = places[-1].first + places[-1].count
    width = case.params.hidden_size
    modulation = Modulation(torch.empty(case.batch, vectors, width), torch.empty(case.batch, width))
    inputs = inputs_of(case)
    # The copy that is computed with is made once per optimizer step and stands with the adapters.
    next(iter(lora.adapters.values())).compute(torch.bfloat16)
    return lambda: network(**inputs, modulation=modulation)


def _packed_blocks(case: Case, precision: Any, kind: Any) -> list[BlockWeights]:
    from engine.memory.base_file import block_templates, products_of
    from engine.memory.products8 import Choice

    with unset_fake_temporarily():
        products = products_of(case.params, Choice(kind))
        templates = block_templates(case.params, precision, torch.bfloat16, products)
    return [
        with_block_tensors(
            block, {name: torch.empty(t.shape, dtype=t.dtype) for name, t in block_tensors(block).items()}
        )
        for block in templates
    ]


def peft(case: Case) -> Contender:
    """diffusers' transformer with peft's adapters, all in bf16, without autocast."""
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig as PeftConfig
    from peft import inject_adapter_in_model

    p = case.params
    # peft cannot put its layers on fake tensors: it does so on the meta device, which knows shapes too.
    with unset_fake_temporarily(), torch.device("meta"):
        model = FluxTransformer2DModel(
            patch_size=1,
            in_channels=p.in_channels,
            num_layers=p.depth,
            num_single_layers=p.depth_single_blocks,
            attention_head_dim=p.hidden_size // p.num_heads,
            num_attention_heads=p.num_heads,
            joint_attention_dim=p.context_in_dim,
            pooled_projection_dim=p.vec_in_dim,
            guidance_embeds=p.guidance_embed,
            axes_dims_rope=p.axes_dim,
        ).requires_grad_(False)
        config = PeftConfig(r=case.rank, lora_alpha=case.rank, target_modules=PEFT_TARGETS)
        model = inject_adapter_in_model(config, model)
    _put_on_cpu(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    model.train()
    if case.checkpointing != "none":
        model.enable_gradient_checkpointing()
    given = inputs_of(case)
    inputs: dict[str, Any] = {
        "hidden_states": given["img"],
        "encoder_hidden_states": given["txt"],
        "pooled_projections": given["y"],
        "timestep": given["timesteps"],
        "img_ids": given["img_ids"][0],
        "txt_ids": given["txt_ids"][0],
        "guidance": given["guidance"],
        "return_dict": False,
    }
    return lambda: model(**inputs)[0]


def _put_on_cpu(model: nn.Module) -> None:
    """Give every parameter a bf16 tensor of the mode in force."""
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(torch.empty(parameter.shape), requires_grad=False)


CONTENDERS: dict[str, Callable[[Case], Contender]] = {
    "lean, eager": lean,
    "lean, fused kernels": fused,
    "plain reference": plain,
    "diffusers + peft": peft,
}
