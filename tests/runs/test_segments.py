"""Segments that were cut or damaged anywhere: what is whole is found, what is not is named, nothing wrong is read."""

import warnings
from contextlib import suppress

import numpy as np
import pytest

from lightning_attack.runs.names import segment_files, segment_path
from lightning_attack.runs.records import Record, RecordError, Sparse
from lightning_attack.runs.segments import Frame, SegmentWriter, frames
from lightning_attack.runs.store import RecordStore, keep_records
from tests.runs.kept import packed, write


def record(index, classes=3):
    confusion = np.diag(np.arange(1, classes + 1)) * (index + 1)
    counts = np.stack([np.diag(confusion)] * 3)[None, None, None].repeat(2, 2)
    return Record(index, f"photo{index}", counts, Sparse.of(confusion[None]), {"l2": 0.5}, {"forward": 1}, 0.1)


@pytest.fixture
def segment(tmp_path):
    write(tmp_path, *map(record, (4, 1, 7)))
    (path,) = segment_files(tmp_path)
    return path


def test_cut_at_any_byte(segment, tmp_path):
    whole, before = segment.read_bytes(), packed(tmp_path)
    ends = {frame.image: frame.start + frame.length for frame in frames(segment)}
    for end in range(len(whole)):
        segment.write_bytes(whole[:end])
        store = RecordStore(tmp_path)
        expected = {image: before[image] for image, last in ends.items() if last <= end}
        assert packed(tmp_path) == expected
        assert bool(store.damaged) == (end not in (0, *ends.values()))
        if end % 10 == 0:  # as a run that goes on does; ten times slower than all else here
            keep_records(tmp_path, {1, 4, 7})
            assert (segment.read_bytes() if segment.exists() else b"") == whole[
                : max(map(ends.get, expected), default=0)
            ]
        segment.write_bytes(whole)


def test_any_bit_that_flips_costs_one_record(segment, tmp_path):
    whole, before = segment.read_bytes(), packed(tmp_path)
    for place in range(len(whole)):
        segment.write_bytes(bytes([*whole[:place], whole[place] ^ (1 << place % 8), *whole[place + 1 :]]))
        store, good = RecordStore(tmp_path), {}
        for index in store.indices:
            with suppress(RecordError):
                good[index] = store.packed(index)
        assert good.items() <= before.items()
        assert len(good) == 2


def test_parts_of_a_run_append_to_segments_of_their_own(segment, tmp_path):
    write(tmp_path, record(2))
    later = record(1, classes=2)  # as if it had been attacked again
    write(tmp_path, later)
    other = SegmentWriter(tmp_path, process=1)
    other.close()
    other.append(record(0))
    other.close()
    assert segment_files(tmp_path) == [segment_path(tmp_path, *which) for which in ((0, 0), (0, 1), (0, 2), (1, 0))]
    store = RecordStore(tmp_path)
    assert list(store.indices) == [0, 1, 2, 4, 7]
    assert [one.index for one in store] == [0, 1, 2, 4, 7]
    assert next(store.read([1])).counts.shape[-1] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep_records(tmp_path, {7})
    assert segment_files(tmp_path) == [segment]
    assert [frame.image for frame in frames(segment) if isinstance(frame, Frame)] == [7]


def test_a_disk_that_fills_up_leaves_whole_records(segment, tmp_path, monkeypatch):
    writer = SegmentWriter(tmp_path, process=1)
    writer.append(record(0))
    size = segment_path(tmp_path, 1, 0).stat().st_size

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, content):
            if len(content) < 60:
                raise OSError(28, "No space left on device")
            return self.file.write(content[: len(content) // 2])

        def __getattr__(self, name):
            return getattr(self.file, name)

    writer._file = Full(writer._file)
    with pytest.raises(OSError, match="No space left"):
        writer.append(record(3))
    assert segment_path(tmp_path, 1, 0).stat().st_size == size
    writer._file = writer._file.file
    writer.append(record(5))
    writer.close()
    assert list(RecordStore(tmp_path).indices) == [0, 1, 4, 5, 7]
