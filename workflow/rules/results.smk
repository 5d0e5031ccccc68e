# Tables and figures, each made of the cells that its experiment names.


rule table:
    input:
        teachers=lambda wc: [grid.teacher_scores(game) for game in grid.games_of(experiment(wc))],
        randoms=lambda wc: [grid.random_scores(game) for game in grid.games_of(experiment(wc))],
        students=lambda wc: [cell.scores(game) for game, cell in scored(grid, experiment(wc))],
        beside=lambda wc: travelling(
            f"{path}.json"
            for path in [
                *(grid.teacher_scores(game) for game in grid.games_of(experiment(wc))),
                *(grid.random_scores(game) for game in grid.games_of(experiment(wc))),
                *(cell.scores(game) for game, cell in scored(grid, experiment(wc))),
            ]
        ),
        paper=ours("resources/paper_results.csv"),
    output:
        csv="<results>/table_{experiment}.csv",
        md="<results>/table_{experiment}.md",
        tex="<results>/table_{experiment}.tex",
        html=report("<results>/table_{experiment}.html", caption="../report/table.rst", category="{experiment}"),
        scores="<results>/scores_{experiment}.csv",
        aggregates="<results>/aggregates_{experiment}.csv",
        csv_json="<results>/table_{experiment}.csv.json",
        scores_json="<results>/scores_{experiment}.csv.json",
        aggregates_json="<results>/aggregates_{experiment}.csv.json",
    log:
        "<logs>/table/{experiment}.log",
    localrule: True
    params:
        facts=lambda wc: table_facts(grid, experiment(wc)),
    script:
        "../scripts/table.py"


rule figure:
    input:
        table="<results>/table_{experiment}.csv",
        students=lambda wc: [cell.curve for cell in beside_teachers(grid, experiment(wc))],
        teachers=lambda wc: [here(path) for game in taught(grid, experiment(wc)) for path in grid.teacher_curve(game)],
    output:
        png=report("<results>/figures/{experiment}/scores.png", caption="../report/figure.rst", category="{experiment}"),
        pdf="<results>/figures/{experiment}/scores.pdf",
        svg="<results>/figures/{experiment}/scores.svg",
    log:
        "<logs>/figures/{experiment}/scores.log",
    localrule: True
    params:
        facts=lambda wc: figure_facts(grid, experiment(wc), beside_teachers(grid, experiment(wc))),
        taught=lambda wc: taught(grid, experiment(wc)),
    script:
        "../scripts/figure.py"


rule figure_curves:
    input:
        students=lambda wc: [cell.curve for cell in with_curves(grid, experiment(wc))],
        teachers=lambda wc: [grid.teacher_scores(game) for game in grid.games_of(experiment(wc))],
    output:
        png=report(
            "<results>/figures/{experiment}/curves.png",
            caption="../report/figure_curves.rst",
            category="{experiment}",
        ),
        pdf="<results>/figures/{experiment}/curves.pdf",
        svg="<results>/figures/{experiment}/curves.svg",
    log:
        "<logs>/figures/{experiment}/curves.log",
    localrule: True
    params:
        facts=lambda wc: figure_facts(grid, experiment(wc), with_curves(grid, experiment(wc))),
    script:
        "../scripts/figure_curves.py"


rule figure_profile:
    input:
        "<results>/scores_{experiment}.csv",
    output:
        png=report(
            "<results>/figures/{experiment}/profile.png",
            caption="../report/figure_profile.rst",
            category="{experiment}",
        ),
        pdf="<results>/figures/{experiment}/profile.pdf",
        svg="<results>/figures/{experiment}/profile.svg",
    log:
        "<logs>/figures/{experiment}/profile.log",
    localrule: True
    script:
        "../scripts/figure_profile.py"


rule figure_teacher_curves:
    input:
        [here(path) for game in grid.games for path in grid.teacher_curve(game)],
    output:
        png=report(
            "<results>/figures/teacher_curves.png",
            caption="../report/figure_teacher_curves.rst",
            category="Teachers",
        ),
        pdf="<results>/figures/teacher_curves.pdf",
        svg="<results>/figures/teacher_curves.svg",
    log:
        "<logs>/figures/teacher_curves.log",
    localrule: True
    params:
        games=[game for game in grid.games if grid.teacher_curve(game)],
    script:
        "../scripts/figure_teacher_curves.py"


# Prints jobs, hours, disk and memory of the current configuration, and runs none of it: snakemake cost
rule cost:
    input:
        rates=ours("benchmarks/results.json"),
        games=[here(str(path)) for path in sorted(shipped("resources/teachers").glob("*/scores.csv"))],
    log:
        "<logs>/cost.log",
    localrule: True
    script:
        "../scripts/cost.py"
