"""Fused kernels as machine code for GPUs that need not be there: they build, spill nothing, read in wide words."""

from __future__ import annotations

from typing import Any

import pytest
from kernels_process import printed

pytest.importorskip("triton")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = tmp_path_factory.mktemp("triton")
    return printed("kernels_built.py", TRITON_CACHE_DIR=str(cache))


def test_kernels_build_for_real_gpus(built: Any) -> None:
    assert len(built) == 30
    assert all(code["bytes"] > 1000 for code in built.values())


def test_machine_code_neither_spills_nor_reads_single_elements(built: Any) -> None:
    # Single numbers are a row's statistics: a mean, a deviation, a step.
    scalars = {"norm_modulate": (0, 2), "quantise_rows": (0, 1)}
    scalars["norm_modulate_backward"] = (2, 0)
    for name, code in built.items():
        loads, stores = scalars.get(name.split()[0], (0, 0))
        assert code["spills"] == 0, name
        assert code["loads"] - code["wide loads"] == loads, name
        assert code["stores"] - code["wide stores"] == stores, name
