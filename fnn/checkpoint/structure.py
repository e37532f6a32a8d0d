"""Trees as an outline in JSON and arrays by path, and back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from fnn.checkpoint.container import CODES, Blob, Header

Outline = Any  # JSON

# What safetensors has no code for is kept in what it has, and the outline remembers what it was.
KEPT_AS = {
    np.dtype(ml_dtypes.int4): np.dtype(np.int8),
    np.dtype(ml_dtypes.uint4): np.dtype(np.uint8),
    np.dtype(ml_dtypes.int2): np.dtype(np.int8),
    np.dtype(ml_dtypes.uint2): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float8_e3m4): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float8_e4m3): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float8_e4m3b11fnuz): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float8_e4m3fnuz): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float8_e5m2fnuz): np.dtype(np.uint8),
    np.dtype(ml_dtypes.float4_e2m1fn): np.dtype(np.uint8),
    np.dtype(np.complex128): np.dtype(np.float64),
}
BY_NAME = {dtype.name: dtype for dtype in KEPT_AS}
KEYS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}
SCALARS = {"bool": bool, "int": int, "float": float.fromhex}
ROOT = "(the tree)"


ANYTHING = object()  # in a wanted tree: whatever the file holds here


class Spec(NamedTuple):
    """What is known of a leaf without its values; of a Python number only its type."""

    dtype: str
    shape: tuple[int, ...] | None

    def __str__(self) -> str:
        return self.dtype if self.shape is None else f"{self.dtype}[{','.join(map(str, self.shape))}]"


def leaves_of(tree: Any) -> dict[str, Any]:
    """All leaves by path, such as ``"params/dense_0/kernel"``.

    Raises:
        TypeError: where two leaves have the same path.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = path_name(path)
        if name in found:
            raise TypeError(f"two arrays have the path {name!r}; rename the key that holds a slash")
        found[name] = leaf
    return found


def path_name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or ROOT


def spec_of(name: str, leaf: Any) -> Spec:
    """The spec of an array, a key, a spec or a Python number.

    Raises:
        TypeError: for anything else, or for a dtype that a file cannot hold.
    """
    if isinstance(leaf, bool | int | float) and not isinstance(leaf, np.generic):
        return Spec(type(leaf).__name__, None)
    if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
        raise TypeError(f"{name} is a {type(leaf).__name__}; a checkpoint holds arrays, keys, numbers and bools")
    if not _is_key(leaf) and not (leaf.dtype in CODES or leaf.dtype in KEPT_AS):
        raise TypeError(f"{name} has the dtype {leaf.dtype}, which a checkpoint cannot hold")
    return Spec(str(leaf.dtype), tuple(leaf.shape))


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def outline_of(tree: Any, name: str = "") -> Outline:
    """The containers of a tree, and which leaf lies where."""
    here = name or ROOT
    children, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda part: part is not tree)
    if len(children) == 1 and not children[0][0]:
        return _outline_leaf(here, tree)
    fields = []
    for path, child in children:
        key = getattr(path[0], "key", None)
        part = path_name(path)
        inside = outline_of(child, f"{name}/{part}" if name else part)
        fields.append([key if isinstance(key, int) and isinstance(tree, dict) else part, inside])
    return [_kind(tree), fields]


def _outline_leaf(name: str, leaf: Any) -> Outline:
    if leaf is ANYTHING:
        return {}
    spec = spec_of(name, leaf)
    if spec.shape is None:
        return {spec.dtype: leaf.hex() if isinstance(leaf, float) else leaf}
    if _is_key(leaf):
        return {"array": name, "key": KEYS.get(spec.dtype) or str(jax.random.key_impl(leaf))}
    return {"array": name} if leaf.dtype in CODES else {"array": name, "dtype": spec.dtype}


def _kind(tree: Any) -> str:
    return "None" if tree is None else type(tree).__name__


def blob_of(leaf: Any) -> Blob:
    """What is written of an array or a key."""
    if _is_key(leaf):
        spec = jax.eval_shape(jax.random.key_data, leaf)
        return Blob(np.dtype(spec.dtype), spec.shape, lambda: np.asarray(jax.random.key_data(leaf)))
    dtype, shape = np.dtype(leaf.dtype), tuple(leaf.shape)
    if dtype in CODES:
        return Blob(dtype, shape, lambda: np.asarray(leaf))
    kept = KEPT_AS[dtype]
    if dtype == np.complex128:
        pairs = lambda: np.ascontiguousarray(leaf).reshape(*shape, 1).view(kept)
        return Blob(kept, (*shape, 2), pairs)
    if np.issubdtype(kept, np.integer) and dtype.name.startswith(("int", "uint")):
        return Blob(kept, shape, lambda: np.asarray(leaf).astype(kept))
    return Blob(kept, shape, lambda: np.ascontiguousarray(leaf).view(kept).reshape(shape))


