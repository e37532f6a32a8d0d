"""Ratings are split by time, scores are what they are called, and tastes are found."""

import importlib
import zipfile
from pathlib import Path

import numpy as np
import pytest

ratings = importlib.import_module("ratings")
recommendation = importlib.import_module("recommendation")
files = importlib.import_module("files")


def write(given: Path, users: int = 90, movies: int = 60, each: int = 30, texts: dict[str, str] | None = None) -> Path:
    """Users with one of two tastes; movies of even numbers are for the one, of odd numbers for the other."""
    draw = np.random.default_rng(0)
    rows = ["userId,movieId,rating,timestamp"]
    for user in range(1, users + 1):
        # Their own kind is watched three times as often.
        chances = np.where(np.arange(movies) % 2 == user % 2, 3.0, 1.0)
        watched = draw.choice(movies, each, replace=False, p=chances / chances.sum())
        for second, movie in enumerate(watched):
            stars = (4.5 if movie % 2 == user % 2 else 2.0) + draw.choice([-0.5, 0, 0.5])
            rows.append(f"{user},{10 * (movie + 1)},{stars},{1000 + second}")
    listed = [
        f'{10 * (n + 1)},"Film, The {n} ({1960 + n})",{"Horror|War" if n % 3 else "Children"}' for n in range(movies)
    ]
    content = {
        "ratings.csv": "\n".join(rows) + "\n",
        "movies.csv": "\n".join(["movieId,title,genres", *listed]) + "\n",
    } | (texts or {})
    path = given / "movielens-latest-small" / "ml-latest-small.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in content.items():
            archive.writestr(f"ml-latest-small/{name}", text)
    return path


def test_ratings_are_read_with_titles_genres_and_years(given: Path) -> None:
    write(given, 3, 8, 4)
    found = ratings.load()
    assert found.users.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.titles[5] == "Film, The 5 (1965)"
    assert found.kinds == ("Children", "Horror", "War")
    assert found.genres[:2].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert found.years.tolist() == list(range(1960, 1968))
    assert set(found.movies.tolist()) <= set(range(8))


MOVIES = "movieId,title,genres\n1,A (1990),War\n2,B,(no genres listed)\n"
RATINGS = "userId,movieId,rating,timestamp\n"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ratings.csv": "user,movie\n1,2\n"}, "ratings.csv begins with 'user,movie'"),
        ({"ratings.csv": RATINGS}, "ratings.csv has no rows"),
        ({"ratings.csv": RATINGS + "1,1,4.0\n"}, "row 2 of .*ratings.csv has not 4 fields"),
        ({"ratings.csv": RATINGS + "1,one,4.0,9\n"}, "a row cannot be read"),
        ({"ratings.csv": RATINGS + "1,1,4.1,9\n"}, "a rating of 4.1, wanted"),
        ({"ratings.csv": RATINGS + "1,1,4,9\n1,1,5,9\n"}, "rated a movie twice"),
        ({"ratings.csv": RATINGS + "1,3,4,9\n"}, "rated and not listed"),
        ({"movies.csv": MOVIES + "2,C,War\n"}, "listed twice"),
    ],
)
def test_damaged_ratings_are_named_with_what_is_wrong(given: Path, changes: dict[str, str], complaint: str) -> None:
    write(given, texts={"ratings.csv": RATINGS + "1,1,4.0,9\n", "movies.csv": MOVIES} | changes)
    with pytest.raises(files.DatasetError, match=rf"ml-latest-small\.zip: .*{complaint}"):
        ratings.load()


def test_a_damaged_or_missing_archive_is_told(given: Path) -> None:
    with pytest.raises(files.DatasetError, match=r"download https://.*by hand"):
        ratings.load()
    path = write(given, 3, 8, 4)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(files.DatasetError, match="cannot be read"):
        ratings.load()


def test_the_real_ratings_are_whole(data_folder: Path) -> None:
    found = ratings.load()
    assert (len(found.stars), found.users.max() + 1, len(found.titles)) == (100_836, 610, 9742)
    assert len(np.unique(found.movies)) == 9724
    assert found.titles[0] == "Toy Story (1995)"
    assert found.years[0] == 1995
    assert np.isin([1.0, 0.5, 5.0], found.stars).all()


def test_the_last_ratings_of_each_user_are_the_test(given: Path) -> None:
    write(given, 4, 40, 30)
    table = ratings.load()
    parts = ratings.split(table)
    assert [np.bincount(part.users).tolist() for part in parts] == [[24] * 4, [3] * 4, [3] * 4]
    times = {(user, movie): time for user, movie, time in zip(table.users, table.movies, table.times)}
    for user in range(4):
        ends = [[times[user, movie] for movie in part.movies[part.users == user]] for part in parts]
        assert max(ends[0]) < min(ends[1])
        assert max(ends[1]) < min(ends[2])


def test_recall_counts_liked_movies_among_the_first_ten() -> None:
    rank = np.tile(np.arange(30.0), (3, 1))
    seen = np.zeros((3, 30), bool)
    seen[0, 29] = True  # so that 19 to 28 are recommended
    rows = ratings.Rows(np.array([0, 0, 0, 1, 2]), np.array([19, 18, 20, 29, 3]), np.array([4.0, 5.0, 2.0, 5.0, 5.0]))
    assert ratings.best(rank, seen)[0].tolist() == list(range(28, 18, -1))
    assert ratings.recall(rank, seen, rows) == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_no_guess_is_outside_of_the_stars() -> None:
    rows = ratings.Rows(np.array([0, 0]), np.array([0, 1]), np.array([5.0, 1.0]))
    assert ratings.error_of(np.array([[9.0, 2.0]]), rows) == pytest.approx(np.sqrt(0.5))


def test_tastes_are_found_and_every_method_is_in_the_table(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(given)
    found = recommendation.main(features=4, epochs=40, output=tmp_path)
    names = ("movie mean", "popularity", "SVD, stars", "SVD, likes", "factorisation", "two towers, stars")
    assert tuple(found) == (*names, "two towers, likes")
    errors = {name: error for name, (error, _) in found.items() if error is not None}
    assert errors["SVD, stars"] < 0.9 * errors["movie mean"]
    assert max(errors["factorisation"], errors["two towers, stars"]) < 0.5 * errors["movie mean"]
    assert found["popularity"][0] is None
    assert found["two towers, likes"][1] > found["movie mean"][1]
    printed = capsys.readouterr().out
    assert printed.startswith("90 users, 60 movies; 2160 ratings to train on, 270 to choose by, 270 to test")
    assert "user 1 liked\n  Film, The" in printed
    assert all((tmp_path / name).stat().st_size > 5_000 for name in ("scores.png", "movies.png"))
