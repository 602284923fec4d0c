"""Our transformer equals diffusers' FluxTransformer2DModel on random configurations, after renaming."""

from __future__ import annotations

import random

import pytest
import torch
from diffusers import FluxTransformer2DModel
from model_files import random_tensors
from torch import Tensor

from engine.models.flux import FluxParams, FluxTransformer, image_ids, text_ids
from engine.models.flux_file import layout

EMBEDDERS = {"time_in": "timestep_embedder", "guidance_in": "guidance_embedder", "vector_in": "text_embedder"}


def to_diffusers(ours: dict[str, Tensor], params: FluxParams) -> dict[str, Tensor]:
    """Rename a single-file state to diffusers' layout: fused projections split, final norm's halves swapped."""
    out: dict[str, Tensor] = {}
    dim = params.hidden_size

    def move(source: str, target: str) -> None:
        for kind in ("weight", "bias"):
            if f"{source}.{kind}" in ours:
                out[f"{target}.{kind}"] = ours[f"{source}.{kind}"]

    def split(source: str, targets: list[str], sizes: list[int]) -> None:
        for kind in ("weight", "bias"):
            if f"{source}.{kind}" in ours:
                for target, piece in zip(targets, ours[f"{source}.{kind}"].split(sizes), strict=True):
                    out[f"{target}.{kind}"] = piece

    def norms(source: str, query: str, key: str) -> None:
        out[f"{query}.weight"] = ours[f"{source}.query_norm.scale"]
        out[f"{key}.weight"] = ours[f"{source}.key_norm.scale"]

    move("img_in", "x_embedder")
    move("txt_in", "context_embedder")
    for source, target in EMBEDDERS.items():
        move(f"{source}.in_layer", f"time_text_embed.{target}.linear_1")
        move(f"{source}.out_layer", f"time_text_embed.{target}.linear_2")
    for block in range(params.depth):
        at, to = f"double_blocks.{block}", f"transformer_blocks.{block}"
        move(f"{at}.img_mod.lin", f"{to}.norm1.linear")
        move(f"{at}.txt_mod.lin", f"{to}.norm1_context.linear")
        split(f"{at}.img_attn.qkv", [f"{to}.attn.to_{x}" for x in "qkv"], [dim] * 3)
        split(f"{at}.txt_attn.qkv", [f"{to}.attn.add_{x}_proj" for x in "qkv"], [dim] * 3)
        norms(f"{at}.img_attn.norm", f"{to}.attn.norm_q", f"{to}.attn.norm_k")
        norms(f"{at}.txt_attn.norm", f"{to}.attn.norm_added_q", f"{to}.attn.norm_added_k")
        move(f"{at}.img_attn.proj", f"{to}.attn.to_out.0")
        move(f"{at}.txt_attn.proj", f"{to}.attn.to_add_out")
        for stream, name in (("img", "ff"), ("txt", "ff_context")):
            move(f"{at}.{stream}_mlp.0", f"{to}.{name}.net.0.proj")
            move(f"{at}.{stream}_mlp.2", f"{to}.{name}.net.2")
    for block in range(params.depth_single_blocks):
        at, to = f"single_blocks.{block}", f"single_transformer_blocks.{block}"
        move(f"{at}.modulation.lin", f"{to}.norm.linear")
        names = [*(f"{to}.attn.to_{x}" for x in "qkv"), f"{to}.proj_mlp"]
        split(f"{at}.linear1", names, [dim] * 3 + [params.mlp_hidden])
        move(f"{at}.linear2", f"{to}.proj_out")
        norms(f"{at}.norm", f"{to}.attn.norm_q", f"{to}.attn.norm_k")
    move("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):
        shift, scale = ours[f"final_layer.adaLN_modulation.1.{kind}"].chunk(2)
        out[f"norm_out.linear.{kind}"] = torch.cat([scale, shift])
    return out


def reference(params: FluxParams, state: dict[str, Tensor]) -> FluxTransformer2DModel:
    model = FluxTransformer2DModel(
        in_channels=params.in_channels,
        out_channels=params.out_channels,
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        attention_head_dim=params.hidden_size // params.num_heads,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        pooled_projection_dim=params.vec_in_dim,
        guidance_embeds=params.guidance_embed,
        axes_dims_rope=params.axes_dim,
    )
    model.load_state_dict(to_diffusers(state, params), strict=True)
    return model.eval()


def small(**changes: object) -> FluxParams:
    plain = {"in_channels": 16, "out_channels": 16, "vec_in_dim": 12, "context_in_dim": 20, "hidden_size": 64,
             "num_heads": 2, "depth": 1, "depth_single_blocks": 2, "axes_dim": (8, 12, 12)}  # fmt: skip
    return FluxParams(**{**plain, **changes})  # type: ignore[arg-type]


def drawn(seed: int) -> FluxParams:
    """A configuration of sizes drawn at random; heads, axes and widths that fit each other."""
    draw = random.Random(seed)
    axes = tuple(2 * draw.randint(1, 8) for _ in range(3))
    heads = draw.randint(1, 4)
    return small(
        axes_dim=axes,
        num_heads=heads,
        hidden_size=heads * sum(axes),
        depth=draw.randint(1, 3),
        depth_single_blocks=draw.randint(1, 4),
        in_channels=4 * draw.randint(1, 8),
        out_channels=4 * draw.randint(1, 8),
        vec_in_dim=draw.randint(3, 40),
        context_in_dim=draw.randint(3, 70),
        guidance_embed=draw.random() < 0.5,
    )


CONFIGS = [
    small(),
    small(guidance_embed=False, hidden_size=128, num_heads=1, axes_dim=(16, 56, 56), context_in_dim=64),
    *(drawn(seed) for seed in range(8)),
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_equal_to_diffusers(number: int) -> None:
    params = CONFIGS[number]
    state = random_tensors(layout(params), seed=number, scale=0.1)
    ours = FluxTransformer(params)
    ours.load_state_dict(state, strict=True)
    theirs = reference(params, state)
    draw = torch.Generator().manual_seed(number)
    batch, height, width, text = 2, 6, 8 + 2 * number, 5
    tokens = height * width // 4
    img = torch.randn(batch, tokens, params.in_channels, generator=draw, requires_grad=True)
    txt = torch.randn(batch, text, params.context_in_dim, generator=draw)
    pooled = torch.randn(batch, params.vec_in_dim, generator=draw)
    sigma = torch.rand(batch, generator=draw)
    guidance = torch.tensor([1.0, 3.5])
    ids, zeros = image_ids(batch, height, width), text_ids(batch, text)
    found = ours(img, ids, txt, zeros, sigma, pooled, guidance)
    wanted = theirs(
        hidden_states=img,
        encoder_hidden_states=txt,
        pooled_projections=pooled,
        timestep=sigma,
        img_ids=ids[0],
        txt_ids=zeros[0],
        guidance=guidance if params.guidance_embed else None,
        return_dict=False,
    )[0]
    assert float(((found - wanted).norm() / wanted.norm()).detach()) < 1e-5
    (found_grad,) = torch.autograd.grad(found.pow(2).mean(), img)
    (wanted_grad,) = torch.autograd.grad(wanted.pow(2).mean(), img)
    assert float((found_grad - wanted_grad).norm() / wanted_grad.norm()) < 1e-5
