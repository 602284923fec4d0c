"""Peak memory by configuration at 1024 px, batch 1, rank 16, as forecast; how far a trace agrees is tested there."""

import pytest

from profiles.schema import Settings
from tests.bench.trace.against import Configuration
from tests.bench.trace.contenders import Case, count_scaled, packed
from tests.bench.trace.ideal import adapter_parameters, block_parameters, input_bytes, outer_parameters
from tests.bench.trace.memory import CONFIGURATIONS, hold

FULL = Case()


@pytest.mark.parametrize("meant", CONFIGURATIONS, ids=lambda meant: f"{meant.card_gb} GB, {meant.name}")
def test_the_configuration_fits_its_card(meant):
    # A card of 8 "GB" has 8 GiB; a desktop and what other programs hold take 0.5.
    assert hold(meant.configuration).total + 0.5 <= meant.card_gb * 1.0737


def test_streaming_everything_needs_little():
    # Target 15: 3.5 GB.
    chosen = Settings(precision="int8", blocks_to_swap=57, checkpointing="offload")
    assert hold(Configuration(chosen)).total <= 3.5


@pytest.mark.parametrize("precision", ["int8", pytest.param("fp8", marks=pytest.mark.slow), "nf4"])
def test_a_packed_base_needs_little_more_working_memory(precision):
    # Activations in 8 bit and float32 sums of some columns; nf4 one matrix widened. fp8 is emulated here, in float32.
    limit = {"int8": 32, "fp8": 40, "nf4": 27}[precision]
    counted = count_scaled(packed(precision, "wide" if precision == "nf4" else precision), FULL)
    assert counted.working_bytes <= limit * input_bytes(FULL)


def test_weights_follow_the_formula():
    double, single = block_parameters(FULL)
    whole = hold(Configuration(Settings()))
    blocks = 2 * (19 * double + 38 * single + outer_parameters(FULL)) / 1e9
    assert whole.weights == pytest.approx(blocks, rel=2e-4)  # and the modulation of a sample
    assert whole.host == whole.link == 0
    more = hold(Configuration(Settings(modulation_cache=False)))
    assert more.weights - whole.weights == pytest.approx(6.49, abs=0.01)
    assert whole.adapters == pytest.approx(adapter_parameters(FULL) * 12 / 1e9, abs=3e-3)


def test_streamed_and_offloaded_bytes_cross_the_link_twice_at_most():
    streamed = hold(Configuration(Settings(precision="int8", blocks_to_swap=57, checkpointing="offload")))
    assert streamed.link <= 2 * streamed.host
    offloaded = hold(Configuration(Settings(precision="int8", checkpointing="offload")))
    assert offloaded.host == pytest.approx(57 * input_bytes(Case()) / 1e9, rel=1e-3)
