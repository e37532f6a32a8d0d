"""Time the same work in several libraries: each peer in a process of its own, in turn, for several rounds.

A benchmark is a module that makes a `Suite` and calls `run`; ``steps.py`` and ``fit.py`` are two. The module is started
again for every measurement, so that a peer never shares a process, a cache or a compiled program with another, and the
peers take turns, in another order in each round, so that a machine that grows busy is unfair to none of them.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine, report
from benchmarks.stopper import STOPPED, Stopper

Arrays = Mapping[str, np.ndarray]
Sample = dict[str, Any]  # what the process of a peer told, with "process", its seconds from start to exit
Samples = Mapping[str, Sequence[Sample]]  # by peer, one of each round
Facts = Mapping[str, Any]


class PeerError(RuntimeError):
    """The process of a peer failed; the message is the end of what it wrote."""


@dataclass(frozen=True)
class Workload:
    """What is to be done, the same for every peer.

    Attributes:
        about: One sentence for the reader of the table.
        data: Makes the arrays that every peer gets, once, outside of all measured times; and a note on where they
            come from.
        settings: What the peers' code needs to know beside the arrays.
        peers: The names of those that can do it; None: all.
        backend: Where it is measured by default, such as ``"gpu"``; elsewhere it must be asked for. None: everywhere.
    """

    about: str
    data: Callable[[], tuple[Arrays, str]]
    settings: Any = None
    peers: tuple[str, ...] | None = None
    backend: str | None = None


@dataclass(frozen=True)
class Peer:
    """Who does it.

    Attributes:
        title: Its name in the table.
        packages: Distributions that it needs; their versions are printed. The peer is skipped where one is missing.
        imports: Modules that are imported once before all measurements, so that no peer pays for a cold disk.
        prepare: ``prepare(settings, arrays)`` imports the library, builds all that the work needs and returns what the
            suite's ``measure`` times. It runs in the peer's own process.
        environment: Variables of that process.
        family: The fastest of each family is named beneath a table.
    """

    title: str
    packages: tuple[str, ...]
    imports: tuple[str, ...]
    prepare: Callable[[Any, Arrays], Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    family: str = ""


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        about: Shown by ``--help``.
        module: Its name for ``python -m``, by which children are started.
        workloads: By name.
        peers: By name; the others are compared with the first.
        measure: ``measure(workload, peer, arrays, request)``: do the work in the process of the peer and return a
            sample. The request has the values of ``options``, and ``"started"``, when the process was, in the seconds
            of `time.time`.
        table: ``table(name, samples, facts)``: Markdown of what was measured of a workload.
        time: The number of a sample that the plot shows.
        options: Further options of the command line: their names and the keywords of `argparse`.
        facts: Given the options, what must be known of the machine beside `machine.facts`.
        closing: Markdown of all the samples by workload, after the tables.
    """

    about: str
    module: str
    workloads: Mapping[str, Workload]
    peers: Mapping[str, Peer]
    measure: Callable[[Workload, Peer, Arrays, Mapping[str, Any]], Sample]
    table: Callable[[str, Samples, Facts], str]
    time: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Callable[[argparse.Namespace], Facts] = lambda options: {}
    closing: Callable[[Mapping[str, Samples]], str] = lambda found: ""


def run(suite: Suite, arguments: Sequence[str] | None = None) -> int:
    """The command line of a benchmark: measure, print Markdown, write JSON and a plot.

    Stopped by Ctrl-C or SIGTERM, it prints the tables of what was measured until then.

    Args:
        suite: What to measure.
        arguments: In place of those of the command line.

    Returns:
        An exit status: 1 when a peer failed, or none is installed; 130 when it was stopped.
    """
    options = parse(suite, arguments)
    if options.child:
        print(json.dumps(work(suite, json.loads(options.child))))
        return 0
    machine.hold(options.cores)  # the children inherit it
    chosen = {name: peer for name, peer in suite.peers.items() if name in options.peers}
    missing = {name: absent for name, peer in chosen.items() if (absent := _absent(peer))}
    chosen = {name: peer for name, peer in chosen.items() if name not in missing}
    known = machine.facts(package for peer in chosen.values() for package in peer.packages)
    known = {**known, **(suite.facts(options) if chosen else {}), "rounds": options.rounds}
    report.print_facts(known)
    for name, absent in missing.items():
        print(f"Skipped: {suite.peers[name].title}, since {', '.join(absent)} is not installed.\n", flush=True)
    if not chosen:
        return 1

    found: dict[str, dict[str, Any]] = {}
    with Stopper() as stopper:
        try:
            for peer in chosen.values():
                stopper.run(["-c", f"import {', '.join(peer.imports)}"], _environment(peer))
            for name in (name for name in suite.workloads if name in options.workloads):
                found[name] = {"about": suite.workloads[name].about, "data": "", "samples": {}, "failures": {}}
                _workload(suite, name, chosen, options, found, known, stopper)
        except KeyboardInterrupt:
            print("Stopped: what follows is of the samples until then.\n", flush=True)
            status = STOPPED
        else:
            status = 1 if any(record["failures"] for record in found.values()) else 0
    if closing := suite.closing({name: record["samples"] for name, record in found.items()}):
        print(f"{closing}\n", flush=True)
    panels = {name: _times(suite, record["samples"]) for name, record in found.items()}
    report.plot(options.plot, panels, next(iter(suite.peers.values())).title)
    return status


