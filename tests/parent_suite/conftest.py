"""Loaded before the suite's modules, so that the class under test is in place when they import it."""

import unittest_helper  # noqa: F401
