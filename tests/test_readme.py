"""What the README tells a newcomer to type works as it stands there, right after cloning."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from browser import running_browser
from conftest import ROOT, need_program

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [text for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S) if not language]
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("python -m policy_distillation")]
DEMO = ROOT / "docs/demo.html"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what git brings, as far as these commands read it, for what they write."""
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    return tmp_path


def typed(command: str, folder: Path) -> str:
    """Type a command in an activated environment of a machine without a display."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "PYTHONPATH")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_whatever_a_command_names_is_there() -> None:
    """But for one's own model.zip, and the videos that are written."""
    named = {word for command in COMMANDS for word in shlex.split(command, comments=True) if "/" in word}
    assert len(named) > 1
    assert {command.split()[3] for command in COMMANDS} >= {"watch", "record", "evaluate", "inspect", "export"}
    assert all((ROOT / name).is_file() for name in named), named


def test_the_environment_is_activated_before_the_first_command() -> None:
    first = next(block for block in BLOCKS if "python -m policy_distillation" in block)
    assert first.startswith("make env && source .venv/bin/activate")
    assert README.index(first) < README.index("## ")


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted({c for c in COMMANDS if c.split()[3] not in ("import", "evaluate")}))
def test_a_command_does_what_it_says(clone: Path, command: str) -> None:
    short = " --seconds 5" if command.split()[3] == "record" else ""
    said = typed(command.split("  #")[0] + short, clone)
    written = [path.name for path in clone.iterdir() if path.name != "resources"]
    match command.split()[3]:
        case "watch":
            assert "writing a video instead\npong.mp4: pong, score " in said
            assert written == ["pong.mp4"]
        case "export":
            assert re.search(r"one core: \d+\.\d\d ms for an observation", said)
            assert written == ["pong.onnx"]
        case "record":
            assert written == [command.split("--output ")[1].split()[0]]
        case "inspect":
            assert '"kind": "student"' in said


@pytest.mark.slow
def test_a_folder_for_the_hub_is_made_as_the_docs_type_it(clone: Path) -> None:
    using = (ROOT / "docs/using.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\n([^`]*--to hub-folder.*?)^```$", using, re.M | re.S)
    record, export, upload = block.replace("\\\n", " ").splitlines()
    typed(f"{record} --seconds 5", clone)
    assert upload in typed(export, clone)
    made = {"README.md", "config.json", "model.safetensors", "replay.mp4", "results.json"}
    assert {path.name for path in (clone / upload.split()[-1]).iterdir()} == made


def test_a_browser_shows_the_demos_page() -> None:
    assert "(docs/demo.html)" in README
    assert any("python -m webbrowser docs/demo.html" in block for block in BLOCKS)
    assert DEMO.stat().st_size < 3e6
    need_program("chromium", "chromium")
    with running_browser() as browser:
        for width in (1200, 390):
            browser.open(DEMO, width)
            pictures = "[...document.images].map(image => image.complete && image.naturalWidth > 0)"
            seen = browser.evaluate(pictures)
            assert browser.complaints == []
            assert seen
            assert all(seen)
