"""Fingerprints: they tell bugs apart, independent of values, lines, and the paths of a deploy."""

from __future__ import annotations

from hashlib import blake2b
from traceback import StackSummary, walk_tb
from types import CodeType, FrameType

from exporter.labels import clean
from exporter.observation import Fingerprint, Observation
from exporter.places import Kind, Places
from exporter.worker.errorgroups import ErrorGroups

# Limits, because a chain of exceptions can be a circle, and a recursion can fill the stack.
_LINKS = 8
_FRAMES = 200
_DEPTH = 100_000
_LIMIT = 2000
_NAME_LIMIT = 200

_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"
_LEAF = "The above exception is one of the following group:"

# The frames of Flask that show that a view has failed: the call of a view, and the use of its answer.
_VIEW = frozenset(
    f"flask.app:{name}"
    for method in ("dispatch_request", "make_response")
    for name in (method, f"Flask.{method}")  # Python 3.10 has no qualified names
)


class Fingerprints:
    """Finds the fingerprints of one service's exceptions; costs 2 to 5 µs for one that exists."""

    def __init__(self, places: Places, groups: ErrorGroups) -> None:
        self._places = places
        self._groups = groups
        self._fingerprints: dict[tuple[str, ...], Fingerprint] = {}
        self._names: dict[int, tuple[Kind, str, bool, CodeType]] = {}

    def note(self, observation: Observation, error: BaseException) -> None:
        """Give a request the fingerprint of its exception, and the traceback if the group needs one.

        The exception itself is not kept, because its frames hold the values of all variables.
        """
        route = observation.routed()
        observation.fingerprint = fingerprint = self.of(error, str(route.endpoint) if route else "")
        observation.traceback = traceback_of(error) if self._groups.lacks(fingerprint) else ""

    def of(self, error: BaseException, endpoint: str = "") -> Fingerprint:
        """The fingerprint: the classes of the chain, and the application's outermost and innermost function.

        Each class counts once, so the number of attempts does not matter, and each function at its first
        frame, so the depth of a recursion does not matter. Without any function of the application, those of
        libraries count. If a view has failed, its `endpoint` is the outermost one: views share decorators,
        base classes and helpers.
        """
        names, own_kind = self._names, Kind.OWN
        types: dict[str, None] = {}
        own: dict[str, None] = {}
        outer = inner = where = view = ""
        for link, relation in _links(error):
            if relation is _CONTEXT and not where:  # this exception does not come from the handled one
                where = next(reversed(own), "")
            types[clean(type(link).__name__)[:_NAME_LIMIT]] = None
            # In this loop and with its own table, because a call for each frame took twice as long.
            for frame in _frames(link):
                kind, name, again, _ = names.get(id(frame.f_code)) or self._name(frame)
                if kind is own_kind:
                    if again:
                        own.pop(name, None)
                    own[name] = None
                elif name:
                    inner = name
                    outer = outer or name
                    if name in _VIEW:
                        view = endpoint
        if own:
            outer, inner = next(iter(own)), next(reversed(own))
        return self._fingerprint(*types, view or outer, inner, where or inner or "-")

    def _name(self, frame: FrameType) -> tuple[Kind, str, bool, CodeType]:
        """The kind and the name of a frame's code ("" if it does not count), and the code, to keep its id.

        The third says whether its last frame counts: a template stands in front of the one that it extends,
        and again behind it with its blocks.
        """
        if len(self._names) >= _LIMIT:
            self._names.clear()
        code = frame.f_code
        place = self._places.of(code, frame.f_globals)
        counts = place.kind is Kind.OWN or place.kind is Kind.LIBRARY
        where = place.where if counts else ""
        self._names[id(code)] = name = place.kind, where, ":" not in where, code
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
    """The traceback as Python prints it, without the messages, which may contain values."""
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
    """The frames of an exception, outermost first; of very many the first and the last ones.

    Of an endless recursion only the first ones count, because its end is chance.
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


def _is_group(error: BaseException) -> bool:
    """Whether this is an ExceptionGroup, maybe of the backport; it asks nothing of the error itself."""
    return any(kind.__name__ == "BaseExceptionGroup" for kind in type(error).__mro__)


def _links(error: BaseException) -> list[tuple[BaseException, str]]:
    """The chain of an exception and its origins, each with its relation to the previous one."""
    links = [(error, "")]
    ids = {id(error)}
    origin: BaseException | None
    while len(links) < _LINKS:
        leaves = error.exceptions if _is_group(error) else ()  # type: ignore[attr-defined]
        if leaves:
            # Concurrent tasks fail in any order.
            origin, relation = min(leaves, key=lambda leaf: type(leaf).__name__), _LEAF
        elif error.__cause__ is not None:
            origin, relation = error.__cause__, _CAUSE
        else:
            origin, relation = (None if error.__suppress_context__ else error.__context__), _CONTEXT
        if origin is None or id(origin) in ids:
            break
        error = origin
        ids.add(id(error))
        links.append((error, relation))
    return links
