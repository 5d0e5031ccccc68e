"""Updates as CUDA graphs: the same numbers as kernel by kernel, also when the learning rate changes."""

import pytest
import torch
from policy_distillation.capture import WARM_UP, Captured
from policy_distillation.optimizers import make_optimizer, restore_optimizer, scale_learning_rates

needs_gpu = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def trained(name, device, capture, updates=8):
    """A convolution and a linear layer after some updates, the learning rate falling; and each update's loss."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 2), torch.nn.Flatten(), torch.nn.Linear(12, 3)).to(device)
    optimizer = make_optimizer(name, network.parameters(), 0.1, 0.01, 0.05)

    def update(inputs, targets):
        loss = (network(inputs) - targets).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step, losses = Captured(update) if capture else update, []
    generator = torch.Generator().manual_seed(1)
    for number in range(updates):
        scale_learning_rates(optimizer, 1 / (1 + number))
        batch = [torch.randn(4, *size, generator=generator).to(device) for size in ((1, 3, 3), (3,))]
        losses.append(float(step(*batch)))
    assert not capture or step.captured == (device == "cuda")
    return [parameter.detach().cpu() for parameter in network.parameters()], losses


@pytest.mark.parametrize("name", ["adam", "rmsprop", "muon"])
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_a_captured_update_learns_the_same(name, device):
    assert WARM_UP < 8  # or nothing would be captured
    parameters, losses = trained(name, device, capture=True)
    expected, expected_losses = trained(name, "cpu", capture=False)
    assert losses == pytest.approx(expected_losses, rel=1e-4)
    for mine, reference in zip(parameters, expected, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adam", "rmsprop", "muon"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_restored_optimiser_has_the_saved_learning_rate_where_it_reads_it(name, device, as_tensor):
    def make():
        parameters = [torch.nn.Parameter(torch.ones(size, device=device)) for size in ((2, 1, 2, 2), (3,))]
        optimizer = make_optimizer(name, parameters, 0.1, 0.01, 0.2)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        return optimizer, parameters

    saved, _ = make()
    saved.step()
    state = saved.state_dict()
    for number, group in enumerate(state["param_groups"], 1):
        group["lr"] = torch.tensor(number / 40) if as_tensor else number / 40  # perhaps from another device
    optimizer, parameters = make()
    places = [group["lr"] for group in optimizer.param_groups]
    restore_optimizer(optimizer, state)
    for number, (group, place) in enumerate(zip(optimizer.param_groups, places, strict=True), 1):
        assert float(group["lr"]) == pytest.approx(number / 40)
        assert group["lr"] is place or not isinstance(place, torch.Tensor)
    scale_learning_rates(optimizer, 0.0)
    optimizer.step()
    assert all(torch.equal(parameter, torch.ones_like(parameter)) for parameter in parameters)
