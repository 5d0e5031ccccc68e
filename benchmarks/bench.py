"""How fast the project's loops run, beside Stable-Baselines3 and beside what the machine allows: `make bench`.

Every contestant is a process of its own. Those named in LOOPS run the project's real functions (``train_teacher``,
``dump_part``, ...) with a budget that they never reach; a meter hooked into a method that the loop calls once a turn
pauses them, lets them run for some seconds when told to, and reports the rate. So imports, ROMs, the replay's warm-up
and the data's loading are over before the first measurement, and contestants can take turns without starting again.
The PIECES are the least that a loop must do: an emulator that steps, a forward pass, an update on one fixed batch; a
loop's ceiling is what it would reach if it did nothing else. Each repetition measures everything once, in order;
ratios are taken within a repetition, and medians over repetitions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from policy_distillation import dqn, pqn
from policy_distillation.atari import SIDE, STACK, AtariVector
from policy_distillation.checkpoints import save_agent
from policy_distillation.distill import Recipe
from policy_distillation.evaluate import Evaluation, play_episodes
from policy_distillation.losses import make_loss
from policy_distillation.networks import Agent, Network
from policy_distillation.openmp import SPIN_COUNTS
from policy_distillation.optimizers import make_optimizer
from policy_distillation.progress import Progress
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.provenance import provenance
from policy_distillation.recording import Dataset, dump_part
from policy_distillation.replay import Batch
from policy_distillation.run import Machine
from policy_distillation.students import distill_student
from policy_distillation.teachers import train_teacher
from policy_distillation.training import prepare_process, select_device, select_precision

GAME, PROTOCOL, ENDLESS = "pong", "paper2015", 10**9
THREADS = 2
REPLAY, RANDOM_STEPS = 100_000, 20_000  # transitions kept, and played at random before learning
DQN_BATCH, DQN_ENVS = 256, 32  # one batch per vector step: 8 samples trained per agent step, as in the paper (32 per 4)
PQN_ENVS, PQN_STEPS, PQN_EPOCHS, PQN_BATCH = 64, 16, 2, 128
DUMP_ENVS, DUMP_BLOCK = 40, 64  # dump_part compresses and writes after every 64 vector steps
DISTILL_BATCH = 128
EVALUATION_ENVS = 32  # two shares of sixteen, as config.yaml has
DQN_NETWORK = Network((32, 64, 64), 512)
PQN_NETWORK = Network((32, 64, 64), 512, layer_norm=True)
WORK = {"pqn": "train", "dqn": "train", "dump": "play", "evaluate": "play"}  # as the scripts say; pieces go without
EVALUATION = Evaluation(EVALUATION_ENVS * 1_000_000, EVALUATION_ENVS, 0.05)

DQN = dqn.DQN(
    steps=ENDLESS,
    envs=DQN_ENVS,
    replay_size=REPLAY,
    warmup_steps=RANDOM_STEPS,
    train_every=DQN_ENVS,
    batch_size=DQN_BATCH,
    discount=0.99,
    n_step=1,
    double=False,  # Stable-Baselines3 has no double DQN
    target_update_every=1_000,
    optimizer="adam",
    learning_rate=1e-4,
    optimizer_epsilon=1e-8,
    epsilon_start=1.0,
    epsilon_end=0.1,
    epsilon_decay_steps=100_000,
    evaluate_every=ENDLESS,
)
PQN = pqn.PQN(
    steps=ENDLESS,
    envs=PQN_ENVS,
    rollout_steps=PQN_STEPS,
    epochs=PQN_EPOCHS,
    batch_size=PQN_BATCH,
    discount=0.99,
    trace_decay=0.65,
    optimizer="adam",
    learning_rate=2.5e-4,
    optimizer_epsilon=1e-5,
    schedule="linear",
    max_gradient_norm=10.0,
    epsilon_start=1.0,
    epsilon_end=0.05,
    epsilon_decay_steps=100_000,
    evaluate_every=ENDLESS,
    input_scaling="standardised",
)
RECIPE = Recipe(
    loss="kl",
    temperature=0.01,
    optimizer="adam",
    learning_rate=3e-4,
    optimizer_epsilon=1e-8,
    schedule="cosine",
    batch_size=DISTILL_BATCH,
    input_scaling="standardised",
    window_hours=1,
    updates_per_hour=ENDLESS,
    evaluations=1,
)


class Meter:
    """Pauses a loop between its turns, and times ``period`` turns or a multiple of that when told to.

    ``{seconds}`` on the standard input starts a measurement, units per second on the standard output end it; the end of
    the input ends the process.
    """

    def __init__(self, warm_up: int, period: int = 1) -> None:
        self._turns, self._warm_up, self._period = 0, warm_up, period
        self._start = self._deadline = -math.inf
        self._units = 0
        self._one_at_a_time = threading.Lock()  # a loop may take its turns in several threads: all pause together
        self._answers, sys.stdout = sys.stdout, sys.stderr  # what the library prints goes elsewhere

    def turn(self, units: int) -> None:
        """Call once a turn, ``units`` being what the turn got done."""
        with self._one_at_a_time:
            self._turns, self._units = self._turns + 1, self._units + units
            if self._turns < self._warm_up or (self._turns - self._warm_up) % self._period:
                return
            now = time.perf_counter()
            if now < self._deadline:
                return
            print("ready" if self._start < 0 else self._units / (now - self._start), file=self._answers, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise SystemExit
            self._units, self._start = 0, time.perf_counter()
            self._deadline = self._start + float(line)

    def watch(self, owner: type, method: str, units: Callable[..., int]) -> None:
        """Let each call of a method be a turn. ``units`` gets the call's arguments."""
        original = getattr(owner, method)

        def watched(*arguments: Any) -> Any:
            result = original(*arguments)
            self.turn(units(*arguments))
            return result

        setattr(owner, method, watched)


