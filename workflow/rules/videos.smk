# A teacher and its students at play side by side, from the same seed: snakemake results/videos/single_task/pong.mp4
# No part of `all`; the page shows those that there are.


rule video:
    input:
        teacher=lambda wc: grid.teacher_agent(wc.game),
        students=lambda wc: [cell.agent for cell in filmed(grid, experiment(wc), wc.game)],
    output:
        video="<results>/videos/{experiment}/{game}.mp4",
        sidecar="<results>/videos/{experiment}/{game}.mp4.json",
    log:
        "<logs>/video/{experiment}/{game}.log",
    resources:
        mem_mb=lambda wc, attempt: resources.grown(resources.BASE_MB, attempt),
        runtime=lambda wc, attempt: resources.capped(grid, 60 * attempt),
    params:
        titles=lambda wc: [
            "Teacher",
            *(variant(grid, experiment(wc), cell) for cell in filmed(grid, experiment(wc), wc.game)),
        ],
        epsilon=config["evaluation"]["epsilon"],
        seed=config["evaluation"]["seed"],
        protocol=config["protocol"],
        seconds=60,
    script:
        "../scripts/video.py"


rule videos:
    input:
        [
            f"<results>/videos/{name}/{game}.mp4"
            for name, entry in config["experiments"].items()
            for game in grid.games_of(entry)
        ],
