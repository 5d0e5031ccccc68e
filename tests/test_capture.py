"""Updates as CUDA graphs: the same numbers as kernel by kernel, also when the learning rate changes."""

import pytest
import torch
from policy_distillation.capture import WARM_UP, Captured
from policy_distillation.optimizers import make_optimizer, restore_optimizer, set_learning_rate

needs_gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def trained(name, device, capture, updates=8):
    """A linear layer after some updates, the learning rate falling; and each update's loss."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3).to(device)
    optimizer = make_optimizer(name, layer.parameters(), 0.1, 0.01)

    def update(inputs, targets):
        loss = (layer(inputs) - targets).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step, losses = Captured(update) if capture else update, []
    generator = torch.Generator().manual_seed(1)
    for number in range(updates):
        set_learning_rate(optimizer, 0.1 / (1 + number))
        batch = [torch.randn(4, size, generator=generator).to(device) for size in (5, 3)]
        losses.append(float(step(*batch)))
    assert not capture or step.captured == (device == "cuda")
    return [parameter.detach().cpu() for parameter in layer.parameters()], losses


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_on_the_cpu_an_update_is_just_called(name):
    parameters, losses = trained(name, "cpu", capture=True)
    expected, expected_losses = trained(name, "cpu", capture=False)
    assert losses == expected_losses
    assert all(map(torch.equal, parameters, expected))


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_a_captured_update_learns_the_same(name, device):
    assert WARM_UP < 8  # or nothing would be captured
    parameters, losses = trained(name, device, capture=True)
    expected, expected_losses = trained(name, "cpu", capture=False)
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    for mine, reference in zip(parameters, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_restored_optimiser_has_the_saved_learning_rate_where_it_reads_it(name, device, as_tensor):
    def make():
        parameter = torch.nn.Parameter(torch.ones(3, device=device))
        optimizer = make_optimizer(name, [parameter], 0.1, 0.01)
        parameter.grad = torch.ones_like(parameter)
        return optimizer, parameter

    saved, _ = make()
    saved.step()
    state = saved.state_dict()
    state["param_groups"][0]["lr"] = torch.tensor(0.025) if as_tensor else 0.025  # perhaps from another device
    optimizer, parameter = make()
    place = optimizer.param_groups[0]["lr"]
    restore_optimizer(optimizer, state)
    assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.025)
    if isinstance(place, torch.Tensor):
        assert optimizer.param_groups[0]["lr"] is place
    set_learning_rate(optimizer, 0.0)
    optimizer.step()
    assert torch.equal(parameter, torch.ones_like(parameter))
