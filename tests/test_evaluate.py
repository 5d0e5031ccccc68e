"""Scores: every slot plays the same number of whole games, unclipped, from the starts asked for."""

import copy
import math
import threading
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from policy_distillation import evaluate
from policy_distillation.atari import AtariVector, Episode, Step
from policy_distillation.checkpoints import load_agent
from policy_distillation.evaluate import BestSnapshot, Evaluation, episodes_frame, mean_return, play_episodes
from policy_distillation.networks import Agent, Network
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout

torch.set_num_threads(1)  # tiny networks; beside another job, OpenMP's spinning threads cost ten times the work

TINY = Network((4, 4, 4), 16)
ACTIONS = {"breakout": [0, 1, 3, 4], "qbert": [0, 1, 2, 3, 4, 5]}


class Chooser:
    """An agent that always prefers one action."""

    def __init__(self, action, actions=ACTIONS):
        self.actions, self._action = actions, action
        self.device = torch.device("cpu")
        self.readouts = dict.fromkeys(actions, Readout())

    def frozen(self, precision):
        return self

    def parameters(self):
        return iter([torch.zeros(1)])

    def q_values(self, observations, game, precision):
        q_values = np.zeros((len(observations), len(self.actions[game])), np.float32)
        q_values[:, self._action] = 1.0
        return q_values


class ScriptedVector:
    """A vector environment whose slots play games of given lengths, over and over, earning ``reward`` every step."""

    lengths: ClassVar = [[1]]
    reward = 7.0
    made: ClassVar = []

    def __init__(self, game, protocol, purpose, num_envs, seed, num_threads):
        self.num_threads = num_threads
        self.game, self.purpose, self.num_envs, self.seed, self.closed = game, purpose, num_envs, seed, False
        self.action_ids = ACTIONS[game]
        self.log = [[[]] for _ in range(num_envs)]  # per slot, per game, the actions played
        ScriptedVector.made.append(self)

    def reset(self):
        return np.zeros((self.num_envs, 4, 84, 84), np.uint8)

    def step(self, actions):
        episodes = []
        for slot, games in enumerate(self.log):
            games[-1].append(int(actions[slot]))
            number = len(games) - 1
            length = self.lengths[slot][number % len(self.lengths[slot])]
            if len(games[-1]) == length:
                episodes.append(Episode(slot, number, 100 + slot, self.reward * length, length, truncated=length == 20))
                games.append([])
        rewards = np.full(self.num_envs, self.reward, np.float32)
        flags = np.zeros(self.num_envs, bool)
        return Step(self.reset(), rewards, flags, flags, flags, episodes)

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(evaluate, "AtariVector", ScriptedVector)
    monkeypatch.setattr(ScriptedVector, "made", [])

    def script(lengths, reward=7.0):
        monkeypatch.setattr(ScriptedVector, "lengths", lengths)
        monkeypatch.setattr(ScriptedVector, "reward", reward)

    return script


@pytest.fixture
def short(monkeypatch):
    """A protocol of 150 steps a game, so that games end both ways and soon."""
    monkeypatch.setitem(PROTOCOLS, "short", replace(PROTOCOLS["paper2015"], name="short", max_episode_frames=600))
    return "short"


def test_slots_with_short_games_do_not_count_more(scripted):
    scripted([[2], [20], [5]])
    episodes = play_episodes(Chooser(0), "breakout", "paper2015", Evaluation(6, 3, 0.0), seed=0)
    assert [(episode.slot, episode.number) for episode in episodes] == [(s, n) for s in range(3) for n in range(2)]
    assert [episode.length for episode in episodes] == [2, 2, 20, 20, 5, 5]
    assert [episode.episode_return for episode in episodes] == [14, 14, 140, 140, 35, 35]
    assert [episode.seed for episode in episodes] == [100, 100, 101, 101, 102, 102]
    assert [episode.truncated for episode in episodes] == [False, False, True, True, False, False]
    assert mean_return(episodes) == pytest.approx(7 * (2 + 20 + 5) / 3)
    (env,) = ScriptedVector.made
    assert env.purpose == "play"  # true game over, unclipped rewards
    assert env.closed


def test_the_first_games_of_each_slot_count(scripted):
    scripted([[3, 4, 9], [2, 8, 1]])
    episodes = play_episodes(Chooser(0), "breakout", "paper2015", Evaluation(4, 2, 0.0), seed=0)
    assert [episode.length for episode in episodes] == [3, 4, 2, 8]


