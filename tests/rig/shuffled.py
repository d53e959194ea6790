"""A plugin that shuffles the tests: `SEED=7 python -m pytest -p tests.rig.shuffled tests/exporter`."""

import os
import random

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in the order of the seed, those of different files among each other."""
    random.Random(os.environ["SEED"]).shuffle(items)
