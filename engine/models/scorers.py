"""CLIP and DINOv2 as judges of sample pictures: pictures and texts in, vectors of length 1 out.

The networks are transformers', built from sizes read by :mod:`engine.models.scorer_files` and filled by our own
strict loader: nothing is fetched, no code of the files runs, and no random state is touched. float32 throughout: a
score is to be the same on every device to some digits.

Shapes: B pictures or texts, H and W pixels, D width of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from engine.models.header import read_header
from engine.models.parts import Part
from engine.models.scorer_files import ClipFiles, DinoFiles, Look, Tower, clip_files, dino_files
from engine.models.tokenizers import load_clip_tokenizer
from engine.models.weights import load_weights

Pixels = NDArray[np.uint8]

TOGETHER = 8
"""Pictures that go through a model at once."""


class ClipScorer:
    """CLIP's two towers."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the model in ``folder``.

        Raises:
            ModelFileError: it is not there, not whole, or no CLIP.
        """
        files = clip_files(folder)
        self._tokenizer = load_clip_tokenizer(files.weights, folder)
        self._files = files
        self._device = device
        self._net = _clip_net(files, device)

    def pictures(self, pictures: Sequence[Pixels]) -> Tensor:
        """Vectors (B, D) of pictures (H, W, 3)."""
        return _in_parts(self._picture_part, pictures)

    def _picture_part(self, pictures: Sequence[Pixels]) -> Tensor:
        pixels = prepared(pictures, self._files.look).to(self._device)
        return self._net.visual_projection(self._net.vision_model(pixel_values=pixels).pooler_output)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors (B, D) of texts; of a longer one its beginning counts."""
        return _in_parts(self._text_part, texts)

    def _text_part(self, texts: Sequence[str]) -> Tensor:
        ids, _ = self._tokenizer.encode(list(texts), self._files.positions)
        given = torch.tensor(ids, device=self._device)
        return self._net.text_projection(self._net.text_model(input_ids=given).pooler_output)


class DinoScorer:
    """DINOv2: the vector of its class token."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Load the model in ``folder``.

        Raises:
            ModelFileError: it is not there, not whole, or no DINOv2.
        """
        self._files = dino_files(folder)
        self._device = device
        self._net = _dino_net(self._files, device)

    def pictures(self, pictures: Sequence[Pixels]) -> Tensor:
        """Vectors (B, D) of pictures (H, W, 3)."""
        return _in_parts(self._part, pictures)

    def _part(self, pictures: Sequence[Pixels]) -> Tensor:
        pixels = prepared(pictures, self._files.look).to(self._device)
        return self._net(pixel_values=pixels).pooler_output


def prepared(pictures: Sequence[Pixels], look: Look) -> Tensor:
    """Pictures (H, W, 3) as a model sees them: (B, 3, crop, crop) float32."""
    rows = []
    for picture in pictures:
        image = Image.fromarray(picture)
        width, height = image.size
        short = min(width, height)
        sides = (int(look.shortest * width / short), int(look.shortest * height / short))
        image = image.resize(sides, Image.Resampling.BICUBIC)
        left, top = (sides[0] - look.crop) // 2, (sides[1] - look.crop) // 2
        rows.append(np.asarray(image.crop((left, top, left + look.crop, top + look.crop)), np.float32) / 255)
    values = (np.stack(rows) - np.array(look.mean, np.float32)) / np.array(look.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


def _in_parts(part: object, given: Sequence[object]) -> Tensor:
    assert callable(part)
    with torch.no_grad():
        found = [part(given[at : at + TOGETHER]) for at in range(0, len(given), TOGETHER)]
        return F.normalize(torch.cat(found).float(), dim=-1).cpu()


def _tower(tower: Tower) -> dict[str, object]:
    return {
        "hidden_size": tower.hidden_size,
        "intermediate_size": tower.intermediate_size,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.eps,
    }


def _clip_net(files: ClipFiles, device: torch.device) -> CLIPModel:
    text = _tower(files.text) | {
        "vocab_size": files.vocab_size,
        "max_position_embeddings": files.positions,
        "projection_dim": files.projection,
        "bos_token_id": files.vocab_size - 2,
        "eos_token_id": files.vocab_size - 1,
        "pad_token_id": files.vocab_size - 1,
    }
    vision = _tower(files.vision) | {
        "image_size": files.image_size,
        "patch_size": files.patch_size,
        "projection_dim": files.projection,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=files.projection)
    with torch.device("meta"):
        net = CLIPModel(config)
    _fill(net, files.weights, device)
    net.text_model.embeddings.position_ids = torch.arange(files.positions, device=device)[None]
    patches = (files.image_size // files.patch_size) ** 2 + 1
    net.vision_model.embeddings.position_ids = torch.arange(patches, device=device)[None]
    return net.eval()


def _dino_net(files: DinoFiles, device: torch.device) -> Dinov2Model:
    tower = _tower(files.tower)
    width, wide = files.tower.hidden_size, tower.pop("intermediate_size")
    config = Dinov2Config(
        **tower,
        mlp_ratio=int(str(wide)) // width,
        image_size=files.image_size,
        patch_size=files.patch_size,
        use_swiglu_ffn=files.swiglu,
    )
    with torch.device("meta"):
        net = Dinov2Model(config)
    _fill(net, files.weights, device)
    return net.eval()


def _fill(net: nn.Module, weights: Path, device: torch.device) -> None:
    """Fill a network from its publisher's file, whichever of the two ways of naming attention's layers it has."""
    header = read_header(weights)
    tensors = {name: info for name, info in header.tensors.items() if not name.endswith("position_ids")}
    own = {_published(name): name for name in net.state_dict()}
    part = Part(header, "scorer", "", tensors, {}, ())
    load_weights(net, part, device=device, dtype=torch.float32, rename=lambda name: own.get(_published(name), name))


def _published(name: str) -> str:
    """A layer of DINOv2 by the name that its published files use; transformers calls it otherwise by now."""
    for ours, theirs in (
        (".attention.q_proj.", ".attention.attention.query."),
        (".attention.k_proj.", ".attention.attention.key."),
        (".attention.v_proj.", ".attention.attention.value."),
        (".attention.o_proj.", ".attention.output.dense."),
    ):
        name = name.replace(ours, theirs)
    return name.removeprefix("dinov2.")
