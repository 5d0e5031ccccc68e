# A DQN per game, frozen when done. Killed, it goes on from {folder}/state.


rule train_teacher:
    output:
        agent="<teacher>/agent.safetensors",
        progress="<teacher>/progress.csv",
    log:
        "<logs>/train_teacher/{game}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_teacher/{game}/seed{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: config["machine"]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wc, attempt: teacher_mb() * attempt,
        runtime=lambda wc, attempt: teacher_minutes() * attempt,
    params:
        network=network(config["teacher"]["network"]),
        settings=config["teacher"]["dqn"],
        evaluation=progress_evaluation(),
        protocol=config["protocol"],
    script:
        "../scripts/train_teacher.py"
