"""Shards that were cut or damaged anywhere: what is whole is found and readable by others, and goes on."""

import io
import tarfile

import pytest

from lightning_attack.common.shards import ShardWriter, members, mend

FILES = {
    "a.png": b"one",
    "town/" + 90 * "long " + "/ü.png": 600 * b"two",  # longer than the head of a file in a tar has room for
    "b.png": b"",
    "c/d.png": 512 * b"3",
}


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "images" / "0000_0000.tar"
    writer = ShardWriter(path)
    for name, content in FILES.items():
        writer.append(name, content)
    writer.close()
    writer.close()
    return path


def contents(*shards):
    return {name: member.read() for name, member in members(shards).items()}


def by_others(path):
    """What Python's own reader makes of a shard, which is as strict as `tar`."""
    with tarfile.open(path, "r:") as archive:
        return {info.name: archive.extractfile(info).read() for info in archive}


def test_what_is_written_can_be_read(shard):
    assert contents(shard) == by_others(shard) == FILES
    before = shard.read_bytes()
    mend(shard)
    assert shard.read_bytes() == before


def test_cut_at_any_byte(shard):
    whole = shard.read_bytes()
    ends = {name: member.start + member.length for name, member in members([shard]).items()}
    for end in [*range(0, len(whole), 101), *(last + more for last in ends.values() for more in (-1, 0, 1))]:
        shard.write_bytes(whole[:end])
        expected = {name: FILES[name] for name, last in ends.items() if last <= end and (FILES[name] or last < end)}
        if any(not FILES[name] and last == end for name, last in ends.items()):
            expected |= {"b.png": b""}
        assert contents(shard) == expected, end
        mend(shard)
        if expected:
            assert by_others(shard) == contents(shard) == expected
        assert shard.exists() == bool(expected)


def test_a_damaged_head_costs_one_file(shard):
    whole = bytearray(shard.read_bytes())
    start = members([shard])["b.png"].start
    whole[start - 400] ^= 1
    shard.write_bytes(whole)
    assert contents(shard) == {name: content for name, content in FILES.items() if name != "b.png"}


def test_of_two_of_one_name_the_later_one_counts(shard):
    later = ShardWriter(shard.with_name("0001_0000.tar"))
    later.append("a.png", b"new")
    later.append("a.png", b"newer")
    later.close()
    assert contents(shard, shard.with_name("0001_0000.tar")) == FILES | {"a.png": b"newer"}


def test_nothing_stays_of_what_could_not_be_written(shard, monkeypatch):
    path, writes = shard.with_name("0001_0000.tar"), []

    class Full(io.FileIO):
        def write(self, content):
            writes.append(len(content))
            if len(writes) == 3:
                raise OSError(28, "No space left on device")
            return super().write(content[:700])

    monkeypatch.setattr(io, "FileIO", Full)
    writer = ShardWriter(path)
    writer.append("a.png", b"one")
    with pytest.raises(OSError, match="No space left"):
        writer.append("b.png", b"two")
    writer.append("c.png", b"three")
    writer.close()
    assert contents(path) == by_others(path) == {"a.png": b"one", "c.png": b"three"}
    for name in ("../a.png", "/a.png", "a/../../b.png"):
        with pytest.raises(OSError, match="outside of the run's folder"):
            writer.append(name, b"")
    assert {*path.parent.iterdir()} == {shard, path}
