# A student per cell of the grid: {games}/{recipe}/{network}/seed{seed}. Killed, it goes on from {folder}/state.


rule distill_student:
    input:
        parts=lambda wc: [
            grid.dataset_list(game, grid.recipe(wc.recipe)["teacher"]) for game in grid.games_in(wc.games)
        ],
        beside=lambda wc: travelling(
            part
            for game in grid.games_in(wc.games)
            for part in grid.dataset_parts(game, grid.recipe(wc.recipe)["teacher"])
        ),
        teachers=lambda wc: (
            [grid.teacher_agent(game) for game in grid.games_in(wc.games)]
            if grid.recipe(wc.recipe)["driver"] != "teacher"
            else []
        ),
    output:
        agent="<results>/students/{games}/{recipe}/{network}/seed{seed}/agent.safetensors",
        progress="<results>/students/{games}/{recipe}/{network}/seed{seed}/progress.csv",
    log:
        "<logs>/distill_student/{games}/{recipe}/{network}/seed{seed}.log",
    benchmark:
        "<benchmarks>/distill_student/{games}/{recipe}/{network}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=one_of(name for name in config["recipes"] if grid.distils(name)),
    threads: config["machine"]["threads"]
    resources:
        gpu=GPU,
        mem_mb=lambda wc, attempt: resources.grown(resources.student_mb(grid, wc.games, wc.recipe), attempt),
        runtime=lambda wc: resources.capped(grid, resources.student_minutes(grid, wc.games, wc.recipe)),
    params:
        games=lambda wc: grid.games_in(wc.games),
        network=lambda wc: grid.network(wc.network),
        recipe=lambda wc: grid.recipe(wc.recipe),
        evaluation=lambda wc: grid.progress_evaluation(grid.recipe(wc.recipe)["evaluation_episodes"]),
    script:
        "../scripts/distill_student.py"


# The baseline without a teacher: one network, one controller a game, Q-learning on the games' own play in turns.
rule train_joint_dqn:
    output:
        agent="<results>/students/{games}/{recipe}/{network}/seed{seed}/agent.safetensors",
        progress="<results>/students/{games}/{recipe}/{network}/seed{seed}/progress.csv",
    log:
        "<logs>/train_joint_dqn/{games}/{recipe}/{network}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_joint_dqn/{games}/{recipe}/{network}/seed{seed}.tsv"
    wildcard_constraints:
        recipe=one_of(name for name in config["recipes"] if not grid.distils(name)),
    priority: 1  # the longest job of a laptop: start it first
    threads: config["machine"]["threads"]
    resources:
        gpu=GPU,
        mem_mb=lambda wc, attempt: resources.grown(resources.joint_mb(grid, wc.games, wc.recipe), attempt),
        runtime=lambda wc: resources.capped(grid, resources.joint_minutes(grid, wc.games, wc.recipe)),
    params:
        games=lambda wc: grid.games_in(wc.games),
        network=lambda wc: grid.network(wc.network),
        settings=lambda wc: grid.joint_dqn(wc.games, wc.recipe),
        evaluation=lambda wc: grid.progress_evaluation(grid.recipe(wc.recipe)["evaluation_episodes"]),
        protocol=config["protocol"],
    script:
        "../scripts/train_teacher.py"
