"""The configuration's files: what each may say, which wins, and that Snakemake's jobs see the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Checkout
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation.config import ConfigError
from policy_distillation.overlays import lay, layers, merged, read, typed, with_extended
from policy_distillation.parts import Part


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def layered(*contents: dict[str, Any]) -> dict[str, Any]:
    return lay((Path(f"{index}.yaml"), content) for index, content in enumerate(contents))


# Reading


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ":3: the key 'a' stands there twice, first in line 1"),
        ("x:\n  y: {b: 1,\n      b: 2}\n", ":3: the key 'b' stands there twice, first in line 2"),
        ("experiments:\n  one: {seeds: [0]}\n  two: {}\n  one: {seeds: [1]}\n", ":4: the key 'one' stands there twice"),
        ("[1, 2]", ": not a mapping"),
        ("a: [1", ": while parsing a flow sequence"),
        ("a: b: c", ": mapping values are not allowed here"),
        ("{[1]: 2}", ": unhashable"),
        ("a: !!python/object/apply:os.system ['true']", ": could not determine a constructor"),
        ("a: \x00", ": unacceptable character"),
    ],
)
def test_an_unreadable_file_is_one_line_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "mine.yaml", text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value)


def test_a_key_once_in_each_block_an_anchor_and_an_empty_file_are_fine(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nother: {<<: *base, b: 4}\n"
    assert read(write(tmp_path / "a.yaml", text))["mine"] == {"a": 1, "b": 3}
    assert read(write(tmp_path / "b.yaml", "# nothing\n")) == {}


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "1.e-4", "+1e-4", "0.0001", "1_0e-5"])
def test_a_number_is_a_number(tmp_path: Path, text: str) -> None:
    assert read(write(tmp_path / "a.yaml", f"a: {text}\n")) == {"a": pytest.approx(1e-4)}
    assert typed({"a": [text]}) == {"a": [pytest.approx(1e-4)]}


@pytest.mark.parametrize("text", ["5e7", "5E+7", "5.0e7", "5.0e+7", "50_000_000", "500000000e-1"])
def test_a_whole_number_is_whole_however_it_is_written(tmp_path: Path, text: str) -> None:
    for value in (read(write(tmp_path / "a.yaml", f"a: {text}\n"))["a"], typed(text), typed(5e7)):
        assert (value, type(value)) == (50_000_000, int)
    assert type(read(write(tmp_path / "a.yaml", "a: 3.0\n"))["a"]) is float


def test_text_of_the_command_line_stays_text() -> None:
    texts = {"title": "Soft: sharp", "games": ["pong", "[x"], "results": "2026-11-25", "empty": "", "double": True}
    assert typed(texts) == texts
    assert typed({"double": "true", "agent": "null", "steps": "50_000"}) == {
        "double": True,
        "agent": None,
        "steps": 50_000,
    }


def test_names_stay_names(tmp_path: Path) -> None:
    text = "a: e4\nb: kl_1e4\nc: '1e-4'\nd: 1e\ne: 50_000\n"
    assert read(write(tmp_path / "a.yaml", text)) == {"a": "e4", "b": "kl_1e4", "c": "1e-4", "d": "1e", "e": 50_000}


# Laying one over the other


def test_the_later_wins_key_by_key_and_lists_and_sources_whole() -> None:
    below = {"a": {"x": 1, "y": [1, 2]}, "teacher": {"source": {"from": "sb3", "path": "a.zip"}}}
    above = {"a": {"y": [3]}, "teacher": {"source": {"from": "cleanrl", "hub": "a/b"}}}
    assert layered(below, above) == {
        "a": {"x": 1, "y": [3]},
        "teacher": {"source": {"from": "cleanrl", "hub": "a/b"}},
    }
    assert below["a"] == {"x": 1, "y": [1, 2]}


def test_an_experiment_left_out_comes_back_as_it_was_when_a_later_file_speaks_of_it() -> None:
    paper = {"experiments": {"a": {"games": ["pong"], "seeds": [0]}, "b": {"games": ["qbert"]}}}
    demo = {"experiments": {"a": None}}
    assert layered(paper, demo) == {"experiments": {"b": {"games": ["qbert"]}}}
    back = {"experiments": {"a": {"seeds": [1]}}}
    assert layered(paper, demo, back)["experiments"]["a"] == {"games": ["pong"], "seeds": [1]}
    assert layered(paper, demo, {"experiments": {"a": {}}})["experiments"]["a"] == paper["experiments"]["a"]
    assert layered(paper, back, demo)["experiments"].keys() == {"b"}
    assert layered(paper, demo, demo)["experiments"].keys() == {"b"}
    with pytest.raises(ConfigError, match=r"experiments\.aa: null leaves an experiment out, .* allowed: a, b$"):
        layered(paper, {"experiments": {"aa": None}})


values = st.recursive(st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3))
configs = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)


@given(configs, configs, configs)
def test_laying_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    """So it does not matter who lays which files together first: Snakemake, or `extends`."""
    if not clash(one, two, three):
        assert merged(merged(one, two), three) == merged(one, merged(two, three))


@pytest.mark.parametrize("change", [1, 1.0])
def test_the_same_number_written_otherwise_is_no_change(change: float) -> None:
    """Snakemake and states compare settings by their text."""
    assert repr(merged({"a": {"data": 1.0, "seed": 1}}, {"a": {"data": change, "seed": change}})["a"]) == repr(
        {"data": 1.0, "seed": 1}
    )
    assert merged({"cap": 1}, {"cap": True})["cap"] is True
    assert merged({"data": 1.0}, {"data": 2})["data"] == 2


def clash(*values: Any) -> bool:
    """Whether a key is a section in one and a value in another, where the order matters."""
    keys = set().union(*values)
    pairs = [[value[key] for value in values if key in value] for key in keys]
    return any(
        len({isinstance(entry, dict) for entry in entries}) > 1 or (isinstance(entries[0], dict) and clash(*entries))
        for entries in pairs
    )


# extends


def test_what_a_file_extends_lies_below_it_and_is_named_relative_to_it(tmp_path: Path) -> None:
    write(tmp_path / "config.yaml", "a: 0\nb: 0\nc: 0\n")
    write(tmp_path / "profiles/laptop.yaml", "a: 1\nb: 1\n")
    write(tmp_path / "profiles/deep/reference.yaml", "extends: ../laptop.yaml\nb: 2\n")
    mine = write(tmp_path / "mine.yaml", "extends: [profiles/deep/reference.yaml]\nc: 3\n")
    assert lay(layers(tmp_path / "config.yaml", [mine], {"a": 7})) == {"a": 7, "b": 2, "c": 3}


def test_a_file_that_several_extend_is_laid_once(tmp_path: Path) -> None:
    """--profile profiles/reference --configfile mine.yaml, both on top of the laptop's: reference's changes stay."""
    config = write(tmp_path / "config.yaml", "a: 0\n")
    write(tmp_path / "laptop.yaml", "a: 1\n")
    reference = write(tmp_path / "reference.yaml", "extends: laptop.yaml\na: 2\n")
    mine = write(tmp_path / "mine.yaml", "extends: laptop.yaml\nb: 3\n")
    assert lay(layers(config, [reference, mine], {})) == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: none.yaml", "none.yaml does not exist; paths are relative to the file that says it"),
        ("extends: mine.yaml", "extends: mine.yaml leads back to itself"),
        ("extends: other.yaml", "extends: mine.yaml leads back to itself"),
        ("extends: 7", "extends: 7 is not allowed; allowed: a file, or a list of files"),
        ("extends: {a: b}", "is not allowed; allowed: a file, or a list of files"),
    ],
)
def test_a_bad_extends_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path / "other.yaml", "extends: mine.yaml")
    mine = write(tmp_path / "mine.yaml", text)
    with pytest.raises(ConfigError) as caught:
        with_extended(mine, read(mine))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# In Snakemake


def stats(output: str) -> dict[str, int]:
    assert "Job stats:" in output, output[-3000:]
    lines = itertools.takewhile(str.strip, output.split("Job stats:\n")[1].splitlines()[2:])
    return {rule: int(count) for rule, count in map(str.split, lines)}


MINE = """
experiments:
  mine: {title: Mine, games: [pong], recipes: [kl_soft], networks: [dqn], seeds: [0]}
