"""What an interrupted run goes on from: whole or absent, tied to its settings, held by one process at a time."""

import contextlib
import errno
import fcntl
import os
import pickle
from pathlib import Path

import pytest
import torch
from policy_distillation import files, state
from policy_distillation.files import Locked, atomic_path
from policy_distillation.state import State


def make(folder, **settings):
    return State(folder / "state", {"seed": 1, "rate": 0.1} | settings)


def save(kept, content, needed=(), **stored):
    """A state, and files of the given bytes beside it."""
    writers = {name: lambda path, data=data: path.write_bytes(data) for name, data in stored.items()}
    kept.save(content, writers, needed)


class Bomb:
    def __reduce__(self):
        return (os._exit, (99,))


def test_round_trip(tmp_path):
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    content = {
        "step": 7,
        "best": float("-inf"),
        "layer": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rows": [{"step": 1, "return": 0.5}],
        "rng": {"state": str(2**127)},
    }
    assert make(tmp_path).load() is None
    save(make(tmp_path), {"step": 1}, replay=b"old")
    save(make(tmp_path), content, replay=b"frames")
    kept = make(tmp_path)
    loaded = kept.load()
    for name in ("step", "best", "rows", "rng"):
        assert loaded[name] == content[name]
    torch.testing.assert_close(loaded["layer"], dict(content["layer"]), rtol=0, atol=0)
    torch.testing.assert_close(loaded["optimizer"]["state"], content["optimizer"]["state"], rtol=0, atol=0)
    assert kept.stored("replay").read_bytes() == b"frames"
    assert {path.name for path in kept.folder.iterdir()} == {"state.pt", "replay-0.h5", "lock"}


def test_other_settings_start_afresh(tmp_path, capsys):
    save(make(tmp_path), {"step": 7})
    assert make(tmp_path, rate=0.2).load() is None
    assert capsys.readouterr().out.count("made under other settings; starting afresh") == 1
    assert State(tmp_path / "state", {"rate": 0.1, "seed": 1}).load()["step"] == 7  # order does not matter


@pytest.mark.parametrize("saved", [False, True], ids=["unsaved", "saved"])
def test_a_state_of_other_settings_is_found_again_when_they_are_back(tmp_path, saved):
    beside = tmp_path / "state" / "0.safetensors"
    beside.parent.mkdir()
    beside.write_bytes(b"snapshot")
    save(make(tmp_path), {"step": 7}, replay=b"frames", needed=[beside])
    mistaken = make(tmp_path, rate=0.2)
    assert mistaken.load() is None
    assert not beside.exists()  # so that the other run's own may lie there
    if saved:
        beside.write_bytes(b"other snapshot")
        save(mistaken, {"step": 1}, replay=b"other frames", needed=[beside])
    mistaken._lock.close()
    back = make(tmp_path)
    assert back.load()["step"] == 7
    assert back.stored("replay").read_bytes() == b"frames"
    assert beside.read_bytes() == b"snapshot"
    assert len([path for path in back.folder.iterdir() if path.is_dir()]) == saved  # of the mistaken run
    back._lock.close()
    again = make(tmp_path, rate=0.2)
    loaded = again.load()
    assert (loaded["step"] if loaded else None) == (1 if saved else None)
    again.remove()
    assert not (tmp_path / "state").exists()


def test_a_state_that_a_kill_left_half_moved_is_found_again(tmp_path, monkeypatch):
    save(make(tmp_path), {"step": 7}, replay=b"frames")
    replace, moves = Path.replace, []

    def killed(path, target):
        moves.append(path.name)
        if len(moves) == 2:
            raise KeyboardInterrupt
        return replace(path, target)

    for rate in (0.2, 0.1):  # on the way aside, and on the way back
        monkeypatch.setattr(Path, "replace", killed)
        moves.clear()
        state = make(tmp_path, rate=rate)
        with pytest.raises(KeyboardInterrupt):
            state.load()
        state._lock.close()
        assert moves[-1] == "state.pt"
        monkeypatch.setattr(Path, "replace", replace)
        state = make(tmp_path, rate=rate)
        loaded = state.load()
        state._lock.close()
        assert (loaded or {}).get("step") == (7 if rate == 0.1 else None)


