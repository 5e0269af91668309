"""A world small enough to be worked out by hand."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from crevasse.lessons.world import World, default_world, load_world

TINY = """
[place]
any = ["cafe", "C"]
cafe = ["A", "B"]

[companion]
any = ["X", "Y"]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> World:
    """Places A, B (both cafes) and C, companions X and Y: six events."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return load_world(path)


@pytest.fixture(scope="session")
def restaurant() -> World:
    return default_world()


@pytest.fixture(scope="session")
def incident(restaurant: World) -> tuple[int, ...]:
    """The thesis' own."""
    return restaurant.event(
        {"place": "IHOP on Main Street", "day": "Saturday", "hour": "1 pm", "companion": "Francois"}
    )


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Any], list[Any]]]:
    """A real server: its address; its answers, as (status, headers, body), which it takes from the list one by one,
    status 0 for what is no HTTP; and what it was asked, as (path, headers, body)."""
    monkeypatch.setenv("no_proxy", "*")
    answers: list[Any] = []
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.path, dict(self.headers), body))
            status, headers, reply = answers.pop(0)
            if not status:
                self.wfile.write(b"this is no HTTP\r\n\r\n")
                return
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    thread.join()
    server.server_close()
