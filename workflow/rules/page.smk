# One page with all of it, to be opened in a browser or sent to somebody: <results>/index.html


# The videos that there are, of games that an experiment still has.
FILMS = {
    name: [game for game in grid.games_of(entry) if Path(config["results"], "videos", name, f"{game}.mp4").exists()]
    for name, entry in config["experiments"].items()
}


rule page:
    input:
        tables=[f"<results>/table_{name}.csv" for name in config["experiments"]],
        claims=[f"<results>/table_{name}.csv.json" for name in config["experiments"]],
        figures=[f"{figure}.svg" for name in config["experiments"] for figure in figures(grid, name)],
        teacher_curves=(
            ["<results>/figures/teacher_curves.svg"] if any(grid.teacher_curve(game) for game in grid.games) else []
        ),
        scores=[cell.scores(game) for entry in config["experiments"].values() for game, cell in scored(grid, entry)],
        videos=[f"<results>/videos/{name}/{game}.mp4" for name, games in FILMS.items() for game in games],
        beside=travelling(
            f"{cell.scores(game)}.json"
            for entry in config["experiments"].values()
            for game, cell in scored(grid, entry)
        ),
        template=ours("workflow/report/page.html"),
    output:
        report("<results>/index.html", category="page"),
    log:
        "<logs>/page.log",
    localrule: True
    params:
        experiments=[
            {
                "name": name,
                "title": entry["title"],
                "variants": list(variants(grid, entry)),
                "cells": [(game, variant(grid, entry, cell), [*cell]) for game, cell in scored(grid, entry)],
                "figures": len(figures(grid, name)),
                "videos": len(FILMS[name]),
            }
            for name, entry in config["experiments"].items()
        ],
        facts={
            "results": config["results"],
            "protocol": config["protocol"],
        },
        benchmarks=f"{config['results']}/benchmarks",
    script:
        "../scripts/page.py"
