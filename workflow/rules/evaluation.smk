# Any agent on any of its games: one row an episode.


rule evaluate_agent:
    input:
        agent="<results>/{agent}/agent.safetensors",
        teacher=who_starts,
    output:
        csv="<results>/{agent}/scores/{game}.csv",
        json="<results>/{agent}/scores/{game}.csv.json",
    log:
        "<logs>/evaluate_agent/{agent}/{game}.log",
    benchmark:
        "<benchmarks>/evaluate_agent/{agent}/{game}.tsv"
    wildcard_constraints:
        agent="(teachers|students|reference_teachers|reference_students)/.+",
    threads: config["machine"]["threads"]
    resources:
        mem_mb=lambda wc, attempt: resources.grown(resources.PLAYING_MB, attempt),
        runtime=lambda wc, attempt: resources.capped(grid, 120 * attempt),
    params:
        evaluation=lambda wc: grid.evaluation(wc.game),
        seed=config["evaluation"]["seed"],
        protocol=config["protocol"],
    script:
        "../scripts/evaluate_agent.py"


# What random play earns, under the same protocol, starts and seeds: zero on the tables' normalised scale.
use rule evaluate_agent as evaluate_random with:
    input:
        agent=[],
        teacher=who_starts,
    output:
        csv="<results>/random/{game}/scores/{game}.csv",
        json="<results>/random/{game}/scores/{game}.csv.json",
    log:
        "<logs>/evaluate_random/{game}.log",
    benchmark:
        "<benchmarks>/evaluate_random/{game}.tsv"
