"""Python imports this at the start of a command that `python -m exporter run` has started."""

import sys
from contextlib import suppress
from pathlib import Path

try:
    from exporter.servers import watch
except ImportError as error:
    print(f"exporter: {sys.executable} cannot measure anything: {error}", file=sys.stderr)  # noqa: T201
else:
    watch()

# The environment's own one comes next, if it has one; Python's import wants one of them there.
with suppress(ValueError):
    sys.path.remove(str(Path(__file__).parent))
this = sys.modules.pop("sitecustomize")
try:
    import sitecustomize  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "sitecustomize":
        raise
    sys.modules["sitecustomize"] = this