def test_exploration_follows_epsilon(scripted):
    scripted([[1000]])
    for epsilon in (0.0, 0.05, 1.0):
        play_episodes(Chooser(2), "breakout", "paper2015", Evaluation(1, 1, epsilon), seed=1)
        played = ScriptedVector.made[-1].log[0][0]
        others = np.mean([action != 2 for action in played])
        assert others == pytest.approx(epsilon * 3 / 4, abs=0.02 if epsilon < 1 else 0.06)


def test_only_what_the_agent_earns_after_a_teachers_start_counts(scripted):
    # Games of 4 steps often end under the teacher, who plays up to 6.
    lengths = [[4, 15], [9, 4, 4]]
    scripted(lengths)
    evaluation = Evaluation(40, 2, 0.0, starts="teacher", teacher_steps=6)
    episodes = play_episodes(Chooser(0), "breakout", "paper2015", evaluation, seed=3, teacher=Chooser(1))
    leads = []
    for slot, games in enumerate(ScriptedVector.made[0].log):
        expected = []
        for game in games[:-1]:
            lead = game.count(1)
            assert game == [1] * lead + [0] * (len(game) - lead)  # the teacher first, and never again
            if len(game) > 6:
                leads.append(lead)
            if lead < len(game):
                expected.append(len(game) - lead)
        mine = [episode for episode in episodes if episode.slot == slot]
        assert [episode.length for episode in mine] == expected[:20]
        assert [episode.episode_return for episode in mine] == [7.0 * length for length in expected[:20]]
        assert [episode.number for episode in mine] == list(range(20))
        assert any(game.count(1) == len(game) for game in games[:-1])  # else the case was not tested
    assert set(leads) == {1, 2, 3, 4, 5, 6}


def test_a_teacher_leads_random_play_as_it_leads_agents(scripted):
    scripted([[30], [20]])
    evaluation = Evaluation(40, 2, 0.0, starts="teacher", teacher_steps=6)
    play_episodes(Chooser(0), "breakout", "paper2015", evaluation, seed=3, teacher=Chooser(1), epsilon=1.0)
    games = [game for slot in ScriptedVector.made[0].log for game in slot[:-1]]
    assert {game[0] for game in games} == {1}
    assert sum(game[:6] == [1] * 6 for game in games) > 5  # of 40 games a sixth
    assert {action for game in games for action in game[6:]} == {0, 1, 2, 3}


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)


LENGTHS = (2, 20, 5, 2, 20, 5, 2, 20, 1, 1, 1, 1, 1, 1, 1, 3)


def test_threads_share_the_slots_out(scripted, two_threads):
    scripted([[length] for length in LENGTHS])
    seen, together = set(), threading.Barrier(2, timeout=60)

    class Noting(Chooser):
        def q_values(self, observations, game, precision):
            if threading.get_ident() not in seen:
                together.wait()  # breaks if the second thread never comes
                seen.add(threading.get_ident())
            assert (torch.get_num_threads(), len(observations)) == (1, 16)
            return super().q_values(observations, game, precision)

    episodes = play_episodes(Noting(0), "breakout", "paper2015", Evaluation(64, 32, 0.0), seed=(4, 5))
    assert [(episode.slot, episode.number) for episode in episodes] == [(s, n) for s in range(32) for n in range(2)]
    assert [episode.length for episode in episodes] == 2 * [n for n in LENGTHS for _ in range(2)]
    assert sorted(env.seed for env in ScriptedVector.made) == [(4, 5, 0), (4, 5, 1)]
    assert all(env.closed for env in ScriptedVector.made)
    assert len(seen) == 2
    assert torch.get_num_threads() == 2


def test_few_slots_are_one_share_whose_emulators_have_all_threads(scripted, two_threads):
    scripted([[1]] * 31)
    play_episodes(Chooser(0), "breakout", "paper2015", Evaluation(31, 31, 0.0), seed=0)
    assert [(env.num_envs, env.num_threads) for env in ScriptedVector.made] == [(31, 2)]


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_threads(short, monkeypatch):
    monkeypatch.setattr(evaluate, "SLOTS_PER_SHARE", 2)  # emulators take a quarter of a second each to start
    torch.manual_seed(0)
    agent = Agent(TINY, ACTIONS)
    played = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        played.append(play_episodes(agent, "qbert", short, Evaluation(6, 6, 0.3), seed=1))
    assert played[0] == played[1] == played[2]
    assert len({episode.seed for episode in played[0]}) == 6


