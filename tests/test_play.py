"""Play that goes on: emulators brought back exactly, and play that begins anywhere in the games of an agent."""

from dataclasses import asdict, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import load_example
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation.atari import AtariVector, Step, action_ids, slot_seeds
from policy_distillation.checkpoints import save_agent
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.play import Play, draw_steps
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout
from policy_distillation.recording import Dataset, dump_part

torch.set_num_threads(1)

# Games of Breakout end by themselves, mostly after 80 to 150 steps, or here by the cap after 150.
SHORT = {name: replace(PROTOCOLS[name], name="short", max_episode_frames=600) for name in PROTOCOLS}


def make_agent(protocol=PROTOCOLS["paper2015"], seed=0, game="breakout"):
    """An untrained agent whose answers differ from state to state."""
    torch.manual_seed(seed)
    agent = Agent(Network((4, 4, 4), 16), {game: action_ids(game, protocol)})
    with torch.no_grad():
        for parameter in agent.parameters():
            parameter.mul_(3)
    return agent


def advance(play, agent, steps, epsilon=0.5):
    return [play.step(agent, epsilon) for _ in range(steps)]


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.actions, b.actions)
        np.testing.assert_array_equal(a.step.observations, b.step.observations)
        np.testing.assert_array_equal(a.step.rewards, b.step.rewards)
        np.testing.assert_array_equal(a.step.episode_ends, b.step.episode_ends)
        assert a.step.episodes == b.step.episodes


def test_steps_chain_observations_values_and_actions():
    agent, play = make_agent(), Play("breakout", SHORT["paper2015"], 2, 0)
    first = play.observations
    transitions = advance(play, agent, 200, epsilon=0.0)
    np.testing.assert_array_equal(transitions[0].observations, first)
    for one, other in pairwise(transitions):
        np.testing.assert_array_equal(one.step.observations, other.observations)
    assert sum(transition.step.episode_ends.sum() for transition in transitions) >= 2
    for transition in transitions[::20]:
        expected = agent.q_values(transition.observations, "breakout")
        np.testing.assert_array_equal(transition.q_values, expected)
        np.testing.assert_array_equal(transition.actions, expected.argmax(1))


@pytest.mark.slow
def test_equal_seeds_give_equal_play():
    runs = [advance(Play("breakout", SHORT["paper2015"], 2, seed), make_agent(), 300) for seed in (5, 5, 6)]
    assert_same(runs[0], runs[1])
    assert any((a.actions != b.actions).any() for a, b in zip(runs[0], runs[2], strict=True))


@pytest.mark.slow
def test_game_steps_are_counted():
    play, agent = Play("breakout", SHORT["paper2015"], 3, 0), make_agent()
    expected = np.zeros(3, int)
    for transition in advance(play, agent, 400):
        expected = np.where(transition.step.episode_ends, 0, expected + 1)
    np.testing.assert_array_equal(play.steps, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper2015", "machado2018", "cleanrl"])
def test_a_game_is_known_from_its_seed_and_its_actions(name):
    """Sticky actions, no-ops and first frames included; on emulators with another past."""
    protocol, agent = SHORT[name], make_agent(PROTOCOLS[name])
    play = Play("breakout", protocol, 3, 0)
    seeds, actions, seen = play.seeds.copy(), [[] for _ in range(3)], None
    for _ in range(330):
        transition = play.step(agent, 0.5)
        for slot in range(3):
            actions[slot] = [] if transition.step.episode_ends[slot] else [*actions[slot], transition.actions[slot]]
        seen, seeds = transition.step.observations, play.seeds
    env = AtariVector("breakout", protocol, "play", 3, 99)
    env.reset()
    for slot in range(3):
        observations = env.begin(np.arange(3) == 1, seeds[slot : slot + 1])  # any slot will do
        for action in actions[slot]:
            observations = env.step(np.array([0, action, 0])).observations
        np.testing.assert_array_equal(observations[1], seen[slot])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper2015", "machado2018", "cleanrl"])
def test_saved_play_goes_on_as_if_it_had_never_stopped(name):
    protocol, agent = SHORT[name], make_agent(PROTOCOLS[name])
    play = Play("breakout", protocol, 3, 0)
    play.start_anywhere(agent, 0.5, 60)
    advance(play, agent, 150)
    state = play.state_dict()
    again = Play("breakout", protocol, 3, 1)
    advance(again, agent, 7)
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.observations, play.observations)
    assert len(set(play.steps.tolist())) > 1
    assert_same(advance(play, agent, 200), advance(again, agent, 200))


# Beginning anywhere


def test_each_step_of_each_game_is_as_likely_to_be_drawn():
    lengths, rng = [3, 1, 6, 2], np.random.default_rng(0)
    counts = {(game, step): 0 for game, length in enumerate(lengths) for step in range(length)}
    for _ in range(4000):
        drawn = draw_steps(lengths, 3, rng)
        assert len(drawn) == len(set(drawn)) == 3
        for place in drawn:
            counts[place] += 1
    expected = 4000 * 3 / 12
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values()), counts


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 40), st.integers(0, 99))
def test_draws_come_from_different_stretches(lengths, count, seed):
    drawn = draw_steps(lengths, count, np.random.default_rng(seed))
    assert all(0 <= step < lengths[game] for game, step in drawn)
    for edge in (10, 50, 200):  # as many draws before it as belong there, but for one
        share = sum(min(length, edge) for length in lengths) / sum(lengths)
        assert abs(sum(step < edge for _, step in drawn) - share * count) <= 1 + 1e-9


