"""The commands: what their user can mend is told in a line, before any work is done."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from policy_distillation import atari
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import load_agent, save_agent
from policy_distillation.exporting import ExportError, deployment
from policy_distillation.exporting.libraries import export_cleanrl
from policy_distillation.header import CheckpointError
from policy_distillation.importing import agents as importing
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.recording import Dataset, dump_part

torch.set_num_threads(1)

TEACHER = ROOT / "resources/teachers/freeway/agent.safetensors"
PONG = ROOT / "resources/teachers/pong/agent.safetensors"
STUDENT = ROOT / "resources/students/pong/net3/agent.safetensors"
REFUSED = "Permission denied|Read-only file system|Operation not permitted"


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Type a command in an empty folder; what it says at its end, or None where all went well."""
    monkeypatch.chdir(tmp_path)

    def type_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["policy_distillation", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code
        return None

    return type_command


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A file of CleanRL's."""
    path = tmp_path_factory.mktemp("foreign") / "freeway.cleanrl_model"
    export_cleanrl(load_agent(TEACHER)[0], path)
    return path


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    folder = tmp_path_factory.mktemp("part")
    torch.manual_seed(0)
    agent = Agent(Network((4, 4, 4), 8), {"pong": (0, 1, 3, 4, 11, 12)})
    save_agent(folder / "agent.safetensors", agent, {"protocol": asdict(PROTOCOLS["paper2015"])})
    dump_part(
        folder / "agent.safetensors", "pong", "paper2015", 0, Dataset(1, 64, 2, 0.5), 0, folder / "part.h5", "cpu"
    )
    return folder / "part.h5"


def played(*arguments, **options):
    raise AssertionError("it played before it refused")


# Outputs


def unwritable(kind, suffix):
    """A path in the current folder, or in a file system that takes no files, and why nothing can be written there."""
    if kind == "folder":
        Path(f"out{suffix}").mkdir()
        return f"out{suffix}", "Is a directory"
    if kind == "file":
        Path("file").write_text("kept")
        return f"file/out{suffix}", "Not a directory"
    return f"/sys/out{suffix}", REFUSED


@pytest.mark.parametrize("kind", ["folder", "file", "sys"])
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_a_video_that_cannot_be_written_is_refused_before_anything_is_played(run, monkeypatch, kind, suffix):
    monkeypatch.setattr("policy_distillation.watch.play_in_colour", played)
    path, why = unwritable(kind, suffix)
    assert re.fullmatch(f"error: {path}: ({why})", run("record", STUDENT, "--seconds", 5, "--output", path))


@pytest.mark.parametrize("kind", ["folder", "file", "sys"])
@pytest.mark.parametrize("form", [["onnx"], ["onnx", "--int8"], ["cleanrl"]])
def test_an_export_that_cannot_be_written_is_refused(run, monkeypatch, kind, form):
    monkeypatch.setattr("policy_distillation.exporting.int8.record_play", played)
    path, why = unwritable(kind, ".x")
    assert re.fullmatch(f"error: {path}: ({why})", run("export", TEACHER, "--to", *form, "--output", path))
    assert sorted(entry.name for entry in Path().iterdir()) == {"folder": ["out.x"], "file": ["file"], "sys": []}[kind]


@pytest.mark.parametrize("kind", ["file", "file's path", "sys"])
@pytest.mark.parametrize("to", ["hub-folder", "minari"])
def test_a_folder_that_cannot_be_written_is_refused(run, part, kind, to):
    path, why = unwritable(kind.split("'")[0], "")
    path = "file" if kind == "file's path" else path
    said = run("export", part if to == "minari" else STUDENT, "--to", to, "--output", path)
    assert re.fullmatch(f"error: {path}: ({why}|exists; .*)", said)


@pytest.mark.parametrize("kind", ["folder", "file", "sys"])
def test_an_import_that_cannot_be_written_is_refused(run, foreign, kind):
    path, why = unwritable(kind, ".safetensors")
    assert re.fullmatch(f"error: {path}: ({why})", run("import", foreign, "--game", "freeway", "--output", path))


@pytest.mark.parametrize("kind", ["folder", "file", "sys"])
def test_measurements_that_cannot_be_written_are_refused(monkeypatch, tmp_path, part, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(deployment, "measure", played)
    path, why = unwritable(kind, ".csv")
    with pytest.raises(OSError, match=why) as refused:
        deployment.main(part, (part.with_name("agent.safetensors"),), output=Path(path))
    assert refused.value.filename == path


def test_an_output_may_not_be_the_input(run, foreign, tmp_path):
    """By another name neither: it would be gone."""
    mine, other = tmp_path / "mine.zip", tmp_path / "other.mp4"
    mine.write_bytes(TEACHER.read_bytes())
    other.symlink_to(mine)
    theirs = tmp_path / "theirs"
    theirs.write_bytes(foreign.read_bytes())
    for arguments in (
        ["export", mine, "--to", "onnx", "--output", mine],
        ["export", mine, "--to", "onnx", "--int8", "--output", "mine.zip"],
        ["export", mine, "--to", "onnx", "--output", other],
        ["export", mine, "--to", "cleanrl", "--output", other],
        ["record", mine, "--seconds", 1, "--output", other],
        ["import", theirs, "--game", "freeway", "--output", theirs],
    ):
        assert str(run(*arguments)).endswith(": this is an input; choose another --output"), arguments
    assert mine.read_bytes() == TEACHER.read_bytes()
    assert theirs.read_bytes() == foreign.read_bytes()
    assert other.is_symlink()


def test_an_ending_that_is_added_may_not_lead_to_the_input(run):
    pytest.importorskip("stable_baselines3", reason="needs envs/peers.txt")
    shutil.copy(TEACHER, "mine.zip")
    said = run("export", "mine.zip", "--to", "sb3", "--output", "mine")
    assert said == "error: mine.zip: this is an input; choose another --output"
    assert Path("mine.zip").read_bytes() == TEACHER.read_bytes()


def test_data_that_eight_bits_are_calibrated_on_is_no_output(run, part, tmp_path):
    dataset = tmp_path / "part.h5"
    dataset.write_bytes(part.read_bytes())
    agent = part.with_name("agent.safetensors")
    said = run("export", agent, "--to", "onnx", "--int8", "--dataset", dataset, "--output", dataset)
    assert said == f"error: {dataset}: this is an input; choose another --output"


# Packages that are missing


@pytest.mark.parametrize("command", ["inspect", "evaluate"])
def test_an_onnx_file_needs_onnxruntime(run, monkeypatch, command):
    Path("x.onnx").touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    said = "error: x.onnx: an agent in ONNX needs onnxruntime: pip install 'policy-distillation[onnx]'"
    assert run(command, "x.onnx") == said


@pytest.mark.parametrize(
    ("to", "missing", "extra"),
    [
        ("onnx", "onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("onnx", "onnxscript", "onnx"),
        ("hub-folder", "huggingface_hub", "hub"),
        ("sb3", "stable_baselines3", "sb3"),
        ("minari", "minari", "minari"),
        ("minari", "cv2", "minari"),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_written(run, monkeypatch, part, to, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "minari")
    said = run("export", part if to == "minari" else TEACHER, "--to", to)
    assert said == f"error: --to {to} needs {missing}: pip install 'policy-distillation[{extra}]'"
    assert not list(Path().iterdir())


def test_the_hub_needs_its_client(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = run("import", "sb3/dqn-PongNoFrameskip-v4", "--game", "pong", "--revision", "a" * 40, "--from", "sb3")
    assert said == (
        "error: sb3/dqn-PongNoFrameskip-v4: a file on the model hub needs huggingface_hub: "
        "pip install 'policy-distillation[hub]'"
    )


def test_measuring_needs_onnx(monkeypatch, part):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'policy-distillation\[onnx\]'"):
        deployment.main(part, (part.with_name("agent.safetensors"),))


# Numbers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--episodes", "0"], "episodes is 0; allowed: 1 or more"),
        (["--episodes", "-16"], "episodes is -16; allowed: 1 or more"),
        (["--episodes", "8"], "episodes (8) must be a multiple of envs (16)"),
        (["--envs", "0"], "envs is 0; allowed: 1 or more"),
        (["--threads", "0"], "threads is 0; allowed: 1 or more"),
        (["--epsilon", "7"], "epsilon is 7, no probability; allowed: 0 to 1"),
        (["--epsilon", "nan"], "epsilon is nan, no probability; allowed: 0 to 1"),
        (["--seed", "-1"], "seed is -1; allowed: 0 to 18446744073709551615"),
    ],
)
def test_numbers_that_evaluate_cannot_take_are_told_in_a_line(run, monkeypatch, arguments, message):
    monkeypatch.setattr("policy_distillation.__main__.play_episodes", played)
    assert run("evaluate", STUDENT, *arguments) == f"error: {message}"


def test_games_that_cannot_be_shared_out_are_refused_before_an_import(run, monkeypatch, foreign):
    said = run("import", foreign, "--game", "freeway", "--episodes", "17")
    assert said == "error: episodes (17) must be a multiple of envs (16)"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("protocol", [{}, {"protocol": None}, {"protocol": {"name": "atari5"}}])
@pytest.mark.parametrize("command", ["evaluate", "record"])
def test_an_agent_that_was_made_under_no_known_protocol_is_told_in_a_line(run, command, protocol):
    save_agent(Path("agent.safetensors"), load_agent(STUDENT)[0], protocol)
    name = (protocol.get("protocol") or {}).get("name")
    said = run(command, "agent.safetensors")
    assert said == f"error: agent.safetensors: its protocol is {name!r}; allowed: {', '.join(PROTOCOLS)}"
    assert [path.name for path in Path().iterdir()] == ["agent.safetensors"]


# Ctrl-C


@pytest.mark.slow
def test_ctrl_c_ends_an_evaluation_without_a_traceback(run, monkeypatch):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    step = atari.AtariVector.step

    def interrupted(env, actions):
        signal.raise_signal(signal.SIGINT)
        return step(env, actions)

    monkeypatch.setattr(atari.AtariVector, "step", interrupted)
    assert run("evaluate", STUDENT, "--episodes", 1, "--envs", 1) == 130


@pytest.mark.slow
def test_ctrl_c_ends_a_film_without_a_traceback_and_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "policy_distillation", "record", str(STUDENT), "--output", "game.mp4"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "workflow")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as recording:
        while recording.poll() is None and not list(tmp_path.iterdir()):
            time.sleep(0.05)
        recording.send_signal(signal.SIGINT)
        assert recording.communicate(timeout=300)[0] == ""
    assert recording.returncode == 130
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_libraries_are_loaded_ends_without_a_traceback(tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    ended = subprocess.run(
        [sys.executable, "-m", "policy_distillation", "inspect", str(STUDENT)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{tmp_path}:{ROOT / 'workflow'}"},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


# The other programs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("exporting.deployment", ["missing.h5", "x"], "missing.h5: no such file"),
        ("importing.flavours", ["missing.safetensors"], "missing.safetensors: no such file"),
    ],
)
def test_the_packages_other_programs_tell_it_in_a_line_too(tmp_path, module, arguments, message):
    command = [sys.executable, "-m", f"policy_distillation.{module}", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {message}\n")


# Files that are something else


@pytest.mark.parametrize("command", ["inspect", "evaluate", "watch", "record", "export"])
def test_a_folder_is_called_a_folder(run, command):
    options = ["--to", "onnx"] if command == "export" else []
    folder = STUDENT.parent
    assert run(command, folder, *options) == f"error: {folder}: a folder; name the agent.safetensors in it"
    with pytest.raises(CheckpointError, match="a folder; name the"):
        load_agent(folder)


@pytest.mark.parametrize("name", ["x.csv", "progress.csv", "x.onnx"])
def test_a_folder_that_is_named_like_a_file_is_called_a_folder(run, name):
    Path(name).mkdir()
    assert run("inspect", name) == f"error: {name}: a folder, not a file"
    Path(name).rmdir()
    assert str(run("inspect", name)).startswith(f"error: {name}: no such file")


@pytest.mark.parametrize("command", ["watch", "record", "export"])
def test_an_onnx_file_is_for_evaluate_and_inspect(run, command):
    Path("x.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" * 10)
    options = ["--to", "onnx"] if command == "export" else []
    assert run(command, "x.onnx", *options) == (
        "error: x.onnx: an ONNX file, which only `evaluate` and `inspect` read; "
        "name the .safetensors that it was made of"
    )


def test_an_agent_of_this_project_need_not_be_imported(run, tmp_path):
    said = "already an agent of this project; it can be used as it is"
    assert run("import", STUDENT, "--game", "pong") == f"error: {STUDENT}: {said}"
    assert not list(tmp_path.iterdir())
    shutil.copy(STUDENT, "agent.safetensors")  # where an import would go
    assert run("import", "agent.safetensors", "--game", "pong") == f"error: agent.safetensors: {said}"
    with pytest.raises(importing.AgentImportError, match="already an agent of this project"):
        importing.import_agent({"path": str(STUDENT), "from": "cleanrl"}, "pong")


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "cleanrl", "--int8"], "--int8 means nothing to --to cleanrl; allowed: --output, --game"),
        (["--to", "cleanrl", "--name", "x"], "--name means nothing to --to cleanrl; allowed: --output, --game"),
        (["--to", "sb3", "--episodes", "3"], "--episodes means nothing to --to sb3; allowed: --output, --game"),
        (
            ["--to", "onnx", "--replay", "x.mp4"],
            "--replay means nothing to --to onnx; allowed: --output, --game, --int8, --dataset, --teachers",
        ),
        (
            ["--to", "hub-folder", "--game", "pong"],
            "--game means nothing to --to hub-folder; allowed: --output, --scores, --replay, --teachers, --episodes, "
            "--name",
        ),
        (["--to", "minari", "--game", "pong"], "--game means nothing to --to minari; allowed: --output, --name"),
        (["--to", "onnx", "--teachers", "x"], "--teachers, whose play it is calibrated on, belongs to --int8"),
        (
            ["--to", "onnx", "--int8", "--teachers", "x", "--dataset", "y"],
            "--teachers means nothing beside --dataset, which was played already",
        ),
        (
            ["--to", "hub-folder", "--episodes", "16", "--scores", "x"],
            "--scores means nothing beside --episodes, which plays for new ones",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, arguments, message):
    assert run("export", TEACHER, *arguments) == f"error: {message}"
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--revision", "main"], "--revision main; allowed: a full commit, 40 hex digits"),
        (["--revision", "0" * 40], "a/b is on the hub, so the key 'file' (--hub-file) must name the file in it"),
        (["--hub-file", "x"], "--hub-file belongs to --revision"),
        (["--from", "sb3", "--mapping", "m.yaml"], "--from sb3 means nothing beside --mapping"),
        (["--actions"], "--actions needs the ALE ids of the outputs"),
    ],
)
def test_an_import_names_the_option_that_is_wrong(run, arguments, message):
    assert message in run("import", "a/b", "--game", "pong", *arguments)


@pytest.mark.parametrize("option", [["--name", "nonsense"], ["--replay", "no.mp4"], ["--teachers", "no.safetensors"]])
def test_the_hubs_folder_is_refused_before_games_are_played(run, monkeypatch, option):
    monkeypatch.setattr("policy_distillation.exporting.hub.play_episodes", played)
    assert run("export", STUDENT, "--to", "hub-folder", "--episodes", "16", *option).startswith("error: ")


def test_a_table_of_somebody_elses_is_refused_before_anything_is_measured(monkeypatch, part, tmp_path):
    monkeypatch.setattr(deployment, "play_episodes", played)
    (tmp_path / "mine.csv").write_text("model,score\nx,1\n")
    with pytest.raises(ExportError, match=r"mine\.csv: not a table that this command wrote"):
        deployment.main(part, (part.with_name("agent.safetensors"),), output=tmp_path / "mine.csv")


def test_a_zip_is_called_as_it_was_asked_for(run):
    """What follows a dot need not be an ending."""
    assert run("export", TEACHER, "--to", "sb3", "--output", "freeway-v1.2") is None
    assert [path.name for path in Path().iterdir()] == ["freeway-v1.2.zip"]


@pytest.mark.parametrize("game", ["nosuch", "combat"])
def test_an_agent_of_what_is_no_game_is_told_in_a_line(run, game):
    """ale-py would end the process for one of them."""
    facts = {"protocol": asdict(PROTOCOLS["paper2015"])}
    save_agent(Path("agent.safetensors"), Agent(Network((4, 4, 4), 8), {game: (0, 1)}), facts)
    for command in ("evaluate", "record"):
        assert run(command, "agent.safetensors") == f"error: {game}: no game of ale-py's that one player plays"


@pytest.mark.parametrize("facts", [{"settings": None}, {"teachers": ["x"]}])
def test_an_agent_that_describes_itself_oddly_is_refused(run, facts):
    facts = {"kind": "student", "protocol": asdict(PROTOCOLS["paper2015"]), **facts}
    save_agent(Path("agent.safetensors"), Agent(Network((4, 4, 4), 8), {"pong": (0, 1)}), facts)
    assert "damaged (TypeError" in run("evaluate", "agent.safetensors")


def test_the_median_of_an_even_number_of_games_lies_between_two(run, monkeypatch, capsys):
    returns = [atari.Episode(slot, 0, 0, value, 1, False) for slot, value in enumerate((20.0, 16.0))]
    monkeypatch.setattr("policy_distillation.__main__.play_episodes", lambda *_: returns)
    assert run("evaluate", STUDENT, "--episodes", "2", "--envs", "2") is None
    assert "(lowest 16, median 18, highest 20)" in capsys.readouterr().out


# Commands that are printed


def test_printed_commands_can_be_typed_as_they_are(run, capsys, tmp_path):
    """With a blank in a folder's name."""
    folder = tmp_path / "my $HOME; 'agents'"
    assert run("export", STUDENT, "--to", "hub-folder", "--name", "me/it", "--output", folder) is None
    command = capsys.readouterr().out.split("to publish it: ")[1]
    assert shlex.split(command) == ["hf", "upload", "me/it", str(folder)]
    path = folder / "dqn.cleanrl_model"
    logits = ROOT / "resources/students/pong/dqn/agent.safetensors"
    assert run("export", logits, "--to", "cleanrl", "--output", path) is None
    command = capsys.readouterr().out.splitlines()[0].split("back here say so: ")[1]
    told = ["--outputs", "logits", "--protocol", "paper2015"]
    assert shlex.split(command) == ["import", str(path), "--game", "pong", *told]
    assert run(*shlex.split(command)) is None
