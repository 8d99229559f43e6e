#!/usr/bin/env python3
"""`make build`: the release programs, the gateway's code laid out by how it runs.

A request passes through thousands of lines of code that the compiler, who does not know what is rare, has strewn over
megabytes, and waiting for them is most of what a small request costs outside of the kernel. So LLVM's BOLT counts in a copy of the
linked program what runs while that serves requests of every kind, and then puts together what ran. What never ran
stays as it was. Without BOLT, or if anything fails, the program is what the compiler and the linker made of it, and a line says so.
"""

import glob
import os
import re
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True

import build
import cases
import peers
import system
from system import Failure

# Moves whole functions, so the linker has to leave behind what refers to what.
RUSTFLAGS = "-Clink-arg=-Wl,--emit-relocs"
OPTIONS = ["-reorder-blocks=ext-tsp", "-reorder-functions=cdsort", "-split-functions", "-split-all-cold", "-split-eh", "-icf=1"]
# What each program serves to be known.
KINDS = {"tollgate": ["tollgate", "open", "aware", "layout"], "tollgate-bare": ["bare"]}
REQUESTS = {"300": 2000, "16k": 1000, "256k": 200, "stream": 300}
# Before this its instrumentation is not what it is today.
OLDEST = 16


def find():
    """BOLT's programs here, installed if need be: the directory they are in, or None after a line that says why."""
    if os.uname().sysname != "Linux":
        return None
    found = _installed()
    if not found and shutil.which("apt-cache"):
        newest = _newest()
        if newest >= OLDEST and system.install_packages([f"bolt-{newest}"]):
            found = _installed()
    if not found:
        print("llvm-bolt is not here: the programs stay as the linker leaves them, which takes about a fifth more CPU a request", flush=True)
    return found


def _newest():
    """The newest version among Debian's packages; 0: none."""
    asked = ["apt-cache", "pkgnames", "bolt-"]
    names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if not names and os.geteuid() == 0:
        # A new machine knows of no packages at all.
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    return max((int(match[1]) for match in map(re.compile(r"bolt-(\d+)").fullmatch, names) if match), default=0)


def _installed():
    # Debian's program looks for its runtime beside itself, so not through the link in /usr/bin.
    places = [os.path.dirname(os.path.realpath(path)) for path in [shutil.which("llvm-bolt")] if path]
    places += [place for place in glob.glob("/usr/lib/llvm-*/bin") if int(re.search(r"llvm-(\d+)", place)[1]) >= OLDEST]
    places = [place for place in places if all(os.path.exists(os.path.join(place, name)) for name in ("llvm-bolt", "merge-fdata"))]
    return max(places, key=lambda place: int((re.findall(r"llvm-(\d+)", place) or ["99"])[0]), default=None)


def cargo(command):
    """The command that builds what can be laid out, and its environment. What the caller tells rustc goes on being told."""
    if flags := os.environ.get("RUSTFLAGS"):
        return command, {**os.environ, "RUSTFLAGS": f"{flags} {RUSTFLAGS}"}
    return [*command, "--config", f"build.rustflags=['{RUSTFLAGS}']"], None


def is_laid_out(program):
    """Whether BOLT has done its work on this file."""
    with open(program, "rb") as file:
        return b"\0.bolt.org.text\0" in file.read()


def lay_out(bolt, binaries, name):
    """Puts the program in its own place, laid out. What was made of the same file before is taken again."""
    program, home = os.path.join(binaries, name), os.path.join(binaries, "layout")
    os.makedirs(home, exist_ok=True)
    laid, stamp = os.path.join(home, name), os.path.join(home, f"{name}.made-of")
    seen = os.stat(program)
    made_of = f"{seen.st_size} {seen.st_mtime_ns}"
    if not (os.path.exists(laid) and _text(stamp) == made_of):
        print(f"laying out {name}: two minutes", flush=True)
        try:
            _make(bolt, binaries, name, program, laid)
        except (Failure, OSError) as failure:
            print(f"{name} stays as the linker left it: {failure}", flush=True)
            return
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(made_of)
    # Cargo has the same file under another name, and that one stays.
    shutil.copy2(laid, f"{program}.laid")
    os.replace(f"{program}.laid", program)


def _text(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def _make(bolt, binaries, name, program, laid):
    tool = lambda program, *arguments: system.output_of([os.path.join(bolt, program), *arguments], 900)
    home = os.path.dirname(laid)
    kinds = [kind for kind in KINDS[name] if kind != "layout" or (system.find("curl") and system.find("openssl"))]
    stripped, counting, counts = (os.path.join(home, f"{name}.{end}") for end in ("stripped", "counting", "counts"))
    for old in glob.glob(f"{counts}*"):
        os.remove(old)
    system.output_of(["objcopy", "--strip-debug", program, stripped], 120)
    tool("llvm-bolt", stripped, "-instrument", f"--instrumentation-file={counts}", "--instrumentation-file-append-pid", "-o", counting)
    serve(binaries, home, {kind: counting for kind in kinds}, REQUESTS)
    counted = glob.glob(f"{counts}.*")
    if not counted:
        raise Failure("it left no counts")
    tool("merge-fdata", *counted, "-o", counts)
    tool("llvm-bolt", stripped, f"-data={counts}", *OPTIONS, "-o", laid)
    # It has to do what it did.
    serve(binaries, home, {kind: laid for kind in kinds}, {case: 100 for case in REQUESTS})
    for part in (stripped, counting, *counted):
        os.remove(part)


def serve(binaries, scratch, programs, requests):
    """Puts so many requests of each case on every kind of proxy, run by these programs."""
    cores = system.Cores(False)
    starter, load = peers.Starter(scratch, binaries, cores), cases.Load(binaries, cores, 0)
    running = []
    try:
        running.append(starter.engine())
        for kind, program in programs.items():
            peer = starter.start(f"{kind}={program}")
            running.append(peer)
            for case in cases.all_cases():
                case.write(scratch)
                peers.check_forwarding(peer, case)
                done = load.loop(case, peer.port, requests[case.name], case.connections)
                if done["failed"]:
                    raise Failure(f"{done['failed']} requests failed")
                if peer.secure:
                    encrypted(peer, case, requests[case.name] // 4)
            if peer.admin:
                peers.metered(peer)
            # Counts are written when it ends by itself.
            peer.stop(60)
    finally:
        for peer in reversed(running):
            peer.stop()


def encrypted(peer, case, requests):
    """The same case with TLS, over both versions of HTTP."""
    for version in ("--http1.1", "--http2"):
        system.output_of(
            ["curl", "--silent", "--show-error", "--fail", "--insecure", version, "--output", "/dev/null", "--header", "Content-Type: application/json",
             "--header", f"Authorization: Bearer {cases.KEY}", "--header", f"X-Sim: {case.sim or 'hash'}", "--data-binary", f"@{case.path}",
             f"https://127.0.0.1:{peer.secure}/v1/chat/completions?[1-{requests}]"], 300)


def main():
    build.build("release", bare=False)
    return 0


if __name__ == "__main__":
    sys.exit(build.guarded("build", main))