@pytest.mark.parametrize("damage", ["empty", "text", "zeros", "half", "tail", "pickle", "list"])
def test_an_unreadable_state_is_set_aside(tmp_path, capsys, damage):
    save(make(tmp_path), {"step": 7, "weights": torch.arange(1000)})
    path = tmp_path / "state" / "state.pt"
    content = path.read_bytes()
    if damage == "list":
        torch.save([1, 2], path)
    else:
        damaged = {"empty": b"", "text": b"step 7\n", "zeros": bytes(len(content)), "pickle": pickle.dumps(Bomb(), 2)}
        damaged |= {"half": content[: len(content) // 2], "tail": content[:-10]}
        path.write_bytes(damaged[damage])
    was = path.read_bytes()
    assert make(tmp_path).load() is None
    assert "unreadable" in capsys.readouterr().out
    save(make(tmp_path), {"step": 8})
    assert make(tmp_path).load()["step"] == 8
    assert path.with_name("state.unreadable.pt").read_bytes() == was  # whoever wants to look can


def test_a_gpus_state_is_read_on_any_machine(tmp_path, monkeypatch):
    """Its tensors say that they lay on a device which is not here."""
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
    save(make(tmp_path), {"step": 7, "weights": torch.arange(5.0)})
    monkeypatch.undo()
    with pytest.raises(RuntimeError):
        torch.load(tmp_path / "state/state.pt", weights_only=True)
    assert make(tmp_path).load()["weights"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EACCES])
def test_a_state_that_cannot_be_read_just_now_is_not_given_up(tmp_path, monkeypatch, code):
    save(make(tmp_path), {"step": 7})

    def refuse(path):
        raise OSError(code, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match="not now"):
            make(tmp_path).load()
    assert make(tmp_path).load()["step"] == 7


def test_a_state_that_does_not_fit_into_memory_is_not_given_up(tmp_path, monkeypatch):
    save(make(tmp_path), {"step": 7})

    def refuse(*arguments, **options):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        with pytest.raises(MemoryError):
            make(tmp_path).load()
    assert make(tmp_path).load()["step"] == 7


@pytest.mark.parametrize("loss", ["missing", "short", "zeros"])
def test_a_state_that_lacks_a_piece_starts_afresh(tmp_path, capsys, loss):
    save(make(tmp_path), {"step": 7}, replay=b"many frames")
    replay = tmp_path / "state/replay-0.h5"
    replay.unlink() if loss == "missing" else replay.write_bytes({"short": b"many", "zeros": bytes(11)}[loss])
    assert make(tmp_path).load() is None
    assert f"{replay}: missing or damaged, so state.pt is of no use; starting afresh" in capsys.readouterr().out


def test_a_save_cut_short_leaves_the_state_before(tmp_path, monkeypatch):
    kept = make(tmp_path)
    save(kept, {"step": 7}, replay=b"old")

    def full_disk(path, data):
        with open(path, "wb") as file:
            file.write(data[:10])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        kept.save({"step": 8}, {"replay": lambda path: path.write_text("new")})
    assert kept.load()["step"] == 7
    assert kept.stored("replay").read_bytes() == b"old"


def test_what_a_kill_leaves_of_a_file_is_overwritten_by_the_next_try(tmp_path):
    kept, tried = make(tmp_path), []
    save(kept, {"step": 7}, replay=b"old")

    def cut_short(path):
        tried.append(path.name)
        path.with_suffix(".part").write_text("half")
        raise OSError("No space left on device")

    for step in (8, 9, 10):
        with pytest.raises(OSError, match="No space left"):
            kept.save({"step": step}, {"replay": cut_short})
    assert tried == ["replay-1.h5"] * 3
    save(kept, {"step": 11}, replay=b"new")
    save(kept, {"step": 12}, replay=b"newer")
    assert {path.name for path in kept.folder.glob("*.h5")} == {"replay-0.h5"}
    assert kept.load()["step"] == 12


def test_a_file_of_the_state_before_that_cannot_be_deleted_stops_nothing(tmp_path, monkeypatch, capsys):
    kept = make(tmp_path)
    save(kept, {"step": 7}, replay=b"old")

    def refuse(path, **options):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "unlink", refuse)
    save(kept, {"step": 8}, replay=b"new")
    assert "replay-0.h5: not removed (Device or resource busy)" in capsys.readouterr().out
    assert kept.load()["step"] == 8
    assert kept.stored("replay").read_bytes() == b"new"


def test_files_that_are_written_once_are_read_once(tmp_path, monkeypatch):
    """An hour of play stays as it is while the states go on: gigabytes, each time."""
    kept = make(tmp_path)
    hour = kept.folder / "hour-pong-3.h5"
    hour.write_bytes(b"frames")
    read = []
    monkeypatch.setattr(state, "file_digest", lambda path: read.append(path.name) or files.file_digest(path))
    for step in (7, 8):
        kept.save({"step": step}, {"replay": lambda path: path.write_bytes(b"x")}, needed=[hour])
    assert read == ["replay-0.h5", "hour-pong-3.h5", "replay-1.h5"]
    hour.write_bytes(b"FRAMES")
    assert kept.load() is None


