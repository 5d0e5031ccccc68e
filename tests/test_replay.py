"""The replay: stacks bit for bit, n-step returns by brute force, uniform sampling, memory, and its file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from policy_distillation.atari import AtariVector, Step
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.replay import PIXELS, Replay, gather_stacks, store_device
from scipy.stats import chisquare

thorough = settings(max_examples=30, deadline=None, derandomize=True, database=None)
DISCOUNT = 0.9


class Game:
    """A vector environment that stacks like ALE: zeros before a game's first frame, oldest frame first.

    Every frame is unique and says in its first pixels when and where it was seen.
    """

    def __init__(self, slots, rng, ends=0.15, lives=0.1, caps=0.05, repeat_first_frame=False):
        self.slots, self.rng, self.ends, self.lives, self.caps = slots, rng, ends, lives, caps
        self.repeat_first_frame = repeat_first_frame
        self.time = 0
        self.observations = np.zeros((slots, 4, 84, 84), np.uint8)
        for slot in range(slots):
            self._start(slot)

    def _frame(self, slot):
        frame = np.full((84, 84), self.rng.integers(1, 256), np.uint8)
        frame[0, :4] = *divmod(self.time, 256), slot, 7
        return frame

    def _start(self, slot):
        self.observations[slot] = 0
        self.observations[slot, 3] = self._frame(slot)
        if self.repeat_first_frame:
            self.observations[slot, :3] = self.observations[slot, 3]

    def step(self):
        """What Replay.append takes: an observation, and what came of an action."""
        seen = self.observations.copy()
        over, life, cap = (self.rng.random(self.slots) < rate for rate in (self.ends, self.lives, self.caps))
        over &= ~cap
        self.time += 1
        for slot in range(self.slots):
            if over[slot] or cap[slot]:
                self._start(slot)
            else:
                self.observations[slot, :3] = self.observations[slot, 1:].copy()
                self.observations[slot, 3] = self._frame(slot)
        actions = self.rng.integers(0, 18, self.slots)
        rewards = self.rng.integers(-3, 4, self.slots).astype(np.float32)
        return seen, actions, rewards, (over | life) & ~cap, cap, over | cap


def when_and_where(stacks):
    """Time and slot of each stack's newest frame."""
    corner = stacks[:, 3, 0, :3].long()
    return (corner[:, 0] * 256 + corner[:, 1]).tolist(), corner[:, 2].tolist()


def append(replay, observations, actions, *outcome):
    """Rewards, terminations, truncations and ends of episodes, as the environment would hand them over."""
    replay.append(observations, actions, Step(observations, *outcome, episodes=[]))


def fill(replay, game, steps, log):
    for _ in range(steps):
        log.append(game.step())
        append(replay, *log[-1])


def assert_batch_is_right(batch, log, n_step):
    """Compare with the log, one transition at a time, as the definitions say it."""
    for i, (t, slot) in enumerate(zip(*when_and_where(batch.observations), strict=True)):
        assert t + n_step < len(log)  # the state to bootstrap from was seen
        np.testing.assert_array_equal(batch.observations[i].numpy(), log[t][0][slot])
        if batch.weights[i] * batch.discounts[i]:  # else the bootstrap does not count
            np.testing.assert_array_equal(batch.next_observations[i].numpy(), log[t + n_step][0][slot])
        assert batch.actions[i] == log[t][1][slot]
        total, discount, weight = 0.0, 1.0, 1.0
        for k in range(n_step):
            _, _, rewards, terminations, truncations, _ = log[t + k]
            total += discount * rewards[slot]
            discount *= DISCOUNT
            if terminations[slot]:
                discount = 0.0
                break
            if truncations[slot]:
                weight = 0.0  # what the return would have been is unknown, so the rest does not matter
                break
        assert batch.weights[i] == weight
        if weight:
            assert batch.returns[i].item() == pytest.approx(total, abs=1e-5)
            assert batch.discounts[i].item() == pytest.approx(discount, abs=1e-6)
    assert batch.observations.dtype == batch.next_observations.dtype == torch.uint8
    assert batch.actions.dtype == torch.int64
    assert batch.returns.dtype == batch.discounts.dtype == batch.weights.dtype == torch.float32


