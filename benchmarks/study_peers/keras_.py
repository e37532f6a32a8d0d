"""Keras on the backend that ``KERAS_BACKEND`` names: for each trial a model, `compile`, `fit` and `evaluate`."""

from collections.abc import Sequence

import keras
from keras import layers

from benchmarks.harness import Arrays
from benchmarks.study_peers import Outcome, Program, StudyTask


def network(task: StudyTask, inputs: int) -> keras.Model:
    """The network of the workload; ``inputs`` is the number of columns."""
    return keras.Sequential(
        [keras.Input((inputs,)), layers.Dense(task.hidden, activation="relu"), layers.Dense(task.classes)]
    )


def prepare(task: StudyTask, arrays: Arrays) -> Program:
    x, y = arrays["x"], arrays["y"]

    def study(rates: Sequence[float], seed: int) -> Outcome:
        keras.utils.set_random_seed(seed)
        accuracies, steps = [], []
        for rate in rates:
            keras.utils.clear_session()  # so that the models before are let go
            model = network(task, x.shape[1])
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
            model.fit(x, y, batch_size=task.batch, epochs=task.epochs(len(x)), verbose=0)
            accuracies.append(model.evaluate(arrays["x_validation"], arrays["y_validation"], verbose=0)[1])
            steps.append(int(model.optimizer.iterations))
        return Outcome(accuracies, max(steps))

    return Program(study, lambda: network(task, x.shape[1]).count_params())
