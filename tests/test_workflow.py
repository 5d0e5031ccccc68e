"""The workflow itself: what it plans, what an edit reruns, the whole way end to end, and what survives a kill."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, Checkout
from policy_distillation.checkpoints import load_agent
from policy_distillation.files import file_digest
from policy_distillation.header import read_metadata
from policy_distillation.parts import Part
from policy_distillation.readouts import Readout, Support
from policy_distillation.sidecar import read_sidecar
from test_importing import nature, observations, sb3_zip, torch_forward
from test_importing_kinds import AtariNet, atari_agents_file, ppo_zip

pytestmark = pytest.mark.workflow
SMOKE = ("--configfile", "tests/smoke.yaml")
RESULTS = "results/smoke"
FEW_GAMES = {
    "distillation": {"evaluations": 1},
    "evaluation": {"episodes": 2, "games": {"pong": {"episodes": 2}}},
}


def planned(output: str) -> Counter[str]:
    """Jobs by rule in a dry run's table; empty where there is nothing to do."""
    if "Nothing to be done" in output:
        return Counter()
    table = output.split("Job stats:")[1].split("total")[0]
    return Counter({rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.M) if rule != "all"})


def overlay(copy: Checkout, name: str, content: dict[str, object]) -> tuple[str, ...]:
    path = copy.folder / name
    path.write_text(yaml.safe_dump(content))
    return (*SMOKE, str(path))


# What is planned


def test_all_is_the_papers_grid(checkout: Checkout) -> None:
    plan = checkout.snakemake("-n", "all")
    assert plan.returncode == 0, plan.stdout[-3000:]
    assert planned(plan.stdout) == {
        "train_teacher": 10,
        "train_joint_dqn": 1,
        "dump_dataset": 10 * 50,
        "dump_online_dataset": 4 * 50,
        "list_parts": 10,
        "list_online_parts": 4,
        # Losses, sizes, multi-task 3 and 10, online, temperatures, amounts of data, drivers; the KL student of the
        # DQN's size is in most of them and counts once.
        "distill_student": 4 * 3 + (10 * 4 - 4) + 3 + 1 + 4 + 4 * 4 + 4 * 4 + 4 * 2,
        "evaluate_agent": 10 + 12 + 36 + 4 * 3 + 10 + 4 + 16 + 16 + 8,
        "table": 8,
        "evaluate_random": 10,
        "figure": 8,
        "figure_curves": 8,
        "figure_teacher_curves": 1,
        "page": 1,
    }


@pytest.mark.parametrize("profile", ["slurm", "profiles/slurm", "profiles/demo"])
def test_profiles_resolve(checkout: Checkout, profile: str) -> None:
    plan = checkout.snakemake("-n", "--profile", profile, "all")
    assert plan.returncode == 0, plan.stdout[-3000:]
    if "slurm" in profile:
        assert planned(plan.stdout)["train_teacher"] == 10
    else:  # overlays write below a folder of their own
        assert planned(plan.stdout)["given_teacher"] == 1
        assert planned(plan.stdout)["distill_student"] == 6
        assert "train_teacher" not in planned(plan.stdout)
        assert "results/demo/table_single_task.csv" in plan.stdout


def test_the_whole_way_is_the_demo_and_a_training_that_has_both_cores(checkout: Checkout) -> None:
    demo, whole = (
        checkout.snakemake("-n", "--profile", f"profiles/{name}", "all").stdout for name in ("demo", "whole")
    )
    assert planned(whole) - planned(demo) == {"train_teacher": 1}
    assert planned(demo) - planned(whole) == {"given_teacher": 1}
    assert "threads: 2\n" in whole.split("rule train_teacher:")[1].split("\n\n")[0]


def test_reference_teachers_are_trained_as_the_laptop_profile_says(checkout: Checkout) -> None:
    plan = checkout.snakemake("-n", "--profile", "profiles/reference", "reference_teachers")
    assert plan.returncode == 0, plan.stdout[-3000:]
    assert planned(plan.stdout) == {
        "train_teacher": 10,
        "reference_teacher": 10,
        "evaluate_agent": 10,
        "reference_teachers": 1,
    }


