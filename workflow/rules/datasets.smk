# What a frozen teacher saw, thought and did. Parts are independent: dump them in parallel, on any node.


rule dump_dataset:
    input:
        teacher=lambda wc: grid.teacher_agent(wc.game),
    output:
        "<results>/datasets/{game}/part{part}.h5",
    log:
        "<logs>/dump_dataset/{game}/part{part}.log",
    benchmark:
        "<benchmarks>/dump_dataset/{game}/part{part}.tsv"
    threads: config["machine"]["threads"]
    resources:
        mem_mb=lambda wc, attempt: resources.grown(resources.PLAYING_MB, attempt),
        runtime=lambda wc, attempt: resources.capped(grid, 120 * attempt),
    params:
        settings={key: value for key, value in config["dataset"].items() if key not in ("parts", "seed")},
        seed=config["dataset"]["seed"],
        protocol=config["protocol"],
    script:
        "../scripts/dump_dataset.py"


# The same by the best snapshot so far of a teacher that is learning: part k after k + 1 of its equal stretches of training.
use rule dump_dataset as dump_online_dataset with:
    input:
        teacher=lambda wc: f"{grid.teacher_folder(wc.game)}/snapshots",
    output:
        "<results>/datasets/{game}/online/part{part}.h5",
    log:
        "<logs>/dump_dataset/{game}/online/part{part}.log",
    benchmark:
        "<benchmarks>/dump_dataset/{game}/online/part{part}.tsv"


# Students read the parts that lie beside this list, but wait for it alone: with fifty edges for each of thousands of
# students, planning would take longer than all else. It holds the parts' digests, since Snakemake takes no notice of a
# newer file whose content is the old.
rule list_parts:
    input:
        lambda wc: grid.dataset_parts(wc.game),
    output:
        "<results>/datasets/{game}/parts.txt",
    log:
        "<logs>/list_parts/{game}.log",
    localrule: True
    script:
        "../scripts/list_parts.py"


use rule list_parts as list_online_parts with:
    input:
        lambda wc: grid.dataset_parts(wc.game, "online"),
    output:
        "<results>/datasets/{game}/online/parts.txt",
    log:
        "<logs>/list_parts/{game}/online.log",


localrules:
    list_online_parts,  # not inherited
