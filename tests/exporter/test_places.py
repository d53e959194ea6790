"""Places: own code or a library's, and names that stay over deploys."""

from __future__ import annotations

import importlib
import json
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import flask
import pytest
from flask import Flask, render_template

import exporter
from exporter.places import Kind, Place, Places

SITE = sysconfig.get_path("purelib")
STDLIB = sysconfig.get_path("stdlib")
EXPORTER = str(Path(exporter.__file__).parent)
QUALIFIED = sys.version_info >= (3, 11)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Writes a module below tmp_path, from where it can be imported."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def write(path: str, source: str = "") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        return file

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in repr(sys.modules[name].__spec__):
            del sys.modules[name]


def place_in(places: Places, file: str, module: str = "orders", source: str = "def view(): pass") -> Place:
    """The place of the last function of a module in this file."""
    return places.of(*last_function(file, module, source))


def last_function(file: str, module: str, source: str) -> tuple[CodeType, dict[str, Any]]:
    """The code of the last function of a module, and the names in that."""
    space: dict[str, Any] = {"__name__": module}
    exec(compile(source, file, "exec"), space)
    functions = [value for value in space.values() if hasattr(value, "__code__")]
    return functions[-1].__code__, space


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/srv/shop/views.py", Kind.OWN),
        ("/srv/shared/prices.py", Kind.OWN),
        ("relative.py", Kind.OWN),
        (f"{STDLIB}/json/encoder.py", Kind.LIBRARY),
        (f"{SITE}/flask/app.py", Kind.LIBRARY),
        (f"{STDLIB}/../{Path(STDLIB).name}/json/encoder.py", Kind.LIBRARY),
        (f"{STDLIB}-of-ours/views.py", Kind.OWN),
        (f"{EXPORTER}/log/requestlog.py", Kind.LIBRARY),
        (f"{EXPORTER}/measure/exchange.py", Kind.GATE),
        ("<string>", Kind.LIBRARY),
        ("<frozen importlib._bootstrap>", Kind.LIBRARY),
        ("<template>", Kind.LIBRARY),
    ],
)
def test_the_nearest_known_directory_tells_whose_code_it_is(file: str, kind: Kind) -> None:
    places = Places()
    places.add("shop", "/srv/shop")

    assert place_in(places, file).kind is kind


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/srv/shop/.venv/lib/python3/site-packages/requests/api.py", Kind.LIBRARY),
        ("/srv/shop/.venv/lib/python3/site-packages/shop/views.py", Kind.LIBRARY),
        ("/srv/shop/.venv/bin/serve", Kind.OWN),
    ],
)
def test_an_environment_inside_of_the_application_is_not_its_code(
    file: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: ["/srv/shop/.venv/lib/python3/site-packages"])
    places = Places()
    places.add("__main__", "/srv/shop")

    assert place_in(places, file).kind is kind


@pytest.mark.parametrize(
    ("file", "import_name", "library"),
    [
        ("site/shop/web/views.py", "shop.web.views", "site/other/api.py"),
        ("site/shop.py", "shop", "site/other.py"),
        ("site/company/shop/views.py", "company.shop.views", "site/company/other/api.py"),  # a namespace
    ],
)
def test_an_installed_application_is_its_own_code(
    file: str,
    import_name: str,
    library: str,
    modules: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "site")])
    monkeypatch.syspath_prepend(tmp_path / "site")
    path = modules(file, "")
    for package in ("shop", "shop/web", "company/shop"):
        if (tmp_path / "site" / package).is_dir():
            modules(f"site/{package}/__init__.py", "")
    app = Flask(importlib.import_module(import_name).__name__)
    places = Places()
    places.add(app.import_name, app.root_path)

    kinds = [place_in(places, str(name)).kind for name in (path, tmp_path / library)]
    assert kinds == [Kind.OWN, Kind.LIBRARY]


