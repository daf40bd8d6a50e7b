"""Runs the emitter and the client of docs/protocol.md against a real Redis and a gateway that is killed and restarted.

Argument: the program. Each event must reach the client once, in order. redis-py comes from requirements.txt.
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
from pathlib import Path

CHANNELS = ["news", "team:1"]
EVENTS = 24
TIMEOUT = 60  # Seconds, for each wait.


def script(name):
    """A script of docs/protocol.md."""
    page = (Path(__file__).parents[2] / "docs/protocol.md").read_text()
    block = re.search(rf"^```python file={re.escape(name)}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block, f"docs/protocol.md has no block file={name}"
    return block[1]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for_port(port):
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def start_gateway(program, directory, port, redis):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= {"TIDEGATE_CONTROL_LISTEN": "127.0.0.1:0", "TIDEGATE_LOG_FILTER": "warn"}
    environment |= {"TIDEGATE_CACHE_DIR": directory, "TIDEGATE_DRAIN_DELAY": "0s", "TIDEGATE_DRAIN_DURATION": "200ms"}
    arguments = ["serve", "--allow-all", "--listen", f"127.0.0.1:{port}", "--store", redis]
    gateway = subprocess.Popen([program, *arguments], cwd=directory, env=environment, stdout=subprocess.DEVNULL)
    wait_for_port(port)
    return gateway


def main(program):
    program = Path(program).resolve()
    running = []
    with tempfile.TemporaryDirectory() as directory:
        for name in ("emitter.py", "client.py"):
            Path(directory, name).write_text(script(name))
        redis_port, port = free_port(), free_port()
        redis = f"redis://127.0.0.1:{redis_port}"
        try:
            server = ["redis-server", "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
            running.append(subprocess.Popen(server, stdout=subprocess.DEVNULL))
            wait_for_port(redis_port)
            gateway = start_gateway(program, directory, port, redis)
            running.append(gateway)
            url = f"http://127.0.0.1:{port}/api/realtime"
            client = subprocess.Popen(
                [sys.executable, "client.py", url, *CHANNELS, "--since", "0", "--count", str(EVENTS)],
                cwd=directory, stdout=subprocess.PIPE, text=True,
            )
            running.append(client)
            emitted = []
            for n in range(EVENTS):
                channel, data = CHANNELS[n % 2], {"n": n, "text": "grüße \"\n"} if n % 3 else f"text {n}"
                emit = [sys.executable, "emitter.py", redis, channel, "test.event", json.dumps(data)]
                id = subprocess.run(emit, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()
                emitted.append({"channel": channel, "id": id, "event": "test.event", "data": data})
                if n in (8, 16):
                    # SIGKILL cuts the stream at any byte; SIGTERM drains it.
                    gateway.send_signal(signal.SIGKILL if n == 8 else signal.SIGTERM)
                    gateway.wait(TIMEOUT)
                    running.remove(gateway)
                    gateway = start_gateway(program, directory, port, redis)
                    running.append(gateway)
            output, _ = client.communicate(timeout=TIMEOUT)
            received = [json.loads(line) for line in output.splitlines()]
            for channel in CHANNELS:
                of = [[event for event in events if event.get("channel") == channel] for events in (emitted, received)]
                assert of[0] == of[1], f"{channel}: emitted {of[0]}, received {of[1]}"
            assert len(received) == EVENTS, received
        finally:
            for process in reversed(running):
                process.kill()
                process.wait()
    print(f"{EVENTS} events of docs/protocol.md's emitter reached its client once and in order")


main(sys.argv[1])
