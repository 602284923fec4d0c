"""Florence-2: asked by a task such as ``<MORE_DETAILED_CAPTION>``."""

from __future__ import annotations

from collections.abc import Sequence

from engine.captioners.weights import Picture, Stop, Vision, opened
from engine.errors import ModelFileError
from engine.text import safe_text

TASKS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>", "<OCR>")
"""What it can be asked that is answered by a text and needs no further words."""


class Florence:
    """Captions by Florence-2.

    Args:
        vision: the model.
        prompt: one of :data:`TASKS`, or plain words.
        max_tokens: longest answer.

    Raises:
        ModelFileError: the prompt has the form of a task and is none of them.
    """

    def __init__(self, vision: Vision, prompt: str, max_tokens: int) -> None:
        if "<" in prompt and prompt not in TASKS:
            raise ModelFileError(
                "Florence-2 knows no such task", safe_text(prompt, 200), f"Ask for one of {', '.join(TASKS)}."
            )
        self._vision, self._prompt, self._max_tokens = vision, prompt, max_tokens

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One answer for each picture."""
        prompts = [self._prompt] * len(pictures)
        inputs = self._vision.processor(text=prompts, images=opened(pictures), return_tensors="pt", padding=True)
        return self._vision.texts(self._vision.answer(inputs, self._max_tokens, stop))
