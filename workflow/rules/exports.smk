# Agents in ONNX, in float32 and in eight bits, scored and timed: snakemake results/exports_compression.md
# No part of `all`.


rule export_onnx:
    input:
        agent="<results>/{agent}/agent.safetensors",
        part=lambda wc: grid.dataset_parts(wc.game)[0],
    output:
        whole="<results>/{agent}/onnx/{game}.float32.onnx",
        int8="<results>/{agent}/onnx/{game}.int8.onnx",
    log:
        "<logs>/export_onnx/{agent}/{game}.log",
    benchmark:
        "<benchmarks>/export_onnx/{agent}/{game}.tsv"
    wildcard_constraints:
        agent="(teachers|students)/.+",
    resources:
        mem_mb=lambda wc, attempt: resources.grown(resources.BASE_MB, attempt),
        runtime=lambda wc, attempt: resources.capped(grid, 30 * attempt),
    params:
        seed=config["evaluation"]["seed"],
    script:
        "../scripts/export_onnx.py"


rule measure_exports:
    input:
        agent="<results>/{agent}/agent.safetensors",
        part=lambda wc: grid.dataset_parts(wc.game)[0],
        files=["<results>/{agent}/onnx/{game}.float32.onnx", "<results>/{agent}/onnx/{game}.int8.onnx"],
        teacher=who_starts,
    output:
        csv="<results>/{agent}/onnx/{game}.csv",
        sidecar="<results>/{agent}/onnx/{game}.csv.json",
    log:
        "<logs>/measure_exports/{agent}/{game}.log",
    benchmark:
        "<benchmarks>/measure_exports/{agent}/{game}.tsv"
    wildcard_constraints:
        agent="(teachers|students)/.+",
    threads: config["machine"]["threads"]
    resources:
        mem_mb=lambda wc, attempt: resources.grown(resources.BASE_MB, attempt),
        runtime=lambda wc, attempt: resources.capped(grid, 360 * attempt),
    params:
        evaluation=lambda wc: grid.evaluation(wc.game),
        seed=config["evaluation"]["seed"],
    script:
        "../scripts/measure_exports.py"


rule table_exports:
    input:
        lambda wc: [f"{cell.folder}/onnx/{game}.csv" for game, cell in scored(grid, experiment(wc))],
    output:
        csv="<results>/exports_{experiment}.csv",
        sidecar="<results>/exports_{experiment}.csv.json",
        md="<results>/exports_{experiment}.md",
    log:
        "<logs>/exports_{experiment}.log",
    localrule: True
    script:
        "../scripts/table_exports.py"
