"""The configuration: what is accepted, and the one line that every refusal is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from policy_distillation.checkpoints import LARGEST_LAYER
from policy_distillation.checks import check_config, check_learning
from policy_distillation.config import ConfigError
from policy_distillation.grid import Grid
from policy_distillation.overlays import lay, layers
from policy_distillation.targets import check_place, check_target

ROOT = Path(__file__).resolve().parents[1]
CONFIG: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


def merge(config: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``change`` laid over ``config``."""
    return lay([(Path("config.yaml"), config), (Path("change.yaml"), change)])


def shipped(*files: str) -> dict[str, Any]:
    """config.yaml with files of this project over it."""
    return lay(layers(ROOT / "config.yaml", [ROOT / file for file in files], {}))


def refusal(change: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        check_config(merge(CONFIG, change))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_of_ones_own_whose_outputs_are_q_values_cannot_be_sampled() -> None:
    """Known before the recordings are made, as of a teacher that is trained."""
    teacher = ROOT / "resources/teachers/pong/agent.safetensors"
    student = ROOT / "resources/students/pong/net3/agent.safetensors"  # of KL: its outputs are logits
    change = {
        "experiments": {**dict.fromkeys(CONFIG["experiments"]), "mine": {**CONFIG["experiments"]["single_task"]}},
        "recipes": {"mse": {"acting": "sample"}},
    }
    change["experiments"]["mine"] |= {"games": ["pong"], "recipes": ["mse"], "claims": []}
    said = refusal({**change, "teacher": {"games": {"pong": {"source": str(teacher)}}}})
    assert f"for pong teacher.source is {teacher}, whose outputs those are" in said
    check_config(merge(CONFIG, {**change, "teacher": {"games": {"pong": {"source": str(student)}}}}))


def test_reference_teachers_all_play_the_same_number_of_games() -> None:
    """The reference profile overlays the laptop's, where each game may have a number of its own."""
    evaluation = shipped("profiles/reference/overrides.yaml")["evaluation"]
    assert {evaluation["episodes"], *(changes["episodes"] for changes in evaluation["games"].values())} == {112}


BASES = ("config.yaml", "budgets.yaml")  # of profiles, and what other overlays build on
OVERLAYS = [
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("profiles/*/*.yaml")) if path.name not in BASES),
    *("tests/smoke.yaml", "tests/grid57.yaml", "config.local.example.yaml"),
]


@pytest.mark.parametrize("files", [[], *([file] for file in OVERLAYS)], ids=str)
def test_the_shipped_configurations_are_valid(files: list[str]) -> None:
    check_config(shipped(*files))


def test_no_network_is_allowed_that_could_not_be_loaded() -> None:
    schema = yaml.safe_load((ROOT / "workflow/policy_distillation/schemas/config.schema.yaml").read_text())
    assert schema["$defs"]["width"]["maximum"] == LARGEST_LAYER


def test_the_default_is_the_papers_protocol() -> None:
    """A knob turned by accident would silently make every later number another experiment."""
    data, learning, dqn = CONFIG["dataset"], CONFIG["distillation"], CONFIG["teacher"]["dqn"]
    assert data["steps_per_hour"] * learning["window_hours"] == 540_000
    assert learning["updates_per_hour"] == 10_000
    assert learning["temperature"] == 0.01
    assert learning["optimizer"] == "rmsprop"
    assert 1e-4 <= learning["learning_rate"] <= 1e-3
    assert learning["input_scaling"] == "unit"
    assert data["epsilon"] == CONFIG["evaluation"]["epsilon"] == 0.05
    assert CONFIG["protocol"] == "paper2015"
    assert (dqn["replay_size"], dqn["train_every"], dqn["batch_size"]) == (1_000_000, 4, 32)
    assert (dqn["n_step"], dqn["double"], dqn["discount"], dqn["learning_rate"]) == (1, False, 0.99, 2.5e-4)
    assert (dqn["target_update_every"], dqn["epsilon_end"], dqn["steps"]) == (10_000, 0.1, 50_000_000)
    assert CONFIG["experiments"]["single_task"]["games"] == ["breakout", "freeway", "pong", "qbert"]


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "A", "1", "", ".", "multi\n", "con:", "-n"])
def test_names_that_are_unsafe_in_a_path_are_refused(name: str) -> None:
    assert f"game_sets: {name!r} is not allowed" in refusal({"game_sets": {name: ["pong"]}})
    assert f"recipes: {name!r} is not allowed" in refusal({"recipes": {name: {"loss": "kl"}}})
    assert f"networks: {name!r} is not allowed" in refusal({"networks": {name: CONFIG["networks"]["dqn"]}})


