"""Compiled functions that are kept on the object they were made for, and that live no longer than it does."""

import weakref
from collections.abc import Callable, Hashable
from functools import wraps
from threading import RLock
from types import MethodType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ATTRIBUTE = "_fnn_cache"
SIZE = 16  # results kept for one object and one function, such as the steps of one objective with several optimizers

_lock = RLock()
_clearing: list[Callable[[], Any]] = []


class Cache:
    """Results for one object. A copy of the object, or a pickle, starts without any."""

    def __init__(self, owner: Any = None):
        self.owner = owner  # a copy of an object, or functools.wraps, copies its attributes too
        self.results: dict[tuple[Any, ...], tuple[Any, Any]] = {}
        _caches.add(self)

    def __reduce__(self) -> Any:
        return Cache, ()

    def get(self, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        key = (make, *map(_identity, args))
        kept = self.results.pop(key, None) or (args, make(*args))  # args are kept so that no other object gets their id
        self.results[key] = kept
        of_same = [other for other in self.results if other[0] is make]
        for oldest in of_same[:-SIZE]:
            del self.results[oldest]
        return kept[1]


_caches: "weakref.WeakSet[Cache]" = weakref.WeakSet()
_shared = Cache()  # of objects that take no attributes, such as a NamedTuple with a method __call__


def cached_on_first(make: Callable[P, R]) -> Callable[P, R]:
    """Keep what a function makes of its first argument as an attribute of that argument.

    Arguments are compared by identity, so that any object will do. The result may refer to the arguments: object and
    result are then a cycle, which the garbage collector finds. Of one object the last 16 results are kept.

    Args:
        make: A function of positional arguments, such as one that returns a `jax.jit` of a closure.
    """

    @wraps(make)
    def cached(*args: P.args, **kwargs: P.kwargs) -> R:
        assert not kwargs
        with _lock:
            return _cache_of(args[0]).get(make, args)

    return cached


def on_clear(clear: Callable[[], Any]) -> None:
    """Let `clear_caches` call ``clear`` too: for a cache of a module, which belongs to no object."""
    _clearing.append(clear)


def clear_caches() -> None:
    """Release every compiled function that fnn keeps.

    Compiled functions are kept on the objective, step or network for which they were made, and are released with it.
    So a program that trains many networks needs no call. One that keeps many networks, but trains or serves few of
    them, can release the compiled functions of all: what is used again is compiled again. Programs of studies are kept
    for the next study, and are released here. JAX has caches of its own, see `jax.clear_caches`.

    Example:
        >>> import fnn
        >>> fnn.clear_caches()
    """
    with _lock:
        for cache in list(_caches):
            cache.results.clear()
        for clear in _clearing:
            clear()


def _cache_of(owner: Any) -> Cache:
    owner = owner.__self__ if isinstance(owner, MethodType) else owner
    attributes = getattr(owner, "__dict__", None)
    if not isinstance(attributes, dict):  # a class has a mappingproxy
        return _shared
    cache = attributes.get(ATTRIBUTE)
    if not isinstance(cache, Cache) or cache.owner is not owner:
        cache = attributes[ATTRIBUTE] = Cache(owner)
    return cache


def _identity(value: Any) -> Hashable:
    if value is None or isinstance(value, bool | int | float | str):
        return type(value), value
    if isinstance(value, tuple):  # an optimizer is a NamedTuple of functions
        return tuple(map(_identity, value))
    if isinstance(value, MethodType):  # each access makes another
        return id(value.__self__), id(value.__func__)
    return id(value)
