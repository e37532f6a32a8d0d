"""Time the same jobs in several libraries: each peer in a process of its own, in turn, for several rounds.

A benchmark is a script that names its jobs and its peers and calls `run`; ``fit.py`` is one. The script is started
again for every measurement, so that a peer never shares a process, a cache or a compiled program with another, and the
peers take turns (A B C, A B C, ...), so that a machine that grows busy is unfair to none of them.

Two times are taken of each job:

* cold: the whole process, measured from outside: start, imports, data, compilation, the job, exit.
* warm: the same job once more in that process, measured inside; its time is not part of the cold time.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Work = Callable[[], float]
Sample = dict[str, float]  # "cold" and "warm" seconds and the "result" of one process

HOLDS = hasattr(os, "sched_setaffinity")  # Linux can hold a process to some cores


class PeerError(RuntimeError):
    """The process of a peer failed; the message is the end of what it wrote."""


@dataclass(frozen=True)
class Job:
    """What is to be done, the same for every peer.

    Attributes:
        about: One sentence for the reader of the table.
        data: Makes the arrays that every peer gets, once, outside of all measured times; and a note on where they
            come from.
        settings: What the peers' code needs to know beside the arrays.
        warm_calls: How often the job is done again in the same process; their median is the warm time.
    """

    about: str
    data: Callable[[], tuple[Arrays, str]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    warm_calls: int = 1


@dataclass(frozen=True)
class Peer:
    """Who does it.

    Attributes:
        title: Its name in the table.
        packages: Distributions that it needs; their versions are printed. The peer is skipped where one is missing.
        imports: Modules that are imported once before all measurements, so that no peer pays for a cold disk.
        prepare: ``prepare(job, settings, arrays)`` imports the library, builds all that the job needs and returns the
            job itself: a function that does it from start to end, waits for the end, and returns a number, such as the
            final loss, that shows that all peers did the same. It runs in the peer's own process.
        environment: Variables of that process.
    """

    title: str
    packages: tuple[str, ...]
    imports: tuple[str, ...]
    prepare: Callable[[str, Mapping[str, Any], Arrays], Work]
    environment: Mapping[str, str] = field(default_factory=dict)


def run(about: str, jobs: Mapping[str, Job], peers: Mapping[str, Peer], arguments: Sequence[str] | None = None) -> int:
    """The command line of a benchmark: measure, print Markdown, write JSON.

    Args:
        about: Shown by ``--help``.
        jobs: By name.
        peers: By name; the others are compared with the first.
        arguments: In place of those of the command line.

    Returns:
        An exit status: 1 when a peer failed, or none is installed.
    """
    options = _parse(about, jobs, peers, arguments)
    if options.child:
        job, peer, folder = options.child
        _work(job, jobs[job], peers[peer], Path(folder))
        return 0

    if HOLDS:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])  # the children inherit it
    chosen = {name: peers[name] for name in peers if name in options.peers}
    missing = {name: absent for name, peer in chosen.items() if (absent := _absent(peer))}
    chosen = {name: peer for name, peer in chosen.items() if name not in missing}
    machine = _machine(chosen)
    for name, value in machine.items():
        print(f"* {name}: {value}")
    for name, absent in missing.items():
        print(f"* skipped: {peers[name].title}, since {', '.join(absent)} is not installed")
    if not chosen:
        return 1
    print(f"* command: `{' '.join(['python', *sys.argv])}`, {options.rounds} rounds\n", flush=True)

    found, failures = {}, {}
    for name in (name for name in jobs if name in options.jobs):
        samples, note, failed = _measure(name, jobs[name], chosen, options.rounds)
        found[name] = {"about": jobs[name].about, "data": note, "samples": samples}
        failures |= {f"{peer} in {name}": message for peer, message in failed.items()}
        print(f"**{name}**: {jobs[name].about} Data: {note}.\n\n{table(samples, peers)}\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"machine": machine, "rounds": options.rounds, "jobs": found}, indent=1))
    for place, message in failures.items():
        print(f"* failed: {place}\n\n```\n{message}\n```\n")
    return 1 if failures else 0


def table(samples: Mapping[str, Sequence[Sample]], peers: Mapping[str, Peer]) -> str:
    """Set out what was measured.

    Args:
        samples: By peer, one of each round.
        peers: By name.

    Returns:
        Markdown, a row for each peer: medians, the range from the fastest to the slowest round, the ratio to the
        median of the first peer, and the median result.
    """
    first = next(iter(samples.values()), [])
    columns = ("cold", "range", "ratio", "warm", "range", "ratio", "result")
    rows = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, taken in samples.items():
        cells = [peers[name].title]
        for kind in ("cold", "warm"):
            times = [sample[kind] for sample in taken]
            middle = statistics.median(times)
            ratio = middle / statistics.median(sample[kind] for sample in first)
            cells += [f"{_seconds(middle)} s", f"{_seconds(min(times))} to {_seconds(max(times))}", f"{ratio:.2f}"]
        cells.append(f"{statistics.median(sample['result'] for sample in taken):.4f}")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _parse(about: str, jobs: Mapping[str, Job], peers: Mapping[str, Peer], arguments: Any) -> argparse.Namespace:
    listed = ["jobs:", *(f"  {name:<18} {job.about}" for name, job in jobs.items())]
    listed += ["", "peers:", *(f"  {name:<18} {peer.title}" for name, peer in peers.items())]
    parser = argparse.ArgumentParser(
        description=about, epilog="\n".join(listed), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", nargs="+", choices=jobs, default=list(jobs), metavar="JOB", help="default: all")
    parser.add_argument("--peers", nargs="+", choices=peers, default=list(peers), metavar="PEER", help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="how often each peer is measured (default: 5)")
    parser.add_argument(
        "--cores", type=int, default=_cores(), help="cores that every process is held to (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # JOB PEER FOLDER: do the job in this process
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.cores < 1:
        parser.error("--rounds and --cores must be positive")
    return options


def _measure(
    name: str, job: Job, peers: Mapping[str, Peer], rounds: int
) -> tuple[dict[str, list[Sample]], str, dict[str, str]]:
    """Every peer once in each round; one that fails is left out of later rounds, and of the table."""
    samples: dict[str, list[Sample]] = {peer: [] for peer in peers}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        arrays, note = job.data()
        for key, array in arrays.items():
            np.save(Path(folder, f"{key}.npy"), array)
        for peer in peers.values():
            subprocess.run(
                [sys.executable, "-c", f"import {', '.join(peer.imports)}"],
                env=_environment(peer), capture_output=True, check=False,
            )  # fmt: skip
        for number in range(1, rounds + 1):
            for peer in (peer for peer in peers if peer not in failed):
                try:
                    sample = _sample(name, peer, peers[peer], folder)
                except PeerError as error:
                    failed[peer] = str(error)
                    continue
                samples[peer].append(sample)
                line = f"{name}, round {number}, {peer}: cold {sample['cold']:.3f} s, warm {sample['warm']:.4f} s"
                print(line, file=sys.stderr, flush=True)
    return {peer: taken for peer, taken in samples.items() if peer not in failed}, note, failed


def _sample(job: str, name: str, peer: Peer, folder: str) -> Sample:
    command = [sys.executable, sys.argv[0], "--child", job, name, folder]
    began = time.perf_counter()
    done = subprocess.run(command, env=_environment(peer), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise PeerError(done.stderr[-2000:].strip() or f"exit status {done.returncode}")
    told = json.loads(done.stdout.splitlines()[-1])
    return {"cold": seconds - sum(told["warm"]), "warm": statistics.median(told["warm"]), "result": told["result"]}


def _work(name: str, job: Job, peer: Peer, folder: Path) -> None:
    """The child: do the job, do it again, and tell how long it took on the last line of the output."""
    arrays = {file.stem: np.load(file) for file in sorted(folder.glob("*.npy"))}
    work = peer.prepare(name, job.settings, arrays)
    result, warm = work(), []
    for _ in range(job.warm_calls):
        began = time.perf_counter()
        work()
        warm.append(time.perf_counter() - began)
    print(json.dumps({"warm": warm, "result": result}))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if HOLDS else os.cpu_count() or 1


def _environment(peer: Peer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**kept, **peer.environment}  # a cache on disk would take compilation out of the cold times


def _absent(peer: Peer) -> list[str]:
    return [package for package in peer.packages if not _version(package)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine(peers: Mapping[str, Peer]) -> dict[str, str]:
    packages = dict.fromkeys(package for peer in peers.values() for package in peer.packages)
    held = f"held to {_cores()} cores" if HOLDS else "not held to some cores"
    busy = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}{busy}",
        "threads": f"every process {held}, as many threads as each library takes by itself",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{package} {_version(package)}" for package in packages)]
        ),
    }


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
