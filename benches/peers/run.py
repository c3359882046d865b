#!/usr/bin/env python3
"""Runs landbridge beside what one would write instead, against one simulated endpoint with one quota.

    cargo build --release && benches/peers/run.py [--jobs 3000] [--rate 100] [--only landbridge,script,...]
    benches/peers/run.py --memory 10000

Whatever is started gets a session of its own, writes to files instead of pipes, and is waited for with a bound.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TOOLS = ROOT / "target" / "peers"
PROGRAM = pathlib.Path(os.environ.get("LANDBRIDGE_PROGRAM", ROOT / "target" / "release" / "landbridge"))
LATENCY = 0.05

SPEC = """version: 1
name: peers
targets:
  openai: {{ provider: openai, model: gpt-5.4-mini, timeout: {timeout}s }}
limits: {{ concurrency: {concurrency} }}
retry: {{ attempts: 20 }}
"""


class Unfinished(Exception):
    pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command, output, **more):
    with open(output, "ab") as out:
        return subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **more
        )


def stop(process):
    """Ends a whole session, and waits for its head."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            continue
    return None


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=20) as answer:
        return answer.read()


class Endpoint:
    def __init__(self, folder, rate, latency=LATENCY):
        log = folder / "endpoint.log"
        quota = ["--quota", f"openai=requests_per_minute={rate * 60}"] if rate else []
        command = [PROGRAM, "simulate", "--openai-latency", f"{int(latency * 1000)}ms", "--burst", "1s", *quota]
        self.process = start(command, log)
        until = time.monotonic() + 20
        while not (found := re.search(r"http://[\w.:]+/v1", log.read_text())):
            if time.monotonic() > until:
                sys.exit(f"the simulated endpoint did not start:\n{log.read_text()}")
            time.sleep(0.02)
        self.url = found.group(0)
        self.base = self.url.removesuffix("/v1")

    def reset(self):
        ask(f"{self.base}/_simulate/reset", {})

    def counts(self):
        return json.loads(ask(f"{self.base}/_simulate/counts"))["counts"]

    def throttled(self):
        return sum(model["calls"] for model in self.counts()["by_model"] if model["outcome"] == "throttled")


class Contender:
    """Something that carries jobs 0..N to the endpoint."""

    def __init__(self, name):
        self.name = name

    def prepare(self, folder):
        self.folder = folder
        self.log = folder / "log"

    def command(self, endpoint, jobs):
        raise NotImplementedError

    def start(self, endpoint, jobs, again=False):
        return start(self.command(endpoint, jobs), self.log)

    def result(self, process, patience):
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            stop(process)
            raise Unfinished from None
        self.done_at = time.monotonic()
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        if not lines:
            sys.exit(f"{self.name} said nothing of its end:\n{self.log.read_text()}")
        return json.loads(lines[-1])

    def finish(self):
        pass


class Script(Contender):
    def command(self, endpoint, jobs):
        return [TOOLS / "venv/bin/python", HERE / "script.py", endpoint.url, jobs, self.folder / "done"]


class BullMq(Contender):
    def __init__(self, name, mode):
        super().__init__(name)
        self.mode = mode

    def prepare(self, folder):
        super().prepare(folder)
        self.port = free_port()
        options = ["--port", self.port, "--bind", "127.0.0.1", "--dir", folder, "--appendonly", "yes", "--save", ""]
        self.redis = start(["redis-server", *options], folder / "redis.log")
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        sys.exit("redis-server does not listen")

    def command(self, endpoint, jobs):
        return ["node", TOOLS / "bullmq/worker.js", endpoint.url, jobs, self.port, self.mode]

    def finish(self):
        stop(self.redis)


