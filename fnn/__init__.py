# ruff: noqa: I001 - the order is that of a reader, not of the alphabet
"""fnn: neural networks as pure functions, for JAX.

A layer is a pair of functions: ``params, state = layer.init(key, *xs)`` reads shapes, and
``y, state = layer.apply(params, state, *xs, key=None, train=False)`` computes. Below are the everyday names, from the
ground up; each file imports only from the floors beneath it. ``help(fnn.NAME)`` explains one of them.
"""

from types import ModuleType as _Module

__version__ = "0.1.0"  # the only place that holds it: pyproject.toml reads it here

# The protocol: what a layer is, keys that go by name, errors with an address.
from fnn.core.layer import Layer as Layer
from fnn.core.leaf import layer as layer
from fnn.core.keys import fold as fold
from fnn.core.errors import LayerError as LayerError
from fnn.core.views import bind as bind, init_state as init_state, stateless as stateless

# Layers that mix features.
from fnn.layers.dense import dense as dense
from fnn.layers.gated import glu as glu, swiglu as swiglu
from fnn.layers.embedding import embedding as embedding

# Layers over space.
from fnn.layers.conv import conv as conv, conv_transpose as conv_transpose, depthwise_conv as depthwise_conv
from fnn.layers.pool import (
    global_max_pool as global_max_pool,
    global_mean_pool as global_mean_pool,
    max_pool as max_pool,
    mean_pool as mean_pool,
)
from fnn.layers.shape import flatten as flatten, reshape as reshape, upsample as upsample

# Layers over time: recurrent cells, what runs them, attention, positions.
from fnn.layers.cells import (
    Cell as Cell,
    conv_lstm_cell as conv_lstm_cell,
    gru_cell as gru_cell,
    lstm_cell as lstm_cell,
    rnn_cell as rnn_cell,
)
from fnn.recurrent import (
    bidirectional as bidirectional,
    conv_lstm as conv_lstm,
    gru as gru,
    lstm as lstm,
    recurrent as recurrent,
    rnn as rnn,
)
from fnn.layers.attention import attention as attention, cross_attention as cross_attention
from fnn.ops.positions import Alibi as Alibi, Rotary as Rotary
from fnn.layers.positions import learned_positions as learned_positions, sinusoidal_positions as sinusoidal_positions

# Normalisation, noise, activations with parameters (those without are in jax.nn).
from fnn.layers.batch_norm import batch_norm as batch_norm
from fnn.layers.norm import (
    group_norm as group_norm,
    instance_norm as instance_norm,
    layer_norm as layer_norm,
    rms_norm as rms_norm,
)
from fnn.layers.dropout import drop_path as drop_path, dropout as dropout, gaussian_noise as gaussian_noise
from fnn.layers.activation import prelu as prelu, step as step

# Networks from layers, and ways to run them.
from fnn.combinators import parallel as parallel, parameter as parameter, residual as residual, serial as serial
from fnn.wire import wire as wire
from fnn.wrappers import (
    ensemble as ensemble,
    frozen as frozen,
    mixed_precision as mixed_precision,
    remat as remat,
    stack as stack,
)
from fnn.parametrizations import spectral_norm as spectral_norm, weight_norm as weight_norm
from fnn.capture import capture as capture, map_layers as map_layers

# Transformers, and sequences from networks that predict the next step.
from fnn.layers.feed_forward import feed_forward as feed_forward
from fnn.experts import experts as experts
from fnn.transformer import (
    decoder as decoder,
    decoder_block as decoder_block,
    encoder as encoder,
    language_model as language_model,
    transformer_block as transformer_block,
    vision_transformer as vision_transformer,
)
from fnn.decoding.sampler import Sampler as Sampler
from fnn.decoding.generate import Generated as Generated, generate as generate, stream as stream
from fnn.decoding.beam import Beams as Beams, beam_search as beam_search

# Trees of parameters, by path.
from fnn.trees import at as at, count as count, l1 as l1, l2 as l2, mask as mask, nbytes as nbytes

# What is measured: per example, and over a data set.
from fnn.metrics.per_example import (
    absolute_error as absolute_error,
    accuracy as accuracy,
    squared_error as squared_error,
    top_k as top_k,
)
from fnn.metrics.streaming import Metric as Metric, mean as mean
from fnn.metrics.classification import (
    auroc as auroc,
    confusion_matrix as confusion_matrix,
    f1 as f1,
    precision as precision,
    recall as recall,
)
from fnn.metrics.regression import r2 as r2

# Files: a tree in one, a run in a folder.
from fnn.checkpoint.errors import (
    CheckpointError as CheckpointError,
    CheckpointWarning as CheckpointWarning,
    MisfitError as MisfitError,
)
from fnn.checkpoint.save import save as save
from fnn.checkpoint.load import load as load
from fnn.checkpoint.archive import read_note as read_note
from fnn.checkpoint.foreign import From as From
from fnn.checkpoint.folder import Checkpoints as Checkpoints, Restored as Restored

# Training: an objective, a step, a loop, and fit around them.
from fnn.data import Batches as Batches, batches as batches
from fnn.training.objective import supervised as supervised
from fnn.training.step import TrainState as TrainState, train_init as train_init, train_step as train_step
from fnn.training.averaging import ema as ema, ema_params as ema_params
from fnn.training.loss_scaling import loss_scaling as loss_scaling
from fnn.training.retrace import RetraceWarning as RetraceWarning
from fnn.training.loop import Report as Report
from fnn.training.fit import fit as fit
from fnn.training.resume import load_run as load_run
from fnn.training.evaluate import evaluate as evaluate, predict as predict
from fnn.training.early_stopping import early_stopping as early_stopping
from fnn.training.faults import NonFiniteError as NonFiniteError
from fnn.training.check import Finding as Finding, check as check
from fnn.training.training import training as training
from fnn.core.caches import clear_caches as clear_caches
from fnn.training.watch import learning_rate as learning_rate, norms as norms
from fnn.training.logs import csv_log as csv_log, jsonl_log as jsonl_log, tensorboard_log as tensorboard_log
from fnn import augment as augment

# Studies: many trainings as few compiled programs.
from fnn.studies.space import (
    choice as choice,
    integer as integer,
    log_uniform as log_uniform,
    normal as normal,
    uniform as uniform,
)
from fnn.studies.configurations import grid as grid, sobol as sobol, table as table
from fnn.studies.suggestions import from_optuna as from_optuna
from fnn.studies.folds import (
    Folds as Folds,
    k_fold as k_fold,
    leave_one_out as leave_one_out,
    shuffle_split as shuffle_split,
    time_series as time_series,
)
from fnn.studies.halving import halving as halving
from fnn.studies.trial import Trial as Trial
from fnn.studies.result import StudyResult as StudyResult
from fnn.studies.statistics import (
    Comparison as Comparison,
    Interval as Interval,
    compare as compare,
    interval as interval,
)
from fnn.studies.study import study as study
from fnn.studies.finder import LearningRates as LearningRates, find_learning_rate as find_learning_rate

# The public names are those that are imported above, so that each is written once; of the modules, the namespaces.
__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    name
    for name, value in globals().items()
    if not name.startswith("_") and (not isinstance(value, _Module) or name in ("augment",))
]

__doc__ = f"{__doc__}\n" + "\n".join(
    f"{name:24}{(globals()[name].__doc__ or '').partition(chr(10))[0]}".rstrip() for name in __all__
)


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
