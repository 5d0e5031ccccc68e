# One page with all of it, to be opened in a browser or sent to somebody: <results>/index.html


def films(experiment):
    """The videos that an experiment has."""
    folder = Path(config["results"]) / "videos" / experiment
    return [f"<results>/videos/{experiment}/{film.name}" for film in sorted(folder.glob("*.mp4"))]


rule page:
    input:
        tables=[f"<results>/table_{name}.csv" for name in config["experiments"]],
        figures=[f"<results>/figures/{name}.svg" for name in config["experiments"]],
        curves=[f"<results>/figures/{name}_curves.svg" for name in config["experiments"]],
        teacher_curves=(
            ["<results>/figures/teacher_curves.svg"] if any(grid.teacher_curve(game) for game in grid.games) else []
        ),
        scores=[cell.scores(game) for entry in config["experiments"].values() for game, cell in scored(grid, entry)],
        videos=[film for name in config["experiments"] for film in films(name)],
        template=str(shipped("workflow/report/page.html")),
    output:
        report("<results>/index.html", category="page"),
    log:
        "<logs>/page.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        experiments=[
            {
                "name": name,
                "title": entry["title"],
                "variants": variants(entry),
                "cells": [(game, variant(entry, cell), cell[1:]) for game, cell in scored(grid, entry)],
                "videos": len(films(name)),
            }
            for name, entry in config["experiments"].items()
        ],
        facts={
            "results": config["results"],
            "protocol": config["protocol"],
            "epsilon": config["evaluation"]["epsilon"],
        },
        benchmarks=f"{config['results']}/benchmarks",
    script:
        "../scripts/page.py"
