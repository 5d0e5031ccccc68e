# A student per cell of the grid: {games}/{recipe}/{network}/seed{seed}. Killed, it goes on from {folder}/state.


rule distill_student:
    input:
        parts=lambda wc: [dataset_list(game, recipe(wc.recipe)["teacher"]) for game in games_in(wc.games)],
        teachers=lambda wc: (
            [teacher_agent(game) for game in games_in(wc.games)] if recipe(wc.recipe)["driver"] != "teacher" else []
        ),
    output:
        agent="<results>/students/{games}/{recipe}/{network}/seed{seed}/agent.safetensors",
        progress="<results>/students/{games}/{recipe}/{network}/seed{seed}/progress.csv",
    log:
        "<logs>/distill_student/{games}/{recipe}/{network}/seed{seed}.log",
    benchmark:
        "<benchmarks>/distill_student/{games}/{recipe}/{network}/seed{seed}.tsv"
    wildcard_constraints:
        recipe="|".join(name for name in config["recipes"] if name not in Q_LEARNING) or "none",
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
        recipe="|".join(Q_LEARNING) or "none",
    priority: 1  # the longest job of a laptop: start it first
    conda:
        ENVIRONMENT
    threads: config["machine"]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wc, attempt: joint_mb(wc.games) * attempt,
        runtime=lambda wc, attempt: joint_minutes(wc.games, wc.recipe) * attempt,
    params:
        games=lambda wc: games_in(wc.games),
        network=lambda wc: network(wc.network),
        settings=lambda wc: joint_settings(wc.games, wc.recipe),
        evaluation=lambda wc: progress_evaluation(recipe(wc.recipe)["evaluation_episodes"]),
        protocol=config["protocol"],
    script:
        "../scripts/train_joint_dqn.py"
