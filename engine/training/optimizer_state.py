"""An optimizer's whole state as named tensors and plain JSON, and back, bit for bit.

Reads and writes the state itself instead of going through ``state_dict``: its loading casts, and bitsandbytes wraps
its own. No pickle: tensors go into safetensors, everything else is JSON, where a tuple is ``{"tuple": [...]}``, an
infinite number ``{"float": "inf"}``, and a tensor ``{"tensor": name}``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from engine.errors import RunError
from engine.text import safe_text


def optimizer_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state, its tensors as copies on the CPU; see :func:`optimizer_tensors`."""
    tensors, plain = optimizer_tensors(optimizer)
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}, plain


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state, its tensors being the optimizer's own, which the next step changes.

    Tensors are named ``state.<parameter>.<key>``, parameters numbered through all groups in order. The JSON holds the
    optimizer's class, the groups with all their settings and counters, and the rest of each parameter's state.
    """
    tensors: dict[str, Tensor] = {}
    groups, states = [], []
    for number, group in enumerate(optimizer.param_groups):
        settings = {key: value for key, value in group.items() if key != "params"}
        packed = {key: _pack(value, f"group.{number}.{key}", tensors) for key, value in settings.items()}
        sizes = [parameter.numel() for parameter in group["params"]]
        groups.append({"parameters": sizes, "settings": packed})
    for index, parameter in enumerate(_parameters(optimizer)):
        entries = optimizer.state.get(parameter, {})
        states.append({key: _pack(value, f"state.{index}.{key}", tensors) for key, value in entries.items()})
    return tensors, {"class": type(optimizer).__name__, "groups": groups, "state": states}


_OWN = {"params", "lr", "initial_lr", "weight_decay", "betas", "eps", "d_coef"}
"""Of a group: its parameters, and the settings that the configuration gives. One changed before a resume counts,
unlike counters."""


def load_optimizer_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Put a state back into an optimizer built in the same way; afterwards it goes on as the one that was saved.

    Raises:
        RunError: it is the state of another optimizer, of other parameters, or incomplete; nothing was changed.
    """
    try:
        groups, states = _checked(optimizer, plain)
        settings = [{key: _unpack(value, tensors) for key, value in group["settings"].items()} for group in groups]
        entries = [{key: _unpack(value, tensors) for key, value in state.items()} for state in states]
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as err:
        raise _misfit(f"it is damaged ({safe_text(repr(err), 200)})", "The training state is incomplete.") from err
    optimizer.state.clear()
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update({key: value for key, value in values.items() if key not in _OWN})
        for parameter in group["params"]:
            own = entries.pop(0)
            if own:
                optimizer.state[parameter] = {
                    key: _placed(optimizer, group, parameter, key, value) for key, value in own.items()
                }


def _parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous()
        return {"tensor": name}
    if isinstance(value, tuple):
        return {"tuple": [_pack(item, f"{name}.{n}", tensors) for n, item in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(item, f"{name}.{n}", tensors) for n, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"the optimizer keeps a {type(value).__name__} in {name}, which has no plain form")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((form, content),) = value.items()
    if form == "tensor":
        if content not in tensors:
            raise _misfit(f"the tensor {safe_text(content, 80)} is missing", "The training state is incomplete.")
        return tensors[content]
    return float(content) if form == "float" else tuple(_unpack(item, tensors) for item in content)


def _placed(optimizer: Optimizer, group: Mapping[str, Any], parameter: Tensor, key: str, value: Any) -> Any:
    """A value where the optimizer expects it: tensors on the parameter's device, in memory of its own."""
    if not isinstance(value, Tensor):
        return value
    if key == "step" and not (group.get("fused") or group.get("capturable")):
        # torch counts steps on the CPU unless the kernel itself reads the count.
        return value.detach().to("cpu", copy=True)
    if getattr(optimizer, "is_paged", False) and key in ("state1", "state2"):
        # bitsandbytes pages the memory that it gives out itself.
        buffer: Tensor = optimizer.get_state_buffer(parameter, dtype=value.dtype)  # type: ignore[attr-defined]
        return buffer.copy_(value)
    return value.detach().to(parameter.device, copy=True)


def _checked(optimizer: Optimizer, plain: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    own = type(optimizer).__name__
    if plain.get("class") != own:
        raise _misfit(
            f"the state is of {safe_text(plain.get('class'), 80)}, the run uses {own}",
            "Resume with the optimizer it was saved with.",
        )
    groups, states = plain.get("groups"), plain.get("state")
    if not isinstance(groups, list) or not isinstance(states, list):
        raise _misfit("its groups or its states are missing", "The training state is incomplete.")
    have = [[parameter.numel() for parameter in group["params"]] for group in optimizer.param_groups]
    saved = [group["parameters"] for group in groups]
    if saved != have or len(states) != sum(map(len, have)):
        raise _misfit(
            f"it has {safe_text(saved, 400)} values by group and parameter, the run {have}",
            "Resume with the [lora] and [optimizer] settings it was saved with.",
        )
    return groups, states


def _misfit(detail: str, hint: str) -> RunError:
    return RunError("The optimizer's saved state does not fit", detail, hint)
