"""The adapter itself: a linear with a low-rank update beside it, and the set of all of them in one transformer.

Owns the two matrices of every target and nothing else: the base linear is kept inside, frozen and uncopied.
:func:`inject` puts the adapters in by attribute name, so the transformer's forward runs unchanged;
:meth:`LoraSet.remove` takes them out again. Files are :mod:`engine.lora.formats`'s.

Arithmetic as in kohya sd-scripts (``networks/lora.py``): ``y = W x + m * alpha/r * up(dropout(down x))``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import LoraConfig
from engine.draws import torch_generator
from engine.errors import ConfigError, ModelFileError
from engine.lora.targets import Shape, Target


@dataclass
class Strength:
    """How strongly all adapters of a set act; 0 is off. Shared by them, so that one assignment switches all."""

    value: float = 1.0


class LoraLinear(nn.Module):
    """A frozen linear and its low-rank update.

    ``down`` (r, in) and ``up`` (out, r) are float32 whatever the base's precision. Under autocast their products are
    made in autocast's type, else in float32; the sum has the type of the base's output.
    """

    def __init__(self, base: nn.Linear, target: Target, config: LoraConfig, strength: Strength) -> None:
        super().__init__()
        device = base.weight.device
        self.base = base
        self.scale = target.scale
        self.strength = strength
        self.dropout = config.dropout
        self.rank_dropout = config.rank_dropout
        self.module_dropout = config.module_dropout
        self.down = nn.Parameter(torch.empty(target.rank, target.in_features, dtype=torch.float32, device=device))
        self.up = nn.Parameter(torch.zeros(target.out_features, target.rank, dtype=torch.float32, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            # Once for both products; a modulated norm arrives in float32 on a GPU.
            x = x.to(torch.get_autocast_dtype(kind))
        out = self.base(x)
        if self.strength.value == 0.0 or self._skipped():
            return out
        hidden = F.linear(x if torch.is_autocast_enabled(kind) else x.to(self.down.dtype), self.down)
        if self.training:
            hidden = self._drop(hidden)
        # Scaled while it is r wide, not out wide.
        delta = F.linear(hidden * (self.scale * self.strength.value), self.up)
        # In place: nothing needs the base's output by itself, and it is the largest tensor here.
        return out.add_(delta.to(out.dtype))

    def _skipped(self) -> bool:
        # Drawn on the CPU: a draw on the GPU would have to be waited for.
        return bool(self.training and self.module_dropout and torch.rand(()).item() < self.module_dropout)

    def _drop(self, hidden: Tensor) -> Tensor:
        """Drop single values, then whole ranks per sample; both keep the expectation."""
        hidden = F.dropout(hidden, self.dropout) if self.dropout else hidden
        if not self.rank_dropout:
            return hidden
        keep = torch.rand(hidden.shape[0], hidden.shape[-1], device=hidden.device) >= self.rank_dropout
        shape = (hidden.shape[0], *(1,) * (hidden.dim() - 2), hidden.shape[-1])
        return hidden * (keep.view(shape) / (1.0 - self.rank_dropout)).to(hidden.dtype)

    def delta_norm(self) -> Tensor:
        """Frobenius norm of ``alpha/r * up @ down`` as a scalar tensor.

        From the two r x r Gram matrices (``|UD|^2 = sum(U'U * DD')``), so the full product is never made.
        """
        square = ((self.up.mT @ self.up) * (self.down @ self.down.mT)).sum()
        return self.scale * square.clamp_min(0.0).sqrt()


class LoraSet:
    """All adapters of one transformer, in the order of their targets."""

    def __init__(
        self, transformer: nn.Module, modules: dict[str, LoraLinear], targets: Sequence[Target], strength: Strength
    ) -> None:
        self.modules = modules
        self.targets = tuple(targets)
        self._transformer = transformer
        self._strength = strength

    def down_parameters(self) -> list[nn.Parameter]:
        """The (r, in) matrices, in the order of the targets."""
        return [module.down for module in self.modules.values()]

    def up_parameters(self) -> list[nn.Parameter]:
        """The (out, r) matrices, in the order of the targets."""
        return [module.up for module in self.modules.values()]

    def parameters(self) -> list[nn.Parameter]:
        """All trained matrices: down and up of each target in turn."""
        return [matrix for module in self.modules.values() for matrix in (module.down, module.up)]

    @property
    def num_parameters(self) -> int:
        """Trained values."""
        return sum(matrix.numel() for matrix in self.parameters())

    def state(self) -> dict[str, Tensor]:
        """Copies on the CPU, float32, named ``<module>.lora_down.weight`` and ``<module>.lora_up.weight``."""
        return {name: matrix.detach().to("cpu", torch.float32, copy=True) for name, matrix in self._named().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of exactly these modules and ranks.

        Raises:
            ModelFileError: names are missing or left over, or a shape differs; nothing was changed.
        """
        own = self._named()
        problems = [f"missing {name}" for name in own if name not in state]
        problems += [f"not wanted {name}" for name in state if name not in own]
        problems += [
            f"{name} is {tuple(state[name].shape)}, wanted {tuple(matrix.shape)}"
            for name, matrix in own.items()
            if name in state and state[name].shape != matrix.shape
        ]
        if problems:
            raise ModelFileError(
                "The LoRA's weights do not fit the adapter",
                f"{len(problems)} differences: " + "; ".join(problems[:6]) + ("; ..." if len(problems) > 6 else ""),
                "Use the [lora] settings (targets, blocks, rank) that the weights were made with.",
            )
        with torch.no_grad():
            for name, matrix in own.items():
                matrix.copy_(state[name])

    def _named(self) -> dict[str, nn.Parameter]:
        names: dict[str, nn.Parameter] = {}
        for name, module in self.modules.items():
            names[f"{name}.lora_down.weight"] = module.down
            names[f"{name}.lora_up.weight"] = module.up
        return names

    @torch.no_grad()
    def clip_norms(self, max_norm: float) -> Tensor:
        """Scale down every update whose Frobenius norm is above ``max_norm``; both matrices share the factor.

        As kohya's ``scale_weight_norms``: with n = max(norm, max_norm / 2) each matrix is multiplied by
        ``sqrt(min(n, max_norm) / n)``. ``max_norm`` 0 changes nothing.

        Returns:
            The norms before, one per target, on the adapter's device: nothing waits for a GPU here.
        """
        norms = torch.stack([module.delta_norm() for module in self.modules.values()])
        if not max_norm:
            return norms
        floored = norms.clamp_min(max_norm / 2)
        factors = (floored.clamp_max(max_norm) / floored).sqrt()
        for module, factor in zip(self.modules.values(), factors, strict=True):
            module.down.mul_(factor)
            module.up.mul_(factor)
        return norms

    @contextlib.contextmanager
    def strength(self, multiplier: float) -> Iterator[None]:
        """Let all adapters act with ``multiplier`` while inside.

        A backward pass through gradient checkpointing runs the blocks again: it belongs inside too.
        """
        before, self._strength.value = self._strength.value, multiplier
        try:
            yield
        finally:
            self._strength.value = before

    def disabled(self) -> contextlib.AbstractContextManager[None]:
        """The base model alone while inside."""
        return self.strength(0.0)

    def remove(self) -> None:
        """Put the base linears back where they were; they stay frozen."""
        for name, module in self.modules.items():
            parent, attribute = _parent(self._transformer, name)
            setattr(parent, attribute, module.base)


