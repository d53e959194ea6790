"""What is found in request logs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def log_records(path: Path) -> list[dict[str, Any]]:
    """The records of a log; each line must be whole JSON of printable ASCII."""
    lines = path.read_bytes().split(b"\n")

    assert lines.pop() == b""
    assert all(re.fullmatch(rb"[\x20-\x7e]+", line) for line in lines)
    return [json.loads(line) for line in lines]


def written_lines(path: Path) -> list[bytes]:
    """The lines of a log and of the files that it was rotated into."""
    return [line for file in sorted(path.parent.iterdir()) for line in file.read_bytes().splitlines()]
