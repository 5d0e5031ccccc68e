"""The paper's claims: what each verdict takes, and that config.yaml's are about variants that there are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import scipy.stats
from conftest import ROOT
from policy_distillation.cells import Cell, table_facts, variants
from policy_distillation.claims import differences, judge, unjudged
from policy_distillation.grid import Grid
from policy_distillation.overlays import lay, layers
from policy_distillation.readable import judged
from policy_distillation.scores import Scores, Student
from policy_distillation.statistics import Returns
from test_tables import scored

TEACHERS = {"breakout": [10.0, 12.0], "pong": [18.0, 20.0]}
RANDOMS = {"breakout": [1.0], "pong": [-21.0]}
STUDENTS = {
    ("breakout", "kl"): [[11.0, 11.0]],  # 100
    ("pong", "kl"): [[19.0, 19.0]],  # 100
    ("breakout", "nll"): [[6.0, 6.0]],  # 50
    ("pong", "nll"): [[-1.0, -1.0]],  # 50
}


def claim(variant: str, against: str = "", margin: float = 0.0) -> dict[str, object]:
    return {"says": "so", "variant": variant, **({"against": against} if against else {}), "margin": margin}


def test_points_are_those_between_random_play_and_the_teachers_and_games_weigh_equally() -> None:
    found = judge(scored(TEACHERS, STUDENTS, RANDOMS), [claim("kl", "nll"), claim("nll"), claim("nll", "kl")])
    assert found["difference"].tolist() == pytest.approx([50, -50, -50])
    assert found["verdict"].tolist() == ["holds", "does not hold", "does not hold"]
    assert found["games"].tolist() == [2, 2, 2]
    assert found["against"].tolist() == ["nll", "", "kl"]


@pytest.mark.parametrize(
    ("margin", "verdict"), [(40, "holds"), (50, "undecided"), (60, "does not hold"), (-60, "holds")]
)
def test_a_claim_needs_its_margin_and_an_interval_that_is_clear_of_it(margin: float, verdict: str) -> None:
    noisy = STUDENTS | {("pong", "kl"): [list(np.linspace(18.5, 19.5, 20))]}
    found = judge(scored(TEACHERS, noisy, RANDOMS), [claim("kl", "nll", margin)]).iloc[0]
    assert (found["margin"], found["verdict"]) == (margin, verdict)
    assert found["low"] < found["difference"] < found["high"]


def test_what_two_variants_share_is_no_difference() -> None:
    """The teachers' and random play's own uncertainty, drawn anew in each resample, is the same for both."""
    equal = {key: [[5.0, 5.0]] for key in STUDENTS}
    found = judge(scored(TEACHERS, equal, RANDOMS), [claim("kl", "nll"), claim("kl")])
    assert (found["low"][0], found["high"][0]) == (0, 0)
    assert found["low"][1] < found["high"][1]


def test_a_negative_score_is_compared_like_any_other() -> None:
    """As of a DQN that learnt nothing in Pong, of which there is no percentage of the teacher's."""
    lost = STUDENTS | {("pong", "nll"): [[-21.0, -21.0]], ("breakout", "nll"): [[1.0, 1.0]]}
    found = judge(scored(TEACHERS, lost, RANDOMS), [claim("kl", "nll")]).iloc[0]
    assert found["difference"] == pytest.approx(100)
    assert found["verdict"] == "holds"


def test_differences_are_of_what_two_variants_do_not_share() -> None:
    equal = {**STUDENTS, **{(game, "nll"): STUDENTS[game, "kl"] for game in TEACHERS}}
    (pair,) = differences(scored(TEACHERS, equal, RANDOMS))
    found = judge(scored(TEACHERS, equal, RANDOMS), [claim("kl", "nll")]).iloc[0]
    names = {"kl", "nll"}
    assert {pair["variant"], pair["against"]} == names
    low, high = (pair["low"], pair["high"]) if pair["variant"] == "kl" else (-pair["high"], -pair["low"])
    assert (low, high) == pytest.approx((found["low"], found["high"]))
    assert differences(scored(TEACHERS, equal, TEACHERS)) == []  # no teacher is better than random play


def test_claims_of_variants_that_are_not_there_are_left_out_and_named() -> None:
    claims = [claim("mse"), claim("kl", "mse"), claim("kl", "nll")]
    assert unjudged(scored(TEACHERS, STUDENTS, RANDOMS), claims) == claims[:2]
    found = judge(scored(TEACHERS, STUDENTS, RANDOMS), claims)
    assert found["against"].tolist() == ["nll"]


