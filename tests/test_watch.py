"""Watching: the game in the film is the game that evaluation plays, and the film is what a player sees."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, need_program
from PIL import Image, ImageGrab
from policy_distillation import drawing
from policy_distillation.__main__ import main
from policy_distillation.checkpoints import save_agent
from policy_distillation.drawing import BAR, CHOSEN, HEADER, Player, pictures, side_by_side
from policy_distillation.evaluate import Evaluation, play_episodes
from policy_distillation.film import Moment, play_in_colour
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout
from policy_distillation.training import stream
from policy_distillation.video import VideoError, find_encoder, write_video

torch.set_num_threads(1)

TINY = Network((4, 4, 4), 16)
ACTIONS = {"breakout": (0, 1, 3, 4), "freeway": (0, 2, 5), "pong": (0, 1, 3, 4, 11, 12), "qbert": (0, 1, 2, 3, 4, 5)}
PONG = str(ROOT / "resources/teachers/pong/agent.safetensors")
STUDENT = str(ROOT / "resources/students/pong/net3/agent.safetensors")


def agent_for(game: str, actions: tuple[int, ...] | None = None, readout: Readout | None = None) -> Agent:
    torch.manual_seed(3)
    return Agent(TINY, {game: actions or ACTIONS[game]}, {game: readout or Readout()})


@pytest.fixture
def short(monkeypatch):
    """Every protocol with games of at most 100 steps."""
    for name, protocol in PROTOCOLS.items():
        monkeypatch.setitem(PROTOCOLS, name, replace(protocol, max_episode_frames=400))


def grey(frames):
    """The emulator's own grey of its colours."""
    return np.round(frames.astype(np.float64) @ [0.2989, 0.5870, 0.1140]).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "protocol"),
    [
        ("breakout", "paper2015"),
        ("qbert", "paper2015"),
        ("freeway", "pfrl"),
        ("pong", "dopamine"),
        ("qbert", "dopamine"),
        ("breakout", "sb3"),
        ("pong", "cleanrl"),
        ("breakout", "machado2018"),
    ],
)
def test_the_film_is_the_game_that_evaluation_plays(short, game, protocol):
    actions = tuple(range(18)) if protocol == "machado2018" else None
    agent = agent_for(game, actions, Readout("logits", "sample") if protocol == "sb3" else None)
    moments = list(play_in_colour(agent, game, protocol, 0.7, seed=5))
    (episode,) = play_episodes(agent, game, protocol, Evaluation(1, 1, 0.7), stream(5, "evaluation"))
    assert (moments[-1].score, len(moments)) == (episode.episode_return, episode.length)
    for moment, following in itertools.pairwise(moments):
        assert moment.frames.shape == (4, 210, 160, 3)
        pooled = grey(moment.frames[-2:]).max(0)
        seen = cv2.resize(pooled, (84, 84), interpolation=cv2.INTER_AREA)
        assert np.array_equal(seen, following.observation[-1])


def test_a_lost_game_ends_the_film():
    moments = list(play_in_colour(agent_for("breakout"), "breakout", "paper2015", 1.0, 0))
    assert len(moments) < 1000  # five lives at random, not the protocol's 27,000 steps
    assert 1 <= len(moments[-1].frames) <= 4
    assert [moment.over for moment in moments] == [False] * (len(moments) - 1) + [True]


@pytest.mark.slow
def test_equal_seeds_give_equal_films(short):
    def digest(seed):
        moments = play_in_colour(agent_for("breakout"), "breakout", "paper2015", 0.5, seed)
        return hashlib.sha256(b"".join(moment.frames.tobytes() for moment in moments)).hexdigest()

    assert digest(1) == digest(1) != digest(2)


def test_other_games_and_other_actions_are_refused():
    with pytest.raises(ValueError, match="does not play pong; it plays breakout"):
        next(play_in_colour(agent_for("breakout"), "pong", "paper2015", 0.0, 0))
    with pytest.raises(ValueError, match="are not the protocol's"):
        next(play_in_colour(agent_for("breakout"), "breakout", "machado2018", 0.0, 0))


# Pictures


