"""What is measured stays within its budget, and is as rich as that allows."""

from hypothesis import given
from hypothesis import strategies as st

from engine.config import ValidationConfig
from engine.training.measuring_plan import FEW, LEVELS, TRAINED, plan_measuring

AUTO = ValidationConfig(every_epochs="auto")


@given(
    st.integers(0, 8), st.integers(1, 500), st.integers(0, 8), st.integers(1, 5000), st.integers(1, 200),
    st.floats(0.001, 2.0),
)  # fmt: skip
def test_the_budget_holds(held_out, train, prompts, per_epoch, epochs, budget):
    samples = per_epoch * epochs
    plan = plan_measuring(
        ValidationConfig(every_epochs="auto", budget=budget), held_out, train, prompts, samples, epochs
    )
    measurements = epochs // plan.every_epochs + 1
    # What is left once even the poorest set is too dear: the base and the end.
    assert measurements * plan.passes <= budget * TRAINED * samples or measurements <= 2
    assert plan.held_out <= held_out and plan.train <= train and plan.prompts <= prompts


def test_a_usual_run_is_measured_every_epoch_or_nearly():
    """20 pictures seen ten times in each of ten epochs: 6,000 passes, of which 5 % are 300."""
    plan = plan_measuring(AUTO, 2, 18, 8, 2000, 10)
    assert plan.every_epochs == 1 and plan.held_out == 2 and len(plan.sigmas) >= 3
    long = plan_measuring(AUTO, 5, 35, 8, 40_000, 20)
    assert long.every_epochs == 1 and len(long.sigmas) == LEVELS[0].sigmas and long.seeds == 2


def test_a_poorer_set_is_taken_before_fewer_measurements():
    plans = [plan_measuring(AUTO, 8, 20, 8, samples, 30) for samples in (100_000, 8000, 4000, 1500)]
    assert [plan.passes for plan in plans] == sorted((plan.passes for plan in plans), reverse=True)
    assert all(30 // plan.every_epochs >= FEW for plan in plans[:3])


def test_the_users_own_cadence_and_levels_count():
    config = ValidationConfig(every_epochs=5, every_steps=7, sigmas=(0.9, 0.2))
    plan = plan_measuring(config, 4, 20, 8, 10, 10)
    assert plan.sigmas == (0.2, 0.9) and plan.every_epochs == 5
    due = [step for step in range(1, 31) if plan.due(step, step // 3, step % 3 == 0)]
    assert due == [7, 14, 15, 21, 28, 30]


def test_every_set_has_levels_in_every_band():
    from engine.training.measuring_plan import SIGMAS

    assert all(min(s) < 0.3 and max(s) >= 0.6 and any(0.3 <= x < 0.6 for x in s) for s in SIGMAS.values())
