"""A study on the disk: plain files that other tools read, from which it goes on after a kill at any moment."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from fnn.checkpoint.archive import read_note
from fnn.checkpoint.disk import lock, replace_file
from fnn.checkpoint.errors import CheckpointError, CheckpointWarning, MisfitError
from fnn.checkpoint.load import load
from fnn.checkpoint.save import save
from fnn.checkpoint.table import show_table
from fnn.studies.identity import TREES
from fnn.studies.runs import OVER, Run, RunId
from fnn.training.early_stopping import EarlyStopping
from fnn.training.resume import compare, differences

ABOUT = "study.json"
CONFIGURATIONS = "configurations.jsonl"
RUNS = "runs.jsonl"
RUNNING = "running.safetensors"
NETWORKS = "networks-{}.safetensors"


class StudyFolder:
    """The files of one study.

    - ``study.json``: what the study is, and how it was decided to run
    - ``configurations.jsonl``: a line for each trial
    - ``runs.jsonl``: a line for each run that ended, with all that was measured; of two lines the later holds
    - ``networks-*.safetensors``: parameters, state and predictions of runs that ended
    - ``running.safetensors``: states of runs in the middle
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / ".lock", "ab")  # noqa: SIM115 - it is open for as long as the folder is ours
        if not lock(self._lock):
            self._lock.close()
            raise CheckpointError(self.folder, "another process runs this study; wait for it, or choose another folder")
        self._recorded: dict[RunId, str] = {}
        self._saved: set[RunId] = set()
        self._configurations: list[str] = []

    def close(self) -> None:
        """Let others have the folder."""
        self._lock.close()

    def begin(
        self, identity: Mapping[str, str], programs: Mapping[str, Mapping[str, str]], resume: str
    ) -> dict[str, Any]:
        """How the study that is here was decided to run; nothing where there is none.

        Args:
            identity: What the study is.
            programs: For each static choice what is trained; more trials may bring more of them.
            resume: ``"strict"``, or ``"warn"`` to continue with a program that has changed.

        Raises:
            MisfitError: when it is another study, with a table of what differs.
        """
        file = self.folder / ABOUT
        if not file.exists():
            self._about = {"of": dict(identity), "programs": dict(programs), "chosen": {}}
            return {}
        try:
            self._about = json.loads(file.read_text())
            then, before, chosen = self._about["of"], self._about["programs"], self._about["chosen"]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(file, f"it is damaged ({error}); remove the folder, or restore the file") from error
        compare(self.folder, identity, then, "study")
        rows: list[tuple[str, str, str]] = []
        for label, now in programs.items():
            old = before.get(label, now)
            trees_of = lambda texts: {name: texts.get(name, "-") for name in TREES}
            compare(self.folder, trees_of(now), trees_of(old), "study")
            if now["program"] != old.get("program"):
                rows += _changes(label, now, old)
            before[label] = dict(now)
        if rows:
            table = show_table(("of the study", "now", "when it was saved"), rows, limit=20)
            what = (
                f"its runs were trained by another program\n{table}\n"
                "  The program is a checksum of what is computed, with all constants."
            )
            if resume == "strict":
                raise MisfitError(
                    self.folder,
                    f"{what}\n  Choose another folder, undo the change, or pass resume='warn' to compare runs of both "
                    "programs.",
                )
            warnings.warn(f"{self.folder}: {what}", CheckpointWarning, stacklevel=4)
        return chosen

    def decide(self, group: str, mode: str, width: int, program: Mapping[str, str]) -> None:
        """Write down how the runs of one static choice are trained."""
        self._about["chosen"][group] = {"mode": mode, "width": width}
        self._about["programs"][group] = dict(program)
        _write(self.folder / ABOUT, json.dumps(self._about, indent=1))

    def configurations(self) -> list[dict[str, Any]]:
        """The configurations that were written down."""
        found = [json.loads(line) for line in self._lines(CONFIGURATIONS)]
        self._configurations = [json.dumps(row) for row in found]
        return found

    def add_configurations(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write down those that are not yet."""
        texts = [json.dumps(row) for row in rows]
        self._append(CONFIGURATIONS, texts[len(self._configurations) :])
        self._configurations = texts

    def read(
        self, rule: EarlyStopping | None, needs_network: bool, like: Callable[[RunId], Any]
    ) -> tuple[dict[RunId, Run], dict[RunId, Any], dict[RunId, Any], dict[RunId, Any]]:
        """The runs that were recorded or in the middle, and their trees.

        Args:
            rule: Early stopping of each run.
            needs_network: Whether a run that ended counts only with its parameters or predictions.
            like: The tree of a run's state, of NumPy arrays.

        Returns:
            Runs, states of those in the middle, parameters and state, predictions.
        """
        kept, predictions, runs, states = {}, {}, {}, {}
        for file in sorted(self.folder.glob(NETWORKS.format("*"))):
            try:
                tree = load(file)
            except CheckpointError as error:
                file.rename(file.with_suffix(".damaged"))
                warnings.warn(f"{error}; its runs are trained again", CheckpointWarning, stacklevel=2)
                continue
            for name, parts in tree.items():
                run_id = _read_id(name)
                self._saved.add(run_id)
                kept |= {run_id: (parts["params"], parts["state"])} if "params" in parts else {}
                predictions |= {run_id: parts["predictions"]} if "predictions" in parts else {}
        for line in self._lines(RUNS):
            run = Run.of(json.loads(line), rule)
            if not needs_network or run.id in self._saved:
                runs[run.id], self._recorded[run.id] = run, line
        file = self.folder / RUNNING
        if file.exists():
            try:
                note = read_note(file)
                ids = [Run.of(record, rule).id for record in note]
                tree = load(file, {_name(run_id): like(run_id) for run_id in ids})
            except CheckpointError as error:
                warnings.warn(f"{error}; its runs begin anew", CheckpointWarning, stacklevel=2)
                tree, note = {}, []
            for record in note:
                run = Run.of(record, rule)
                if run.id not in runs or (run.step >= runs[run.id].step and run.status not in OVER):
                    runs[run.id] = run
                states |= {run.id: tree[_name(run.id)]} if _name(run.id) in tree else {}
        return runs, states, kept, predictions

    def write(self, runs: Sequence[Run], states: Mapping[RunId, Any], kept: Mapping, predictions: Mapping) -> None:
        """Bring the folder up to date: networks, then the records that need them, then what is in the middle."""
        texts = {run.id: json.dumps(run.record(), allow_nan=False) for run in runs if run.status in OVER}
        new = {run_id: text for run_id, text in texts.items() if self._recorded.get(run_id) != text}
        trees: dict[str, dict[str, Any]] = {}
        for run_id in new:
            if run_id in kept:
                trees.setdefault(_name(run_id), {}).update(params=kept[run_id][0], state=kept[run_id][1])
            if run_id in predictions:
                trees.setdefault(_name(run_id), {}).update(predictions=predictions[run_id])
        if trees:
            last = max((file.name for file in self.folder.glob(NETWORKS.format("*"))), default=NETWORKS.format(-1))
            number = int(last.removeprefix("networks-").split(".")[0]) + 1
            save(self.folder / NETWORKS.format(f"{number:06d}"), trees)
        self._append(RUNS, list(new.values()))
        self._recorded |= new
        records = [run.record() for run in runs if run.id in states]
        save(self.folder / RUNNING, {_name(run_id): state for run_id, state in states.items()}, note=records)

    def _lines(self, name: str) -> Iterator[str]:
        """Whole lines that are JSON; a cut last line is removed, so that what is added later stands by itself."""
        file = self.folder / name
        if not file.exists():
            return
        good, bad, last = [], 0, ""
        for last in file.read_text(errors="replace").splitlines(keepends=True):
            try:
                json.loads(last)
                good.append(last.rstrip("\n"))
            except ValueError:
                bad += 1
        if bad or not last.endswith("\n"):
            _write(file, "".join(f"{line}\n" for line in good))
        if bad:
            warnings.warn(
                f"{file}: {bad} of {len(good) + bad} lines were damaged and are left out; the study "
                "trains their runs again",
                CheckpointWarning,
                stacklevel=3,
            )
        yield from good

    def _append(self, name: str, lines: Sequence[str]) -> None:
        if not lines:
            return
        with open(self.folder / name, "a") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())


def _changes(label: str, now: Mapping[str, str], old: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """What may have changed in a program that is another one now, for a person."""
    rows = [row for row in differences(now, old) if row[0] != "program"]
    rows.append(("program", now["program"][:12], old.get("program", "-")[:12]))
    return [(f"{label}: {name}" if label else name, new, before) for name, new, before in rows]


def _write(file: Path, text: str) -> None:
    content = text.encode()

    def write(out: BinaryIO) -> None:
        out.write(content)

    replace_file(file, len(content), write)


def _name(run_id: RunId) -> str:
    return f"trial{run_id.trial}_seed{run_id.seed}_fold{run_id.fold}"


def _read_id(name: str) -> RunId:
    return RunId(*(int("".join(filter(str.isdigit, part))) for part in name.split("_")))
