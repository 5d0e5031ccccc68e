"""What the configuration means: settings, paths, cells, resources, cost."""

from __future__ import annotations

import re
from typing import Any

import pytest
from policy_distillation import cells, cost, resources
from policy_distillation.atari import STACK
from policy_distillation.cells import Cell
from policy_distillation.checks import check_config
from policy_distillation.grid import Grid, algorithm_settings
from policy_distillation.sliding_window import _runs
from test_config import CONFIG, ROOT, merge, shipped

PAPER = Grid(CONFIG)
LENGTHS = {"pong": 1_000.0, "enduro": 9_000.0}
EXPERIMENTS = CONFIG["experiments"]


def changed(**change: Any) -> Grid:
    return Grid(merge(CONFIG, change))


def test_a_games_name_is_the_set_of_that_game() -> None:
    assert PAPER.games_in("pong") == ["pong"]
    assert PAPER.games_in("multi3") == ["freeway", "pong", "qbert"]
    assert PAPER.games_of({"games": ["qbert", "multi3", "breakout"]}) == ["qbert", "freeway", "pong", "breakout"]
    assert len(PAPER.games) == 10


def test_a_networks_sizes_are_the_same_however_they_are_written() -> None:
    """Snakemake makes anew what is made of settings whose text changed."""
    written = [{"channels": [8, 8, 8], "hidden": 32}, {"layer_norm": False, "hidden": 32, "channels": [8, 8, 8]}]
    assert len({repr(changed(networks={"small": sizes}).network("small")) for sizes in written}) == 1


def test_a_recipe_changes_the_defaults_and_a_game_the_teachers() -> None:
    assert PAPER.recipe("kl_tau1")["temperature"] == 1
    assert PAPER.recipe("kl_tau1")["batch_size"] == CONFIG["distillation"]["batch_size"]
    grid = changed(teacher={"games": {"pong": {"algorithm": "pqn", "pqn": {"steps": 7, "optimizer": "muon"}}}})
    assert algorithm_settings(grid.teacher("pong")) == {
        **CONFIG["teacher"]["pqn"],
        "steps": 7,
        "optimizer": "muon",
        "evaluate_every": CONFIG["teacher"]["evaluate_every"],
    }
    assert grid.teacher("qbert") == PAPER.teacher("qbert")


def test_what_a_run_does_not_read_is_none_of_its_settings() -> None:
    """Else another temperature would make every student anew, another rate of Muon every teacher that has none, and
    other starts by a teacher the scores of games that begin without one."""
    hotter = changed(distillation={"temperature": 0.02, "logits_temperature": 2.0})
    assert hotter.recipe("kl") != PAPER.recipe("kl")
    assert [hotter.recipe(name) for name in ("mse", "nll")] == [PAPER.recipe(name) for name in ("mse", "nll")]

    def scoring(starts: str, steps: int) -> dict[str, Any]:
        return changed(evaluation={"starts": starts, "teacher_steps": steps}).evaluation("pong")

    assert scoring("noop", 5) == scoring("noop", 6)
    assert scoring("teacher", 5) != scoring("teacher", 6)

    def runs(optimizer: str, rate: float) -> list[Any]:
        filters = {"optimizer": optimizer, "filters_learning_rate": rate}
        teacher = {"dqn": filters, "pqn": filters}
        grid = changed(distillation=filters, teacher=teacher, recipes={"joint_dqn": {"dqn": {"steps": 5}}})
        teachers = [algorithm_settings({**grid.teacher("pong"), "algorithm": name}) for name in ("dqn", "pqn")]
        return [grid.recipe("kl"), grid.joint_dqn("multi3", "joint_dqn"), *teachers]

    for optimizer in ("rmsprop", "adam"):
        assert runs(optimizer, 0.1) == runs(optimizer, 0.2)
    assert all(one != other for one, other in zip(runs("muon", 0.1), runs("muon", 0.2), strict=True))


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