def test_an_initial_agent_is_an_input_of_the_training(checkout: Checkout) -> None:
    further = ("profiles/laptop/overrides.yaml", "profiles/reference/overrides.yaml", "profiles/reference/further.yaml")
    plan = checkout.snakemake("-n", "--configfile", *further, "--", "reference_teachers")
    assert plan.returncode == 0, plan.stdout[-3000:]
    assert planned(plan.stdout)["train_teacher"] == 1
    job = plan.stdout.split("rule train_teacher:")[1].split("\n\n")[0]
    assert "    input: resources/teachers/qbert/agent.safetensors\n" in job
    plan = checkout.snakemake("-n", "--configfile", *further[:2], "--", "reference_teachers")
    assert "resources/teachers" not in plan.stdout.split("rule train_teacher:")[1].split("\n\n")[0]


def test_memory_asked_for_covers_replay_and_window(checkout: Checkout) -> None:
    plan = checkout.snakemake("-n", "results/table_single_task.csv").stdout
    asked = {
        rule: max(map(int, re.findall(rf"^(?:local)?rule {rule}:.*?mem_mb=(\d+)", plan, re.M | re.S)))
        for rule in ("train_teacher", "distill_student")
    }
    assert 7_064 + 1_000 < asked["train_teacher"] < 12_000  # 1 M transitions
    assert 540_000 * 7_056 / 1e6 + 1_000 < asked["distill_student"] < 8_000  # ten hours of frames


def test_nothing_heavy_is_imported_while_parsing(checkout: Checkout) -> None:
    code = (
        "import sys; from snakemake.cli import main\n"
        "try: main(['-n', '--quiet', 'all', 'rules', '--', 'all'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'ale_py', 'gymnasium', 'h5py', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout.folder,
        env=checkout.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": {"dqn": {"stepz": 1}}}, "teacher.dqn: unknown key 'stepz' (value 1); allowed: batch_size, "),
        ({"distilation": {}}, "config: unknown key 'distilation' (value {}); allowed: dataset, distillation, "),
        ({"dataset": {"epsilon": "much"}}, "dataset.epsilon: 'much' is not allowed; allowed: a number or a list"),
        (
            {"game_sets": {"../up": ["pong"]}},
            "game_sets: '../up' is not allowed; allowed: small letters, digits and _, ",
        ),
        (
            {"game_sets": {"two": ["pong", "pongg"]}},
            "game_sets.two[1]: unknown game 'pongg', perhaps pong; allowed: adventure, ",
        ),
        (
            {"experiments": {"single_task": {"recipes": ["klx"]}}},
            "experiments.single_task.recipes[0]: unknown recipe 'klx'; allowed: joint_dqn, kl, ",
        ),
        (
            {"teacher": {"source": "nowhere/agent.safetensors"}, "experiments": {"online": None}},
            "teacher.source: nowhere/agent.safetensors does not exist; reference teachers here: ",
        ),
        (
            {"results": "../elsewhere"},
            "results: '../elsewhere' is not allowed; allowed: a folder, absolute or below the current one, ",
        ),
    ],
)
def test_a_bad_configuration_is_one_clear_line(checkout: Checkout, change: dict[str, object], message: str) -> None:
    done = checkout.snakemake(*overlay(checkout, "bad.yaml", change), "--", "all")
    assert done.returncode != 0
    assert sum(message in line for line in done.stdout.splitlines()) == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert not list(checkout.folder.glob("results/**/teachers"))  # nothing ran


def test_a_second_workflow_on_the_same_results_is_refused(checkout: Checkout) -> None:
    code = (
        "import sys; from pathlib import Path; from policy_distillation.files import hold_lock\n"
        f"lock = hold_lock(Path('{RESULTS}/.lock')); print('held', flush=True); sys.stdin.read()"
    )
    environment = {**checkout.environment(), "PYTHONPATH": str(checkout.folder / "workflow")}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=checkout.folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"held\n"
            done = checkout.snakemake(*SMOKE, "--", "all")
        finally:
            owner.kill()
    assert done.returncode != 0
    assert f"{RESULTS}: in use by process {owner.pid} on " in done.stdout
    assert not (checkout.folder / RESULTS / "teachers").exists()


