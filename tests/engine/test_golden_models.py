"""Our transformer and autoencoder against golden data of the reference implementation, and full-size names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from model_files import write
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engine.models.autoencoder import load_autoencoder
from engine.models.autoencoder_layout import AutoencoderSizes, autoencoder_layout
from engine.models.autoencoder_net import AutoencoderNet
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_file import layout, load_flux
from engine.models.header import read_header
from engine.models.text_layout import ClipSizes, T5Sizes, clip_layout, t5_layout

Golden = Callable[[str], list[Path]]
TOLERANCE = 1e-5
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "golden"


def relative(found: Tensor, wanted: Tensor) -> float:
    """The larger of two relative errors: of the norms, and of the largest values."""
    found, wanted = found.detach().double(), wanted.detach().double()
    off = found - wanted
    return max(float(off.norm() / wanted.norm()), float(off.abs().max() / wanted.abs().max()))


def model_file(source: Path, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The model inside a golden file as a file of its own, and everything the golden file holds."""
    every = load_file(source)
    weights = {name.removeprefix("model."): tensor for name, tensor in every.items() if name.startswith("model.")}
    params = json.loads(read_header(source).metadata["params"])
    return write(folder / source.name, weights, params), every


def parametrise(pattern: str) -> pytest.MarkDecorator:
    """One case per golden file; where there is none, one case whose fixture skips or fails."""
    named = Path(os.environ.get("LORAKILN_GOLDEN") or BESIDE)
    paths = sorted(named.glob(pattern)) or sorted(BESIDE.glob(pattern)) or [Path(pattern)]
    return pytest.mark.parametrize("source", paths, ids=lambda path: path.stem)


@parametrise("flux_tiny_*.safetensors")
def test_golden_transformer(source: Path, golden: Golden, tmp_path: Path) -> None:
    golden("flux_tiny_*.safetensors")
    path, data = model_file(source, tmp_path)
    model = load_flux(path, "cpu", torch.float32)
    wanted = {name.removeprefix("grad."): tensor for name, tensor in data.items() if name.startswith("grad.")}
    weights = dict(model.named_parameters())
    inputs = {name.removeprefix("in."): tensor for name, tensor in data.items() if name.startswith("in.")}
    leaves = {name: weights.get(name, inputs.get(name)) for name in wanted}
    for leaf in leaves.values():
        assert leaf is not None
        leaf.requires_grad_(True)
    out = model(**inputs)
    assert relative(out, data["out"]) < TOLERANCE
    out.pow(2).mean().backward()
    assert wanted
    for name, leaf in leaves.items():
        assert leaf is not None
        assert leaf.grad is not None
        assert relative(leaf.grad, wanted[name]) < TOLERANCE, name


@parametrise("ae_tiny*.safetensors")
def test_golden_autoencoder(source: Path, golden: Golden, tmp_path: Path) -> None:
    golden("ae_tiny*.safetensors")
    path, data = model_file(source, tmp_path)
    autoencoder = load_autoencoder(path, "cpu", torch.float32)
    with torch.no_grad():
        moments = autoencoder.net.encoder(data["in.x"])
    mean, std = autoencoder.encode(data["in.x"])
    logvar = data["out.moments"].chunk(2, dim=1)[1]
    assert relative(moments, data["out.moments"]) < TOLERANCE
    assert relative(mean, data["out.latent_mean_scaled"]) < TOLERANCE
    assert relative(std, (0.5 * logvar).exp() * autoencoder.sizes.scale_factor) < TOLERANCE
    assert relative(autoencoder.decode(data["out.latent_mean_scaled"]), data["out.reconstruction"]) < TOLERANCE
    assert relative(autoencoder.decode(mean), data["out.reconstruction"]) < TOLERANCE


def _layouts(golden: Golden) -> dict[str, dict[str, tuple[int, ...]]]:
    found = json.loads(golden("checkpoint_layouts.json")[0].read_text())["layouts"]
    return {kind: {name: tuple(shape) for name, shape in names.items()} for kind, names in found.items()}


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("variant", ["dev", "schnell"])
def test_golden_names_of_the_transformer(variant: str, golden: Golden) -> None:
    params = FluxParams(guidance_embed=variant == "dev")
    with torch.device("meta"):
        built = _shapes(FluxTransformer(params))
    assert built == layout(params) == _layouts(golden)[f"flux1-{variant}"]


def test_golden_names_of_the_autoencoder(golden: Golden) -> None:
    with torch.device("meta"):
        built = _shapes(AutoencoderNet(AutoencoderSizes()))
    assert built == autoencoder_layout(AutoencoderSizes()) == _layouts(golden)["ae"]


def test_golden_names_of_the_text_encoders(golden: Golden) -> None:
    layouts = _layouts(golden)
    clip = {f"text_model.{name}": shape for name, shape in clip_layout(ClipSizes()).items()}
    t5 = dict(t5_layout(T5Sizes()))
    t5["encoder.embed_tokens.weight"] = t5["shared.weight"]
    assert clip == layouts["clip_l"]
    assert t5 == layouts["t5xxl"]
    with torch.device("meta"):
        clip_net = CLIPTextModel(CLIPTextConfig(intermediate_size=3072, hidden_size=768, vocab_size=49408))
        t5_net = T5EncoderModel(
            T5Config(
                vocab_size=32128,
                d_model=4096,
                d_ff=10240,
                num_layers=24,
                num_heads=64,
                feed_forward_proj="gated-gelu",
            )
        )
    assert _bare(_shapes(clip_net)) == _bare({n: s for n, s in clip.items()})
    assert _shapes(t5_net) == t5


def _bare(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    names = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    return {name: shape for name, shape in names.items() if not name.endswith("position_ids")}