def test_seeds_are_those_of_the_variant_with_the_fewest() -> None:
    more = STUDENTS | {key: [[9.0], [10.0], [11.0]] for key in STUDENTS if key[1] == "kl"}
    found = judge(scored(TEACHERS, more, RANDOMS), [claim("kl", "nll"), claim("kl")])
    assert found["seeds"].tolist() == [1, 3]


def test_a_claim_is_about_the_games_that_its_variants_play_and_says_of_how_many_it_is_judged() -> None:
    """A third variant that plays fewer is no matter; a teacher no better than random play is."""
    more = STUDENTS | {("pong", "mse"): [[-21.0, -21.0]]}
    found = judge(scored(TEACHERS, more, RANDOMS), [claim("kl", "nll"), claim("kl", "mse")])
    assert found[["games", "played"]].to_numpy().tolist() == [[2, 2], [1, 1]]
    useless = {**RANDOMS, "breakout": TEACHERS["breakout"]}
    found = judge(scored(TEACHERS, more, useless), [claim("kl", "nll"), claim("kl", "mse")])
    assert found[["games", "played"]].to_numpy().tolist() == [[1, 2], [1, 1]]


def test_nothing_is_decided_where_no_teacher_is_better_than_random_play() -> None:
    found = judge(scored(TEACHERS, STUDENTS, TEACHERS), [claim("kl", "nll", -1000)])
    assert found[["difference", "low", "high"]].isna().all(axis=None)
    assert (found["games"][0], found["verdict"][0]) == (0, "undecided")
    assert judged(found)["points"].tolist() == [""]


def test_claims_are_told_in_a_row_each() -> None:
    told = judged(judge(scored(TEACHERS, STUDENTS, RANDOMS), [claim("kl", "nll"), claim("nll", "", -5)]))
    assert told["compared"].tolist() == ["KL - NLL", "NLL - teachers"]
    assert told["needed"].tolist() == ["more than 0", "more than -5"]
    assert told["points"][0].startswith("50.0 [")
    assert told["verdict"].tolist() == ["holds", "does not hold"]
    nothing = judge(scored(TEACHERS, STUDENTS, RANDOMS), [claim("kl", "nll")]).assign(difference=-0.01, low=-0.04)
    assert judged(nothing)["points"][0].startswith("0.0 [0.0, ")  # not -0.0


def test_every_claim_of_the_configuration_is_about_its_experiments_variants() -> None:
    config = lay(layers(ROOT / "config.yaml", [], {}))
    grid = Grid(config)
    for name, experiment in config["experiments"].items():
        there = variants(grid, experiment)
        for entry in experiment["claims"]:
            assert {entry["variant"], entry.get("against", entry["variant"])} <= set(there), (name, entry)


def test_a_claim_about_the_only_network_is_one_about_the_only_variant() -> None:
    config = lay(layers(ROOT / "config.yaml", [], {}))
    compression = {**config["experiments"]["compression"], "networks": ["net1"]}
    assert list(variants(Grid(config), compression)) == ["kl"]
    claims = table_facts(Grid(config), compression)["claims"]
    assert [claim["variant"] for claim in claims] == ["kl", "net2", "net3"]


@pytest.mark.parametrize(("second", "width"), [((-30.0, 0.0, 30.0), 1.0), ((30.0, 0.0, -30.0), 0.0)])
def test_what_a_seed_of_one_network_is_off_by_is_off_in_all_its_games(second: tuple[float, ...], width: float) -> None:
    """Closed form: Student's t of the seeds' means over games. Seeds that are poor in one game and as much better in
    another do not differ; those that are poor in both are not two misfortunes that make up for each other."""
    teachers, randoms = {"breakout": [100.0], "pong": [100.0]}, {"breakout": [0.0], "pong": [0.0]}
    means = {"breakout": (-30.0, 0.0, 30.0), "pong": second}
    students = [
        Student(Cell("both", "kl", "multi", seed), "kl", game, np.full(4, 50.0 + means[game][seed]))
        for game in teachers
        for seed in range(3)
    ]
    (verdict,) = judge(Scores(arrays(teachers), arrays(randoms), students), [claim("kl")]).to_dict("records")
    half = scipy.stats.t(2).ppf(0.975) * 30 / np.sqrt(3) * width
    assert (verdict["low"], verdict["high"]) == pytest.approx((-50 - half, -50 + half), abs=0.1 * half + 1e-6)


def arrays(returns: Mapping[str, list[float]]) -> dict[str, Returns]:
    return {game: np.array(values) for game, values in returns.items()}
