"""Muon against an independent reference; schedules and resumption with two learning rates."""

import copy

import pytest
import torch
from policy_distillation.optimizers import (
    make_optimizer,
    orthogonalised,
    restore_optimizer,
    scale_learning_rates,
    schedule_factor,
)

SHAPES = [
    (32, 256),
    (64, 512),
    (64, 576),
    (16, 64),
    (40, 9),
]  # filters and rest: those of `dqn`, of a small and a tall bank


def network(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(4, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 80, 3),
        torch.nn.Flatten(),
        torch.nn.Linear(320, 5),
    )


def give_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def muon(model):
    return make_optimizer("muon", model.parameters(), 1e-3, 1e-8, 0.02)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_newton_schulz_turns_the_singular_values_to_about_one_and_keeps_the_vectors(shape, scale):
    torch.manual_seed(0)
    matrix = scale * torch.randn(shape)
    result = orthogonalised(matrix)
    assert result.dtype == torch.float32
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.65
    assert values.max() < 1.25
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ result @ right.T  # diagonal if the vectors are the same
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=2e-3)
    assert (inner.diagonal() > 0).all()


def test_no_gradient_is_no_change():
    assert torch.equal(orthogonalised(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_updates_equal_torchs_muon_and_adam():
    """Filters as matrices by ``torch.optim.Muon``, which computes in bfloat16; the rest by Adam."""
    mine, naive = network(), network()
    optimizer = muon(mine)
    banks = [torch.nn.Parameter(bank.detach().flatten(1)) for bank in naive.parameters() if bank.ndim == 4]
    rest = [parameter for parameter in naive.parameters() if parameter.ndim != 4]
    references = [
        torch.optim.Muon(banks, lr=0.02, weight_decay=0.0, momentum=0.95, nesterov=True),
        torch.optim.Adam(rest, lr=1e-3, eps=1e-8),
    ]
    first = [bank.detach().clone() for bank in banks]
    for seed in range(4):
        for model in (mine, naive):
            give_gradients(model, seed)
        for matrix, bank in zip(banks, (p for p in naive.parameters() if p.ndim == 4), strict=True):
            matrix.grad = bank.grad.flatten(1)
        for each in (optimizer, *references):
            each.step()
    filters = [parameter.detach() for parameter in mine.parameters() if parameter.ndim == 4]
    for bank, matrix, start in zip(filters, banks, first, strict=True):
        moved, expected = bank.flatten(1) - start, matrix.detach() - start
        assert (moved - expected).norm() < 0.02 * expected.norm()  # bfloat16 has eight bits
    assert filters[1].flatten(1).shape == (80, 72)  # more rows than columns: that its step is longer was tested
    others = [parameter for parameter in mine.parameters() if parameter.ndim != 4]
    for parameter, reference in zip(others, rest, strict=True):
        torch.testing.assert_close(parameter, reference, rtol=1e-6, atol=1e-7)


def test_a_restored_muon_goes_on_with_the_same_bits():
    whole, half = network(), network()
    optimizer, other = muon(whole), muon(half)
    for seed in range(6):
        if seed == 3:
            half, state = copy.deepcopy(half), copy.deepcopy(other.state_dict())
            other = muon(half)
            restore_optimizer(other, state)
        for model, each in ((whole, optimizer), (half, other)):
            give_gradients(model, seed)
            scale_learning_rates(each, schedule_factor(seed, 6, "linear"))
            each.step()
    assert all(map(torch.equal, whole.parameters(), half.parameters()))
    assert not any(map(torch.equal, whole.parameters(), network().parameters()))


def test_a_schedule_scales_the_filters_rate_and_the_others():
    optimizer = muon(network())
    for done, factor in ((0, 1.0), (25, 0.75), (100, 0.0), (50, 0.5)):
        scale_learning_rates(optimizer, schedule_factor(done, 100, "linear"))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.02 * factor, 1e-3 * factor])


def test_a_filter_without_gradient_stays():
    model = network()
    optimizer = muon(model)
    give_gradients(model, 0)
    model[0].weight.grad = None
    optimizer.step()
    assert torch.equal(model[0].weight, network()[0].weight)
    assert not torch.equal(model[2].weight, network()[2].weight)


def test_schedules_fall_to_zero():
    rates = [schedule_factor(update, 100, "linear") for update in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    rates = [schedule_factor(update, 100, "cosine") for update in (0, 25, 50, 75, 100)]
    assert rates == pytest.approx([1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0], abs=1e-12)
    assert schedule_factor(70, 100, "constant") == 1