def test_a_file_of_that_name_beside_an_agent_may_be_no_curve_of_it(tmp_path) -> None:
    for game in ("pong", "breakout", "qbert"):
        (tmp_path / f"{game}.safetensors").touch()
    agents = {game: {"source": str(tmp_path / f"{game}.safetensors")} for game in ("pong", "breakout", "qbert")}
    grid = changed(teacher={"games": agents})
    curve = tmp_path / "progress.csv"
    curve.write_text("step,seconds,return_pong\n10,1.0,3.0\n")
    assert grid.teacher_curve("pong") == [str(curve)]
    assert grid.teacher_curve("breakout") == []
    curve.write_bytes(b"\xff\xfe\x00")
    assert grid.teacher_curve("pong") == []


def test_parts_of_a_data_set() -> None:
    grid = changed(dataset={"parts": 2}, teacher={"snapshots": 1})
    assert grid.dataset_parts("pong") == ["<results>/datasets/pong/part0.h5", "<results>/datasets/pong/part1.h5"]
    assert grid.dataset_parts("pong", "online") == ["<results>/datasets/pong/online/part0.h5"]
    assert grid.dataset_list("pong", "online") == "<results>/datasets/pong/online/parts.txt"


def variants(grid: Grid = PAPER, **experiment: Any) -> list[str]:
    whole = {"games": ["pong", "qbert"], "recipes": ["kl"], "networks": ["dqn"], "seeds": [0, 1], **experiment}
    return list(cells.variants(grid, whole))


def test_cells_are_the_product_and_variants_what_there_are_several_of() -> None:
    experiment = {"games": ["pong", "multi3"], "recipes": ["kl", "mse"], "networks": ["dqn"], "seeds": [0, 1]}
    students = cells.cells(experiment)
    assert len(set(students)) == len(students) == 8
    assert students[0].folder == "<results>/students/pong/kl/dqn/seed0"
    assert len(cells.scored(PAPER, experiment)) == 4 * (1 + 3)
    assert variants() == ["kl"]
    assert variants(recipes=["kl", "mse"]) == ["kl", "mse"]
    assert variants(networks=["dqn", "net1"]) == ["dqn", "net1"]
    assert variants(recipes=["kl", "mse"], networks=["dqn", "net1"])[:2] == ["kl/dqn", "kl/net1"]


def test_different_cells_of_a_game_never_share_a_variant() -> None:
    assert variants(recipes=["a", "a_b"], networks=["b_c", "c"]) == ["a/b_c", "a/c", "a_b/b_c", "a_b/c"]
    assert variants(games=["pong", "multi3"], recipes=["kl", "mse"])[::2] == ["single-task/kl", "multi3/kl"]
    overlapping = {"games": ["pong", "multi3", "breakout"], "recipes": ["kl"], "networks": ["dqn"], "seeds": [0]}
    found = cells.scored(PAPER, overlapping)
    named = [(game, cells.variant(PAPER, overlapping, cell)) for game, cell in found]
    assert len(set(named)) == len(named) == 5
    assert ("pong", "single-task") in named
    assert ("pong", "multi3") in named
    assert variants(games=["multi3", "breakout"]) == ["kl"]  # no game twice


def test_cells_of_q_learning_have_no_teacher() -> None:
    multi = EXPERIMENTS["multi_task_3"]
    assert {cell.recipe for cell in cells.distilled(PAPER, multi)} == {"nll", "kl", "mse"}
    assert cells.beside_teachers(PAPER, multi) == []
    assert len(cells.beside_teachers(PAPER, EXPERIMENTS["online"])) == 8


def test_what_variants_differ_in() -> None:
    assert cells.values(PAPER, EXPERIMENTS["single_task"]) == {}
    assert cells.values(PAPER, EXPERIMENTS["data_size"])["kl_data3"] == 0.03
    assert list(cells.values(PAPER, EXPERIMENTS["compression"])) == ["dqn", "net1", "net2", "net3"]
    sets = {**EXPERIMENTS["compression"], "games": ["multi3"], "networks": ["multi3"]}
    assert cells.values(PAPER, sets) == {"kl": [PAPER.network("multi3"), 3]}
    both = {**EXPERIMENTS["compression"], "recipes": ["kl", "mse"]}
    assert cells.series(PAPER, both) == {f"{r}/{n}": r for r in ("kl", "mse") for n in ("dqn", "net1", "net2", "net3")}
    assert set(cells.series(PAPER, {**both, "recipes": ["kl"]}).values()) == {""}
    warm = {**both, "recipes": ["kl", "kl_tau1"], "networks": ["dqn", "net1"], "against": "temperature"}
    assert cells.series(PAPER, warm)["kl_tau1/net1"] == "net1"


