"""Examples are scripts, not a package: their folder is put on the path, as Python does when it runs one."""

import sys
from pathlib import Path

_EXAMPLES = str(Path(__file__).parents[2] / "examples")
if _EXAMPLES not in sys.path:
    sys.path.insert(0, _EXAMPLES)
