"""The emulator: pixel parity with gymnasium, every protocol flag, the episode accounting; and acting in it."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
from ale_py import roms
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation
from policy_distillation.acting import LastingExploration, epsilon_greedy
from policy_distillation.atari import AtariVector, slot_seeds
from policy_distillation.networks import Network
from policy_distillation.protocols import PROTOCOLS

gymnasium.register_envs(ale_py)

PAPER = PROTOCOLS["paper2015"]
NO_NOOPS = replace(PAPER, noop_max=0)
TINY = Network((4, 4, 4), 8)


def play(env, actions):
    """The first observations and the steps that follow from actions (steps, slots)."""
    first = env.reset()
    steps = [env.step(row) for row in actions]
    env.close()
    return first, steps


def random_actions(choices, steps, slots=1):
    return np.random.default_rng(0).integers(0, choices, (steps, slots))


def make(game="breakout", protocol=PAPER, purpose="play", num_envs=1, seed=0, num_threads=1):
    return AtariVector(game, protocol, purpose, num_envs, seed, num_threads)


def raw_reference(game):
    """gymnasium's environment without frame skip: every emulator frame, nothing processed."""
    name = "".join(word.capitalize() for word in game.split("_"))
    return gymnasium.make(f"ALE/{name}-v5", frameskip=1, repeat_action_probability=0.0, full_action_space=False)


@pytest.mark.slow
@pytest.mark.parametrize("game", ["breakout", "pong", "qbert", "freeway", "ms_pacman", "space_invaders"])
def test_pixels_rewards_and_ends_equal_gymnasiums(game):
    # Without no-ops and sticky actions the two must agree on every pixel; both resize by area averaging in OpenCV.
    env = make(game, NO_NOOPS)
    reference = AtariPreprocessing(raw_reference(game), noop_max=0, frame_skip=4, screen_size=84, grayscale_obs=True)
    reference = FrameStackObservation(reference, 4, padding_type="zero")
    assert env.action_ids == [action.value for action in reference.unwrapped._action_set]
    actions = random_actions(len(env.action_ids), 320)
    if game == "freeway":
        actions[20:180] = 1  # up, across the road
    observed = env.reset()
    expected, _ = reference.reset(seed=int(env.seeds[0]))
    np.testing.assert_array_equal(observed[0], expected)
    total = 0.0
    for action in actions[:, 0]:
        expected, reward, terminated, _, _ = reference.step(int(action))
        step = env.step(np.array([action]))
        total += reward
        assert step.rewards[0] == reward
        assert step.terminations[0] == step.episode_ends[0] == terminated
        if terminated:
            assert step.episodes[0].episode_return == total
            break
        np.testing.assert_array_equal(step.observations[0], expected)
    assert total != 0
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("repeat", [True, False])
def test_frames_from_before_the_game(repeat):
    """Black, or the game's first frame, as gymnasium's wrapper pads; after a game's end too."""
    protocol = replace(NO_NOOPS, repeat_first_frame=repeat, max_episode_frames=40)
    env = make("breakout", protocol, num_envs=2)
    reference = AtariPreprocessing(raw_reference("breakout"), noop_max=0, frame_skip=4, screen_size=84)
    reference = FrameStackObservation(reference, 4, padding_type="reset" if repeat else "zero")
    expected, _ = reference.reset(seed=int(env.seeds[0]))
    observed = env.reset()
    np.testing.assert_array_equal(observed[0], expected)
    ends = 0
    for action in random_actions(4, 25)[:, 0]:
        step = env.step(np.array([action, action]))
        if step.episode_ends[0]:
            ends += 1
            expected, _ = reference.reset()
        else:
            expected = reference.step(int(action))[0]
        np.testing.assert_array_equal(step.observations[0], expected)
    assert ends == 2


