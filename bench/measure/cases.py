"""What is measured: requests of several sizes and a streamed answer, and how each is put on a proxy."""

import hashlib
import json
import os

import system
from system import Failure

MODEL = "Qwen/Qwen3-8B"
PROSE = (
    "The gateway reads the name of the model, finds the service that answers to it and passes the request on.\\n"
    "While the answer streams back it counts \\\"tokens\\\" and otherwise stays out of the way.\\n"
)


class Case:
    """One kind of request, and how many clients send it."""

    def __init__(self, name, title, size, connections, stream=False, sim=""):
        self.name = name
        self.title = title
        self.connections = connections
        self.stream = stream
        self.sim = sim
        self.body = body(size, stream)
        self.digest = hashlib.sha256(self.body).hexdigest()
        self.path = None

    def write(self, scratch):
        self.path = os.path.join(scratch, f"body-{self.name}.json")
        with open(self.path, "wb") as file:
            file.write(self.body)


def all_cases():
    return [
        Case("300", "300 B", 300, 64),
        Case("16k", "16 KiB", 16 << 10, 32),
        Case("256k", "256 KiB", 256 << 10, 32),
        Case("stream", "stream of 64 chunks", 300, 128, stream=True, sim="tokens=64, itl=2ms"),
    ]


def body(size, stream):
    """A chat of exactly `size` bytes, laid out as the openai package does: messages first, turns of 1 KiB."""
    streamed = ',"stream":true' if stream else ""
    end = f'],"model":"{MODEL}","max_tokens":64{streamed}}}'
    text = '{"messages":[{"role":"system","content":"You are a helpful assistant."}'
    turn = 0
    while True:
        role = "assistant" if turn % 2 else "user"
        start = f',{{"role":"{role}","content":"'
        left = size - len(text) - len(end) - len(start) - 2
        if left < 0:
            raise ValueError(f"{size} bytes are too few")
        last = left < 1100
        text += start + prose(left if last else 1024) + '"}'
        turn += 1
        if last:
            break
    text += end
    if len(text) != size:
        raise ValueError(f"made {len(text)} bytes instead of {size}")
    json.loads(text)
    return text.encode()


def prose(length):
    """So much JSON string, without an escape cut in two."""
    text = (PROSE * (length // len(PROSE) + 1))[:length]
    return text[:-1] + "." if text.endswith("\\") else text


# What clients send to all alike: only one of them looks at it, and the others pass it on.
KEY = "tg_bench_5f2c1e0d9b8a79685746352413021f0e"


class Load:
    """Puts a case on a port for some seconds."""

    def __init__(self, binaries, cores, seconds):
        self.cores = cores
        self.seconds = seconds
        self.tool = os.path.join(binaries, "tollgate-load")
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.script = os.path.join(here, "wrk", "measure.lua")

    def run(self, case, port):
        """What the clients saw: requests, seconds, latency, and of a stream its events and their times."""
        command = self.stream_command(case, port) if case.stream else self.wrk_command(case, port)
        out = system.output_of(
            self.cores.command(self.cores.load, command), self.seconds + 60, {**os.environ, "BODY": case.path, "KEY": KEY})
        result = json.loads(out.strip().splitlines()[-1])
        if result["failed"]:
            raise Failure(f"{result['failed']} requests failed: {out}")
        if not result["requests"]:
            raise Failure(f"no request was answered: {out}")
        return result

    def wrk_command(self, case, port):
        wrk = system.find("wrk")
        if wrk is None:
            raise Failure("wrk is not installed")
        return [wrk, "-t1", f"-c{case.connections}", f"-d{self.seconds}s", "--latency", "--timeout", "20s",
                "-s", self.script, f"http://127.0.0.1:{port}"]

    def stream_command(self, case, port):
        return [self.tool, "--address", f"127.0.0.1:{port}", "--body", case.path, "--sim", case.sim, "--stream",
                "--key", KEY, "--connections", str(case.connections), "--duration", f"{self.seconds}s", "--spread", "130ms"]

    def loop(self, case, port, requests, connections):
        """Exactly so many requests."""
        command = [self.tool, "--address", f"127.0.0.1:{port}", "--body", case.path, "--duration", "600s",
                   "--key", KEY, "--connections", str(connections), "--requests", str(requests)]
        if case.stream:
            command += ["--stream", "--sim", case.sim]
        out = system.output_of(self.cores.command(self.cores.load, command), 660)
        return json.loads(out.strip().splitlines()[-1])