def test_null_takes_back_what_a_figure_is_drawn_against() -> None:
    bars = changed(experiments={"compression": {"against": None}})
    check_config(bars.config)
    entry = bars.config["experiments"]["compression"]
    plain = {key: entry[key] for key in entry if key != "against"}
    assert cells.figure_facts(bars, entry, []) == cells.figure_facts(bars, plain, [])
    assert cells.table_facts(bars, entry) == cells.table_facts(bars, plain)


def test_figures_of_an_experiment_lie_in_a_folder_of_their_own() -> None:
    experiments = dict.fromkeys(("x", "x_curves", "teacher"), EXPERIMENTS["single_task"])
    files = list(cells.results_of(Grid({**CONFIG, "experiments": experiments}), experiments))
    assert len(set(files)) == len(files) == 3 * 3
    several = {"x": {**EXPERIMENTS["single_task"], "seeds": [0, 1]}}
    assert "<results>/figures/x/profile.png" in cells.results_of(Grid({**CONFIG, "experiments": several}), several)


def test_what_experiments_ask_for_is_theirs_alone() -> None:
    """`paper` would train the teachers of other experiments' games."""
    for name in EXPERIMENTS:
        for path in cells.results_of(PAPER, [name]):
            assert path == f"<results>/table_{name}.csv" or path.startswith(f"<results>/figures/{name}/")


def test_learning_curves_are_of_students_or_else_of_joint_dqns() -> None:
    multi = EXPERIMENTS["multi_task_3"]
    assert len(cells.with_curves(PAPER, multi)) == 3
    assert [cell.recipe for cell in cells.with_curves(PAPER, {**multi, "recipes": ["joint_dqn"]})] == ["joint_dqn"]


def test_memory_covers_replay_and_windows() -> None:
    assert resources.teacher_mb(PAPER.teacher("pong")) > 7_064 + 1_000
    assert resources.joint_mb(PAPER, "multi3", "joint_dqn") > 3 * 7_064 + 1_000
    one, three = (resources.student_mb(PAPER, games, "kl") for games in ("pong", "multi3"))
    assert one > 540_000 * 7_056 / 1e6 + 1_000
    assert 2.5 < (three - resources.BASE_MB) / (one - resources.BASE_MB) < 3
    assert resources.student_mb(PAPER, "pong", "kl_data10") < one
    for data in (0.5, 0.75, 0.9, 0.99):  # short runs, each with its context, are more than what they are picked from
        runs, run = _runs(5_400, data)
        grid = changed(recipes={"some": {"loss": "kl", "data": data}})
        asked = resources.student_mb(grid, "pong", "some") - resources.BASE_MB
        assert asked > 10 * 10 * runs * (run + STACK - 1) * resources.FRAME_BYTES / 1e6  # ten hours, ten emulators
    large = {"algorithm": "pqn", "pqn": {"envs": 1024, "rollout_steps": 128}}
    assert resources.teacher_mb(large) > 1024 * 128 * 4 * resources.FRAME_BYTES / 1e6 + 1_000


def test_time_follows_steps_and_updates() -> None:
    assert resources.teacher_minutes(PAPER.teacher("pong")) * 60 * 1_000 > 50_000_000
    assert resources.joint_minutes(PAPER, "multi3", "joint_dqn") * 60 * 1_000 > 150_000_000
    assert resources.student_minutes(PAPER, "pong", "kl") * 60 * 100 > 5_000_000


