"""How good are drawn images? A classifier of the real ones measures them.

A network that was trained to tell classes apart has learned what matters in an image: what its last layer but one says
of drawn images should be distributed as what it says of real ones. The Fréchet distance between the two is how far
apart they are, in mean and in covariance (Heusel et al., GANs trained by a two time-scale update rule, 2017,
arXiv:1706.08500). Its size depends on the classifier, so that only distances of one examiner can be compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from sklearn.metrics import pairwise_distances_argmin_min

import fnn


class Examiner(NamedTuple):
    """A classifier of real images, and what it measures of drawn ones.

    Attributes:
        features: Images to what the last layer but one says, ``(images, features)``.
        probabilities: Images to the probability of each class, ``(images, classes)``.
    """

    features: Callable[[Any], np.ndarray]
    probabilities: Callable[[Any], np.ndarray]

    def distance(self, images: Any, others: Any) -> float:
        """The Fréchet distance between the normal distributions that fit the features of both best."""
        a, b = (np.asarray(self.features(part), np.float64) for part in (images, others))
        first, second = np.cov(a.T), np.cov(b.T)
        cross = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0)).sum()
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross)

    def measure(self, images: Any, test: Any, seen: np.ndarray) -> list[float]:
        """Distance to test images; mean certainty; share of the rarest class; distance to training images."""
        sure = self.probabilities(images)
        share = np.bincount(sure.argmax(1), minlength=sure.shape[1]).min() / len(sure)
        return [self.distance(images, test), float(sure.max(1).mean()), float(share), float(nearest(images, seen)[1])]


def nearest(images: Any, seen: np.ndarray) -> tuple[np.ndarray, float]:
    """The number of the training image that is nearest to each, and the median of the distances."""
    flat = lambda part: np.asarray(part).reshape(len(part), -1)
    which, distances = pairwise_distances_argmin_min(flat(images), flat(seen))
    return which, float(np.median(distances))


def train(x: np.ndarray, y: np.ndarray, classes: int, epochs: int, seed: int) -> Examiner:
    """Train the classifier on the training images and their classes, which the generator never gets."""
    features = fnn.serial(
        fnn.conv(16, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.conv(32, (3, 3)), jax.nn.relu, fnn.max_pool((2, 2)),
        fnn.flatten(), fnn.dense(32), jax.nn.relu,
    )  # fmt: skip
    net = fnn.serial(features=features, head=fnn.dense(classes))
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    optimizer = optax.adam(1e-3)
    run = fnn.train_init(net, optimizer, jax.random.key(seed), x)
    run, _ = fnn.fit(fnn.supervised(net, loss), optimizer, run, (x, y), epochs=epochs, progress=False)
    return Examiner(
        lambda images: np.asarray(fnn.predict(features, run.params["features"], {}, images)),
        lambda images: np.asarray(jax.nn.softmax(fnn.predict(net, run.params, run.state, images))),
    )
