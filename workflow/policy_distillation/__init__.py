"""Policy Distillation (Rusu et al., ICLR 2016): Atari teachers, their data sets, and the students distilled from them.

One unit of time throughout: the *agent step*, one decision that the emulator repeats for four frames.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import load_agent

__all__ = ["load_agent"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late, for torch takes seconds to load, and each job of a workflow imports this package in order to plan.
    if name == "load_agent":
        from .checkpoints import load_agent

        return load_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
