# A student per cell of the grid: {games}/{recipe}/{network}/seed{seed}. Killed, it goes on from {folder}/state.


rule distill_student:
    input:
        parts=lambda wc: [part for game in games_in(wc.games) for part in dataset_parts(game)],
    output:
        agent="<student>/agent.safetensors",
        progress="<student>/progress.csv",
    log:
        "<logs>/distill_student/{games}/{recipe}/{network}/seed{seed}.log",
    benchmark:
        "<benchmarks>/distill_student/{games}/{recipe}/{network}/seed{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: config["machine"]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wc, attempt: student_mb(wc.games, wc.recipe) * attempt,
        runtime=lambda wc, attempt: student_minutes(wc.games, wc.recipe) * attempt,
    params:
        games=lambda wc: games_in(wc.games),
        network=lambda wc: network(wc.network),
        recipe=lambda wc: recipe(wc.recipe),
        evaluation=lambda wc: progress_evaluation(recipe(wc.recipe)["evaluation_episodes"]),
    script:
        "../scripts/distill_student.py"
