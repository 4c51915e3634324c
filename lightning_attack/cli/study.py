"""The command `study`: the runs of a study, one after the other, with networks and photos that they share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from lightning_attack.attacks import Attack
from lightning_attack.callbacks.study_progress import StudyProgress
from lightning_attack.callbacks.timing import Timed
from lightning_attack.cli.errors import UsageError, explain
from lightning_attack.cli.launch import LaunchError, is_first
from lightning_attack.cli.mistake import beside, either
from lightning_attack.cli.named import options
from lightning_attack.cli.parser import Parser, with_paths
from lightning_attack.cli.parts import PARTS
from lightning_attack.cli.program import program, program_words
from lightning_attack.cli.study_cell import CellCLI, Shared
from lightning_attack.cli.study_costs import Cost, estimate, show_costs
from lightning_attack.cli.translate import translated
from lightning_attack.cli.yaml_files import check_yaml, read_study
from lightning_attack.common.counted import counted
from lightning_attack.common.errors import UserError
from lightning_attack.common.expanded import expanded
from lightning_attack.data import SegmentationDataModule
from lightning_attack.predict.passes import backward_passes
from lightning_attack.report.screen import print_tables
from lightning_attack.runs.commands import one_line
from lightning_attack.runs.order import write_order
from lightning_attack.runs.store import count_records
from lightning_attack.study.plan import Cell, Study, StudyError, cells, ensemble_of, inline, share


def run(words: list[str]) -> int:
    """Run `study -c FILE`, see `lightning_attack.study.plan.Study`; returns the exit code, as `main` does."""
    parser = _parser("Run every attack of a study on every source.")
    parser.add_argument("-c", "--config", dest="file", type=str | None, metavar="FILE", help="File of the study.")
    parser.add_argument("--results", type=str, default="results", help="Folder of all runs.")
    parser.add_argument("--name", type=str | None, default=None, help="Folder of the study; default: its file's name.")
    parser.add_argument("--cell", type=str | None, default=None, help="k/n: the k-th of n shares, for arrays of jobs.")
    parser.add_argument(
        "--strict",
        type=bool,
        nargs="?",
        const=True,
        default=None,
        help="As --strict of predict: what looks wrong with the networks or their clean result is an error.",
    )
    add_dry_run(parser)
    _refuse_settings(words[1:])
    refuse_second_file(words)
    given = parser.parse_args(with_paths(words[1:]))
    if given.file is None:
        raise UsageError(
            "study needs its file, such as -c configs/studies/scenes.yaml; README.md says what stands in it"
        )
    plan = read(Path(given.file))
    if given.strict is not None:
        plan.strict = given.strict
    folder = Path(expanded(given.results)) / (given.name or Path(given.file).stem)
    return run_study(plan, Path(given.file), folder, words, given.cell, given.dry_run)


def run_study(
    plan: Study, file: Path, folder: Path, words: Sequence[str], cell: str | None = None, dry_run: bool = False
) -> int:
    """Run a study; returns the exit code.

    Args:
        plan: the study.
        file: where it stands.
        folder: of its runs.
        words: of the command line.
        cell: `k/n`, the share of its cells; None: all.
        dry_run: time a batch of each source, and write nothing.

    Raises:
        UsageError: it cannot be run as it is written.
    """
    try:
        every = cells(plan, file.parent)
        found = share(every, cell)
        for attack in {one.attack for one in found if isinstance(one.attack, str)}:
            check_yaml(Path(attack))
        images = _images(plan)
        passes = _passes(found, plan)
    except StudyError as error:
        raise UsageError(f"{file}: {error}") from error
    if not found:  # of an array of more jobs than cells, which is no mistake
        if is_first():
            print(f"Nothing to do: of the study's {counted(len(every), 'cell')} none is in the share --cell={cell}")
        return 0
    done = [count_records(folder / one.name) for one in found]
    cost = [Cost(one, max(images - finished, 0)) for one, finished in zip(passes, done, strict=True)]
    if dry_run:
        seconds, memory = time_cells(plan, found, cost, folder)
        if is_first():
            show_costs([one.name for one in found], images, cost, seconds, memory)
        return 0
    order = [one.name for one in every]
    return run_cells(plan, found, cost, folder, [*program_words(), *words], order)


def refuse_second_file(words: Sequence[str]) -> None:
    """Raise `UsageError` for a second file, of which nothing would be merged with the first."""
    files = [value for option, value in options(words) if option in ("-c", "--config")]
    if len(files) > 1:
        raise UsageError(f"a study has one file; given: {' and '.join(files)}\nwrite what is in them into one")


def _refuse_settings(words: Sequence[str]) -> None:
    """Raise `UsageError` if something that stands in a study's file is given as an option."""
    for word in words:
        option, _, value = word.removeprefix("--").partition("=")
        first, *inner = option.split(".")
        if word[:2] != "--" or first not in {*Study.__dataclass_fields__} - {"strict"}:
            continue
        line = f"{first}: {''.join(f'{{{key}: ' for key in inner)}{value or 'VALUE'}{'}' * len(inner)}"
        raise UsageError(f"'{option}' is no option of study: it is written in the study's file\nwrite there: {line}")