def moment(q=(0.0, 1.0, 0.5), action=1, score=3.0, over=False, frames=None):
    if frames is None:
        frames = np.zeros((4, 210, 160, 3), np.uint8)
        frames[:2, :, :80], frames[2:, :, 80:] = 50, 200
    return Moment(np.zeros((4, 84, 84), np.uint8), np.array(q, np.float32), action, frames, score, over)


PLAYER = Player("Teacher", "3 parameters", ("NOOP", "FIRE", "UP"), 1.0)


def test_pictures_are_the_brighter_of_two_frames():
    frames = np.zeros((4, 210, 160, 3), np.uint8)
    frames[0, 10, 10], frames[1, 20, 20], frames[3, 30, 30] = 90, 91, 92  # drawn in every other frame: flicker
    first, second = pictures(iter([moment(frames=frames)]), PLAYER, "nothing")
    assert first.size == (320, 420 + HEADER)
    games = [np.asarray(picture)[HEADER::2, ::2, 0] for picture in (first, second)]
    assert (games[0][10, 10], games[0][20, 20], games[0].astype(int).sum()) == (90, 91, 181)
    assert (games[1][30, 30], games[1].astype(int).sum()) == (92, 92)


def bar_lengths(picture, colour):
    """Of each row of the panel, the pixels in a colour."""
    panel = np.asarray(picture)[HEADER:, 320:]
    wanted = tuple(int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return [(panel[row * drawing.ROW + 16] == wanted).all(1).sum() for row in range(3)]


def test_bars_show_what_the_agent_thinks():
    thought = moment(q=(np.log(0.25), np.log(0.75), -30.0))
    probable = next(pictures(iter([thought]), PLAYER, "probabilities"))
    assert probable.size == (320 + drawing.BARS, 420 + HEADER)
    full = drawing.BARS - 2 * drawing.MARGIN
    assert bar_lengths(probable, CHOSEN)[1] == pytest.approx(0.75 * full, abs=2)
    assert bar_lengths(probable, BAR) == [pytest.approx(0.25 * full, abs=2), 0, pytest.approx(0, abs=2)]
    sharp = next(pictures(iter([thought]), replace(PLAYER, temperature=0.01), "probabilities"))
    assert bar_lengths(sharp, CHOSEN)[1] == pytest.approx(full, abs=2)
    values = next(pictures(iter([moment(q=(5.0, 6.0, 5.5))]), PLAYER, "values"))
    assert bar_lengths(values, CHOSEN)[1] == pytest.approx(full, abs=2)
    assert bar_lengths(values, BAR) == [pytest.approx(0, abs=2), 0, pytest.approx(full / 2, abs=2)]


def test_outputs_are_read_as_what_they_are():
    q_agent, logit_agent = agent_for("breakout"), agent_for("breakout", readout=Readout("logits"))
    teacher = drawing.player(q_agent, {"kind": "pqn", "settings": {}}, "breakout")
    kl = drawing.player(logit_agent, {"kind": "student", "settings": {"loss": "kl"}}, "breakout")
    mse = drawing.player(q_agent, {"kind": "student", "settings": {"loss": "mse"}}, "breakout")
    assert (teacher.temperature, kl.temperature, mse.temperature) == (0.01, 1.0, 0.01)
    assert (teacher.title, kl.title) == ("Teacher", "Student (KL)")
    joint = Agent(q_agent.network, {**q_agent.actions, "pong": range(6)})
    assert drawing.player(joint, {"kind": "dqn", "settings": {}}, "pong").title == "Joint DQN"
    assert teacher.actions == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert teacher.subtitle == f"{q_agent.parameter_count:,} parameters"


def test_who_has_finished_stands_still():
    def counting(count, colour):
        for number in range(count):
            yield Image.new("RGB", (10, 20), (colour, number, 0))

    wide = [np.asarray(picture) for picture in side_by_side([counting(2, 100), counting(3, 200)])]
    assert [picture.shape for picture in wide] == [(20, 20 + drawing.GAP, 3)] * 3
    assert [tuple(picture[0, 0]) for picture in wide] == [(100, 0, 0), (100, 1, 0), (100, 1, 0)]
    assert [tuple(picture[0, -1]) for picture in wide] == [(200, 0, 0), (200, 1, 0), (200, 2, 0)]
    (five,) = side_by_side([counting(1, number) for number in range(5)])
    assert five.size == (4 * (10 + drawing.GAP) - drawing.GAP, 2 * (20 + drawing.GAP) - drawing.GAP)
    assert five.getpixel((0, 20 + drawing.GAP)) == (4, 0, 0)


# Files


def plain(count=8, size=(322, 215)):
    for number in range(count):
        yield Image.new("RGB", size, (30 * number, 120, 10))


def decoded(path, width, height):
    command = [find_encoder(path), "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_an_mp4_holds_every_picture_and_equal_pictures_give_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write_video(plain(), tmp_path / f"{name}.mp4", 30)
    frames = decoded(tmp_path / "one.mp4", 322, 214)  # an odd height loses a row
    assert len(frames) == 8
    for number, frame in enumerate(frames):
        assert abs(frame.mean((0, 1)) - [30 * number, 120, 10]).max() < 6
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mp4", "two.mp4"]


def test_a_gif_plays_at_half_the_rate(tmp_path):
    write_video(plain(30), tmp_path / "game.gif", 30)
    with Image.open(tmp_path / "game.gif") as gif:
        assert (gif.size, gif.n_frames, gif.info["loop"]) == ((322, 215), 15, 0)
        assert sum(duration(gif, frame) for frame in range(15)) == pytest.approx(1000, abs=50)


def duration(gif, frame):
    gif.seek(frame)
    return gif.info["duration"]


def test_a_video_that_cannot_be_written_is_refused_in_a_line_and_leaves_nothing(tmp_path, monkeypatch):
    with pytest.raises(VideoError, match=r"game.avi: no such format; allowed endings: .mp4, .gif"):
        write_video(plain(), tmp_path / "game.avi", 30)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    with pytest.raises(VideoError, match=r"game.mp4: false failed"):
        write_video(plain(200), tmp_path / "game.mp4", 30)
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(VideoError, match=r"no video encoder .*; try: pip install imageio-ffmpeg"):
        write_video(plain(), tmp_path / "game.mp4", 30)
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_fails_leaves_no_video(tmp_path):
    def failing():
        yield from plain(3)
        raise FloatingPointError("lost")

    with pytest.raises(FloatingPointError):
        write_video(failing(), tmp_path / "game.mp4", 30)
    assert list(tmp_path.iterdir()) == []


# The commands


def run(monkeypatch, capsys, *arguments):
    """The command line's exit message, or what it printed."""
    monkeypatch.setattr(sys, "argv", ["policy_distillation", *arguments])
    try:
        main()
    except SystemExit as stop:
        return str(stop.code)
    return capsys.readouterr().out


@pytest.fixture
def agents(tmp_path):
    """A teacher of two games and students of one."""
    protocol = {"name": "paper2015"}
    torch.manual_seed(0)
    both = Agent(TINY, {game: ACTIONS[game] for game in ("breakout", "pong")})
    save_agent(tmp_path / "both.safetensors", both, {"kind": "dqn", "protocol": protocol})
    student = {"kind": "student", "protocol": protocol, "settings": {"loss": "kl"}}
    save_agent(tmp_path / "student.safetensors", agent_for("pong"), student)
    save_agent(tmp_path / "freeway.safetensors", agent_for("freeway"), student)
    return {name: str(tmp_path / f"{name}.safetensors") for name in ("both", "student", "freeway")}


def test_record_writes_agents_side_by_side(monkeypatch, capsys, tmp_path, agents):
    monkeypatch.chdir(tmp_path)
    said = run(
        monkeypatch, capsys, "record", agents["both"], agents["student"], "--seconds", "2", "--show", "probabilities"
    )
    assert said.startswith("pong.mp4: pong, score ")
    assert said.count("(stopped)") == 2
    frames = decoded(tmp_path / "pong.mp4", 2 * (320 + drawing.BARS) + drawing.GAP, 420 + HEADER)
    assert len(frames) == 2 * 30


def test_watch_without_a_display_writes_a_video(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    said = run(monkeypatch, capsys, "watch", STUDENT, "--seconds", "1")
    assert said.splitlines()[0].startswith("no window (")
    assert re.match(r"pong\.mp4: pong, score -?\d+ \(stopped\); ", said.splitlines()[1])
    assert len(decoded(tmp_path / "pong.mp4", 320, 420 + HEADER)) == 30


def test_watch_overwrites_no_video(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    for name in ("pong.mp4", "pong-2.mp4"):
        (tmp_path / name).write_text("mine")
    said = run(monkeypatch, capsys, "watch", STUDENT, "--seconds", "0.5")
    assert said.splitlines()[1].startswith("pong-3.mp4: pong, score ")
    assert [(tmp_path / name).read_text() for name in ("pong.mp4", "pong-2.mp4")] == ["mine", "mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pong-2.mp4", "pong-3.mp4", "pong.mp4"]


def test_play_without_an_end_is_shown_to_the_games_end(monkeypatch, capsys, tmp_path, short):
    monkeypatch.chdir(tmp_path)
    said = run(monkeypatch, capsys, "record", STUDENT, "--seconds", "inf")
    # Who scores first differs between machines.
    assert re.match(r"pong\.mp4: pong, score -?\d+; ", said)  # not "(stopped)"


@pytest.fixture
def display():
    need_program("Xvfb", "xvfb")
    pytest.importorskip("tkinter")
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        try:
            yield f":{server.stdout.readline().decode().strip()}"
        finally:
            server.terminate()


@pytest.mark.slow
def test_watch_opens_a_window(tmp_path, display):
    command = [sys.executable, "-m", "policy_distillation", "watch", STUDENT, "--seconds", "3"]
    environment = {**os.environ, "DISPLAY": display, "PYTHONPATH": str(ROOT / "workflow")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as watching:
        brown = 0
        while brown < 50_000 and watching.poll() is None:  # Pong's field
            time.sleep(0.2)
            screen = np.asarray(ImageGrab.grab(xdisplay=display))[..., :3]
            brown = max(brown, int((screen == (144, 72, 17)).all(2).sum()))
        assert brown >= 50_000
        assert watching.communicate(timeout=120)[0].startswith("pong: score ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_fails_while_a_window_is_open_ends_the_command(display, error):
    """Ctrl-C, say: Tk would print a traceback and leave the window standing."""
    program = f"""
from PIL import Image
from policy_distillation.window import show

def failing():
    yield Image.new("RGB", (10, 10))
    raise {error.__name__}("lost")

try:
    show(failing(), "game", 30)
except {error.__name__} as end:
    print("ended:", end)
"""
    environment = {**os.environ, "DISPLAY": display, "PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == ("ended: lost\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: which agent? Give the path of an agent.safetensors"),
        (["{both}"], "error: which game? Name it with --game; this agent plays breakout, pong"),
        (["{both}", "{student}", "--game", "breakout"], "error: {student} does not play breakout; it plays pong"),
        (["{both}", "--game", "chess"], "error: unknown game 'chess', perhaps video_chess; allowed: adventure, "),
        (["missing.safetensors"], "error: missing.safetensors: no such file"),
        (["{student}", "--seconds", "0"], "error: --seconds 0 shows not a single step; allowed: 0.07 or more"),
        (["{student}", "--seconds", "nan"], "error: --seconds nan shows not a single step; allowed: 0.07 or more"),
        (
            ["{student}", "{freeway}"],
            "error: these agents share no game: {student} plays pong; {freeway} plays freeway",
        ),
        (["{student}", "--output", "game.webm"], "error: game.webm: no such format; allowed endings: .mp4, .gif"),
        (
            ["{student}", "--output", "game.gif"],
            "error: game.gif: a .gif holds at most 30 seconds of play; add --seconds",
        ),
        (["{student}", "--protocol", "machado2018"], "error: pong: the agent's actions [0, 1, 3, 4, 11, 12] are not"),
        (["{student}", "--epsilon", "1.5"], "error: --epsilon 1.5 is no probability; allowed: 0 to 1"),
    ],
)
def test_faults_are_told_in_a_line(monkeypatch, capsys, tmp_path, agents, arguments, message):
    monkeypatch.chdir(tmp_path)
    said = run(monkeypatch, capsys, "record", *(argument.format(**agents) for argument in arguments))
    assert said.startswith(message.format(**agents))
    assert "\n" not in said.strip()
    assert not list(tmp_path.glob("*.mp4"))
