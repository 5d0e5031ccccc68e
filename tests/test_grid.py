"""What the configuration means: settings, paths, cells, resources, cost."""

from __future__ import annotations

from typing import Any

from policy_distillation import cells, cost, resources
from policy_distillation.cells import Cell
from policy_distillation.grid import Grid, algorithm_settings
from test_config import CONFIG, merge, shipped

PAPER = Grid(CONFIG)
EXPERIMENTS = CONFIG["experiments"]


def changed(**change: Any) -> Grid:
    return Grid(merge(CONFIG, change))


def test_a_games_name_is_the_set_of_that_game() -> None:
    assert PAPER.games_in("pong") == ["pong"]
    assert PAPER.games_in("multi3") == ["freeway", "pong", "qbert"]
    assert PAPER.games_of({"games": ["qbert", "multi3", "breakout"]}) == ["qbert", "freeway", "pong", "breakout"]
    assert len(PAPER.games) == 10


def test_a_recipe_changes_the_defaults_and_a_game_the_teachers() -> None:
    assert PAPER.recipe("kl_tau1")["temperature"] == 1
    assert PAPER.recipe("kl_tau1")["batch_size"] == CONFIG["distillation"]["batch_size"]
    grid = changed(teacher={"games": {"pong": {"algorithm": "pqn", "pqn": {"steps": 7}}}})
    assert algorithm_settings(grid.teacher("pong")) == {
        **CONFIG["teacher"]["pqn"],
        "steps": 7,
        "evaluate_every": CONFIG["teacher"]["evaluate_every"],
    }
    assert grid.teacher("qbert") == PAPER.teacher("qbert")


def test_a_joint_dqn_plays_as_many_steps_for_each_game_unless_it_says_how_many() -> None:
    steps = CONFIG["teacher"]["dqn"]["steps"]
    assert PAPER.joint_dqn("multi3", "joint_dqn")["steps"] == 3 * steps
    grid = changed(recipes={"joint_dqn": {"dqn": {"steps": 5, "envs": 4}}})
    assert (grid.joint_dqn("multi3", "joint_dqn")["steps"], grid.joint_dqn("pong", "joint_dqn")["envs"]) == (5, 4)


def test_where_teachers_come_from() -> None:
    sources = {"pong": "reference", "qbert": {"from": "sb3", "path": "a.zip"}, "breakout": "a.safetensors"}
    grid = changed(teacher={"games": {game: {"source": source} for game, source in sources.items()}})
    games = ["breakout", "freeway", "pong", "qbert"]
    assert grid.trained(games) == ["freeway"]
    assert grid.imported(games) == ["qbert"]
    assert grid.given(games) == ["breakout", "pong"]
    assert grid.teacher_curve("freeway") == ["<results>/teachers/freeway/seed0/progress.csv"]
    assert grid.teacher_curve("pong") == ["resources/teachers/pong/progress.csv"]
    assert grid.teacher_curve("qbert") == grid.teacher_curve("breakout") == []


def test_parts_of_a_data_set() -> None:
    grid = changed(dataset={"parts": 2}, teacher={"snapshots": 1})
    assert grid.dataset_parts("pong") == ["<results>/datasets/pong/part0.h5", "<results>/datasets/pong/part1.h5"]
    assert grid.dataset_parts("pong", "online") == ["<results>/datasets/pong/online/part0.h5"]
    assert grid.dataset_list("pong", "online") == "<results>/datasets/pong/online/parts.txt"


def test_cells_are_the_product_and_variants_what_there_are_several_of() -> None:
    experiment = {"games": ["pong", "multi3"], "recipes": ["kl", "mse"], "networks": ["dqn"], "seeds": [0, 1]}
    students = cells.cells(experiment)
    assert len(set(students)) == len(students) == 8
    assert students[0].folder == "<results>/students/pong/kl/dqn/seed0"
    assert cells.variants(experiment) == ["kl", "mse"]
    assert cells.variants({**experiment, "networks": ["dqn", "net1"]})[:2] == ["kl_dqn", "kl_net1"]
    assert cells.variants({**experiment, "recipes": ["kl"]}) == ["kl"]
    assert len(cells.scored(PAPER, experiment)) == 4 * (1 + 3)