def add_dry_run(parser: Parser) -> None:
    """The option `--dry-run`, of `benchmark` too."""
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="Show the cells and what they cost by a timed batch of each source, and write nothing.",
    )


def _parser(description: str = "") -> Parser:
    return Parser(prog=f"{program()} study", description=description)


def read(file: Path) -> Study:
    """The study in a file."""
    if not file.is_file():
        raise UsageError(f"--config: there is no file '{file}' in '{Path.cwd()}'{beside(file)}")
    parser = _parser()
    parser.add_class_arguments(Study, "study")
    content = read_study(file)
    if not isinstance(content, Mapping):
        raise UsageError(f"'{file}' is no study: it needs networks, attacks and sources")
    content = {key: value for key, value in content.items() if value is not None}
    unknown = [key for key in content if key not in Study.__dataclass_fields__]
    if unknown:
        raise UsageError(f"'{file}': there is no option '{unknown[0]}'\nknown: {', '.join(Study.__dataclass_fields__)}")
    if missing := [key for key in ("networks", "attacks", "sources") if key not in content]:
        model = content.get("model")
        run = isinstance(model, Mapping) and "source" in model
        single = "; a file for a single run goes to predict -c" if run else ""
        raise UsageError(f"'{file}' is no study: it has no {either(missing)}{single}")
    _check_attacks(file, content["attacks"])
    networks = content["networks"]
    if isinstance(networks, Mapping) and (empty := [name for name, part in networks.items() if part is None]):
        part = "{class_path: TrainedModel, init_args: {file: FILE}}"
        raise UsageError(
            f"{file}: networks: '{empty[0]}' is empty\nwrite {empty[0]}: {part} (or another class: SMPModel, ...)"
        )
    try:
        parser.parse_object({"study": content})
    except UsageError as error:
        raise UsageError(f"{file}: {str(error).replace('study.', '')}") from error
    return Study(**content)


def _check_attacks(file: Path, attacks: object) -> None:
    """Attacks with settings need names, so that they stand in a mapping, not in a list."""
    for attack in attacks if isinstance(attacks, list) else ():
        if not isinstance(attack, Mapping):
            continue
        name, settings = next(iter(attack.items()), ("pgd", {}))
        if "class_path" in attack:
            name, settings = str(attack["class_path"]).rpartition(".")[2], attack.get("init_args") or {}
        part = inline({"class_path": name, "init_args": settings if isinstance(settings, dict) else {}})
        raise UsageError(
            f"{file}: attacks: a list has names and files only; given: {inline(attack)}\n"
            f"with settings, all of them need names of your own: attacks: {{mine: {part}, pgd: pgd}}"
        )


