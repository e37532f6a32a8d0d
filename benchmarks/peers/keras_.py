"""Keras on the backend that ``KERAS_BACKEND`` names: `Model.train_on_batch`, which compiles the step."""

from functools import partial
from typing import Any

import keras
from keras import layers, ops

from benchmarks.harness import Arrays
from benchmarks.peers import Program
from benchmarks.workloads import BLOCKS, NETWORKS, Task

conv = partial(layers.Conv2D, padding="same", use_bias=False)
norm = partial(layers.BatchNormalization, momentum=0.9)


def network(name: str) -> keras.Model:
    """The networks of the workloads."""
    inputs = keras.Input(NETWORKS[name].shape)
    if name == "cnn":
        return keras.Sequential([
            inputs,
            layers.Conv2D(32, (3, 3), activation="relu"), layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"), layers.MaxPooling2D((2, 2)),
            layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10, dtype="float32"),
        ])  # fmt: skip
    if name == "mlp":
        hidden = [layers.Dense(512, activation="relu"), layers.Dense(512, activation="relu")]
        return keras.Sequential([inputs, *hidden, layers.Dense(10, dtype="float32")])
    x = layers.Activation("relu")(norm()(conv(16, 3)(inputs)))
    for channels, stride in BLOCKS:
        y = layers.Activation("relu")(norm()(conv(channels, 3, strides=stride)(x)))
        y = norm()(conv(channels, 3)(y))
        if stride > 1:
            x = norm()(conv(channels, 1, strides=stride)(x))
        x = layers.Activation("relu")(layers.add([x, y]))
    return keras.Model(inputs, layers.Dense(10, dtype="float32")(layers.GlobalAveragePooling2D()(x)))


def _model(task: Task) -> keras.Model:
    model = network(task.network)
    adam = task.optimizer == "adam"
    optimizer = keras.optimizers.Adam(1e-3) if adam else keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def prepare(task: Task, arrays: Arrays) -> Program:
    if task.dtype == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    models = [_model(task) for _ in range(task.repeats)]
    count = sum(int(ops.size(weight)) for weight in models[0].trainable_weights)
    x, y = ops.convert_to_tensor(arrays["x"]), ops.convert_to_tensor(arrays["y"])

    def step() -> Any:
        """One model after another; the loss comes back as a number, which waits for the step."""
        return [float(model.train_on_batch(x, y)) for model in models][-1]

    if task.mode == "infer":
        return Program(lambda: models[0].predict_on_batch(x), count)
    return Program(step, count)
