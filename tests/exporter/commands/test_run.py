"""`python -m exporter run`: what it starts, and why it cannot; with real servers in servers/test_auto.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import exporter
from exporter.__main__ import main

STARTUP = str(Path(exporter.__file__).parent / "startup")


class Started(Exception):  # noqa: N818  no error
    """The process is another command now."""


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["flask", "--app", "shop", "run"], ["flask", "--app", "shop", "run"]),
        (["--", "flask", "--version"], ["flask", "--version"]),
        (["--", "env", "--", "flask"], ["env", "--", "flask"]),
    ],
)
@pytest.mark.parametrize(("before", "paths"), [(None, STARTUP), ("", STARTUP), ("/a:/b", f"{STARTUP}:/a:/b")])
def test_it_becomes_the_command_that_finds_the_exporter_first(
    words: list[str], command: list[str], before: str | None, paths: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(file: str, arguments: list[str], environ: dict[str, str]) -> None:
        raise Started(file, arguments, environ)

    monkeypatch.setattr(os, "execvpe", start)
    monkeypatch.setenv("SHOP", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    with pytest.raises(Started) as started:
        main(["run", *words])

    assert started.value.args == (command[0], command, {**os.environ, "PYTHONPATH": paths})


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name the command that serves: python -m exporter run -- flask --app shop run\n"),
        (["--"], "name the command that serves: python -m exporter run -- flask --app shop run\n"),
        (["--", "/none", "serve"], "/none: No such file or directory\n"),
    ],
)
def test_what_cannot_be_started_is_said(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *words]) == 2
    assert capsys.readouterr() == ("", reason)


def test_no_command_is_a_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main([])

    assert capsys.readouterr().err.endswith("the following arguments are required: command\n")
