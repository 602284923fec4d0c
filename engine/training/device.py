"""Where and in which precision a run computes; the one place that talks to accelerate.

accelerate gives the device, autocast and the process group. Everything that must be exact on resume (order, random
draws, the training state) is ours and knows nothing of it.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor

from engine.config import RunConfig
from engine.errors import RunError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Compute:
    """A device with its precisions.

    Attributes:
        device: where the transformer trains.
        dtype: precision of the frozen base weights.
        encoder_dtype: precision of text encoders; 16 bit on a GPU, float32 on a CPU.
    """

    accelerator: Accelerator
    device: torch.device
    dtype: torch.dtype
    encoder_dtype: torch.dtype

    @property
    def precision(self) -> str:
        """Mixed precision as resolved: no or bf16."""
        return str(self.accelerator.mixed_precision)

    @property
    def name(self) -> str:
        """The device by name; another model of GPU rounds differently."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    @property
    def processes(self) -> int:
        """How many processes share each step."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """This process's number."""
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and events."""
        return bool(self.accelerator.is_main_process)

    def autocast(self) -> AbstractContextManager[Any]:
        """The context for forward passes."""
        return self.accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        """Backpropagate one micro-batch's share of the loss."""
        self.accelerator.backward(loss)

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes, in one message; nothing to do for one."""
        if self.processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:  # this process had no micro-batch in a short last step
                parameter.grad = torch.zeros_like(parameter)
        flat = self.sum(
            torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
        )
        parts = flat.split([parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over all processes, on each of them."""
        if self.processes == 1:
            return value
        summed: Tensor = self.accelerator.reduce(value, reduction="sum")
        return summed

    def from_main(self, value: Any) -> Any:
        """The main process's ``value``, on every process; each must call this as often as the others."""
        if self.processes == 1:
            return value
        values = [value]
        broadcast_object_list(values, from_process=0)
        return values[0]

    def peak_gb(self) -> float:
        """Highest memory torch held on the GPU so far, GiB; 0 on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0

    def gpu_uuid(self) -> str:
        """The GPU's name for NVML; empty on a CPU."""
        if self.device.type != "cuda":
            return ""
        return f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def free_unused(self) -> None:
        """Hand memory that torch keeps for later back to the driver."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def compute_for(config: RunConfig) -> Compute:
    """Choose device and precisions for a run.

    Raises:
        RunError: the device asked for is not there.
    """
    wanted = config.training.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RunError(
            "No GPU that torch can use",
            f'training.device = "{wanted}", but torch {torch.__version__} finds no CUDA device',
            'Check the driver with nvidia-smi, or set training.device = "cpu".',
        )
    on_gpu = device.type == "cuda"
    if on_gpu and (device.index or 0) >= torch.cuda.device_count():
        raise RunError(
            "No such GPU",
            f'training.device = "{wanted}", but there are {torch.cuda.device_count()} (counted from 0)',
            'Set training.device = "auto" or a lower number.',
        )
    if on_gpu and device.index is not None:
        torch.cuda.set_device(device)
    if config.training.deterministic:
        # cuBLAS reads this when it starts; without it deterministic products are refused.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.training.deterministic)
    # float16 is none of the choices: autocast would widen the whole base anew in every pass.
    chosen = config.model.dtype if config.model.dtype != "auto" else ("bfloat16" if on_gpu else "float32")
    precision = config.training.mixed_precision
    if precision == "auto":
        precision = "bf16" if on_gpu else "no"
    # accelerate keeps its choice for the whole process; a second run may want another.
    AcceleratorState._reset_state(reset_partial_state=False)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # others wait while the main one fills caches
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision=precision, kwargs_handlers=[patience])
    if on_gpu and device.index is None:
        device = accelerator.device
    return Compute(accelerator, device, DTYPES[chosen], torch.bfloat16 if on_gpu else torch.float32)
