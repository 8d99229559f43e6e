"""Processes, ports, processors and /proc: everything the measurement asks of the machine."""

import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time

TICK = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """Something that ends the measurement, in words for whoever started it."""


class Cores:
    """Which processors belong to whom. The proxy never shares its own with anybody we start."""

    def __init__(self, pin):
        cores = sorted(os.sched_getaffinity(0))
        self.pinned = pin and len(cores) > 1 and shutil.which("taskset") is not None
        self.proxy = cores[-1]
        self.engine = cores[0]
        self.load = cores[1] if len(cores) > 2 else cores[0]

    def command(self, core, command):
        return ["taskset", "-c", str(core), *command] if self.pinned else list(command)

    def describe(self):
        if not self.pinned:
            return "nothing pinned"
        return f"proxy alone on core {self.proxy}, engine on core {self.engine}, load on core {self.load}"


def end_on_signals():
    """Ctrl-C and SIGTERM unwind, so that everything started is stopped; also where a shell had them ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def _end_with_parent():
    """In the child: should this program be killed outright, what it started still ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


class Process:
    """A program of ours in a session of its own, so that all of it can be ended and nothing else."""

    def __init__(self, name, command, log):
        self.name = name
        self.log = log
        with open(log, "wb") as out:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True, preexec_fn=_end_with_parent)

    def wait_until_ready(self, port, patience=15.0):
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if self.child.poll() is not None:
                raise Failure(f"{self.name} ended with status {self.child.returncode}:\n{self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", port), 0.5).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Failure(f"{self.name} does not listen on port {port}:\n{self.tail()}")

    def tail(self):
        with open(self.log, "rb") as log:
            return log.read()[-2000:].decode(errors="replace")

    def stop(self, patience=3):
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.child.pid, sign)
                self.child.wait(patience)
            except ProcessLookupError:
                pass
            except subprocess.TimeoutExpired:
                continue
            else:
                # The leader is gone; workers that outlived it go too.
                time.sleep(0.05)
                try:
                    os.killpg(self.child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return


def output_of(command, patience, env=None):
    """Runs a program to its end; its output. Ended with us, and when it takes too long."""
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=env, start_new_session=True, preexec_fn=_end_with_parent)
    try:
        out, err = child.communicate(timeout=patience)
    except BaseException as cause:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        if isinstance(cause, subprocess.TimeoutExpired):
            raise Failure(f"{command} took more than {patience} s") from None
        raise
    if child.returncode != 0:
        raise Failure(f"{command} ended with status {child.returncode}:\n{out[-1000:]}{err[-1000:]}")
    return out


def certificate(scratch):
    """A certificate for localhost, and its key: files, made the first time."""
    cert, key = (os.path.join(scratch, name) for name in ("cert.pem", "key.pem"))
    if not os.path.exists(cert):
        output_of(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
                   "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], 30)
    return cert, key


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def tree(root):
    """A process and its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def _stat(pid):
    """/proc/PID/stat from the state on; the name before it may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def cpu_seconds(root):
    """User and system time of a process tree so far, children that ended included."""
    user = system = 0
    for pid in tree(root):
        fields = _stat(pid)
        if fields:
            user += int(fields[11]) + int(fields[13])
            system += int(fields[12]) + int(fields[14])
    return user / TICK, system / TICK


class Neighbours:
    """How much of the machine others used while we measured: what makes a measurement doubtful."""

    def __init__(self, ours):
        self.ours = ours
        self.start = self._now()

    def share(self):
        """Of all processor time that could be had since the start, the part that was neither ours nor idle."""
        (busy, ours, total), (busy0, ours0, total0) = self._now(), self.start
        return max(0.0, ((busy - busy0) - (ours - ours0)) / max(total - total0, 1e-9))

    def _now(self):
        with open("/proc/stat", encoding="utf-8") as file:
            fields = [int(field) / TICK for field in file.readline().split()[1:9]]
        idle = fields[3] + fields[4]
        times = os.times()
        ours = times.user + times.system + times.children_user + times.children_system
        ours += sum(sum(cpu_seconds(pid)) for pid in self.ours)
        return sum(fields) - idle, ours, sum(fields)


def peak_memory(root):
    """The largest resident size so far of each process in a tree, added up; bytes."""
    total = 0
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8") as file:
                lines = [line for line in file if line.startswith("VmHWM:")]
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines)
    return total


def machine():
    """What the numbers were measured on. No names."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "kernel": platform.release().split("-")[0],
        "system": _system_name(),
    }


def _system_name():
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            for line in file:
                if line.startswith("PRETTY_NAME="):
                    return line.split("=", 1)[1].strip().strip('"')
    except OSError:
        pass
    return platform.system()


def install(programs):
    """Debian packages of the same names for the programs that are missing, if we may."""
    missing = [name for name in programs if find(name) is None]
    if not missing or not install_packages(missing) or not os.path.isdir("/run/systemd/system"):
        return
    # The packages start services of their own, which nobody asked for.
    services = [name for name in missing if name in ("nginx", "haproxy")]
    if services:
        subprocess.run(["systemctl", "disable", "--now", *services], check=False, capture_output=True)


def install_packages(packages):
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"not installed, and not ours to install: {', '.join(packages)}")
        return False
    print(f"installing {', '.join(packages)}", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        output_of(["apt-get", "update", "-qq"], 600, env)
        output_of(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], 600, env)
    except Failure as failure:
        print(f"cannot install: {failure}")
        return False
    return True


def find(program):
    """A program's path; servers often are where only root looks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path)
