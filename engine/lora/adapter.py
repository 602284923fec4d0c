"""The adapter itself: a low-rank update beside each target's linear, and the set of all of them.

Owns the two matrices of every target, as views into :class:`~engine.lora.flat.FlatStorage`, and nothing else.
:func:`make_adapters` makes them without a transformer; :func:`inject` also wraps a plain model's linears, frozen and
uncopied, so that its forward runs unchanged, and :meth:`LoraSet.remove` unwraps them. Files are those of
:mod:`engine.lora.formats`.

Arithmetic as in kohya sd-scripts (``networks/lora.py``): ``y = W x + m * alpha/r * up(dropout(down x))``.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.config import LoraConfig
from engine.draws import torch_generator
from engine.errors import ConfigError, ModelFileError
from engine.lora.flat import FlatStorage
from engine.lora.targets import Shape, Target


@dataclass
class Strength:
    """How strongly all adapters of a set act; 0 is off. Shared by them, so that one assignment switches all."""

    value: float = 1.0


class Adapter:
    """One target's two matrices: ``down`` (r, in) and ``up`` (out, r), float32 whatever the base's precision.

    Both are views into flat storage, and so are their gradients, into which autograd accumulates.
    """

    def __init__(
        self, target: Target, config: LoraConfig, strength: Strength, storage: FlatStorage, number: int
    ) -> None:
        self.target = target
        self.strength = strength
        self.dropout = config.dropout
        self.rank_dropout = config.rank_dropout
        self.module_dropout = config.module_dropout
        self.down = storage.downs[number]
        self.up = storage.ups[number]
        self._storage = storage
        self._number = number

    @property
    def scale(self) -> float:
        """The factor on ``up @ down``, strength left out."""
        return self.target.scale

    def compute(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Down and up detached in ``dtype``: views of one copy of all matrices, made once per optimizer step.

        They hold what the matrices held at the last :meth:`LoraSet.refresh`; in float32 they are the matrices.
        """
        return self._storage.cast(self._number, dtype)

    def skipped(self) -> bool:
        """Whether module dropout leaves the update out this time (a draw; to be asked in training only)."""
        # Drawn on the CPU: a draw on the GPU would have to be waited for.
        return bool(self.module_dropout and torch.rand(()).item() < self.module_dropout)