UNSAFE = [
    "",
    "/",
    ".",
    "../x",
    "results/../x",
    "results/",
    "a//b",
    ".hidden",
    "a b",
    "results\n",
    "{x}",
    "a*",
    "~/x",
    "$HOME",
]


@pytest.mark.parametrize("folder", UNSAFE)
def test_results_that_are_no_safe_path_are_refused(folder: str) -> None:
    message = refusal({"results": folder})
    assert message.startswith(
        f"results: {folder!r} is not allowed; allowed: a folder, absolute or below the current one"
    )


@pytest.mark.parametrize("folder", ["results/demo", "/scratch/Users/a.b/run-1", "here", "/x"])
def test_results_may_be_anywhere(folder: str) -> None:
    check_config(merge(CONFIG, {"results": folder}))


@pytest.mark.parametrize(
    ("change", "key", "value", "allowed"),
    [
        ({"extra": 1}, "config", "'extra' (value 1)", "dataset, distillation"),
        ({"recipes": {"kl": {"tau": 1}}}, "recipes.kl", "'tau' (value 1)", "batch_size, data, dqn"),
        ({"recipes": {"kl": {"loss": "huber"}}}, "recipes.kl.loss", "'huber'", "mse, nll, kl"),
        ({"recipes": {"kl": {"temperature": 0}}}, "recipes.kl.temperature", "0", "more than 0"),
        ({"recipes": {"warm": {"temperature": 1}}}, "recipes.warm", "'loss' is missing", "required: loss"),
        ({"distillation": {"learning_rate": "1e-4"}}, "distillation.learning_rate", "'1e-4' is text", "write 0.0001"),
        ({"dataset": {"parts": 3.0}}, "dataset.parts", "3.0", "allowed: a whole number"),
        ({"teacher": {"dqn": {"steps": 4e7}}}, "teacher.dqn.steps", "40000000.0", "allowed: a whole number"),
        ({"networks": {"dqn": {"hidden": True}}}, "networks.dqn.hidden", "True", "allowed: a whole number"),
        ({"recipes": {"kl": {"temperature": math.nan}}}, "recipes.kl.temperature", "nan", "allowed: a number"),
        ({"recipes": {"kl": {"temperature": math.inf}}}, "recipes.kl.temperature", "inf", "allowed: a number"),
        ({"teacher": {"dqn": {"discount": math.nan}}}, "teacher.dqn.discount", "nan", "allowed: a number"),
        ({"machine": {"checkpoint_seconds": math.nan}}, "machine.checkpoint_seconds", "nan", "allowed: a number"),
        ({"teacher": {"games": {1: {}}}}, "teacher.games", "the key 1", "is not text; put it in quotes"),
        ({"recipes": {True: {"loss": "kl"}}}, "recipes", "the key True", "is not text; put it in quotes"),
        ({1: 2, "foo": 3}, "config", "the key 1", "is not text; put it in quotes"),
        ({"teacher": {"dqn": {"double": "yes"}}}, "teacher.dqn.double", "'yes'", "true or false"),
        ({"teacher": {"dqn": {"steps": 0}}}, "teacher.dqn.steps", "0", "1 or more"),
        ({"teacher": {"dqn": {"discount": 1.5}}}, "teacher.dqn.discount", "1.5", "at most 1"),
        ({"teacher": {"network": "net9"}}, "teacher.network", "'net9'", "dqn, multi10"),
        ({"protocol": "atari57"}, "protocol", "'atari57'", "paper2015, machado2018"),
        ({"game_sets": {"pong": ["pong"]}}, "game_sets.pong", "name of a game", "set of that game"),
        ({"game_sets": {"two": ["pong", "pong"]}}, "game_sets.two", "['pong', 'pong']", "no entry twice"),
        ({"game_sets": {"two": ["pong", "nope"]}}, "game_sets.two[1]", "'nope'", "zaxxon"),
        (
            {"experiments": {"single_task": {"games": ["mspacman"]}}},
            "experiments.single_task.games[0]",
            "mspacman",
            "allowed: ms_pacman",
        ),
        ({"experiments": {"single_task": {"games": ["pongo"]}}}, "experiments.single_task.games[0]", "'pongo'", "pong"),
        ({"experiments": {"single_task": {"networks": ["x"]}}}, "experiments.single_task.networks[0]", "'x'", "net1"),
        ({"networks": {"dqn": {"channels": [1, 2]}}}, "networks.dqn.channels", "[1, 2]", "exactly 3"),
        ({"dataset": {"envs": 7}}, "dataset.envs", "7", "54000"),
        ({"evaluation": {"episodes": 100}}, "evaluation.episodes", "100", "evaluation.envs, 32"),
        ({"evaluation": {"games": {"pong": {"episodes": 100}}}}, "evaluation.games.pong.episodes", "100", "multiple"),
        ({"evaluation": {"games": {"pongo": {"episodes": 32}}}}, "evaluation.games", "'pongo'", "pong"),
        ({"evaluation": {"games": {"pong": {"envs": 8}}}}, "evaluation.games.pong", "'envs' (value 8)", "episodes"),
        (
            {"recipes": {"kl": {"evaluation_episodes": 5}}},
            "recipes.kl.evaluation_episodes",
            "5",
            "progress_evaluation.envs",
        ),
        ({"progress_evaluation": {"envs": 5}}, "distillation.evaluation_episodes", "32", "progress_evaluation.envs, 5"),
        ({"dataset": {"envs": 1}}, "experiments.driver.recipes", "kl_mix has the driver mix", "dataset.envs is 1"),
        (
            {"distillation": {"acting": "sample"}},
            "experiments.single_task.recipes",
            "mse",
            "is train, whose outputs those are",
        ),
        (
            {"recipes": {"mse": {"acting": "sample"}}},
            "experiments.single_task.recipes",
            "mse",
            "is train, whose outputs those are",
        ),
        (
            {"recipes": {"mse": {"loss": "advantages", "acting": "sample"}}},
            "experiments.single_task.recipes",
            "mse learns Q-values by advantages and is to be sampled",
            "is train, whose outputs those are",
        ),
        (
            {"teacher": {"snapshots": 40}},
            "experiments.online.recipes",
            "hours of breakout to learn from: kl 500, kl_online 400",
            "as many teacher.snapshots, here 40, as dataset.parts, 50",
        ),
        (
            {"dataset": {"parts": 1, "hours_per_part": 1}, "experiments": {"online": None}},
            "experiments.driver.recipes",
            "kl_mix has the driver mix, which acts from the second hour on, and of breakout there is one",
            "2 or more",
        ),
        ({"evaluation": {"episodes": 1}}, "evaluation.episodes", "1", "2"),
        ({"evaluation": {"games": {"pong": {"episodes": 1}}}}, "evaluation.games.pong.episodes", "1", "2"),
        ({"networks": {"net1": {"hidden": 100_000}}}, "networks.net1.hidden", "100000", "65536"),
        ({"teacher": {"algorithm": "pqn"}}, "teacher.network", "dqn has no layer_norm", "allowed: pqn"),
        ({"teacher": {"pqn": {"steps": 4000}}}, "teacher.pqn.steps", "4000", "allowed: 4096"),
        ({"game_sets": {"two": ["pong", "joust"]}}, "game_sets.two[1]", "'joust'", "for two players"),
        (
            {"experiments": {"driver": {"games": ["ALE/Combat-v5"]}}},
            "experiments.driver.games[0]",
            "'combat'",
            "for two",
        ),
        ({"teacher": {"dqn": {"replay_size": 100}}}, "teacher.dqn", "replay_size 100", "<= 96"),
        ({"teacher": {"dqn": {"replay_size": 1003, "warmup_steps": 1002}}}, "teacher.dqn", "fill 1000", "<= 1000"),
        ({"teacher": {"games": {"pongo": {}}}}, "teacher.games", "'pongo'", "pong"),
        ({"teacher": {"games": {"pong": {"seed": 1}}}}, "teacher.games.pong", "'seed' (value 1)", "algorithm, dqn"),
        ({"teacher": {"games": {"pong": {"network": "x"}}}}, "teacher.games.pong.network", "'x'", "net1"),
        ({"teacher": {"games": {"pong": {"pqn": {"batch_size": 100}}}}}, "teacher.games.pong.pqn", "100", "128 * 32"),
        ({"teacher": {"initial_agent": ""}}, "teacher.initial_agent", "''", "at least 1 characters"),
        ({"teacher": {"algorithm": "a2c"}}, "teacher.algorithm", "'a2c'", "dqn, pqn"),
        ({"experiments": {"single_task": {"against": "x"}}}, "experiments.single_task.against", "'x'", "parameters"),
        (
            {"experiments": {"driver": {"claims": [{"says": "so", "variant": "kl/kl_me"}]}}},
            "experiments.driver.claims[0].variant",
            "unknown recipe or network 'kl_me'",
            "kl_mix",
        ),
        ({"recipes": {"kl": {"dqn": {"steps": 5}}}}, "recipes.kl.dqn", "the loss kl", "q_learning"),
        ({"recipes": {"joint_dqn": {"temperature": 1}}}, "recipes.joint_dqn", "temperature", "dqn"),
        ({"recipes": {"nll": {"temperature": 1}}}, "recipes.nll.temperature", "the loss nll", "allowed with kl"),
        ({"recipes": {"mse": {"logits_temperature": 2}}}, "recipes.mse.logits_temperature", "the loss mse", "with kl"),
        (
            {"recipes": {"kl": {"filters_learning_rate": 0.1}}},
            "recipes.kl.filters_learning_rate",
            "the optimizer rmsprop",
            "allowed with muon",
        ),
        ({"dataset": {"epsilon": [0.05, 2]}}, "dataset.epsilon[1]", "2", "at most 1"),
        ({"dataset": {"epsilon": []}}, "dataset.epsilon", "[]", "at least 1 entry"),
        ({"dataset": {"epsilon": [0.1] * 11}}, "dataset.epsilon", "11 values", "as many or fewer"),
        ({"recipes": {"kl_online": {"driver": "mix"}}}, "recipes.kl_online", "mix", "driver: teacher"),
        ({"recipes": {"kl": {"data": 0}}}, "recipes.kl.data", "0", "more than 0"),
        ({"recipes": {"kl": {"driver": "me"}}}, "recipes.kl.driver", "'me'", "teacher, student, mix"),
        (
            {"experiments": {"multi_task_3": {"networks": ["dqn"]}}},
            "experiments.multi_task_3.networks",
            "dqn has no controllers for the 3 games of multi3",
            "multi3, multi10",
        ),
        (
            {"teacher": {"games": {"pong": {"source": "reference"}}}},
            "experiments.online.recipes",
            "for pong teacher.source is 'reference'",
            "allowed: train",
        ),
        ({"teacher": {"snapshots": 0}}, "experiments.online.recipes", "teacher.snapshots 0", "1 or more"),
        (  # the first ones would all be the same agent
            {"teacher": {"dqn": {"steps": 2_000_000}}},
            "experiments.online.recipes",
            "40000 steps apart, and the teacher is scored every 250000",
            "teacher.evaluate_every: 40000, or less",
        ),
        (
            {"experiments": {"driver": {"claims": [{"says": "so", "variant": "kl", "against": "kl"}]}}},
            "experiments.driver.claims[0]",
            "compares kl with itself",
            "another",
        ),
        ({"experiments": {"driver": {"seeds": ["0"]}}}, "experiments.driver.seeds[0]", "'0' is text", "write 0, "),
        ({"experiments": {"driver": {"seeds": 3}}}, "experiments.driver.seeds", "3", "allowed: a list"),
        ({"recipes": {"soft": None}}, "recipes.soft", "null", "allowed: a mapping"),
        ({"recipes": {"soft!": {"loss": "kl"}}}, "recipes", "'soft!'", "small letters, digits and _"),
        ({"networks": {"dqn": {"channels": [16, 32]}}}, "networks.dqn.channels", "[16, 32]", "exactly 3 entries"),
        (
            {"teacher": {"source": "reference", "initial_agent": "a"}, "experiments": {"online": {"recipes": ["kl"]}}},
            "teacher.initial_agent",
            "no teacher is trained",
            "allowed: null",
        ),
        ({"machine": {"device": "tpu"}}, "machine.device", "'tpu'", "cuda"),
        ({"machine": {"tracker": "mlflow"}}, "machine.tracker", "'mlflow'", "null, wandb, trackio"),
    ],
)
def test_a_refusal_names_key_value_and_what_is_allowed(
    change: dict[str, Any], key: str, value: str, allowed: str
) -> None:
    message = refusal(change)
    assert message.startswith(f"{key}: ")
    assert value in message
    assert allowed in message


