"""The house has floors: imports go down only, importing has no side effect, and only public JAX is used."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "fnn").rglob("*.py"))

# Where a file stands is decided by the longest of these prefixes.
FLOORS = {
    "fnn.ops": 0,
    "fnn.core": 0,
    "fnn.layers": 1,
    "fnn.combinators": 1,
    "fnn.wire": 1,
    "fnn.wrappers": 1,
    "fnn.parametrizations": 1,
    "fnn.metrics": 1,
    "fnn.data": 1,
    "fnn.augment": 1,
    "fnn.trees": 1,
    "fnn.capture": 2,
    "fnn.recurrent": 2,
    "fnn.transformer": 2,
    "fnn.experts": 2,
    "fnn.decoding": 2,
    "fnn.checkpoint": 2,
    "fnn.training": 3,
    "fnn.studies": 4,
    "fnn.__main__": 4,
    "fnn.plot": 5,
}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor_of(module: str) -> tuple[str, int]:
    prefix = max((prefix for prefix in FLOORS if f"{module}.".startswith(f"{prefix}.")), key=len)
    return prefix, FLOORS[prefix]


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} has a relative import"
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


inside = pytest.mark.parametrize(
    "file", [f for f in FILES if f.parent != ROOT / "fnn" or f.name != "__init__.py"], ids=module_of
)


@inside
def test_imports_go_down_only(file: Path) -> None:
    place, floor = floor_of(module_of(file))
    for imported in imports_of(file):
        if imported == "fnn" or imported.startswith("fnn."):
            other, below = floor_of(imported)
            assert below < floor or other == place, f"{module_of(file)} (floor {floor}) imports {imported} ({below})"


@pytest.mark.parametrize("file", sorted((ROOT / "fnn" / "layers").glob("*.py")), ids=module_of)
def test_a_layer_imports_the_ground_floor_alone(file: Path) -> None:
    for imported in imports_of(file):
        if imported.startswith("fnn"):
            assert imported.startswith(("fnn.core", "fnn.ops")), f"{module_of(file)} imports {imported}"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_only_public_jax_is_used(file: Path) -> None:
    text = file.read_text()
    assert "jax._src" not in text
    assert "jax.core" not in text.replace("jax.extend.core", "")


def test_importing_fnn_starts_no_backend_and_changes_no_setting() -> None:
    program = (
        "import jax; before = dict(jax.config.values); import fnn; assert dict(jax.config.values) == before; "
        "from jax.extend import backend; import sys; "
        "assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules; "
        "jax.config.update('jax_platforms', 'nowhere'); "
        "print('quiet')"
    )
    # A backend that is started at import would fail at once: this platform does not exist.
    environment = {**os.environ, "JAX_PLATFORMS": "nowhere"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "quiet", done.stderr
    assert done.stderr == ""
