"""Augmentations: random changes of a batch within the training step, for ``fit(augment=...)``.

Each function here makes an ``augment(key, batch) -> batch``. A batch is ``(x, target)``, ``(x, target, weight)``, a
dict with these keys, or any dict whose parts are named by ``parts``. Every example draws its own random numbers, shapes
are static, so that augmentations work under `jit`, `vmap` and `scan`. Images are ``(batch, height, width, channels)``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.ops.checks import check_range
from fnn.ops.dtypes import widen

Augment = Callable[[jax.Array, Any], Any]

NAMES = ("x", "target", "weight")  # of the parts of a batch that is a tuple


def chain(*augmentations: Augment) -> Augment:
    """Apply augmentations one after another, each with its own key.

    Args:
        *augmentations: Functions ``augment(key, batch) -> batch``, from here or custom.

    Returns:
        An ``augment(key, batch)``.

    Raises:
        TypeError: when one of them is not a function.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> augment = fnn.augment.chain(fnn.augment.random_crop(padding=4), fnn.augment.random_flip())
        >>> x, y = augment(jax.random.key(0), (jnp.ones((8, 32, 32, 3)), jnp.arange(8)))
        >>> x.shape, y.shape
        ((8, 32, 32, 3), (8,))
    """
    for augmentation in augmentations:
        if not callable(augmentation):
            raise TypeError(f"chain takes functions augment(key, batch), got {type(augmentation).__name__}")

    def augment(key: jax.Array, batch: Any) -> Any:
        for number, augmentation in enumerate(augmentations):
            batch = augmentation(jax.random.fold_in(key, number), batch)
        return batch

    return augment


def random_flip(
    axes: int | Sequence[int] | None = None, *, probability: float | jax.Array = 0.5, parts: Sequence[str] = ("x",)
) -> Augment:
    """Mirror each example at random, along one axis or independently along several.

    Args:
        axes: Axes to reverse, counted with the batch axis. None: the width of images, 2, so that left and right are
            exchanged; 1 is the height.
        probability: Of a flip along each axis.
        parts: Parts of the batch that are flipped alike: ``("x", "target")`` where the target is a mask.

    Returns:
        An ``augment(key, batch)``; dtypes stay.

    Raises:
        ValueError: when a probability is not between 0 and 1; and, from ``augment``, when the batch lacks a part or a
            part lacks an axis.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x, y = jnp.arange(8.0).reshape(2, 1, 4, 1), jnp.arange(2)
        >>> flipped, y = fnn.augment.random_flip(probability=1.0)(jax.random.key(0), (x, y))
        >>> flipped[0, 0, :, 0].tolist()
        [3.0, 2.0, 1.0, 0.0]
    """
    check_range("probability", probability, 0.0, 1.0, closed=True)
    chosen = (2,) if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)

    def augment(key: jax.Array, batch: Any) -> Any:
        size = _shape(batch, parts, chosen, axes is None)[0]
        for axis in chosen:
            flipped = jax.random.bernoulli(jax.random.fold_in(fold(key, "flip"), axis), probability, (size,))
            batch = _map(lambda x, on, axis=axis: jnp.where(_like(on, x), jnp.flip(x, axis), x), batch, parts, flipped)
        return batch

    return augment


def random_crop(
    size: int | Sequence[int] | None = None,
    *,
    padding: int | Sequence[int] = 0,
    axes: Sequence[int] | None = None,
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant",
    parts: Sequence[str] = ("x",),
) -> Augment:
    """Cut a window out of each example, from a random place of the padded example.

    ``random_crop(padding=4)`` keeps the size: it shifts images by up to 4 pixels, as is usual for CIFAR.

    Args:
        size: Of the window, one number for all ``axes`` or one for each. None: the size of the example.
        padding: Entries to add at both ends, one number for all ``axes`` or one for each.
        axes: Axes to cut, counted with the batch axis. None: height and width of images, ``(1, 2)``; ``(1,)`` is the
            time of sequences.
        mode: What to pad with, as for `jax.numpy.pad`; ``"constant"`` is zeros.
        parts: Parts of the batch that are cut alike: ``("x", "target")`` where the target is a mask.

    Returns:
        An ``augment(key, batch)``; dtypes stay.

    Raises:
        ValueError: when neither size nor padding is given, one is negative, or their number is not that of the axes;
            and, from ``augment``, when the window is larger than the padded example, the batch lacks a part, or the
            parts differ in size.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> batch = jnp.ones((8, 40, 40, 3)), jnp.arange(8)
        >>> x, y = fnn.augment.random_crop(32)(jax.random.key(0), batch)
        >>> x.shape
        (8, 32, 32, 3)

    References:
        He, Zhang, Ren and Sun, Deep residual learning for image recognition, 2016, arXiv:1512.03385, section 4.2.
    """
    chosen = (1, 2) if axes is None else tuple(axes)
    sizes, margins = _per_axis("size", size, chosen), _per_axis("padding", padding, chosen)
    if size is None and not any(margins):
        raise ValueError("random_crop would change nothing; give a size, or the padding in which images are shifted")
    if min(margins) < 0 or min(1 if size is None else size for size in sizes) < 1:
        raise ValueError(f"size must be positive and padding not negative, got size={size}, padding={padding}")

    def augment(key: jax.Array, batch: Any) -> Any:
        shape = _shape(batch, parts, chosen, axes is None)
        starts: list[jax.Array] = []
        windows: list[int] = []
        for axis, size, margin in zip(chosen, sizes, margins):
            room = shape[axis] + 2 * margin
            window = shape[axis] if size is None else size
            if window > room:
                raise ValueError(
                    f"the window is {window} long on axis {axis}, where the padded examples have {room}; give a size "
                    f"of at most {room}, or more padding"
                )
            axis_key = jax.random.fold_in(fold(key, "crop"), axis)
            starts.append(jax.random.randint(axis_key, shape[:1], 0, room - window + 1))
            windows.append(window)

        def cut(x: jax.Array, *starts: jax.Array) -> jax.Array:
            pads, shape, corner = [(0, 0)] * x.ndim, list(x.shape), [jnp.zeros((), jnp.int32)] * x.ndim
            for axis, margin, window, start in zip(chosen, margins, windows, starts):
                pads[axis - 1], shape[axis - 1], corner[axis - 1] = (margin, margin), window, start
            return jax.lax.dynamic_slice(jnp.pad(x, pads, mode=mode), corner, shape)

        return _map(jax.vmap(cut), batch, parts, *starts)

    return augment


def random_shift(
    limit: int | Sequence[int],
    *,
    axes: Sequence[int] | None = None,
    mode: Literal["constant", "edge", "reflect", "wrap"] = "constant",
    parts: Sequence[str] = ("x",),
) -> Augment:
    """Shift each example by a random number of entries along each axis: `random_crop` with padding alone.

    Args:
        limit: The largest shift, in either direction; one number for all ``axes`` or one for each.
        axes: Axes to shift along, counted with the batch axis. None: height and width of images, ``(1, 2)``.
        mode: What comes in from outside, as for `jax.numpy.pad`: ``"constant"`` is zeros, ``"wrap"`` the other end.
        parts: Parts of the batch that are shifted alike: ``("x", "target")`` where the target is a mask.

    Returns:
        An ``augment(key, batch)``; shapes and dtypes stay.

    Raises:
        ValueError: as from `random_crop`.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> x = jnp.arange(4.0)[None, :, None]
        >>> shift = fnn.augment.random_shift(2, axes=(1,), mode="wrap")
        >>> shift(jax.random.key(1), (x, x))[0].ravel().tolist()
        [3.0, 0.0, 1.0, 2.0]
    """
    return random_crop(padding=limit, axes=axes, mode=mode, parts=parts)


def mixup(alpha: float | jax.Array, *, num_classes: int | None = None) -> Augment:
    """Mix each example, and its target, with another example of the batch.

    ``x = share * x_i + (1 - share) * x_j`` and the same for the target, where the share of each example is drawn from
    ``Beta(alpha, alpha)`` and ``j`` from a random permutation of the batch. (The authors draw one share for a batch.)

    Targets must be soft: floats, such as one-hot rows, to be trained with ``optax.losses.softmax_cross_entropy``.
    Integer labels become such rows with ``num_classes``. Validation data is not augmented: its targets need the same
    form, ``jax.nn.one_hot(y, num_classes)``, and metrics of labels a function such as
    ``lambda y, target: fnn.accuracy(y, target.argmax(-1))``.

    With weights, each example counts in the mixture by its own weight; one of weight 0 is not mixed with any.

    Args:
        alpha: Concentration: near 0 few examples are mixed, at 1 all shares are as likely; 0.2 is usual for images.
        num_classes: Classes of integer labels.

    Returns:
        An ``augment(key, batch)``. The dtypes of x and of float targets stay; uint8 images are rounded; targets made
        from labels are float32.

    Raises:
        ValueError: when ``alpha`` is not positive; and, from ``augment``, when targets are integers and ``num_classes``
            is missing, or have another number of classes, or when weights are not one for each example.
        TypeError: from ``augment``, when x has integers other than uint8, such as ids of tokens.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> batch = jnp.ones((8, 32, 32, 3)), jnp.arange(8)
        >>> x, target = fnn.augment.mixup(0.2, num_classes=10)(jax.random.key(0), batch)
        >>> target.shape, bool(jnp.allclose(target.sum(-1), 1))
        ((8, 10), True)

    References:
        Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond empirical risk minimization, 2018, arXiv:1710.09412.
    """
    _check_alpha(alpha)

    def augment(key: jax.Array, batch: Any) -> Any:
        x, target, weight = _unpack("mixup", batch, num_classes)
        size, (partner, mixed) = len(target), _pairs(key, target, weight)
        drawn = jax.random.beta(fold(key, "share"), alpha, alpha, (size,))
        share = jnp.where(mixed, drawn, 1.0)
        x = jax.tree.map(lambda x: _mix("mixup", x, x[partner], share), x)
        return _pack(batch, x, *_mix_targets(target, weight, partner, share))

    return augment


def cutmix(alpha: float | jax.Array = 1.0, *, num_classes: int | None = None) -> Augment:
    """Replace a random box of each image by that of another image of the batch, and mix the targets by its area.

    The box covers about ``1 - share`` of the image, with a share from ``Beta(alpha, alpha)``. Its centre is uniform,
    what would lie outside of the image is cut off, and targets are mixed by the exact areas. Targets and weights are as
    in `mixup`.

    Args:
        alpha: Concentration; 1, where all shares are as likely, is the authors' choice.
        num_classes: Classes of integer labels.

    Returns:
        An ``augment(key, batch)`` for x of shape ``(batch, *space, channels)``, any dtype. Targets made from labels are
        float32.

    Raises:
        ValueError: as from `mixup`; or when x is not one array with axes of space.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> batch = jnp.ones((8, 32, 32, 3)), jnp.arange(8)
        >>> x, target = fnn.augment.cutmix(num_classes=10)(jax.random.key(0), batch)
        >>> x.shape, bool(jnp.allclose(target.sum(-1), 1))
        ((8, 32, 32, 3), True)

    References:
        Yun, Han, Oh, Chun, Choe and Yoo, CutMix: regularization strategy to train strong classifiers with localizable
        features, 2019, arXiv:1905.04899.
    """
    _check_alpha(alpha)

    def augment(key: jax.Array, batch: Any) -> Any:
        x, target, weight = _unpack("cutmix", batch, num_classes)
        if not hasattr(x, "shape") or len(x.shape) < 3:
            got = f"shape {x.shape}" if hasattr(x, "shape") else type(x).__name__
            raise ValueError(f"cutmix needs images, (batch, height, width, channels), got x of {got}")
        partner, mixed = _pairs(key, target, weight)
        size, space = len(target), x.shape[1:-1]
        drawn = jax.random.beta(fold(key, "share"), alpha, alpha, (size,))
        side = jnp.where(mixed, (1 - drawn) ** (1 / len(space)), 0.0)  # of the box, as a fraction of the image's
        inside, area = jnp.ones((size,) + (1,) * len(x.shape[1:]), bool), jnp.ones((size,), drawn.dtype)
        for axis, length in enumerate(space, start=1):
            half = jnp.floor(length * side).astype(jnp.int32) // 2
            centre = jax.random.randint(jax.random.fold_in(fold(key, "centre"), axis), (size,), 0, length)
            first, last = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, length)
            places = jnp.arange(length).reshape(-1, *(1,) * (len(space) - axis + 1))
            inside &= (places >= _like(first, x)) & (places < _like(last, x))
            area *= (last - first) / length
        x = jnp.where(inside, x[partner], x)
        return _pack(batch, x, *_mix_targets(target, weight, partner, 1 - area))

    return augment


def _check_alpha(alpha: float | jax.Array) -> None:
    if not isinstance(alpha, jax.Array) and not alpha > 0:
        raise ValueError(f"alpha must be positive, got {alpha}")


def _per_axis(name: str, value: int | Sequence[int] | None, axes: tuple[int, ...]) -> tuple[Any, ...]:
    values = (value,) * len(axes) if value is None or isinstance(value, int) else tuple(value)
    if len(values) != len(axes):
        raise ValueError(f"{name} has {len(values)} numbers for the {len(axes)} axes {axes}")
    return values


def _like(values: jax.Array, x: Any) -> jax.Array:
    """One value for each example, ``(batch, 1, ...)`` with the axes of x."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))


