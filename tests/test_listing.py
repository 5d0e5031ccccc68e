"""Lists of parts say what the parts are."""

import shutil

import pytest
from policy_distillation.dataset_format import USER_BLOCK, DatasetError, seal
from policy_distillation.listing import read_listing, write_listing


@pytest.fixture
def parts(tmp_path):
    """Sealed, which is all that a list looks at."""
    paths = [tmp_path / f"part{number}.h5" for number in range(11)]
    for path in paths:
        path.write_bytes(bytes(USER_BLOCK) + path.name.encode())
        seal(path)
    return paths


def test_a_list_names_the_parts_and_their_digests(parts, tmp_path):
    write_listing(parts, tmp_path / "parts.txt")
    lines = (tmp_path / "parts.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [path.name for path in parts]
    assert all(line.split()[1].encode() in path.read_bytes() for line, path in zip(lines, parts, strict=True))
    assert read_listing(tmp_path / "parts.txt") == parts
    shutil.copytree(tmp_path, tmp_path / "elsewhere")  # as where each node has its own folder
    assert read_listing(tmp_path / "elsewhere/parts.txt")[0] == tmp_path / "elsewhere/part0.h5"


def test_a_part_that_is_gone_is_told_with_what_to_do(parts, tmp_path):
    """Students wait for the list alone, so Snakemake would not make the part again."""
    write_listing(parts, tmp_path / "parts.txt")
    parts[3].unlink()
    with pytest.raises(DatasetError, match=r"parts.txt: lists part3.h5, which is not there; delete the list, make it"):
        read_listing(tmp_path / "parts.txt")


def test_other_content_is_another_list(parts, tmp_path):
    write_listing(parts, tmp_path / "parts.txt")
    before = (tmp_path / "parts.txt").read_text()
    parts[3].write_bytes(bytes(USER_BLOCK) + b"other data under the same name")
    seal(parts[3])
    write_listing(parts, tmp_path / "parts.txt")
    after = (tmp_path / "parts.txt").read_text()
    assert [a == b for a, b in zip(after.splitlines(), before.splitlines(), strict=True)].count(False) == 1


def test_what_is_no_part_is_not_listed(parts, tmp_path):
    parts[1].write_bytes(b"half a part")
    with pytest.raises(DatasetError, match=r"part1\.h5: not a part of a teacher data set"):
        write_listing(parts, tmp_path / "parts.txt")
    assert not (tmp_path / "parts.txt").exists()
