"""What a fast transformer needs, taken from a plain one's own tensors: nothing is copied.

For tests and models that fit as they are. Larger ones are loaded straight into packed weights.
"""

from __future__ import annotations

from typing import cast

from torch import nn

from engine.lora.adapter import LoraLinear
from engine.memory.conditioning import Conditioning, HeldLayers
from engine.memory.frozen import BlockWeights, Dense, DoubleWeights, SingleWeights, StreamWeights
from engine.models.flux import DoubleStreamBlock, FluxTransformer, SelfAttention, SingleStreamBlock
from engine.models.modulation import modulation_places


class InputOutput(nn.Module):
    """The layers around the blocks, under their released names: embedders and the last linear."""

    def __init__(self, model: FluxTransformer) -> None:
        super().__init__()
        self.img_in, self.txt_in = model.img_in, model.txt_in
        self.time_in, self.vector_in, self.guidance_in = model.time_in, model.vector_in, model.guidance_in
        self.final_layer = nn.Module()
        self.final_layer.linear = model.final_layer.linear


def plain_blocks(model: FluxTransformer) -> list[BlockWeights]:
    """Every block's weights, double ones first; an adapter's base is taken, the adapter is not."""
    blocks: list[BlockWeights] = []
    for module in model.double_blocks:
        double = cast(DoubleStreamBlock, module)
        blocks.append(
            DoubleWeights(_stream(double.img_attn, double.img_mlp), _stream(double.txt_attn, double.txt_mlp))
        )
    for module in model.single_blocks:
        single = cast(SingleStreamBlock, module)
        scales = single.norm.query_norm.scale.detach(), single.norm.key_norm.scale.detach()
        blocks.append(SingleWeights(_dense(single.linear1), _dense(single.linear2), *scales))
    return blocks


def plain_conditioning(model: FluxTransformer) -> Conditioning:
    """Modulation from a plain transformer's own layers."""
    places = modulation_places(model.params.depth, model.params.depth_single_blocks)
    held = HeldLayers({place.name: _dense(model.get_submodule(place.name)) for place in places})
    return Conditioning(model, places, held)


def _stream(attention: SelfAttention, mlp: nn.Sequential) -> StreamWeights:
    scales = attention.norm.query_norm.scale.detach(), attention.norm.key_norm.scale.detach()
    return StreamWeights(_dense(attention.qkv), _dense(attention.proj), _dense(mlp[0]), _dense(mlp[2]), *scales)


def _dense(module: nn.Module) -> Dense:
    linear = module.base if isinstance(module, LoraLinear) else module
    assert isinstance(linear, nn.Linear)
    return Dense(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())
