"""A translation that is older than its source is told, with what has changed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import translations


def test_every_translation_is_current() -> None:
    """What the site and the README say in Korean is what they say in English."""
    old = [str(path) for path in translations.translations() if not translations.is_current(path)]

    assert not old, f"python -m docs.translations {' '.join(old)} shows what has changed"


@pytest.mark.parametrize("translation", translations.translations(), ids=lambda path: path.name)
def test_a_translation_has_the_blocks_of_its_source(translation: Path) -> None:
    """Tests run the blocks of the source, so the translation must have the same."""
    source, translated = (
        re.findall(r"^```.*?^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for path in (translations.source_of(translation), translation)
    )

    assert len(source) > 10
    assert translated == source


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A page, its translation, and a later change of the page."""
    for name, text in (
        ("page.md", "# Tea\n\nHot.\n"),
        ("page.ko.md", "---\nsource:\n---\n# 차\n"),
        ("README.md", "# Tea\n"),
        ("README.ko.md", "<!-- source: -->\n# 차\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "tea"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["page.ko.md", "README.ko.md"])
def test_a_change_of_the_source_makes_a_translation_old(repository: Path, name: str) -> None:
    """It is current once it is sealed, old after a change, and the difference is that change."""
    translation = repository / name
    source = translations.source_of(translation)
    assert not translations.is_current(translation)
    translations.seal(translation)
    assert translations.is_current(translation)

    source.write_text("# Tea\n\nIced.\n", encoding="utf-8")

    assert not translations.is_current(translation)
    assert "+Iced." in translations.difference(translation, repository)
    assert set(translations.translations(repository)) == {
        repository / "page.ko.md",
        repository / "README.ko.md",
    }


def test_a_translation_without_a_place_for_its_source(tmp_path: Path) -> None:
    """It is refused by name."""
    (tmp_path / "page.md").write_text("# Tea\n")
    translation = tmp_path / "page.ko.md"
    translation.write_text("# 차\n", encoding="utf-8")

    with pytest.raises(ValueError, match=r"page\.ko\.md has no line `source:`"):
        translations.seal(translation)


@pytest.mark.parametrize("name", ["nowhere.ko.md", "README.md"])
def test_a_file_that_is_no_translation(name: str) -> None:
    """The command names those that are."""
    command = [sys.executable, "-m", "docs.translations", "--seal", name]
    answer = subprocess.run(command, cwd=translations.TOP, capture_output=True, text=True, check=False)

    assert answer.returncode == 2
    assert f"no translation: {translations.TOP / name}; there are README.ko.md" in answer.stderr
