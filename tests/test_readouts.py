"""What outputs mean and how an agent acts on them: in files, in play and in the losses."""

import json
import shutil
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from policy_distillation.acting import choose, epsilon_greedy
from policy_distillation.checkpoints import load_agent, load_initial_agent, save_agent
from policy_distillation.dataset_format import DatasetError, seal
from policy_distillation.distill import Recipe, Student
from policy_distillation.evaluate import Evaluation, play_episodes
from policy_distillation.header import CheckpointError, read_metadata
from policy_distillation.hours import RecordedHours
from policy_distillation.losses import make_loss
from policy_distillation.networks import Agent, Network
from policy_distillation.parts import Part
from policy_distillation.play import Play
from policy_distillation.protocols import PROTOCOLS
from policy_distillation.readouts import Readout, Support, describe_acting
from policy_distillation.recording import Dataset, dump_part
from policy_distillation.students import distill_student
from scipy.special import softmax
from scipy.stats import chisquare

TINY = Network((4, 4, 4), 16)
GAMES = {"pong": [0, 1, 3, 4, 11, 12], "breakout": [0, 1, 3, 4]}
SAMPLED = Readout("logits", "sample")
LOGITS = Readout("logits")
C51 = Readout(support=Support(-10.0, 10.0, 51))
OBSERVATIONS = np.random.default_rng(0).integers(0, 256, (3, 4, 84, 84)).astype(np.uint8)


def agent(network=TINY, **readouts):
    torch.manual_seed(0)
    return Agent(network, GAMES, readouts)


def test_an_agent_says_nothing_new_unless_told():
    assert agent().readouts == {"pong": Readout("q_values", "epsilon_greedy", None), "breakout": Readout()}


@pytest.mark.parametrize("controller", [None, 8])
def test_what_outputs_are_survives_the_file(tmp_path, controller):
    network = replace(TINY, controller=controller)
    saved = agent(network, pong=SAMPLED, breakout=C51)
    save_agent(tmp_path / "agent.safetensors", saved, {})
    loaded, metadata = load_agent(tmp_path / "agent.safetensors")
    assert loaded.readouts == {"pong": SAMPLED, "breakout": C51}
    assert metadata["readouts"]["pong"] == {"outputs": "logits", "acting": "sample", "support": None}
    for game in GAMES:
        np.testing.assert_array_equal(loaded.q_values(OBSERVATIONS, game), saved.q_values(OBSERVATIONS, game))
    np.testing.assert_array_equal(
        saved.frozen("float32").q_values(OBSERVATIONS, "breakout"), saved.q_values(OBSERVATIONS, "breakout")
    )


def rewritten(path, change):
    metadata = read_metadata(path)
    change(metadata)
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(tensors, {"policy_distillation": json.dumps(metadata)}))


def test_files_from_before_there_were_readouts_are_read(tmp_path):
    path = tmp_path / "agent.safetensors"
    save_agent(path, agent(), {})
    rewritten(path, lambda metadata: metadata.pop("readouts"))
    assert load_agent(path)[0].readouts == dict.fromkeys(GAMES, Readout())


@pytest.mark.parametrize(
    "readout",
    [
        None,
        3,
        [],
        {},
        {"outputs": "logits"},
        {"outputs": "logits", "acting": "rm -rf", "support": None},
        {"outputs": ["logits"], "acting": "sample", "support": None},
        {"outputs": "q_values", "acting": "sample", "support": None},
        {"outputs": "logits", "acting": "sample", "support": {"lowest": -1, "highest": 1, "atoms": 51}},
        *(
            {"outputs": "q_values", "acting": "epsilon_greedy", "support": support}
            for support in [
                {"lowest": -1, "highest": 1, "atoms": 2**31},
                {"lowest": -1, "highest": 1, "atoms": -1},
                {"lowest": -1, "highest": 1, "atoms": 51.0},
                {"lowest": 1, "highest": -1, "atoms": 51},
                {"lowest": float("nan"), "highest": 1, "atoms": 51},
                {"lowest": -1, "highest": float("inf"), "atoms": 51},
                {"lowest": "a", "highest": 1, "atoms": 51},
                {"lowest": -1, "highest": 1},
                51,
            ]
        ),
    ],
    ids=str,
)
def test_hostile_readouts_are_refused_in_one_line(tmp_path, readout):
    path = tmp_path / "agent.safetensors"
    save_agent(path, agent(), {})
    rewritten(path, lambda metadata: metadata["readouts"].update(pong=readout))
    with pytest.raises(CheckpointError, match="damaged") as refused:
        load_agent(path)
    assert "\n" not in str(refused.value)
    rewritten(path, lambda metadata: metadata.update(readouts={"tetris": Readout().to_json()}))
    with pytest.raises(CheckpointError, match="games that it does not play"):
        load_agent(path)


