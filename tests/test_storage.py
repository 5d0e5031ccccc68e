"""Nodes that share no disk: what jobs read and write travels through an object store, here an S3 server on loopback.

Needs envs/peers.txt, which `make test` installs; without it the test is skipped.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pretended_nodes
import pytest
import yaml
from conftest import Checkout
from policy_distillation.sidecar import read_sidecar

pytestmark = pytest.mark.workflow
RESULTS = "results/smoke"
TABLE = f"{RESULTS}/table_online.csv"
PAGE = {
    **dict.fromkeys(
        ["single_task", "compression", "multi_task_3", "multi_task_10", "temperature", "data_size", "driver"]
    ),
    "extra": {
        "title": "Extra",
        "games": ["breakout"],
        "recipes": ["joint_dqn", "kl_mix"],
        "networks": ["dqn"],
        "seeds": [0],
    },
}
KEYS = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "nobody", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "nothing"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    pytest.importorskip("snakemake_storage_plugin_s3")
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing", "region_name": "us-east-1"}
    return boto3.resource("s3", endpoint_url=endpoint, **keys).Bucket("results")


def start_without_a_shared_disk(copy: Checkout, nodes: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -I {Path(pretended_nodes.__file__)}"
    return copy.snakemake(
        *("--executor", "cluster-generic", "--jobs", "2", "--retries", "0"),
        *("--cluster-generic-submit-cmd", f"{program} submit", "--cluster-generic-status-cmd", f"{program} status"),
        *("--default-storage-provider", "s3", "--default-storage-prefix", "s3://results/paper"),
        *("--shared-fs-usage", "none", "--job-deploy-sources", "--seconds-between-status-checks", "1"),
        *arguments,
    )


def test_tables_without_a_shared_disk_are_those_of_a_shared_one(
    endpoint: str, bucket: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A trained teacher, its snapshots' play and its own, students of both, scores, table, figures: eleven jobs.

    Then four more: a student that drives and a joint DQN, with their scores, and the page of both experiments.
    """
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    settings = {pretended_nodes.NODES: str(nodes), pretended_nodes.HIDDEN: str(tmp_path / "checkout")}
    copy = Checkout(tmp_path / "checkout", SNAKEMAKE_STORAGE_S3_ENDPOINT_URL=endpoint, **KEYS, **settings)
    # What git does not know: the user's own changes, and a teacher of another game, which jobs do not read.
    (copy.folder / "config.local.yaml").write_text((copy.folder / "tests/smoke.yaml").read_text())
    (copy.folder / "mine").mkdir()
    teacher = copy.folder / "resources/teachers/freeway/agent.safetensors"
    teacher.rename(copy.folder / "mine/agent.safetensors")
    change = {
        "teacher": {"games": {"freeway": {"source": "mine/agent.safetensors"}}},
        "experiments": {
            "mine": {"title": "Mine", "games": ["freeway"], "recipes": ["kl"], "networks": ["dqn"], "seeds": [0]}
        },
    }
    (copy.folder / "mine.yaml").write_text(yaml.safe_dump(change))
    subprocess.run(["git", "init", "--quiet"], cwd=copy.folder, check=True)
    tracked = ["Snakefile", "config.yaml", "workflow", "profiles", "envs", "resources/paper_results.csv"]
    subprocess.run(["git", "add", *tracked], cwd=copy.folder, check=True)

    (copy.folder / "page.yaml").write_text(yaml.safe_dump({"experiments": PAGE}))

    targets = [TABLE, f"{RESULTS}/figures/online/scores.png", f"{RESULTS}/figures/online/curves.png"]
    for config, wanted, jobs in (("mine.yaml", targets, 11), ("page.yaml", [f"{RESULTS}/index.html"], 15)):
        try:
            done = start_without_a_shared_disk(copy, nodes, "--configfile", config, "--", *wanted)
        finally:
            pretended_nodes.end_all(nodes)
        assert done.returncode == 0, done.stdout[-3000:] + pretended_nodes.outputs(nodes)
        assert len(list(nodes.iterdir())) == jobs
    assert not list((copy.folder / RESULTS).rglob("*.csv"))  # nothing but the lock is where Snakemake runs

    results = tmp_path / "fetched"
    for item in bucket.objects.filter(Prefix=f"paper/{RESULTS}/"):
        path = results / item.key.removeprefix(f"paper/{RESULTS}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        bucket.download_file(item.key, str(path))
    # Only now: another process is making it meanwhile.
    local = request.getfixturevalue("finished").folder / RESULTS
    for table in ("table_online.csv", "scores_online.csv", "aggregates_online.csv"):
        assert (results / table).read_text() == (local / table).read_text()
        assert read_sidecar(results / table)["kind"] == "table"
    scores = [path.relative_to(results) for path in results.rglob("scores/*.csv")]
    assert len(scores) == 6
    for path in scores:
        assert read_sidecar(results / path)["kind"] == "scores"
        if "joint_dqn" not in path.parts:  # of one game, which no experiment of the local run has
            assert (results / path).read_bytes() == (local / path).read_bytes()
    assert len(list(results.glob("datasets/breakout/**/part*.h5"))) == 4
    for figure in ("online/scores", "online/curves"):
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
    page = (results / "index.html").read_text()
    assert re.findall(r'<section id="([^"]*)"', page) == ["experiment-online", "experiment-extra", "teachers", "made"]

    again = start_without_a_shared_disk(copy, nodes, "-n", "--configfile", "mine.yaml", "--", *targets)
    assert "Nothing to be done" in again.stdout, again.stdout[-3000:]
