"""A small FLUX transformer for tests, and diffusers' model with the same weights under its own names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.lora.layouts import PLACES
from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids

TINY = FluxParams(
    in_channels=16,
    out_channels=16,
    vec_in_dim=24,
    context_in_dim=32,
    hidden_size=48,
    num_heads=2,
    axes_dim=(8, 8, 8),
    depth=2,
    depth_single_blocks=2,
)

_OUTER = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_NORMS = {
    "double_blocks": {
        "img_attn.norm.query_norm": "attn.norm_q",
        "img_attn.norm.key_norm": "attn.norm_k",
        "txt_attn.norm.query_norm": "attn.norm_added_q",
        "txt_attn.norm.key_norm": "attn.norm_added_k",
    },
    "single_blocks": {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"},
}


def all_kinds(params: FluxParams) -> dict[str, str]:
    """Kind of every linear in the blocks, by name."""
    depths = {"double_blocks": params.depth, "single_blocks": params.depth_single_blocks}
    return {
        f"{blocks}.{index}.{rest}": place.kind
        for blocks, places in PLACES.items()
        for index in range(depths[blocks])
        for rest, place in places.items()
    }


def to_diffusers_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state in diffusers' names; rows are views, so nothing is copied but the swapped halves of ``norm_out``."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        module, _, matrix = key.rpartition(".")
        if module in _OUTER:
            if module == "final_layer.adaLN_modulation.1":
                tensor = torch.cat(tensor.chunk(2)[::-1])
            renamed[f"{_OUTER[module]}.{matrix}"] = tensor
            continue
        blocks, index, rest = module.split(".", 2)
        prefix = {"double_blocks": "transformer_blocks", "single_blocks": "single_transformer_blocks"}[blocks]
        if rest in _NORMS[blocks]:
            renamed[f"{prefix}.{index}.{_NORMS[blocks][rest]}.weight"] = tensor
            continue
        parts = PLACES[blocks][rest].parts
        width = state[f"{blocks}.{index}.{rest}.weight"].shape[1]
        rows = [width] * 3 + [tensor.shape[0] - 3 * width] if len(parts) == 4 else tensor.shape[0] // len(parts)
        for part, piece in zip(parts, tensor.split(rows), strict=True):
            renamed[f"{prefix}.{index}.{part}.{matrix}"] = piece
    return renamed


def diffusers_model(model: FluxTransformer) -> Any:
    """diffusers' FluxTransformer2DModel that shares the weights of ``model``."""
    from diffusers import FluxTransformer2DModel

    p = model.params
    with torch.device("meta"):
        other = FluxTransformer2DModel(
            patch_size=1,
            in_channels=p.in_channels,
            out_channels=p.out_channels,
            num_layers=p.depth,
            num_single_layers=p.depth_single_blocks,
            attention_head_dim=p.hidden_size // p.num_heads,
            num_attention_heads=p.num_heads,
            joint_attention_dim=p.context_in_dim,
            pooled_projection_dim=p.vec_in_dim,
            guidance_embeds=p.guidance_embed,
            axes_dims_rope=p.axes_dim,
        )
    other.load_state_dict(to_diffusers_names(model.state_dict()), strict=True, assign=True)
    return other.eval()


def random_inputs(params: FluxParams, side: int = 4, text: int = 5, batch: int = 2) -> dict[str, Tensor]:
    """Inputs of our forward for latents of ``side`` x ``side``, fixed seed."""
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return {
        "img": draw(batch, side * side // 4, params.in_channels),
        "img_ids": image_ids(batch, side, side),
        "txt": draw(batch, text, params.context_in_dim),
        "txt_ids": text_ids(batch, text),
        "timesteps": torch.linspace(0.3, 0.8, batch),
        "y": draw(batch, params.vec_in_dim),
        "guidance": torch.full((batch,), 3.5),
    }


def diffusers_velocity(other: Any, inputs: dict[str, Tensor]) -> Tensor:
    """diffusers' answer to the inputs of our forward."""
    with torch.no_grad():
        return other(
            hidden_states=inputs["img"],
            encoder_hidden_states=inputs["txt"],
            pooled_projections=inputs["y"],
            timestep=inputs["timesteps"],
            img_ids=inputs["img_ids"][0],
            txt_ids=inputs["txt_ids"][0],
            guidance=inputs["guidance"],
            return_dict=False,
        )[0]
