"""Loads a FLUX.1 transformer from its single file.

The one place where a file becomes a :class:`~engine.models.flux.FluxTransformer`; the pocket model and the real
ones go through it alike.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from engine.errors import ModelFileError
from engine.models.detect import expect_part
from engine.models.flux import FluxParams, FluxTransformer
from engine.models.flux_layout import flux_layout, flux_sizes
from engine.models.parts import Part
from engine.models.weights import load_weights
from engine.text import safe_text


def layout(params: FluxParams) -> dict[str, tuple[int, ...]]:
    """Every tensor's name and shape in the single-file layout for a transformer of this size."""
    return flux_layout(params.to_dict())


def flux_params(part: Part) -> FluxParams:
    """Size and variant of the transformer in ``part``.

    Raises:
        ModelFileError: the header's params contradict the shapes, or heads cannot be known.
    """
    try:
        return FluxParams(**flux_sizes(part))
    except ValueError as err:
        raise ModelFileError(
            "The transformer's sizes do not fit", f"{safe_text(part.header.path)}: {err}", ""
        ) from err


def load_flux(
    path: Path,
    device: torch.device | str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
) -> FluxTransformer:
    """Load the transformer at ``path``, frozen, in eval mode; weights stream to ``device`` one by one.

    Raises:
        ModelFileError: not a complete FLUX.1 transformer, damaged, or in Diffusers' layout.
    """
    return build_flux(flux_part(path), device, dtype, progress)


def flux_part(path: Path) -> Part:
    """The complete FLUX.1 transformer in the file at ``path``.

    Raises:
        ModelFileError: there is none, it is not complete, or it is in Diffusers' layout.
    """
    info, part = expect_part(path, "transformer")
    if info.family != "flux1":
        raise ModelFileError(
            "This family cannot be trained yet", f"{safe_text(path, 400)} is {info.family}", "Give a FLUX.1 model."
        )
    return part


def build_flux(
    part: Part,
    device: torch.device | str,
    dtype: torch.dtype,
    progress: Callable[[int, int], None] | None = None,
) -> FluxTransformer:
    """Build and fill the transformer that ``part`` holds.

    Raises:
        ModelFileError: a tensor is missing, unexpected, of another shape, or unreadable.
    """
    params = flux_params(part)
    with torch.device("meta"):
        model = FluxTransformer(params)
    load_weights(model, part, device=device, dtype=dtype, progress=progress)
    return model.eval()
