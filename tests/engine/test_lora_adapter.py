"""The adapter's arithmetic, its dropouts and norms, and what it does to the transformer around it."""

from __future__ import annotations

import math

import pytest
import torch
from flux_reference import TINY, all_kinds, random_inputs
from torch import nn

from engine.config import LoraConfig
from engine.errors import ConfigError, ModelFileError
from engine.lora.adapter import LoraLinear, LoraSet, describe_linears, inject, make_adapters
from engine.lora.targets import Target, select_targets
from engine.models.flux import FluxTransformer


def _linear(config: LoraConfig | None = None, rank: int = 4, alpha: float = 2.0) -> LoraLinear:
    torch.manual_seed(1)
    base = nn.Linear(12, 10)
    target = Target("x", "single", 12, 10, rank, alpha)
    lora = make_adapters([target], config or LoraConfig(), 0, torch.device("cpu"))
    module = LoraLinear(base, lora.adapters["x"])
    nn.init.normal_(module.down)
    nn.init.normal_(module.up)
    return module


def _model(**settings: object) -> tuple[FluxTransformer, LoraSet]:
    torch.manual_seed(0)
    model = FluxTransformer(TINY).eval()
    config = LoraConfig.model_validate({"rank": 4, "targets": "all", **settings})
    targets = select_targets(describe_linears(model, all_kinds(TINY)), config)
    return model, inject(model, targets, config, seed=3)


def _randomise(lora: LoraSet) -> None:
    generator = torch.Generator().manual_seed(2)
    for up in lora.up_parameters():
        nn.init.normal_(up, std=0.05, generator=generator)


def test_forward_is_base_plus_scaled_update() -> None:
    module = _linear()
    x = torch.randn(3, 5, 12)
    wanted = x @ (module.base.weight + 0.5 * module.up @ module.down).T + module.base.bias
    torch.testing.assert_close(module(x), wanted)
    module.adapter.strength.value = 0.25
    quarter = x @ (module.base.weight + 0.125 * module.up @ module.down).T + module.base.bias
    torch.testing.assert_close(module(x), quarter)


def test_injected_adapters_change_nothing_until_trained() -> None:
    torch.manual_seed(0)
    plain = FluxTransformer(TINY).eval()
    model, _ = _model()
    inputs = random_inputs(TINY)
    assert torch.equal(model(**inputs), plain(**inputs))


def test_only_the_adapters_train_and_share_no_copy_of_the_base() -> None:
    torch.manual_seed(0)
    model = FluxTransformer(TINY)
    linear = model.double_blocks[0].img_attn.qkv
    pointer = linear.weight.data_ptr()
    config = LoraConfig(rank=4)
    lora = inject(model, select_targets(describe_linears(model, all_kinds(TINY)), config), config, 0)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in lora.parameters()}
    assert all(p.dtype == torch.float32 for p in trained)
    adapted = model.double_blocks[0].img_attn.qkv
    assert isinstance(adapted, LoraLinear) and adapted.base is linear
    assert linear.weight.data_ptr() == pointer
    assert lora.num_parameters == sum(target.num_parameters for target in lora.targets)


def test_down_depends_on_seed_and_name_alone() -> None:
    _, all_of = _model()
    _, some = _model(targets="default", single_blocks="none")
    for name, module in some.modules.items():
        assert torch.equal(module.down, all_of.modules[name].down)
    bound = 1 / math.sqrt(TINY.hidden_size)
    down = some.modules["double_blocks.0.img_attn.qkv"].down
    assert down.abs().max() <= bound and down.abs().max() > 0.9 * bound
    assert not torch.equal(down, some.modules["double_blocks.1.img_attn.qkv"].down)


def test_remove_restores_the_base() -> None:
    model, lora = _model()
    _randomise(lora)
    inputs = random_inputs(TINY)
    with lora.disabled():
        base = model(**inputs)
    assert not torch.equal(model(**inputs), base)
    lora.remove()
    assert torch.equal(model(**inputs), base)
    assert not any(isinstance(module, LoraLinear) for module in model.modules())


