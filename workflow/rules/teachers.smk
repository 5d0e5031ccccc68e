# A teacher per game, frozen when done: trained here, or taken from a file. Killed in training, it goes on from {folder}/state.


rule train_teacher:
    input:
        initial=lambda wc: teacher(wc.game)["initial_agent"] or [],
    output:
        agent="<results>/teachers/{game}/seed{seed}/agent.safetensors",
        progress="<results>/teachers/{game}/seed{seed}/progress.csv",
        snapshots=directory("<results>/teachers/{game}/seed{seed}/snapshots"),
    log:
        "<logs>/train_teacher/{game}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_teacher/{game}/seed{seed}.tsv"
    wildcard_constraints:
        game="|".join(game for game in known_games() if game not in GIVEN_GAMES + IMPORTED_GAMES) or "none",
    conda:
        ENVIRONMENT
    threads: config["machine"]["threads"]
    resources:
        gpu=1,
        mem_mb=lambda wc, attempt: teacher_mb(teacher(wc.game)) * attempt,
        runtime=lambda wc, attempt: teacher_minutes(teacher(wc.game)) * attempt,
    params:
        algorithm=lambda wc: teacher(wc.game)["algorithm"],
        settings=lambda wc: algorithm_settings(teacher(wc.game)),
        network=lambda wc: network(teacher(wc.game)["network"]),
        evaluation=lambda wc: progress_evaluation(teacher(wc.game)["evaluation_episodes"]),
        snapshots=config["teacher"]["snapshots"],
        protocol=config["protocol"],
    script:
        "../scripts/train_teacher.py"


rule given_teacher:
    input:
        lambda wc: str(source_path(wc.game, teacher(wc.game)["source"])),
    output:
        "<results>/teachers/{game}/seed{seed}/agent.safetensors",
    log:
        "<logs>/given_teacher/{game}/seed{seed}.log",
    wildcard_constraints:
        game="|".join(GIVEN_GAMES) or "none",
    localrule: True
    conda:
        ENVIRONMENT
    script:
        "../scripts/given_teacher.py"


# Runs where Snakemake does: an agent on the hub is downloaded, and compute nodes may have no network.
rule import_teacher:
    input:
        lambda wc: imported_files(teacher(wc.game)["source"]),
    output:
        "<results>/teachers/{game}/seed{seed}/agent.safetensors",
    log:
        "<logs>/import_teacher/{game}/seed{seed}.log",
    wildcard_constraints:
        game="|".join(IMPORTED_GAMES) or "none",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        source=lambda wc: teacher(wc.game)["source"],
        protocol=config["protocol"],
    script:
        "../scripts/import_teacher.py"


# The teachers in resources/teachers: snakemake --profile profiles/reference reference_teachers, then copy the folder.


rule reference_teacher:
    input:
        agent=lambda wc: teacher_agent(wc.game),
        progress=lambda wc: teacher_curve(wc.game),
    output:
        agent="<results>/reference_teachers/{game}/agent.safetensors",
        progress="<results>/reference_teachers/{game}/progress.csv",
    log:
        "<logs>/reference_teacher/{game}.log",
    localrule: True
    conda:
        ENVIRONMENT
    script:
        "../scripts/reference_teacher.py"


rule reference_teachers:
    input:
        agents=[f"<results>/reference_teachers/{game}/agent.safetensors" for game in USED_GAMES],
        scores=[f"<results>/reference_teachers/{game}/scores/{game}.csv" for game in USED_GAMES],
    output:
        sums="<results>/reference_teachers/SHA256SUMS",
        readme="<results>/reference_teachers/README.md",
    log:
        "<logs>/reference_teachers.log",
    localrule: True
    conda:
        ENVIRONMENT
    script:
        "../scripts/reference_teachers.py"
