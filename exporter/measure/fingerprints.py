"""Fingerprints: what tells one bug from another, whatever the values, the paths of deploys and the lines."""

from __future__ import annotations

from hashlib import blake2b
from traceback import StackSummary, walk_tb
from types import CodeType, FrameType

from exporter.labels import clean
from exporter.observation import Fingerprint, Observation
from exporter.places import Kind, Places
from exporter.worker.errorgroups import ErrorGroups

# A chain can be a circle, and an endless recursion has as many frames as the stack.
_LINKS = 8
_FRAMES = 200
_DEPTH = 100_000
_LIMIT = 2000
_NAME_LIMIT = 200

_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_LEAF = "The above exception is the first of the following group:"


class Fingerprints:
    """Finds the fingerprints of one service's exceptions: 2 to 5 µs for a kind that was there before."""

    def __init__(self, places: Places, groups: ErrorGroups) -> None:
        self._places = places
        self._groups = groups
        self._fingerprints: dict[tuple[str, ...], Fingerprint] = {}
        self._names: dict[int, tuple[Kind, str, CodeType]] = {}

    def note(self, observation: Observation, error: BaseException) -> None:
        """Give a request the fingerprint of its exception, and the traceback if it is wanted.

        The exception is not kept: its frames hold the values of all variables.
        """
        observation.fingerprint = fingerprint = self.of(error)
        observation.traceback = traceback_of(error) if self._groups.lacks(fingerprint) else ""

    def of(self, error: BaseException) -> Fingerprint:
        """The fingerprint: all classes of the chain, the outermost and the innermost of the own functions.

        Each function counts once, where it is met first: so the depth of a recursion does not matter. Where
        none is the application's own, the libraries' count.
        """
        names, own_kind = self._names, Kind.OWN
        types = []
        own: dict[str, None] = {}
        outer = inner = where = ""
        for link, relation in _links(error):
            if relation is _CONTEXT and not where:  # what was being handled is not where this comes from
                where = next(reversed(own), "")
            types.append(clean(type(link).__name__)[:_NAME_LIMIT])
            # By hand, and in a table of its own: a call for each frame took twice as long.
            for frame in _frames(link):
                kind, name, _ = names.get(id(frame.f_code)) or self._name(frame)
                if kind is own_kind:
                    own[name] = None
                elif name:
                    inner = name
                    outer = outer or name
        if own:
            outer, inner = next(iter(own)), next(reversed(own))
        return self._fingerprint(*types, outer, inner, where or inner or "-")

    def _name(self, frame: FrameType) -> tuple[Kind, str, CodeType]:
        """What a frame's code is, its name ("" where it does not count), and the code, which keeps its id."""
        if len(self._names) >= _LIMIT:
            self._names.clear()
        code = frame.f_code
        place = self._places.of(code, frame.f_globals)
        counts = place.kind is Kind.OWN or place.kind is Kind.LIBRARY
        self._names[id(code)] = name = place.kind, place.where if counts else "", code
        return name

    def _fingerprint(self, *key: str) -> Fingerprint:
        fingerprint = self._fingerprints.get(key)
        if fingerprint is None:
            if len(self._fingerprints) >= _LIMIT:
                self._fingerprints.clear()
            group = blake2b("\n".join(key).encode(), digest_size=6).hexdigest()
            fingerprint = self._fingerprints[key] = Fingerprint(group, key[0], key[-1])
        return fingerprint


def traceback_of(error: BaseException) -> str:
    """The traceback as Python prints it, but for the messages, in which the values are."""
    text = ""
    for link, relation in reversed(_links(error)):
        frames = StackSummary.extract(walk_tb(link.__traceback__), limit=-_FRAMES).format()
        kind = type(link)
        name = (
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        )
        text += f"Traceback (most recent call last):\n{''.join(frames)}{name}\n"
        if relation:
            text += f"\n{relation}\n\n"
    return text


def _frames(error: BaseException) -> list[FrameType]:
    """The frames that an exception has passed, outermost first; of very many the first and the last.

    Where an endless recursion ends is chance: of it there are only the first.
    """
    frames = []
    traceback = error.__traceback__
    for _ in range(_FRAMES if isinstance(error, RecursionError) else _DEPTH):
        if traceback is None:
            break
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    del frames[_FRAMES // 2 : -_FRAMES // 2]
    return frames


def _links(error: BaseException) -> list[tuple[BaseException, str]]:
    """An exception and what it came from, each with what it was to the one before."""
    links = [(error, "")]
    seen = {id(error)}
    source: BaseException | None
    while len(links) < _LINKS:
        leaves = getattr(error, "exceptions", None)  # of an ExceptionGroup, also of the backport's
        if type(leaves) is tuple and leaves and isinstance(leaves[0], BaseException):
            source, relation = leaves[0], _LEAF
        elif error.__cause__ is not None:
            source, relation = error.__cause__, _CAUSE
        else:
            source, relation = (None if error.__suppress_context__ else error.__context__), _CONTEXT
        if source is None or id(source) in seen:
            break
        error = source
        seen.add(id(error))
        links.append((error, relation))
    return links
