"""The page: what it says is what the files say, and a real browser shows it, on a desk and on a phone."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html import escape as html_escape
from html import unescape as html_unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from browser import Browser, running_browser
from conftest import ROOT, Checkout, need_program
from PIL import Image
from policy_distillation import cells as grid_cells
from policy_distillation.claims import judge
from policy_distillation.curve_figures import learning_curves
from policy_distillation.figures import save_figure
from policy_distillation.page import (
    Percentage,
    Section,
    Shown,
    costs,
    findings,
    picture,
    render,
    seed_counts,
    shown,
)
from policy_distillation.readable import label
from policy_distillation.score_figures import relative_scores
from policy_distillation.scores import Scores, Student, read_returns
from policy_distillation.sidecar import SidecarError, read_sidecar, write_sidecar
from policy_distillation.tables import Paper, experiment_table
from policy_distillation.video import write_video

TEMPLATE = ROOT / "workflow/report/page.html"
GAMES = ("breakout", "freeway", "pong", "qbert")
REMARK = "Learnt from other data than there is now: {}/kl/dqn/0 on <pong>."
MEANS = {"breakout": 330.0, "freeway": 29.0, "pong": 18.0, "qbert": 11_000.0}


def write_scores(path: Path, mean: float, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    returns = np.round(rng.normal(mean, 0.1 * mean + 0.5, 32), 1)
    pd.DataFrame({"slot": np.arange(32), "episode": 0, "return": returns}).to_csv(path, index=False)
    facts = {
        "kind": "scores",
        "evaluation": {"episodes": 32, "envs": 16, "epsilon": 0.05, "starts": "noop", "teacher_steps": 450},
        "protocol": "paper2015",
        "agent": {"kind": "student", "digest": "d1ce" * 16, "seed": 0, "settings": {"loss": "kl", "temperature": 0.01}},
    }
    write_sidecar(path, facts)


def made_up(root: Path, name: str, title: str, keeps: dict[str, float]) -> Section:
    """An experiment whose students keep a part of their teachers' scores, with all its files."""
    rng = np.random.default_rng(len(name))
    teachers, students, cells = {}, [], []
    for game in GAMES:
        teachers[game] = rng.normal(MEANS[game], 0.1 * MEANS[game], 32)
        for variant, kept in keeps.items():
            path = root / f"students/{game}/{variant}/scores/{game}.csv"
            write_scores(path, kept * MEANS[game], rng)
            recipe, network = (variant, "dqn") if name == "single_task" else ("kl", variant)
            student = grid_cells.Cell(game, recipe, network, 0)
            students.append(Student(student, variant, game, read_returns(path)))
            cells.append(Shown(game, variant, f"{variant}, dqn, seed 0", path))
    scores = Scores(teachers, dict.fromkeys(GAMES, np.zeros(1)), students)
    table = experiment_table(scores, Paper.read(ROOT / "resources/paper_results.csv", name))
    table.to_csv(root / f"table_{name}.csv", index=False)
    best, last = max(keeps, key=keeps.__getitem__), min(keeps, key=keeps.__getitem__)
    claims = judge(
        scores,
        [
            {"says": f"{name}: first claim", "variant": best, "against": last},
            {"says": f"{name}: second claim", "variant": last},
        ],
    )
    made_by = {"kind": "table", "against": "", "remarks": [REMARK.format(name)], "claims": claims.to_dict("records")}
    write_sidecar(root / f"table_{name}.csv", made_by)
    save_figure(relative_scores(table, list(keeps)), root / f"figures/{name}/scores.png")
    rows = pd.DataFrame({"update": [1000, 2000], "return_pong": [3.0, 14.0]})
    curves = learning_curves(
        {game: {v: [rows.rename(columns={"return_pong": f"return_{game}"})] for v in keeps} for game in GAMES}
    )
    save_figure(curves, root / f"figures/{name}/curves.png")
    video = root / f"videos/{name}/pong.mp4"
    video.parent.mkdir(parents=True)
    write_video((Image.new("RGB", (640, 472), (20, 8 * step, 90)) for step in range(30)), video, 30)
    write_sidecar(
        video, {"game": "pong", "titles": ["Teacher", *keeps], "scores": ", ".join("17" for _ in range(len(keeps) + 1))}
    )
    figures = [root / f"figures/{name}/{kind}.svg" for kind in ("scores", "curves")]
    return Section(name, title, root / f"table_{name}.csv", list(keeps), cells, figures, [video])