def test_one_owner_at_a_time(tmp_path):
    kept = make(tmp_path)
    with pytest.raises(Locked) as caught:
        make(tmp_path)
    assert str(caught.value).startswith(f"{kept.folder}: in use by process {os.getpid()} ")
    assert len(str(caught.value).splitlines()) == 1
    save(kept, {"step": 7})
    del kept  # the kernel frees the lock of a process that was killed in the same way
    assert make(tmp_path).load()["step"] == 7


def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch, capsys):
    code = errno.ENOLCK

    def flock(file, operation):
        raise OSError(code, "no")

    monkeypatch.setattr(fcntl, "flock", flock)
    save(make(tmp_path), {"step": 7})
    assert make(tmp_path).load()["step"] == 7
    assert "has no locks" in capsys.readouterr().out
    code = errno.EIO
    with pytest.raises(OSError, match="no"):
        make(tmp_path)


# The end


def test_it_is_removed_with_all_that_lies_beside_it(tmp_path):
    kept = make(tmp_path)
    save(kept, {"step": 7}, replay=b"frames")
    (tmp_path / "state" / "hour-pong-3.h5").write_bytes(b"frames")
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_on_a_network_mount_an_open_file_outlives_its_name(tmp_path, monkeypatch, capsys):
    """NFS and FUSE keep what is deleted while it is open under another name; rmdir fails until it is closed."""
    kept = make(tmp_path)
    save(kept, {"step": 7})
    unlink, rmdir = Path.unlink, Path.rmdir
    hidden = tmp_path / "state" / ".nfs0001"

    def silly_rename(path, **options):
        if path.name == "lock" and not kept._lock.closed:
            path.rename(hidden)
        else:
            unlink(path, **options)

    def rmdir_of_the_mount(path):
        if hidden.exists() and kept._lock.closed:
            unlink(hidden)
        if list(path.iterdir()):
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        rmdir(path)

    monkeypatch.setattr(Path, "unlink", silly_rename)
    monkeypatch.setattr(Path, "rmdir", rmdir_of_the_mount)
    kept.remove()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("refused", ["unlink", "rmdir", "iterdir"])
def test_finished_work_is_not_undone_by_what_cannot_be_deleted(tmp_path, monkeypatch, capsys, refused):
    kept = make(tmp_path)
    save(kept, {"step": 7}, replay=b"frames")

    def refuse(path, **options):
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, refused, refuse)
    kept.remove()
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert ("state.pt: not removed (Device or resource busy); it is no longer needed" in said) == (refused == "unlink")
    assert ("state: not emptied (Device or resource busy); it is no longer needed" in said) == (refused == "iterdir")
    assert (tmp_path / "state/state.pt").exists() == (refused == "unlink")
    make(tmp_path)  # and the lock is free


def test_a_kill_while_it_is_removed_leaves_nothing_to_stumble_over(tmp_path, monkeypatch):
    kept = make(tmp_path)
    save(kept, {"step": 7}, replay=b"frames")
    unlink = Path.unlink

    class Killed(BaseException):
        pass

    def one_and_no_more(path, **options):
        unlink(path, **options)
        raise Killed

    monkeypatch.setattr(Path, "unlink", one_and_no_more)
    with contextlib.suppress(Killed):
        kept.remove()
    monkeypatch.undo()
    kept._lock.close()
    assert make(tmp_path).load() is None


def test_a_folder_that_cannot_be_synced_undoes_nothing(tmp_path, monkeypatch):
    """As on CIFS and sshfs: the rename has happened, so the file is there."""
    fsync = os.fsync

    def refuse_folders(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", refuse_folders)
    with atomic_path(tmp_path / "agent") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["agent"]


@pytest.mark.parametrize(("code", "written"), [(errno.EINVAL, True), (errno.EIO, False)])
def test_a_file_that_cannot_be_synced_is_written_unless_the_disk_is_broken(tmp_path, monkeypatch, code, written):
    def refuse(descriptor):
        raise OSError(code, "no")

    monkeypatch.setattr(files.os, "fsync", refuse)
    with contextlib.suppress(OSError), atomic_path(tmp_path / "agent") as temporary:
        temporary.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == (["agent"] if written else [])


def test_the_format_is_part_of_what_a_state_is_tied_to(tmp_path, monkeypatch):
    save(make(tmp_path), {"step": 7})
    monkeypatch.setattr(state, "FORMAT", f"{state.FORMAT}x")
    assert make(tmp_path).load() is None


def test_a_lock_on_a_file_that_its_last_owner_removed_holds_nobody(tmp_path, monkeypatch):
    """Opened before the removal, locked after it: a third process would lock the file that lies there now."""
    path, flock = tmp_path / "lock", fcntl.flock

    def removed_before(*arguments):
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with files.hold_lock(path), pytest.raises(Locked, match="in use by process"):
        files.hold_lock(path)
