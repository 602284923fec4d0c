"""Draws depend on their name and place and on nothing else."""

import torch

from engine.draws import draw_seed, python_random, torch_generator


def test_a_draw_is_its_name_and_place():
    assert draw_seed(1, "noise", 2, 3) == draw_seed(1, "noise", 2, 3)
    places = [(1, "noise", 2, 3), (2, "noise", 2, 3), (1, "sigma", 2, 3), (1, "noise", 3, 2), (1, "noise", 23)]
    assert len({draw_seed(*place) for place in places}) == len(places)
    assert 0 <= draw_seed(2**62, "x") < 2**63


def test_generators_share_no_state():
    first = torch.randn(4, generator=torch_generator(7, "noise", 1))
    torch.randn(1000)
    python_random(7, "order", 1).random()
    assert torch.equal(first, torch.randn(4, generator=torch_generator(7, "noise", 1)))
    assert python_random(7, "order", 1).random() == python_random(7, "order", 1).random()