def test_what_an_online_student_needs_follows_its_teachers_snapshots() -> None:
    """Of which each plays a part, however many parts final teachers play."""
    one = changed(dataset={"parts": 1})
    games, hours = 3, CONFIG["teacher"]["snapshots"] * CONFIG["dataset"]["hours_per_part"]
    assert resources.student_minutes(one, "multi3", "kl_online") > games * hours * 10_000 / 6_000
    assert resources.student_minutes(one, "multi3", "kl") < resources.student_minutes(PAPER, "multi3", "kl")
    few = merge(CONFIG, {"dataset": {"hours_per_part": 1}, "teacher": {"snapshots": 2}})
    assert resources.student_mb(Grid(few), "pong", "kl_online") < resources.student_mb(Grid(few), "pong", "kl")
    online, final = (cost.training(one, Cell("pong", recipe, "dqn", 0), LENGTHS).work for recipe in ("kl_online", "kl"))
    assert online["distill"] == 50 * final["distill"]


def test_a_job_asks_for_no_more_time_than_one_may_take_and_grows_in_memory_alone() -> None:
    long = resources.student_minutes(PAPER, "multi10", "kl")
    assert long > 8_000  # nearly six days
    assert resources.capped(PAPER, long) == CONFIG["machine"]["longest_job_minutes"] == 24 * 60
    assert resources.capped(PAPER, 120) == 120
    for path in (ROOT / "workflow/rules").glob("*.smk"):
        for line in re.findall(r"runtime=.*", path.read_text()):
            assert "resources.capped(grid, " in line, path
    replay = resources.teacher_mb(PAPER.teacher("pong"))
    asked = [resources.grown(replay, attempt) for attempt in (1, 2, 3, 9)]
    assert asked == [replay + extra * resources.BASE_MB for extra in (0, 1, 2, 3)]


def test_rules_made_of_local_rules_are_local() -> None:
    """Snakemake does not inherit it: on a cluster they would wait for a node."""
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    local = {
        name for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)*)", text, re.M) if "localrule: True" in body
    }
    heirs = [heir for parent, heir in re.findall(r"^use rule (\w+) as (\w+) with:", text, re.M) if parent in local]
    assert sorted(heirs) == ["import_snapshots", "list_online_parts"]
    assert sorted(re.findall(r"^localrules:\n    (\w+),", text, re.M)) == sorted(heirs)


def test_a_joint_dqns_memory_is_its_recipes() -> None:
    grid = changed(recipes={"joint_dqn": {"dqn": {"replay_size": 100_000}}})
    base = resources.BASE_MB
    ratio = (resources.joint_mb(PAPER, "multi3", "joint_dqn") - base) / (
        resources.joint_mb(grid, "multi3", "joint_dqn") - base
    )
    assert ratio == pytest.approx(10, rel=1e-3)


def test_the_plan_of_one_cell() -> None:
    entry = {"title": "-", "games": ["pong"], "recipes": ["kl"], "networks": ["dqn"], "seeds": [0]}
    grid = Grid({**CONFIG, "experiments": {"mine": entry, "again": entry}})  # the same cell counts once
    jobs: dict[str, int] = {}
    for job in cost.plan(grid, LENGTHS):
        jobs[job.rule] = jobs.get(job.rule, 0) + job.jobs
    scoring = {"evaluate_agent": 2, "evaluate_random": 1}
    assert jobs == {"train_teacher": 1, "dump_dataset": 50, "distill_student": 1, **scoring}
    teacher = next(job for job in cost.plan(grid, LENGTHS) if job.rule == "train_teacher")
    assert teacher.disk_gb == pytest.approx(51 * 0.007)  # the teacher and its snapshots
    student = cost.training(grid, Cell("pong", "kl", "dqn", 0), LENGTHS)
    assert student.work["evaluate"] == 50 * 32 * 1_000
    assert student.work["dump"] == 0
    assert cost.training(grid, Cell("pong", "kl_mix", "dqn", 0), LENGTHS).work["dump"] == 499 * 54_000
    assert cost.hours(cost.scoring(grid, "pong", LENGTHS), {"evaluate": 64.0}) * 3600 == 128 * 1_000 / 64
    assert cost.scoring(grid, "enduro", LENGTHS).work["evaluate"] == 128 * 9_000
    boxing = Grid({**CONFIG, "experiments": {"mine": {**entry, "games": ["boxing"]}}})  # no teacher of it, so the mean
    played = [job.work["evaluate"] for job in cost.plan(boxing, LENGTHS) if job.rule == "evaluate_agent"]
    assert played == [128 * 5_000] * 2
    three = cost.training(grid, Cell("multi3", "kl", "multi3", 0), {**LENGTHS, "qbert": 2_000, "freeway": 3_000})
    assert three.work["evaluate"] == 50 * 32 * 6_000


