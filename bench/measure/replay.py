#!/usr/bin/env python3
"""`make bench-replay`: a trace of requests through the gateway onto simulated engines with prefix caches, policy after policy.

Time is compressed, and all times that are told are the model's. Every policy gets the same requests at the same times, fresh engines'
caches and a process of its own. Everything that is started here is stopped here.
"""

import argparse
import json
import lzma
import os
import statistics
import sys
import time
import urllib.request

sys.dont_write_bytecode = True

import build
import peers
import policies
import report
import system
from system import Failure

HERE = os.path.dirname(os.path.abspath(__file__))
MADE_UP = ("unique", "hot", "bursts")
MOONCAKE = os.path.join(os.path.dirname(HERE), "traces", "mooncake_conversation.jsonl.xz")
# The engine's model: what is computed in a second, attention's part, a token of the reply, and what each request of a batch adds.
MODEL = ["--block-size", "512", "--prefill-rate", "8000", "--prefill-quadratic", "2.5e-9", "--itl", "30ms", "--batch-slowdown", "0.02",
         "--tokens", "1000000", "--model", "replay"]
# Lateness of so many milliseconds on our clock, in the mean, and the machine is measured.
LATE = 3.0


def main(options):
    runs, others = replay(options)
    tell(options, runs, others)
    keep(options, runs, others)
    return 0


def arguments():
    parser = argparse.ArgumentParser(description="Plays a trace through the gateway, policy after policy.")
    parser.add_argument("--trace", default="mooncake", help=f"mooncake, a file in its format, or {', '.join(MADE_UP)} (default: mooncake)")
    parser.add_argument("--policies", default="round_robin,least_connections,sglang_cache_aware,cache_aware",
                        help=f"of {', '.join(policies.POLICIES)}; by default the four that are told of in bench/README.md")
    parser.add_argument("--peers", default="", help="sglang: its gateway, from PyPI, with its own cache_aware")
    parser.add_argument("--rate", default="1.0", help="requests come so many times as often; several, with commas (default: 1.0)")
    parser.add_argument("--requests", type=int, help="only the first so many (default: all; 4000 of a made-up trace)")
    parser.add_argument("--engines", type=int, default=8, help="how many (default: 8)")
    parser.add_argument("--blocks", type=int, default=4000, help="of 512 tokens in each engine's cache (default: 4000)")
    parser.add_argument("--jitter", type=float, help="ms by which requests are spread (default: 3000 for mooncake, whose times come in steps of that)")
    parser.add_argument("--seeds", default="1", help="of the jitter and of made-up traces; several, with commas (default: 1)")
    parser.add_argument("--speed", type=float, default=20.0, help="how many times as fast as the model (default: 20)")
    parser.add_argument("--interval", type=int, default=16, help="tokens in one event of a stream (default: 16)")
    parser.add_argument("--max-running", type=int, default=0, help="requests in an engine's batch (default: no limit)")
    parser.add_argument("--profile", default="release", help="cargo's profile (default: release)")
    parser.add_argument("--no-build", dest="build", action="store_false", help="use what was built before")
    parser.add_argument("--plot", metavar="FILE", help="a PNG of the times to first token, with matplotlib from PyPI")
    options = parser.parse_args()
    options.names = [name for name in f"{options.policies},{options.peers}".split(",") if name]
    unknown = [name for name in options.names if name not in policies.POLICIES and name not in policies.PEERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*policies.POLICIES, *policies.PEERS])}")
    try:
        options.rates = [float(rate) for rate in options.rate.split(",")]
        options.seeds = [int(seed) for seed in options.seeds.split(",")]
    except ValueError as error:
        parser.error(str(error))
    if min(*options.rates, options.speed) <= 0 or min(options.engines, options.blocks, options.interval) < 1:
        parser.error("--rate, --speed, --engines, --blocks and --interval are above 0")
    if options.jitter is None:
        options.jitter = 3000.0 if options.trace == "mooncake" else 0.0
    return options


def replay(options):
    """One run for each policy, seed and rate, those of one rate and seed one after the other."""
    starter = peers.Starter(build.scratch(), build.binaries(options.profile), system.Cores(False))
    trace = trace_of(options, starter.scratch)
    runs, missing, engines = [], set(), []
    try:
        engines = [engine(options, starter, number) for number in range(options.engines)]
        neighbours = system.Neighbours([peer.pid for peer in engines])
        for rate in options.rates:
            for seed in options.seeds:
                for name in options.names:
                    if name not in missing:
                        run = one(options, starter, engines, trace, name, rate, seed)
                        runs.extend([run] if run else [])
                        missing.update([] if run else [name])
        others = neighbours.share()
    finally:
        for peer in engines:
            peer.stop()
    if not runs:
        raise Failure("nothing was measured")
    return runs, others


def trace_of(options, scratch):
    """What the load program is told: a made-up trace's name, or a file."""
    if options.trace in MADE_UP:
        return options.trace
    path = MOONCAKE if options.trace == "mooncake" else options.trace
    if not os.path.exists(path):
        raise Failure(f"{path} does not exist; --trace takes a file, mooncake or one of {', '.join(MADE_UP)}")
    if not path.endswith(".xz"):
        return path
    plain = os.path.join(scratch, os.path.basename(path).removesuffix(".xz"))
    with lzma.open(path) as packed, open(plain, "wb") as file:
        file.write(packed.read())
    return plain


