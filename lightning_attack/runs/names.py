"""Names of all files and folders of a run. No other module spells them.

results/
  pgd_net/version_0/            a run without a name; or results/my_run/ with one
    transfer.json, .csv         the summary
    settings.json               what must be the same when the run goes on
    command.txt, config.yaml    how it was started (config.yaml is written by the command line)
    events.out.tfevents.*       TensorBoard
    images/NAME.png             adversarial images
    images/0000_0001.tar        or many of them in one file: in the first part of the run, of process 1
    panels/00000003.png         strips of panels, by the image's place in the data set
    records/0000_0001.segment   counts of images, from which all figures follow: of process 0, in its second part
    records/00000003.record     in runs of older versions: counts of one image
    skipped/00000003.json       images that could not be used
    dropped_images.json         images that `clean --images` has deleted
    .lock, .lock.*, .stop       of a run that is under way
  my_run.old_0/                 what `--fresh` has replaced
  my_study/study.json           the order of a study's runs, which lie beside it
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

SUMMARY, TABLE = "transfer.json", "transfer.csv"
SETTINGS, COMMAND, CONFIG = "settings.json", "command.txt", "config.yaml"
STUDY = "study.json"
DROPPED = "dropped_images.json"
STOP = ".stop"
LOCK = ".lock"
HOLDER = f"{LOCK}.holder"
_IMAGES, _PANELS, _RECORDS, _SKIPPED = "images", "panels", "records", "skipped"
_REPLACED = re.compile(r".+\.old_\d+")


def run_title(attack: str, source: str) -> str:
    """Folder of the runs that have no name of their own.

    Example:
        >>> run_title("pgd", "my net/2")
        'pgd_my_net_2'
    """
    return re.sub(r"[^\w.-]+", "_", f"{attack}_{source}")


def free_version(parent: Path) -> Path:
    """The first `version_N` below a folder that does not exist."""
    return _first_free(parent, "version")


def free_replaced(folder: Path) -> Path:
    """The first `<folder>.old_N` that does not exist."""
    return _first_free(folder.parent, f"{folder.name}.old")


def was_replaced(folder: Path) -> bool:
    """Whether `--fresh` gave a folder its name.

    Example:
        >>> was_replaced(Path("results/mine.old_0")), was_replaced(Path("results/mine"))
        (True, False)
    """
    return _REPLACED.fullmatch(folder.name) is not None


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return (folder / SUMMARY).exists() or (folder / SETTINGS).exists()


def image_path(folder: Path, name: str) -> Path:
    """The adversarial image of a name, which may have folders in it."""
    return images_folder(folder) / image_name(name)


def image_name(name: str) -> str:
    """The path of an adversarial image below the folder of these, and in a shard."""
    return f"{name}.png"


def images_folder(folder: Path) -> Path:
    """Where a run's adversarial images lie."""
    return folder / _IMAGES


def shard_path(folder: Path, part: int, process: int) -> Path:
    """The adversarial images that a process has appended, in one of the parts of the run."""
    return images_folder(folder) / f"{part:04d}_{process:04d}.tar"


def shard_files(folder: Path) -> list[Path]:
    """All shards, those of later parts of the run after those of earlier ones."""
    return sorted(images_folder(folder).glob("[0-9]*_[0-9]*.tar"))


def next_part(folder: Path) -> int:
    """The number of a new part of a run, by the shards that there are."""
    return 1 + max((int(path.stem.partition("_")[0]) for path in shard_files(folder)), default=-1)


def panel_path(folder: Path, index: int) -> Path:
    """The strip of panels of the image at a place in the data set."""
    return folder / _PANELS / f"{index:08d}.png"


def panel_files(folder: Path) -> list[Path]:
    """All strips of panels, in the order of the data set."""
    return sorted((folder / _PANELS).glob("[0-9]*.png"))


def segment_path(folder: Path, process: int, start: int) -> Path:
    """The records that a process has appended, in one of the parts of the run that left some."""
    return folder / _RECORDS / f"{process:04d}_{start:04d}.segment"


def segment_files(folder: Path) -> list[Path]:
    """All segments, by process and start; not those that a killed process was writing anew."""
    return sorted(path for path in (folder / _RECORDS).glob("[0-9]*_[0-9]*.segment"))


def runs_below(folder: Path, links: bool = True) -> Iterator[Path]:
    """The folders of runs at and below a folder, each once; folders inside a run are not searched.

    Args:
        folder: a link too.
        links: whether links to folders are followed, after all that is no link.
    """
    seen, waiting = set[str](), [str(folder)]
    while waiting:
        for place, inside, _ in os.walk(waiting.pop(0)):
            real = os.path.realpath(place)
            inside.sort()
            if real in seen:
                inside.clear()
                continue
            seen.add(real)
            if is_run(Path(place)):
                inside.clear()
                yield Path(place)
            elif links:
                waiting += (link for name in inside if _leads_on(link := os.path.join(place, name)))


def _leads_on(path: str) -> bool:
    """Whether a folder is a link, and none to a folder above it: this is a loop, and leads out of what was named."""
    return os.path.islink(path) and not Path(os.path.realpath(Path(path).parent)).is_relative_to(os.path.realpath(path))


def record_files(folder: Path) -> list[Path]:
    """Records of older versions, one for each image, in the order of the data set; not half-written ones."""
    return sorted(path for path in (folder / _RECORDS).glob("*.record") if path.stem.isdigit())


def skipped_path(folder: Path, index: int) -> Path:
    """The note on an image that could not be used."""
    return folder / _SKIPPED / f"{index:08d}.json"


def skipped_files(folder: Path) -> list[Path]:
    """All notes on images that could not be used, in the order of the data set."""
    return sorted((folder / _SKIPPED).glob("[0-9]*.json"))


def event_path(folder: Path) -> Path:
    """A new file for TensorBoard, named as its own writer does it: by time, machine, process, and a number."""
    title, number = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}", 0
    while (path := folder / f"{title}.{number}").exists():
        number += 1
    return path


def event_files(folder: Path) -> list[Path]:
    """What TensorBoard's writer has left in a folder."""
    return sorted(folder.glob("events.out.tfevents.*"))


def lock_of_process(folder: Path, rank: int) -> Path:
    """The lock of one of several processes; `LOCK` itself is that of the first."""
    return folder / f"{LOCK}.process_{rank}"


def locks_of_processes(folder: Path) -> Iterable[Path]:
    """The locks of all processes but the first, of earlier parts of the run too."""
    return sorted(folder.glob(f"{LOCK}.process_*"))


def unfinished_files(folder: Path) -> list[Path]:
    """What processes that were killed were writing, see `common.atomic.atomic_write`."""
    return sorted(folder.rglob(".*.unfinished.*"))


def _first_free(parent: Path, title: str) -> Path:
    number = 0
    while (parent / f"{title}_{number}").exists():
        number += 1
    return parent / f"{title}_{number}"