@pytest.mark.parametrize("folder", [False, True])
def test_a_tracker_that_is_not_installed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """Also where it has left a folder of its name; one that is installed is accepted without being imported."""
    for name in ("trackio", *(["wandb"] if folder else [])):
        (tmp_path / name).mkdir()
    (tmp_path / "trackio/__init__.py").write_text("raise RuntimeError")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert refusal({"machine": {"tracker": "wandb"}}) == (
        "machine.tracker: wandb is not installed; pip install wandb, or tracker: null"
    )
    check_config(merge(CONFIG, {"machine": {"tracker": "trackio"}}))


def test_a_games_import_replaces_the_default_one_whole() -> None:
    teacher = {"source": {"from": "sb3", "path": "a.zip"}, "dqn": {"steps": 1}, "games": {}}
    other = {"from": "cleanrl", "hub": "a/b", "revision": "0" * 40}
    for source in (other, "train"):
        grid = Grid({"teacher": {**teacher, "games": {"pong": {"source": source}}}})
        assert grid.teacher("pong")["source"] == source
        assert grid.teacher("qbert")["source"] == {"from": "sb3", "path": "a.zip"}


RARE: dict[str, int] = {"steps": 5000, "envs": 8, "replay_size": 1000, "warmup_steps": 500, "train_every": 4}