IMPORT = {"from": "sb3", "hub": "sb3/dqn-BreakoutNoFrameskip-v4", "revision": "0" * 40}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"from": "keras"}, "teacher.source.from: 'keras' is not allowed; allowed: sb3, cleanrl, dopamine, tianshou, "),
        ({"path": "x"}, "teacher.source: the key 'from' is missing; required: from"),
        (
            {"from": "sb3", "pth": "x"},
            "teacher.source: unknown key 'pth' (value 'x'); allowed: acting, actions, ",
        ),
        (
            IMPORT | {"revision": "main"},
            "teacher.source.revision: 'main' is not allowed; allowed: text that matches ",
        ),
        ({"from": "sb3", "path": "none.zip"}, "teacher.source: from sb3: none.zip does not exist"),
        (7, "teacher.source: 7 is not allowed; allowed: text or a mapping"),
    ],
    ids=str,
)
def test_a_bad_import_is_one_clear_line(checkout: Checkout, source: object, message: str) -> None:
    change = {"teacher": {"source": source}, "experiments": {"online": None}}
    test_a_bad_configuration_is_one_clear_line(checkout, change, message)


def test_an_import_replaces_the_training_of_its_game_alone(checkout: Checkout) -> None:
    change = {"teacher": {"games": {"breakout": {"source": IMPORT}}}}
    experiments = {"single_task": {"games": ["breakout", "pong"]}, "online": None}
    plan = checkout.snakemake("-n", *overlay(checkout, "i.yaml", {**change, "experiments": experiments}), "--", "all")
    assert plan.returncode == 0, plan.stdout[-3000:]
    rules = planned(plan.stdout)
    assert (rules["import_teacher"], rules["train_teacher"]) == (1, 1)


def test_a_student_of_an_agent_from_elsewhere(tmp_path: Path) -> None:
    """A Stable-Baselines3 zip, imported, dumped, distilled and scored; then another file, and all of it anew."""
    copy = Checkout(tmp_path)
    zip_path = copy.folder / "model.zip"
    sb3_zip(zip_path, nature(4))
    change = {
        "protocol": "sb3",
        "teacher": {"source": {"from": "sb3", "path": "model.zip"}},
        "dataset": {"parts": 1, "steps_per_hour": 200},
        **FEW_GAMES,
        "experiments": {"single_task": {"recipes": ["kl"]}, "online": None},
    }
    files = overlay(copy, "import.yaml", change)
    target = f"{RESULTS}/table_single_task.csv"
    done = copy.snakemake(*files, "--", target)
    assert done.returncode == 0, done.stdout[-3000:]
    results = copy.folder / RESULTS
    teacher, metadata = load_agent(results / "teachers/breakout/seed0/agent.safetensors")
    assert metadata["imported"]["digest"] == file_digest(zip_path)
    assert metadata["protocol"]["name"] == "sb3"
    x = observations()
    np.testing.assert_allclose(teacher.q_values(x, "breakout"), torch_forward(nature(4), x), atol=1e-4)
    with Part(results / "datasets/breakout/part0.h5") as part:
        assert part.protocol["fire_on_reset"]
        times = np.arange(5)
        seen = part.observations(times, np.zeros(5, np.int64))
        np.testing.assert_allclose(part.read("q_values", 0, 5)[:, 0], teacher.q_values(seen, "breakout"), atol=1e-4)
    assert pd.read_csv(results / "table_single_task.csv")["kl.score"].notna()[0]
    assert "sb3, stable-baselines3 zip" in (results / "logs/import_teacher/breakout/seed0.log").read_text()
    zip_path.write_bytes(zip_path.read_bytes())  # newer, and the same
    assert planned(copy.snakemake("-n", *files, "--", target).stdout) == {}
    files = overlay(
        copy, "divisor.yaml", {**change, "teacher": {"source": change["teacher"]["source"] | {"input_divisor": 1}}}
    )
    assert planned(copy.snakemake("-n", *files, "--", target).stdout)["import_teacher"] == 1
    zip_path.write_bytes(b"PK\x03\x04")
    os.utime(zip_path, (1, 1))  # as tar and rsync keep dates: Snakemake sees nothing new
    told = copy.snakemake("-n", *files, "--", target).stdout
    assert told.count("was not made of what model.zip is now, which is older: touch model.zip to make it anew") == 1
    zip_path.touch()
    done = copy.snakemake(*files, "--", target)
    assert done.returncode != 0
    assert "AgentImportError: model.zip: unreadable (BadZipFile: File is not a zip file)" in done.stdout


