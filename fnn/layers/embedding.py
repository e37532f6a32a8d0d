"""Vectors for ids."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fnn.core.keys import fold
from fnn.core.layer import Layer
from fnn.core.leaf import layer
from fnn.ops.checks import check_positive_int, check_shapes

TABLE_INIT = jax.nn.initializers.lecun_normal(in_axis=1, out_axis=0)


def embedding(
    vocabulary: int,
    features: int,
    *,
    embedding_init: Callable[..., jax.Array] = TABLE_INIT,
    dtype: Any = jnp.float32,
) -> Layer:
    """Embedding: a table with a vector for each id.

    An id outside the vocabulary gives a row of NaN and no gradient: never another id's row. So do negative ids: -1 is
    not the last id, and the padding of -1 or -100 of other libraries is no id either. Padded rows are safe where a
    layer is given their lengths or mask (`recurrent`, `attention`, `transformer_block`); elsewhere pad with an id of
    the vocabulary and give padded targets weight 0, or zero the rows: ``jnp.where((ids >= 0)[..., None], y, 0)``.

    Args:
        vocabulary: How many ids there are: 0 to ``vocabulary - 1``.
        features: Size of the vector of an id.
        embedding_init: Initializer of the table. By default normal of standard deviation ``1 / sqrt(features)``: rows
            have length near 1 however wide they are, and where the table also decodes, ``h @ table.T``, an ``h`` of
            unit variance gives logits of unit variance.
        dtype: Dtype of the parameters, and so of y.

    Returns:
        A layer without state.

        - x: ids of any shape, of an integer dtype
        - y: ``(*shape of x, features)``
        - params: ``embedding (vocabulary, features)``

    Raises:
        LayerError: at init, when x has no integer dtype.

    Example:
        >>> import fnn, jax, jax.numpy as jnp
        >>> ids = jnp.array([[1, 2, 3]])
        >>> net = fnn.embedding(10, 4)
        >>> params, state = net.init(jax.random.key(0), ids)
        >>> net.apply(params, state, ids)[0].shape
        (1, 3, 4)

        The same table encodes and decodes in a network that reads it:

        >>> def forward(f, ids):
        ...     h = f.body(f.embedding(ids))
        ...     return h @ f.embedding.params["embedding"].T
        >>> tied = fnn.wire(forward, embedding=fnn.embedding(10, 4), body=fnn.dense(4))
        >>> params, state = tied.init(jax.random.key(0), ids)
        >>> tied.apply(params, state, ids)[0].shape
        (1, 3, 10)
    """
    check_positive_int("vocabulary", vocabulary)
    check_positive_int("features", features)

    def init(key: jax.Array, x: Any) -> dict[str, jax.Array]:
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(
                f"x is {x.dtype}, wanted ids of an integer dtype; convert them, x.astype(jnp.int32), "
                "or use fnn.dense for vectors"
            )
        return {"embedding": embedding_init(fold(key, "embedding"), (vocabulary, features), dtype)}

    def apply(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        check_shapes(params, embedding=(vocabulary, features))
        return jnp.asarray(params["embedding"]).at[x].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)

    return layer(init, apply)
