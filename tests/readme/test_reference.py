"""The generated API reference, and the manual of the presets."""

import pydoc
import shlex
import sys
import warnings

import pdoc.__main__

from lightning_attack.attacks import PRESETS
from tests.readme.pages import COMMANDS, PAGES


def test_reference(tmp_path, monkeypatch):
    """All docstrings and READMEs become pages; a warning, such as an annotation that cannot be read, is an error."""
    (command,) = [line for line in COMMANDS if "pdoc" in line]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", shlex.split(command)[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.__main__.cli()
    page = (tmp_path / "site" / "lightning_attack" / "attacks.html").read_text()
    for preset in PRESETS:
        assert f'id="{preset.__name__}"' in page
    assert "gamma" in page
    for name in PAGES:
        if name.startswith("lightning_attack/"):
            page = (tmp_path / "site" / name.replace("/README.md", ".html")).read_text()
            title = PAGES[name].splitlines()[0].removeprefix("# ")
            assert f">{title}</h1>" in page, name


def test_manual_of_an_attack(monkeypatch, capsys):
    (command,) = [line for line in COMMANDS if "pydoc" in line]
    monkeypatch.setattr(sys, "path", [*sys.path])  # pydoc adds the working directory
    monkeypatch.setattr(sys, "argv", shlex.split(command)[2:])
    pydoc.cli()
    manual = capsys.readouterr().out
    assert "gamma" in manual
    assert "2312.02207" in manual
