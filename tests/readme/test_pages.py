"""READMEs stand beside the things, lead to each other, and name nothing that is not there."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_attack import __version__
from lightning_attack.attacks import PRESETS
from tests.readme.pages import COMMANDS, FILES, PAGES, ROOT, blocks
from tests.test_architecture import FLOORS

README = PAGES["README.md"]
ORDER = (
    "Install", "The main job", "Your own network", "Your own photos", "What comes out", "Compare runs", "On a cluster",
    "GPU", "Limits", "Other tools", "Cite",
)  # fmt: skip
WITHOUT_A_PAGE = {"common", "pictures"}
"""Rooms of a few functions, whose docstrings say all."""


def headings(text):
    """The headings of a page outside of its blocks of code."""
    return re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)


def anchor(heading):
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(text):
    return re.findall(r"\]\(([^)\s]+)\)", text)


def test_the_root_is_short_and_answers_in_order():
    assert len(README.encode()) <= 12_000
    assert headings(README)[1:] == list(ORDER)
    contents = re.search(r"\*\*Contents:\*\*(.*?)\n\n", README, re.DOTALL)[1]
    assert re.findall(r"\[([^\]]+)\]\(#([^)]+)\)", contents) == [(heading, anchor(heading)) for heading in ORDER]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in links(PAGES[page]):
        if link.startswith(("https://", "http://")):
            continue
        path, _, place = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if place:
            assert place in map(anchor, headings(target.read_text())), link


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    named = r"(?<![\w/{*])(?:configs|tests|lightning_attack)/[\w/]+\.(?:yaml|py|sh|sbatch)"
    for name in re.findall(named, PAGES[page]):
        assert (ROOT / name).is_file(), name


def test_the_root_leads_to_every_page():
    found = {"README.md"}
    while True:
        reached = {
            ((ROOT / page).parent / link.partition("#")[0]).resolve().relative_to(ROOT).as_posix()
            for page in found
            for link in links(PAGES[page])
            if link.partition("#")[0].endswith(".md") and "://" not in link
        }
        if reached <= found:
            break
        found |= reached
    assert found == {page for page in PAGES if "ISSUE_TEMPLATE" not in page}


@pytest.mark.parametrize("room", sorted(set(FLOORS) - WITHOUT_A_PAGE))
def test_a_room_says_what_it_may_import(room):
    text = PAGES[f"lightning_attack/{room}/README.md"]
    (said,) = re.findall(r"(?:This package|It) may import (.*?) (?:of|in) this project", text, re.DOTALL)
    if room != "cli":
        assert set(re.findall(r"`([\w.]+)`", said)) == set(FLOORS[room][0])
    assert ".. include:: README.md" in (ROOT / "lightning_attack" / room / "__init__.py").read_text()


def test_files_to_write_have_one_content():
    named = [re.match(r"# (\w+\.\w+)", block)[1] for _, block in blocks("yaml")]
    assert len(named) == len(set(named)), "two files of one name"
    assert {name for name in FILES if name.endswith(".yaml")} == set(named)


def test_some_eighty_attacks():
    assert "some eighty attacks" in README
    assert 75 < len(PRESETS) < 90


def test_no_command_is_left_out():
    """Those of the tool by test_commands, the rest as it says here."""
    elsewhere = {
        "python3 -m venv": ".ci/run", "pip install": ".github/workflows/ci.yml",
        "python -m build": ".github/workflows/ci.yml", "pre-commit": ".github/workflows/ci.yml",
        "ruff": ".ci/run", "mypy": ".ci/run", "bash .ci/run": ".github/workflows/ci.yml",
        "tensorboard": "tests/callbacks/test_overview.py",
        "sbatch configs/cluster": "tests/cli/test_resume.py", "HEAD=node0:29500 NODES=2": "tests/cli/test_resume.py",
        "python tests/benchmarks/": "tests/readme/test_scripts.py",
        "python -m tests.readme.": "tests/readme/test_scripts.py",
        "python -m pdoc": "tests/readme/test_reference.py", "python -m pydoc": "tests/readme/test_reference.py",
        "python -m pytest": "tests/readme/test_commands.py",
    }  # fmt: skip
    words = ("predict", "fit", "export", "report", "figure", "study", "clean", "benchmark", "universal")
    ours = tuple(f"lightning-attack {word} " for word in words)
    assert [line for line in COMMANDS if not f"{line} ".startswith((*ours, *elsewhere))] == []
    for file in elsewhere.values():
        assert (ROOT / file).is_file(), file


def test_workflow_and_hooks_run_what_contributors_are_told():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    # YAML reads the key `on` as true.
    assert {"push", "pull_request"} <= set(workflow[True])
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    run = "\n".join(step.get("run", "") for step in steps)
    ours = "pip install", "python -m build", "pre-commit run", "bash .ci/run"
    for line in (line for line in COMMANDS if line.startswith(ours)):
        assert line in run, line
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    names = {hook["id"] for repository in hooks["repos"] for hook in repository["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy"} <= names


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert {"cff-version", "title", "authors", "message"} <= set(citation)
    headings = re.findall(r"^## \[(.+?)\](?: - (.+))?$", PAGES["CHANGELOG.md"], re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1] == (__version__, str(citation["date-released"]))
    assert f"version = {{{__version__}}}" in README
    eprint = re.search(r"eprint = \{(.+?)\}", README)[1]
    assert Path(citation["references"][0]["url"]).name == eprint