def run_cells(
    plan: Study,
    found: list[Cell],
    costs: Sequence[Cost],
    folder: Path,
    command: Sequence[str],
    order: Sequence[str],
) -> int:
    """Run cells, each in its own folder below `folder`; returns the exit code.

    A cell goes on where it was stopped; of one that is done no image is attacked again. A signal ends the study as it
    ends a run. If images were left out of a cell (exit code 3), the next ones are run all the same.

    Args:
        plan: the study.
        found: its cells.
        costs: what is to be done in each.
        folder: of the study.
        command: the words that started it.
        order: the names of all cells, in which reports have them.
    """
    code, shared = 0, Shared()
    first = is_first()
    work = [cost.work for cost in costs]
    with StudyProgress([cell.name for cell in found], work, str(folder), first) as progress:
        for number, cell in enumerate(found):
            progress.begin(number)
            begin = time.monotonic()
            try:
                done = _run_cell(plan, cell, folder, shared, progress)
            except KeyboardInterrupt:  # between two runs, which take signals themselves
                progress.stopped(one_line(command))
                return 130
            if done.exit_code not in (0, 3):
                progress.stopped(one_line(command))
                return done.exit_code
            if first and number == 0:
                write_order(folder, order)
            code = max(code, done.exit_code)
            progress.end(time.monotonic() - begin)
    if first:
        print_tables([folder / cell.name for cell in found])
        report = one_line([*program_words(), "report", str(folder), "--output", "report"])
        Console().print(f"Results: {folder}; compare them: {report}", soft_wrap=True, markup=False, highlight=False)
    return code


def time_cells(plan: Study, found: list[Cell], costs: Sequence[Cost], folder: Path) -> tuple[list[float], float | None]:
    """Seconds that each cell will take and bytes per photo, by a few batches that are timed; nothing is written."""
    memory: list[float] = []
    shared, progress = Shared(), StudyProgress([], [], shown=False)

    def time_cell(place: int) -> tuple[Timed, int]:
        done = _run_cell(plan, found[place], folder, shared, progress, "--dry_run=true")
        assert done.timed is not None
        memory.extend([] if done.timed.memory is None else [done.timed.memory])
        return done.timed, done.trainer.world_size

    seconds = estimate(costs, [cell.source for cell in found], time_cell)
    return seconds, max(memory, default=None)


def _run_cell(plan: Study, cell: Cell, folder: Path, shared: Shared, progress: StudyProgress, *more: str) -> CellCLI:
    words = [*cell.words(plan), f"--results={folder}", f"--run_name={cell.name}", *more]
    others = () if plan.targets else {*plan.networks} - {cell.source}
    try:
        return CellCLI(words, shared, progress, others)
    except LaunchError:  # of no cell in particular, and said by every process
        raise
    except (UserError, OSError) as error:
        raise UsageError(f"cell '{cell.name}': {translated(error)}") from error


def _images(plan: Study) -> int:
    parser = _parser()
    parser.add_class_arguments(SegmentationDataModule, "data")
    try:
        return len(parser.instantiate(parser.parse_object({"data": plan.data})).data.indices())
    except (UsageError, ValueError, TypeError, OSError) as error:
        raise StudyError(_said(error)) from error


def _passes(found: Sequence[Cell], plan: Study) -> list[float | None]:
    """Backward passes per image of each cell; what is wrong with an attack is said here, before anything is run."""
    parser = _parser()
    parser.add_subclass_arguments(Attack, "attack")
    known: dict[object, float | None] = {}
    passes = []
    for cell in found:
        key = *ensemble_of(plan.networks[cell.source]), *cell.attack_words()
        if key not in known:
            try:
                attack = parser.instantiate(parser.parse_args(cell.attack_words())).attack
            except (UsageError, ValueError, TypeError) as error:
                raise StudyError(f"cell '{cell.name}': {_said(error)}") from error
            known[key] = backward_passes(attack, *key[:2])
        passes.append(known[key])
    return passes


def _said(error: Exception) -> str:
    """What is wrong, in two lines."""
    return str(error) if isinstance(error, UsageError) else explain(str(error), (), PARTS)