def engine(options, starter, number):
    port = system.free_port()
    command = [starter.binary("tollgate-engine"), "--address", f"127.0.0.1:{port}", "--name", f"engine-{number}", *MODEL,
               "--cache-blocks", str(options.blocks), "--speed", f"{options.speed:g}", "--stream-interval", str(options.interval),
               "--max-running", str(options.max_running)]
    return starter.launch(f"engine-{number}", port, command)


def one(options, starter, engines, trace, name, rate, seed):
    """One policy under one load; None if it cannot be had."""
    for peer in engines:
        control(peer, "POST", "/sim/reset")
    gateway = policies.start(starter, name, [f"http://127.0.0.1:{peer.port}" for peer in engines], options.speed)
    if gateway is None:
        return None
    try:
        time.sleep(1.0)
        before, start = gateway.cpu(), time.monotonic()
        command = [starter.binary("tollgate-replay"), "--address", f"127.0.0.1:{gateway.port}", "--trace", trace, "--rate", f"{rate:g}",
                   "--speed", f"{options.speed:g}", "--jitter", f"{options.jitter:g}", "--seed", str(seed)]
        command += ["--requests", str(options.requests)] if options.requests else []
        seen = json.loads(system.output_of(command, 24 * 3600).strip().splitlines()[-1])
        cpu = sum(after - earlier for after, earlier in zip(gateway.cpu(), before))
        print(f"{name}, rate {rate:g}, seed {seed}: {seen['requests']} requests in {time.monotonic() - start:.0f} s, "
              f"mean {seen['ttft']['mean']:.2f} s, hits {seen['hit_rate']:.3f}", flush=True)
        states = [json.loads(control(peer, "GET", "/sim/state")) for peer in engines]
    finally:
        gateway.stop()
    busy = [state["prefill_seconds"] * options.speed for state in states]
    return {
        "policy": name, "rate": rate, "seed": seed, **seen,
        "cpu_us": cpu / seen["requests"] * 1e6,
        "busy_seconds": busy,
        "imbalance": max(busy) / max(statistics.mean(busy), 1e-9),
        "shares": [state["started"] for state in states],
        "engine_late_ms": {"mean": statistics.mean(state["late_mean"] for state in states) * 1e3,
                           "max": max(state["late_max"] for state in states) * 1e3},
    }


def control(peer, method, path):
    request = urllib.request.Request(f"http://127.0.0.1:{peer.port}{path}", method=method, data=b"" if method == "POST" else None)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def tell(options, runs, others):
    machine = system.machine()
    loads = f"{options.engines} engines of {options.blocks} blocks of 512 tokens, {options.speed:g} times as fast as the model"
    spread = f", spread over {options.jitter:g} ms" if options.jitter else ""
    print(f"\n{options.trace}{spread}; {loads}; seeds {', '.join(map(str, options.seeds))}; {machine['cpu']}, {machine['cores']} cores, "
          f"profile {options.profile}; others used {others:.0%} of the machine")
    for rate in options.rates:
        rows = [["policy", "TTFT mean s", "p50", "p90", "p99", "hit rate", "imbalance", "gateway CPU ms/request"]]
        for name in options.names:
            own = [run for run in runs if (run["policy"], run["rate"]) == (name, rate)]
            if own:
                mean = lambda read: statistics.mean(read(run) for run in own)
                times = [f"{mean(lambda run: run['ttft'][key]):.2f}" for key in ("mean", "p50", "p90", "p99")]
                rows.append([policies.title(name), *times, f"{mean(lambda run: run['hit_rate']):.3f}",
                             f"{mean(lambda run: run['imbalance']):.2f}", f"{mean(lambda run: run['cpu_us']) / 1e3:.2f}"])
        print(f"\n**rate {rate:g}**, {runs[0]['requests']:,} requests\n\n{report.aligned(rows)}")
    sent = max(run["late_ms"]["mean"] for run in runs)
    computed = max(run["engine_late_ms"]["mean"] for run in runs)
    print(f"\nlateness, mean of the worst run: requests sent {sent:.2f} ms late, prompts done {computed:.2f} ms late; "
          f"in the model's time {max(sent, computed) * options.speed:.0f} ms")
    if max(sent, computed) > LATE:
        print(f"WARNING: more than {LATE:g} ms: the machine, not the model, sets the pace here. Use a lower --speed than {options.speed:g}.")


def keep(options, runs, others):
    path = os.path.join(build.target(), "bench", "replay.json")
    kept = {name: value for name, value in vars(options).items() if name not in ("build", "plot", "names", "rates")}
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"options": kept, "others": others, "machine": system.machine(), "runs": runs}, file)
    print("all figures: bench/replay.json in cargo's target folder")
    if options.plot:
        home = os.path.join(build.target(), "bench", "plot")
        if policies.provide(home, "matplotlib", "matplotlib"):
            system.output_of([os.path.join(home, "bin", "python"), os.path.join(HERE, "plot.py"), path, options.plot], 300)
            print(f"plotted: {options.plot}")


if __name__ == "__main__":
    sys.exit(build.program("replay", arguments(), main))
