"""Places on the disk."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The top of the repository."""
