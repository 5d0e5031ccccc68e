# Tables and figures, each made of the cells that its experiment names.


rule table:
    input:
        teachers=lambda wc: [grid.teacher_scores(game) for game in grid.games_of(experiment(wc))],
        students=lambda wc: [cell.scores(game) for game, cell in scored(grid, experiment(wc))],
        beside=lambda wc: travelling(
            f"{path}.json"
            for path in [
                *(grid.teacher_scores(game) for game in grid.games_of(experiment(wc))),
                *(cell.scores(game) for game, cell in scored(grid, experiment(wc))),
            ]
        ),
        paper=here(str(shipped("resources/paper_results.csv"))),
    output:
        csv="<results>/table_{experiment}.csv",
        md="<results>/table_{experiment}.md",
        tex="<results>/table_{experiment}.tex",
        html=report("<results>/table_{experiment}.html", caption="../report/table.rst", category="{experiment}"),
        aggregates="<results>/aggregates_{experiment}.csv",
        csv_json="<results>/table_{experiment}.csv.json",
        aggregates_json="<results>/aggregates_{experiment}.csv.json",
    log:
        "<logs>/table_{experiment}.log",
    localrule: True
    params:
        title=lambda wc: experiment(wc)["title"],
        games=lambda wc: grid.games_of(experiment(wc)),
        columns=lambda wc: [(game, variant(experiment(wc), cell)) for game, cell in scored(grid, experiment(wc))],
        against=lambda wc: against(grid, experiment(wc)),
    script:
        "../scripts/table.py"


rule figure:
    input:
        table="<results>/table_{experiment}.csv",
        students=lambda wc: [cell.curve for cell in beside_teachers(grid, experiment(wc))],
        teachers=lambda wc: [
            path
            for game in grid.games_of(experiment(wc))
            if beside_teachers(grid, experiment(wc))
            for path in map(here, grid.teacher_curve(game))
        ],
    output:
        png=report("<results>/figures/{experiment}.png", caption="../report/figure.rst", category="{experiment}"),
        pdf="<results>/figures/{experiment}.pdf",
        svg="<results>/figures/{experiment}.svg",
    log:
        "<logs>/figure_{experiment}.log",
    wildcard_constraints:
        experiment="|".join(config["experiments"]),
    localrule: True
    params:
        variants=lambda wc: variants(experiment(wc)),
        against=lambda wc: experiment(wc).get("against"),
        games=lambda wc: grid.games_of(experiment(wc)),
        cells=lambda wc: [
            (grid.games_in(cell.games), variant(experiment(wc), cell))
            for cell in beside_teachers(grid, experiment(wc))
        ],
    script:
        "../scripts/figure.py"


rule figure_curves:
    input:
        students=lambda wc: [cell.curve for cell in distilled(grid, experiment(wc))],
        teachers=lambda wc: [grid.teacher_scores(game) for game in grid.games_of(experiment(wc))],
    output:
        png=report(
            "<results>/figures/{experiment}_curves.png", caption="../report/figure_curves.rst", category="{experiment}"
        ),
        pdf="<results>/figures/{experiment}_curves.pdf",
        svg="<results>/figures/{experiment}_curves.svg",
    log:
        "<logs>/figure_{experiment}_curves.log",
    wildcard_constraints:
        experiment="|".join(config["experiments"]),
    localrule: True
    params:
        games=lambda wc: grid.games_of(experiment(wc)),
        cells=lambda wc: [
            (grid.games_in(cell.games), variant(experiment(wc), cell)) for cell in distilled(grid, experiment(wc))
        ],
    script:
        "../scripts/figure_curves.py"


rule figure_teacher_curves:
    input:
        [here(path) for game in grid.games for path in grid.teacher_curve(game)],
    output:
        png=report(
            "<results>/figures/teacher_curves.png",
            caption="../report/figure_teacher_curves.rst",
            category="teachers",
        ),
        pdf="<results>/figures/teacher_curves.pdf",
        svg="<results>/figures/teacher_curves.svg",
    log:
        "<logs>/figure_teacher_curves.log",
    localrule: True
    params:
        games=[game for game in grid.games if grid.teacher_curve(game)],
    script:
        "../scripts/figure_teacher_curves.py"


# Prints jobs, hours, disk and memory of the current configuration, and runs none of it: snakemake cost
rule cost:
    input:
        rates=here(str(shipped("benchmarks/results.json"))),
        games=[here(str(path)) for path in sorted(shipped("resources/teachers").glob("*/scores.csv"))],
    log:
        "<logs>/cost.log",
    localrule: True
    script:
        "../scripts/cost.py"