def test_the_categorical_read_out_is_the_mean_of_the_distribution():
    """Bellemare et al. 2017: Q(x, a) = sum over atoms z of z p(x, a), p the softmax of the outputs."""
    categorical = agent(breakout=Readout(support=Support(-2.0, 5.0, 11)))
    plain = Agent(TINY, {"breakout": range(18)})
    plain.controllers["breakout"] = torch.nn.Linear(16, 4 * 11)
    state = {name.replace("breakout.0.", "breakout."): tensor for name, tensor in categorical.state_dict().items()}
    plain.load_state_dict({name: tensor for name, tensor in state.items() if "pong" not in name})
    rows = plain.q_values(OBSERVATIONS, "breakout").astype(np.float64).reshape(3, 4, 11)
    expected = softmax(rows, axis=2) @ np.linspace(-2, 5, 11)
    np.testing.assert_allclose(categorical.q_values(OBSERVATIONS, "breakout"), expected, atol=1e-6)


def test_a_sampled_policy_takes_actions_as_often_as_its_softmax_says():
    logits = np.array([2.0, 0.0, -1.0, 0.5], np.float32)
    rng = np.random.default_rng(0)
    taken = np.bincount(choose(np.tile(logits, (20_000, 1)), "sample", 0.9, rng), minlength=4)
    assert chisquare(taken, 20_000 * softmax(logits.astype(np.float64))).pvalue > 0.001


def test_seeds_decide_what_is_sampled():
    logits = np.zeros((64, 6), np.float32)
    draws = [choose(logits, "sample", 0.0, np.random.default_rng(seed)).tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_epsilon_greedy_is_what_it_was():
    values = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    expected = epsilon_greedy(values, 0.3, np.random.default_rng(5))
    np.testing.assert_array_equal(choose(values, "epsilon_greedy", 0.3, np.random.default_rng(5)), expected)


def uniform(readout):
    """Equal outputs: greedy, it always takes the first action; sampled, any."""
    even = agent(pong=readout)
    with torch.no_grad():
        for parameter in even.controllers["pong"].parameters():
            parameter.zero_()
    return even


@pytest.mark.slow
@pytest.mark.parametrize(("readout", "kinds"), [(LOGITS, {0}), (SAMPLED, set(range(6)))])
def test_recorded_play_follows_how_the_agent_acts(readout, kinds):
    play = Play("pong", PROTOCOLS["paper2015"], 4, 0)
    assert {action for _ in range(40) for action in play.step(uniform(readout), 0.0).actions.tolist()} == kinds


def test_where_a_student_drives_each_acts_in_its_own_way():
    play = Play("pong", PROTOCOLS["paper2015"], 4, 0)
    steps = [play.step(uniform(LOGITS), 0.0, driver=uniform(SAMPLED), driven=2) for _ in range(40)]
    actions = np.array([step.actions for step in steps])
    assert set(actions[:, :2].ravel().tolist()) == set(range(6))
    assert not actions[:, 2:].any()


@pytest.mark.slow
def test_scores_follow_how_the_agent_acts():
    def returns(readout, epsilon):
        evaluation = Evaluation(2, 2, epsilon)
        return [episode.length for episode in play_episodes(uniform(readout), "pong", "paper2015", evaluation, 0)]

    assert returns(SAMPLED, 0.0) == returns(SAMPLED, 1.0), "epsilon plays no part"
    assert returns(SAMPLED, 0.0) != returns(LOGITS, 0.0)


def test_training_does_not_go_on_from_other_outputs(tmp_path):
    save_agent(tmp_path / "agent.safetensors", agent(pong=LOGITS), {})
    with pytest.raises(CheckpointError, match="its readouts"):
        load_initial_agent(tmp_path / "agent.safetensors", agent())


def test_mse_on_logits_ignores_a_shift_of_each_state():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 6, generator=generator) for _ in range(2))
    shift = 10 * torch.randn(5, 1, generator=generator)
    centred = make_loss("mse", 1.0, "logits")
    torch.testing.assert_close(centred(student + shift, teacher - shift), centred(student, teacher), rtol=1e-4, atol=0)
    difference = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    torch.testing.assert_close(centred(student, teacher), difference.square().sum(1).mean())
    plain = make_loss("mse", 1.0, "q_values")
    assert plain(student + shift, teacher) > 2 * plain(student, teacher)