@pytest.mark.slow
def test_play_that_begins_anywhere_is_play_of_the_same_games():
    """The steps before belong to real games: frames, counts and ends fit together."""
    agent, play = make_agent(), Play("breakout", SHORT["paper2015"], 4, 3)
    play.start_anywhere(agent, 0.5, 300)
    began, seeds, state = play.steps.copy(), play.seeds.copy(), play.state_dict()
    assert (began > 0).sum() >= 3
    env = AtariVector("breakout", SHORT["paper2015"], "play", 4, 0)
    env.reset()
    observations = env.begin(np.full(4, True), seeds)
    for step in range(began.max()):
        reached = began == step
        np.testing.assert_array_equal(observations[reached], play.observations[reached])
        observations = env.step(state["actions"][step].numpy().astype(np.int64)).observations
    lengths = {}
    for transition in advance(play, agent, 200):
        for episode in transition.step.episodes:
            lengths.setdefault(episode.slot, episode.length)
    assert len(lengths) == 4
    assert all(began[slot] < length <= 150 for slot, length in lengths.items())


@pytest.mark.slow
def test_games_that_last_too_long_count_as_far_as_they_got():
    play = Play("breakout", SHORT["paper2015"], 6, 0)
    play.start_anywhere(make_agent(), 0.5, 30)
    assert play.steps.min() >= 0
    assert 20 < play.steps.max() < 30
    play = Play("breakout", SHORT["paper2015"], 6, 0)
    play.start_anywhere(make_agent(), 0.5, 0)
    assert not play.steps.any()


class Scripted:
    """Emulators without pictures: how long a game lasts is drawn by its seed, here between 10 and 200 steps."""

    action_ids = (0, 1, 3, 4)
    game = "breakout"

    def __init__(self, game, protocol, purpose, slots, seed):
        self.seeds, self.left = slot_seeds(seed, slots), np.zeros(slots, int)
        self.pictures = np.zeros((slots, 4, 84, 84), np.uint8)

    @staticmethod
    def length(seed):
        rng = np.random.default_rng(seed)
        return int(rng.integers(150, 200) if rng.random() < 0.3 else rng.integers(10, 60))

    def begin(self, slots, seeds):
        self.left[slots] = [self.length(seed) for seed in seeds]
        return self.pictures

    def reset(self):
        return self.begin(np.full(len(self.left), True), self.seeds)

    def step(self, actions):
        self.left -= 1
        return Step(self.pictures, *[self.left == 0] * 4, [])


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 20])
def test_short_play_meets_the_steps_of_games_as_whole_games_do(monkeypatch, times):
    """Games of very different lengths: half of their steps come after step 50, which most games do not reach."""
    monkeypatch.setattr("policy_distillation.play.AtariVector", Scripted)
    agent = SimpleNamespace(
        q_values=lambda observations, *_: np.zeros((len(observations), 4), np.float32), readouts={"breakout": Readout()}
    )
    met = []
    for seed in range(60):
        play = Play("breakout", PROTOCOLS["paper2015"], 40, seed)
        play.start_anywhere(agent, 0.5, 1000)
        for _ in range(times):
            met.append(play.steps.copy())
            play.step(agent, 0.5)
    lengths = np.array([Scripted.length(seed) for seed in range(100_000)])
    whole = (lengths > np.arange(200)[:, None]).sum(1) / lengths.sum()  # the share of each step in whole games
    edges = [0, 10, 25, 50, 100, 150, 170]
    expected, got = np.add.reduceat(whole, edges), np.add.reduceat(np.bincount(np.ravel(met), minlength=200), edges)
    # 2,400 stretches; without stratification a share's standard error would be 0.01.
    np.testing.assert_allclose(got / got.sum(), expected, atol=0.015)
    assert expected[3:].sum() > 0.45


@pytest.mark.slow
def test_a_short_part_holds_every_stretch_of_the_games(tmp_path, monkeypatch):
    """Ten steps a slot, of games of 120 to 250; the real emulator, as a part is dumped."""
    protocol = replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=1000)
    monkeypatch.setitem(PROTOCOLS, "short", protocol)
    save_agent(tmp_path / "agent.safetensors", make_agent(), {"protocol": asdict(protocol)})
    settings = Dataset(1, 80, 8, 0.5, warmup_steps=250)
    dump_part(tmp_path / "agent.safetensors", "breakout", "short", 0, settings, 0, tmp_path / "part.h5", "cpu")
    with Part(tmp_path / "part.h5") as part:
        coverage = part.coverage()
    assert coverage.last_step > 120
    assert min(coverage.quarters) > 0.1


