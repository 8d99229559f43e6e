"""Builds what is measured, and knows where it lands."""

import os
import subprocess
import sys

import system
from system import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def target():
    return os.path.abspath(os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR", "target")))


def binaries(profile):
    return os.path.join(target(), profile)


def build(profile):
    """The gateway, bare Pingora, the engine and the load client, in one go so that they share what they use."""
    command = ["cargo", "build", "--profile", profile, "--package", "tollgate", "--package", "tollgate-bench",
               "--features", "tollgate-bench/bare", "--bins"]
    print("building; with the release profile that takes minutes", flush=True)
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Failure("the build failed")


def scratch():
    path = os.path.join(target(), "bench", "run")
    os.makedirs(path, exist_ok=True)
    return path


def program(name, options, work):
    """A whole program: builds unless told not to, does the work, and ends in words and with what it started. Returns its exit status."""
    system.end_on_signals()
    try:
        if options.build:
            build(options.profile)
        return work(options)
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