def test_students_of_a_ppo_and_of_snapshots_of_a_c51(tmp_path: Path) -> None:
    """A PPO's zip for one game, another library's snapshots for the other: what they are, how they act."""
    copy = Checkout(tmp_path)
    ppo_zip(copy.folder / "ppo.zip", actions=4)
    (copy.folder / "run").mkdir()
    for step in (1000, 2000, 9000):
        atari_agents_file(copy.folder / f"run/model_{step}.gz", AtariNet(6, distributional=True))
    sources = {"breakout": {"from": "sb3", "path": "ppo.zip"}, "pong": {"from": "atari_agents", "path": "run"}}
    change = {
        "protocol": "sb3",
        "teacher": {"games": {game: {"source": source} for game, source in sources.items()}, "snapshots": 2},
        "dataset": {"parts": 2, "steps_per_hour": 200},
        **FEW_GAMES,
        "experiments": {
            "single_task": {"games": ["breakout", "pong"], "recipes": ["kl"]},
            "online": {"games": ["pong"], "recipes": ["kl", "kl_online"]},
        },
    }
    targets = [f"{RESULTS}/table_{name}.csv" for name in ("single_task", "online")]
    done = copy.snakemake(*overlay(copy, "import.yaml", change), "--", *targets)
    assert done.returncode == 0, done.stdout[-3000:]
    results = copy.folder / RESULTS
    sampled, c51 = Readout("logits", "sample"), Readout(support=Support(-10.0, 10.0, 51))
    agents = {
        "teachers/breakout/seed0": sampled,
        "students/breakout/kl/dqn/seed0": sampled,
        "teachers/pong/seed0": c51,
        "students/pong/kl/dqn/seed0": Readout("logits"),
        "students/pong/kl_online/dqn/seed0": Readout("logits"),
    }
    for folder, expected in agents.items():
        agent, _ = load_agent(results / folder / "agent.safetensors")
        assert list(agent.readouts.values()) == [expected], folder
        game = next(iter(agent.actions))
        scores = json.loads((results / folder / "scores" / f"{game}.csv.json").read_text())
        assert scores["acting"] == expected.acting
    facts = read_metadata(results / "teachers/breakout/seed0/agent.safetensors")["imported"]["facts"]
    assert ("stable_baselines3" in facts) == (find_spec("stable_baselines3") is not None)  # who wrote the zip
    with Part(results / "datasets/breakout/part0.h5") as part:
        assert part.readout == sampled
    table = pd.read_csv(results / "table_single_task.csv").set_index("game")
    assert {"breakout", "pong"} <= set(table.index)
    said = json.loads((results / "table_single_task.csv.json").read_text())["remarks"]
    assert "The teachers' policies are sampled, without epsilon: breakout." in said
    snapshots = results / "teachers/pong/seed0/snapshots"
    names = [read_metadata(snapshots / f"{part}.safetensors")["imported"]["path"] for part in (0, 1)]
    assert names == ["run/model_2000.gz", "run/model_9000.gz"]
    assert read_metadata(results / "teachers/pong/seed0/agent.safetensors")["imported"]["snapshot"] == "model_9000.gz"


# The whole way


