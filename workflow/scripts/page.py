"""The page that tells the result."""

from itertools import islice
from pathlib import Path

from policy_distillation.files import atomic_path
from policy_distillation.joblog import logging_to
from policy_distillation.page import Section, Shown, render

given, params = snakemake.input, snakemake.params
with logging_to(snakemake.log[0]):
    scores, figures, videos = (map(Path, paths) for paths in (given.scores, given.figures, given.videos))
    experiments = []
    for entry, table in zip(params.experiments, given.tables, strict=True):
        cells = []
        for (game, variant, (games, recipe, network, seed)), path in zip(entry["cells"], scores, strict=False):
            together = "" if games == game else f"{games}, "
            cells.append(Shown(game, variant, f"{together}{recipe}, {network}, seed {seed}", path))
        experiments.append(
            Section(
                name=entry["name"],
                title=entry["title"],
                table=Path(table),
                variants=entry["variants"],
                cells=cells,
                figures=list(islice(figures, entry["figures"])),
                videos=list(islice(videos, entry["videos"])),
            )
        )
    facts = {**params.facts, "teacher_curves": list(map(Path, given.teacher_curves))}
    page = render(experiments, Path(given.template), facts, Path(params.benchmarks))
    with atomic_path(Path(snakemake.output[0])) as temporary:
        temporary.write_text(page, encoding="utf-8")