def test_strength_nests_and_comes_back_after_an_error() -> None:
    model, lora = _model()
    _randomise(lora)
    inputs = random_inputs(TINY)
    full = model(**inputs)
    with pytest.raises(RuntimeError), lora.strength(0.5):
        with lora.disabled():
            assert not torch.equal(model(**inputs), full)
        raise RuntimeError
    assert torch.equal(model(**inputs), full)


def test_checkpointed_gradients_equal_plain_ones() -> None:
    model, lora = _model(dropout=0.2, rank_dropout=0.2, module_dropout=0.2)
    _randomise(lora)
    model.train()
    inputs = random_inputs(TINY)
    grads = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        for parameter in lora.parameters():
            parameter.grad = None
        torch.manual_seed(7)
        model(**inputs).pow(2).mean().backward()
        grads.append([None if p.grad is None else p.grad.clone() for p in lora.parameters()])
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads[0])
    for plain, checkpointed in zip(*grads, strict=True):
        assert (plain is None) == (checkpointed is None)
        assert plain is None or torch.equal(plain, checkpointed)


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_base_with_float32_adapter(autocast: bool) -> None:
    torch.manual_seed(0)
    model = FluxTransformer(TINY)
    reference = FluxTransformer(TINY)
    reference.load_state_dict(model.state_dict())
    model = model.to(torch.bfloat16)
    config = LoraConfig(rank=4)
    targets = select_targets(describe_linears(model, all_kinds(TINY)), config)
    lora, plain = inject(model, targets, config, 3), inject(reference, targets, config, 3)
    _randomise(lora)
    plain.load_state(lora.state())
    inputs = random_inputs(TINY)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = model(**inputs)
    out.float().pow(2).mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in lora.parameters())
    wanted = reference(**inputs)
    assert (out.float() - wanted).norm() / wanted.norm() < 0.05


def test_without_autocast_the_update_is_made_in_float32() -> None:
    module = _linear()
    module.base.to(torch.bfloat16)
    x = torch.randn(2, 12).to(torch.bfloat16)
    delta = module(x).float() - module.base(x).float()
    wanted = 0.5 * x.float() @ module.down.T @ module.up.T
    # One rounding of the update and one of the sum.
    assert (delta - wanted).abs().max() < 2 * wanted.abs().max() / 128
    assert module(x).dtype == torch.bfloat16


def test_neuron_dropout_drops_values_and_keeps_the_mean() -> None:
    module = _linear(LoraConfig(dropout=0.25), rank=1, alpha=1.0).train()
    x = torch.ones(4000, 12)
    base, full = module.base(x), module.eval()(x)
    ratio = ((module.train()(x) - base) / (full - base))[:, 0]
    kept = ratio.abs() > 0.5
    torch.testing.assert_close(ratio, torch.where(kept, 4 / 3, 0.0), rtol=1e-4, atol=1e-4)
    assert abs(ratio.mean().item() - 1.0) < 0.04


def test_rank_dropout_drops_whole_ranks_per_sample() -> None:
    module = _linear(LoraConfig(rank_dropout=0.5), rank=1, alpha=1.0).train()
    x = torch.ones(400, 7, 12)
    delta = (module(x) - module.base(x))[..., 0]
    assert torch.equal(delta, delta[:, :1].expand_as(delta))
    kept = (delta[:, 0].abs() > 1e-6).float().mean().item()
    assert 0.4 < kept < 0.6
    full = (module.eval()(x) - module.base(x))[0, 0, 0]
    torch.testing.assert_close(delta.abs().max(), 2 * full.abs())


def test_rank_dropout_takes_the_conditioning_vector_too() -> None:
    module = _linear(LoraConfig(rank_dropout=0.5)).train()
    assert module(torch.randn(3, 12)).shape == (3, 10)


def test_module_dropout_skips_the_update() -> None:
    module = _linear(LoraConfig(module_dropout=0.5)).train()
    x = torch.randn(2, 12)
    base, full = module.base(x), module.eval()(x)
    module.train()
    torch.manual_seed(0)
    outs = [module(x) for _ in range(200)]
    skipped = sum(torch.equal(out, base) for out in outs)
    assert 70 < skipped < 130
    assert all(torch.equal(out, base) or torch.equal(out, full) for out in outs)


