"""`python -m prometheus.slo`: write rules/slo.yml and its tests from slo.yml."""

import sys
from pathlib import Path

from prometheus.slo import rules, ruletests
from prometheus.slo.objectives import SloError, load

PROMETHEUS = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write both files; return 1, with a line on stderr, if slo.yml cannot be used."""
    try:
        slo = load(PROMETHEUS / "slo.yml")
    except SloError as error:
        print(error, file=sys.stderr)
        return 1
    (PROMETHEUS / "rules/slo.yml").write_text(rules.rules(slo), encoding="utf-8")
    tests = PROMETHEUS.parent / "tests/rules"
    (tests / "slo.yml").write_text(ruletests.tests(slo), encoding="utf-8")
    (tests / "slo-windows.yml").write_text(ruletests.window_tests(slo), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