@pytest.fixture(scope="module")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> list[Section]:
    root = tmp_path_factory.mktemp("results")
    return [
        made_up(root, "single_task", "Single-task distillation", {"mse": 0.5, "nll": 0.93, "kl": 0.95}),
        made_up(root, "compression", "Policy compression", {"dqn": 0.99, "net1": 0.95, "net2": 0.9, "net3": 0.7}),
    ]


@pytest.fixture(scope="module")
def page(experiments: list[Section], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of made-up results, in a folder of its own: nothing that it needs lies beside it."""
    folder = tmp_path_factory.mktemp("page")
    benchmark = folder / "benchmarks/distill_student/pong/kl.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\n90.5\t0:01:30\t2048.0\n")
    facts = {"results": "results/demo", "protocol": "paper2015"}
    facts |= {"teacher_curves": [experiments[0].figures[1]]}
    (folder / "index.html").write_text(render(experiments, TEMPLATE, facts, folder / "benchmarks"), encoding="utf-8")
    return folder / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_program("chromium", "chromium")
    with running_browser() as browser:
        yield browser


# What it says


def text_of(page: Path) -> str:
    """Without tags, styles and embedded files, in single spaces."""
    html = re.sub(r"<style>.*?</style>", " ", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_the_table_holds_the_csvs_numbers(page: Path, experiments: list[Section]) -> None:
    text = text_of(page)
    for experiment in experiments:
        table = pd.read_csv(experiment.table)
        for record in table.to_dict("records")[:5]:
            row = text.split(" Breakout ", 1)[1] if record["game"] == "breakout" else text
            for variant in experiment.variants:
                low, high = record[f"{variant}.low"], record[f"{variant}.high"]
                assert f"{shown(record[f'{variant}.percent'])} [{low:,.0f}, {high:,.0f}]" in row


def test_a_student_of_each_game_is_counted(page: Path) -> None:
    assert " 28 students of Breakout, Freeway, Pong, Q*bert: " in text_of(page)  # 4 games, 3 losses and 4 sizes


def test_what_a_reader_should_know_of_a_tables_cells_is_on_the_page(page: Path, experiments: list[Section]) -> None:
    html = page.read_text(encoding="utf-8")
    for experiment in experiments:
        assert html.count(html_escape(REMARK.format(experiment.name))) == 1


def test_the_papers_claims_and_their_verdicts_are_on_the_page(page: Path, experiments: list[Section]) -> None:
    text = text_of(page)
    for experiment in experiments:
        for claim in read_sidecar(experiment.table)["claims"]:
            row = text.split(claim["says"], 1)[1].split(" &gt;&nbsp;0 ")
            against = label(claim["against"]) or "teachers"
            points = f"{claim['difference']:.1f} [{claim['low']:.1f}, {claim['high']:.1f}]"
            assert row[0].split() == [*f"{label(claim['variant'])} &minus; {against}".split(), *points.split()]
            assert row[1].startswith(claim["verdict"])


def test_each_cells_origin_is_on_the_page(page: Path, experiments: list[Section]) -> None:
    html = page.read_text(encoding="utf-8")
    told = [yaml.safe_load(html_unescape(block)) for block in re.findall(r"<pre>(.*?)</pre>", html, re.S)]
    cells = [cell for experiment in experiments for cell in experiment.cells]
    assert told == [json.loads(cell.scores.with_name(f"{cell.scores.name}.json").read_text()) for cell in cells]


def test_how_students_were_scored_is_on_the_page(experiments: list[Section], page: Path, tmp_path: Path) -> None:
    """From no-ops; or after steps that the teacher played, which earn the student nothing."""
    assert "5% random actions)" in page.read_text(encoding="utf-8")
    assert "played the first steps" not in page.read_text(encoding="utf-8")
    section = made_up(tmp_path, "single_task", "Single-task distillation", {"kl": 0.95})
    for cell in section.cells:
        facts = read_sidecar(cell.scores)
        played = {**facts["evaluation"], "epsilon": 0.01, "starts": "teacher", "teacher_steps": 300}
        write_sidecar(cell.scores, {**facts, "evaluation": played})
    facts = {"results": "results/demo", "protocol": "paper2015", "teacher_curves": []}
    for sections, epsilon in (([section], "1%"), ([section, experiments[1]], "1% or 5%")):
        text = render(sections, TEMPLATE, facts, tmp_path)
        assert f"{epsilon} random actions" in text
        assert "Its teacher played the first steps of each game, up to 300;" in text


def test_altered_scores_are_refused(tmp_path: Path) -> None:
    section = made_up(tmp_path, "single_task", "Single-task distillation", {"kl": 0.95})
    path = section.cells[2].scores
    path.write_text(path.read_text().replace("return", "Return"))
    with pytest.raises(SidecarError, match=r"pong\.csv: altered since it was written"):
        render([section], TEMPLATE, {"results": "-", "protocol": "-", "teacher_curves": []}, tmp_path)


def test_who_trained_students_is_told_beside_who_scored_them(tmp_path: Path) -> None:
    """On a cluster the former had GPUs, the latter none; older scores do not say."""
    section = made_up(tmp_path, "single_task", "Single-task distillation", {"kl": 0.95})
    facts = {"results": "-", "protocol": "-", "teacher_curves": []}
    (tmp_path / "index.html").write_text(render([section], TEMPLATE, facts, tmp_path))
    assert " students, on not recorded " in text_of(tmp_path / "index.html")
    for cell in section.cells:
        origin = read_sidecar(cell.scores)
        agent = origin["agent"] | {"commit": "c0ffee", "hardware": {"cpu": "an abacus", "gpu": "a loom"}}
        write_sidecar(cell.scores, {**origin, "agent": agent})
    (tmp_path / "index.html").write_text(render([section], TEMPLATE, facts, tmp_path))
    text = text_of(tmp_path / "index.html")
    assert " students, by commit c0ffee students, on an abacus, a loom scores, by commit " in text
    assert "loom" not in text.split("scores, by commit")[1]


@pytest.mark.parametrize(("low", "percent", "high"), [(150, 190, 260), (295, 303, 310), (-90, -60, -30)])
def test_an_interval_ends_where_the_track_does(low: float, percent: float, high: float, tmp_path: Path) -> None:
    section = made_up(tmp_path, "single_task", "Single-task distillation", {"kl": 0.95})
    table, facts = pd.read_csv(section.table), read_sidecar(section.table)
    table[["kl.low", "kl.percent", "kl.high"]] = low, percent, high
    table.to_csv(section.table, index=False)
    write_sidecar(section.table, facts)
    html = render([section], TEMPLATE, {"results": "-", "protocol": "-", "teacher_curves": []}, tmp_path)
    ((left, width),) = re.findall(r'class="interval" style="left: ([\d.-]+)%; width: ([\d.-]+)%"', html)
    assert float(left) >= 0
    assert float(width) >= 0
    assert float(left) + float(width) <= 100


def test_a_figure_is_described_as_what_it_shows(tmp_path: Path) -> None:
    section = made_up(tmp_path, "single_task", "Single-task distillation", {"kl": 0.95})
    facts = {"results": "-", "protocol": "-", "teacher_curves": []}
    assert "scores in percent of the teachers" in render([section], TEMPLATE, facts, tmp_path)
    write_sidecar(section.table, read_sidecar(section.table) | {"against": "teacher"})
    html = render([section], TEMPLATE, facts, tmp_path)
    assert "learning curves of the teachers and of their students" in html
    assert "scores in percent of the teachers" not in html


def estimate(percent: float, low: float, high: float) -> Percentage:
    return Percentage(percent, low, high, 1.0, np.nan)


def test_findings_say_what_the_intervals_decide() -> None:
    kl, nll, mse = estimate(98, 95, 102), estimate(96, 92, 99), estimate(90, 80, 96)
    differences = [
        {"variant": "mse", "against": "nll", "difference": -6.5, "low": -12.0, "high": -1.0},
        # Though their own intervals meet:
        {"variant": "mse", "against": "kl", "difference": -7.5, "low": -13.0, "high": -2.0},
        {"variant": "nll", "against": "kl", "difference": -2.0, "low": -5.0, "high": 1.0},
    ]
    assert findings({"mse": mse, "nll": nll, "kl": kl}, differences) == [
        "KL is not told apart from the teacher.",
        "MSE and NLL are behind the teacher.",
        "KL is ahead of MSE: 0 is not in the interval of their difference.",
        "KL cannot be told from NLL: 0 is in the interval of their difference.",
    ]
    assert findings({"net1": estimate(120, 101, 130)}, []) == ["net1 is better than the teacher."]
    none = estimate(np.nan, np.nan, np.nan)
    assert findings({"kl": none}, []) == []
    assert findings({"kl": none, "nll": nll}, differences) == [
        "NLL is behind the teacher.",
        "KL cannot be told from NLL: 0 is in the interval of their difference.",
    ]
    assert findings({"kl": none, "mse": none}, differences) == [  # a mean return below zero has no percentage
        "KL is ahead of MSE: 0 is not in the interval of their difference."
    ]
    # 34 and 57% against 13 and 94%: the geometric mean puts MSE first, the points between random play and teacher NLL.
    apart = [{"variant": "mse", "against": "nll", "difference": -13.6, "low": -16.7, "high": -10.6}]
    assert findings({"mse": estimate(44, 40, 48), "nll": estimate(34, 30, 38)}, apart)[1:] == [
        "NLL is ahead of MSE: 0 is not in the interval of their difference."
    ]
    assert findings({"kl": kl, "nll": nll}, [])[-1] == "NLL is behind the teacher."


def test_one_seed_is_said_wherever_there_is_one(experiments: list[Section]) -> None:
    (one, *_) = experiments
    assert seed_counts([one, replace(one, name="other seeds")]) == {1}  # whichever seed each of them has
    twice = replace(one, name="two", cells=[*one.cells, *one.cells])
    assert seed_counts([twice]) == {2}
    assert seed_counts([one, twice]) == {1, 2}


def test_numbers_are_for_people() -> None:
    values = (0.0, 0.012, 3.14159, 98.46, 123.4, 11_231.9, -20.4, np.nan)
    words = ["0.0", "0.01", "3.1", "98.5", "123.4", "11,232", "-20.4", "\N{EN DASH}"]
    assert [shown(value) for value in values] == words


def test_costs_add_up_what_was_measured(tmp_path: Path) -> None:
    for name, seconds, memory in (("a/pong", 60, "512.0"), ("b/pong", 180, "-")):
        path = tmp_path / "distill_student" / f"{name}.tsv"
        path.parent.mkdir(parents=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:01:00\t{memory}\n")
    assert costs(tmp_path) == [{"rule": "distill student", "jobs": 2, "minutes": 4.0, "longest": 3.0, "memory": 0.5}]
    assert costs(tmp_path / "none") == []


def test_a_file_that_is_no_figure_is_refused(tmp_path: Path) -> None:
    (tmp_path / "figure.svg").write_text("<html></html>")
    with pytest.raises(ValueError, match=r"figure\.svg: not an SVG"):
        picture(tmp_path / "figure.svg", "none")


# In a browser

LOOK = """Promise.all([...document.querySelectorAll("video")].map(video => video.readyState >= 2 ||
  new Promise(done => { video.onloadeddata = video.onerror = done; setTimeout(done, 60000) })))
  .then(() => ({
    scrolls: document.documentElement.scrollWidth > innerWidth,
    title: document.title,
    pictures: [...document.images].map(image => [image.complete && image.naturalWidth > 0, image.alt]),
    videos: [...document.querySelectorAll("video")].map(video => [video.videoWidth, video.getAttribute("aria-label")]),
    tables: document.querySelectorAll("table").length,
    colours: ["color", "background-color"].map(name => getComputedStyle(document.body).getPropertyValue(name)),
    soft: getComputedStyle(document.querySelector(".note")).color,
    names: [...document.querySelectorAll("a, summary, .scroll")].map(each => each.ariaLabel || each.textContent.trim()),
    targets: [...document.querySelectorAll("nav a")].map(link => !!document.querySelector(link.hash)),
  }))"""


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two CSS colours."""

    def luminance(colour: str) -> float:
        channels = np.array(re.findall(r"[\d.]+", colour)[:3], float) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390, 320])