recipes:
  kl_soft: {loss: kl, temperature: 1e-1}
"""


@pytest.mark.workflow
@pytest.mark.parametrize(
    ("arguments", "students"),
    [
        ("--profile profiles/demo all", 6),
        (
            "--profile profiles/slurm --profile profiles/demo --configfile mine.yaml --config results=results/x -- all",
            7,
        ),
        ("--configfile extending.yaml -- all", 7),
    ],
)
def test_a_profile_and_a_file_of_ones_own_add_up(checkout: Checkout, arguments: str, students: int) -> None:
    write(checkout.folder / "mine.yaml", MINE)
    write(checkout.folder / "extending.yaml", f"extends: profiles/demo/overrides.yaml\n{MINE}")
    plan = checkout.snakemake("-n", "--quiet", "rules", *arguments.split())
    assert plan.returncode == 0, plan.stdout[-3000:]
    jobs = stats(plan.stdout)
    assert jobs["distill_student"] == students
    assert jobs["dump_dataset"] == 3  # the demo's, not the paper's
    assert jobs["evaluate_agent"] == students + 1
    assert "train_teacher" not in jobs


@pytest.mark.workflow
def test_jobs_see_what_was_planned(tmp_path: Path) -> None:
    """The user's own file, a profile's overlay that extends another one, --configfile and --config, in a real job."""
    copy = Checkout(tmp_path)
    write(copy.folder / "config.local.yaml", "dataset: {epsilon: 0.5, envs: 2, seed: 1}\n")
    write(copy.folder / "profiles/tiny/config.yaml", "configfile: overrides.yaml\ncores: 1\n")
    write(
        copy.folder / "profiles/tiny/overrides.yaml", "extends: ../../tests/smoke.yaml\nteacher: {source: reference}\n"
    )
    write(copy.folder / "mine.yaml", "dataset: {steps_per_hour: 200, hours_per_part: 1}\nexperiments: {online: null}\n")
    target = "results/tiny/datasets/pong/part0.h5"
    config = ("--config", "results=results/tiny", "dataset={envs: 8}")
    done = copy.snakemake("--profile", "profiles/tiny", "--configfile", "mine.yaml", *config, "--", target)
    assert done.returncode == 0, done.stdout[-3000:]
    with Part(copy.folder / target) as part:
        facts = part.describe()
    said = {"hours_per_part": 1, "steps_per_hour": 200, "envs": 8, "epsilon": 0.5}
    assert said.items() <= facts["settings"].items()
    assert facts["seed"] == 1
    assert (
        "Nothing to be done"
        in copy.snakemake("-n", "--profile", "profiles/tiny", "--configfile", "mine.yaml", *config, "--", target).stdout
    )


@pytest.mark.workflow
def test_a_key_that_stands_twice_is_refused_before_anything_is_planned(checkout: Checkout) -> None:
    write(checkout.folder / "twice.yaml", yaml.safe_dump({"dataset": {"parts": 1}}) + "dataset: {epsilon: 0.5}\n")
    done = checkout.snakemake("-n", "--configfile", "twice.yaml", "--", "all")
    assert done.returncode != 0
    assert "twice.yaml:3: the key 'dataset' stands there twice, first in line 1" in done.stdout
    assert "Traceback" not in done.stdout
