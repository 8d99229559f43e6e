"""Changes by the admin API of every sort, each with a request that tells whether it is in force."""

import http.client
import json
import os
import time

from system import Failure

CHAT = "/v1/chat/completions"
# How long a change may take to be seen before the measurement gives up on it.
PATIENCE = 5.0


class Answer:
    def __init__(self, response):
        self.body = response.read()
        self.status = response.status
        self.headers = response.headers


class Asker:
    """A kept connection to a listener."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, method, path, body=None, headers=None):
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, {"Content-Type": "application/json", **(headers or {})})
        return Answer(self.connection.getresponse())

    def chat(self, model, path=CHAT, headers=None):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        return self.ask("POST", path, body, {"X-Sim": "tokens=1", **(headers or {})})


class Record:
    """One change: how long its answer took, and how long after that a request saw it."""

    def __init__(self, sort, answered, seen, blind):
        self.sort = sort
        self.answered = answered
        self.seen = seen
        # Requests after it that did not see it.
        self.blind = blind


class Changes:
    """Makes one change after the other, and looks at once whether it is in force."""

    def __init__(self, port, admin, file, engines):
        self.client, self.admin = Asker(port), Asker(admin)
        self.file = file
        with open(file, encoding="utf-8") as text:
            self.text = text.read()
        self.engines = engines
        self.records = []

    def prepare(self):
        """What the traffic asks for, by one change."""
        services = [("left", "split"), ("right", "split"), ("plugged", "plugged")]
        self.done("POST", "/v1/apply", [
            {"kind": "service", "name": name, "models": [model], "targets": [self.engines["one"]]} for name, model in services])

    def forever(self):
        """Change after change; each `next` makes one."""
        number = 0
        while True:
            yield from self.round(number)
            number += 1

    def round(self, n):
        name, one = f"s{n}", self.engines["one"]
        status = lambda wanted: lambda answer: answer.status == wanted
        yield self.make("service created", "POST", "/v1/services", {"name": name, "models": [name], "targets": [one]},
                        lambda: self.client.chat(name), status(200))
        target = "/v1/upstreams/pool/targets/two"
        by = lambda engine: lambda answer: answer.headers["x-sim-engine"] == engine
        pooled = lambda: self.client.chat("pooled")
        yield self.make("target registered", "PUT", target, self.engines["two"], pooled, by("two"), turns=2)
        yield self.make("target drained", "DELETE", target, None, pooled, by("one"), always=2)
        heavy, light = ("left", "right") if n % 2 else ("right", "left")
        split = lambda: self.client.chat("split")
        served = lambda answer: answer.headers["x-tollgate-service"]
        yield self.make("weight", "PATCH", f"/v1/services/{heavy}", {"weight": 100}, split, status(200))
        yield self.make("weight", "PATCH", f"/v1/services/{light}", {"weight": 0}, split,
                        lambda answer: served(answer) == heavy, always=2)
        # Its secret is only known once it is there.
        key = []
        keyed = lambda: self.client.chat("kept", headers={"Host": "keyed.example", "Authorization": f"Bearer {key[0]}"})
        yield self.make("key made", "POST", "/v1/keys", {"name": f"k{n}", "gateway": "keyed"}, keyed, status(200),
                        learn=lambda answer: key.append(json.loads(answer.body)["secret"]))
        yield self.make("key revoked", "DELETE", f"/v1/keys/k{n}", None, keyed, status(401))
        rule = {"name": f"r{n}", "gateway": "main", "path": f"/r{n}/*", "strip_path": True, "services": [name]}
        ruled = lambda: self.client.chat("nobody", f"/r{n}{CHAT}")
        yield self.make("rule made", "POST", "/v1/rules", rule, ruled, status(200))
        settings = {"response": {"set": {"x-round": str(n)}}}
        yield self.make("plugin", "PATCH", "/v1/services/plugged", {"plugins": [{"name": "headers", "settings": settings}]},
                        lambda: self.client.chat("plugged"), lambda answer: answer.headers["x-round"] == str(n))
        if n % 4 == 0:
            self.write(f'\n[[service]]\nname = "f{n}"\nmodels = ["f{n}"]\ntargets = ["{one}"]\n')
            yield self.make("file reloaded", "POST", "/v1/reload", None, lambda: self.client.chat(f"f{n}"), status(200))
        yield self.make("rule deleted", "DELETE", f"/v1/rules/r{n}", None, ruled, status(404))
        yield self.make("service deleted", "DELETE", f"/v1/services/{name}", None, lambda: self.client.chat(name), status(404))

    def write(self, more):
        """The file's next version, in one piece."""
        beside = self.file + ".new"
        with open(beside, "w", encoding="utf-8") as file:
            file.write(self.text + more)
        os.replace(beside, self.file)

    def done(self, method, path, body):
        answer = self.admin.ask(method, path, body)
        if answer.status not in (200, 201, 204):
            raise Failure(f"{method} {path}: {answer.status} {answer.body.decode()}")
        return answer

    def make(self, sort, method, path, body, look, holds, learn=None, turns=1, always=1):
        """Makes a change and looks until it is seen. `turns`: of so many requests one must see it; `always`: so many in a row must."""
        start = time.monotonic()
        answer = self.done(method, path, body)
        answered = time.monotonic()
        if learn:
            learn(answer)
        asked = 0
        while True:
            asked += 1
            if holds(look()):
                break
            if time.monotonic() - answered > PATIENCE:
                raise Failure(f"{sort}: not in force {PATIENCE} s after its answer")
        seen = time.monotonic()
        for _ in range(always - 1):
            if not holds(look()):
                raise Failure(f"{sort}: was in force, and then was not")
        record = Record(sort, answered - start, seen - answered, max(0, asked - turns))
        self.records.append(record)
        return record
