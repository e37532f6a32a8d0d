"""Neural networks as pure functions, for JAX."""

from fnn.combinators import parallel as parallel, parameter as parameter, residual as residual, serial as serial
from fnn.core.errors import LayerError as LayerError
from fnn.core.keys import fold as fold
from fnn.core.layer import Layer as Layer
from fnn.core.leaf import layer as layer
from fnn.core.views import bind as bind, init_state as init_state, stateless as stateless
from fnn.layers.dense import dense as dense
from fnn.layers.shape import flatten as flatten, reshape as reshape, upsample as upsample
from fnn.wire import wire as wire
from fnn.wrappers import ensemble as ensemble, mixed_precision as mixed_precision, remat as remat, stack as stack
