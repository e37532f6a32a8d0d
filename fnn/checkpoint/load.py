"""A tree from a file."""

import warnings
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnn.checkpoint.archive import Archive, opened
from fnn.checkpoint.errors import CheckpointError, CheckpointWarning, MisfitError
from fnn.checkpoint.foreign import From
from fnn.checkpoint.structure import ANYTHING, Spec, differences, leaves_of, outline_of, path_name, spec_of
from fnn.checkpoint.table import ROWS, show_table

Row = tuple[str, str, str]
NOTHING = "nothing"


def load(
    file: str | Path,
    like: Any = None,
    *,
    names: Mapping[str, str | From] | None = None,
    ignore: Sequence[str] = (),
    strict: bool = True,
) -> Any:
    """Read a tree from a file, and check all of it.

    No code comes from the file: it holds arrays and JSON. Checksums, structure, shapes and dtypes are compared, and
    nothing is returned that differs.

    Args:
        file: That `save` wrote, or any other safetensors file, such as PyTorch and the Hugging Face hub have.
        like: A tree of the wanted structure: arrays, such as ``net.init`` makes, or specs, such as `jax.eval_shape`
            makes. Arrays come back as this tree has them: of JAX, on its devices, or of NumPy. None: what the file
            holds, as dicts, lists and tuples (a NamedTuple as a dict of its fields); arrays of other tools by name.
        names: For paths in ``like`` the name in the file, or `From` where arrays are transposed or joined; ``{}`` in a
            name stands for the numbers of blocks, which are stacked. With names, and for files of other tools, floats
            are cast to the dtypes of ``like``.
        ignore: Patterns of names in the file that are left, such as ``"*.num_batches_tracked"``.
        strict: False leaves what does not fit as it is in ``like``, and warns of it in a table.

    Returns:
        The tree.

    Raises:
        CheckpointError: when the file is damaged; or (`MisfitError`, a kind of it) when it does not fit ``like``: a
            table says what is wanted and found.
        OSError: when there is none, or it cannot be read.

    Example:
        >>> import fnn, jax, jax.numpy as jnp, tempfile
        >>> file = tempfile.mkdtemp() + "/params.safetensors"
        >>> params, _ = fnn.dense(3).init(jax.random.key(0), jnp.ones((1, 2)))
        >>> fnn.save(file, params)
        >>> params = fnn.load(file, params)
        >>> other, _ = fnn.dense(4).init(jax.random.key(0), jnp.ones((1, 2)))
        >>> try:
        ...     fnn.load(file, other)
        ... except fnn.CheckpointError as error:
        ...     print(str(error).split("safetensors: ")[1])
        it does not hold what is wanted
          path    wanted        found
          bias    float32[4]    float32[3]
          kernel  float32[2,4]  float32[2,3]
    """
    with opened(file) as archive:
        if like is None:
            if names or ignore or not strict:
                raise TypeError("names, ignore and strict say how a file fits a tree; pass like=")
            return archive.tree()
        return _fill(archive, like, names or {}, ignore, strict)


def _fill(archive: Archive, like: Any, names: Mapping[str, str | From], ignore: Sequence[str], strict: bool) -> Any:
    templates = leaves_of(like)
    holes = {path: archive.part(path) for path, leaf in templates.items() if leaf is ANYTHING}
    templates = {path: leaf for path, leaf in templates.items() if path not in holes}
    if unknown := [path for path in names if path not in templates]:
        raise ValueError(
            f"names has {', '.join(unknown)}, which the wanted tree has not; it has {', '.join(templates)}"
        )
    wanted = {path: spec_of(path, leaf) for path, leaf in templates.items()}
    sources = {path: _source(names.get(path, path)) for path in templates}
    used = {name for source in sources.values() for group in source.places(archive.stored) for name in group}
    unused = [
        name for name in archive.stored
        if name not in used and not any(f"{name}/".startswith(f"{path}/") for path in holes)
        and not any(fnmatchcase(name, pattern) for pattern in ignore)
    ]  # fmt: skip
    foreign = archive.outline is None or bool(names)
    rows = _compare(archive, wanted, sources, foreign)
    containers = [] if foreign else differences(outline_of(like), archive.outline)
    extra = [(name, NOTHING, str(archive.spec(name))) for name in unused]
    if strict and (rows or extra or containers):
        raise _misfit(archive, [*containers, *rows, *extra])
    left = {path for path, _, _ in rows}
    values: dict[str, Any] = dict(holes)
    for path in templates.keys() - left:
        value = _make(archive, path, sources[path], wanted[path] if foreign else None)
        if spec_of(path, value) == wanted[path]:
            values[path] = place(value, templates[path], path, archive.name)
        else:
            rows.append((path, str(wanted[path]), f"{spec_of(path, value)} from {sources[path]}"))
    if strict and rows:
        raise _misfit(archive, sorted(rows))
    if rows or extra:
        _warn_of_parts(archive, rows, extra, templates)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: values.get(path_name(path), leaf), like)


