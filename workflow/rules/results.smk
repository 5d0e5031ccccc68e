# Tables and figures, each made of the cells that its experiment names.


rule table_single_task:
    input:
        teachers=[f"{teacher_folder(game)}/scores/{game}.csv" for game in config["experiments"]["single_task"]["games"]],
        students=[f"{folder}/scores/{game}.csv" for (game, *_), folder in single_task_cells().items()],
        paper="resources/paper_results.csv",
    output:
        csv="<results>/table_single_task.csv",
        md="<results>/table_single_task.md",
        tex="<results>/table_single_task.tex",
        html=report(
            "<results>/table_single_task.html",
            caption="../report/table_single_task.rst",
            category="Single task",
        ),
    log:
        "<logs>/table_single_task.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        games=config["experiments"]["single_task"]["games"],
        cells=list(single_task_cells()),
    script:
        "../scripts/table_single_task.py"


rule figure_single_task:
    input:
        table=rules.table_single_task.output.csv,
    output:
        png=report(
            "<results>/figures/single_task.png",
            caption="../report/figure_single_task.rst",
            category="Single task",
        ),
        pdf="<results>/figures/single_task.pdf",
    log:
        "<logs>/figure_single_task.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        recipes=config["experiments"]["single_task"]["recipes"],
    script:
        "../scripts/figure_single_task.py"


rule figure_teacher_curves:
    input:
        [f"{teacher_folder(game)}/progress.csv" for game in config["experiments"]["single_task"]["games"]],
    output:
        png=report(
            "<results>/figures/teacher_curves.png",
            caption="../report/figure_teacher_curves.rst",
            category="Teachers",
        ),
        pdf="<results>/figures/teacher_curves.pdf",
    log:
        "<logs>/figure_teacher_curves.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        games=config["experiments"]["single_task"]["games"],
    script:
        "../scripts/figure_teacher_curves.py"


rule figure_student_curves:
    input:
        students=[f"{folder}/progress.csv" for folder in single_task_cells().values()],
        teachers=rules.table_single_task.input.teachers,
    output:
        png=report(
            "<results>/figures/student_curves.png",
            caption="../report/figure_student_curves.rst",
            category="Single task",
        ),
        pdf="<results>/figures/student_curves.pdf",
    log:
        "<logs>/figure_student_curves.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        games=config["experiments"]["single_task"]["games"],
        cells=list(single_task_cells()),
    script:
        "../scripts/figure_student_curves.py"