def test_each_game_has_a_seed_of_its_own(monkeypatch):
    monkeypatch.setattr("policy_distillation.play.AtariVector", Scripted)
    agent = SimpleNamespace(
        q_values=lambda observations, *_: np.zeros((len(observations), 4), np.float32), readouts={"breakout": Readout()}
    )
    play, ends = Play("breakout", PROTOCOLS["paper2015"], 8, 0), 0
    seen = set(play.seeds.tolist())
    for _ in range(600):
        ends += int(play.step(agent, 0.5).step.episode_ends.sum())
        seen |= set(play.seeds.tolist())
    assert len(seen) == 8 + ends > 40


def test_a_driver_explores_as_a_teacher_does(monkeypatch):
    monkeypatch.setattr("policy_distillation.play.AtariVector", Scripted)
    agents = [
        SimpleNamespace(
            q_values=lambda seen, *_, action=action: np.eye(4, dtype=np.float32)[np.full(len(seen), action)],
            readouts={"breakout": Readout()},
        )
        for action in (1, 2)
    ]
    play = Play("breakout", PROTOCOLS["paper2015"], 8, 0)
    actions = np.array([play.step(agents[0], 0.2, agents[1], 4).actions for _ in range(500)])
    for slots, best in ((slice(4), 2), (slice(4, 8), 1)):
        assert np.mean(actions[:, slots] != best) == pytest.approx(0.2 * 3 / 4, abs=0.04)


def agent_that_takes(action):
    return SimpleNamespace(
        q_values=lambda seen, *_: np.eye(4, dtype=np.float32)[np.full(len(seen), action)],
        readouts={"breakout": Readout()},
    )


def test_every_emulator_explores_by_its_own_epsilon(monkeypatch):
    monkeypatch.setattr("policy_distillation.play.AtariVector", Scripted)
    settings = Dataset(1, 80, 5, [0.0, 0.2, 0.8])
    assert settings.epsilons.tolist() == [0.0, 0.2, 0.8, 0.0, 0.2]
    assert replace(settings, epsilon=0.05).epsilons.tolist() == [0.05] * 5
    for driver, driven in ((None, 0), (agent_that_takes(2), 2)):
        play = Play("breakout", PROTOCOLS["paper2015"], 5, 0)
        actions = np.array(
            [play.step(agent_that_takes(1), settings.epsilons, driver, driven).actions for _ in range(2000)]
        )
        best = np.where(np.arange(5) < driven, 2, 1)
        np.testing.assert_allclose((actions != best).mean(0), settings.epsilons * 3 / 4, atol=0.03)
    plays = [Play("breakout", PROTOCOLS["paper2015"], 5, 0) for _ in range(2)]
    for epsilon, play in zip((0.3, np.full(5, 0.3)), plays, strict=True):
        play.start_anywhere(agent_that_takes(1), epsilon, 1000)
    assert_same(*[advance(play, agent_that_takes(1), 50, epsilon=0.3) for play in plays])


def test_games_in_which_play_begins_are_of_the_emulators_epsilon(monkeypatch):
    monkeypatch.setattr("policy_distillation.play.AtariVector", Scripted)
    play = Play("breakout", PROTOCOLS["paper2015"], 8, 0)
    epsilons = Dataset(1, 80, 8, [0.0, 1.0]).epsilons
    play.start_anywhere(agent_that_takes(1), epsilons, 1000)
    state = play.state_dict()
    random = [(state["actions"][: state["steps"][slot], slot] != 1).float().mean() for slot in range(8)]
    assert (play.steps >= 10).sum() > 4
    for slot in np.flatnonzero(play.steps >= 10):
        assert random[slot] == 0 if epsilons[slot] == 0 else random[slot] > 0.4


@pytest.mark.slow
def test_the_example_asks_the_student_about_both_players_games():
    """docs/examples/drift.py."""
    example = load_example("drift")
    one, other = make_agent(seed=0), make_agent(seed=1)
    seen = Play("breakout", SHORT["paper2015"], 8, 0)
    for _ in range(20):
        seen.step(one, 1.0)
    for agent in (one, other):  # none of its actions is always the best
        with torch.no_grad():
            list(agent.parameters())[-1] -= torch.from_numpy(agent.q_values(seen.observations, "breakout").mean(0))
    same, apart = (example.drift(who, one, "breakout", SHORT["paper2015"], 2, 3) for who in (one, other))
    assert same["agree"].all()
    assert not same["given_up"].any()
    assert 0 < apart["agree"].mean() < 1
    assert (apart["given_up"] > 0).eq(~apart["agree"]).all()
    theirs = ["player", "slot", "step", "reward"]
    teachers = same["player"] == "teacher"
    pd.testing.assert_frame_equal(same[teachers][theirs], apart[apart["player"] == "teacher"][theirs])
    for _, steps in apart.groupby(["player", "slot"])["step"]:
        assert steps.tolist() == list(range(len(steps)))  # one game, whole
    table = example.by_stretch(apart, 50, 3)
    assert table.index.tolist() == [0, 50, 100]
    late = apart.query("player == 'student' and step >= 100")
    assert table.loc[100, "agree, student plays"] == pytest.approx(late["agree"].mean())
