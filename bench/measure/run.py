#!/usr/bin/env python3
"""`make bench`: Tollgate beside bare Pingora and its peers, on loopback, in one go.

Every proxy runs with one worker thread in front of the same simulated engine. Rounds are interleaved and
their order is rotated, so that what else the machine does hits all alike. Everything that is started here is
stopped here, on Ctrl-C too.
"""

import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True

import build
import cases
import pair
import peers
import report
import system
from system import Failure

# Of each start in the closer look.
TURNS = 10


def arguments():
    names = [case.name for case in cases.all_cases()]
    parser = argparse.ArgumentParser(description="Measures Tollgate beside bare Pingora, nginx, HAProxy and Envoy.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--seconds", type=int, default=5, help="seconds for each case of each proxy (default: 5)")
    parser.add_argument("--starts", type=int, default=16, help="how often to start Tollgate with and without everything on for the "
                        "closer look at what that costs (default: 16; 0: no closer look)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 seconds, no closer look")
    parser.add_argument("--cases", default=",".join(names), help=f"which of {', '.join(names)}")
    parser.add_argument(
        "--peers", default=",".join(["engine", *peers.NAMES]),
        help="which of engine, " + ", ".join(peers.NAMES) + "; NAME=FILE is another build of Tollgate")
    parser.add_argument("--profile", default="release", help="cargo's profile (default: release)")
    parser.add_argument("--no-build", dest="build", action="store_false", help="use what was built before")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let the kernel place the processes")
    parser.add_argument("--check", nargs="?", type=float, const=1.25, metavar="RATIO",
                        help="fail when Tollgate's CPU per request is more than RATIO (1.25) times bare Pingora's")
    parser.add_argument("--readme", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--json", metavar="FILE", help="where to write the results "
                        "(default: bench/latest.json in cargo's target folder)")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds, options.starts = 2, 2, 0
    options.cases = [case for case in cases.all_cases() if case.name in options.cases.split(",")]
    options.peers = options.peers.split(",")
    unknown = [name for name in options.peers if "=" not in name and name not in ["engine", *peers.NAMES]]
    if unknown or not options.cases:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "no such case")
    return options


def measure(options):
    system.install([name for name in ("wrk", "nginx", "haproxy") if name == "wrk" or name in options.peers])
    cores = system.Cores(options.pin)
    binaries, scratch = build.binaries(options.profile), build.scratch()
    for case in options.cases:
        case.write(scratch)
    starter = peers.Starter(scratch, binaries, cores)
    load = cases.Load(binaries, cores, options.seconds)
    running, runs = [], []
    started = time.time()
    try:
        engine = starter.engine()
        running.append(engine)
        measured = [engine] if "engine" in options.peers else []
        for name in options.peers:
            peer = starter.start(name) if name != "engine" else None
            if peer:
                running.append(peer)
                measured.append(peer)
        for peer in measured:
            for case in options.cases:
                peers.check_forwarding(peer, case)
        total = options.rounds * len(options.cases) * len(measured) * (options.seconds + 0.3)
        print(f"measuring {len(measured)} × {len(options.cases)} cases × {options.rounds} rounds: about "
              f"{total / 60:.0f} minutes; {cores.describe()}", flush=True)
        neighbours = system.Neighbours([peer.pid for peer in running])
        for number in range(options.rounds):
            runs += one_round(number, options.cases, measured, load)
        others = neighbours.share()
        memory = {peer.name: peer.memory() for peer in measured if peer is not engine}
        versions = {peer.name: peer.version for peer in measured}
        for peer in measured:
            if peer.admin:
                requests, tokens = peers.metered(peer)
                print(f"{peers.title(peer.name)} counted {requests:,} requests and {tokens:,} tokens")
                if not tokens:
                    raise Failure("metering was off")
    finally:
        for peer in reversed(running):
            peer.stop()
    machine = system.machine()
    result = report.summarise(runs)
    setting = report.setting(
        machine, options.rounds, options.seconds, cores.describe(), build.told(options.profile), others)
    text = f"{setting}\n\n{report.table(options.cases, result, memory, versions)}"
    print(f"\n{text}\n", flush=True)
    if options.starts and {"tollgate", "open"} <= set(options.peers):
        text += f"\n\n{closer(options, starter, load)}"
    path = options.json or os.path.join(os.path.dirname(scratch), "latest.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"started": int(started), "machine": machine, "setting": setting, "others": others, "versions": versions,
                   "summary": result, "peak_memory_bytes": memory, "runs": runs}, file, indent=1)
    print(f"written to {os.path.relpath(path)}")
    if options.readme:
        report.write_readme(os.path.join(build.ROOT, "bench", "README.md"), text)
    if options.check:
        over = report.over_budget(result, options.check, ["tollgate"])
        for line in over:
            print(f"over budget: {line}", file=sys.stderr)
        return 1 if over else 0
    return 0


def closer(options, starter, load):
    """What governance costs, which is less than a round of seconds can tell."""
    told = f"Everything on beside nothing governed, {options.starts} starts of {TURNS} turns (`make bench-pair`):"
    print(told, flush=True)
    for case in options.cases:
        if not case.stream:
            seen = pair.compare(case, ["open", "tollgate"], options.starts, TURNS, starter, load)
            print(f"\n{seen}", flush=True)
            told += f"\n\n{seen}"
    return told


def one_round(number, chosen, measured, load):
    """Every case on every proxy, each round beginning with another proxy."""
    runs = []
    for case in chosen:
        first = number % len(measured)
        for peer in measured[first:] + measured[:first]:
            before = peer.cpu()
            seen = load.run(case, peer.port)
            record = report.run_record(number, case, peer, seen, before, peer.cpu())
            runs.append(record)
            print(f"  round {number + 1}, {case.title}, {peers.title(peer.name)}: {record['per_second']:,.0f}/s, "
                  f"{record['cpu_us']:.1f} µs CPU", flush=True)
    return runs


if __name__ == "__main__":
    sys.exit(build.program("bench", arguments(), measure))