def test_what_trains_asks_for_a_gpu_unless_it_is_told_to_use_the_cpu() -> None:
    for device, asked in (("auto", {"train_teacher", "distill_student", "train_joint_dqn"}), ("cpu", set())):
        grid = changed(machine={"device": device})
        assert {job.rule for job in cost.plan(grid, LENGTHS) if job.gpu} == asked


def test_data_that_nobody_learns_from_is_not_recorded() -> None:
    entry = {"title": "-", "games": ["pong"], "networks": ["multi3"], "seeds": [0]}

    def rules(*recipes: str) -> set[str]:
        plan = cost.plan(Grid({**CONFIG, "experiments": {"mine": {**entry, "recipes": recipes}}}), LENGTHS)
        return {job.rule for job in plan if job.rule.startswith("dump")}

    assert rules("kl", "joint_dqn") == {"dump_dataset"}
    assert rules("kl_online") == {"dump_online_dataset"}
    assert rules("kl", "kl_online") == {"dump_dataset", "dump_online_dataset"}
    assert rules("joint_dqn") == set()


def test_a_sample_costs_what_its_shape_does() -> None:
    """Measured on one core: benchmarks/README.md. The paper's shape costs twice a sample of the benchmark's."""
    network = CONFIG["networks"]
    for optimizer, batch, name, milliseconds in (
        ("adam", 32, "dqn", 11.6),
        ("adam", 256, "dqn", 55.6),
        ("rmsprop", 32, "dqn", 14.6),
        ("rmsprop", 128, "dqn", 34.1),
        ("muon", 128, "dqn", 32.6),
        ("adam", 128, "net1", 17.1),
        ("rmsprop", 32, "net3", 5.6),
        ("adam", 128, "multi10", 54.9),
        ("rmsprop", 32, "multi10", 30.8),
    ):
        assert cost.update_ms(optimizer, batch, network[name]) == pytest.approx(milliseconds, rel=0.06)
    assert cost.relative("distill", "adam", 128, network["dqn"]) == 1
    per_sample = cost.relative("distill", "rmsprop", 32, network["dqn"]) * 128 / 32
    assert 1.6 < per_sample < 2.5


def test_a_dqn_learns_every_so_many_steps_and_a_pqn_in_epochs() -> None:
    dqn = cost.reinforcement("dqn", CONFIG["teacher"]["dqn"], CONFIG["networks"]["dqn"])
    assert dqn["emulator_32"] == dqn["dqn_forward"] == 50_000_000
    updates = 50_000_000 / 4
    assert dqn["dqn_update"] == updates * cost.relative("dqn_update", "rmsprop", 32, CONFIG["networks"]["dqn"])
    pqn = cost.reinforcement("pqn", CONFIG["teacher"]["pqn"], CONFIG["networks"]["pqn"])
    assert pqn["pqn_update"] == pytest.approx(2 * 50_000_000 / 128)


def test_the_table_of_costs_sums_up() -> None:
    measured = {
        "rates": dict.fromkeys(("emulator_32", "distill", "dump", "evaluate"), 1.0),
        "machine": {"cpu": "an abacus", "threads": 1, "gpu": None},
    }
    costs = [
        cost.Cost("a", {"dump": 7200}, 500, jobs=2),
        cost.Cost("a", {"dump": 1800, "evaluate": 1800}, 900),
        cost.Cost("b", {"emulator_32": 3600}, 1),
    ]
    text = cost.cost_table(costs, measured)
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line[:2] in ("a ", "b ")}
    assert rows == {"a": ["3", "3.0", "0.0", "0.9"], "b": ["1", "1.0", "0.0", "0.0"]}
    assert "4 jobs, 4 hours; 0.0 GB on disk" in text
    assert "measured on an abacus" in text
    on_gpu = cost.cost_table([cost.Cost("b", {"dump": 3600}, 1, gpu=True)], measured)
    assert "1 jobs, 60 minutes, 60 minutes of it in jobs" in on_gpu


