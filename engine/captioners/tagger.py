"""WD14 taggers: an ONNX graph that gives every tag of a list a score. Needs onnxruntime (the extra ``tagger``).

A graph is data for onnxruntime: there is no Python in it, no libraries of operators are registered for it, and it is
handed over as bytes, so that it can name no further files. What is trusted is onnxruntime's own reading of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.captioners.found import ONNX_NAME
from engine.captioners.request import CaptioningStopped, Tagging
from engine.captioners.tags import TAGS_NAME, chosen_tags, read_tags
from engine.captioners.weights import Picture, Stop
from engine.dataset.regular import read_limited
from engine.errors import ModelFileError
from engine.text import safe_text

MAX_GRAPH_BYTES = 2**31
"""What the format holds at most."""

MAX_SIDE = 2048


class Tagger:
    """Captions of tags.

    Args:
        folder: holds ``model.onnx`` and ``selected_tags.csv``.
        how: thresholds, kinds of tags, blacklist.

    Raises:
        ModelFileError: onnxruntime is missing, or the files are no such tagger.
    """

    def __init__(self, folder: Path, how: Tagging) -> None:
        self._tags, self._how = read_tags(folder / TAGS_NAME), how
        self._path = folder / ONNX_NAME
        self._runtime = _runtime()
        self._session = self._opened()
        given, answered = self._session.get_inputs(), self._session.get_outputs()
        shape = given[0].shape if given else []
        if len(given) != 1 or len(answered) != 1 or len(shape) != 4 or shape[3] != 3:
            raise self._refused(f"its input is {safe_text(shape, 80)}, not pictures of height, width and 3 colours")
        side = shape[1]
        if not isinstance(side, int) or shape[2] != side or not 16 <= side <= MAX_SIDE:
            raise self._refused(f"its pictures are {safe_text(shape[1:3], 80)}, not squares of a fixed size")
        width = answered[0].shape[-1] if answered[0].shape else None
        if isinstance(width, int) and width != len(self._tags.names):
            raise self._refused(f"it scores {width} tags and {TAGS_NAME} lists {len(self._tags.names)}")
        self._side, self._input, self._output = side, given[0].name, answered[0].name

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One list of tags for each picture."""
        if stop():
            raise CaptioningStopped
        batch = np.stack([squared(picture, self._side) for picture in pictures])
        state = self._runtime.capi.onnxruntime_pybind11_state
        try:
            scores = self._session.run([self._output], {self._input: batch})[0]
        except (state.RuntimeException, state.Fail) as err:
            if "allocate" in str(err):
                raise RuntimeError("onnxruntime: out of memory") from err
            raise self._refused(safe_text(err, 300)) from err
        if getattr(scores, "shape", None) != (len(pictures), len(self._tags.names)):
            raise self._refused(f"it scored {safe_text(getattr(scores, 'shape', scores), 80)}")
        return [chosen_tags(self._tags, [float(score) for score in line], self._how) for line in scores]

    def _opened(self) -> Any:
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [one for one in wanted if one in self._runtime.get_available_providers()]
        data = read_limited(self._path, MAX_GRAPH_BYTES)
        state = self._runtime.capi.onnxruntime_pybind11_state
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            return self._runtime.InferenceSession(data, options, providers=providers)
        except (
            state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented,
            state.RuntimeException, state.NoSuchFile,
        ) as err:  # fmt: skip
            raise self._refused(safe_text(err, 300)) from err

    def _refused(self, what: str) -> ModelFileError:
        return ModelFileError(
            "The tagger cannot be used",
            f"{safe_text(self._path, 400)}: {what}",
            "Take a WD14 tagger (v2 or v3) with the list of tags that belongs to it.",
        )


def squared(picture: Picture, side: int) -> Any:
    """A picture as these taggers take it: in the middle of a white square, scaled, blue first, 0 to 255.

    Returns:
        float32, shape (side, side, 3).
    """
    height, width = picture.shape[:2]
    edge = max(height, width)
    canvas = np.full((edge, edge, 3), 255, dtype=np.uint8)
    top, left = (edge - height) // 2, (edge - width) // 2
    canvas[top : top + height, left : left + width] = picture
    scaled = Image.fromarray(canvas).resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(scaled, dtype=np.float32)[:, :, ::-1])


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        raise ModelFileError(
            "Taggers need onnxruntime",
            "it is not installed here",
            "Install it: pip install 'lorakiln[tagger]', or onnxruntime-gpu for a tagger on the GPU.",
        ) from err
    return onnxruntime
