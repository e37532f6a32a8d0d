"""Ways to hold out rows, compared with scikit-learn's where the answer is unique."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, LeaveOneOut, StratifiedKFold, TimeSeriesSplit

import fnn
from fnn.studies.folds import as_folds, index_sets

random = np.random.default_rng


def split(rule, rows, target=None, seed=0):
    return as_folds(rule).split(rows, target, random(seed))


def check_partition(pairs, rows):
    """Every row is held out once, and trained on wherever it is not."""
    assert sorted(np.concatenate([held for _, held in pairs]).tolist()) == list(range(rows))
    for train, held in pairs:
        assert sorted([*train, *held]) == list(range(rows))


@pytest.mark.parametrize(("folds", "rows"), [(2, 4), (3, 10), (10, 10), (7, 100)])
def test_k_fold_is_a_partition_of_even_parts(folds, rows):
    pairs = split(fnn.k_fold(folds), rows)
    check_partition(pairs, rows)
    sizes = [len(held) for _, held in pairs]
    assert max(sizes) - min(sizes) <= 1


def test_repeats_are_other_partitions():
    pairs = split(fnn.k_fold(3, repeats=2), 30)
    check_partition(pairs[:3], 30)
    check_partition(pairs[3:], 30)
    assert any(set(a[1]) != set(b[1]) for a, b in zip(pairs[:3], pairs[3:]))


def test_stratified_folds_have_the_classes_in_proportion_as_scikit_learns_have():
    target = random(1).permutation(np.repeat([0, 1, 5], [40, 25, 10]))
    pairs = split(fnn.k_fold(5, stratified=True), 75, target)
    check_partition(pairs, 75)
    theirs = StratifiedKFold(5, shuffle=True, random_state=0).split(target, target)
    count = lambda held: np.unique(target[held], return_counts=True)[1].tolist()
    assert sorted(count(held) for _, held in pairs) == sorted(count(held) for _, held in theirs)


def test_groups_stay_together_and_parts_are_as_even_as_scikit_learns():
    groups = random(2).integers(0, 12, 100)
    pairs = split(fnn.k_fold(4, groups=groups), 100)
    check_partition(pairs, 100)
    for train, held in pairs:
        assert not set(groups[train]) & set(groups[held])
    theirs = GroupKFold(4).split(groups, groups=groups)
    assert sorted(len(held) for _, held in pairs) == sorted(len(held) for _, held in theirs)


def test_leave_one_out_is_scikit_learns():
    for (train, held), (their_train, their_held) in zip(split(fnn.leave_one_out(), 5), LeaveOneOut().split(range(5))):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(held, their_held)


@pytest.mark.parametrize("settings", [{}, {"held_out": 3}, {"gap": 2}, {"train": 4}, {"train": 5, "gap": 1}])
def test_time_series_is_scikit_learns(settings):
    names = {"held_out": "test_size", "train": "max_train_size", "gap": "gap"}
    theirs = TimeSeriesSplit(4, **{names[name]: value for name, value in settings.items()}).split(range(23))
    for (train, held), (their_train, their_held) in zip(split(fnn.time_series(4, **settings), 23), theirs, strict=True):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(held, their_held)


def test_shuffle_split_holds_out_a_part():
    for train, held in split(fnn.shuffle_split(3, held_out=0.25), 40):
        assert len(held) == 10
        assert sorted([*train, *held]) == list(range(40))


def test_folds_depend_on_the_seed_alone():
    one, same, other = (split(fnn.k_fold(2), 20, seed=seed)[0][1].tolist() for seed in (0, 0, 1))
    assert one == same
    assert one != other


def test_a_splitter_of_scikit_learn_and_pairs_are_rules():
    target = np.repeat([0, 1], 4)
    theirs = split(StratifiedKFold(2), 8, target)
    for mine, wanted in zip(theirs, StratifiedKFold(2).split(target, target)):
        np.testing.assert_array_equal(mine[1], wanted[1])
    assert split([([0, 1], [2])], 3)[0][1].tolist() == [2]
    assert len(split(4, 8)) == 4


def test_index_sets_are_padded_to_one_size():
    sets = index_sets(fnn.k_fold(3), 10, None, [0])
    assert sets.train.shape == (3, 7)
    assert sets.train_sizes.tolist() == [6, 7, 7]
    assert sets.held_out_sizes.tolist() == [4, 3, 3]
    assert sets.train.dtype == np.int32


@pytest.mark.parametrize(
    ("rule", "rows", "target", "message"),
    [
        (lambda: fnn.k_fold(1), 4, None, "at least 2 folds"),
        (lambda: fnn.k_fold(5), 4, None, "5 folds of 4 rows; use at most 4"),
        (lambda: fnn.k_fold(2, stratified=True, groups=[0]), 4, None, "not both"),
        (lambda: fnn.k_fold(3, stratified=True), 6, np.array([0, 0, 0, 0, 7, 7]), "class 7 has 2 rows, fewer than 3"),
        (lambda: fnn.k_fold(3, stratified=True), 6, np.ones((6, 1)), "one class for each row"),
        (lambda: fnn.k_fold(3, groups=[0, 0, 1, 1]), 4, None, "3 folds of 2 groups"),
        (lambda: fnn.k_fold(2, groups=[0, 1]), 4, None, "one group for each of 4 rows"),
        (lambda: fnn.leave_one_out(), 1, None, "at least 2 rows"),
        (lambda: fnn.shuffle_split(held_out=1.0), 4, None, "between 0 and 1, got 1.0"),
        (lambda: fnn.shuffle_split(held_out=0.1), 4, None, "leaves a side without a row"),
        (lambda: fnn.time_series(5), 5, None, "need more than 5 rows"),
        (lambda: [([0, 1], [1])], 2, None, "1 rows that it trains on"),
        (lambda: [([0, 1], [5])], 2, None, "has row 5, the data has rows 0 to 1"),
        (lambda: [([0, -1], [1])], 2, None, "has row -1, the data has rows 0 to 1"),
        (lambda: [([], [1])], 2, None, "no row to train on"),
        (list, 2, None, "gave no fold"),
        (lambda: [[1, 2, 3]], 2, None, "a fold is a pair"),
    ],
)
def test_folds_that_cannot_be_are_refused(rule, rows, target, message):
    with pytest.raises(ValueError, match=message):
        index_sets(as_folds(rule()), rows, target, [0])