@thorough
@given(
    seed=st.integers(0, 10**6),
    slots=st.integers(1, 3),
    n_step=st.integers(1, 3),
    spare=st.integers(0, 9),
    steps=st.integers(8, 45),
    ends=st.sampled_from([0.0, 0.05, 0.3, 0.9]),
)
@example(seed=0, slots=2, n_step=3, spare=5, steps=45, ends=0.3)  # wraps four times
@example(seed=0, slots=1, n_step=1, spare=0, steps=40, ends=0.0)  # the smallest store, one endless game
@example(seed=0, slots=3, n_step=2, spare=9, steps=8, ends=0.9)  # not full yet
def test_samples_are_what_was_appended(seed, slots, n_step, spare, steps, ends):
    rng = np.random.default_rng(seed)
    replay = Replay((5 + n_step + spare) * slots, slots, n_step, DISCOUNT)
    game, log = Game(slots, rng, ends, lives=ends / 2, caps=ends / 3), []
    fill(replay, game, steps, log)
    assert len(replay) == min(steps, 5 + n_step + spare) * slots
    for _ in range(3):
        batch = replay.sample(24, rng)
        assert_batch_is_right(batch, log, n_step)
        fill(replay, game, 1, log)


def test_a_game_longer_than_a_byte_can_count():
    rng = np.random.default_rng(0)
    replay, game, log = Replay(24, 2, 1, DISCOUNT), Game(2, rng, ends=0, lives=0, caps=0), []
    fill(replay, game, 264, log)
    assert_batch_is_right(replay.sample(60, rng), log, 1)


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
def test_samples_of_the_real_emulator(n_step):
    protocol = replace(PROTOCOLS["paper2015"], max_episode_frames=300)
    env = AtariVector("breakout", protocol, "train", 2, seed=0, num_threads=1)
    replay = Replay(200, 2, n_step, DISCOUNT)
    rng = np.random.default_rng(0)
    observations, log = env.reset(), []
    places = {}
    for t in range(260):
        actions = rng.integers(0, 4, 2)
        step = env.step(actions)
        log.append((observations, actions, step.rewards, step.terminations, step.truncations, step.episode_ends))
        append(replay, *log[-1])
        for slot in range(2):
            places.setdefault((observations[slot].tobytes(), int(actions[slot])), []).append((t, slot))
        observations = step.observations
    env.close()
    assert any(step[3].any() for step in log[-90:])
    assert any(step[4].any() for step in log[-90:])
    batch = replay.sample(300, rng)
    for i in range(300):
        # Frames of a real game may repeat: one of the transitions that look like this one must be this one.
        key = (batch.observations[i].numpy().tobytes(), int(batch.actions[i]))
        candidates = [(t, slot) for t, slot in places[key] if 163 <= t < 260 - n_step]
        assert any(matches(batch, i, log, t, slot, n_step) for t, slot in candidates)


def matches(batch, i, log, t, slot, n_step):
    alive, total, weight = 1.0, 0.0, 1.0
    for k in range(n_step):
        total += DISCOUNT**k * alive * log[t + k][2][slot]
        weight *= 1 - alive * log[t + k][4][slot]
        alive *= 1 - log[t + k][3][slot]
    return (
        (weight * alive == 0 or np.array_equal(batch.next_observations[i].numpy(), log[t + n_step][0][slot]))
        and batch.weights[i].item() == weight
        and batch.returns[i].item() == pytest.approx(total, abs=1e-5)
        and batch.discounts[i].item() == pytest.approx(alive * DISCOUNT**n_step, abs=1e-6)
    )


def scripted(n_step, terminations=(), truncations=(), ends=(), steps=12):
    """A store of one slot with reward 1, 2, 4, ...; returns a function from a time to its sampled transition."""
    game = Game(1, np.random.default_rng(0), ends=0, lives=0, caps=0)
    replay = Replay(100, 1, n_step, DISCOUNT)
    for t in range(steps):
        observations, actions, *_ = game.step()
        flags = (np.array([t in times]) for times in (terminations, truncations, ends))
        append(replay, observations, actions, np.float32([2**t]), *flags)
    batch = replay.sample(500, np.random.default_rng(0))
    times, _ = when_and_where(batch.observations)

    def at(t):
        i = times.index(t)
        return batch.returns[i].item(), batch.discounts[i].item(), batch.weights[i].item()

    return at


def test_returns_without_an_end():
    at = scripted(3)
    assert at(4) == pytest.approx((16 + 0.9 * 32 + 0.81 * 64, 0.9**3, 1))