@pytest.mark.parametrize("change", [{"replay_size": 499}, {"replay_size": 503}, {"warmup_steps": 72}, {"steps": 500}])
@pytest.mark.parametrize("place", ["teacher", "game", "recipe"])
def test_a_dqn_that_would_never_learn_is_refused_wherever_it_stands(place: str, change: dict[str, int]) -> None:
    """A replay below the warm-up, or so once it holds whole vector steps alone: no update, NaN, and no error."""
    settings = {**RARE, **change} if "replay_size" not in change else {**RARE, "warmup_steps": 500, **change}
    if change.get("warmup_steps"):
        settings["warmup_steps"] = settings["envs"] * 9 - 1  # one step short of an n-step return of each emulator
    places = {
        "teacher": ({"teacher": {"dqn": settings}}, "teacher.dqn"),
        "game": ({"teacher": {"games": {"pong": {"dqn": settings}}}}, "teacher.games.pong.dqn"),
        "recipe": ({"recipes": {"joint_dqn": {"dqn": settings}}}, "recipes.joint_dqn.dqn"),
    }
    change, where = places[place]
    assert refusal(change).startswith(where)


def test_a_joint_dqns_warm_up_is_each_games() -> None:
    """Three games that take turns fill their replays after three times as many steps."""
    check_config(merge(CONFIG, {"recipes": {"joint_dqn": {"dqn": {**RARE, "steps": 3 * 504 + 8}}}}))
    message = refusal({"recipes": {"joint_dqn": {"dqn": {**RARE, "steps": 3 * 504}}}})
    assert message.startswith("recipes.joint_dqn.dqn.steps: 1512 of 3 games together end before the first update")
    assert "allowed: 1520 or more" in message