def test_what_fails_in_one_thread_ends_the_others(scripted, two_threads):
    scripted([[10**9]] * 16)  # a game that never ends

    class Failing(Chooser):
        def q_values(self, observations, game, precision):
            if len(ScriptedVector.made) == 2 and threading.current_thread().name.endswith("_1"):
                raise FloatingPointError("lost")
            return super().q_values(observations, game, precision)

    with pytest.raises(FloatingPointError, match="lost"):
        play_episodes(Failing(0), "breakout", "paper2015", Evaluation(32, 32, 0.0), seed=0)
    assert all(env.closed for env in ScriptedVector.made)


def test_starts_teacher_needs_a_teacher():
    evaluation = Evaluation(1, 1, 0.0, starts="teacher", teacher_steps=5)
    with pytest.raises(ValueError, match="needs a teacher"):
        play_episodes(Chooser(0), "breakout", "paper2015", evaluation, seed=0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((5, 2, 0.0), r"episodes \(5\) must be a multiple of envs \(2\)"),
        ((0, 1, 0.0), "episodes is 0; allowed: 1 or more"),
        ((4, -2, 0.0), "envs is -2; allowed: 1 or more"),
        ((4, 2, 1.5), "epsilon is 1.5, no probability; allowed: 0 to 1"),
        ((4, 2, math.nan), "epsilon is nan, no probability; allowed: 0 to 1"),
        ((4, 2, 0.0, "human"), "starts is 'human'; allowed: noop, teacher"),
        ((4, 2, 0.0, "teacher"), "teacher_steps is 0 under starts: teacher; allowed: 1 or more"),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(*numbers)


def test_a_game_that_the_agent_does_not_play_is_refused():
    with pytest.raises(ValueError, match="does not play qbert; it plays breakout"):
        play_episodes(Agent(TINY, {"breakout": [0, 1, 3, 4]}), "qbert", "paper2015", Evaluation(1, 1, 0.0), seed=0)


def test_foreign_action_ids_are_refused():
    # As many actions as Breakout has, but LEFT and RIGHT swapped.
    agent = Agent(TINY, {"breakout": [0, 1, 4, 3]})
    with pytest.raises(ValueError, match=r"the agent's actions .* are not the protocol's"):
        play_episodes(agent, "breakout", "paper2015", Evaluation(1, 1, 0.0), seed=0)


@pytest.mark.parametrize("actions", [{"qbert": [0, 1, 2, 3, 4, 5]}, {"breakout": [0, 1, 4, 3]}])
def test_a_teacher_with_another_game_or_other_actions_is_refused(scripted, actions):
    scripted([[9]])
    evaluation = Evaluation(1, 1, 0.0, starts="teacher", teacher_steps=3)
    with pytest.raises(ValueError, match="breakout"):
        play_episodes(Chooser(0), "breakout", "paper2015", evaluation, seed=0, teacher=Chooser(0, actions))


class RecordingVector(AtariVector):
    """The real environment, remembering the actions that it was given."""

    made: ClassVar = []

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.played = []
        RecordingVector.made.append(self)

    def step(self, actions):
        self.played.append(actions.copy())
        return super().step(actions)


@pytest.mark.slow
def test_scores_equal_a_replay_of_each_slot_alone(monkeypatch, short):
    monkeypatch.setattr(evaluate, "AtariVector", RecordingVector)
    monkeypatch.setattr(RecordingVector, "made", [])
    torch.manual_seed(0)
    agent = Agent(TINY, ACTIONS)
    episodes = play_episodes(agent, "qbert", short, Evaluation(4, 2, 1.0), seed=(5, 6))
    assert max(episode.episode_return for episode in episodes) >= 25  # Q*bert pays 25 a cube: nothing is clipped
    played = np.array(RecordingVector.made[0].played)
    for slot in range(2):
        alone = AtariVector("qbert", PROTOCOLS[short], "play", 1, 0)
        alone.seeds = RecordingVector.made[0].seeds[slot : slot + 1]
        alone.reset()
        games, total, length = [], 0.0, 0
        for action in played[:, slot]:
            step = alone.step(np.array([action]))
            total, length = total + float(step.rewards[0]), length + 1
            if step.episode_ends[0]:
                games.append((total, length, bool(step.truncations[0])))
                total, length = 0.0, 0
        alone.close()
        mine = [(e.episode_return, e.length, e.truncated) for e in episodes if e.slot == slot]
        assert mine == games[:2]
        assert all(e.seed == alone.seeds[0] for e in episodes if e.slot == slot)


@pytest.mark.slow
def test_equal_seeds_give_equal_games(short, two_threads):
    torch.manual_seed(0)
    agent = Agent(TINY, ACTIONS)
    play = [play_episodes(agent, "breakout", short, Evaluation(4, 4, 0.5), seed=seed) for seed in (1, 1, 2)]
    assert play[0] == play[1]
    assert play[0] != play[2]
    assert len({episode.seed for episode in play[0]}) == 4


def test_teacher_starts_on_the_real_emulator(short):
    torch.manual_seed(0)
    agent, teacher = Agent(TINY, ACTIONS), Agent(TINY, ACTIONS)
    evaluation = Evaluation(2, 2, 1.0, starts="teacher", teacher_steps=40)
    episodes = play_episodes(agent, "breakout", short, evaluation, seed=1, teacher=teacher)
    assert [(episode.slot, episode.number) for episode in episodes] == [(0, 0), (1, 0)]
    assert all(0 < episode.length < 150 for episode in episodes)


def consider(monkeypatch, best, returns):
    """Let ``best`` consider an agent that earns ``returns``; was it kept?"""
    agent = Agent(TINY, ACTIONS)

    def play(agent, game, *arguments, **options):
        return [Episode(0, 0, 0, returns[game], 1, False)]

    monkeypatch.setattr(evaluate, "play_episodes", play)
    assert best.consider(agent, 0) == {f"return_{game}": value for game, value in returns.items()}
    return all(torch.equal(one, best.agent.state_dict()[name]) for name, one in agent.state_dict().items())


def test_no_game_decides_alone_which_agent_is_the_best(monkeypatch, tmp_path):
    best = BestSnapshot(Agent(TINY, ACTIONS), "paper2015", Evaluation(1, 1, 0.0), 0, "float32")
    judgements = [
        ({"breakout": 0.0, "qbert": 300.0}, True),  # the first
        ({"breakout": 20.0, "qbert": 100.0}, True),  # worst at one and best at the other, as was the first: the later
        ({"breakout": 20.0, "qbert": 200.0}, True),
        ({"breakout": 9.0, "qbert": 300.0}, False),  # 9 / 20 + 200 / 200 < 20 / 20 + 100 / 200
        ({"breakout": 11.0, "qbert": 300.0}, True),  # 11 / 20 + 1 > 1 + 1 / 2
        ({"breakout": 0.0, "qbert": 500.0}, False),  # the range has grown: 1 < 11 / 20 + 1 / 2
        ({"breakout": 2.0, "qbert": 500.0}, True),
    ]
    for returns, kept in judgements:
        copied = BestSnapshot(Agent(TINY, ACTIONS), "paper2015", Evaluation(1, 1, 0.0), 0, "float32")
        copied.load_state_dict(copy.deepcopy(best.state_dict()))
        assert consider(monkeypatch, copied, returns) is kept  # as after an interruption
        assert consider(monkeypatch, best, returns) is kept
    best.save(tmp_path / "agent.safetensors", 7, {"games": sorted(ACTIONS), "kind": "dqn"})
    assert load_agent(tmp_path / "agent.safetensors")[1]["score"] == 251.0


def test_table_has_one_row_an_episode():
    episodes = [Episode(0, 0, 11, 3.0, 120, False), Episode(1, 0, 12, 400.0, 27000, True)]
    table = episodes_frame(episodes, game="breakout", protocol="paper2015")
    assert list(table.columns) == ["seed", "slot", "episode", "return", "length", "truncated", "game", "protocol"]
    assert table.values.tolist() == [
        [11, 0, 0, 3.0, 120, False, "breakout", "paper2015"],
        [12, 1, 0, 400.0, 27000, True, "breakout", "paper2015"],
    ]


def test_no_two_evaluations_of_a_run_play_the_same_games(monkeypatch):
    seeds = []

    def played(agent, game, protocol, evaluation, seed, *arguments, **options):
        seeds.append(tuple(seed))
        return [Episode(0, 0, 0, 1.0, 1, False)]

    monkeypatch.setattr(evaluate, "play_episodes", played)
    for seed in (0, 1):
        for step in (40, 80):
            evaluate.progress_returns(
                Agent(TINY, {"qbert": range(6)}), "paper2015", Evaluation(1, 1, 0.05), seed, step, "float32"
            )
    assert len(set(seeds)) == 4


def test_shares_explore_differently(scripted):
    scripted([[200]] * 16)
    play_episodes(Chooser(0), "breakout", "paper2015", Evaluation(32, 32, 1.0), seed=0)
    first, second = sorted(ScriptedVector.made, key=lambda env: env.seed)
    assert all(one[0] != other[0] for one, other in zip(first.log, second.log, strict=True))
