"""Places: whose code a frame runs, the application's own or a library's, and what its function is called.

A place is named as it stays over deploys, Pythons and processes: `module:function`, without path and line. A
Jinja template is named by its path relative to the application.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import CodeType, FrameType, TracebackType
from typing import Any

from exporter.labels import clean

# An application that compiles templates or rules without end has code without end.
_LIMIT = 2000
_NAME_LIMIT = 200
_HERE = os.path.dirname(os.path.abspath(__file__))
# Python 3.12 gives most comprehensions no frame of their own.
_PARTS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


class Kind(Enum):
    """What a function is to the application."""

    OWN = auto()
    LIBRARY = auto()
    PART = auto()
    """A comprehension: part of the function around it, whoever's that is."""
    GATE = auto()
    """The exporter's, where requests come in: what is outside of it has not been measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One function, or one template. Two places are the same only as objects."""

    where: str
    """`module:function`, or the path of a template."""
    kind: Kind
    code: CodeType
    debug_info: str = ""
    """Which lines of a template its code comes from, as Jinja writes it."""

    def line(self, instruction: int) -> int:
        """The line of the instruction at this offset (`f_lasti`, `tb_lasti`); 0 where there is none."""
        for start, end, line in self.code.co_lines():
            if start <= instruction < end and line:
                return self._template_line(line)
        return 0

    def _template_line(self, line: int) -> int:
        if not self.debug_info:
            return line
        pairs = (pair.split("=") for pair in self.debug_info.split("&"))
        return max((int(shown) for shown, compiled in pairs if int(compiled) <= line), default=1)


class Places:
    """The places of one service, which may have several applications; for all threads."""

    def __init__(self) -> None:
        self._kinds = dict.fromkeys(_libraries(), Kind.LIBRARY)
        self._kinds[_HERE] = Kind.LIBRARY
        self._kinds[os.path.join(_HERE, "measure")] = Kind.GATE
        self._home = ""
        self._roots: dict[str, tuple[str, Kind]] = {}
        self._places: dict[int, Place] = {}

    def add(self, import_name: str, root_path: str) -> None:
        """Tell of an application: its package is its own code, also where it has been installed."""
        self._home = self._home or _normal(root_path)
        for path in (*_package(import_name), root_path):
            for spelling in _spellings(path):
                self._kinds.setdefault(spelling, Kind.OWN)  # a module in site-packages does not own them
        self._roots.clear()
        self._places.clear()

    def of(self, code: CodeType, module: Mapping[str, Any]) -> Place:
        """The place of a code object with these globals: 0.1 µs for one that has been asked for before."""
        place = self._places.get(id(code))
        if place is None:
            if len(self._places) >= _LIMIT:
                self._places.clear()
            # It keeps its code, so no other one gets the same id.
            place = self._places[id(code)] = self._make(code, module)
        return place

    def around(self, frame: FrameType | None) -> Iterator[tuple[Place, FrameType]]:
        """The places from a frame out to where the request came in, each with its frame."""
        places = self._places
        while frame is not None:
            # A call for each frame would take half as long again.
            place = places.get(id(frame.f_code)) or self.of(frame.f_code, frame.f_globals)
            if place.kind is Kind.GATE:
                return
            yield place, frame
            frame = frame.f_back

    def passed(self, traceback: TracebackType | None) -> Iterator[tuple[Place, TracebackType]]:
        """The application's own places that an exception has passed, outermost first."""
        while traceback is not None:
            frame = traceback.tb_frame
            place = self.of(frame.f_code, frame.f_globals)
            if place.kind is Kind.OWN:
                yield place, traceback
            traceback = traceback.tb_next

    def _make(self, code: CodeType, module: Mapping[str, Any]) -> Place:
        root, kind = self._root(code.co_filename)
        name = module.get("__name__")
        if not isinstance(name, str) or name == code.co_filename:  # Jinja's templates are no modules
            where = _relative(code.co_filename, root or self._home)
            lines = str(module.get("debug_info"))
            return Place(clean(where)[:_NAME_LIMIT], kind, code, lines if _DEBUG_INFO(lines) else "")
        if code.co_name in _PARTS:
            kind = Kind.PART
        function = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has the name alone
        return Place(clean(f"{name}:{function}")[:_NAME_LIMIT], kind, code)

    def _root(self, file: str) -> tuple[str, Kind]:
        """The nearest known path that a file lies in, and what its code is; "" where there is none."""
        root = self._roots.get(file)
        if root is None:
            if len(self._roots) >= _LIMIT:
                self._roots.clear()
            root = self._roots[file] = self._find(file)
        return root

    def _find(self, file: str) -> tuple[str, Kind]:
        if file.startswith("<"):  # no file: the interpreter's, or made from a text
            return "", Kind.LIBRARY
        path, parent = "", _normal(file)
        while path != parent:
            path, parent = parent, os.path.dirname(parent)
            if path in self._kinds:
                return path, self._kinds[path]
        return "", Kind.OWN


_DEBUG_INFO = re.compile(r"\d+=\d+(&\d+=\d+)*").fullmatch


def _libraries() -> Iterator[str]:
    """Where Python keeps itself, and what has been installed."""
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for path in (*installed, *site.getsitepackages(), site.getusersitepackages()):
        yield from _spellings(path)


def _package(import_name: str) -> Iterator[str]:
    """Where the outermost package of a module lies that is no namespace; the file of a module without one."""
    spec = getattr(sys.modules.get(import_name), "__spec__", None)
    name = getattr(spec, "name", import_name)  # of __main__, what `python -m` was given
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:end]))
        file = getattr(module, "__file__", None)
        if file:
            yield from getattr(module, "__path__", (file,))
            return


def _spellings(path: str) -> set[str]:
    return {_normal(path), _normal(os.path.realpath(path))}


def _normal(path: str) -> str:
    return os.path.normcase(os.path.abspath(path))


def _relative(path: str, root: str) -> str:
    if path.startswith("<"):
        return path
    try:
        return os.path.relpath(_normal(path), root or None).replace(os.sep, "/")
    except ValueError:  # another drive
        return os.path.basename(path)