class LoraLinear(nn.Module):
    """A frozen linear and its low-rank update.

    Under autocast the update's products are made in autocast's type, else in float32; the sum has the type of the
    base's output.
    """

    def __init__(self, base: nn.Linear, adapter: Adapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter
        self.down = adapter.down
        self.up = adapter.up

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move or cast the base alone: a matrix moved by itself would be torn out of flat storage."""
        self.base._apply(fn, recurse)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        kind, adapter = x.device.type, self.adapter
        if torch.is_autocast_enabled(kind):
            # Once for both products; a modulated norm arrives in float32 on a GPU.
            x = x.to(torch.get_autocast_dtype(kind))
        out = self.base(x)
        if adapter.strength.value == 0.0 or (self.training and adapter.skipped()):
            return out
        hidden = F.linear(x if torch.is_autocast_enabled(kind) else x.to(self.down.dtype), self.down)
        if self.training:
            hidden = self._drop(hidden)
        # Scaled while it is r wide, not out wide.
        delta = F.linear(hidden * (adapter.scale * adapter.strength.value), self.up)
        # In place: nothing needs the base's output by itself, and it is the largest tensor here.
        return out.add_(delta.to(out.dtype))

    def _drop(self, hidden: Tensor) -> Tensor:
        """Drop single values, then whole ranks per sample; both keep the expectation."""
        dropout, rank_dropout = self.adapter.dropout, self.adapter.rank_dropout
        hidden = F.dropout(hidden, dropout) if dropout else hidden
        if not rank_dropout:
            return hidden
        keep = torch.rand(hidden.shape[0], hidden.shape[-1], device=hidden.device) >= rank_dropout
        shape = (hidden.shape[0], *(1,) * (hidden.dim() - 2), hidden.shape[-1])
        return hidden * (keep.view(shape) / (1.0 - rank_dropout)).to(hidden.dtype)


class LoraSet:
    """All adapters of one transformer, in the order of their targets.

    Whoever changes matrices calls :meth:`refresh` afterwards; the methods here that change them do it themselves.

    Attributes:
        adapters: by the name of their module.
        modules: the wrapped linears by name; none where the transformer was not injected into.
    """

    def __init__(self, adapters: dict[str, Adapter], storage: FlatStorage, strength: Strength) -> None:
        self.adapters = adapters
        self.modules: dict[str, LoraLinear] = {}
        self.targets = tuple(adapter.target for adapter in adapters.values())
        self._storage = storage
        self._strength = strength
        self._transformer: nn.Module | None = None

    def wrap(self, transformer: nn.Module, bases: Mapping[str, nn.Linear]) -> None:
        """Put a :class:`LoraLinear` in the place of each base linear; :meth:`remove` undoes it."""
        self._transformer = transformer
        for name, base in bases.items():
            module = LoraLinear(base, self.adapters[name]).train(base.training)
            parent, attribute = _parent(transformer, name)
            setattr(parent, attribute, module)
            self.modules[name] = module

    @property
    def weights(self) -> Tensor:
        """All matrices' values in one buffer, padding included; not to be replaced."""
        return self._storage.weights

    @property
    def gradients(self) -> Tensor:
        """All gradients in one buffer, placed as :attr:`weights`."""
        return self._storage.gradients

    def flat_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What an elementwise optimizer steps on: the buffer's parts with all downs, and those with all ups."""
        downs, ups = self._storage.pieces
        return list(downs), list(ups)

    def stacked_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """What an optimizer that needs matrices steps on: downs, then ups, as (matrices, rows, columns) by kind."""
        downs, ups = self._storage.stacks
        return list(downs), list(ups)

    def zero_grad(self) -> None:
        """Set all gradients to zero, in one operation."""
        self._storage.gradients.zero_()

    def refresh(self) -> None:
        """Take the matrices as they now are for coming passes in another precision, in one operation."""
        self._storage.refresh()

    def move(self, device: torch.device) -> None:
        """Move all matrices and gradients; parameters stay the same objects."""
        self._storage.move(device)

    def down_parameters(self) -> list[nn.Parameter]:
        """The (r, in) matrices, in the order of the targets."""
        return [adapter.down for adapter in self.adapters.values()]

    def up_parameters(self) -> list[nn.Parameter]:
        """The (out, r) matrices, in the order of the targets."""
        return [adapter.up for adapter in self.adapters.values()]

    def parameters(self) -> list[nn.Parameter]:
        """All trained matrices: down and up of each target in turn."""
        return [matrix for adapter in self.adapters.values() for matrix in (adapter.down, adapter.up)]

    @property
    def num_parameters(self) -> int:
        """Trained values."""
        return sum(matrix.numel() for matrix in self.parameters())

    def state(self, copied: Tensor | None = None) -> dict[str, Tensor]:
        """The matrices on the CPU, float32, named ``<module>.lora_down.weight`` and ``<module>.lora_up.weight``.

        Views of ``copied``, a copy of :attr:`weights`, or of a copy made here.
        """
        flat = self.weights.to("cpu", copy=True) if copied is None else copied
        return dict(zip(self._named(), self._storage.matrices(flat), strict=True))

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
        self.refresh()

    def _named(self) -> dict[str, nn.Parameter]:
        names: dict[str, nn.Parameter] = {}
        for name, adapter in self.adapters.items():
            names[f"{name}.lora_down.weight"] = adapter.down
            names[f"{name}.lora_up.weight"] = adapter.up
        return names

    @torch.no_grad()
    def clip_norms(self, max_norm: float, held: Tensor | None = None) -> Tensor:
        """Scale down every update whose Frobenius norm is above ``max_norm``; both matrices share the factor.

        As kohya's ``scale_weight_norms``: with n = max(norm, max_norm / 2) each matrix is multiplied by
        ``sqrt(min(n, max_norm) / n)``. ``max_norm`` 0 changes nothing, and neither does ``held``, a flag on the
        device, where it is set.

        Returns:
            The norms before, one per target, on the adapter's device: nothing waits for a GPU here.
        """
        kinds = list(zip(self._storage.members, *self._storage.stacks, strict=True))
        by_target: list[Tensor] = [self.weights] * len(self.targets)
        for members, downs, ups in kinds:
            norms = self.targets[members[0]].scale * _product_norms(downs, ups)
            for number, norm in zip(members, norms.unbind(), strict=True):
                by_target[number] = norm
            if max_norm:
                floored = norms.clamp_min(max_norm / 2)
                factors = (floored.clamp_max(max_norm) / floored).sqrt()
                if held is not None:
                    factors = factors.masked_fill(held, 1.0)
                downs.mul_(factors[:, None, None])
                ups.mul_(factors[:, None, None])
        if max_norm:
            self.refresh()
        return torch.stack(by_target)

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
        if self._transformer is None:
            return
        for name, module in self.modules.items():
            parent, attribute = _parent(self._transformer, name)
            setattr(parent, attribute, module.base)
        self.modules, self._transformer = {}, None


def describe_linears(transformer: nn.Module, kinds: Mapping[str, str]) -> dict[str, Shape]:
    """Kind, inputs and outputs of the linears named in ``kinds`` (name to kind): what targets are selected from."""
    shapes = {}
    for name, kind in kinds.items():
        linear = transformer.get_submodule(name)
        linear = linear.base if isinstance(linear, LoraLinear) else linear
        shapes[name] = (kind, int(linear.in_features), int(linear.out_features))  # type: ignore[arg-type]
    return shapes


def make_adapters(targets: Sequence[Target], config: LoraConfig, seed: int, device: torch.device) -> LoraSet:
    """Adapters for ``targets`` on ``device``.

    ``down`` is drawn by ``kaiming_uniform(a=sqrt 5)`` from a generator of its own for each module (seed and name), on
    the CPU, so that it depends neither on the device nor on which other modules are trained; ``up`` is zero, so the
    model's output is the base's until the first step.
    """
    storage = FlatStorage(
        [(target.rank, target.in_features) for target in targets],
        [(target.out_features, target.rank) for target in targets],
        [(target.rank, target.in_features, target.out_features, target.alpha) for target in targets],
        device,
    )
    strength = Strength()
    adapters = {
        target.name: Adapter(target, config, strength, storage, number) for number, target in enumerate(targets)
    }
    for name, adapter in adapters.items():
        _draw_down(adapter.down, seed, name)
    return LoraSet(adapters, storage, strength)


def inject(transformer: nn.Module, targets: Sequence[Target], config: LoraConfig, seed: int) -> LoraSet:
    """Freeze the transformer and put an adapter (:func:`make_adapters`) around each target's linear.

    Raises:
        ConfigError: a target is no linear of the transformer or has another size; nothing was changed but the
            freezing.
    """
    transformer.requires_grad_(False)
    bases = {target.name: _base_linear(transformer, target) for target in targets}
    device = next((base.weight.device for base in bases.values()), torch.device("cpu"))
    lora = make_adapters(targets, config, seed, device)
    lora.wrap(transformer, bases)
    return lora


def _product_norms(downs: Tensor, ups: Tensor) -> Tensor:
    """Frobenius norms (n,) of ``up @ down`` for downs (n, r, in) and ups (n, out, r).

    From the r x r Gram matrices (``|UD|^2 = sum(U'U * DD')``), so the full products are never made.
    """
    square = ((ups.mT @ ups) * (downs @ downs.mT)).sum((-2, -1))
    return square.clamp_min(0.0).sqrt()


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
