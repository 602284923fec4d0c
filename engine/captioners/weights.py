"""Loads a captioning model with transformers, from a folder on this machine and nowhere else, and has it answer.

Safetensors only, never code from the folder. A model whose weights do not all stand in its files is refused: what is
missing would be drawn at random, and the answers would be noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy import uint8
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, StoppingCriteria, StoppingCriteriaList
from transformers.utils import logging

from engine.captioners.request import CaptioningStopped
from engine.errors import ModelFileError
from engine.memory.exhaustion import first_line, ran_out
from engine.text import safe_text

Picture = NDArray[uint8]
"""RGB, shape (height, width, 3)."""

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Vision:
    """A model that sees, on its device, and what brings pictures and words to it."""

    model: Any
    processor: Any
    device: torch.device
    dtype: torch.dtype

    def answer(self, inputs: Any, max_tokens: int, stop: Stop) -> Any:
        """The tokens that the model answers with, the likeliest each time; shape (B, L).

        Raises:
            CaptioningStopped: ``stop`` said so.
        """
        inputs = inputs.to(self.device, self.dtype)  # only what is no whole number takes the precision
        criteria = StoppingCriteriaList([_Asked(stop)])
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs, max_new_tokens=max_tokens, do_sample=False, num_beams=1, stopping_criteria=criteria
            )
        if stop():
            raise CaptioningStopped
        return tokens

    def texts(self, tokens: Any) -> list[str]:
        """Tokens as words, special ones left out."""
        return [str(text) for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]


class _Asked(StoppingCriteria):
    """Ends an answer between two tokens: a batch of long ones takes minutes on a processor."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        return torch.full((input_ids.shape[0],), self._stop(), dtype=torch.bool, device=input_ids.device)


def load_vision(folder: Path, device: torch.device) -> Vision:
    """Load model and processor; 16 bit on a GPU, 32 on a processor.

    Raises:
        ModelFileError: something is missing, damaged, or of a class that is not known here.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # a bar would tear the screen
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model, told = AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True,
            output_loading_info=True, dtype=dtype,
        )  # fmt: skip
        model = model.eval().to(device)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError) as err:
        # transformers has no error of its own for a folder that is not what it says it is.
        if ran_out(err):
            raise ModelFileError(
                "The captioning model does not fit into the GPU's memory",
                f"{safe_text(folder, 400)}: {first_line(err)}",
                "Take a smaller one, or end what else uses the GPU.",
            ) from err
        raise ModelFileError(
            "The captioning model cannot be loaded", f"{safe_text(folder, 400)}: {first_line(err)}", _hint(err)
        ) from err
    if missing := sorted(told["missing_keys"]) + sorted(str(key) for key in told["mismatched_keys"]):
        names = ", ".join(safe_text(name, 120) for name in missing[:3])
        raise ModelFileError(
            "The captioning model is incomplete",
            f"{safe_text(folder, 400)}: {len(missing)} weights are missing or of another size, such as {names}",
            "Get all its files. Of Florence-2 take a version for transformers (florence-community/Florence-2-large).",
        )
    return Vision(model, processor, device, dtype)


def _hint(err: BaseException) -> str:
    text = str(err)
    if isinstance(err, ImportError) or "torchvision" in text.lower() or "VIDEO_PROCESSOR" in text:
        return "Its class needs another package (often torchvision, num2words or sentencepiece): install it with pip."
    if "trust_remote_code" in text or "custom code" in text:
        return "It needs Python code from its folder, which is never run here: take a version made for transformers."
    return "Get all its files anew: config.json, *.safetensors, and those of its processor and tokenizer."


def opened(pictures: Sequence[Picture]) -> list[Image.Image]:
    """Pictures as processors take them."""
    return [Image.fromarray(picture) for picture in pictures]