def _source(name: str | From) -> From:
    return name if isinstance(name, From) else From(name)


def _compare(archive: Archive, wanted: Mapping[str, Spec], sources: Mapping[str, From], foreign: bool) -> list[Row]:
    """What is missing or cannot fit, as far as it is known before any array is read."""
    rows = []
    for path, spec in wanted.items():
        source = sources[path]
        names = [name for group in source.places(archive.stored) for name in group]
        if missing := [name for name in names if name not in archive.stored]:
            rows.append((path, str(spec), NOTHING if missing == [path] else f"no {', '.join(missing)}"))
        elif source.is_plain:
            found = archive.spec(names[0])
            fits = found.shape == spec.shape and _is_float(found) and _is_float(spec) if foreign else found == spec
            if not (fits or found == spec):
                rows.append((path, str(spec), str(found) if names == [path] else f"{found} from {source}"))
    return rows


def _is_float(spec: Spec) -> bool:
    return "float" in spec.dtype


def _make(archive: Archive, path: str, source: From, cast: Spec | None) -> Any:
    """What a source gives; floats get the dtype of ``cast``, before they are joined and after."""
    read = lambda name: _cast(archive.read(name), cast)
    groups = [[read(name) for name in group] for group in source.places(archive.stored)]
    try:
        made = groups[0][0] if source.is_plain else source.make(groups)
    except Exception as error:
        raise CheckpointError(archive.name, f"{source} failed for {path}: {error}") from error
    return _cast(made, cast)


def _cast(value: Any, wanted: Spec | None) -> Any:
    if wanted is None or not _is_float(wanted) or not jnp.issubdtype(getattr(value, "dtype", int), jnp.floating):
        return value
    return value.astype(jnp.dtype(wanted.dtype))


def place(value: Any, template: Any, path: str, file: Path) -> Any:
    """The value, where the template is: in NumPy, or on its devices."""
    if isinstance(value, bool | int | float) or isinstance(template, np.ndarray | np.generic):
        return value
    stays = getattr(template, "committed", True)  # what was free to move is free again
    placed = jax.device_put(value, getattr(template, "sharding", None) if stays else None)
    if placed.dtype != value.dtype:
        raise MisfitError(file, f"{path} is {value.dtype}, which JAX has only with jax_enable_x64")
    return placed


def _misfit(archive: Archive, rows: Sequence[Row]) -> MisfitError:
    table = show_table(("path", "wanted", "found"), rows, limit=ROWS)
    return MisfitError(archive.name, f"it does not hold what is wanted\n{table}")


def _warn_of_parts(archive: Archive, rows: Sequence[Row], extra: Sequence[Row], templates: Mapping[str, Any]) -> None:
    if specs := [path for path, _, _ in rows if isinstance(templates[path], jax.ShapeDtypeStruct)]:
        raise MisfitError(
            archive.name, f"it has no {', '.join(specs)}, and the wanted tree has only specs of it; pass arrays"
        )
    table = show_table(("path", "wanted", "found"), [*rows, *extra], limit=ROWS)
    message = (
        f"{archive.name}: {len(rows)} of {len(templates)} leaves stay as they were, {len(extra)} are left\n{table}"
    )
    warnings.warn(message, CheckpointWarning, stacklevel=4)
