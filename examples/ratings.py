"""Ratings of movies for the recommendation example: the small MovieLens set of 2018."""

import csv
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from files import damaged, find_unchecked

LIKED = 4.0  # stars
_ADDRESS = "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip"


class Ratings(NamedTuple):
    """Who gave which movie how many stars, one row for each rating.

    Attributes:
        users: Numbers from 0 on, in the order of the set's own, which begin at 1; int32.
        movies: Places in ``titles``, int32.
        stars: 0.5 to 5, float32.
        times: Seconds since 1970, int64.
        titles: Of all movies, with the year.
        genres: Which movie has which genre ``(movies, genres)``, float32.
        kinds: The names of the genres.
    """

    users: np.ndarray
    movies: np.ndarray
    stars: np.ndarray
    times: np.ndarray
    titles: tuple[str, ...]
    genres: np.ndarray
    kinds: tuple[str, ...]

    @property
    def years(self) -> np.ndarray:
        """When each movie came out, int32; 0 where its title does not say."""
        found = [re.search(r"\((\d{4})\)\s*$", title) for title in self.titles]
        return np.array([int(year[1]) if year else 0 for year in found], np.int32)


def load() -> Ratings:
    """Read the set.

    Raises:
        DatasetError: when the archive is not on this machine, or does not hold what it should.
    """
    path = find_unchecked("movielens-latest-small", ("ml-latest-small.zip",), _ADDRESS)
    rows = read_table(path, "ml-latest-small/ratings.csv", ("userId", "movieId", "rating", "timestamp"))
    listed = read_table(path, "ml-latest-small/movies.csv", ("movieId", "title", "genres"))
    try:
        whole = np.int64
        columns = [np.array(column, kind) for column, kind in zip(zip(*rows), (whole, whole, np.float32, whole))]
        numbers = np.array([row[0] for row in listed], whole)
    except ValueError as error:
        raise damaged(path, f"a row cannot be read ({error})", "numbers") from error
    who, what, stars, times = columns
    if not (known := np.isin(stars, np.arange(0.5, 5.5, 0.5))).all():
        raise damaged(path, f"it has a rating of {stars[~known][0]:g}", "0.5, 1, ... 5 stars")
    if len(np.unique(numbers)) < len(numbers) or not np.isin(what, numbers).all():
        raise damaged(path, "a movie is listed twice, or is rated and not listed", "each movie once")
    if len(np.unique(who * (numbers.max() + 1) + what)) < len(who):
        raise damaged(path, "a user has rated a movie twice", "once")
    order = np.argsort(numbers)
    movies = order[np.searchsorted(numbers, what, sorter=order)]
    users = np.unique(who, return_inverse=True)[1]
    named = [set(row[2].split("|")) - {"(no genres listed)"} for row in listed]
    kinds = tuple(sorted(set.union(*named)))
    genres = np.array([[kind in one for kind in kinds] for one in named], np.float32)
    titles = tuple(row[1] for row in listed)
    return Ratings(users.astype(np.int32), movies.astype(np.int32), stars, times, titles, genres, kinds)


def read_table(path: Path, name: str, columns: tuple[str, ...]) -> list[list[str]]:
    """Read the rows of a CSV file in a zip archive, without the header."""
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(name).decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, UnicodeDecodeError, csv.Error) as error:
        raise damaged(path, f"{name} cannot be read ({error})", "a zip archive with that file") from error
    if not rows or tuple(rows[0]) != columns:
        raise damaged(path, f"{name} begins with {','.join(rows[0])[:60] if rows else 'nothing'!r}", ",".join(columns))
    if short := [number for number, row in enumerate(rows, start=1) if len(row) != len(columns)]:
        raise damaged(path, f"row {short[0]} of {name} has not {len(columns)} fields", "all rows with them")
    if len(rows) < 2:
        raise damaged(path, f"{name} has no rows", "at least one")
    return rows[1:]


# Splitting and judging


class Rows(NamedTuple):
    """Some of the ratings."""

    users: np.ndarray
    movies: np.ndarray
    stars: np.ndarray


def split(table: Ratings, share: float = 0.1) -> tuple[Rows, Rows, Rows]:
    """Training, validation and test rows: of each user the last ``share`` is the test, that before it validation."""
    order = np.lexsort((table.movies, table.times, table.users))
    users = table.users[order]
    counts = np.bincount(users)
    place = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    left = counts[users] - 1 - place  # how many ratings of the user come later
    part = np.minimum(left // np.maximum(1, (share * counts).astype(int))[users], 2)
    return tuple(Rows(*(column[order[part == n]] for column in table[:3])) for n in (2, 1, 0))  # type: ignore[return-value]


def error_of(stars: np.ndarray, rows: Rows) -> float:
    """Root mean squared error; no guess lies outside of 0.5 to 5."""
    guess = np.clip(stars[rows.users, rows.movies], 0.5, 5)
    return float(np.sqrt(np.mean((guess - rows.stars) ** 2)))


def best(rank: np.ndarray, seen: np.ndarray, count: int = 10) -> np.ndarray:
    """The movies with the highest scores that a user has not rated, ``(users, count)``."""
    unseen = np.where(seen, np.inf, -rank)
    found = np.argpartition(unseen, count, axis=1)[:, :count]
    return np.take_along_axis(found, np.argsort(np.take_along_axis(unseen, found, axis=1), axis=1), axis=1)


def recall(rank: np.ndarray, seen: np.ndarray, rows: Rows, count: int = 10) -> float:
    """Which share of the liked movies is among the recommended, as a mean over users who liked any."""
    liked = np.zeros(rank.shape, bool)
    liked[rows.users[rows.stars >= LIKED], rows.movies[rows.stars >= LIKED]] = True
    wanted = np.minimum(liked.sum(axis=1), count)
    hits = np.take_along_axis(liked, best(rank, seen, count), axis=1).sum(axis=1)
    return float(np.mean(hits[wanted > 0] / wanted[wanted > 0]))


def seen_in(shape: tuple[int, int], *parts: Rows) -> np.ndarray:
    """Which user has rated which movie."""
    seen = np.zeros(shape, bool)
    for rows in parts:
        seen[rows.users, rows.movies] = True
    return seen
