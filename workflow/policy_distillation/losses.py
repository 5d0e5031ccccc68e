"""Distillation losses, the paper's three (section 3) and one of ours, of the student's and the teacher's Q-values.

Both arguments have shape (batch, actions); the result is the mean over the batch, a float32 scalar. Everything is
computed in float32 whatever the inputs' type: Q / 0.01 is beyond half precision.

A teacher may have logits instead: its policy is their softmax. They are a distribution already, which a small
temperature would turn into an argmax, and they are known up to a constant only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional as F

from .readouts import Outputs


class Loss(Protocol):
    """How far a student's outputs are from its teacher's."""

    regression: ClassVar[bool]
    """Whether the student's outputs become what the teacher's are; else they become the logits of a policy."""

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class MSE:
    """Squared distance to the teacher's Q-values, summed over actions.

    Centred: each state's mean over actions is taken from both sides first. Of logits nothing else has a meaning; of
    Q-values the advantages are left (Wang et al. 2016, equation 9): the state's value need not be learnt, and what a
    student has in its place is arbitrary.
    """

    centred: bool = False
    regression: ClassVar[bool] = True

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        error = student.float() - teacher.float()
        if self.centred:
            error = error - error.mean(1, keepdim=True)
        return error.square().sum(1).mean()


@dataclass(frozen=True)
class NLL:
    """Negative log-likelihood of the teacher's best action."""

    regression: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return F.cross_entropy(student.float(), teacher.argmax(1))


@dataclass(frozen=True)
class KL:
    """Divergence of the student's policy from the teacher's, softmax(q / temperature).

    The temperature divides the teacher's Q-values only. Below 1 it *sharpens* them: Q-values of neighbouring actions
    differ by little, and softmax(q) would be nearly uniform.
    """

    temperature: float = 0.01
    regression: ClassVar[bool] = False

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        log_p = F.log_softmax(teacher.float() / self.temperature, dim=1)
        log_q = F.log_softmax(student.float(), dim=1)
        return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def make_loss(name: str, temperature: float, outputs: Outputs = "q_values") -> Loss:
    """The loss that a recipe names: ``mse``, ``nll``, ``kl`` or ``advantages``; only ``kl`` has a temperature.

    Args:
        outputs: what the teacher's outputs are.
    """
    losses: dict[str, Loss] = {
        "mse": MSE(centred=outputs == "logits"),
        "nll": NLL(),
        "kl": KL(temperature),
        "advantages": MSE(centred=True),
    }
    return losses[name]