def test_profiles_of_a_laptop_ask_for_less() -> None:
    laptop = Grid(shipped("profiles/laptop/overrides.yaml"))
    assert resources.joint_mb(laptop, "multi3", "joint_dqn") < 8_000
    assert resources.student_mb(laptop, "multi3", "kl") < 8_000


def test_the_laptops_run_is_a_part_of_what_is_kept() -> None:
    """Equal settings and the same cells; the run from the paper's play differs in that alone."""
    configs = {name: shipped(f"profiles/{name}/overrides.yaml") for name in ("laptop", "study", "paper_play")}
    settings = {
        name: {key: config[key] for key in config if key not in ("results", "recipes", "networks", "experiments")}
        for name, config in configs.items()
    }
    assert settings["study"] == settings["laptop"]
    play = {**settings["laptop"]["dataset"], "epsilon": CONFIG["dataset"]["epsilon"]}
    assert settings["paper_play"] == {**settings["laptop"], "dataset": play}
    made = {name: experiments_cells(config) for name, config in configs.items()}
    for name in ("single_task", "compression"):
        assert made["laptop"][name] < made["paper_play"][name]
    for name, wanted in made["laptop"].items():
        assert wanted < made["study"][name]
        assert {cell.seed for _, cell in wanted} == {0}
    for name, entry in made["study"].items():
        assert {cell.seed for _, cell in entry} == set(range(5 if name == "single_task" else 3))
    for config in configs.values():
        for key in ("recipes", "networks"):
            assert config[key].items() >= configs["laptop"][key].items()


def experiments_cells(config: dict[str, Any]) -> dict[str, set[tuple[str, Cell]]]:
    return {name: set(cells.scored(Grid(config), entry)) for name, entry in config["experiments"].items()}


def test_the_work_of_a_plan():
    entry = {"title": "-", "games": ["multi3"], "recipes": ["kl", "joint_dqn"], "networks": ["multi3"], "seeds": [0]}
    jobs = list(cost.plan(Grid({**CONFIG, "experiments": {"mine": entry}}), {"pong": 1_000.0}))
    teacher, parts, joint, student = (
        next(job for job in jobs if job.rule == rule)
        for rule in ("train_teacher", "dump_dataset", "train_joint_dqn", "distill_student")
    )
    settings, learning = CONFIG["teacher"], PAPER.recipe("kl")
    scored = settings["dqn"]["steps"] // settings["evaluate_every"]
    assert teacher.work["evaluate"] == scored * settings["evaluation_episodes"] * 1_000
    assert joint.work["evaluate"] == 3 * scored * 3 * PAPER.recipe("joint_dqn")["evaluation_episodes"] * 1_000
    assert [cost.evaluations(steps, 250_000) for steps in (500_000, 600_000, 1)] == [2, 3, 1]  # at the end, too
    assert student.work["evaluate"] == 3 * learning["evaluations"] * learning["evaluation_episodes"] * 1_000
    one = cost.training(PAPER, Cell("pong", "kl", "multi3", 0), LENGTHS).work["distill"]
    assert student.work["distill"] == pytest.approx(3 * one)
    before = 50 * CONFIG["dataset"]["envs"] * min(CONFIG["dataset"]["warmup_steps"], cost.STEPS_BEFORE)
    assert parts.work == {"dump": 500 * 54_000 + before}
    assert parts.disk_gb == pytest.approx(500 * 54_000 * 72e-9)


def test_an_online_students_data_are_its_own():
    facts = cells.table_facts(PAPER, EXPERIMENTS["online"])
    data = {s["recipe"]: s["data"] for s in facts["students"] if s["game"] == "pong"}
    assert data == {"kl": "<results>/datasets/pong/parts.txt", "kl_online": "<results>/datasets/pong/online/parts.txt"}


def test_films_are_of_the_first_seed():
    several = {**EXPERIMENTS["single_task"], "games": ["pong", "qbert"], "seeds": [3, 0]}
    assert [cell[:1] + cell[3:] for cell in cells.filmed(PAPER, several, "pong")] == [("pong", 3)] * 3