def test_returns_stop_at_a_termination():
    at = scripted(3, terminations=[6])
    assert at(3) == pytest.approx((8 + 0.9 * 16 + 0.81 * 32, 0.9**3, 1))
    assert at(4) == pytest.approx((16 + 0.9 * 32 + 0.81 * 64, 0, 1))
    assert at(5) == pytest.approx((32 + 0.9 * 64, 0, 1))
    assert at(6) == pytest.approx((64, 0, 1))
    assert at(7) == pytest.approx((128 + 0.9 * 256 + 0.81 * 512, 0.9**3, 1))


def test_transitions_across_a_truncation_do_not_count():
    at = scripted(3, truncations=[6], ends=[6])
    assert [at(t)[2] for t in (3, 4, 5, 6, 7)] == [1, 0, 0, 0, 1]


def test_a_truncation_after_a_termination_changes_nothing():
    at = scripted(3, terminations=[5], truncations=[6], ends=[6])
    assert at(4) == pytest.approx((16 + 0.9 * 32, 0, 1))
    assert at(5) == pytest.approx((32, 0, 1))
    assert at(6)[2] == 0


@pytest.mark.parametrize("steps", [15, 20, 47])
@pytest.mark.parametrize("n_step", [1, 3])
def test_sampling_is_uniform_over_the_valid_times_and_slots(steps, n_step):
    slots, times, draws = 2, 20, 6_000
    replay, game, log = Replay(slots * times, slots, n_step, DISCOUNT), Game(slots, np.random.default_rng(1)), []
    fill(replay, game, steps, log)
    oldest = max(0, steps - times)
    counts = {(t, slot): 0 for t in range(oldest + 3, steps - n_step) for slot in range(slots)}
    rng = np.random.default_rng(2)
    for _ in range(draws // 200):
        for place in zip(*when_and_where(replay.sample(200, rng).observations), strict=True):
            counts[place] += 1  # an invalid place is a KeyError
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_equal_generators_draw_equal_batches():
    replay = Replay(60, 2, 1, DISCOUNT)
    fill(replay, Game(2, np.random.default_rng(0)), 20, [])
    one, same, other = (replay.sample(32, np.random.default_rng(seed)).observations for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_million_transitions_fit_into_7_5_gigabytes():
    replay = Replay(1_000, 8, 3, DISCOUNT)
    arrays = [value for value in vars(replay).values() if isinstance(value, torch.Tensor | np.ndarray)]
    assert sum(array.nbytes for array in arrays) / 1_000 * 1_000_000 <= 7.5e9
    fill(replay, Game(8, np.random.default_rng(0)), 130, [])
    assert len(replay) == 1_000
    assert sum(array.nbytes for array in arrays) / 1_000 >= PIXELS  # it is the frames that were counted


def test_capacity_is_rounded_down_to_whole_vector_steps():
    replay = Replay(31, 3, 1, DISCOUNT)
    fill(replay, Game(3, np.random.default_rng(0)), 12, [])
    assert len(replay) == 30


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_store_too_small_to_sample_from_is_refused(n_step):
    replay = Replay(2 * (5 + n_step), 2, n_step, DISCOUNT)
    fill(replay, Game(2, np.random.default_rng(0)), 30, [])
    replay.sample(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="too small"):
        Replay(2 * (5 + n_step) - 1, 2, n_step, DISCOUNT)


def test_samples_of_games_whose_first_frame_repeats():
    replay, log = Replay(60, 2, 2, DISCOUNT, repeat_first_frame=True), []
    game = Game(2, np.random.default_rng(0), ends=0.3, repeat_first_frame=True)
    fill(replay, game, 50, log)
    assert_batch_is_right(replay.sample(300, np.random.default_rng(1)), log, 2)


def test_stacks_gathered_from_a_store_that_wraps():
    # Four frames of one slot; the newest stands in row 1, so its stack is rows 2, 3, 0, 1.
    frames = torch.arange(1, 5, dtype=torch.uint8)[:, None].expand(4, PIXELS).contiguous()
    for age, expected in (
        (4, [3, 4, 1, 2]),
        (3, [3, 4, 1, 2]),
        (2, [0, 4, 1, 2]),
        (1, [0, 0, 1, 2]),
        (0, [0, 0, 0, 2]),
    ):
        stack = gather_stacks(frames, torch.full((4,), age, dtype=torch.uint8), torch.tensor([1]), slots=1)
        assert stack.shape == (1, 4, 84, 84)
        assert [int(frame.unique()) for frame in stack[0]] == expected


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sampling_on_a_gpu_does_not_wait_for_it():
    replay, rng = Replay(40, 2, 2, DISCOUNT, device="cuda"), np.random.default_rng(0)
    replay.filled = replay.times
    replay.sample(8, rng)  # warms up
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = replay.sample(8, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch.observations.is_cuda


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_store_on_the_gpu_holds_and_samples_the_same(tmp_path):
    rng = np.random.default_rng(0)
    game, log = Game(2, rng), []
    stores = [Replay(40, 2, 2, DISCOUNT, device=device) for device in ("cpu", "cuda")]
    fill(stores[0], game, 33, log)
    for step in log:
        append(stores[1], *step)
    stores[1].save(tmp_path / "replay.h5")
    stores.append(Replay(40, 2, 2, DISCOUNT, device="cuda"))
    stores[2].load(tmp_path / "replay.h5")
    stores[0].save(tmp_path / "cpu.h5")
    stores[0].load(tmp_path / "cpu.h5")  # loading marks the newest step
    cpu, _, loaded = (vars(store.sample(50, np.random.default_rng(1))) for store in stores)
    for name, values in cpu.items():
        assert loaded[name].is_cuda
        assert torch.equal(loaded[name].cpu(), values), name


def test_a_store_lies_on_the_host_without_a_gpu():
    assert store_device(1, torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(("size", "place"), [(500, "cuda"), (501, "cpu")])
def test_a_store_takes_at_most_half_of_a_gpus_free_memory(monkeypatch, size, place):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert store_device(size, torch.device("cuda")) == torch.device(place)


@pytest.mark.parametrize("steps", [0, 1, 9, 20, 33])
@pytest.mark.parametrize("larger", [0, 7])
def test_save_and_load(tmp_path, steps, larger):
    slots, n_step = 2, 2
    rng = np.random.default_rng(steps)
    replay, game, log = Replay(20 * slots, slots, n_step, DISCOUNT), Game(slots, rng), []
    fill(replay, game, steps, log)
    replay.save(tmp_path / "replay.h5")
    loaded = Replay((20 + larger) * slots, slots, n_step, DISCOUNT)
    fill(loaded, Game(slots, rng, ends=0, caps=0), larger, [])  # what was there before is forgotten
    loaded.load(tmp_path / "replay.h5")
    assert len(loaded) == len(replay)
    if not log:
        fill(loaded, Game(slots, rng), 20, log)
        assert_batch_is_right(loaded.sample(40, rng), log, n_step)
        return
    # The emulators start new games: what came after the newest step will never be known.
    last = log[-1]
    log[-1] = (*last[:4], ~last[3], np.ones(slots, bool))
    if steps > 3 + n_step:
        assert_batch_is_right(loaded.sample(100, rng), log, n_step)
    for slot in range(slots):
        game._start(slot)
    for _ in range(30):
        fill(loaded, game, 1, log)
        if len(log) > 3 + n_step:
            assert_batch_is_right(loaded.sample(30, rng), log, n_step)


def test_loading_keeps_terminations_of_the_newest_step(tmp_path):
    replay = Replay(20, 2, 1, DISCOUNT)
    game = Game(2, np.random.default_rng(0), ends=0, lives=0, caps=0)
    for _ in range(8):
        observations, actions, rewards, *_ = game.step()
        nothing = np.zeros(2, bool)
        append(replay, observations, actions, rewards, np.array([True, False]), nothing, nothing)
    replay.save(tmp_path / "replay.h5")
    replay.load(tmp_path / "replay.h5")
    for _ in range(2):
        append(replay, *game.step())
    batch = replay.sample(300, np.random.default_rng(0))
    times, slots = when_and_where(batch.observations)
    newest = [(slots[i], batch.weights[i].item()) for i in range(300) if times[i] == 7]
    assert set(newest) == {(0, 1.0), (1, 0.0)}  # lost a life: complete; cut by the restart: unknown


def test_a_replay_that_does_not_fit_is_refused_by_name(tmp_path):
    path = tmp_path / "replay.h5"
    replay = Replay(40, 2, 1, DISCOUNT)
    fill(replay, Game(2, np.random.default_rng(0)), 20, [])
    replay.save(path)
    for other in (Replay(38, 2, 1, DISCOUNT), Replay(60, 3, 1, DISCOUNT), Replay(40, 1, 1, DISCOUNT)):
        with pytest.raises(ValueError, match="does not fit") as caught:
            other.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert len(str(caught.value).splitlines()) == 1