@pytest.mark.slow
@pytest.mark.parametrize("purpose", ["train", "play"])
def test_a_life_lost_terminates_in_training_alone_and_the_game_goes_on(purpose):
    env = make("breakout", NO_NOOPS, purpose)
    reference = AtariPreprocessing(raw_reference("breakout"), noop_max=0, frame_skip=4)
    observed, (expected, _) = env.reset(), reference.reset(seed=int(env.seeds[0]))
    lives, lost = 5, 0
    for action in random_actions(4, 400)[:, 0]:
        previous = observed
        expected, _, over, _, _ = reference.step(int(action))
        step = env.step(np.array([action]))
        observed = step.observations
        lost += reference.ale.lives() < lives
        assert step.terminations[0] == (over or (purpose == "train" and reference.ale.lives() < lives))
        assert step.episode_ends[0] == over
        lives = reference.ale.lives()
        if over:
            break
        np.testing.assert_array_equal(observed[0, :3], previous[0, 1:])
        np.testing.assert_array_equal(observed[0, 3], expected)
    assert over
    assert lost == 5
    env.close()


def test_a_protocol_may_play_through_lost_lives_in_training():
    protocol = replace(NO_NOOPS, life_loss_terminates=False)
    actions = random_actions(4, 200)
    _, steps = play(make(protocol=protocol, purpose="train"), actions)
    assert sum(step.episode_ends[0] for step in steps) == 1
    assert all(step.terminations[0] == step.episode_ends[0] for step in steps)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_rewards_are_clipped_in_training_alone(name):
    protocol = replace(PROTOCOLS[name], max_episode_frames=600)
    actions = random_actions(6, 200, 2)
    first, raw = play(make("qbert", protocol, "play", 2), actions)
    same, clipped = play(make("qbert", protocol, "train", 2), actions)
    np.testing.assert_array_equal(first, same)
    assert max(step.rewards.max() for step in raw) >= 25
    for one, other in zip(raw, clipped, strict=True):
        assert one.rewards.dtype == other.rewards.dtype == np.float32
        np.testing.assert_array_equal(np.clip(one.rewards, -1, 1), other.rewards)
        np.testing.assert_array_equal(one.observations, other.observations)
        assert one.episodes == other.episodes  # scores are raw whatever the purpose
    assert max(episode.episode_return for step in clipped for episode in step.episodes) >= 25


def test_a_protocol_may_leave_training_rewards_as_they_are():
    protocol = replace(NO_NOOPS, clip_rewards=False)
    _, steps = play(make("qbert", protocol, "train"), random_actions(6, 150))
    assert max(step.rewards.max() for step in steps) >= 25


def test_no_fire_is_pressed_after_a_reset_unless_asked():
    # Breakout's ball is not served until somebody fires: without FIRE only the paddle could move.
    _, silent = play(make(protocol=NO_NOOPS), np.zeros((30, 1), np.int64))
    assert all(np.array_equal(step.observations[0, 3], silent[5].observations[0, 3]) for step in silent[5:])
    _, served = play(make(protocol=replace(NO_NOOPS, fire_on_reset=True)), np.zeros((30, 1), np.int64))
    assert not all(np.array_equal(step.observations[0, 3], served[5].observations[0, 3]) for step in served[5:])


