"""`make reference` writes docs/reference from the code, the rules and the commands."""

from pathlib import Path

from docs.writers import alerts, commands, http, log, metrics, series, settings, words

REFERENCE = Path(__file__).parent / "reference"


def documents() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    return {
        "alerts.md": alerts.text(),
        "commands.md": commands.text(),
        "http.md": http.text(),
        "log.md": log.text(),
        "metrics.md": metrics.text(),
        "recorded-series.md": series.text(),
        "settings.md": settings.text(),
        "words.md": words.text(),
    }


def main() -> None:
    """Write every page, and delete those that no longer exist."""
    texts = documents()
    for path in REFERENCE.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
