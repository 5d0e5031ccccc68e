# A teacher per game, frozen when done: trained here, or taken from a file. Killed in training, it goes on from {folder}/state.


rule train_teacher:
    input:
        initial=lambda wc: [
            made_of(path, wc, "initial_agent") for path in [grid.teacher(wc.game)["initial_agent"]] if path
        ],
    output:
        agent="<results>/teachers/{game}/seed{seed}/agent.safetensors",
        progress="<results>/teachers/{game}/seed{seed}/progress.csv",
        snapshots=directory("<results>/teachers/{game}/seed{seed}/snapshots"),
    log:
        "<logs>/train_teacher/{game}/seed{seed}.log",
    benchmark:
        "<benchmarks>/train_teacher/{game}/seed{seed}.tsv"
    wildcard_constraints:
        game=one_of(grid.trained(known_games())),
    threads: config["machine"]["threads"]
    resources:
        gpu=GPU,
        mem_mb=lambda wc, attempt: resources.grown(resources.teacher_mb(grid.teacher(wc.game)), attempt),
        runtime=lambda wc: resources.capped(grid, resources.teacher_minutes(grid.teacher(wc.game))),
    params:
        algorithm=lambda wc: grid.teacher(wc.game)["algorithm"],
        settings=lambda wc: algorithm_settings(grid.teacher(wc.game)),
        network=lambda wc: grid.network(grid.teacher(wc.game)["network"]),
        evaluation=lambda wc: grid.progress_evaluation(grid.teacher(wc.game)["evaluation_episodes"]),
        snapshots=config["teacher"]["snapshots"],
        protocol=config["protocol"],
    script:
        "../scripts/train_teacher.py"


rule given_teacher:
    input:
        lambda wc: made_of(str(source_path(wc.game, grid.teacher(wc.game)["source"])), wc, "copied"),
    output:
        "<results>/teachers/{game}/seed{seed}/agent.safetensors",
    log:
        "<logs>/given_teacher/{game}/seed{seed}.log",
    wildcard_constraints:
        game=one_of(grid.given(known_games())),
    localrule: True
    script:
        "../scripts/given_teacher.py"


# Runs where Snakemake does: an agent on the hub is downloaded, and compute nodes may have no network.
rule import_teacher:
    input:
        lambda wc: [made_of(path, wc, "imported") for path in imported_files(grid.teacher(wc.game)["source"])],
    output:
        "<results>/teachers/{game}/seed{seed}/agent.safetensors",
    log:
        "<logs>/import_teacher/{game}/seed{seed}.log",
    wildcard_constraints:
        game=one_of(grid.imported(known_games())),
    localrule: True
    params:
        source=lambda wc: grid.teacher(wc.game)["source"],
        protocol=config["protocol"],
    script:
        "../scripts/import_teacher.py"


# What another library kept while it trained: teachers that learn, for the recipes with `teacher: online`. Its inputs go by
# their dates: that the teacher was made of the same says nothing of the snapshots.
use rule import_teacher as import_snapshots with:
    input:
        lambda wc: [here(path) for path in imported_files(grid.teacher(wc.game)["source"])],
    output:
        directory("<results>/teachers/{game}/seed{seed}/snapshots"),
    log:
        "<logs>/import_snapshots/{game}/seed{seed}.log",
    params:
        snapshots=config["teacher"]["snapshots"],


localrules:
    import_snapshots,  # not inherited


# The teachers in resources/teachers: snakemake --profile profiles/reference reference_teachers, then copy the folder.


rule reference_teacher:
    input:
        agent=lambda wc: grid.teacher_agent(wc.game),
        progress=lambda wc: grid.teacher_curve(wc.game),
    output:
        agent="<results>/reference_teachers/{game}/agent.safetensors",
        progress="<results>/reference_teachers/{game}/progress.csv",
    log:
        "<logs>/reference_teacher/{game}.log",
    localrule: True
    script:
        "../scripts/reference_teacher.py"


rule reference_teachers:
    input:
        agents=[f"<results>/reference_teachers/{game}/agent.safetensors" for game in grid.games],
        curves=[f"<results>/reference_teachers/{game}/progress.csv" for game in grid.games],
        scores=[f"<results>/reference_teachers/{game}/scores/{game}.csv" for game in grid.games],
    output:
        scores=[f"<results>/reference_teachers/{game}/scores.csv" for game in grid.games],
        beside=[f"<results>/reference_teachers/{game}/scores.csv.json" for game in grid.games],
        sums="<results>/reference_teachers/SHA256SUMS",
        readme="<results>/reference_teachers/README.md",
    log:
        "<logs>/reference_teachers.log",
    localrule: True
    script:
        "../scripts/reference_teachers.py"