def test_dropouts_repeat_with_the_global_seed_and_rest_in_eval_mode() -> None:
    module = _linear(LoraConfig(dropout=0.5, rank_dropout=0.5, module_dropout=0.5)).train()
    x = torch.randn(4, 12)
    torch.manual_seed(5)
    first = module(x)
    torch.manual_seed(5)
    assert torch.equal(first, module(x))
    module.eval()
    before = torch.get_rng_state()
    assert torch.equal(module(x), module(x))
    assert torch.equal(before, torch.get_rng_state())


def test_clip_norms_brings_updates_down_to_the_limit() -> None:
    _, lora = _model()
    _randomise(lora)
    before = {name: m.scale * m.up @ m.down for name, m in lora.adapters.items()}
    norms = torch.stack([delta.norm() for delta in before.values()])
    limit = norms.median().item()
    reported = lora.clip_norms(limit)
    torch.testing.assert_close(reported, norms)
    for name, adapter in lora.adapters.items():
        after = adapter.scale * adapter.up @ adapter.down
        torch.testing.assert_close(after, before[name] * min(1.0, limit / before[name].norm().item()))


def test_clip_norms_changes_nothing_where_the_step_is_held_back() -> None:
    _, lora = _model()
    _randomise(lora)
    state = lora.state()
    lora.clip_norms(1e-3, held=torch.tensor(True))
    assert all(torch.equal(tensor, state[name]) for name, tensor in lora.state().items())
    lora.clip_norms(1e-3, held=torch.tensor(False))
    assert not torch.equal(
        lora.state()["single_blocks.0.linear1.lora_up.weight"], state["single_blocks.0.linear1.lora_up.weight"]
    )


def test_clip_norms_off_and_on_zero_updates_changes_nothing() -> None:
    _, lora = _model()
    state = lora.state()
    lora.clip_norms(1.0)
    lora.clip_norms(0.0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in lora.state().items())


def test_state_is_a_copy_under_dotted_names_and_loads_back() -> None:
    _, lora = _model()
    _randomise(lora)
    state = lora.state()
    assert "double_blocks.0.img_attn.qkv.lora_down.weight" in state
    assert len(state) == 2 * len(lora.targets)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.zero_()
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    lora.load_state(state)
    assert all(torch.equal(lora.state()[name], tensor) for name, tensor in kept.items())


def test_load_state_names_every_kind_of_misfit_and_changes_nothing() -> None:
    _, lora = _model()
    state = lora.state()
    wrong = dict(state)
    del wrong["single_blocks.0.linear1.lora_up.weight"]
    wrong["single_blocks.9.linear1.lora_up.weight"] = torch.zeros(1, 1)
    wrong["single_blocks.0.linear2.lora_down.weight"] = torch.ones(2, 2)
    with pytest.raises(ModelFileError) as caught:
        lora.load_state(wrong)
    detail = caught.value.detail
    assert "missing single_blocks.0.linear1.lora_up.weight" in detail
    assert "not wanted single_blocks.9.linear1.lora_up.weight" in detail
    assert "single_blocks.0.linear2.lora_down.weight is (2, 2), wanted (4, 240)" in detail
    assert all(torch.equal(tensor, state[name]) for name, tensor in lora.state().items())


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (Target("double_blocks.7.img_attn.qkv", "img_attn", 48, 144, 4, 4.0), "no module of that name"),
        (Target("double_blocks.0.img_attn", "img_attn", 48, 144, 4, 4.0), "it is a SelfAttention"),
        (Target("double_blocks.0.img_attn.qkv", "img_attn", 64, 144, 4, 4.0), "it maps 48 to 144"),
    ],
)
def test_a_target_that_does_not_fit_is_refused(target: Target, says: str) -> None:
    model = FluxTransformer(TINY)
    with pytest.raises(ConfigError) as caught:
        inject(model, [target], LoraConfig(), 0)
    assert says in caught.value.detail


def test_linears_are_described_through_their_adapters() -> None:
    model, _ = _model()
    plain = describe_linears(FluxTransformer(TINY), all_kinds(TINY))
    assert describe_linears(model, all_kinds(TINY)) == plain