@pytest.mark.slow
def test_episodes_account_for_every_step_and_point():
    env = make("breakout", replace(PAPER, max_episode_frames=640), num_envs=3)
    first, steps = play(env, random_actions(4, 500, 3))
    rewards = np.array([step.rewards for step in steps])
    ends = np.array([step.episode_ends for step in steps])
    truncated = np.array([step.truncations for step in steps])
    assert (ends & truncated).any()
    assert (ends & ~truncated).any()
    assert not (truncated & ~ends).any()
    assert all(len(step.episodes) == step.episode_ends.sum() for step in steps)
    stacks = np.array([first, *(step.observations for step in steps)])
    for slot in range(3):
        times = np.flatnonzero(ends[:, slot])
        episodes = [episode for step in steps for episode in step.episodes if episode.slot == slot]
        assert [episode.number for episode in episodes] == list(range(len(times)))
        assert [episode.length for episode in episodes] == np.diff(times, prepend=-1).tolist()
        assert [episode.truncated for episode in episodes] == truncated[times, slot].tolist()
        assert {episode.seed for episode in episodes} == {slot_seeds(0, 3)[slot]}
        scores = [chunk.sum() for chunk in np.split(rewards[:, slot], times + 1)[: len(times)]]
        assert [episode.episode_return for episode in episodes] == scores
        # Frames flow on within a game, and a new game starts with a stack of zeros and one frame.
        for t, (before, after) in enumerate(pairwise(stacks[:, slot])):
            np.testing.assert_array_equal(after[:3], 0 if ends[t, slot] else before[1:])
    assert sum(episode.episode_return for step in steps for episode in step.episodes) > 0


