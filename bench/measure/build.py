"""Builds what is measured, and knows where it lands."""

import os
import subprocess
import sys

import layout
import system
from system import Failure

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def target():
    return os.path.abspath(os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR", "target")))


def binaries(profile):
    return os.path.join(target(), profile)


def build(profile, bare=True, as_linked=False):
    """The gateway, the engine and the load clients, and bare Pingora, in one go so that they share what they use. What a release
    serves with is laid out by how it runs, unless it is wanted `as_linked`."""
    command = ["cargo", "build", "--locked", "--profile", profile, "--package", "tollgate", "--package", "tollgate-bench", "--bins"]
    command += ["--features", "tollgate-bench/bare"] if bare else []
    bolt = layout.find() if profile == "release" else None
    command, env = layout.cargo(command) if bolt else (command, None)
    print("building; with the release profile that takes minutes", flush=True)
    if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode != 0:
        raise Failure("the build failed")
    if bolt and not as_linked:
        for name in ["tollgate", *(["tollgate-bare"] if bare else [])]:
            layout.lay_out(bolt, binaries(profile), name)


def told(profile):
    """How the gateway that is there was built, in words."""
    laid = layout.is_laid_out(os.path.join(binaries(profile), "tollgate"))
    return f"profile `{profile}`, {'laid out by how it runs' if laid else 'as linked'}"


def scratch():
    path = os.path.join(target(), "bench", "run")
    os.makedirs(path, exist_ok=True)
    return path


def program(name, options, work, as_linked=False):
    """A whole program: builds unless told not to, does the work, and ends in words and with what it started. Returns its exit status."""
    def both():
        if options.build:
            build(options.profile, as_linked=as_linked)
        return work(options)

    return guarded(name, both)


def guarded(name, work):
    """Does the work; ends in words and with what it started. Returns the exit status."""
    system.end_on_signals()
    try:
        return work()
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
