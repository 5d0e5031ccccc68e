"""The paper's losses against closed forms, and the properties that tell them apart."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from policy_distillation.losses import KL, MSE, NLL, make_loss
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
shapes = array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=18).map(lambda shape: (min(shape[0], 4), shape[1]))
values = st.integers(-2_000, 2_000).map(lambda n: n / 64)  # exact in float32, so that float64 references see the same
temperatures = st.sampled_from([0.01, 0.1, 1.0, 5.0])


@st.composite
def pairs(draw):
    """Q-values of a student and of its teacher, float32."""
    shape = draw(shapes)
    return tuple(draw(arrays(np.float64, shape, elements=values)).astype(np.float32) for _ in range(2))


def evaluate(loss, student, teacher):
    result = loss(torch.from_numpy(student), torch.from_numpy(teacher))
    assert result.dtype == torch.float32
    assert result.shape == ()
    return result.item()


def near(value):
    return pytest.approx(value, rel=1e-4, abs=1e-4)


@quick
@given(pairs())
def test_mse_is_the_squared_distance(pair):
    student, teacher = (array.astype(float) for array in pair)
    distances = [np.linalg.norm(t - s) ** 2 for s, t in zip(student, teacher, strict=True)]
    assert evaluate(MSE(), *pair) == near(np.mean(distances))


@quick
@given(pairs())
def test_nll_is_the_best_actions(pair):
    student, teacher = pair
    rows = np.arange(len(student))
    assert evaluate(NLL(), *pair) == near(-log_softmax(student.astype(float), axis=1)[rows, teacher.argmax(1)].mean())


@quick
@given(pairs(), temperatures)
def test_kl_is_scipys_with_the_temperature_on_the_teacher_alone(pair, temperature):
    student, teacher = (array.astype(float) for array in pair)
    p = softmax(teacher / temperature, axis=1)
    cross_entropy = -np.sum(p * log_softmax(student, axis=1), axis=1)
    assert evaluate(KL(temperature), *pair) == near(np.mean(cross_entropy - entropy(p, axis=1)))


def test_a_worked_example():
    student, teacher = np.float32([[0, np.log(3)], [0, 0]]), np.float32([[1.0, 1.0], [0.01 * np.log(4), 0]])
    assert evaluate(MSE(), student, teacher) == near((1 + (np.log(3) - 1) ** 2 + (0.01 * np.log(4)) ** 2) / 2)
    assert evaluate(NLL(), student, np.float32([[2, 1], [0, 5]])) == near((np.log(4) + np.log(2)) / 2)
    # Policies (1/4, 3/4) and (1/2, 1/2) against teachers (1/2, 1/2) and (4/5, 1/5).
    first = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    second = 0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5)
    assert evaluate(KL(0.01), student, teacher) == near((first + second) / 2)


@quick
@given(pairs(), st.integers(-50, 50), temperatures)
def test_all_but_mse_ignore_a_shift_of_either_side(pair, shift, temperature):
    student, teacher = pair
    for loss in (NLL(), KL(temperature), MSE(centred=True)):
        expected = near(evaluate(loss, student, teacher))
        assert evaluate(loss, student + np.float32(shift), teacher) == expected
        # One shift per row: a state's value, which the policy does not depend on.
        rows = shift * np.arange(len(teacher), dtype=np.float32)[:, None]
        assert evaluate(loss, student, teacher + rows) == expected
        assert evaluate(loss, student + rows, teacher) == expected


@quick
@given(pairs(), st.integers(1, 50))
def test_mse_does_not_ignore_a_shift(pair, shift):
    student, _ = pair
    expected = near(student.shape[1] * shift**2)
    assert evaluate(MSE(), student, student + np.float32(shift)) == expected
    assert evaluate(MSE(), student + np.float32(shift), student) == expected


@quick
@given(pairs())
def test_advantages_are_what_mse_leaves_beside_the_values(pair):
    student, teacher = pair
    values = (student.mean(1, dtype=float) - teacher.mean(1, dtype=float)) ** 2
    assert evaluate(MSE(), *pair) == near(evaluate(MSE(centred=True), *pair) + student.shape[1] * values.mean())


@quick
@given(pairs())
def test_kl_of_nearly_uniform_policies_is_the_squared_error_of_advantages(pair):
    student, teacher = (array / np.float32(1e3) for array in pair)  # Hinton et al. 2015, equation 4
    expected = evaluate(MSE(centred=True), student, teacher) / (2 * student.shape[1])
    assert evaluate(KL(1.0), student, teacher) == pytest.approx(expected, rel=0.1, abs=1e-6)


@quick
@given(pairs())
def test_kl_tends_to_nll_as_the_temperature_falls(pair):
    student, teacher = pair
    ordered = np.sort(teacher, axis=1)
    assume((ordered[:, -1] > ordered[:, -2]).all())  # ties share the probability, for ever
    assert evaluate(KL(1e-4), student, teacher) == near(evaluate(NLL(), student, teacher))


@quick
@given(pairs(), temperatures)
def test_kl_is_zero_exactly_where_the_policies_match(pair, temperature):
    student, teacher = pair
    assert evaluate(KL(temperature), teacher / np.float32(temperature) + 3, teacher) == pytest.approx(0, abs=1e-4)
    assert evaluate(KL(temperature), student, teacher) >= -1e-5
    p, q = softmax(teacher.astype(float) / temperature, axis=1), softmax(student.astype(float), axis=1)
    if np.abs(p - q).max() > 0.1:
        assert evaluate(KL(temperature), student, teacher) > 0.5 * 0.1**2 / len(p)  # Pinsker's inequality


@quick
@given(pairs())
def test_mse_and_nll_are_least_at_the_teacher(pair):
    student, teacher = pair
    assert evaluate(MSE(), teacher, teacher) == 0
    assert evaluate(MSE(), student, teacher) >= 0
    sure = np.float32(1e3) * (np.arange(teacher.shape[1]) == teacher.argmax(1)[:, None])
    assert evaluate(NLL(), sure, teacher) == pytest.approx(0, abs=1e-6)
    assert evaluate(NLL(), student, teacher) >= 0


@quick
@given(pairs(), temperatures)
def test_gradients_are_the_closed_forms(pair, temperature):
    student, teacher = (array.astype(float) for array in pair)
    q = softmax(student, axis=1)
    best = np.arange(student.shape[1]) == teacher.argmax(1)[:, None]
    expected = {
        MSE(): 2 * (student - teacher),
        MSE(centred=True): 2 * (student - teacher - (student - teacher).mean(1, keepdims=True)),
        NLL(): q - best,
        KL(temperature): q - softmax(teacher / temperature, axis=1),
    }
    for loss, gradient in expected.items():
        inputs = torch.from_numpy(pair[0]).requires_grad_()
        loss(inputs, torch.from_numpy(pair[1])).backward()
        np.testing.assert_allclose(inputs.grad.numpy(), gradient / len(student), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mse", "nll", "kl", "advantages"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(name, dtype):
    # 1,000 / 0.01 overflows float16, and bfloat16 keeps three digits of it: the division must come after the cast.
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(16, 6, generator=generator).to(dtype)
    teacher = (1_000 + torch.randn(16, 6, generator=generator)).to(dtype)
    loss = make_loss(name, 0.01)
    result = loss(student, teacher)
    assert result.dtype == torch.float32
    assert torch.isfinite(result)
    assert torch.equal(result, loss(student.float(), teacher.float()))


@pytest.mark.parametrize("size", [1e3, 1e6, 1e12, 1e30])
def test_huge_q_values_neither_overflow_nor_lose_the_gradient(size):
    teacher = torch.tensor([[size, -size, 0.0], [0.0, -size, size]])
    for student in (torch.zeros(2, 3), -teacher / 1e4 if size < 1e12 else torch.ones(2, 3)):
        student = student.requires_grad_()
        loss = KL(0.01)(student, teacher)
        loss.backward()
        assert torch.isfinite(loss)
        expected = softmax(student.detach().numpy(), axis=1) - np.float32([[1, 0, 0], [0, 0, 1]])
        np.testing.assert_allclose(student.grad.numpy(), expected / 2, atol=1e-6)


def test_sharpening_prefers_the_teachers_best_action():
    # Q-values of neighbouring actions differ by little: at temperature 1 a student gains nothing by choosing.
    teacher = torch.tensor([[1.00, 1.05, 0.98]])
    uniform, right = torch.zeros(1, 3), torch.tensor([[0.0, 5.0, 0.0]])
    assert KL(0.01)(right, teacher) < KL(0.01)(uniform, teacher)
    assert KL(1.0)(right, teacher) > KL(1.0)(uniform, teacher)


def test_recipes_name_the_losses():
    assert (make_loss("mse", 0.5), make_loss("nll", 0.5), make_loss("kl", 0.5)) == (MSE(), NLL(), KL(0.5))
    assert make_loss("advantages", 0.5) == make_loss("advantages", 0.5, "logits") == MSE(centred=True)
    assert KL().temperature == 0.01
