"""The commands of the scripts in tests/: their options are there. What the scripts do, their own tests run."""

import argparse
import fnmatch
import subprocess

import pytest

from tests.benchmarks import end_to_end, memory, scale, search_transfer, speed
from tests.benchmarks.transfer_candidates import CANDIDATES
from tests.readme import presets_table, strength_table
from tests.readme.pages import COMMANDS

MAINS = {
    "python tests/benchmarks/end_to_end.py": end_to_end.main,
    "python tests/benchmarks/memory.py": memory.main,
    "python tests/benchmarks/scale.py": scale.main,
    "python tests/benchmarks/search_transfer.py": search_transfer.main,
    "python tests/benchmarks/speed.py": speed.main,
    "python -m tests.readme.presets_table": presets_table.run,
    "python -m tests.readme.strength_table": strength_table.main,
}
SCRIPTS = [line for line in COMMANDS if line.startswith(("python tests/", "python -m tests."))]


class ParsedError(Exception):
    """Ends a script after its options were read."""


def words_of(command):
    """The words of a command after the script's name, as bash understands them: it writes out {a,b}."""
    said = subprocess.run(["bash", "-fc", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    words = said.stdout.splitlines()
    return words[3 if words[1] == "-m" else 2 :]


@pytest.mark.parametrize("command", SCRIPTS)
def test_options_are_there(command, monkeypatch):
    parse, (main,) = argparse.ArgumentParser.parse_known_args, [MAINS[one] for one in MAINS if command.startswith(one)]
    parsed = []

    def parse_args(self, words=None):
        parsed.append(parse(self, words))
        raise ParsedError

    name = "parse_known_args" if main is end_to_end.main else "parse_args"
    monkeypatch.setattr(argparse.ArgumentParser, name, parse_args)
    with pytest.raises(ParsedError):
        main(words_of(command))
    ((options, unknown),) = parsed
    assert unknown == []
    for pattern in getattr(options, "candidates", []):
        assert fnmatch.filter(CANDIDATES, pattern), pattern


def test_all_scripts_are_in_a_readme():
    assert all(any(line.startswith(script) for line in SCRIPTS) for script in MAINS)
