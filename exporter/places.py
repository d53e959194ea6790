"""Places: the function of a frame, and its owner, the application or a library.

The name of a place is the same in all deploys, Pythons and processes: `module:function`, without path and
line. The name of a Jinja template is its path relative to the application.
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
from importlib.metadata import distributions
from itertools import accumulate
from types import CodeType, FrameType, TracebackType
from typing import Any

from exporter.labels import clean

# A limit, because an application may compile any number of templates or rules.
_LIMIT = 2000
_NAME_LIMIT = 200
_HERE = os.path.dirname(os.path.abspath(__file__))
# Python 3.12 gives most comprehensions no frame of their own.
_PARTS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


class Kind(Enum):
    """The owner of a function."""

    OWN = auto()
    LIBRARY = auto()
    PART = auto()
    """A comprehension, which is part of the function around it."""
    GATE = auto()
    """The exporter's own, where a request comes in; frames outside of it are not measured."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One function, or one template. Places are compared by identity."""

    where: str
    """`module:function`, or the path of a template."""
    kind: Kind
    code: CodeType
    debug_info: str = ""
    """The lines of the template for the lines of its code, as Jinja writes them."""

    def line(self, instruction: int) -> int:
        """The line of the instruction at this offset (`f_lasti`, `tb_lasti`); 0 for none."""
        for start, end, line in self.code.co_lines():
            if start <= instruction < end and line:
                return self._template_line(line)
        return 0

    def _template_line(self, line: int) -> int:
        if not self.debug_info:
            return line
        pairs = (pair.split("=") for pair in self.debug_info.split("&"))
        return max((int(template) for template, code in pairs if int(code) <= line), default=1)


class Places:
    """The places of one service, which may have several applications; all threads may use it."""

    def __init__(self) -> None:
        self._kinds = dict.fromkeys(_libraries(), Kind.LIBRARY)
        self._kinds[_HERE] = Kind.LIBRARY
        self._kinds[os.path.join(_HERE, "measure")] = Kind.GATE
        self._home = ""
        self._roots: dict[str, tuple[str, Kind]] = {}
        self._places: dict[int, Place] = {}

    def add(self, import_name: str, root_path: str) -> None:
        """Add an application: its package is its own code, even in site-packages."""
        self._home = self._home or _normal(root_path)
        for path in _package(import_name):
            self._kinds.update(dict.fromkeys(_spellings(path), Kind.OWN))
        for spelling in _spellings(root_path):
            self._kinds.setdefault(spelling, Kind.OWN)  # a single module does not own site-packages
        self._roots.clear()
        self._places.clear()

    def of(self, code: CodeType, module: Mapping[str, Any]) -> Place:
        """The place of a code object with these globals; costs 0.1 µs for a place that exists."""
        place = self._places.get(id(code))
        if place is None:
            if len(self._places) >= _LIMIT:
                self._places.clear()
            # The place keeps its code, so no other code gets the same id.
            place = self._places[id(code)] = self._make(code, module)
        return place

    def around(self, frame: FrameType | None) -> Iterator[tuple[Place, FrameType]]:
        """The places from a frame outwards to the gate, each with its frame."""
        places = self._places
        while frame is not None:
            # The table first, because a call for each frame would take half as long again.
            place = places.get(id(frame.f_code)) or self.of(frame.f_code, frame.f_globals)
            if place.kind is Kind.GATE:
                return
            yield place, frame
            frame = frame.f_back

    def own(self, traceback: TracebackType | None) -> Iterator[tuple[Place, TracebackType]]:
        """The application's own places in a traceback, outermost first."""
        while traceback is not None:
            frame = traceback.tb_frame
            place = self.of(frame.f_code, frame.f_globals)
            if place.kind is Kind.OWN:
                yield place, traceback
            traceback = traceback.tb_next

    def _make(self, code: CodeType, module: Mapping[str, Any]) -> Place:
        root, kind = self._root(code.co_filename)
        name = module.get("__name__")
        if not isinstance(name, str) or name == code.co_filename:  # a Jinja template, which is no module
            where = _relative(code.co_filename, root or self._home)
            lines = str(module.get("debug_info"))
            return Place(clean(where)[:_NAME_LIMIT], kind, code, lines if _DEBUG_INFO(lines) else "")
        if code.co_name in _PARTS:
            kind = Kind.PART
        function = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has no qualified name
        return Place(clean(f"{name}:{function}")[:_NAME_LIMIT], kind, code)

    def _root(self, file: str) -> tuple[str, Kind]:
        """The nearest known directory above a file, and the kind of its code; "" for none."""
        root = self._roots.get(file)
        if root is None:
            if len(self._roots) >= _LIMIT:
                self._roots.clear()
            root = self._roots[file] = self._find(file)
        return root

    def _find(self, file: str) -> tuple[str, Kind]:
        if file.startswith("<"):  # no file, but the interpreter's own code, or code from a text
            return "", Kind.LIBRARY
        path, parent = "", _normal(file)
        while path != parent:
            path, parent = parent, os.path.dirname(parent)
            if path in self._kinds:
                return path, self._kinds[path]
        return "", Kind.OWN


# The first part of each path in the list of a package's files, without those outside of its directory.
_FIRST_PARTS = re.compile(r"^(?!\.\.)[^/,]+", re.MULTILINE).findall
_DEBUG_INFO = re.compile(r"\d+=\d+(&\d+=\d+)*").fullmatch


def _libraries() -> Iterator[str]:
    """The paths of Python itself and of installed packages."""
    python = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    paths = {*python, *site.getsitepackages(), site.getusersitepackages()}
    for path in paths:
        yield from _spellings(path)
    # `pip install --target` takes any directory, maybe one with code of the application.
    for distribution in distributions(path=[path for path in sys.path if path not in paths]):
        for name in set(_FIRST_PARTS(distribution.read_text("RECORD") or "")):
            yield from _spellings(str(distribution.locate_file(name)))


def _package(import_name: str) -> Iterator[str]:
    """The paths of a module's outermost package that is no namespace; for a single module its file."""
    spec = getattr(sys.modules.get(import_name), "__spec__", None)
    name = getattr(spec, "name", import_name)  # for __main__ the argument of `python -m`
    for package in accumulate(name.split("."), "{}.{}".format):
        module = sys.modules.get(package)
        file = getattr(module, "__file__", None)
        if file:
            yield from getattr(module, "__path__", (file,))
            return


def _spellings(path: str) -> set[str]:
    path = _normal(path)
    return {path, _normal(os.path.realpath(os.path.join(os.sep, path)))}


def _normal(path: str) -> str:
    try:
        return os.path.normcase(os.path.abspath(path))
    except FileNotFoundError:  # a deploy has removed the working directory
        return os.path.normcase(path)


def _relative(path: str, root: str) -> str:
    if path.startswith("<"):
        return path
    try:
        return os.path.relpath(_normal(path), root or None).replace(os.sep, "/")
    except (ValueError, FileNotFoundError):  # another drive, or no working directory
        return os.path.basename(path)