@pytest.mark.slow
@pytest.mark.parametrize("cap", [20, 60, 400])
def test_the_frame_cap_truncates_and_terminates_nothing(cap):
    # 20 is shorter than a start with 30 no-ops, so the emulator's frame count may even rise from one game to the next.
    env = make("pong", replace(PAPER, max_episode_frames=cap), num_envs=2)
    _, steps = play(env, np.zeros((2 * cap // 4 + 3, 2), np.int64))
    for number, step in enumerate(steps, start=1):
        expected = [number % (cap // 4) == 0] * 2
        assert step.truncations.tolist() == step.episode_ends.tolist() == expected
        assert not step.terminations.any()
        assert all(episode.truncated and episode.length == cap // 4 for episode in step.episodes)


@pytest.mark.parametrize("purpose", ["train", "play"])
def test_a_life_lost_at_the_frame_cap_does_not_hide_the_truncation(purpose):
    actions = random_actions(4, 100)
    _, steps = play(make(protocol=NO_NOOPS, purpose="train"), actions)
    fall = next(t for t, step in enumerate(steps) if step.terminations[0])
    env = make(protocol=replace(NO_NOOPS, max_episode_frames=4 * (fall + 1)), purpose=purpose)
    _, steps = play(env, actions[: fall + 1])
    (episode,) = steps[-1].episodes
    assert episode.truncated
    assert episode.length == fall + 1
    if purpose == "play":
        assert steps[-1].truncations[0]
        assert not steps[-1].terminations[0]


@pytest.mark.slow
def test_a_game_starts_after_0_to_30_noops():
    # In Freeway every emulator frame differs from the last, so a start's newest frame says how many no-ops it had.
    reference = raw_reference("freeway")
    reference.reset(seed=0)
    noops = {}
    for number in range(45):
        screen = reference.unwrapped.ale.getScreenGrayscale()
        noops[cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA).tobytes()] = number
        reference.step(0)
    assert len(noops) == 45
    env = make("freeway", replace(PAPER, max_episode_frames=4), num_envs=4)  # every step ends a game
    first, steps = play(env, np.zeros((60, 4), np.int64))
    starts = [first, *(step.observations for step in steps)]
    counts = np.bincount([noops[stack[3].tobytes()] for stacks in starts for stack in stacks])
    assert len(counts) == 31
    assert counts.min() > 0


@pytest.mark.slow
def test_equal_seeds_give_equal_bits_and_others_do_not():
    actions = random_actions(6, 60, 3)
    runs = [play(make("qbert", PAPER, "play", 3, (7, 1), threads), actions) for threads in (1, 2)]
    (first, steps), (again, others) = runs
    np.testing.assert_array_equal(first, again)
    for one, other in zip(steps, others, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.rewards, other.rewards)
    _, different = play(make("qbert", PAPER, "play", 3, (7, 2)), actions)
    for slot in range(3):
        assert not all(
            np.array_equal(one.observations[slot], other.observations[slot])
            for one, other in zip(steps, different, strict=True)
        )


def test_slots_play_different_games_under_equal_actions():
    _, steps = play(make("qbert", num_envs=3), np.ones((40, 3), np.int64))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not all(np.array_equal(step.observations[one], step.observations[other]) for step in steps)


@pytest.mark.slow
def test_reset_starts_the_same_games_again():
    env = make("breakout", num_envs=2)
    actions = random_actions(4, 230, 2)
    first = env.reset()
    steps = [env.step(row) for row in actions]
    again, others = play(env, actions)
    np.testing.assert_array_equal(first, again)
    for one, other in zip(steps, others, strict=True):
        np.testing.assert_array_equal(one.observations, other.observations)
        assert one.episodes == other.episodes
    assert any(step.episodes for step in others)


def test_golden_frames():
    # Pins ROM, emulator and preprocessing: a changed digest means that old scores and data sets do not compare.
    rom = Path(roms.get_rom_path("pong")).read_bytes()
    assert hashlib.sha256(rom).hexdigest() == "41623e3c26148f96cbe77d56512845d224a63c8fe5bf90e38527155e39ec96d3"
    first, steps = play(make("pong", seed=1), np.arange(120)[:, None] // 4 % 6)
    digest = hashlib.sha256(first.tobytes())
    for step in steps:
        digest.update(step.observations.tobytes())
        digest.update(step.rewards.tobytes())
    assert digest.hexdigest() == "d914d612a66d50106d0f21ba66ae55ae5ae3c5d402f2ee8ad74f92fa0434dc81"


def test_machado2018_has_all_actions_sticky_and_no_noops():
    protocol = PROTOCOLS["machado2018"]
    env = make("breakout", protocol, num_envs=2)
    assert env.action_ids == list(range(18))
    actions = np.tile([1, 3, 4, 0], 20)[:, None].repeat(2, axis=1)
    first, steps = play(env, actions)
    np.testing.assert_array_equal(first[0], first[1])  # no no-ops: only the sticky actions tell two seeds apart
    assert not all(np.array_equal(step.observations[0], step.observations[1]) for step in steps)
    _, steady = play(make("breakout", replace(protocol, repeat_action_probability=0.0), num_envs=2), actions)
    assert all(np.array_equal(step.observations[0], step.observations[1]) for step in steady)


def test_protocols_are_the_published_ones():
    assert (PAPER.repeat_action_probability, PAPER.noop_max, PAPER.max_episode_frames) == (0.0, 30, 108_000)
    assert (PAPER.fire_on_reset, PAPER.full_action_space) == (False, False)
    assert (PAPER.life_loss_terminates, PAPER.clip_rewards) == (True, True)
    machado = PROTOCOLS["machado2018"]
    assert (machado.repeat_action_probability, machado.noop_max, machado.max_episode_frames) == (0.25, 0, 90_000)
    assert (machado.fire_on_reset, machado.full_action_space) == (False, True)
    assert (machado.life_loss_terminates, machado.clip_rewards) == (False, True)
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


@pytest.mark.parametrize(
    ("game", "ids"),
    [
        ("breakout", [0, 1, 3, 4]),
        ("pong", [0, 1, 3, 4, 11, 12]),
        ("space_invaders", [0, 1, 3, 4, 11, 12]),
        ("freeway", [0, 2, 5]),
        ("qbert", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_minimal_action_ids(game, ids):
    env = make(game)
    assert env.action_ids == ids
    env.close()


def test_slot_seeds_are_distinct_and_fit_into_31_bits():
    seeds = np.concatenate([slot_seeds((run, part), 16) for run in range(1, 15) for part in range(1, 15)])
    assert len(set(seeds.tolist())) == len(seeds)
    assert seeds.min() >= 0
    assert seeds.max() < 2**31
    np.testing.assert_array_equal(slot_seeds((3, 4), 8), slot_seeds((3, 4), 8))
    assert not np.array_equal(slot_seeds((3, 4), 8), slot_seeds((4, 3), 8))


def test_epsilon_0_takes_the_best_action():
    q_values = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    actions = epsilon_greedy(q_values, 0.0, np.random.default_rng(1))
    np.testing.assert_array_equal(actions, q_values.argmax(1))


def test_epsilon_1_is_uniform():
    q_values = np.tile(np.float32([5, 1, 0, 0, 0, 0]), (60_000, 1))
    counts = np.bincount(epsilon_greedy(q_values, 1.0, np.random.default_rng(2)), minlength=6)
    assert len(counts) == 6
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(60_000 * (1 / 6) * (5 / 6))  # five standard deviations


def test_epsilon_is_the_rate_of_random_actions():
    # A random action is the best one in a quarter of the cases, too.
    slots, epsilon = 100_000, 0.1
    q_values = np.tile(np.float32([0, 0, 1, 0]), (slots, 1))
    rate = np.mean(epsilon_greedy(q_values, epsilon, np.random.default_rng(3)) != 2)
    expected = epsilon * 3 / 4
    assert abs(rate - expected) < 5 * np.sqrt(expected * (1 - expected) / slots)


def test_rows_explore_independently():
    actions = epsilon_greedy(np.zeros((200, 4), np.float32), 0.5, np.random.default_rng(4))
    assert 0 < np.mean(actions != 0) < 0.75


def explored(longest, epsilon, times=3000, slots=40, actions=6):
    """Whether each of (times, slots) actions was random, and which it was; the best one is none of the random ones."""
    explore, rng = LastingExploration(slots, longest), np.random.default_rng(0)
    rng_actions = SimpleNamespace(
        random=rng.random, zipf=rng.zipf, integers=lambda low, high, size: rng.integers(low, high - 1, size)
    )
    q_values = np.zeros((slots, actions + 1), np.float32)
    q_values[:, -1] = 1
    chosen = np.array([explore(q_values, epsilon, rng_actions) for _ in range(times)])
    return chosen != actions, chosen


def test_exploration_of_one_step_is_epsilon_greedy():
    random, chosen = explored(longest=1, epsilon=0.1)
    assert random.mean() == pytest.approx(0.1, abs=0.005)
    assert random[1:][random[:-1]].mean() == pytest.approx(0.1, abs=0.01)  # steps do not depend on each other
    assert np.bincount(chosen[random], minlength=6) / random.sum() == pytest.approx(np.full(6, 1 / 6), abs=0.01)


def test_random_actions_last_as_long_as_the_zeta_distribution_says():
    longest = 8
    random, chosen = explored(longest, epsilon=0.01)
    lengths = []
    for slot in range(random.shape[1]):  # runs of one random action between greedy ones
        edges = np.flatnonzero(np.diff(np.concatenate([[0], random[:, slot], [0]])))
        for start, stop in edges.reshape(-1, 2):
            if len(set(chosen[start:stop, slot])) == 1:
                lengths.append(stop - start)
    expected = np.arange(1, longest + 1) ** -2.0 * 6 / np.pi**2
    expected[-1] = 1 - expected[:-1].sum()  # all that is longer is cut there
    counts = np.bincount(lengths, minlength=longest + 1)[1 : longest + 1]
    assert counts / counts.sum() == pytest.approx(expected, abs=0.04)
    assert len(lengths) > 500


def test_a_game_that_ends_by_itself_at_the_frame_cap_is_not_cut():
    actions = random_actions(4, 400)
    _, steps = play(make(protocol=NO_NOOPS), actions)
    (length,) = {step.episodes[0].length for step in steps if step.episodes and step.episodes[0].number == 0}
    _, steps = play(make(protocol=replace(NO_NOOPS, max_episode_frames=4 * length)), actions[:length])
    (episode,) = steps[-1].episodes
    assert (episode.length, episode.truncated) == (length, False)
    assert steps[-1].terminations[0]
    assert not steps[-1].truncations[0]
