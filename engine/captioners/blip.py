"""BLIP: writes on from the words it is given, or from nothing."""

from __future__ import annotations

from collections.abc import Sequence

from engine.captioners.weights import Picture, Stop, Vision, opened


class Blip:
    """Captions by BLIP.

    Args:
        vision: the model.
        prompt: how every answer begins; "" leaves that to the model.
        max_tokens: longest answer.
    """

    def __init__(self, vision: Vision, prompt: str, max_tokens: int) -> None:
        self._vision, self._prompt, self._max_tokens = vision, prompt, max_tokens

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One answer for each picture, its beginning included."""
        words = {"text": [self._prompt] * len(pictures)} if self._prompt else {}
        inputs = self._vision.processor(images=opened(pictures), return_tensors="pt", **words)
        return self._vision.texts(self._vision.answer(inputs, self._max_tokens, stop))
