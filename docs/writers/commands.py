"""reference/commands.md: every command, from its parser, its docstring or the Makefile."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import docs.translations
import exporter.__main__
import prometheus.drill.__main__
import prometheus.run.__main__
import prometheus.tools.__main__
from docs.writers.markdown import code, fence, page, section, table
from exporter.commands.screen import HELP

TOP = Path(__file__).resolve().parents[2]

PARSERS = (
    exporter.__main__.parser,
    prometheus.run.__main__.parser,
    prometheus.tools.__main__.parser,
    prometheus.drill.__main__.parser,
    docs.translations.parser,
)
# Modules that take no options; the first paragraph of the docstring says what each does.
WITHOUT_OPTIONS = (
    "prometheus.slo",
    "prometheus.prefix",
    "prometheus.run.dialect",
    "grafana.build",
    "deploy.build",
    "docs.build",
    "app.traffic",
)

_TARGET = re.compile(r"((?:^# .*\n)*)^\.PHONY: ([a-z-]+)\n(?:^[a-z -]+:.*=.*\n)?^\2:.*## (.*)$", re.MULTILINE)


def targets() -> list[tuple[str, str, str]]:
    """Each target of the Makefile with what it does, and the remark above it."""
    makefile = (TOP / "Makefile").read_text(encoding="utf-8")
    return [
        (f"make {name}", text, " ".join(remark.replace("# ", "").split()))
        for remark, name, text in _TARGET.findall(makefile)
    ]


def parsers() -> Iterator[argparse.ArgumentParser]:
    """The parser of each command, and of each of its commands."""
    for make in PARSERS:
        parser = make()
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.values()


def text() -> str:
    """The page."""
    return page(
        "Commands",
        "the Makefile, the parsers of the commands and docs/writers/commands.py",
        section("make", "In a clone. Each makes what it needs.", _make_table()),
        *(_section(parser) for parser in parsers()),
        section(
            "Keys of `top`",
            table(["key", "does"], [[code(key), text] for key, text in HELP]),
        ),
        *(section(code(f"python -m {name}"), _docstring(name)) for name in WITHOUT_OPTIONS),
    )


def _make_table() -> str:
    rows = [[code(name), f"{text}. {remark}".strip(" .")] for name, text, remark in targets()]
    return table(["command", "what it does"], rows)


def _section(parser: argparse.ArgumentParser) -> str:
    rows = [[_name(action), _help(parser, action)] for action in parser._actions if action.dest != "help"]
    return section(
        code(parser.prog),
        _sentence(parser.description or ""),
        fence("sh", parser.usage) if parser.usage else "",
        table(["option", "meaning"], rows),
    )


def _name(action: argparse.Action) -> str:
    value = action.metavar or ("" if action.nargs == 0 else action.dest.upper())
    return code(" ".join([*action.option_strings, str(value)]).strip())


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return "; ".join(f"{code(choice.dest)}: {choice.help}" for choice in action._choices_actions)
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"{text}; required" if action.required and action.option_strings else text


def _docstring(name: str) -> str:
    path = TOP / name.replace(".", "/")
    path = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraphs = text.split("\n\n")
    # A list of variables stands in the settings.
    return "\n\n".join(
        _sentence(one) for one in paragraphs if not re.search(r"^[A-Z_]+  ", one, re.MULTILINE)
    )


def _sentence(text: str) -> str:
    """The text without the name of its command."""
    text = re.sub(r"^`[^`]*`: ", "", text)
    return text[:1].upper() + text[1:]
