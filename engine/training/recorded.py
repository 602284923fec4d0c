"""A micro-batch's loss and its backward as one recorded piece of work, where ``memory.cuda_graphs`` wants that.

Between a micro-batch's tensors and the flat gradients nothing depends on values, so the whole of it can be recorded
once a shape (:mod:`engine.blocks.graphs`) and replayed: one launch instead of thousands. Clipping, the update and
whatever is read by the host stay outside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from engine.blocks.graphs import CudaGraphs, GraphDevice, StepGraphs, refusal
from engine.config import RunConfig
from engine.models.family import TextEmbeds
from engine.models.modulation import Modulation
from engine.training.device import Compute
from engine.training.objective import Inputs, Objective


@dataclass(frozen=True)
class Recorded:
    """Loss and backward of a micro-batch through recordings.

    Attributes:
        graphs: the recordings; ``graphs.reason`` says why none are made any more.
    """

    objective: Objective
    compute: Compute
    graphs: StepGraphs

    def loss(self, inputs: Inputs, share: int, strength: float = 1.0) -> Tensor:
        """This micro-batch's share (1/``share``) of the step's loss, detached; its gradients are added up.

        ``strength`` is that of the adapters, which a recording has built in. The result is valid until the next call.
        """

        def work(*tensors: Tensor) -> tuple[Tensor]:
            loss = self.objective.loss(_with_tensors(inputs, tensors)) / share
            self.compute.backward(loss)
            return (loss.detach(),)

        key = (share, strength, inputs.modulation is not None, inputs.loss_mask is not None)
        found: tuple[Tensor] = self.graphs.run(key, work, _tensors(inputs))
        return found[0]

    def forget(self) -> None:
        """Weights or adapters have moved: what was recorded reads elsewhere."""
        self.graphs.forget()


def recorded(
    config: RunConfig, objective: Objective, compute: Compute, device: GraphDevice | None = None
) -> tuple[Recorded | None, str]:
    """Recordings for a run, or None and why not, in words; no words where nobody asked for them.

    ``device`` stands in for CUDA in tests.
    """
    lora, memory = config.lora, config.memory
    why = refusal(
        memory.cuda_graphs,
        compute.device,
        streamed=memory.blocks_to_swap,
        offload=config.training.gradient_checkpointing == "offload",
        dropout=bool(lora.dropout or lora.rank_dropout or lora.module_dropout),
        processes=compute.processes,
    )
    if why:
        return None, "" if memory.cuda_graphs == "off" else f"steps run without CUDA graphs: {why}"
    return Recorded(objective, compute, StepGraphs(device or CudaGraphs(compute.device))), ""


def _tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    text = inputs.text
    found: tuple[Tensor, ...]
    found = (inputs.latents, inputs.noise, inputs.sigmas, inputs.weights, text.states, text.pooled, text.mask)
    if inputs.loss_mask is not None:
        found = (*found, inputs.loss_mask)
    if inputs.modulation is None:
        return found
    return (*found, inputs.modulation.rows, inputs.modulation.vec)


def _with_tensors(inputs: Inputs, tensors: tuple[Tensor, ...]) -> Inputs:
    latents, noise, sigmas, weights, states, pooled, mask, *rest = tensors
    text: TextEmbeds = replace(inputs.text, states=states, pooled=pooled, mask=mask)
    values: dict[str, Any] = {"latents": latents, "noise": noise, "sigmas": sigmas, "weights": weights, "text": text}
    if inputs.loss_mask is not None:
        values["loss_mask"] = rest.pop(0)
    return replace(inputs, **values, modulation=Modulation(rest[0], rest[1]) if rest else None)