def test_how_finished_agents_are_scored_is_no_setting_of_training() -> None:
    """Other episodes, emulators and epsilon: other scores of the same agents."""
    config = merge(CONFIG, {"evaluation": {"envs": 8, "epsilon": 0.001, "episodes": 8}})
    check_config(config)
    assert Grid(config).progress_evaluation(32) == Grid(CONFIG).progress_evaluation(32)
    assert Grid(config).evaluation("pong") != Grid(CONFIG).evaluation("pong")


def test_what_a_joint_dqn_does_not_read_is_not_held_against_it() -> None:
    online = {"distillation": {"teacher": "online"}, "teacher": {"source": "reference"}}
    driven = {"distillation": {"driver": "student"}, "dataset": {"parts": 1, "hours_per_part": 1}}
    for change in (online, driven):
        grid = Grid(merge(CONFIG, change))
        check_learning(grid, "experiments.multi_task_3.recipes", "multi3", "joint_dqn")
        with pytest.raises(ConfigError, match=r"kl needs snapshots|kl has the driver student"):
            check_learning(grid, "experiments.multi_task_3.recipes", "multi3", "kl")


def test_parts_that_nobody_plays_are_refused() -> None:
    for change, what in (({"source": "reference"}, "'reference'"), ({"snapshots": 0}, "teacher.snapshots 0")):
        with pytest.raises(ConfigError, match=what) as caught:
            check_target(Grid(merge(CONFIG, {"teacher": change})), "results/datasets/pong/online/part0.h5")
        assert str(caught.value).startswith("results/datasets/pong/online/part0.h5: it needs snapshots of a teacher")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("students/pong/nope/dqn/seed0/agent.safetensors", "unknown recipe 'nope'; allowed: joint_dqn, kl, "),
        ("students/pong/kl/nope/seed0/agent.safetensors", "unknown network 'nope'; allowed: dqn, multi10, "),
        ("students/pongo/kl/dqn/seed0/progress.csv", "unknown game 'pongo', perhaps pong; allowed: adventure, "),
        ("students/ALE/kl/dqn/seed0/progress.csv", "or a set of games: multi10, multi3"),
        ("students/mspacman/kl/dqn/seed0/progress.csv", "unknown game 'mspacman'; allowed: ms_pacman"),
        ("students/pong/kl/dqn/0/agent.safetensors", "unknown seed '0'; allowed: seed0, seed1, ..."),
        ("students/pong/kl/dqn/seed01/agent.safetensors", "unknown seed 'seed01'"),  # another folder for the same seed
        ("students/pong/kl/dqn/seed4294967296/agent.safetensors", "allowed: seed0, seed1, ..., seed4294967295"),
        ("datasets/pong/part01.h5", "unknown part 01; allowed: 0 to 49"),
        ("students/multi3/kl/dqn/seed0/agent.safetensors", "dqn has no controllers for the 3 games of multi3"),
        (
            "students/multi3/kl/multi3/seed0/scores/breakout.csv",
            "unknown game of that agent 'breakout'; allowed: free",
        ),
        ("teachers/joust/seed0/agent.safetensors", "the game 'joust' is for two players"),
        ("datasets/pongo/part0.h5", "unknown game 'pongo'"),
        ("teachers/pong/0/agent.safetensors", "unknown seed '0'"),
        ("teachers/pong/seed0/scores/qbert.csv", "unknown game of that agent 'qbert'; allowed: pong"),
        ("teachers/pong/seed0/onnx/qbert.int8.onnx", "unknown game of that agent 'qbert'; allowed: pong"),
        ("random/nope/scores/nope.csv", "unknown game 'nope'"),
        ("random/pong/scores/qbert.csv", "unknown game of that agent 'qbert'; allowed: pong"),
        ("reference_teachers/nope/agent.safetensors", "unknown game 'nope'"),
        ("reference_students/pong/nope/agent.safetensors", "unknown network 'nope'; allowed: dqn, multi10, "),
        ("reference_students/pong/net3/scores/breakout.csv", "unknown game of that agent 'breakout'; allowed: pong"),
        ("datasets/pong/part99.h5", "unknown part 99; allowed: 0 to 49"),
        ("datasets/pong/nonsense/part0.h5", "unknown kind of data beside those of the finished teacher 'nonsense'; "),
        ("datasets/pong/online/part50.h5", "unknown part 50; allowed: 0 to 49"),
        ("table_singletask.csv", "unknown experiment 'singletask'; allowed: compression, "),
        ("scores_nope.csv", "unknown experiment 'nope'"),
        ("table_nope.csv.json", "unknown experiment 'nope'"),
        ("exports_nope.md", "unknown experiment 'nope'"),
        ("figures/nope/scores.png", "unknown experiment 'nope'"),
        ("figures/online/score.png", "unknown figure of that experiment 'score'; allowed: curves, profile, scores"),
        ("videos/nope/pong.mp4", "unknown experiment 'nope'"),
        ("videos/online/enduro.mp4", "unknown video of that experiment 'enduro'; allowed: breakout, "),
    ],
)
def test_a_typo_in_a_path_is_one_line(target: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_target(Grid(CONFIG), f"results/{target}")
    assert str(caught.value).startswith(f"results/{target}: ")
    with pytest.raises(ConfigError, match=r"unknown|no controllers|for two"):
        check_target(Grid(CONFIG), f"./results//{target}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_figure_of_teachers_curves_needs_one() -> None:
    given = Grid(merge(CONFIG, {"teacher": {"source": "/elsewhere/agent.safetensors"}}))
    with pytest.raises(ConfigError, match=r"^results/figures/teacher_curves\.png: no teacher .* has a learning curve$"):
        check_target(given, "results/figures/teacher_curves.png")


@pytest.mark.parametrize(
    "target",
    [
        "results/students/multi3/kl/multi3/seed12/scores/pong.csv",
        "results/students/pong/kl_online/net3/seed0/agent.safetensors",
        "results/datasets/pong/online/part3.h5",
        "results/datasets/pong/online/parts.txt",
        "results/datasets/pong/part0.h5",
        "results/teachers/pong/seed1/progress.csv",
        "results/table_single_task.md",
        "results/teachers/pong/seed1/scores/pong.csv.json",
        "results/students/pong/kl/net3/seed0/onnx/pong.float32.onnx",
        "results/random/pong/scores/pong.csv",
        "results/reference_teachers/SHA256SUMS",
        "results/reference_students/README.md",
        "results/reference_students/pong/net3/scores.csv",
        "results/figures/online/scores.svg",
        "results/figures/teacher_curves.png",
        "results/videos/online/pong.mp4",
        "results/exports_compression.csv.json",
        "results/figures/x.png",
        "results/figures",
        "results/figures/",
        "results/report.html",
        "results",
        "other/students/a/b/c/d",
        "all",
        "--quiet",
    ],
)
def test_other_arguments_pass(target: str) -> None:
    check_target(Grid(CONFIG), target)
    check_place(Grid(CONFIG), target)


@pytest.mark.parametrize(
    ("target", "own"),
    [
        ("results/demo/table_single_task.csv", "table_single_task.csv"),
        ("results/demo/students/pong/kl/dqn/seed0/agent.safetensors", "students/pong/kl/dqn/seed0/agent.safetensors"),
        ("table_single_task.md", "table_single_task.md"),
        (f"{ROOT}/results/figures/online/scores.png", "figures/online/scores.png"),
        ("/elsewhere/datasets/pong/online/part3.h5", "datasets/pong/online/part3.h5"),
    ],
)
def test_results_of_another_configuration_are_told_where_they_lie(target: str, own: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_place(Grid(CONFIG), target)
    assert str(caught.value).startswith(
        f"{target}: this configuration's results are below results; allowed: results/{own}, or"
    )
    there = tmp_path / "demo" / own
    there.parent.mkdir(parents=True)
    there.touch()
    check_place(Grid(CONFIG), str(there))  # a file that is there is an argument like any other
