"""An experiment's tables: the paper's rows, its cells' scores one by one, and aggregates over games and seeds."""

from pathlib import Path

from policy_distillation.aggregates import aggregate_table
from policy_distillation.cells import Cell
from policy_distillation.claims import differences, judge, unjudged
from policy_distillation.files import atomic_path, file_digest
from policy_distillation.hardware import job_device
from policy_distillation.joblog import logging_to
from policy_distillation.provenance import provenance
from policy_distillation.readable import judged, normalised, of_teachers, write_tables
from policy_distillation.remarks import remarks
from policy_distillation.scores import Scores, Student, long_table, read_returns
from policy_distillation.sidecar import read_sidecar, write_sidecar
from policy_distillation.tables import Paper, experiment_table

CLAIMS = (
    "Claims, and the difference in points between 0, random play, and 100, the teachers [95% interval]. "
    "Seeds: {seeds}; with one, of these students alone."
)
LEGAL_ACTIONS = range(18)  # the paper counts parameters with all of them


def parameters(sizes, games=1):
    from policy_distillation.networks import Agent, Network  # loads torch, which takes longer than most tables

    return Agent(Network(**sizes), {str(game): LEGAL_ACTIONS for game in range(games)}).parameter_count


def teachers_parameters(teachers):
    """Of the agents that were scored, wherever they are from; not a number where games' teachers differ in size.

    Layer norms apart, which the paper's teachers do not have.
    """
    sizes = {parameters({**teacher["agent"]["network"], "layer_norm": False}) for teacher in teachers}
    return sizes.pop() if len(sizes) == 1 else float("nan")


with logging_to(snakemake.log[0]):
    job_device("cpu")
    name, facts, files, outputs = (
        snakemake.wildcards.experiment,
        snakemake.params.facts,
        snakemake.input,
        snakemake.output,
    )
    sources = [*files.teachers, *files.randoms, *files.students]
    sidecars = {path: read_sidecar(Path(path)) for path in sources}
    cells = [Cell(*(student[part] for part in Cell._fields)) for student in facts["students"]]
    scores = Scores(
        dict(zip(facts["games"], map(read_returns, files.teachers), strict=True)),
        dict(zip(facts["games"], map(read_returns, files.randoms), strict=True)),
        [
            Student(cell, student["variant"], student["game"], read_returns(path))
            for cell, student, path in zip(cells, facts["students"], files.students, strict=True)
        ],
    )
    values, whole = facts["values"], float("nan")
    if facts["against"] == "parameters":
        values = {key: parameters(*network) for key, network in values.items()}
        whole = teachers_parameters(sidecars[path] for path in files.teachers)
    table = experiment_table(scores, Paper.read(files.paper, name), facts["against"], values, whole)
    aggregates, verdicts = aggregate_table(scores), judge(scores, facts["claims"])
    said = remarks(
        Path(outputs.csv).parent,
        facts,
        [sidecars[path] for path in files.students],
        {game: sidecars[path] for game, path in zip(facts["games"], files.teachers, strict=True)},
        [sidecars[path] for path in files.randoms],
    )
    if strangers := unjudged(scores, facts["claims"]):
        said.append(
            f"Claims not judged, as their variants are not here ({', '.join(scores.variants)}): "
            f"{'; '.join(claim['says'] for claim in strangers)}."
        )
    said += [
        f"The verdict on {row.says!r} rests on {row.games} of {row.played} games: of the others the teacher is not "
        "clearly better than random play."
        for row in verdicts.itertuples()
        if row.games < row.played
    ]
    for content in (table, aggregates, verdicts):
        print(content.to_string())
    for text in [*(f"{row.game}: {row.note}" for row in table.itertuples() if row.note), *said]:
        print(f"WARNING: {text}")
    if facts["against"] == "parameters":
        said.append(f"Parameters are counted as the paper counts them, with {len(LEGAL_ACTIONS)} actions a game.")
    readable = {
        "Mean score: percentage of the teacher's [95% interval].": of_teachers(table, scores.variants),
        "Percent of the way from a random agent's score to the teacher's [95% interval].": normalised(
            table, scores.variants, aggregates
        ),
    }
    if len(verdicts):
        readable[CLAIMS.format(seeds=verdicts["seeds"].min())] = judged(verdicts)
    write_tables(readable, facts["title"], said, Path(outputs.csv))
    about = {
        "kind": "table",
        "experiment": name,
        **facts,
        "claims": verdicts.to_dict("records"),
        "differences": differences(scores),
        "protocols": sorted({entry["protocol"] for entry in sidecars.values()}),
        "acting": {path: entry.get("acting") for path, entry in sidecars.items()},
        "seeds": sorted({cell.seed for cell in cells}),
        "remarks": said,
        "scores": {path: file_digest(Path(path)) for path in sources},
    }
    made_by = provenance()
    csvs = {outputs.csv: table, outputs.scores: long_table(name, scores), outputs.aggregates: aggregates}
    for path, content in csvs.items():
        with atomic_path(Path(path)) as temporary:
            content.to_csv(temporary, index=False, float_format="%.8g")  # parameters to the last one
        write_sidecar(Path(path), about, made_by)