def describe_linears(transformer: nn.Module, kinds: Mapping[str, str]) -> dict[str, Shape]:
    """Kind, inputs and outputs of the linears named in ``kinds`` (name to kind): what targets are selected from."""
    shapes = {}
    for name, kind in kinds.items():
        linear = transformer.get_submodule(name)
        linear = linear.base if isinstance(linear, LoraLinear) else linear
        shapes[name] = (kind, int(linear.in_features), int(linear.out_features))  # type: ignore[arg-type]
    return shapes


def inject(transformer: nn.Module, targets: Sequence[Target], config: LoraConfig, seed: int) -> LoraSet:
    """Freeze the transformer and put an adapter around each target's linear.

    ``down`` is drawn by ``kaiming_uniform(a=sqrt 5)`` from a generator of its own for each module (seed and name), on
    the CPU, so that it depends neither on the device nor on which other modules are trained; ``up`` is zero, so the
    model's output is the base's until the first step.

    Raises:
        ConfigError: a target is no linear of the transformer or has another size; nothing was changed but the
            freezing.
    """
    transformer.requires_grad_(False)
    bases = [_base_linear(transformer, target) for target in targets]
    strength = Strength()
    modules = {}
    for base, target in zip(bases, targets, strict=True):
        module = LoraLinear(base, target, config, strength)
        _draw_down(module.down, seed, target.name)
        module.train(base.training)
        parent, attribute = _parent(transformer, target.name)
        setattr(parent, attribute, module)
        modules[target.name] = module
    return LoraSet(transformer, modules, targets, strength)


def _base_linear(transformer: nn.Module, target: Target) -> nn.Linear:
    try:
        linear = transformer.get_submodule(target.name)
    except AttributeError as err:
        raise _misfit(target, "the transformer has no module of that name") from err
    if not isinstance(linear, nn.Linear):
        raise _misfit(target, f"it is a {type(linear).__name__}, not a linear")
    if (linear.in_features, linear.out_features) != (target.in_features, target.out_features):
        raise _misfit(target, f"it maps {linear.in_features} to {linear.out_features} features")
    return linear


def _misfit(target: Target, found: str) -> ConfigError:
    return ConfigError(
        "A LoRA target does not fit the model",
        f"{target.name} ({target.in_features} to {target.out_features} features): {found}",
        "The LoRA was made for another model; use it with the one it was trained on.",
    )


def _draw_down(down: nn.Parameter, seed: int, name: str) -> None:
    if down.is_meta:
        return
    drawn = torch.empty(down.shape, dtype=torch.float32)
    nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=torch_generator(seed, "lora_down", name))
    with torch.no_grad():
        down.copy_(drawn)


def _parent(root: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, attribute = name.rpartition(".")
    return root.get_submodule(path), attribute