@pytest.mark.parametrize("directory", ["", "vendor/"])
def test_packages_that_were_installed_into_any_directory_are_libraries(
    directory: str, modules: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `pip install --target`, beside the application's code, or the application too."""
    record = "../../bin/flask,,\nflask/app.py,sha256=x,1\nsix.py,,\nshop/__init__.py,,\n"
    modules(f"{directory}all-1.0.dist-info/RECORD", record)
    modules(f"{directory}shop/__init__.py", "")
    monkeypatch.syspath_prepend(tmp_path / directory)
    places = Places()
    places.add(importlib.import_module("shop").__name__, str(tmp_path))

    files = ("flask/app.py", "six.py", "shop/views.py", "prices.py", "../prices.py")
    kinds = [place_in(places, f"{tmp_path}/{directory}{file}").kind for file in files]
    assert kinds == [Kind.LIBRARY, Kind.LIBRARY, Kind.OWN, Kind.OWN, Kind.OWN]


def test_a_link_to_a_library_is_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib64").symlink_to(tmp_path / "lib")
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path / "lib64")])
    places = Places()

    assert [place_in(places, f"{tmp_path}/{name}/a.py").kind for name in ("lib", "lib64")] == [
        Kind.LIBRARY
    ] * 2


def test_a_working_directory_that_a_deploy_has_removed_is_needed_for_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = last_function("shop.py", "orders", "def view(): pass")
    (tmp_path / "old").mkdir()
    monkeypatch.chdir(tmp_path / "old")
    (tmp_path / "old").rmdir()
    places = Places()
    places.add("shop", ".")

    assert places.of(*function).kind is Kind.OWN
    assert places.of(compile("", "templates/a.html", "exec"), {}).where == "a.html"


@pytest.mark.parametrize(
    ("source", "qualified", "plain"),
    [
        ("def view(): pass", "orders:view", "orders:view"),
        ("view = lambda: 1", "orders:<lambda>", "orders:<lambda>"),
        (
            "class Orders:\n  def get(self): pass\nview = Orders.get",
            "orders:Orders.get",
            "orders:get",
        ),
        (
            "def make():\n  def view(): pass\n  return view\nview = make()",
            "orders:make.<locals>.view",
            "orders:view",
        ),
    ],
)
def test_a_function_is_named_by_its_module_and_its_own_name(source: str, qualified: str, plain: str) -> None:
    where = place_in(Places(), "/srv/shop/views.py", source=source).where

    assert where == (qualified if QUALIFIED else plain)


@pytest.mark.parametrize(
    ("module", "shown"), [("a" * 300, "a" * 200), ("sh\udc80p", "sh\ufffdp:view"), ("ö", "ö:view")]
)
def test_a_name_is_short_and_can_be_written(module: str, shown: str) -> None:
    assert place_in(Places(), "/srv/shop/views.py", module).where == shown


def test_frames_are_told_from_the_innermost_to_the_gate() -> None:
    """What is outside of the exporter has not been measured; comprehensions belong to their function."""
    places = Places()
    frames: list[list[tuple[str, Kind]]] = []

    def look(_: str) -> str:
        frames.append([(place.where, place.kind) for place, _ in places.around(sys._getframe())])
        return ""

    def view() -> None:
        json.loads("{}", object_hook=lambda _: [look(x) for x in "x"])

    space: dict[str, Any] = {"__name__": "exporter.measure.middleware", "view": view}
    exec(compile("def measured(): view()", f"{EXPORTER}/measure/middleware.py", "exec"), space)
    space["measured"]()

    (seen,) = frames
    own = [where.rpartition(":")[2].rpartition(".")[2] for where, kind in seen if kind is Kind.OWN]
    assert own == ["look", "<lambda>", "view"]
    assert ("json:loads", Kind.LIBRARY) in seen
    assert len([where for where, kind in seen if kind is Kind.PART]) == (sys.version_info < (3, 12))


def test_an_exception_has_passed_own_places_outermost_first() -> None:
    places = Places()

    def parse(text: str) -> Any:
        return json.loads(text)

    def view() -> None:
        [parse(text) for text in ("1", "{")]

    try:
        view()
    except ValueError as error:
        own = [
            (place.where.rpartition(":")[2].rpartition(".")[2], place.line(tb.tb_lasti) - tb.tb_lineno)
            for place, tb in places.own(error.__traceback__)
        ]

    assert own == [
        ("test_an_exception_has_passed_own_places_outermost_first", 0),
        ("view", 0),
        ("parse", 0),
    ]