class Landbridge(Contender):
    def __init__(self, name, rate, concurrency=64, timeout=30):
        super().__init__(name)
        self.rate, self.concurrency, self.timeout = rate, concurrency, timeout

    def prepare(self, folder):
        super().prepare(folder)
        self.listen = free_port()

    def write(self, endpoint, jobs):
        folder = self.folder
        (folder / "pipelines").mkdir()
        (folder / "config").mkdir()
        spec = SPEC.format(concurrency=self.concurrency, timeout=self.timeout)
        (folder / "pipelines/peers.yaml").write_text(spec)
        quota = f"quotas:\n  - {{ provider: openai, model: gpt-5.4-mini, requests_per_minute: {(self.rate or 0) * 60} }}\n"
        (folder / "config/landbridge.yaml").write_text(
            f"listen: 127.0.0.1:{self.listen}\npipelines: {folder}/pipelines\nmodels: {folder}/config/models\n"
            f"store: sqlite:{folder}/data/landbridge.db\n"
            f'providers:\n  openai: {{ api: openai, base_url: "{endpoint.url}" }}\n{quota if self.rate else ""}'
        )
        with (folder / "jobs.jsonl").open("w") as lines:
            for n in range(jobs):
                body = {"messages": [{"role": "user", "content": f"job {n}"}], "max_completion_tokens": 16}
                line = {"pipeline": "peers", "idempotency_key": f"j-{n}", "batch": "all", "body": body}
                lines.write(json.dumps(line) + "\n")

    def start(self, endpoint, jobs, again=False, submit=True):
        if not again:
            self.write(endpoint, jobs)
        daemon = start([PROGRAM, "run", "--config", self.folder / "config/landbridge.yaml"], self.log)
        self.url, self.jobs = f"http://127.0.0.1:{self.listen}", jobs
        for _ in range(1_000):
            try:
                ask(f"{self.url}/healthz")
                break
            except OSError:
                time.sleep(0.01)
        if not again and submit:
            self.submit()
        return daemon

    def submit(self):
        command = [PROGRAM, "submit", self.folder / "jobs.jsonl", "--url", self.url]
        if start(command, self.folder / "submit.log").wait(120) != 0:
            sys.exit((self.folder / "submit.log").read_text())

    def ended(self):
        text = ask(f"{self.url}/metrics").decode()
        counts = {"succeeded": 0, "failed": 0}
        for state in counts:
            found = re.search(rf'^landbridge_jobs\{{pipeline="peers",state="{state}"\}} (\d+)', text, re.M)
            counts[state] = int(found.group(1)) if found else 0
        return counts

    def result(self, daemon, patience):
        until = time.monotonic() + patience
        while sum((counts := self.ended()).values()) < self.jobs:
            if time.monotonic() > until:
                stop(daemon)
                raise Unfinished
            time.sleep(0.05)
        self.done_at = time.monotonic()
        stop(daemon)
        return {"completed": counts["succeeded"], "failed": counts["failed"]}


def whole(contender, endpoint, jobs, rate, patience):
    with tempfile.TemporaryDirectory() as folder:
        contender.prepare(pathlib.Path(folder))
        try:
            endpoint.reset()
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            started = time.monotonic()
            process = contender.start(endpoint, jobs)
            result = contender.result(process, patience)
            took = contender.done_at - started
        finally:
            contender.finish()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        ideal = (jobs - rate) / rate + LATENCY
        return took / ideal, endpoint.throttled(), cpu * 1000 / jobs, result["failed"]


def killed(contender, endpoint, jobs, patience):
    with tempfile.TemporaryDirectory() as folder:
        contender.prepare(pathlib.Path(folder))
        try:
            endpoint.reset()
            process = contender.start(endpoint, jobs)
            until = time.monotonic() + patience
            while endpoint.counts()["answered"] < jobs * 0.4:
                if time.monotonic() > until:
                    stop(process)
                    raise Unfinished
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
            started = time.monotonic()
            process = contender.start(endpoint, jobs, again=True)
            result = contender.result(process, patience)
            took = contender.done_at - started
        finally:
            contender.finish()
        return jobs - result["completed"], endpoint.counts()["prompts"]["answered_again"], took


