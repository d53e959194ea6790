"""Whatever bytes a parser gets, it takes them or says that they are none of ours."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def test_every_target_has_a_corpus() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)


@pytest.mark.parametrize("name", [str(path.relative_to(CORPUS)) for path in sorted(CORPUS.glob("*/*"))])
def test_inputs_of_the_corpus_and_their_like(name: str) -> None:
    """As they are, cut anywhere, and with bytes changed."""
    path = CORPUS / name
    target, data, chance = TARGETS[path.parent.name], path.read_bytes(), random.Random(path.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of settings that nobody knows
        target(data)
        for _ in range(100):
            changed = bytearray(data[: chance.randrange(len(data) + 1)])
            for _ in range(chance.randrange(4)):
                if changed:
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
            target(bytes(changed))


@pytest.mark.soak
def test_five_minutes_of_fuzzing_find_nothing() -> None:
    """Coverage-guided; `make fuzz` does so for an hour."""
    pytest.importorskip("atheris", reason="atheris cannot be installed on this Python")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "300"], capture_output=True, text=True, check=False
    )
    print(done.stdout)

    assert done.returncode == 0, done.stdout + done.stderr