def test_cells_of_q_learning_have_no_teacher() -> None:
    multi = EXPERIMENTS["multi_task_3"]
    assert {cell.recipe for cell in cells.distilled(PAPER, multi)} == {"nll", "kl", "mse"}
    assert cells.beside_teachers(PAPER, multi) == []
    assert len(cells.beside_teachers(PAPER, EXPERIMENTS["online"])) == 8


def test_what_variants_differ_in() -> None:
    assert cells.against(PAPER, EXPERIMENTS["single_task"]) == {}
    assert cells.against(PAPER, EXPERIMENTS["data_size"])["data"]["kl_data3"] == 0.03
    assert list(cells.against(PAPER, EXPERIMENTS["compression"])["parameters"]) == [
        *("dqn", "net1", "net2", "net3", "teacher"),
    ]


def test_memory_covers_replay_and_windows() -> None:
    assert resources.teacher_mb(PAPER.teacher("pong")) > 7_064 + 1_000
    assert resources.joint_mb(PAPER, "multi3") > 3 * 7_064 + 1_000
    one, three = (resources.student_mb(PAPER, games, "kl") for games in ("pong", "multi3"))
    assert one > 540_000 * 7_056 / 1e6 + 1_000
    assert 2.5 < (three - resources.BASE_MB) / (one - resources.BASE_MB) < 3
    assert resources.student_mb(PAPER, "pong", "kl_data10") < one


def test_time_follows_steps_and_updates() -> None:
    assert resources.teacher_minutes(PAPER.teacher("pong")) * 60 * 1_000 > 50_000_000
    assert resources.joint_minutes(PAPER, "multi3", "joint_dqn") * 60 * 1_000 > 150_000_000
    assert resources.student_minutes(PAPER, "pong", "kl") * 60 * 100 > 5_000_000


def test_the_plan_of_one_cell() -> None:
    entry = {"title": "-", "games": ["pong"], "recipes": ["kl"], "networks": ["dqn"], "seeds": [0]}
    grid = Grid({**CONFIG, "experiments": {"mine": entry, "again": entry}})  # the same cell counts once
    jobs = {job.rule: job.jobs for job in cost.plan(grid)}
    assert jobs == {"train_teacher": 1, "dump_dataset": 50, "evaluate_agent": 1, "distill_student": 1}
    student = cost.training(grid, Cell("pong", "kl", "dqn", 0), "distill")
    assert student.units == 500 * 10_000 * 32
    assert cost.hours(student, {"distill": 100.0}, 0.0) * 3600 == student.units / (100 * 128)
    assert cost.hours(cost.scoring(grid, "pong"), {"evaluate": 64.0}, 1000.0) * 3600 == 128 * 1000 / 64


def test_the_table_of_costs_sums_up() -> None:
    measured = {
        "rates": dict.fromkeys(("dqn", "distill", "dump", "evaluate"), 1.0),
        "machine": {"cpu": "an abacus", "threads": 1, "gpu": None},
    }
    costs = [
        cost.Cost("a", "dump", 7200, 500, jobs=2),
        cost.Cost("a", "dump", 3600, 900),
        cost.Cost("b", "dqn", 3600, 1),
    ]
    text = cost.cost_table(costs, measured, 1.0)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:1] in "ab" and line}
    assert rows["a"] == ["3", "10,800", "3.0", "0.0", "0.9"]
    assert "4 jobs, 4 hours, 0 of them in jobs that ask for a GPU" in text
    assert "measured on an abacus" in text
    assert "1 of them" in cost.cost_table([cost.Cost("b", "dqn", 3600, 1, gpu=True)], measured, 1.0)


def test_profiles_of_a_laptop_ask_for_less() -> None:
    laptop = Grid(shipped("profiles/laptop/overrides.yaml"))
    assert resources.joint_mb(laptop, "multi3") < 8_000
    assert resources.student_mb(laptop, "multi3", "kl") < 8_000