def test_a_browser_shows_all_of_it(browser: Browser, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, scheme=scheme)
    seen = browser.evaluate(LOOK)
    assert browser.complaints == []
    assert not seen["scrolls"]
    assert len(seen["pictures"]) == 5
    assert all(visible and len(alt) > 20 for visible, alt in seen["pictures"])
    assert seen["videos"] == [[640, "Single-task distillation: Pong"], [640, "Policy compression: Pong"]]
    assert seen["tables"] == 5  # scores and claims of two experiments, times
    assert all(seen["names"])
    assert seen["targets"] == [True] * 5
    ink, paper = seen["colours"]
    assert contrast(ink, paper) > 12
    assert contrast(seen["soft"], paper) > 4.5
    assert (contrast("rgb(0, 0, 0)", paper) < 2) == (scheme == "dark")


def test_a_browser_tells_of_faults(browser: Browser, tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.html"
    faulty.write_text(
        "<title>x</title><img src=gone.png><script>console.error('one'); nowhere()</script>"
        "<link rel=stylesheet href='http://127.0.0.1:9/style.css'>"
    )
    browser.open(faulty, 390)
    complaints = " ".join(browser.complaints)
    assert all(
        sign in complaints for sign in ("one", "nowhere is not defined", "asks for http://127.0.0.1:9/style.css")
    )


VIDEO = "videos/single_task/breakout.mp4"


@pytest.fixture(scope="module")
def filmed(finished: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The finished workflow's results after a video and `all` were asked for, and what the latter printed."""
    copy = finished.copy_to(tmp_path_factory.mktemp("filmed") / "copy")  # others' reruns would make the video again
    video = copy.snakemake("--configfile", "tests/smoke.yaml", "--", f"results/smoke/{VIDEO}")
    assert video.returncode == 0, video.stdout[-3000:]
    again = copy.snakemake("--configfile", "tests/smoke.yaml", "--", "all")
    assert again.returncode == 0, again.stdout[-3000:]
    return copy.folder / "results/smoke", again.stdout


@pytest.mark.workflow
@pytest.mark.xdist_group("finished")
def test_the_workflow_makes_a_video_and_the_page_takes_it_in(filmed: tuple[Path, str]) -> None:
    results, printed = filmed
    rerun = re.findall(r"^(\w+) +1$", printed.split("Job stats:")[1], re.M)
    assert sorted(rerun) == ["all", "page"]  # and nothing else
    facts = read_sidecar(results / VIDEO)
    assert facts["titles"] == ["Teacher", "mse", "nll", "kl"]
    assert len(facts["scores"].split(", ")) == len(facts["agents"]) == 4
    embedded = base64.b64encode((results / VIDEO).read_bytes()).decode()
    assert f"data:video/mp4;base64,{embedded}" in (results / "index.html").read_text(encoding="utf-8")


@pytest.mark.workflow
@pytest.mark.xdist_group("finished")
def test_a_browser_shows_the_workflows_page_and_video(filmed: tuple[Path, str], browser: Browser) -> None:
    browser.open(filmed[0] / "index.html", 390)
    seen = browser.evaluate(LOOK)
    assert browser.complaints == []
    assert not seen["scrolls"]
    assert all(visible for visible, _ in seen["pictures"])
    assert len(seen["pictures"]) == 2 * 8 + 1  # scores and curves of each experiment, and the teachers' curves
    assert seen["videos"] == [[4 * (320 + 16) - 16, "Single-task distillation: Breakout"]]
