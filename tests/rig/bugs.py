"""Sixty planted bugs of twenty kinds, as a service that can be deployed anywhere and with other lines.

`python bugs.py DIRECTORY` calls each bug of the deploy in this directory with four arguments, and prints the
groups in which it was counted, as JSON. It imports nothing of the tests: another Python runs it too.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HEAD = """
import asyncio, contextvars, functools, json, random, sqlite3
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, render_template
from flask.views import MethodView
from shop.store import parse, save

app = Flask("shop")
pool = ThreadPoolExecutor(1)
views = {}

def view(function):
    views[function.__name__] = function
    return function

def audited(function):
    @functools.wraps(function)
    def wrapper(**arguments):
        return function(**arguments)
    return wrapper
"""

STORE = """
import sqlite3
{lines}
def parse(text):
    return int(text)
{lines}
def save(value):
    database = sqlite3.connect(":memory:")
    database.execute("create table orders (id text unique)")
    for _ in range(2):
        database.execute("insert into orders values (?)", (value,))
"""

# N at the end of a name is 1 to 3: three bugs of each kind, in one module.
KINDS = {
    "other places": """
@view
def placeN(value):
    raise ValueError(f"bad value {value}")
""",
    "other messages": """
@view
def messageN(value):
    return {}[value]
""",
    "a decorator": """
@view
@audited
def decoratedN(value):
    raise PermissionError(value)
""",
    "an async view": """
@view
async def asyncN(value):
    await asyncio.sleep(0)
    raise LookupError(value)
""",
    "a database's error": """
@view
def queryN(value):
    sqlite3.connect(":memory:").execute(f"select '{value}' from nowhere")
""",
    "a shared helper": """
@view
def savedN(value):
    save(value)
""",
    "undefined in a template": """
@view
def undefinedN(value):
    return render_template("undefinedN.html", value=value)
""",
    "called by a template": """
def calledN(value):
    return [][len(value)]

@view
def callingN(value):
    return render_template("callN.html", call=calledN, value=value)
""",
    "an endless recursion": """
def startN(value, depth):
    return startN(value, depth - 1) if depth else endlessN(value)

def longerN(value):
    return value + "x"

def endlessN(value):
    return endlessN(longerN(longerN(value)))

@view
def recursionN(value):
    return startN(value, random.randrange(9))
""",
    "a recursion of some depth": """
def leafN(value):
    return {}[value]

def downN(value, depth):
    return downN(value, depth - 1) if depth else leafN(value)

@view
def depthN(value):
    return downN(value, random.randrange(1, 500))
""",
    "a mutual recursion": """
def evenN(value, depth):
    return oddN(value, depth - 1) if depth else [][depth]

def oddN(value, depth):
    return evenN(value, depth - 1) if depth else [][depth]

@view
def mutualN(value):
    return evenN(value, random.randrange(2, 100))
""",
    "a group of exceptions": """
def failN(value):
    raise TypeError(value)

@view
def groupN(value):
    errors = []
    for number in range(random.randrange(1, 9)):
        try:
            failN(value)
        except TypeError as error:
            errors.append(error)
    raise ExceptionGroup(value, errors)
""",
    "a task group": """
async def taskN(value):
    await asyncio.sleep(0)
    raise OverflowError(value)

async def tasksN(value):
    async with asyncio.TaskGroup() as group:
        for number in range(random.randrange(1, 9)):
            group.create_task(taskN(value))

@view
def runN(value):
    asyncio.run(tasksN(value))
""",
    "raise from": """
class NoOrderN(Exception):
    pass

@view
def causeN(value):
    try:
        parse(value)
    except ValueError as error:
        raise NoOrderN(value) from error
""",
    "an error in an except block": """
@view
def exceptN(value):
    try:
        parse(value)
    except ValueError:
        {}[value]
""",
    "from None": """
@view
def hiddenN(value):
    try:
        parse(value)
    except ValueError:
        raise RuntimeError(value) from None
""",
    "a comprehension": """
def halfN(value):
    return 1 // (len(value) - len(value))

@view
def comprehendedN(value):
    return str([half for half in (halfN(part) for part in value)])
""",
    "methods of one name": """
class OrdersN(MethodView):
    def get(self, value):
        raise NotImplementedError(value)
views["methodN"] = OrdersN.as_view("methodN")
""",
    "a pool's result": """
def workN(value):
    raise BufferError(value)

@view
def resultN(value):
    return pool.submit(workN, value).result()
""",
    "a lambda": """
@view
def lambdaN(value):
    read = lambda text: json.loads(text)
    return read("{" + value)
""",
}
TEMPLATES = {
    "undefined{}.html": "<p>\n{{{{ value }}}}\n{{% block body %}}{{{{ missing.name }}}}{{% endblock %}}",
    "call{}.html": "{{{{ call(value) }}}}",
}
ARGUMENTS = ("x", "order-17", "zz" * 30, "ö")

NEEDS_GROUPS = {"a group of exceptions", "a task group"}
"""Kinds that Python has from 3.11 on."""


def deploy(directory: Path, lines: int) -> Path:
    """Write the service below this directory, with so many lines more before each function."""
    more = "# moved\n" * lines
    package = directory / "shop"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "store.py").write_text(STORE.replace("{lines}", more))
    parts = [HEAD]
    for kind, source in KINDS.items():
        if kind in NEEDS_GROUPS:
            source = "import sys\nif sys.version_info >= (3, 11):\n" + source.replace("\n", "\n    ")
        parts += [more + re.sub(r"N\b", number, source) for number in "123"]
    (package / "views.py").write_text("\n".join(parts), encoding="utf-8")
    for name, text in TEMPLATES.items():
        for number in "123":
            (package / "templates" / name.format(number)).write_text(more + text.format())
    return directory


def main(directory: str) -> None:
    """Call every bug, and print its groups."""
    sys.path.insert(0, directory)
    from prometheus_client import CollectorRegistry
    from shop.views import app, views  # type: ignore[import-not-found]

    from exporter import FlaskExporter

    log = Path(directory, "requests.jsonl")
    FlaskExporter(app, registry=CollectorRegistry(), request_log=str(log))
    for name, function in views.items():
        app.add_url_rule(f"/{name}/<value>", name, function)
    client = app.test_client()
    for name in views:
        for argument in ARGUMENTS:
            assert client.get(f"/{name}/{argument}").status_code == 500, name
    groups: dict[str, set[str]] = {name: set() for name in views}
    for line in map(json.loads, log.read_text().splitlines()):
        if line["logger"] == "exporter.request" and "status" in line:
            groups[line["endpoint"]].add(line["error_group"])
    print(json.dumps({name: sorted(found) for name, found in groups.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
