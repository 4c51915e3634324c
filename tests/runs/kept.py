"""The records of a run as its folder has them, for tests that look at them, drop or damage them."""

import os

from lightning_attack.runs.names import segment_files
from lightning_attack.runs.segments import Frame, SegmentWriter, frames
from lightning_attack.runs.store import RecordStore, keep_records


def packed(folder):
    """The bytes of all records by the image's place in the data set; other bytes are another attack."""
    store = RecordStore(folder)
    return {index: store.packed(index) for index in store.indices}


def drop(folder, *indices):
    keep_records(folder, {*RecordStore(folder).indices} - {*indices})


def frame_of(folder, index):
    """The segment and the frame that hold the record of an image."""
    return next((path, frame) for path in segment_files(folder) for frame in frames(path)
                if isinstance(frame, Frame) and frame.image == index)  # fmt: skip


def damage(folder, index):
    """Flip a bit in the record of an image."""
    path, frame = frame_of(folder, index)
    with path.open("r+b") as file:
        file.seek(frame.start + frame.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def write(folder, *records):
    writer = SegmentWriter(folder, process=0)
    for record in records:
        writer.append(record)
    writer.close()
