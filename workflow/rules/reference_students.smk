# The students in resources/students: snakemake --profile profiles/reference_students reference_students, then copy the folder.
# The games and networks are those of the experiment `compression`; KL and seed 0, whatever else it has.
COMPRESSION = config["experiments"].get("compression", {"games": [], "networks": []})
STUDENTS = [(game, network) for game in COMPRESSION["games"] for network in COMPRESSION["networks"]]


rule reference_student:
    input:
        agent="<results>/students/{game}/kl/{network}/seed0/agent.safetensors",
        progress=["<results>/students/{game}/kl/{network}/seed0/progress.csv"],
    output:
        agent="<results>/reference_students/{game}/{network}/agent.safetensors",
        progress="<results>/reference_students/{game}/{network}/progress.csv",
    log:
        "<logs>/reference_student/{game}/{network}.log",
    localrule: True
    script:
        "../scripts/reference_teacher.py"


rule reference_students:
    input:
        agents=[f"<results>/reference_students/{game}/{network}/agent.safetensors" for game, network in STUDENTS],
        scores=[f"<results>/reference_students/{game}/{network}/scores/{game}.csv" for game, network in STUDENTS],
        teachers=[ours(f"resources/teachers/{game}/scores.csv") for game in COMPRESSION["games"]],
    output:
        scores=[f"<results>/reference_students/{game}/{network}/scores.csv" for game, network in STUDENTS],
        beside=[f"<results>/reference_students/{game}/{network}/scores.csv.json" for game, network in STUDENTS],
        sums="<results>/reference_students/SHA256SUMS",
        readme="<results>/reference_students/README.md",
    log:
        "<logs>/reference_students.log",
    localrule: True
    script:
        "../scripts/reference_students.py"
