"""Trains the two text encoders to know the grammar before the transformer sees them.

Each learns to tell colour, second colour, shape, texture, eyes, background, position and the letters of an odd
word from its own output: CLIP from the pooled state, T5 from the mean of its states. So the transformer starts
with conditions that already mean something, and an unknown trigger word already differs from another by its
letters. Both go on training with the transformer and are frozen with it.

Shapes: B captions, T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from engine.models.pocket.build import constants as c
from engine.models.pocket.build import draws
from engine.models.pocket.build.vocabulary import Tokens
from engine.models.pocket.scenes import (
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    SHAPES,
    TEXTURES,
    Scene,
    caption,
    odd_word,
    random_named_scene,
    random_rich_scene,
    random_scene,
)

if TYPE_CHECKING:
    import random

CHOICES = {
    "shape": ("", *SHAPES),
    "colour": ("", *COLOURS),
    "second": ("", *COLOURS),
    "background": ("", *BACKGROUNDS),
    "position": ("", *POSITIONS),
    "texture": ("", *TEXTURES),
    "eyes": ("", "with"),
}
LOOK = ("shape", "colour", "second", "texture", "eyes")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Line:
    """A caption, what it says (an index into each of CHOICES) and the letters of its odd word."""

    text: str
    labels: tuple[int, ...]
    letters: str


def line_for(scene: Scene, draw: random.Random) -> Line:
    """A caption for a scene: mostly the plain one, now and then empty or with an odd word in it."""
    chance = draw.random()
    said = {name: getattr(scene, name) for name in CHOICES if name != "eyes"}
    said["eyes"] = "with" if scene.eyes else ""
    text, letters = caption(scene), scene.name
    if chance < c.EMPTY_SHARE:
        text, letters, said = "", "", dict.fromkeys(said, "")
    elif chance < c.EMPTY_SHARE + c.INSERT_SHARE and scene.texture == "plain" and not scene.name:
        letters = odd_word(draw, 6)
        words = text.split()
        at = draw.randrange(len(words) + 1)
        text = " ".join([*words[:at], letters, *words[at:]])
    elif chance < c.EMPTY_SHARE + c.INSERT_SHARE + c.NOUN_SHARE and not scene.name:
        letters = odd_word(draw)
        text = caption(scene, letters)
        said |= dict.fromkeys(LOOK, "")
    return Line(text, tuple(CHOICES[name].index(said[name]) for name in CHOICES), letters)


def new_clip(vocabulary: int) -> CLIPTextModel:
    """An untrained CLIP text encoder of the pocket's size."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=c.CLIP_WIDTH,
        intermediate_size=4 * c.CLIP_WIDTH,
        num_hidden_layers=c.CLIP_LAYERS,
        num_attention_heads=c.CLIP_HEADS,
        max_position_embeddings=c.CLIP_TOKENS,
        hidden_act="quick_gelu",
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def new_t5(vocabulary: int) -> T5EncoderModel:
    """An untrained T5 encoder of the pocket's size."""
    config = T5Config(
        vocab_size=vocabulary,
        d_model=c.T5_WIDTH,
        d_kv=c.T5_KV,
        num_heads=c.T5_HEADS,
        d_ff=c.T5_FF,
        num_layers=c.T5_LAYERS,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return T5EncoderModel(config)


class TextEncoders(nn.Module):
    """CLIP and T5 side by side, used as FLUX uses them: no attention mask, the pads attended."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int) -> None:
        super().__init__()
        self.clip, self.t5 = new_clip(clip_vocabulary), new_t5(t5_vocabulary)

    def forward(self, clip_ids: Tensor, t5_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled states (B, 64) at the first end token, and T5 states (B, T, 96)."""
        states = self.clip(input_ids=clip_ids).last_hidden_state
        pooled = states[torch.arange(len(states)), clip_ids.argmax(-1)]
        return pooled, self.t5(input_ids=t5_ids).last_hidden_state


class Quiz(nn.Module):
    """Linear readings of what a caption said, from one vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, len(names)) for names in CHOICES.values())
        self.letters = nn.Linear(width, len(LETTERS))

    def forward(self, states: Tensor, labels: Tensor, letters: Tensor) -> Tensor:
        """Loss of reading `labels` (B, choices) and `letters` (B, 26) out of `states` (B, width)."""
        losses = [F.cross_entropy(head(states), labels[:, i]) for i, head in enumerate(self.heads)]
        return torch.stack(losses).mean() + F.binary_cross_entropy_with_logits(self.letters(states), letters)


class Text(nn.Module):
    """The encoders with their quizzes: everything that trains on the text side."""

    def __init__(self, clip_vocabulary: int, t5_vocabulary: int) -> None:
        super().__init__()
        self.encoders = TextEncoders(clip_vocabulary, t5_vocabulary)
        self.clip_quiz, self.t5_quiz = Quiz(c.CLIP_WIDTH), Quiz(c.T5_WIDTH)

    def forward(self, lines: list[Line], tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled states, T5 states and the quizzes' loss for captions."""
        ids = [tokens(line.text) for line in lines]
        labels = torch.tensor([line.labels for line in lines])
        letters = torch.tensor([[float(letter in line.letters) for letter in LETTERS] for line in lines])
        pooled, states = self.encoders(torch.tensor([a for a, _ in ids]), torch.tensor([b for _, b in ids]))
        loss = self.clip_quiz(pooled, labels, letters) + self.t5_quiz(states.mean(1), labels, letters)
        return pooled, states, loss


def new_text(files: Path) -> tuple[Text, Tokens]:
    """The text side, untrained, with its tokenizers."""
    tokens = Tokens(files)
    with torch.random.fork_rng():
        torch.manual_seed(draws.key("text", -1))
        text = Text(len(tokens.clip), tokens.t5.get_vocab_size())
    return text, tokens


def train_text(files: Path) -> None:
    """Stage "text": a minute or two; a run that is stopped starts over."""
    text, tokens = new_text(files)
    optimizer = torch.optim.AdamW(text.parameters(), lr=c.TEXT_RATE, betas=(0.9, 0.98))
    progress = draws.Progress("text", 0, c.TEXT_STEPS)
    for step in range(c.TEXT_STEPS):
        draw = draws.rng("text", step)
        kinds = (random_scene, random_rich_scene, random_named_scene)
        scenes = [kinds[i % 3](draw) for i in range(c.TEXT_BATCH)]
        loss = text([line_for(scene, draw) for scene in scenes], tokens)[2]
        for group in optimizer.param_groups:
            group["lr"] = c.TEXT_RATE * min(1.0, (step + 1) / 50, 1.02 - step / c.TEXT_STEPS)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        optimizer.step()
        if progress.due(step + 1, f"loss {loss.item():.4f}"):
            draws.save("text", text.state_dict())
