"""Every optimizer: it learns, it resumes bit for bit from tensors and JSON, and bad settings are refused."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.config import LoraConfig, OptimizerConfig
from engine.errors import ConfigError, RunError
from engine.lora.adapter import LoraSet, inject
from engine.lora.targets import Target
from engine.training.optimizer import build_optimizer, clip_gradients, eval_weights, set_mode
from engine.training.optimizer_state import load_optimizer_state, optimizer_state

NAMES = get_args(OptimizerConfig.model_fields["name"].annotation)
# Large enough that bitsandbytes keeps their state in 8 bits (4096 values).
WIDTH, RANK = 576, 8


def _lora() -> tuple[nn.Module, LoraSet]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(WIDTH, WIDTH), "b": nn.Linear(WIDTH, 20)})
    targets = [Target("a", "single", WIDTH, WIDTH, RANK, 8.0), Target("b", "single", WIDTH, 20, RANK, 8.0)]
    return model, inject(model, targets, LoraConfig(), seed=0)


def _config(name: str, **settings: Any) -> OptimizerConfig:
    rate = 1.0 if name == "prodigy" else 1e-3
    return OptimizerConfig.model_validate({"name": name, "learning_rate": rate, **settings})


def _set_grad(matrix: nn.Parameter, grad: Tensor) -> None:
    assert matrix.grad is not None
    matrix.grad.copy_(grad)


def _train(model: Any, lora: LoraSet, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> list[float]:
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(16, WIDTH, generator=generator)
        # A rate that changes, as under a schedule.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1.0 - step / 20)
        out = model["b"](torch.tanh(model["a"](x)))
        loss = (out - x[:, :20]).pow(2).mean()
        loss.backward()
        clip_gradients(lora.gradients, 1.0)
        optimizer.step()
        lora.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_resume_is_bit_exact(name: str, ratio: float, tmp_path: Path) -> None:
    if name == "prodigy" and ratio != 1.0:
        pytest.skip("refused, see below")
    config = _config(name, lora_plus_ratio=ratio)
    model, lora = _lora()
    whole = build_optimizer(lora, config)
    wanted_losses = _train(model, lora, whole, range(8))
    wanted = lora.state()

    model, lora = _lora()
    first = build_optimizer(lora, config)
    losses = _train(model, lora, first, range(4))
    tensors, plain = optimizer_state(first)
    save_file({**tensors, **lora.state()}, tmp_path / "state.safetensors")
    (tmp_path / "state.json").write_text(json.dumps(plain, allow_nan=False))

    model, lora = _lora()
    second = build_optimizer(lora, config)
    saved = load_file(tmp_path / "state.safetensors")
    lora.load_state({key: value for key, value in saved.items() if key.endswith(".weight")})
    load_optimizer_state(second, saved, json.loads((tmp_path / "state.json").read_text()))
    losses += _train(model, lora, second, range(4, 8))

    assert losses == wanted_losses
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in lora.state().items())
    one, two = optimizer_state(whole), optimizer_state(second)
    assert one[1] == two[1]
    assert all(torch.equal(tensor, two[0][key]) for key, tensor in one[0].items())


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_on_one_batch_falls(name: str) -> None:
    model, lora = _lora()
    # Prodigy first has to find its rate.
    steps = 200 if name == "prodigy" else 40
    losses = _train(model, lora, build_optimizer(lora, _config(name)), [0] * steps)
    assert losses[-1] < 0.8 * losses[0]


def test_eight_bit_states_are_eight_bits() -> None:
    model, lora = _lora()
    optimizer = build_optimizer(lora, _config("adamw8bit"))
    _train(model, lora, optimizer, range(1))
    tensors, _ = optimizer_state(optimizer)
    assert tensors["state.0.state1"].dtype == torch.uint8


def test_adamw_is_the_textbook_step() -> None:
    _, lora = _lora()
    optimizer = build_optimizer(lora, _config("adamw", weight_decay=0.1))
    down = lora.down_parameters()[0]
    before = down.detach().clone()
    _set_grad(down, torch.full_like(down, 0.3))
    optimizer.step()
    torch.testing.assert_close(down.detach(), before * (1 - 1e-3 * 0.1) - 1e-3, rtol=1e-5, atol=1e-7)


def test_lion_is_the_papers_step() -> None:
    _, lora = _lora()
    optimizer = build_optimizer(lora, _config("lion", weight_decay=0.1, beta1=0.9, beta2=0.99))
    down = lora.down_parameters()[0]
    p, m = down.detach().clone().double(), torch.zeros(down.shape, dtype=torch.float64)
    for step in range(3):
        grad = torch.randn(down.shape, generator=torch.Generator().manual_seed(step))
        _set_grad(down, grad)
        optimizer.step()
        p = p - 1e-3 * ((0.9 * m + 0.1 * grad).sign() + 0.1 * p)
        m = 0.99 * m + 0.01 * grad
    torch.testing.assert_close(down.detach().double(), p, rtol=1e-5, atol=1e-6)


def test_adafactor_is_the_published_step_with_the_given_rate() -> None:
    _, lora = _lora()
    optimizer = build_optimizer(lora, _config("adafactor", weight_decay=0.1))
    down = lora.down_parameters()[0]
    p = down.detach().clone().double()
    row, col = torch.zeros(p.shape[0], dtype=torch.float64), torch.zeros(p.shape[1], dtype=torch.float64)
    for step in range(1, 4):
        grad = torch.randn(down.shape, generator=torch.Generator().manual_seed(step))
        _set_grad(down, grad)
        optimizer.step()
        beta = 1 - step**-0.8
        square = grad.double() ** 2 + 1e-30
        row = beta * row + (1 - beta) * square.mean(1)
        col = beta * col + (1 - beta) * square.mean(0)
        update = grad * ((row / row.mean()).rsqrt()[:, None] * col.rsqrt())
        update = update / max(1.0, update.pow(2).mean().sqrt().item())
        p = p - 1e-3 * 0.1 * p - 1e-3 * update
    torch.testing.assert_close(down.detach().double(), p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1, "d_coef": 0.7, "beta1": 0.8}])
def test_prodigy_is_the_authors_step(settings: dict[str, Any]) -> None:
    model, lora = _lora()
    config = _config("prodigy", **settings)
    optimizer = build_optimizer(lora, config)
    other, theirs = _lora()
    reference = pytest.importorskip("prodigyopt").Prodigy(
        theirs.flat_groups()[0] + theirs.flat_groups()[1],
        lr=1.0,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        d_coef=config.d_coef,
        use_bias_correction=True,
        safeguard_warmup=True,
    )
    for group in reference.param_groups:
        group["initial_lr"] = group["lr"]
    for steps in ([0], [0] * 11, [0] * 30):
        _train(model, lora, optimizer, steps)
        _train(other, theirs, reference, steps)
        estimate = optimizer.param_groups[0]["d"].item()
        assert estimate == pytest.approx(reference.param_groups[0]["d"], rel=1e-3)
        wanted = theirs.state()
        for name, tensor in lora.state().items():
            torch.testing.assert_close(tensor, wanted[name], rtol=5e-3, atol=1e-6)
    assert estimate > 5e-6


def test_lora_plus_gives_up_matrices_their_own_rate() -> None:
    _, lora = _lora()
    groups = build_optimizer(lora, _config("adamw", lora_plus_ratio=16.0)).param_groups
    assert [group["lr"] for group in groups] == [1e-3, 16e-3]
    assert [[piece.data_ptr() for piece in group["params"]] for group in groups] == [
        [lora.down_parameters()[0].data_ptr()],
        [lora.up_parameters()[0].data_ptr()],
    ]


def test_prodigy_refuses_lora_plus_and_a_common_learning_rate() -> None:
    _, lora = _lora()
    with pytest.raises(ConfigError, match="Prodigy and LoRA") as caught:
        build_optimizer(lora, _config("prodigy", lora_plus_ratio=4.0))
    assert "one rate for all" in caught.value.detail
    with pytest.raises(ConfigError, match="hardly learn"):
        build_optimizer(lora, _config("prodigy", learning_rate=1e-4))


@pytest.mark.parametrize("name", NAMES)
def test_building_and_stepping_print_nothing(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model, lora = _lora()
    _train(model, lora, build_optimizer(lora, _config(name)), range(1))
    assert capfd.readouterr() == ("", "")


def test_schedule_free_shows_other_weights_and_trains_on_with_the_same_bits() -> None:
    model, lora = _lora()
    optimizer = build_optimizer(lora, _config("adamw_schedulefree"))
    _train(model, lora, optimizer, range(4))
    trained = lora.state()
    with eval_weights(optimizer, lora):
        shown = lora.state()
        assert not optimizer.param_groups[0]["train_mode"]
    assert optimizer.param_groups[0]["train_mode"]
    assert all(torch.equal(tensor, trained[key]) for key, tensor in lora.state().items())
    # x = y + (1 - 1/beta1) (z - y), the average that the method promises.
    z = optimizer_state(optimizer)[0]["state.0.z"]
    y = trained["a.lora_down.weight"]
    torch.testing.assert_close(shown["a.lora_down.weight"], y + (1 - 1 / 0.9) * (z[: y.numel()].view_as(y) - y))
    set_mode(optimizer, training=False)
    _, plain = optimizer_state(optimizer)
    assert plain["groups"][0]["settings"]["train_mode"] is False


@pytest.mark.parametrize("name", ["adamw", "prodigy"])
def test_other_optimizers_show_what_they_train(name: str) -> None:
    model, lora = _lora()
    optimizer = build_optimizer(lora, _config(name))
    _train(model, lora, optimizer, range(2))
    trained = lora.state()
    with eval_weights(optimizer, lora):
        assert all(torch.equal(tensor, trained[key]) for key, tensor in lora.state().items())


def test_schedule_free_without_averaging_is_refused() -> None:
    with pytest.raises(ConfigError, match="averaging"):
        build_optimizer(_lora()[1], _config("adamw_schedulefree", beta1=0.0))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ConfigError) as caught:
        build_optimizer(_lora()[1], _config("adamw_schedulefree"))
    assert "needs schedulefree" in caught.value.title
    assert "pip install schedulefree" in caught.value.hint


def test_libraries_are_imported_only_when_chosen() -> None:
    source = Path(sys.modules[build_optimizer.__module__].__file__ or "").read_text()
    imports = [node for node in ast.parse(source).body if isinstance(node, ast.Import | ast.ImportFrom)]
    text = "\n".join(ast.unparse(node) for node in imports)
    assert not any(name in text for name in ("bitsandbytes", "prodigyopt", "schedulefree", "transformers"))


def test_states_of_other_optimizers_and_other_adapters_are_refused() -> None:
    model, lora = _lora()
    optimizer = build_optimizer(lora, _config("adamw"))
    _train(model, lora, optimizer, range(1))
    tensors, plain = optimizer_state(optimizer)
    with pytest.raises(RunError, match="does not fit") as caught:
        load_optimizer_state(build_optimizer(lora, _config("lion")), tensors, plain)
    assert "AdamW" in caught.value.detail and "Lion" in caught.value.detail
    with pytest.raises(RunError, match="does not fit"):
        load_optimizer_state(build_optimizer(lora, _config("adamw", lora_plus_ratio=2.0)), tensors, plain)
    missing: dict[str, Tensor] = {key: value for key, value in tensors.items() if key != "state.1.exp_avg"}
    with pytest.raises(RunError) as caught:
        load_optimizer_state(optimizer, missing, plain)
    assert "state.1.exp_avg" in caught.value.detail
    assert all(torch.equal(value, optimizer_state(optimizer)[0][key]) for key, value in tensors.items())


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_clipping(limit: float) -> None:
    _, lora = _lora()
    for number, parameter in enumerate(lora.parameters()[:3]):
        _set_grad(parameter, torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    before = lora.gradients.clone()
    norm = clip_gradients(lora.gradients, limit)
    after = lora.gradients
    torch.testing.assert_close(norm, before.norm())
    factor = min(1.0, limit / before.norm().item()) if limit else 1.0
    torch.testing.assert_close(after, before * factor)


def test_the_norm_is_exact_over_many_values() -> None:
    norm = clip_gradients(torch.full((2**24,), 1e-3), 0.0)
    assert abs(norm.item() - 4.096) < 1e-5
