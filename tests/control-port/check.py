"""Checks the control port of a running gateway: schemathesis fuzzes it by its OpenAPI document, and Prometheus' own code parses its
metrics and evaluates the alerting rules of the docs.

Arguments: the program, schemathesis, and the checker of metrics and alerting rules (tests/control-port/prometheus, compiled).
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TOKEN = "a-token-of-this-test"
POLICY = Path(__file__).parents[2] / "guest-examples/rust-role-based/policy.wasm"
CONFIG = f"""
store = "memory:"
listen = "127.0.0.1:0"
policy.file = "policy.wasm"
policy.shadow.share = 1.0
policy.lookup.prefixes = ["session:", "team:"]
control.listen = "127.0.0.1:0"
control.token = "{TOKEN}"
drain.delay = "0s"
memory-store.seed."session:alice" = '{{"id":"alice","role":"member"}}'
"""
# With a fixed seed a failed run can be repeated.
FUZZ = ["--checks", "all", "--max-examples", "40", "--seed", "20261125", "--continue-on-failure", "--no-color"]


def ports(gateway):
    """The data port and the control port, from the two lines that the gateway prints."""
    found = {}
    for line in gateway.stdout:
        if match := re.search(r"(listening|control) on http://127\.0\.0\.1:(\d+)", line):
            found[match[1]] = int(match[2])
        if len(found) == 2:
            return found["listening"], found["control"]
    sys.exit("the gateway did not start")


def send_request(port, path, body=None):
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["content-type"], answer.read().decode()


def upload_shadow_policy(port):
    """Uploads a shadow policy, so that the endpoints of shadow policies have one."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/wasm"}
    url = f"http://127.0.0.1:{port}/v1/policy/shadow"
    request = urllib.request.Request(url, POLICY.read_bytes(), headers, method="PUT")
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["counts"]["agree"] == 0


def stream(port, query, session="alice"):
    """Requests a stream, and returns the connection with the first bytes of the answer."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"GET /api/realtime?{query} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncookie: session={session}\r\n\r\n"
    connection.sendall(head.encode())
    return connection, connection.recv(64)


def main(program, schemathesis, checker):
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "tidegate.toml")
        config.write_text(CONFIG)
        # An activated policy replaces the file.
        Path(folder, "policy.wasm").write_bytes(POLICY.read_bytes())
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        gateway = subprocess.Popen(
            [program, "serve", "--config", config], stdout=subprocess.PIPE, text=True, cwd=folder,
            env=clean | {"TIDEGATE_CACHE_DIR": folder, "TIDEGATE_LOG_FILTER": "warn"},
        )
        try:
            check(*ports(gateway), schemathesis, checker, folder)
        finally:
            gateway.send_signal(signal.SIGTERM)
            try:
                code = gateway.wait(30)
            except subprocess.TimeoutExpired:
                gateway.kill()
                raise
    if code != 0:
        sys.exit(f"the gateway exited with code {code}")


def check(data, control, schemathesis, checker, folder):
    # A shadow policy, streams, a rejection and an event, so that endpoints and metrics have data.
    upload_shadow_policy(control)
    streams = [stream(data, f"channel=alice-{n}&channel=default") for n in range(3)]
    assert all(head.startswith(b"HTTP/1.1 200 ") for _, head in streams), streams
    assert stream(data, "channel=default", "mallory")[1].startswith(b"HTTP/1.1 401 ")
    send_request(control, "/v1/emit", {"channel": "default", "event": "e", "data": 1})
    metrics(control, checker)
    text = send_request(control, "/metrics")[1]
    subprocess.run([checker, "rules", Path(__file__).with_name("alerts.test.yml")], input=text, text=True, check=True)

    settings = Path(__file__).with_name("schemathesis.toml")
    fuzz = [schemathesis, "--config-file", str(settings), "run", f"http://127.0.0.1:{control}/openapi.json", *FUZZ]
    start = time.monotonic()
    subprocess.run([*fuzz, "--header", f"Authorization: Bearer {TOKEN}"], check=True, cwd=folder)
    print(f"fuzzed in {time.monotonic() - start:.0f} s")
    # After the fuzzing the gateway still serves valid metrics.
    metrics(control, checker)
    for connection, _ in streams:
        connection.close()


def metrics(control, checker):
    content_type, text = send_request(control, "/metrics")
    assert content_type.startswith("text/plain; version=0.0.4"), content_type
    subprocess.run([checker, "metrics"], input=text, text=True, check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