def parse(suite: Suite, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    listed = ["workloads:", *(f"  {name:<22} {workload.about}" for name, workload in suite.workloads.items())]
    listed += ["", "peers:", *(f"  {name:<22} {peer.title}" for name, peer in suite.peers.items())]
    parser = argparse.ArgumentParser(
        prog=f"python -m {suite.module}",
        description=suite.about,
        epilog="\n".join(listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    elsewhere = {name: workload.backend for name, workload in suite.workloads.items() if workload.backend}
    usual = ", ".join(["default: all", *(f"{name} only on a {backend}" for name, backend in elsewhere.items())])
    for kind, table, note in (("workloads", suite.workloads, usual), ("peers", suite.peers, "default: all")):
        parser.add_argument(f"--{kind}", nargs="+", choices=table, metavar=kind[:-1].upper(), help=note)
    parser.add_argument("--rounds", type=int, default=5, help="how often each peer is measured (default: 5)")
    for name, keywords in suite.options.items():
        parser.add_argument(f"--{name}", **keywords)
    add_cores(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the times there")
    parser.add_argument("--child", help=argparse.SUPPRESS)  # a request, in JSON: do its work in this process
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.cores < 1:
        parser.error("--rounds and --cores must be positive")
    options.peers = options.peers or list(suite.peers)
    if not options.workloads and not options.child:
        here = {None, machine.backend()} if elsewhere else {None}
        options.workloads = [name for name, workload in suite.workloads.items() if workload.backend in here]
    return options


def add_cores(parser: argparse.ArgumentParser) -> None:
    """The option that every benchmark has."""
    parser.add_argument(
        "--cores", type=int, default=machine.cores(), help="cores that every process is held to (default: all)"
    )


def work(suite: Suite, request: Mapping[str, Any]) -> Sample:
    """The child: do what a request asks for."""
    arrays = {file.stem: np.load(file) for file in sorted(Path(request["folder"]).glob("*.npy"))}
    return suite.measure(suite.workloads[request["workload"]], suite.peers[request["peer"]], arrays, request)


def _workload(
    suite: Suite,
    name: str,
    peers: Mapping[str, Peer],
    options: argparse.Namespace,
    found: dict[str, dict[str, Any]],
    known: Facts,
    stopper: Stopper,
) -> None:
    """Measure, then print the table and write the JSON, also when it is stopped halfway."""
    workload = suite.workloads[name]
    fit = {peer: peers[peer] for peer in peers if workload.peers is None or peer in workload.peers}
    record = found[name]
    try:
        _rounds(suite, name, fit, options, record, stopper)
    finally:
        samples = record["samples"]
        taken = {peer: samples[peer] for peer in fit if samples.get(peer) and peer not in record["failures"]}
        record["samples"] = taken
        report.write_json(options.json, {"facts": known, "workloads": found})
        print(f"**{name}**: {workload.about} Data: {record['data']}.\n", flush=True)
        if taken:
            print(f"{suite.table(name, taken, known)}\n")
            families = {peer.title: peer.family for peer in suite.peers.values() if peer.family}
            if sentence := report.fastest(report.ratios(_times(suite, taken)), families):
                print(f"{sentence}\n")
        for peer, message in record["failures"].items():
            print(f"* failed: {suite.peers[peer].title}\n\n```\n{message}\n```\n")
        sys.stdout.flush()


def _rounds(
    suite: Suite,
    name: str,
    peers: Mapping[str, Peer],
    options: argparse.Namespace,
    record: dict[str, Any],
    stopper: Stopper,
) -> None:
    """Every peer once in each round, in another order; one that fails is left out of later rounds, and of the table."""
    samples, failures = record["samples"], record["failures"]
    with tempfile.TemporaryDirectory() as folder:
        arrays, record["data"] = suite.workloads[name].data()
        for key, array in arrays.items():
            np.save(Path(folder, f"{key}.npy"), array)
        for number in range(1, options.rounds + 1):
            turns = [peer for peer in peers if peer not in failures]
            if number > 1:
                random.Random(number).shuffle(turns)  # so that none always follows the same one
            for peer in turns:
                request = {option: getattr(options, option) for option in suite.options}
                request |= {"workload": name, "peer": peer, "folder": folder}
                try:
                    sample = _sample(suite.module, request, _environment(peers[peer]), stopper)
                except PeerError as error:
                    failures[peer] = str(error)
                    print(f"{name}, round {number}, {peer}: failed", file=sys.stderr, flush=True)
                    continue
                samples.setdefault(peer, []).append(sample)
                shown = report.show_seconds(sample[suite.time])
                print(f"{name}, round {number}, {peer}: {shown}", file=sys.stderr, flush=True)


def _sample(module: str, request: Mapping[str, Any], environment: Mapping[str, str], stopper: Stopper) -> Sample:
    began = time.perf_counter()
    asked = json.dumps({**request, "started": time.time()})
    status, out, errors = stopper.run(["-m", module, "--child", asked], environment)
    seconds = time.perf_counter() - began
    if status:
        raise PeerError(errors[-2000:].strip() or f"exit status {status}")
    return {**json.loads(out.splitlines()[-1]), "process": seconds}


def _times(suite: Suite, samples: Samples) -> dict[str, list[float]]:
    return {suite.peers[peer].title: [sample[suite.time] for sample in taken] for peer, taken in samples.items()}


def _environment(peer: Peer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**kept, **peer.environment}  # a cache on disk would take compilation out of the measured times


def _absent(peer: Peer) -> list[str]:
    return [package for package in peer.packages if not machine.version(package)]
