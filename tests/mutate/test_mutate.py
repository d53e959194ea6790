"""The tool that changes the exporter: what it changes, and that it tells what is noticed from what is not."""

import ast
from pathlib import Path

import pytest

from tests.mutate.__main__ import Tree, survivors
from tests.mutate.aimed import AIMED
from tests.mutate.equal import EQUAL
from tests.mutate.mutants import Aimed, Mutant, changes, sample
from tests.rig.places import ROOT


@pytest.mark.parametrize("change", AIMED, ids=[change.name for change in AIMED])
def test_an_aimed_change_still_has_its_place(change: Aimed) -> None:
    """Its text is in the code exactly once, the changed code can be compiled, and its tests are there."""
    mutant = change.mutant(ROOT)

    ast.parse(mutant.text)
    assert mutant.text != (ROOT / mutant.file).read_text(encoding="utf-8")
    assert [test for test in mutant.tests if not (ROOT / test).is_file()] == []


def test_aimed_changes_have_names_of_their_own() -> None:
    assert len({change.name for change in AIMED} - {"aimed", "sample"}) == len(AIMED)


@pytest.mark.parametrize("file", EQUAL)
def test_an_equal_change_still_has_its_place(file: str) -> None:
    source = (ROOT / "exporter" / file).read_text(encoding="utf-8")
    possible = {(change.code, change.what) for change in changes(source)}

    assert EQUAL[file].keys() - possible == set()


@pytest.mark.parametrize("text", ["absent", "a"])
def test_an_aimed_change_without_its_place_is_an_error(tmp_path: Path, text: str) -> None:
    """It says how often its text is there."""
    (tmp_path / "exporter").mkdir()
    (tmp_path / "exporter/x.py").write_text("a + a\n")

    with pytest.raises(LookupError, match=rf"x.py has its text {'a + a'.count(text)} times, not once"):
        Aimed("name", "A truth.", "x.py", text, "", ()).mutant(tmp_path)


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("x = a < b", ["x = (a <= b)"]),
        ("x = a is not b", ["x = (a is b)"]),
        ("x = not (a or b)", ["x = (a or b)", "x = not ((a and b))"]),
        ("x = 'é', a + 1", ["x = 'é', (a - 1)", "x = 'é', a + (2)"]),
        ("x: Literal[1] = True", ["x: Literal[1] = (False)"]),
        ("x -= a", ["x += a", "pass"]),
        ("f(\n  a)", ["pass"]),
        ("x.y = z", ["pass"]),
        ("'words'\nx = f'{a + b}'", []),
        ("if TYPE_CHECKING:\n  x = 1", []),
        (
            "@dataclass(frozen=True)\nclass A:\n  x: int = field(init=True)",
            ["@dataclass(frozen=True)\nclass A:\n  x: int = field(init=(False))"],
        ),
        ("def f() -> 'int':\n  return a", ["def f() -> 'int':\n  return None"]),
        ("def f():\n  return None", []),
        ("zip(a, b, strict=True, x=False)", ["pass", "zip(a, b, strict=True, x=(True))"]),
        ("def f():\n  return 0", ["def f():\n  return (1)"]),
        ("_LIMIT = 1 << 16\nLIMIT = 3", ["_LIMIT = 1 << 16\nLIMIT = (4)"]),
    ],
)
def test_one_thing_is_changed_at_a_time(source: str, changed: list[str]) -> None:
    """Comparisons, conditions, constants, sums, statements and results; not names, texts and types."""
    assert [change.applied(source) for change in changes(source)] == changed


def test_a_sample_is_repeated_by_its_seed() -> None:
    """Each change can be compiled, and is covered by tests."""
    mutants = sample(ROOT, 50, 7)

    assert mutants == sample(ROOT, 50, 7) != sample(ROOT, 50, 8)
    assert [mutant.name for mutant in mutants if not ast.parse(mutant.text) or not mutant.tests] == []


@pytest.mark.soak
def test_a_change_is_noticed_and_none_is_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test that does not end notices; one that fails without the change does not. Nothing stays changed.

    Tests that call the changed function come first, those that do not are run, too; of other files those that
    call it.
    """
    text = "def one():\n    return 1\n"
    (tmp_path / "module.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['soak']\n")
    (tmp_path / "test_fit.py").write_text("import module\ndef test_fit():\n    assert module.one() == 1\n")
    (tmp_path / "test_far.py").write_text(
        "def test_far():\n    assert '  return 1' in open('module.py').read()\n"
    )
    (tmp_path / "test_unfit.py").write_text(
        "import module\ndef test_unfit():\n    assert module.one() == 2\ndef test_half():\n    module.one()\n"
    )
    other = "tests/exporter/test_other.py"
    (tmp_path / other).parent.mkdir(parents=True)
    (tmp_path / other).write_text("import module\ndef test_other():\n    assert module.one() < 5\n")
    tree = Tree(tmp_path, patience=1)

    def noticed_by(changed: str, *tests: str) -> str | None:
        return tree.noticed_by(Mutant("name", "what", "module.py", changed, "module.py:1", tests))

    assert noticed_by(text.replace("1", "2"), "test_unfit.py", "test_fit.py") == "test_fit.py::test_fit"
    assert noticed_by(text.replace("return 1", "while True: pass"), "test_fit.py") == "test_fit.py::test_fit"
    assert noticed_by(text, "test_fit.py") is None
    assert noticed_by(text.replace("1", "3"), "test_fit.py") == "test_fit.py::test_fit"
    assert noticed_by(text.replace("1", "2"), "test_unfit.py") is None
    assert noticed_by(text.replace("1", "1 / 0"), "test_unfit.py") == "test_unfit.py::test_half"
    assert noticed_by(text.replace("1", "4"), "test_far.py", "test_fit.py") == "test_fit.py::test_fit"
    assert noticed_by(text.replace("1", "+1"), "test_fit.py", "test_far.py") == "test_far.py::test_far"
    assert noticed_by(text.replace("1", "5"), "test_unfit.py") == f"{other}::test_other"
    assert capsys.readouterr().out == "test_unfit.py::test_unfit fails without a change: it is left out\n"
    assert (tmp_path / "module.py").read_text() == text
    assert sorted({path.name for path in tmp_path.iterdir()} - {"__pycache__"}) == [
        "module.py",
        "pyproject.toml",
        "test_far.py",
        "test_fit.py",
        "test_unfit.py",
        "tests",
    ]


@pytest.mark.soak
def test_the_tests_notice_most_of_a_sample() -> None:
    """A few changes mean nothing, so of eight one or two may survive; the goal is that of `make mutate`."""
    missed = survivors(sample(ROOT, 8, 1))

    assert len(missed) <= 2, [f"{mutant.name} {mutant.what}" for mutant in missed]
