# Tables and figures, each made of the cells that its experiment names.


rule table:
    input:
        teachers=lambda wc: [f"{teacher_folder(game)}/scores/{game}.csv" for game in games_of(experiment(wc))],
        students=lambda wc: [path for _, _, path in scores(experiment(wc))],
        paper="resources/paper_results.csv",
    output:
        csv="<results>/table_{experiment}.csv",
        md="<results>/table_{experiment}.md",
        tex="<results>/table_{experiment}.tex",
        html=report("<results>/table_{experiment}.html", caption="../report/table.rst", category="{experiment}"),
        aggregates="<results>/aggregates_{experiment}.csv",
    log:
        "<logs>/table_{experiment}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        title=lambda wc: experiment(wc)["title"],
        games=lambda wc: games_of(experiment(wc)),
        columns=lambda wc: [(game, variant) for game, variant, _ in scores(experiment(wc))],
        against=lambda wc: against(experiment(wc)),
    script:
        "../scripts/table.py"


rule figure:
    input:
        table="<results>/table_{experiment}.csv",
        students=lambda wc: [f"{folder}/progress.csv" for _, _, folder in curves(experiment(wc))],
        teachers=lambda wc: [
            path for game in games_of(experiment(wc)) if curves(experiment(wc)) for path in teacher_curve(game)
        ],
    output:
        png=report("<results>/figures/{experiment}.png", caption="../report/figure.rst", category="{experiment}"),
        pdf="<results>/figures/{experiment}.pdf",
    log:
        "<logs>/figure_{experiment}.log",
    wildcard_constraints:
        experiment="|".join(config["experiments"]),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        variants=lambda wc: list(dict.fromkeys(variant for _, variant, _ in cells(experiment(wc)))),
        against=lambda wc: experiment(wc).get("against"),
        games=lambda wc: games_of(experiment(wc)),
        cells=lambda wc: [(games_in(name), variant) for name, variant, _ in curves(experiment(wc))],
    script:
        "../scripts/figure.py"


rule figure_curves:
    input:
        students=lambda wc: [f"{folder}/progress.csv" for _, _, folder in distilled(experiment(wc))],
        teachers=lambda wc: [f"{teacher_folder(game)}/scores/{game}.csv" for game in games_of(experiment(wc))],
    output:
        png=report(
            "<results>/figures/{experiment}_curves.png", caption="../report/figure_curves.rst", category="{experiment}"
        ),
        pdf="<results>/figures/{experiment}_curves.pdf",
    log:
        "<logs>/figure_{experiment}_curves.log",
    wildcard_constraints:
        experiment="|".join(config["experiments"]),
    localrule: True
    conda:
        ENVIRONMENT
    params:
        games=lambda wc: games_of(experiment(wc)),
        cells=lambda wc: [(games_in(name), variant) for name, variant, _ in distilled(experiment(wc))],
    script:
        "../scripts/figure_curves.py"


rule figure_teacher_curves:
    input:
        [path for game in USED_GAMES for path in teacher_curve(game)],
    output:
        png=report(
            "<results>/figures/teacher_curves.png",
            caption="../report/figure_teacher_curves.rst",
            category="teachers",
        ),
        pdf="<results>/figures/teacher_curves.pdf",
    log:
        "<logs>/figure_teacher_curves.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        games=[game for game in USED_GAMES if teacher_curve(game)],
    script:
        "../scripts/figure_teacher_curves.py"


# Prints jobs, hours, disk and memory of the current configuration, and runs none of it: snakemake cost
rule cost:
    input:
        rates="benchmarks/results.json",
        games=sorted(map(str, Path("resources/teachers").glob("*/scores.csv"))),
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        plan=lambda wc: list(plan()),
        samples_per_update={"distill": 128},
    script:
        "../scripts/cost.py"
