"""What logging costs a training: metrics() beside a bare step of a millisecond, and all that the threads behind it do.

A step is matrix products of torch, as many as take a millisecond of a processor here. MLflow is a process that takes every request, so
the client is MLflow's own and the server's work is not counted. Ten steps in a row log a point each, ten times a second. Steps with and
without a point lie side by side, because a machine's speed drifts. What logging costs in all is what it adds to the steps that log, and
the processor time of the threads behind it: what they could take from a training at most.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from operator_load import Figure

from dropout_trainer.train.tracking import Tracking

BOUND = 0.02
STEP_SECONDS, SECONDS = 1e-3, 20.0
IN_A_ROW, EVERY_SECONDS = 10, 0.1
PER_SECOND = IN_A_ROW / EVERY_SECONDS


def figures() -> list[Figure]:
    with subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            environment = os.environ | {"MLFLOW_TRACKING_URI": server.stdout.readline().strip(), "OMP_NUM_THREADS": "1"}
            done = subprocess.run([sys.executable, __file__, "measure"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            server.kill()
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return [Figure(f"tracking: {name}", f"{100 * ratio:.2f} %", f"< {100 * BOUND:.0f} %", ratio < BOUND)
            for name, ratio in found.items()]


def measure() -> None:
    with tempfile.TemporaryDirectory(prefix="tracking-cost-") as folder:
        warm = Tracking("0" * 32, spool=Path(folder))
        warm.start()
        warm.metrics({"loss": 0.5}, 1)
        assert warm.drain(60) == 0  # MLflow is imported now
        tracking = Tracking("1" * 32, spool=Path(folder))
        tracking.start()
        share, times = _trained(tracking, _step())
        call = _seconds(lambda: tracking.metrics({"loss": 0.5}, 1), 5000, time.perf_counter)
        assert tracking.drain(60) == 0
    bare, with_point = (statistics.median(times[logged]) for logged in (False, True))
    whole = PER_SECOND * (with_point - bare) + share
    print(json.dumps({"one call of metrics(), of a 1 ms step": call / bare, f"{PER_SECOND:.0f} metrics/s in all": whole}))


def _step() -> Callable[[], None]:
    rows, weights = torch.randn(128, 256), torch.randn(256, 256)
    products = max(round(STEP_SECONDS / _seconds(lambda: rows @ weights, 5000, time.thread_time)), 1)

    def step() -> None:
        for _ in range(products):
            rows @ weights

    return step


def _trained(tracking: Tracking, step: Callable[[], None]) -> tuple[float, dict[bool, list[float]]]:
    """Processor time of other threads in a second; seconds of each step, without and with a point."""
    times: dict[bool, list[float]] = {False: [], True: []}
    begin, threads, number, to_log = time.perf_counter(), time.process_time() - time.thread_time(), 0, 0
    while (before := time.perf_counter()) < begin + SECONDS:
        if before >= begin + EVERY_SECONDS * number / IN_A_ROW:
            to_log = IN_A_ROW
        before = time.perf_counter()
        step()
        if logged := to_log > 0:
            to_log, number = to_log - 1, number + 1
            tracking.metrics({"loss": 0.5}, number)
        times[logged].append(time.perf_counter() - before)
    return (time.process_time() - time.thread_time() - threads) / SECONDS, times


def _seconds(call: Callable[[], object], count: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(count):
        call()
    return (clock() - begin) / count


class _TakesAll(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_request(self, *_: object) -> None:
        pass


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _TakesAll)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    elif sys.argv[1:] == ["measure"]:
        measure()
    else:
        for figure in figures():
            print(f"{figure.name}: {figure.value} ({figure.bound}) {'holds' if figure.holds else 'FAILS'}")