class Stored(NamedTuple):
    """What a file says of a leaf: the dtype it had, the implementation of a key, or the value of a number."""

    dtype: str | None = None
    key: str | None = None
    value: Any = None


def stored_leaves(outline: Outline, name: str = "") -> dict[str, Stored]:
    """What an outline says of its leaves, by path.

    Raises:
        ValueError: for an outline that fnn did not write.
    """
    if isinstance(outline, dict):
        return {name or ROOT: _stored(outline)}
    kind, fields = outline
    if not isinstance(kind, str):
        raise ValueError(f"{kind!r} is no kind of container")
    found: dict[str, Stored] = {}
    parts = [part for part, _ in fields]
    if len({str(part) for part in parts}) < len(parts) or len({isinstance(part, str) for part in parts}) > 1:
        raise ValueError(f"the parts of {name or ROOT} have the same name, or names of several kinds")
    for part, inside in fields:
        if not isinstance(part, str | int):
            raise ValueError(f"{part!r} is no name of a part")
        found |= stored_leaves(inside, f"{name}/{part}" if name else str(part))
    return found


def _stored(leaf: Mapping[str, Any]) -> Stored:
    if "array" in leaf:
        dtype, key = leaf.get("dtype"), leaf.get("key")
        if not (dtype is None or dtype in BY_NAME) or not (key is None or key in KEYS.values()):
            raise ValueError(f"an array is of the unknown kind {dtype or key!r}")
        return Stored(dtype, key)
    ((kind, value),) = leaf.items()
    return Stored(kind, value=SCALARS[kind](value))


def spec_in_file(header: Header, name: str, stored: Stored) -> Spec:
    """What an array will be once it is read."""
    if stored.value is not None:
        return Spec(str(stored.dtype), None)
    entry = header.entries[name]
    if stored.key is not None:
        wrap = lambda data: jax.random.wrap_key_data(data, impl=stored.key)
        spec = jax.eval_shape(wrap, jax.ShapeDtypeStruct(entry.shape, entry.dtype))
        return Spec(str(spec.dtype), spec.shape)
    if stored.dtype is not None and entry.dtype != KEPT_AS[BY_NAME[stored.dtype]]:
        raise ValueError(f"array {name!r} is kept as {entry.dtype}, which is no {stored.dtype}")
    if stored.dtype == "complex128" and entry.shape[-1:] != (2,):
        raise ValueError(f"array {name!r} has the shape {entry.shape}, which is none of pairs")
    shape = entry.shape[:-1] if stored.dtype == "complex128" else entry.shape
    return Spec(stored.dtype or entry.dtype.name, shape)


def restore(array: np.ndarray, stored: Stored) -> Any:
    """The array as it was, from how it was kept."""
    if stored.key is not None:
        return jax.random.wrap_key_data(jnp.asarray(array), impl=stored.key)
    if stored.dtype is None:
        return array
    dtype = BY_NAME[stored.dtype]
    if dtype == np.complex128:
        return array.view(dtype).reshape(array.shape[:-1])
    return array.astype(dtype) if dtype.name.startswith(("int", "uint")) else array.view(dtype)


def rebuild(outline: Outline, values: Mapping[str, Any], name: str = "") -> Any:
    """The tree without a template: dicts, lists, tuples, None; of all other containers a dict."""
    if isinstance(outline, dict):
        return values[name or ROOT]
    kind, fields = outline
    parts = {part: rebuild(inside, values, f"{name}/{part}" if name else str(part)) for part, inside in fields}
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(parts.values())
    return None if kind == "None" else parts


def part_of(outline: Outline, path: str) -> Outline | None:
    """The outline of what lies at a path; None where nothing does."""
    for part in path.split("/"):
        if isinstance(outline, dict):
            return None
        outline = {str(name): inside for name, inside in outline[1]}.get(part)
        if outline is None:
            return None
    return outline


def differences(wanted: Outline, found: Outline, name: str = "") -> list[tuple[str, str, str]]:
    """Containers of one path and different kinds: path, what is wanted, what is found."""
    if isinstance(wanted, dict) or isinstance(found, dict):
        return []
    rows = [(name or ROOT, wanted[0], found[0])] if wanted[0] != found[0] else []
    others = {str(part): inside for part, inside in found[1]}
    for part, inside in wanted[1]:
        if str(part) in others:
            rows += differences(inside, others[str(part)], f"{name}/{part}" if name else str(part))
    return rows