def progress_units(progress: Progress, units: int) -> int:
    return units


def slots(env: AtariVector, actions: Any) -> int:
    return env.num_envs


# --- the project's loops ---

UNSAVED = Machine(checkpoint_seconds=math.inf)


def loop_dqn(folder: Path) -> None:
    meter = Meter(warm_up=RANDOM_STEPS // DQN_ENVS + 50)
    meter.watch(Progress, "advance", progress_units)
    train_teacher(dqn.learn, [GAME], DQN_NETWORK, DQN, EVALUATION, PROTOCOL, 0, folder / "dqn", UNSAVED)


def loop_pqn(folder: Path) -> None:
    meter = Meter(warm_up=3)
    meter.watch(Progress, "advance", progress_units)
    train_teacher(pqn.learn, [GAME], PQN_NETWORK, PQN, EVALUATION, PROTOCOL, 0, folder / "pqn", UNSAVED)


def loop_dump(folder: Path) -> None:
    meter = Meter(warm_up=DUMP_BLOCK + 1, period=DUMP_BLOCK)
    meter.watch(AtariVector, "step", slots)
    settings = Dataset(hours_per_part=1, steps_per_hour=DUMP_ENVS * 1_000_000, envs=DUMP_ENVS, epsilon=0.05)
    dump_part(folder / "teacher.safetensors", GAME, PROTOCOL, 1, settings, 0, folder / "endless.h5")


def loop_distill(folder: Path) -> None:
    meter = Meter(warm_up=50)
    meter.watch(Progress, "advance", progress_units)
    parts, teachers = {GAME: [folder / "part.h5"]}, {GAME: folder / "teacher.safetensors"}
    distill_student(parts, teachers, DQN_NETWORK, RECIPE, EVALUATION, 0, folder / "student", UNSAVED)


def loop_evaluate(folder: Path) -> None:
    meter = Meter(warm_up=100)
    meter.watch(AtariVector, "step", slots)
    precision = select_precision("auto", select_device("auto"))
    play_episodes(make_agent(DQN_NETWORK), GAME, PROTOCOL, EVALUATION, 0, precision)


# --- the least that the loops must do ---


def piece_emulator(num_envs: int) -> None:
    meter = Meter(warm_up=100)
    vector = AtariVector(GAME, PROTOCOLS[PROTOCOL], "train", num_envs, 0)
    vector.reset()
    emulator = vector._env  # without our accounting
    rng = np.random.default_rng(0)
    choices = rng.integers(0, len(vector.action_ids), (1000, num_envs))
    while True:
        for actions in choices:
            emulator.step(actions)
            meter.turn(num_envs)


def piece_forward(network: Network, batch: int, precision: str, frozen: bool = False) -> None:
    meter = Meter(warm_up=100)
    chosen = select_precision(precision, select_device("auto"))
    agent = make_agent(network)
    if frozen:
        agent = agent.frozen(chosen)
    observations = random_observations(batch).numpy()
    while True:
        agent.q_values(observations, GAME, chosen)
        meter.turn(batch)


def piece_dqn_update() -> None:
    meter = Meter(warm_up=20)
    agent = make_agent(DQN_NETWORK)
    learner = dqn.Learner(agent, DQN, select_precision("auto", select_device("auto")))
    batch = Batch(
        observations=random_observations(DQN_BATCH),
        actions=torch.randint(0, 6, (DQN_BATCH,)),
        returns=torch.zeros(DQN_BATCH),
        discounts=torch.full((DQN_BATCH,), 0.99),
        next_observations=random_observations(DQN_BATCH),
        weights=torch.ones(DQN_BATCH),
    )
    while True:
        learner.update(batch, GAME)
        meter.turn(1)


def piece_pqn_update() -> None:
    meter = Meter(warm_up=20)
    agent, precision = make_agent(PQN_NETWORK), select_precision("auto", select_device("auto"))
    optimizer = make_optimizer(PQN.optimizer, agent.parameters(), PQN.learning_rate, PQN.optimizer_epsilon)
    observations, actions = random_observations(PQN_BATCH), torch.randint(0, 6, (PQN_BATCH,))
    fitted = observations, actions, torch.zeros(PQN_BATCH), torch.ones(PQN_BATCH)
    while True:
        pqn.update(agent, optimizer, GAME, PQN.max_gradient_norm, precision, *fitted)
        meter.turn(1)


def piece_distill_update() -> None:
    meter = Meter(warm_up=20)
    student, precision = make_agent(DQN_NETWORK), select_precision("auto", select_device("auto"))
    optimizer = make_optimizer(RECIPE.optimizer, student.parameters(), RECIPE.learning_rate, RECIPE.optimizer_epsilon)
    loss_function = make_loss(RECIPE.loss, RECIPE.temperature)
    observations, teacher_q = random_observations(DISTILL_BATCH), torch.randn(DISTILL_BATCH, 6)
    while True:
        loss = loss_function(student(observations, GAME, precision), teacher_q)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        meter.turn(1)


def random_observations(batch: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, STACK, SIDE, SIDE), dtype=torch.uint8)


