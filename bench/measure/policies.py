"""What `make bench-replay` compares: Tollgate's policies, and a peer with its own rule."""

import os
import sys

import system
from system import Failure



def cache_aware(speed):
    """Its defaults are in seconds of an engine, and here a second of the model is a `speed`th of one."""
    return (f'policy = {{ name = "cache_aware", prefill_rate = {8000 * speed:.0f}, attention = {2.5e-9 / speed:.4g}, '
            f'duplication_rise = {speed:.1f}, load = "{max(1, round(50 / speed))}ms", warm_up = "{max(1, round(60_000 / speed))}ms" }}')


# What each adds to the upstream's configuration when the model is played so many times as fast.
POLICIES = {
    "round_robin": lambda speed: 'policy = "round_robin"',
    "random": lambda speed: 'policy = "random"',
    "least_connections": lambda speed: 'policy = "least_connections"',
    "power_of_two": lambda speed: 'policy = "power_of_two"',
    "sglang_cache_aware": lambda speed: 'policy = "sglang_cache_aware"',
    "cache_aware": cache_aware,
}
PEERS = {"sglang": "sglang-router, cache_aware"}


def title(name):
    return PEERS.get(name, name)


def start(starter, name, urls, speed):
    """The gateway with this policy, or the peer, in front of these engines; None, after a line that says why, when it
    cannot be had."""
    if name in PEERS:
        return sglang(starter, urls)
    port, admin = system.free_port(), system.free_port()
    values = {
        "admin": f"127.0.0.1:{admin}",
        "policy": POLICIES[name](speed),
        "targets": ", ".join(f'"{url}"' for url in urls),
    }
    file = starter.configuration("replay.toml", name, port, **values)
    binary = starter.binary("tollgate")
    try:
        system.output_of([binary, "check", "-c", file], 60)
    except Failure as failure:
        print(f"{name}: this build does not take it, left out:\n{failure}", flush=True)
        return None
    return starter.launch(name, port, [binary, "run", "-c", file])


def sglang(starter, urls):
    """SGLang's own gateway with its default policy, from PyPI: an environment of its own, kept for the next time."""
    home = os.path.join(os.path.dirname(starter.scratch), "sglang")
    python = os.path.join(home, "bin", "python")
    if not provide(home, "sglang_router", "sglang-router"):
        return None
    port, metrics = system.free_port(), system.free_port()
    command = [python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", str(port),
               "--policy", "cache_aware", "--prometheus-port", str(metrics), "--log-level", "warn",
               "--max-concurrent-requests", "-1", "--worker-urls", *urls]
    try:
        return starter.launch("sglang", port, command)
    except Failure as failure:
        print(f"{title('sglang')}: does not start, left out: {failure}", flush=True)
        return None


def provide(home, module, package):
    """Whether an environment of its own has a package, after an attempt to install it."""
    python = os.path.join(home, "bin", "python")
    try:
        if not os.path.exists(python):
            system.output_of([sys.executable, "-m", "venv", home], 120)
    except Failure as failure:
        print(f"no environment for {package}: {failure}", flush=True)
        return False
    try:
        system.output_of([python, "-c", f"import {module}"], 60)
        return True
    except Failure:
        print(f"installing {package} from PyPI", flush=True)
    try:
        system.output_of([python, "-m", "pip", "install", "--quiet", package], 600)
        return True
    except Failure as failure:
        print(f"cannot install {package}, left out: {failure}", flush=True)
        return False