def test_what_a_student_has_learnt():
    assert recipe(loss="mse").readout(Readout()) == Readout()
    assert recipe(loss="mse").readout(SAMPLED) == SAMPLED
    assert recipe(loss="kl").readout(Readout()) == LOGITS
    assert recipe(loss="advantages").readout(Readout()) == Readout()  # softmax(Q) would be nearly uniform
    assert recipe(loss="advantages").readout(SAMPLED) == SAMPLED
    assert recipe(loss="nll").readout(SAMPLED) == SAMPLED


def test_impossible_readouts():
    with pytest.raises(ValueError, match="sample needs outputs: logits"):
        Readout("q_values", "sample")
    with pytest.raises(ValueError, match="outputs 'value'; allowed: q_values, logits"):
        Readout("value")
    with pytest.raises(ValueError, match="a support belongs to outputs: q_values"):
        Readout("logits", support=Support(0, 1, 2))


def test_people_are_told():
    assert describe_acting(SAMPLED, 0.05) == "sampled from the softmax of its logits"
    assert describe_acting(Readout(), 0.05) == "epsilon-greedy, epsilon 0.05"
    assert describe_acting(Readout()) == "epsilon-greedy"


# Data sets


@pytest.fixture(scope="module")
def sampled_part(tmp_path_factory):
    """A part by a teacher that is sampled from nearly equal logits."""
    folder = tmp_path_factory.mktemp("sampled")
    save_agent(folder / "teacher.safetensors", uniform(SAMPLED), {"protocol": asdict(PROTOCOLS["paper2015"])})
    settings = Dataset(hours_per_part=1, steps_per_hour=128, envs=2, epsilon=0.0)
    dump_part(folder / "teacher.safetensors", "pong", "paper2015", 0, settings, 3, folder / "part.h5", device="cpu")
    return folder / "part.h5"


def test_parts_say_what_they_hold_and_how_the_teacher_acted(sampled_part):
    with Part(sampled_part) as part:
        assert part.readout == SAMPLED
        assert {"outputs": "logits", "acting": "sample"}.items() <= part.describe().items()
        assert set(part.read("actions", 0, 64).ravel().tolist()) == set(range(6)), "sampled, though epsilon is 0"


def with_attributes(path, target, **attributes):
    shutil.copy(path, target)
    with h5py.File(target, "r+") as file:
        for name, value in attributes.items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value
    seal(target)
    return target


@pytest.mark.parametrize(
    "wrong", [{"outputs": "x" * 5000}, {"acting": None}, {"acting": 3}, {"outputs": "q_values"}, {"acting": [1, 2]}]
)
def test_parts_with_impossible_readouts_are_refused(sampled_part, tmp_path, wrong):
    path = with_attributes(sampled_part, tmp_path / "wrong.h5", **wrong)
    with pytest.raises(DatasetError, match="damaged") as refused:
        Part(path)
    assert len(str(refused.value).splitlines()) == 1


