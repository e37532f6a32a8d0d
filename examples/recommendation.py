"""Recommend movies: guess the stars that a user would give, and find what to watch next.

Matrix factorisation gives every user and every movie a vector. A rating is guessed as the mean of all ratings, plus how
generous the user is, plus how liked the movie is, plus the product of the two vectors: how well they suit each other.

Two towers do the same with two networks. One makes a vector of the user, the other one of the movie, of which it
knows the genres and the year too. They are trained twice: once to guess the stars, and once to pick the movie that was
liked among all movies (softmax). Guessing stars and recommending are not the same: what users choose to watch says more
about their next movie than the stars do, so that a method may be good at one and bad at the other.

Each user's ratings are split by time: the last tenth is the test, the tenth before it chooses, the networks learn from
the rest. Two numbers judge: the root mean squared error of the stars, and the recall at 10: ten movies that the user
has not rated before are recommended; which share of the movies of the test part with four stars or more is among them?
(Where there are more than ten of them, ten are all that can be had.)

The rivals are the mean of each movie, popularity, and truncated singular value decompositions of what is known: of what
the means leave over, with zeros where there is no rating, for the stars; and of the table of likes for recall. On so
small a set the towers guess the stars best, and the decomposition of likes recommends best.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import files
import jax
import jax.numpy as jnp
import numpy as np
import optax
import ratings
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from sklearn.manifold import TSNE

import fnn

RANKS = (2, 5, 10, 20, 40)  # of the singular value decompositions; validation chooses
GENRES = ("Horror", "Children", "Sci-Fi", "Romance", "War", "Crime")  # of the map


class Scores(NamedTuple):
    """What a method says of each user and movie, ``(users, movies)``.

    Attributes:
        rank: More is better.
        stars: The guessed rating; None where the method has none.
    """

    rank: np.ndarray
    stars: np.ndarray | None


# Networks


def factorisation(shape: tuple[int, int], features: int, mean: float) -> fnn.Layer:
    """Vectors and biases of users and movies: ``(users, movies)`` of a batch become guesses."""

    def forward(f: Any, user: jax.Array, movie: jax.Array) -> jax.Array:
        suits = jnp.sum(f.user(user) * f.movie(movie), axis=-1)
        return mean + f.user_bias(user)[:, 0] + f.movie_bias(movie)[:, 0] + suits

    vectors = jax.nn.initializers.normal(0.1)
    zeros = jax.nn.initializers.zeros
    return fnn.wire(
        forward,
        user=fnn.embedding(shape[0], features, embedding_init=vectors),
        movie=fnn.embedding(shape[1], features, embedding_init=vectors),
        user_bias=fnn.embedding(shape[0], 1, embedding_init=zeros),
        movie_bias=fnn.embedding(shape[1], 1, embedding_init=zeros),
    )


def two_towers(shape: tuple[int, int], features: int, known: np.ndarray) -> fnn.Layer:
    """A network for users and one for movies: the score of one movie for each user, or without it of all movies."""

    def forward(f: Any, user: jax.Array, movie: jax.Array | None = None) -> jax.Array:
        rows = slice(None) if movie is None else movie
        tower = f.movie_tower(jnp.concatenate([f.movie(), known], axis=-1)[rows])
        mine, bias = f.user_tower(f.user(user)), f.movie_bias()[rows]
        if movie is None:
            return mine @ tower.T + bias + f.user_bias(user)
        return jnp.sum(mine * tower, axis=-1) + bias + f.user_bias(user)[:, 0]

    tower = lambda: fnn.serial(fnn.dense(2 * features), jax.nn.relu, fnn.dropout(0.2), fnn.dense(features))
    zeros = jax.nn.initializers.zeros
    return fnn.wire(
        forward,
        user=fnn.embedding(shape[0], features),
        movie=fnn.parameter((shape[1], features), jax.nn.initializers.normal(0.1)),
        user_tower=tower(),
        movie_tower=tower(),
        user_bias=fnn.embedding(shape[0], 1, embedding_init=zeros),
        movie_bias=fnn.parameter((shape[1],), zeros),
    )


def train(
    net: fnn.Layer, loss: Any, data: Any, validation: Any, *, epochs: int, rate: float, key: jax.Array,
    penalty: Any = None,
) -> tuple[fnn.TrainState, int]:  # fmt: skip
    """Train, and return the state of the epoch with the least validation loss, and how many epochs that took."""
    objective = fnn.supervised(net, loss, penalty=penalty, inputs=lambda x: x)
    optimizer = optax.adam(rate)
    run, history = fnn.fit(
        objective, optimizer, fnn.train_init(net, optimizer, key, *data[0]), data,
        batch_size=min(512, max(1, len(data[1]) // 32)), epochs=epochs, validation=validation,
        early_stopping=fnn.early_stopping(3, minimize="validation/loss"), progress=False,
    )  # fmt: skip
    return run, int(history["validation/loss"].argmin()) + 1


def factorise(
    train_rows: ratings.Rows, held: ratings.Rows, shape: tuple[int, int], features: int, epochs: int, key: jax.Array
) -> tuple[Scores, int, int]:
    """Train the matrix factorisation: its scores, how many parameters it has, and which epoch was best.

    All scores at once are the product of its two tables.
    """
    mean = float(train_rows.stars.mean())
    net = factorisation(shape, features, mean)
    data, validation = (((rows.users, rows.movies), rows.stars) for rows in (train_rows, held))
    run, taken = train(
        net, optax.losses.squared_error, data, validation, epochs=epochs, rate=3e-3, key=key,
        penalty=lambda params: 3e-5 * fnn.l2(params, "*"),
    )  # fmt: skip
    tables = {name: np.asarray(tree["embedding"]) for name, tree in run.params.items()}
    stars = mean + tables["user"] @ tables["movie"].T + tables["user_bias"] + tables["movie_bias"].T
    return Scores(stars, stars), fnn.count(run.params), taken


def raise_towers(
    train_rows: ratings.Rows, held: ratings.Rows, known: np.ndarray, shape: tuple[int, int], features: int,
    epochs: int, key: jax.Array, *, ranking: bool,
) -> tuple[Scores, int, int]:  # fmt: skip
    """Train the two towers to guess stars, or to pick liked movies; returns what `factorise` does."""
    mean = float(train_rows.stars.mean())
    net = two_towers(shape, features, known)
    if ranking:
        liked = [rows.stars >= ratings.LIKED for rows in (train_rows, held)]
        parts = [((rows.users[which],), rows.movies[which]) for rows, which in zip((train_rows, held), liked)]
        loss = optax.losses.softmax_cross_entropy_with_integer_labels
    else:
        parts = [((rows.users, rows.movies), rows.stars - mean) for rows in (train_rows, held)]
        loss = optax.losses.squared_error
    run, taken = train(
        net, loss, *parts, epochs=epochs, rate=2e-3, key=key,
        penalty=lambda params: 1e-5 * (fnn.l2(params, "user/*") + fnn.l2(params, "movie/*")),
    )  # fmt: skip
    rank = np.asarray(fnn.predict(net, run.params, run.state, np.arange(shape[0])))
    return Scores(rank, None if ranking else mean + rank), fnn.count(run.params), taken


# Rivals


def rivals(train_rows: ratings.Rows, held: ratings.Rows, shape: tuple[int, int], seen: np.ndarray) -> dict[str, Scores]:
    """Means, popularity, and singular value decompositions whose ranks have the best validation scores."""
    users, movies, stars = train_rows
    mean, often = float(stars.mean()), np.bincount(movies, minlength=shape[1])
    # As if each had five ratings more, of the mean: a movie with a single rating of five stars is not the best of all.
    movie_mean = mean + np.bincount(movies, stars - mean, shape[1]) / (often + 5)
    generous = np.bincount(users, stars - movie_mean[movies], shape[0]) / (np.bincount(users, minlength=shape[0]) + 5)
    means = movie_mean + generous[:, None]
    left = csr_matrix((stars - means[users, movies], (users, movies)), shape)
    liked = csr_matrix(((stars >= ratings.LIKED).astype(np.float64), (users, movies)), shape)
    ranks = [rank for rank in RANKS if rank < min(shape)]
    guesses = [means + product(left, rank) for rank in ranks]
    picks = [product(liked, rank) for rank in ranks]
    guess = min(guesses, key=lambda stars: ratings.error_of(stars, held))
    only_movie = np.broadcast_to(movie_mean, shape)
    return {
        "movie mean": Scores(only_movie, only_movie),
        "popularity": Scores(np.broadcast_to(often.astype(float), shape), None),
        "SVD, stars": Scores(guess, guess),
        "SVD, likes": Scores(max(picks, key=lambda rank: ratings.recall(rank, seen, held)), None),
    }


def product(table: csr_matrix, rank: int) -> np.ndarray:
    """The nearest table of a rank."""
    left, values, right = svds(table, rank, v0=np.random.default_rng(0).normal(size=min(table.shape)))
    return left * values @ right


# The example


def main(
    *,
    features: int = 16,
    epochs: int = 20,
    user: int = 1,
    users: int | None = None,
    seed: int = 0,
    output: str | Path = "outputs/recommendation",
) -> dict[str, tuple[float | None, float]]:
    """Train all methods, print the table and recommendations, and save two pictures.

    Args:
        features: Size of the vectors.
        epochs: Passes over the ratings, at most; validation decides when it was enough.
        user: Who gets recommendations: the number in the set, from 1 on.
        users: Use only the first so many users, for a quick look.
        seed: Decides all that is random.
        output: Folder of the pictures.

    Returns:
        The test error and the recall at 10 of each method; None where it guesses no stars.
    """
    table = ratings.load()
    if users:
        few = table.users < users
        table = table._replace(**{name: getattr(table, name)[few] for name in ("users", "movies", "stars", "times")})
    shape = (int(table.users.max()) + 1, len(table.titles))
    if not 1 <= user <= shape[0]:
        raise ValueError(f"there is no user {user}; there are users 1 to {shape[0]}")
    parts = train_rows, held, test = ratings.split(table)
    print(f"{shape[0]} users, {shape[1]} movies; {len(train_rows.users)} ratings to train on, {len(held.users)} to "
          f"choose by, {len(test.users)} to test")  # fmt: skip
    decade = (table.years[:, None] - 1990) / 20 * (table.years[:, None] > 0)
    known = np.concatenate([table.genres, decade], axis=1).astype(np.float32)
    seen = ratings.seen_in(shape, train_rows)
    seen_later = ratings.seen_in(shape, train_rows, held)

    methods = rivals(train_rows, held, shape, seen)
    sizes: dict[str, int] = {}
    key = jax.random.key(seed)
    trained: dict[str, Callable[[], tuple[Scores, int, int]]] = {
        "factorisation": lambda: factorise(train_rows, held, shape, features, epochs, key),
        "two towers, stars": lambda: raise_towers(
            train_rows, held, known, shape, features, epochs, key, ranking=False
        ),
        "two towers, likes": lambda: raise_towers(train_rows, held, known, shape, features, epochs, key, ranking=True),
    }  # fmt: skip
    for name, make in trained.items():
        methods[name], sizes[name], taken = make()
        print(f"{name}: epoch {taken} was best", flush=True)

    print(f"\n{'':20}{'':11}{'validation':>20}{'test':>20}")
    print(f"{'method':20}{'parameters':>11}{'RMSE':>10}{'recall':>10}{'RMSE':>10}{'recall':>10}")
    chosen: dict[str, tuple[float, str]] = {}
    found: dict[str, tuple[float | None, float]] = {}
    for name, scores in methods.items():
        errors = [None if scores.stars is None else ratings.error_of(scores.stars, rows) for rows in (held, test)]
        watched = errors[0], ratings.recall(scores.rank, seen, held)
        found[name] = errors[1], ratings.recall(scores.rank, seen_later, test)
        cells = ["" if cell is None else f"{cell:.4f}" for cell in (*watched, *found[name])]
        print(f"{name:20}{sizes.get(name, ''):>11}" + "".join(f"{cell:>10}" for cell in cells))
        if watched[0] is not None:
            chosen["stars"] = min(chosen.get("stars", (np.inf, "")), (watched[0], name))
        chosen["recall"] = max(chosen.get("recall", (-np.inf, "")), (watched[1], name))

    recommend(table, methods[chosen["recall"][1]].rank, seen_later, parts, user - 1)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    bars(found).savefig(folder / "scores.png", dpi=150)
    movie_map(methods["two towers, likes"].rank, table, seed).savefig(folder / "movies.png", dpi=150)
    print(f"\npictures: {folder}/scores.png, movies.png")
    by_error, by_recall = chosen["stars"][1], chosen["recall"][1]
    print(f"chosen by validation: {by_error} for the stars, test error {found[by_error][0]:.4f}; {by_recall} for "
          f"recommendations, recall {found[by_recall][1]:.4f}")  # fmt: skip
    return found


def recommend(
    table: ratings.Ratings, rank: np.ndarray, seen: np.ndarray, parts: tuple[ratings.Rows, ...], user: int
) -> None:
    """Print what a user liked most, and what comes next."""
    mine = ratings.Rows(*(np.concatenate([rows[n][rows.users == user] for rows in parts[:2]]) for n in range(3)))
    later = set(parts[2].movies[(parts[2].users == user) & (parts[2].stars >= ratings.LIKED)].tolist())
    favourites = mine.movies[np.argsort(-mine.stars, kind="stable")][:5]
    print(f"\nuser {user + 1} liked", *(f"  {table.titles[movie]}" for movie in favourites), sep="\n")
    print("and is recommended (* was liked later)")
    for movie in ratings.best(rank[user : user + 1], seen[user : user + 1])[0]:
        print(f" {'*' if int(movie) in later else ' '} {table.titles[movie]}")


def bars(found: Mapping[str, tuple[float | None, float]]) -> Figure:
    """Errors and recalls of all methods on the test part."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = list(found)[::-1]
    colours = ["tab:blue" if "towers" in name or name == "factorisation" else "0.65" for name in names]
    titles = ("root mean squared error of the stars (less is better)", "recall at 10 (more is better)")
    for number, (axes, title) in enumerate(zip(figure.subplots(1, 2, sharey=True), titles)):
        values = [found[name][number] for name in names]
        drawn = axes.barh(names, [value or 0.0 for value in values], color=colours)
        axes.bar_label(drawn, ["guesses no stars" if value is None else f"{value:.3f}" for value in values], padding=3)
        axes.set_title(title, fontsize=10)
        axes.set_xlim(0, 1.2 * axes.dataLim.xmax)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def movie_map(rank: np.ndarray, table: ratings.Ratings, seed: int) -> Figure:
    """The most rated movies on a plane (t-SNE): near each other where the same users are thought to like them."""
    popular = np.argsort(-np.bincount(table.movies, minlength=rank.shape[1]), kind="stable")[:600]
    kinds = [table.kinds.index(genre) for genre in GENRES if genre in table.kinds]
    one = popular[table.genres[popular][:, kinds].sum(axis=1) == 1]
    # Without how generous a user is, and how popular a movie.
    vectors = (rank - rank.mean(axis=1, keepdims=True))[:, one].T
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    places = TSNE(perplexity=min(20, len(one) // 4), init="pca", random_state=seed).fit_transform(unit)
    places = places / np.ptp(places, axis=0)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    for number, kind in enumerate(kinds):
        mine = table.genres[one, kind] > 0
        axes.scatter(*places[mine].T, s=22, color=f"C{number}", alpha=0.8, linewidth=0, label=table.kinds[kind])
    named: list[np.ndarray] = []
    for place, movie in zip(places, one[:60]):
        if all(abs(place - other) @ (0.2, 1) > 0.05 for other in named):  # room for a line of text
            named.append(place)
            title = table.titles[movie].split(" (")[0].removesuffix(", The")
            axes.annotate(title[:26], place, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.margins(x=0.12)
    axes.set(xticks=[], yticks=[], title="near each other: movies that the same users should like")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=16, help="size of the vectors (default: 16)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the ratings, at most (default: 20)")
    parser.add_argument("--user", type=int, default=1, help="who gets recommendations (default: 1)")
    parser.add_argument("--users", type=int, help="use only the first so many users, for a quick look")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="outputs/recommendation", help="folder of the pictures")
    try:
        main(**vars(parser.parse_args()))
    except (files.DatasetError, ValueError) as error:
        sys.exit(str(error))
