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
from engine.memory.meter import begin_peak, peak_bytes
from engine.memory.products8 import base_dtype, card_of

ALL_THREADS = torch.get_num_threads()
"""What torch chose; a run that asks for another number leaves no trace in the next one of this process."""


@dataclass(frozen=True)
class Compute:
    """A device with its precisions.

    Attributes:
        device: where the transformer trains.
        dtype: precision of the frozen base weights, which is that of every product with them.
        encoder_dtype: precision of text encoders; 16 bit on a GPU, float32 on a CPU.
        remark: what there is to say of the precision on this card.
    """

    accelerator: Accelerator
    device: torch.device
    dtype: torch.dtype
    encoder_dtype: torch.dtype
    remark: str = ""

    @property
    def precision(self) -> str:
        """What the model is computed in, in the words of LoRA files: bf16, or no for float32."""
        return _words(self.dtype)

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

    def sum_gradients(self, gradients: Tensor) -> None:
        """Add up the gradients of all processes, held in one buffer, in one message; nothing to do for one."""
        if self.processes > 1:
            gradients.copy_(self.sum(gradients))

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
        """Highest memory torch held on the GPU in this run, GiB; 0 on a CPU."""
        return peak_bytes(self.device) / 2**30

    def gpu_uuid(self) -> str:
        """The GPU's name for NVML; empty on a CPU."""
        if self.device.type != "cuda":
            return ""
        return f"GPU-{torch.cuda.get_device_properties(self.device).uuid}"

    def free_unused(self) -> None:
        """Hand memory that torch keeps for later back to the driver."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def wanted_dtype(dtype: str, mixed: str) -> tuple[str, str]:
    """What ``model.dtype`` and ``training.mixed_precision`` ask for together, and what there is to say about it.

    The model is computed in the dtype of its base, nothing is cast on the way: mixed_precision decides where
    ``model.dtype`` is auto, and has no say where that is given.
    """
    meant = {"bf16": "bfloat16", "no": "float32"}.get(mixed, dtype)
    if dtype == "auto":
        return meant, ""
    said = f'training.mixed_precision = "{mixed}" has no effect: model.dtype = "{dtype}" decides'
    return dtype, "" if meant == dtype else said


def _words(dtype: torch.dtype) -> str:
    return "bf16" if dtype == torch.bfloat16 else "no"


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
    torch.set_num_threads(config.training.threads or ALL_THREADS)  # counts for the calling thread: the engine's
    if config.training.deterministic:
        # cuBLAS reads this when it starts; without it deterministic products are refused.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Else torch writes NaN into all memory it hands out, in every step. Buffers here are written before they are
        # read, so what was in them decides nothing.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(config.training.deterministic)
    # float16 is none of the choices: autocast would widen the whole base anew in every pass.
    asked, unheard = wanted_dtype(config.model.dtype, config.training.mixed_precision)
    dtype, remark = base_dtype(asked, card_of(device))
    remark = "; ".join(filter(None, (unheard, remark)))
    # accelerate keeps its choice for the whole process; a second run may want another.
    AcceleratorState._reset_state(reset_partial_state=False)
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # others wait while the main one fills caches
    accelerator = Accelerator(cpu=not on_gpu, mixed_precision=_words(dtype), kwargs_handlers=[patience])
    if on_gpu and device.index is None:
        device = accelerator.device
    begin_peak(device)
    return Compute(accelerator, device, dtype, torch.bfloat16 if on_gpu else torch.float32, remark)