def test_predict_samples_where_the_policy_is_sampled():
    player = uniform(SAMPLED).single("pong")
    assert player.readouts == {"pong": SAMPLED}
    taken = {int(player.predict(OBSERVATIONS[0])[0]) for _ in range(60)}
    assert taken == set(range(6))
    assert player.predict(OBSERVATIONS[0], deterministic=True)[0] == 0


def test_an_agent_of_one_game_out_of_several_can_be_saved(tmp_path):
    save_agent(tmp_path / "agent.safetensors", agent(pong=SAMPLED, breakout=C51).single("breakout"), {})
    assert load_agent(tmp_path / "agent.safetensors")[0].readouts == {"breakout": C51}


# Students


def recipe(**changes):
    values = {"optimizer": "adam", "learning_rate": 1e-3, "optimizer_epsilon": 1e-8, "schedule": "constant"}
    values |= {"batch_size": 8, "input_scaling": "unit", "window_hours": 1, "updates_per_hour": 2, "evaluations": 1}
    return Recipe(**{"loss": "kl", "temperature": 0.01, **values, **changes})


def test_the_temperature_belongs_to_the_games_data():
    mixed = recipe(temperature=0.02, logits_temperature=0.7)
    assert mixed.loss_for("q_values") == make_loss("kl", 0.02)
    assert mixed.loss_for("logits") == make_loss("kl", 0.7)
    assert recipe().loss_for("logits") == make_loss("kl", 1.0)
    assert recipe(loss="mse").loss_for("logits") == make_loss("mse", 1.0, "logits")
    assert (
        recipe(loss="mse").loss_for("q_values") == make_loss("mse", 1.0, "q_values") != make_loss("mse", 1.0, "logits")
    )


def test_each_game_of_a_student_is_learnt_by_its_own_teachers_loss():
    torch.manual_seed(0)
    teacher_outputs = torch.tensor([[0.02, 0.0, 0.01, 0.0]])
    losses = {}
    for outputs in ("q_values", "logits"):
        student = Student(agent(), recipe(temperature=0.01), "float32", {"breakout": outputs})
        losses[outputs] = float(student.update("breakout", torch.from_numpy(OBSERVATIONS[:1]), teacher_outputs))
    student_outputs = torch.from_numpy(agent().q_values(OBSERVATIONS[:1], "breakout"))
    assert losses["q_values"] == pytest.approx(float(make_loss("kl", 0.01)(student_outputs, teacher_outputs)), rel=1e-4)
    assert losses["logits"] == pytest.approx(float(make_loss("kl", 1.0)(student_outputs, teacher_outputs)), rel=1e-4)
    assert losses["logits"] < 0.1 * losses["q_values"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, SAMPLED),
        ({"acting": "epsilon_greedy"}, LOGITS),
        ({"acting": "sample", "loss": "nll"}, SAMPLED),
        ({"loss": "mse"}, SAMPLED),
    ],
)
def test_a_student_of_a_sampled_policy_says_how_it_acts(sampled_part, tmp_path, changes, expected):
    evaluation = Evaluation(1, 1, 0.05)
    start = replace(PROTOCOLS["paper2015"], max_episode_frames=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROTOCOLS, "paper2015", start)
        distill_student({"pong": [sampled_part]}, {}, TINY, recipe(**changes), evaluation, 0, tmp_path)
    student, metadata = load_agent(tmp_path / "agent.safetensors")
    assert student.readouts == {"pong": expected}
    assert metadata["teacher_outputs"] == {"pong": "logits"}
    assert "outputs" not in metadata, "whose?"


def test_a_student_of_q_values_cannot_be_sampled_unless_it_learns_a_policy():
    assert recipe(acting="sample").readout(Readout()) == SAMPLED
    with pytest.raises(ValueError, match="a softmax of Q-values is nobody's policy"):
        recipe(acting="sample", loss="mse").readout(Readout())


def test_parts_whose_teachers_act_differently_are_no_one_data_set(sampled_part, tmp_path):
    other = with_attributes(sampled_part, tmp_path / "other.h5", acting="epsilon_greedy")
    with pytest.raises(DatasetError, match="its readout differs"):
        RecordedHours({"pong": [sampled_part, other]})