def _part(batch: Any, name: str) -> tuple[Any, Callable[[Any], Any]]:
    """A part of a batch, and the function that puts another in its place."""
    if hasattr(batch, "shape") and name == "x":
        return batch, lambda value: value
    if isinstance(batch, dict):
        if name not in batch:
            raise ValueError(f"the batch lacks {name!r}, it has {', '.join(map(repr, batch))}; name others by parts=")
        return batch[name], lambda value: {**batch, name: value}
    if not isinstance(batch, tuple | list) or name not in NAMES[: len(batch)]:
        form = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
        raise ValueError(f"the batch lacks {name!r}: it is {form}; wanted (x, target), (x, target, weight) or a dict")
    place = NAMES.index(name)

    def replaced(value: Any) -> Any:
        values = [*batch[:place], value, *batch[place + 1 :]]
        return getattr(batch, "_make", type(batch))(values)  # a named tuple stays one

    return batch[place], replaced


def _map(function: Callable[..., Any], batch: Any, parts: Sequence[str], *others: jax.Array) -> Any:
    for name in parts:
        part, replaced = _part(batch, name)
        batch = replaced(jax.tree.map(lambda x: function(x, *others), part))
    return batch


def _shape(batch: Any, parts: Sequence[str], axes: tuple[int, ...], are_images: bool) -> tuple[int, ...]:
    """The shape of the first part, with whose axes the others must agree."""
    if isinstance(parts, str):
        raise TypeError(f"parts is a tuple of names, ({parts!r},), got {parts!r}")
    if min(axes) < 1:
        raise ValueError(f"axes are counted with the batch axis, from 1 on, got {axes}")
    shapes = [(name, jnp.shape(x)) for name in parts for x in jax.tree.leaves(_part(batch, name)[0])]
    name, first = shapes[0]
    if are_images and len(first) < 4:
        raise ValueError(
            f"{name} has shape {first}, and images are (batch, height, width, channels); add the channel axis, "
            "x[..., None], or choose the axes of other data by axes="
        )
    for name, shape in shapes:
        if len(shape) <= max(axes):
            raise ValueError(f"{name} has shape {shape}, which lacks axis {max(axes)}; choose others by axes=")
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes)
    if any(shape[axis] != first[axis] for _, shape in shapes for axis in (0, *axes)):
        raise ValueError(f"parts that are changed alike must agree on axes {(0, *axes)}, got {listed}")
    return first