@pytest.mark.xdist_group("finished")
def test_smoke_run_end_to_end(finished: Checkout) -> None:
    results = finished.folder / RESULTS
    table = pd.read_csv(results / "table_single_task.csv")
    assert table["game"].tolist() == ["breakout", "geometric mean"]
    sizes = pd.read_csv(results / "table_compression.csv").set_index("game")
    assert sizes.loc["breakout", "dqn.score"] == table["kl.score"][0]  # the same student
    assert sizes.loc["parameters", "net1.percent"] < 100
    multi = pd.read_csv(results / "table_multi_task_3.csv").set_index("game")
    for game in ("breakout", "pong"):  # two games of one network, with and without a teacher
        for recipe in ("joint_dqn", "kl"):
            scores = pd.read_csv(results / f"students/multi3/{recipe}/multi3/seed0/scores/{game}.csv")
            assert multi.loc[game, f"{recipe}.score"] == pytest.approx(scores["return"].mean(), rel=1e-5)
            assert len(scores) == {"breakout": 4, "pong": 6}[game]
    assert np.isnan(multi.loc["geometric mean", "joint_dqn.percent_paper"])  # of three games, not of these two
    snapshots = [results / f"teachers/breakout/seed0/snapshots/{k}.safetensors" for k in range(2)]
    assert [read_metadata(path)["steps"] for path in snapshots] == [1000, 2000]
    online = read_metadata(results / "students/breakout/kl_online/dqn/seed0/agent.safetensors")
    assert online["settings"]["teacher"] == "online"
    assert (
        read_metadata(results / "students/breakout/kl_mix/dqn/seed0/agent.safetensors")["settings"]["driver"] == "mix"
    )
    teacher = pd.read_csv(results / "teachers/breakout/seed0/scores/breakout.csv")
    assert list(teacher.columns) == ["seed", "slot", "episode", "return", "length", "truncated", "protocol", "starts"]
    assert len(teacher) == 4
    assert teacher.groupby("slot").size().tolist() == [2, 2]
    starter = file_digest(results / "teachers/breakout/seed0/agent.safetensors")
    for scored in ("teachers/breakout/seed0", "students/breakout/kl/dqn/seed0", "random/breakout"):
        assert set(pd.read_csv(results / scored / "scores/breakout.csv")["starts"]) == {"teacher"}
        assert json.loads((results / scored / "scores/breakout.csv.json").read_text())["teacher"] == starter
    assert table["teacher"][0] == pytest.approx(teacher["return"].mean(), rel=1e-5)
    assert table["teacher_paper"][0] == 303.9
    for recipe, paper in {"mse": 33.9, "nll": 77.6, "kl": 94.7}.items():
        folder = results / f"students/breakout/{recipe}/dqn/seed0"
        scores = pd.read_csv(folder / "scores/breakout.csv")
        assert table[f"{recipe}.score"][0] == pytest.approx(scores["return"].mean(), rel=1e-5)
        assert table[f"{recipe}.percent_paper"][0] == paper
        agent, metadata = load_agent(folder / "agent.safetensors")
        assert agent.actions == {"breakout": (0, 1, 3, 4)}
        assert metadata["settings"]["loss"] == recipe
        assert metadata["updates"] == 4 * 20  # two parts of two hours, 20 updates each
        assert not (folder / "state").exists()
    for recipe, setting in {"kl_tau1": {"temperature": 1}, "kl_data10": {"data": 0.1}}.items():
        metadata = read_metadata(results / f"students/breakout/{recipe}/dqn/seed0/agent.safetensors")
        assert setting.items() <= metadata["settings"].items()
    everything = yaml.safe_load((ROOT / "config.yaml").read_text())["experiments"]
    assert len(everything) == 8
    for name in everything:
        assert pd.read_csv(results / f"table_{name}.csv")["game"].tolist()[0] == "breakout"
        assert (results / f"aggregates_{name}.csv").read_text().startswith("variant,metric,against,scale,value")
        assert (results / f"figures/{name}/scores.png").read_bytes().startswith(b"\x89PNG")
    for suffix in ("csv", "md", "tex", "html"):
        assert "breakout" in (results / f"table_single_task.{suffix}").read_text()
    random = pd.read_csv(results / "random/breakout/scores/breakout.csv")
    assert table["random"][0] == pytest.approx(random["return"].mean(), rel=1e-5)
    assert read_sidecar(results / "random/breakout/scores/breakout.csv")["evaluation"]["epsilon"] == 1
    long = pd.read_csv(results / "scores_multi_task_3.csv")
    assert long.groupby("role").size().to_dict() == {"random": 2, "student": 4, "teacher": 2}
    assert set(long["games"].dropna()) == {"multi3"}
    for name in ("single_task/scores", "single_task/curves", "compression/scores", "teacher_curves"):
        assert (results / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (results / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (results / f"figures/{name}.svg").read_text()
    parts = [Part(results / f"datasets/breakout/part{part}.h5") for part in range(2)]
    assert parts[0].digest != parts[1].digest
    assert parts[0].teacher == parts[1].teacher
    assert read_metadata(results / "teachers/breakout/seed0/agent.safetensors")["steps"] == 2000


@pytest.mark.xdist_group("finished")
def test_exported_students_are_scored_and_timed(finished: Checkout) -> None:
    done = finished.snakemake(*SMOKE, "--", f"{RESULTS}/exports_compression.md")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = pd.read_csv(finished.folder / RESULTS / "exports_compression.csv")
    assert rows["form"].tolist() == ["torch", "onnx", "onnx int8"] * 2
    assert rows["parameters"].tolist() == sorted(rows["parameters"], reverse=True)
    assert set(rows["episodes"]) == {4}
    assert set(rows["outputs"]) == {"logits"}
    for agent in set(rows["agent"]):
        sizes = [(finished.folder / agent).with_name("onnx") / f"breakout.{form}.onnx" for form in ("float32", "int8")]
        assert rows.loc[rows["agent"] == agent, "bytes"].tolist()[1:] == [path.stat().st_size for path in sizes]
        facts = json.loads((finished.folder / agent).with_name("onnx").joinpath("breakout.csv.json").read_text())
        assert facts["evaluation"]["starts"] == "teacher"
        assert f"{RESULTS}/teachers/breakout/seed0/agent.safetensors" in facts["files"]
    assert (finished.folder / RESULTS / "exports_compression.md").read_text().count("| breakout |") == 6


@pytest.mark.xdist_group("finished")
def test_report_carries_tables_figures_and_captions(finished: Checkout) -> None:
    done = finished.snakemake(*SMOKE, "--report", "report.html")
    assert done.returncode == 0, done.stdout[-3000:]
    report = (finished.folder / "report.html").read_text()
    for expected in ("table_single_task.html", "teacher_curves.png", "compression/curves.png"):
        assert expected in report
    shown = json.JSONDecoder().raw_decode(re.split(r"var results = (?=\{)", report)[1])[0]
    page = shown[f"{RESULTS}/index.html"]
    embedded = base64.b64decode(page["data_uri"].split(",", 1)[1])
    assert embedded == (finished.folder / RESULTS / "index.html").read_bytes()
    for name in yaml.safe_load((ROOT / "config.yaml").read_text())["experiments"]:
        assert f"table_{name}.html" in report
        assert f"figures/{name}/scores.png" in report
    captions = ["the size of the network", "the temperature of the teacher", "unsteadiness: the mean change"]
    assert all(caption in report for caption in [*captions, "says nothing about another training run"])
    assert "paper2015" in report


@pytest.mark.xdist_group("finished")
def test_tables_and_figures_are_made_of_what_is_kept(finished: Checkout, tmp_path: Path) -> None:
    """`make keep`: scores and curves without an agent or a data set, and of them the same tables and a figure."""
    subprocess.run(["make", "-f", ROOT / "Makefile", "keep", "RUN=smoke"], cwd=finished.folder, check=True)
    kept, copy = finished.folder / "resources/smoke", Checkout(tmp_path / "copy")
    shutil.move(kept, copy.folder / "resources/smoke")
    kept = copy.folder / "resources/smoke"
    assert {path.suffix for path in kept.rglob("*.*") if path.is_file()} == {".csv", ".json", ".md", ".png", ".tsv"}
    made = [kept / name for name in ("table_single_task.csv", "figures/single_task/curves.png")]
    before = made[0].read_bytes()
    for path in made:
        path.unlink()
    targets = [str(path.relative_to(copy.folder)) for path in made]
    done = copy.snakemake(*SMOKE, "--config", "results=resources/smoke", "--", *targets)
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(planned(done.stdout)) == {"table", "figure_curves"}
    assert made[0].read_bytes() == before
    assert made[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.xdist_group("finished")
def test_a_finished_run_has_nothing_to_do(finished: Checkout) -> None:
    assert planned(finished.snakemake("-n", *SMOKE, "--", "all").stdout) == {}


@pytest.mark.xdist_group("finished")
def test_edited_code_reruns_nothing(finished: Checkout) -> None:
    """Days of training are not thrown away for a comment; who wants it anew says --forcerun."""
    script, rule = (
        finished.folder / "workflow/scripts/train_teacher.py",
        finished.folder / "workflow/rules/datasets.smk",
    )
    originals = {path: path.read_text() for path in (script, rule)}
    edited = script.read_text().replace("prepare_process(seed,", "prepare_process(seed + 1,")
    listed = rule.read_text().replace("threads: config", "threads: 1 * config")
    assert (edited, listed) != tuple(originals.values())
    try:
        script.write_text(edited)
        rule.write_text(listed)
        assert planned(finished.snakemake("-n", *SMOKE, "--", "all").stdout) == {}
        triggers = ("--rerun-triggers", "code", "mtime", "params", "input")
        assert planned(finished.snakemake("-n", *SMOKE, *triggers, "--", "all").stdout)["train_teacher"] > 0
    finally:
        for path, text in originals.items():
            path.write_text(text)


@pytest.mark.xdist_group("finished")
def test_editing_one_recipe_reruns_its_cells_alone(finished: Checkout) -> None:
    files = overlay(finished, "slower.yaml", {"recipes": {"mse": {"learning_rate": 1e-4}}})
    plan = finished.snakemake("-n", *files, "--", "all").stdout
    assert planned(plan) == {
        "distill_student": 1,
        "evaluate_agent": 1,
        "table": 1,
        "figure": 1,
        "page": 1,
        "figure_curves": 1,
    }
    assert "/mse/dqn/" in plan
    assert not re.search(r"output: .*/(kl|nll)/", plan)


def test_students_are_learnt_anew_from_data_that_was_made_before(checkout: Checkout, tmp_path: Path) -> None:
    """The data is made, then Snakemake is stopped: the next one must see that the students learnt from other data."""
    copy = checkout.copy_to(tmp_path / "checkout")
    tiny = {"hours_per_part": 1, "steps_per_hour": 20, "envs": 2, "warmup_steps": 5}
    learning = {"updates_per_hour": 2, "evaluations": 1, "evaluation_episodes": 4}
    settings = {"dataset": tiny, "distillation": learning, "teacher": {"source": "reference"}}
    settings["experiments"] = {"online": None}
    student = f"{RESULTS}/students/pong/kl/net1/seed0/agent.safetensors"
    files = overlay(copy, "tiny.yaml", settings)
    done = copy.snakemake(*files, "--", student)
    assert done.returncode == 0, done.stdout[-4000:]
    listing = copy.folder / f"{RESULTS}/datasets/pong/parts.txt"
    digests = [line.split()[1] for line in listing.read_text().splitlines()]
    assert read_metadata(copy.folder / student)["data"] == {"pong": digests}
    assert planned(copy.snakemake("-n", *files, "--", student).stdout) == {}
    files = overlay(copy, "tiny.yaml", {**settings, "dataset": {**tiny, "epsilon": 0.5}})
    assert copy.snakemake(*files, "--", f"{RESULTS}/datasets/pong/parts.txt").returncode == 0
    assert planned(copy.snakemake("-n", *files, "--", student).stdout) == {"distill_student": 1}


@pytest.mark.xdist_group("finished")
def test_more_episodes_of_one_game_rescore_its_agents_alone(finished: Checkout) -> None:
    files = overlay(finished, "episodes.yaml", {"evaluation": {"games": {"pong": {"episodes": 16}}}})
    plan = finished.snakemake("-n", *files, "--", "all").stdout
    agents = len(list((finished.folder / RESULTS).rglob("scores/pong.csv"))) - 1
    assert set(planned(plan)) == {"evaluate_agent", "evaluate_random", "table", "figure", "figure_curves", "page"}
    assert planned(plan)["evaluate_random"] == 1
    assert planned(plan)["evaluate_agent"] == agents > 0
    assert not re.search(r"output: .*/scores/breakout.csv", plan)


@pytest.mark.xdist_group("finished")
def test_another_way_of_scoring_trains_nothing_again(finished: Checkout) -> None:
    files = overlay(finished, "scoring.yaml", {"evaluation": {"envs": 1, "epsilon": 0.01, "seed": 1}})
    plan = planned(finished.snakemake("-n", *files, "--", "all").stdout)
    assert plan["evaluate_agent"] > 0
    assert not {"train_teacher", "train_joint_dqn", "dump_dataset", "dump_online_dataset", "distill_student"} & set(
        plan
    )


@pytest.mark.xdist_group("finished")
def test_adding_a_seed_adds_cells_alone(finished: Checkout) -> None:
    files = overlay(finished, "seeds.yaml", {"experiments": {"single_task": {"seeds": [0, 1]}}})
    plan = finished.snakemake("-n", *files, "--", "all").stdout
    assert planned(plan)["distill_student"] == planned(plan)["evaluate_agent"] == 3
    assert not {"train_teacher", "dump_dataset"} & set(planned(plan))
    assert not re.search(r"output: .*students/.*/seed0/", plan)


@pytest.mark.xdist_group("finished")
def test_forcing_one_cell_reruns_it_and_what_hangs_on_it(finished: Checkout) -> None:
    cell = f"{RESULTS}/students/breakout/kl/dqn/seed0/agent.safetensors"
    plan = planned(finished.snakemake("-n", *SMOKE, "--forcerun", cell, "--", "all").stdout)
    assert plan == {
        "distill_student": 1,
        "evaluate_agent": 1,
        "table": 6,  # all but those of several games show it
        "figure": 6,
        "figure_curves": 6,
        "page": 1,
    }


@pytest.mark.xdist_group("finished")
def test_machine_settings_rerun_nothing(finished: Checkout) -> None:
    files = overlay(finished, "machine.yaml", {"machine": {"threads": 2, "checkpoint_seconds": 60}})
    assert planned(finished.snakemake("-n", *files, "--", "all").stdout) == {}


# Kills


def kill_when(copy: Checkout, files: tuple[str, ...], ready: Callable[[], bool]) -> None:
    """Start the workflow, wait for a sign that a job is in the middle of its work, and SIGKILL every process of it."""
    process = copy.start(*files, "--", "all")
    deadline = time.monotonic() + 900
    try:
        while not ready():
            assert process.poll() is None, (copy.folder / "snakemake.out").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_sigkill_in_training_dump_and_distillation(tmp_path: Path) -> None:
    """Three kills, each followed by the same command; then everything is complete and valid."""
    copy = Checkout(tmp_path)
    slow = {
        "teacher": {"evaluate_every": 3000, "dqn": {"steps": 6000}},
        "dataset": {"parts": 1, "steps_per_hour": 4000},
        "distillation": {"updates_per_hour": 200},
        "experiments": {
            "single_task": {"recipes": ["kl"]},
            **dict.fromkeys(
                ["compression", "multi_task_3", "multi_task_10", "online", "temperature", "data_size", "driver"]
            ),
        },
        "machine": {"checkpoint_seconds": 0.5},
    }
    files = overlay(copy, "slow.yaml", slow)
    results = copy.folder / RESULTS
    teacher, student = results / "teachers/breakout/seed0", results / "students/breakout/kl/dqn/seed0"
    kill_when(copy, files, lambda: (teacher / "state/state.pt").exists())
    assert not (teacher / "agent.safetensors").exists()
    kill_when(copy, files, lambda: any((results / "datasets/breakout").glob(".part0.h5.*")))
    assert (teacher / "agent.safetensors").exists()
    assert not (results / "datasets/breakout/part0.h5").exists()
    kill_when(copy, files, lambda: (student / "state/state.pt").exists())
    assert not (student / "agent.safetensors").exists()
    done = copy.snakemake(*files, "--", "all")
    assert done.returncode == 0, done.stdout[-3000:]
    logs = results / "logs"
    assert "resuming at step" in (logs / "train_teacher/breakout/seed0.log").read_text()
    assert "resuming at update" in (logs / "distill_student/breakout/kl/dqn/seed0.log").read_text()
    assert pd.read_csv(teacher / "progress.csv")["step"].tolist() == [3000, 6000]
    assert read_metadata(student / "agent.safetensors")["updates"] == 400
    Part(results / "datasets/breakout/part0.h5").close()
    assert pd.read_csv(results / "table_single_task.csv")["kl.score"].notna()[0]
    assert not list(results.rglob("*.tmp*"))
    assert not list(results.rglob("state"))
    assert planned(copy.snakemake("-n", *files, "--", "all").stdout) == {}


# The project's own rules


def test_slurm_profile_is_found_as_typed() -> None:
    assert (ROOT / "slurm").is_symlink()
    assert (ROOT / "slurm").resolve() == ROOT / "profiles/slurm"


def test_the_cost_is_of_the_jobs_that_would_run(checkout: Checkout) -> None:
    planned_jobs = planned(checkout.snakemake("-n", "all").stdout)
    rates = dict.fromkeys(("emulator_32", "dqn_forward", "dqn_update", "dump", "distill", "evaluate"), 1000.0)
    machine = {"cpu": "an abacus", "threads": 2, "gpu": None}
    (checkout.folder / "benchmarks").mkdir(exist_ok=True)
    (checkout.folder / "benchmarks/results.json").write_text(json.dumps({"rates": rates, "machine": machine}))
    done = checkout.snakemake("cost")  # leaves a log
    assert done.returncode == 0, done.stdout[-3000:]
    told = dict(re.findall(r"^(\w+) +(\d+) +[\d,.]+ +[\d,.]+ +[\d,.]+$", done.stdout, re.M))
    heavy = {
        "train_teacher",
        "train_joint_dqn",
        "dump_dataset",
        "dump_online_dataset",
        "distill_student",
        "evaluate_agent",
        "evaluate_random",
    }
    assert {rule: int(jobs) for rule, jobs in told.items()} == {rule: planned_jobs[rule] for rule in heavy}
    assert "measured on an abacus, 2 threads" in done.stdout