@pytest.fixture
def shop(tmp_path: Path) -> Flask:
    app = Flask("shop", root_path=str(tmp_path))
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/report.html").write_text("\n\n{% block body %}\n{{ look() }}\n{% endblock %}\n")
    return app


def test_a_template_is_named_by_its_path_in_the_application(shop: Flask) -> None:
    places = Places()
    places.add(shop.import_name, shop.root_path)
    seen: list[tuple[str, int]] = []

    def look() -> str:
        seen.extend(
            (place.where, place.line(frame.f_lasti))
            for place, frame in places.around(sys._getframe(1))
            if place.where.endswith(".html")
        )
        return ""

    with shop.app_context():
        render_template("report.html", look=look)

    assert seen[0] == ("templates/report.html", 4)
    assert {where for where, _ in seen} == {"templates/report.html"}


def test_what_jinja_puts_before_the_first_line_of_a_template_belongs_to_it() -> None:
    code = (lambda: None).__code__

    assert Place("a.html", Kind.OWN, code, f"7={code.co_firstlineno + 1}").line(0) == 1
    assert Place("a.html", Kind.OWN, code, f"7={code.co_firstlineno}").line(0) == 7
    assert Place("a.html", Kind.OWN, code, f"7={code.co_firstlineno}").line(10_000) == 0


def test_what_is_not_in_the_code_has_no_line() -> None:
    code = (lambda: None).__code__

    assert [Place("orders:view", Kind.OWN, code).line(at) for at in (-1, 1000)] == [0, 0]


def test_an_exception_names_a_template_as_its_frames_do(shop: Flask) -> None:
    """Jinja puts code of its own making into a traceback, whose module is the template's absolute path."""
    places = Places()
    places.add(shop.import_name, shop.root_path)

    with shop.app_context():
        try:
            render_template("report.html", look=lambda: 1 / 0)
        except ZeroDivisionError as error:
            own = [(place.where, tb.tb_lineno) for place, tb in places.own(error.__traceback__)]

    assert ("templates/report.html", 4) in own
    assert not [where for where, _ in own if shop.root_path in where]


@pytest.mark.parametrize(
    ("template", "where"),
    [
        ("/srv/shop/web/templates/a.html", "templates/a.html"),
        ("/srv/shop/mail/a.html", "../mail/a.html"),
        (f"{SITE}/flask_admin/templates/a.html", "flask_admin/templates/a.html"),
        ("<template>", "<template>"),
    ],
)
def test_a_template_elsewhere_has_the_path_that_a_deploy_keeps(template: str, where: str) -> None:
    places = Places()
    places.add("__main__", "/srv/shop/web")
    code = compile("", template, "exec")

    for module in ({}, {"__name__": template}):  # as Jinja compiles it, and as its tracebacks have it
        assert places.of(code, module).where == where


def test_code_without_end_needs_no_memory_without_end() -> None:
    """And a name never belongs to code that came later to the same address."""
    places = Places()

    for number in range(5000):
        space: dict[str, Any] = {"__name__": "rules"}
        exec(compile(f"def rule{number}(): pass", f"/srv/rules/{number}.py", "exec"), space)
        assert places.of(space[f"rule{number}"].__code__, space).where == f"rules:rule{number}"

    assert len(places._places) <= 2000
    assert len(places._roots) <= 2000


def test_the_place_of_the_same_code_is_the_same_object() -> None:
    places = Places()
    views = [flask.Flask.route, flask.Flask.run]

    first, second = ([places.of(view.__code__, view.__globals__) for view in views] for _ in range(2))
    assert all(place is other for place, other in zip(first, second, strict=True))
    assert [place.kind for place in first] == [Kind.LIBRARY, Kind.LIBRARY]


def test_an_application_that_is_told_of_later_is_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: ["/srv/site"])
    places = Places()
    seen, new = (last_function("/srv/site/shop/views.py", "orders", "def view(): pass") for _ in range(2))
    before = places.of(*seen).kind

    places.add("unknown.name", "/srv/site/shop")

    assert (before, places.of(*seen).kind, places.of(*new).kind) == (Kind.LIBRARY, Kind.OWN, Kind.OWN)