def make_agent(network: Network) -> Agent:
    return Agent(network, {GAME: [0, 1, 3, 4, 11, 12]}).to(select_device("auto"))


# --- the peer ---


def peer_sb3(envs: int, batch: int, train_freq: int) -> None:
    """Its DQN with the settings that its authors recommend for Atari (RL Zoo), but for what is given here.

    The environment is its own too: ``make_atari_env`` (AtariWrapper in a DummyVecEnv) and VecFrameStack.
    """
    import ale_py
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    meter = Meter(warm_up=RANDOM_STEPS // envs + 20 * train_freq, period=train_freq)

    class Turns(BaseCallback):  # type: ignore[misc]  # the library is not looked into
        def _on_step(self) -> bool:
            meter.turn(envs)
            return True

    gymnasium.register_envs(ale_py)
    env = VecFrameStack(make_atari_env("PongNoFrameskip-v4", n_envs=envs, seed=0), n_stack=STACK)
    model = stable_baselines3.DQN(
        "CnnPolicy",
        env,
        buffer_size=REPLAY,
        learning_starts=RANDOM_STEPS,
        batch_size=batch,
        train_freq=train_freq,
        gradient_steps=1,
        target_update_interval=1_000,
        learning_rate=1e-4,
        exploration_fraction=0.1,
        exploration_final_eps=0.01,
        device="cpu" if not torch.cuda.is_available() else "cuda",
    )
    model.learn(ENDLESS, callback=Turns())


Contestant = Callable[[Path], None]
LOOPS: dict[str, Contestant] = {
    "dqn": loop_dqn,
    "pqn": loop_pqn,
    "dump": loop_dump,
    "distill": loop_distill,
    "evaluate": loop_evaluate,
}
PEERS: dict[str, Contestant] = {
    "sb3": lambda folder: peer_sb3(envs=1, batch=32, train_freq=4),
    "sb3_32_envs": lambda folder: peer_sb3(envs=DQN_ENVS, batch=DQN_BATCH, train_freq=1),
}
PIECES: dict[str, Contestant] = {
    "emulator_32": lambda folder: piece_emulator(DQN_ENVS),
    "emulator_64": lambda folder: piece_emulator(PQN_ENVS),
    "emulator_40": lambda folder: piece_emulator(DUMP_ENVS),
    "dqn_forward": lambda folder: piece_forward(DQN_NETWORK, DQN_ENVS, "auto"),
    "pqn_forward": lambda folder: piece_forward(PQN_NETWORK, PQN_ENVS, "auto"),
    "dump_forward": lambda folder: piece_forward(DQN_NETWORK, DUMP_ENVS, "float32"),
    "evaluate_forward": lambda folder: piece_forward(DQN_NETWORK, EVALUATION_ENVS, "auto", frozen=True),
    "dqn_update": lambda folder: piece_dqn_update(),
    "pqn_update": lambda folder: piece_pqn_update(),
    "distill_update": lambda folder: piece_distill_update(),
}
CONTESTANTS = LOOPS | PEERS | PIECES
NEEDS = {  # what is measured for each ratio's loop
    "dqn": ["dqn", "emulator_32", "dqn_forward", "dqn_update", "sb3", "sb3_32_envs"],
    "pqn": ["pqn", "emulator_64", "pqn_forward", "pqn_update"],
    "dump": ["dump", "emulator_40", "dump_forward"],
    "distill": ["distill", "distill_update"],
    "evaluate": ["evaluate", "emulator_32", "evaluate_forward"],
}


def add_derived(rates: dict[str, float]) -> None:
    """Ceilings and ratios of one repetition, from rates in agent steps (or updates) per second."""

    def ceiling(steps: int, emulator: str, forward: str, updates: int = 0, update: str = "") -> float:
        seconds = steps / rates[emulator] + steps / rates[forward] + (updates / rates[update] if updates else 0.0)
        return steps / seconds

    if "dqn" in rates:
        rates["dqn_ceiling"] = ceiling(DQN_ENVS, "emulator_32", "dqn_forward", 1, "dqn_update")
        rates["teacher_dqn_over_ceiling"] = rates["dqn"] / rates["dqn_ceiling"]
    if "sb3" in rates:
        rates["teacher_dqn_over_sb3"] = rates["dqn"] / rates["sb3"]
        rates["teacher_dqn_over_sb3_32_envs"] = rates["dqn"] / rates["sb3_32_envs"]
    if "pqn" in rates:
        rollout = PQN_ENVS * PQN_STEPS
        updates = PQN_EPOCHS * rollout // PQN_BATCH
        rates["pqn_ceiling"] = ceiling(rollout, "emulator_64", "pqn_forward", updates, "pqn_update")
        rates["teacher_pqn_over_ceiling"] = rates["pqn"] / rates["pqn_ceiling"]
    if "dump" in rates:
        rates["dump_ceiling"] = ceiling(DUMP_ENVS, "emulator_40", "dump_forward")
        rates["dump_over_ceiling"] = rates["dump"] / rates["dump_ceiling"]
    if "distill" in rates:
        rates["distill_over_ceiling"] = rates["distill"] / rates["distill_update"]
    if "evaluate" in rates:
        rates["evaluate_ceiling"] = ceiling(EVALUATION_ENVS, "emulator_32", "evaluate_forward")
        rates["evaluate_over_ceiling"] = rates["evaluate"] / rates["evaluate_ceiling"]


def prepare_inputs(folder: Path) -> None:
    """A teacher and two hours of its play. It is untrained: speed hardly depends on how well it plays."""
    prepare_process(0, THREADS)
    path = folder / "teacher.safetensors"
    if (folder / "part.h5").exists():
        return
    save_agent(path, make_agent(DQN_NETWORK), {"protocol": {"name": PROTOCOL}})
    with contextlib.redirect_stdout(sys.stderr):
        settings = Dataset(hours_per_part=1, steps_per_hour=108_000, envs=DUMP_ENVS, epsilon=0.05)
        dump_part(path, GAME, PROTOCOL, 0, settings, 0, folder / "part.h5")


@contextlib.contextmanager
def contestants(names: list[str], folder: Path) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Start each, one after the other, and wait until it has warmed up."""
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for name in names:
            command = [sys.executable, __file__, "--contestant", name, "--folder", str(folder)]
            log = open(folder / f"{name}.log", "w")  # noqa: SIM115 - the child keeps it
            environment = os.environ | ({"GOMP_SPINCOUNT": str(SPIN_COUNTS[WORK[name]])} if name in WORK else {})
            processes[name] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
            answer(processes[name], name, folder)
            print(f"{name} is ready", file=sys.stderr)
        yield processes
    finally:
        for process in processes.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in processes.values():
            process.wait()


def answer(process: subprocess.Popen[str], name: str, folder: Path) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        sys.exit(f"{name} ended:\n{(folder / f'{name}.log').read_text()}")
    return line


def measure(process: subprocess.Popen[str], seconds: float, name: str, folder: Path) -> float:
    """Units per second. A first tenth, in which caches fill and threads wake, is run and not counted."""
    rate = "nan"
    for duration in (seconds / 10, seconds):
        assert process.stdin is not None
        process.stdin.write(f"{duration}\n")
        process.stdin.flush()
        rate = answer(process, name, folder)
    return float(rate)


def machine() -> dict[str, Any]:
    made_by = provenance()
    return {
        "commit": made_by["commit"],
        **made_by["hardware"],
        "cpus": os.cpu_count(),
        "threads": THREADS,
        "precision": select_precision("auto", select_device("auto")),
        "software": {name: version(name) for name in ("torch", "ale-py", "gymnasium", "stable-baselines3")},
    }


TABLE = [  # result, what it is, unit of the rates, rate, rate it is compared with, target
    ("teacher_dqn_over_sb3", "DQN training / Stable-Baselines3, 1 environment", "steps/s", "dqn", "sb3", "3.00"),
    (
        "teacher_dqn_over_sb3_32_envs",
        "DQN training / Stable-Baselines3, 32 environments",
        "steps/s",
        "dqn",
        "sb3_32_envs",
        "",
    ),
    ("teacher_dqn_over_ceiling", "DQN training / ceiling", "steps/s", "dqn", "dqn_ceiling", "0.90"),
    ("teacher_pqn_over_ceiling", "PQN training / ceiling", "steps/s", "pqn", "pqn_ceiling", "0.85"),
    ("dump_over_ceiling", "Recording play / ceiling", "steps/s", "dump", "dump_ceiling", "0.85"),
    ("distill_over_ceiling", "Distillation / ceiling", "updates/s", "distill", "distill_update", "0.85"),
    ("evaluate_over_ceiling", "Evaluation / ceiling", "steps/s", "evaluate", "evaluate_ceiling", "0.85"),
]


def write_results(repetitions: list[dict[str, float]], seconds: float, target: Path) -> None:
    medians = {name: statistics.median(rates[name] for rates in repetitions) for name in repetitions[0]}
    ratios = [row[0] for row in TABLE if row[0] in medians]
    results: dict[str, Any] = {name: round(medians[name], 3) for name in ratios}
    results["rates"] = {name: round(value, 1) for name, value in medians.items() if name not in ratios}
    results["ranges"] = {
        name: [round(pick(rates[name] for rates in repetitions), 3) for pick in (min, max)] for name in medians
    }
    results["machine"] = machine()
    results["method"] = {"repetitions": len(repetitions), "seconds": seconds}
    (target / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    lines = [
        "| | ratio | lowest, highest | ours | compared with | unit | target |",
        "|---|---:|---:|---:|---:|---|---:|",
    ]
    for name, title, unit, ours, other, goal in TABLE:
        if name in medians:
            low, high = results["ranges"][name]
            lines.append(
                f"| {title} | **{medians[name]:.2f}** | {low:.2f}, {high:.2f} "
                f"| {medians[ours]:,.0f} | {medians[other]:,.0f} | {unit} | {goal} |"
            )
    lines += ["", "| piece | rate | lowest, highest | unit |", "|---|---:|---:|---|"]
    for name in [name for name in PIECES if name in medians]:
        low, high = results["ranges"][name]
        unit = "updates/s" if name.endswith("update") else "steps/s"
        lines.append(f"| {name.replace('_', ' ')} | {medians[name]:,.0f} | {low:,.0f}, {high:,.0f} | {unit} |")
    facts = results["machine"]
    software = ", ".join(f"{name} {number}" for name, number in facts["software"].items())
    lines += [
        "",
        f"Medians of {len(repetitions)} interleaved repetitions of {seconds:g} s; {facts['cpu']}, {facts['cpus']} CPUs,"
        f" {THREADS} threads, {facts['precision']}; {software}; commit {facts['commit']}.",
    ]
    table = "\n".join(lines)
    readme = target / "README.md"
    if readme.exists():  # between two marks
        text = readme.read_text()
        begin, end = "<!-- written by bench.py -->", "<!-- end -->"
        head, rest = text[: text.index(begin)], text[text.index(end) :]
        readme.write_text(f"{head}{begin}\n{table}\n{rest}")
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--only", nargs="*", choices=NEEDS, default=list(NEEDS), help="loops to measure")
    parser.add_argument("--without-peer", action="store_true", help="leave Stable-Baselines3 out")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent, help="folder of results.json, README.md")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep inputs and logs here")
    arguments = parser.parse_args()
    if arguments.contestant:
        if arguments.contestant in PEERS:
            torch.set_num_threads(THREADS)  # as its users run it
        else:
            prepare_process(0, THREADS)
        CONTESTANTS[arguments.contestant](arguments.folder)
        return
    names = [name for loop in arguments.only for name in NEEDS[loop]]
    if arguments.without_peer:
        names = [name for name in names if name not in PEERS]
    with contextlib.ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        prepare_inputs(folder)
        with contestants(names, folder) as processes:
            print("measuring", file=sys.stderr)
            repetitions = []
            for number in range(arguments.repetitions):
                rates = {name: measure(processes[name], arguments.seconds, name, folder) for name in names}
                add_derived(rates)
                repetitions.append(rates)
                print(f"repetition {number + 1} of {arguments.repetitions}", file=sys.stderr)
    write_results(repetitions, arguments.seconds, arguments.results)


if __name__ == "__main__":
    main()
