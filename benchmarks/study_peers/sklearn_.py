"""scikit-learn: `MLPClassifier` for each trial by joblib, or `GridSearchCV` over folds, with a job for each core."""

from collections.abc import Sequence

from joblib import Parallel, delayed
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import Arrays
from benchmarks.study_peers import Outcome, Program, StudyTask


def classifier(task: StudyTask, rows: int, seed: int) -> MLPClassifier:
    """Adam without a penalty, for so many epochs and no fewer."""
    epochs = task.epochs(rows)
    return MLPClassifier(
        (task.hidden,), batch_size=task.batch, max_iter=epochs, n_iter_no_change=epochs + 1, alpha=0.0,
        random_state=seed,
    )  # fmt: skip


def prepare(task: StudyTask, arrays: Arrays) -> Program:
    x, y = arrays["x"], arrays["y"]
    trained = len(x) - len(x) // task.folds if task.folds > 1 else len(x)
    steps = task.epochs(trained) * -(-trained // task.batch)  # it also takes the remainder of an epoch as a batch

    def search(rates: Sequence[float], seed: int) -> Outcome:
        splitter = StratifiedKFold(task.folds, shuffle=True, random_state=seed)
        grid = {"learning_rate_init": list(rates)}
        found = GridSearchCV(classifier(task, trained, seed), grid, cv=splitter, n_jobs=-1, refit=False).fit(x, y)
        return Outcome(found.cv_results_["mean_test_score"].tolist(), steps)

    def study(rates: Sequence[float], seed: int) -> Outcome:
        accuracies = Parallel(n_jobs=-1)(delayed(_accuracy)(task, arrays, rate, seed) for rate in rates)
        return Outcome(accuracies, steps)

    def parameters() -> int:
        net = classifier(task, trained, 0).partial_fit(x[: task.batch], y[: task.batch], classes=range(task.classes))
        return sum(array.size for array in (*net.coefs_, *net.intercepts_))

    return Program(search if task.folds > 1 else study, parameters)


def _accuracy(task: StudyTask, arrays: Arrays, rate: float, seed: int) -> float:
    net = classifier(task, len(arrays["x"]), seed).set_params(learning_rate_init=rate).fit(arrays["x"], arrays["y"])
    return net.score(arrays["x_validation"], arrays["y_validation"])
