"""BLIP-2: writes on from the words it is given, or answers ``Question: ... Answer:``."""

from __future__ import annotations

from collections.abc import Sequence

from engine.captioners.weights import Picture, Stop, Vision, opened


class Blip2:
    """Captions by BLIP-2.

    Args:
        vision: the model.
        prompt: how every answer begins, or a question; "" leaves it to the model.
        max_tokens: longest answer.
    """

    def __init__(self, vision: Vision, prompt: str, max_tokens: int) -> None:
        self._vision, self._prompt, self._max_tokens = vision, prompt, max_tokens
        vision.processor.tokenizer.padding_side = "left"  # an answer begins where its prompt ends

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One answer for each picture; a beginning is a part of it, a question is not."""
        prompts = [self._prompt] * len(pictures)
        inputs = self._vision.processor(images=opened(pictures), text=prompts, return_tensors="pt", padding=True)
        tokens = self._vision.answer(inputs, self._max_tokens, stop)
        if self._vision.model.config.use_decoder_only_language_model:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        answers = self._vision.texts(tokens)
        if not self._prompt or self._prompt.rstrip().endswith(":"):
            return answers
        return [f"{self._prompt} {answer}" for answer in answers]