def _unpack(name: str, batch: Any, num_classes: int | None) -> tuple[Any, jax.Array, jax.Array | None]:
    """x, soft target and weight of a batch."""
    if hasattr(batch, "shape") or (isinstance(batch, dict) and not set(batch) <= set(NAMES)):
        form = f"a dict with {', '.join(batch)}" if isinstance(batch, dict) else "one array"
        raise ValueError(f"{name} needs a batch (x, target), (x, target, weight) or a dict with these keys, got {form}")
    x, target = (jax.tree.map(jnp.asarray, _part(batch, part)[0]) for part in NAMES[:2])
    has_weight = "weight" in batch if isinstance(batch, dict) else len(batch) > 2
    weight = jnp.asarray(_part(batch, "weight")[0]) if has_weight else None
    if not jnp.issubdtype(target.dtype, jnp.floating):
        if num_classes is None:
            raise ValueError(
                f"{name} needs soft targets, and these are {target.dtype}: pass {name}(..., num_classes=10) for "
                "one-hot targets of labels and train with optax.losses.softmax_cross_entropy, or pass floats"
            )
        target = jax.nn.one_hot(target, num_classes, dtype=jnp.float32)
    elif num_classes is not None and target.shape[-1:] != (num_classes,):
        raise ValueError(f"{name} has num_classes={num_classes}, and the soft targets have shape {target.shape}")
    if weight is not None and weight.shape != target.shape[:1]:
        raise ValueError(f"{name} needs one weight for each example, {target.shape[:1]}, got shape {weight.shape}")
    return x, target, weight


