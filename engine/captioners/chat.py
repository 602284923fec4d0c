"""Chat-style vision models (LLaVA, JoyCaption, Gemma, Qwen): a picture and a prompt in the model's own template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from engine.captioners.weights import Picture, Stop, Vision, opened


class Chat:
    """Captions by a model that is talked to.

    Args:
        vision: the model. Without a template for chats it is talked to as the first LLaVA was.
        prompt: what it is asked.
        max_tokens: longest answer.
    """

    def __init__(self, vision: Vision, prompt: str, max_tokens: int) -> None:
        self._vision, self._prompt, self._max_tokens = vision, prompt, max_tokens
        vision.processor.tokenizer.padding_side = "left"  # an answer begins where its prompt ends

    def caption(self, pictures: Sequence[Picture], stop: Stop) -> list[str]:
        """One answer for each picture."""
        inputs = self._asked(opened(pictures))
        tokens = self._vision.answer(inputs, self._max_tokens, stop)
        if not self._vision.model.config.is_encoder_decoder:
            tokens = tokens[:, inputs["input_ids"].shape[1] :]
        return self._vision.texts(tokens)

    def _asked(self, pictures: Sequence[Image.Image]) -> Any:
        processor = self._vision.processor
        if not processor.chat_template:
            sign = getattr(processor, "image_token", "<image>")
            prompts = [f"USER: {sign}\n{self._prompt} ASSISTANT:"] * len(pictures)
            return processor(text=prompts, images=list(pictures), return_tensors="pt", padding=True)
        chats = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": picture}, {"type": "text", "text": self._prompt}],
                }
            ]
            for picture in pictures
        ]
        return processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
        )
