"""Policy Distillation (Rusu et al., ICLR 2016): Atari teachers, their data sets, and the students distilled from them.

One unit of time throughout: the *agent step*, one decision that the emulator repeats for four frames.
"""

__version__ = "0.1.0"