def memory(jobs):
    """Resident memory of the daemon, idle and with so many calls in flight."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < jobs + 1_000:
        sys.exit(f"{jobs} calls need as many open files; at most {hard} are allowed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def status(process, field):
        return int(re.search(rf"^{field}:\s+(\d+) kB", pathlib.Path(f"/proc/{process.pid}/status").read_text(), re.M).group(1))

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        endpoint = Endpoint(folder, None, latency=120)
        contender = Landbridge("landbridge", None, concurrency=jobs, timeout=600)
        (folder / "site").mkdir()
        contender.prepare(folder / "site")
        daemon = contender.start(endpoint, jobs, submit=False)
        try:
            (folder / "site/config/landbridge.yaml").read_text()
            time.sleep(1)
            idle = status(daemon, "VmRSS")
            contender.submit()
            until = time.monotonic() + 100
            while (flying := endpoint.counts()["in_flight"]) < jobs and time.monotonic() < until:
                time.sleep(0.1)
            busy = status(daemon, "VmRSS")
            each = (busy - idle) / max(flying, 1)
            print(f"{flying} calls in flight: {idle / 1024:.0f} MiB idle, {busy / 1024:.0f} MiB now, {each:.1f} KiB each")
        finally:
            stop(daemon)
            stop(endpoint.process)


def install():
    for tool in ("node", "npm", "redis-server"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed (Debian: apt-get install nodejs npm redis-server)")
    if not (TOOLS / "venv/bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", TOOLS / "venv"], check=True)
        subprocess.run([TOOLS / "venv/bin/pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    if not (TOOLS / "bullmq/node_modules").exists():
        shutil.copytree(HERE / "bullmq", TOOLS / "bullmq", dirs_exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=TOOLS / "bullmq", check=True)
    shutil.copy(HERE / "bullmq/worker.js", TOOLS / "bullmq/worker.js")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--rate", type=int, default=100, help="requests a second that the endpoint grants")
    parser.add_argument("--only", default="", help="contenders whose names contain one of these, comma between them")
    parser.add_argument("--patience", type=float, default=300, help="seconds for one run of one contender")
    parser.add_argument("--memory", type=int, help="measure the daemon's memory with so many calls in flight instead")
    options = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit("build the daemon first: cargo build --release")
    if options.memory:
        return memory(options.memory)
    os.environ["NODE_NO_WARNINGS"] = "1"
    install()
    rate, jobs = options.rate, options.jobs
    contenders = [
        Landbridge("landbridge, quota told", rate),
        Landbridge("landbridge, quota unknown", None),
        BullMq("BullMQ, limiter told", f"limiter={rate}"),
        Script("script: openai, semaphore, tenacity"),
        BullMq("BullMQ, backoff", "backoff"),
    ]
    chosen = [it for it in contenders if not options.only or any(word in it.name for word in options.only.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(pathlib.Path(folder), rate)
        try:
            print(f"{jobs} jobs, {rate} requests/s granted, {int(LATENCY * 1000)} ms a call; kill -9 at 40 % of {jobs // 2}")
            head = f"{'':38} {'/ ideal':>8} {'429s':>7} {'CPU s/1k':>9} {'failed':>7} | {'lost':>5} {'twice':>6} {'restart to end':>15}"
            print(head, flush=True)
            for contender in chosen:
                try:
                    ratio, refused, cpu, failed = whole(contender, endpoint, jobs, rate, options.patience)
                    first = f"{ratio:8.3f} {refused:7} {cpu:9.2f} {failed:7}"
                except Unfinished:
                    first = f"{'not done':>8} {endpoint.throttled():7} {'':9} {'':7}"
                try:
                    lost, twice, took = killed(contender, endpoint, jobs // 2, options.patience)
                    second = f"{lost:5} {twice:6} {took:13.1f} s"
                except Unfinished:
                    second = f"{'not done':>28}"
                print(f"{contender.name:38} {first} | {second}", flush=True)
        finally:
            stop(endpoint.process)


if __name__ == "__main__":
    main()