def _pack(batch: Any, x: Any, target: jax.Array, weight: jax.Array | None) -> Any:
    for name, value in zip(NAMES, (x, target, weight)):
        if value is not None:
            batch = _part(batch, name)[1](value)
    return batch


def _pairs(key: jax.Array, target: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """The partner of each example, and whether the two are mixed: both must count."""
    partner = jax.random.permutation(fold(key, "partner"), len(target))
    mixed = jnp.ones(len(target), bool) if weight is None else (weight > 0) & (weight[partner] > 0)
    return partner, mixed


def _mix(name: str, x: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    """``share * x + (1 - share) * other``, in at least float32 and back in the dtype of x."""
    if not jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype != jnp.uint8:
        raise TypeError(
            f"{name} mixes images and other floats, and x is {x.dtype}; mix what an embedding gives, not ids"
        )
    share = _like(share, x)
    mixed = share * widen(x) + (1 - share) * widen(other)
    mixed = jnp.round(mixed) if x.dtype == jnp.uint8 else mixed
    return jnp.where(share == 1, x, mixed.astype(x.dtype))  # what is not mixed is not touched, not even by a NaN


def _mix_targets(
    target: jax.Array, weight: jax.Array | None, partner: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """Targets by their shares; with weights by share times weight, and the weights by share."""
    if weight is None:
        return _mix("mixup", target, target[partner], share), None
    own, others = share * weight, (1 - share) * weight[partner]
    total = own + others
    share = jnp.where((total > 0) & (share < 1), own / jnp.where(total > 0, total, 1), 1.0)
    return _mix("mixup", target, target[partner], share), total.astype(weight.dtype)
