"""Seeds, generator state, progress files, devices and the orderly stop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from policy_distillation import training
from policy_distillation.joblog import logging_to
from policy_distillation.optimizers import make_optimizer
from policy_distillation.training import (
    generator_state,
    prepare_process,
    restore_generator,
    select_device,
    select_precision,
    stream,
)

names = st.lists(st.one_of(st.text(max_size=12), st.integers(0, 10**6)), min_size=1, max_size=4)


def draws(seed: tuple[int, ...]) -> list[int]:
    return np.random.default_rng(seed).integers(0, 2**63, 4).tolist()


@given(st.integers(0, 2**31), names, names)
def test_streams_of_distinct_names_are_distinct(seed, one, other):
    same = [str(name) for name in one] == [str(name) for name in other]
    assert (stream(seed, *one) == stream(seed, *other)) == same
    assert stream(seed, *one) != stream(seed + 1, *one)


def test_streams_that_the_project_uses_draw_different_numbers():
    uses = [
        stream(seed, use, game, part)
        for seed in (0, 1, 2)
        for use in ("training", "dataset", "exploration", "progress")
        for game in ("pong", "breakout")
        for part in (0, 1, 10)
    ]
    assert len({tuple(draws(use)) for use in uses}) == len(uses)
    # The same names must give the same stream in another process, so nothing may depend on Python's salted hash().
    assert stream(3, "dataset", "pong", 1) == (3, 3080733136, 559432015, 2212294583)


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_a_restored_generator_goes_on_where_the_other_was(seed, drawn):
    rng = np.random.default_rng(seed)
    rng.integers(0, 10, drawn, dtype=np.int32)  # an odd number of 32-bit draws leaves half a word buffered
    state = generator_state(rng)
    expected = rng.integers(0, 1000, 8, dtype=np.int32).tolist() + rng.random(3).tolist()
    other = np.random.default_rng(0)
    restore_generator(other, state)
    assert other.integers(0, 1000, 8, dtype=np.int32).tolist() + other.random(3).tolist() == expected


def test_auto_device_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert select_device("auto").type == "cuda"
    assert select_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device("auto").type == "cpu"


@pytest.mark.parametrize(
    ("name", "device", "flags", "capability", "expected"),
    [
        ("auto", "cuda", "", (8, 0), "bfloat16"),
        ("auto", "cuda", "amx_bf16", (7, 5), "float32"),  # an older GPU emulates it, whatever the CPU beside it does
        ("auto", "cpu", "avx2 avx512_bf16", (7, 5), "bfloat16"),
        ("auto", "cpu", "amx_bf16", None, "bfloat16"),
        ("auto", "cpu", "avx2 avx512f", (9, 0), "float32"),
        ("float32", "cuda", "amx_bf16", (9, 0), "float32"),
        ("bfloat16", "cpu", "", None, "bfloat16"),
        ("bfloat16", "cuda", "", (7, 5), "bfloat16"),
    ],
)
def test_precision(monkeypatch, name, device, flags, capability, expected):
    monkeypatch.setattr(training, "cpu_info", lambda: flags)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert select_precision(name, torch.device(device)) == expected


def test_rmsprop_is_the_papers_and_adam_has_its_epsilon():
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    rmsprop = make_optimizer("rmsprop", parameters, 2.5e-4, 0.01)
    assert isinstance(rmsprop, torch.optim.RMSprop)
    group = rmsprop.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"], group["centered"], group["momentum"]) == (
        2.5e-4,
        0.95,
        0.01,
        True,
        0,
    )
    adam = make_optimizer("adam", parameters, 3e-4, 1e-5)
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.param_groups[0]["lr"], adam.param_groups[0]["eps"]) == (3e-4, 1e-5)


def test_prepare_process_seeds_torch():
    threads = torch.get_num_threads()
    prepare_process(4, threads)
    one = torch.rand(3)
    prepare_process(4, threads)
    assert torch.equal(torch.rand(3), one)
    assert torch.get_num_threads() == threads


def test_a_jobs_log_gets_its_output_and_its_traceback(tmp_path, capsys):
    with logging_to(tmp_path / "logs" / "job.log"):
        print("fine")
    with pytest.raises(SystemExit) as stopped, logging_to(tmp_path / "logs" / "job.log"):
        raise ValueError("the one line")
    assert stopped.value.code == 1
    text = (tmp_path / "logs" / "job.log").read_text()
    assert text.startswith("fine\n")  # a rerun appends
    assert "Traceback" in text
    assert capsys.readouterr() == ("", "ValueError: the one line\n")
    with pytest.raises(SystemExit) as stopped, logging_to(tmp_path / "logs" / "job.log"):
        raise SystemExit(143)
    assert stopped.value.code == 143  # an orderly stop is no failure
