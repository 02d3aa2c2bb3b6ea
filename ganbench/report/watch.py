"""Serve a sweep's progress and report to a browser on this machine, while the sweep runs. Nothing is written."""

import json
import os
import re
import sys
import threading
import time
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ganbench.errors import Refused
from ganbench.report.live import REPORT, LiveReport, LiveSweep, waiting_seconds
from ganbench.report.pages.templates import render

LOOPBACK = "127.0.0.1"
LOOK_SECONDS = 2.0  # between two looks at the least
OWN_NAMES = (LOOPBACK, "localhost")  # what a browser here may call us; others are pages that try to read us


class Watched:
    """What the requests of browsers ask for. They come in several threads."""

    def __init__(self, folder: Path, allowed: tuple[str, ...]):
        self.sweep = LiveSweep(folder)
        self.report = LiveReport(folder, allowed)
        self.reading = threading.Lock()
        self.reporting = threading.Lock()

    def progress(self) -> dict[str, Any]:
        """Return how far all runs are, when to ask again, and of how many ended runs the newest report is."""
        began = time.thread_time()
        with self.reading:
            self.sweep.refresh()
            progress = self.sweep.progress()
        is_due = self.report.is_due(progress["ended"], is_last=progress["ended"] == len(progress["runs"]))
        again = max(LOOK_SECONDS, waiting_seconds(time.thread_time() - began))
        return progress | {"report": progress["ended"] if is_due else self.report.n_ended, "again": again}

    def pages(self) -> dict[str, str]:
        """Return the pages of the report, made anew if that is due."""
        n_ended = self.progress()["report"]
        with self.reporting:
            if n_ended != self.report.n_ended:
                self.report.make(n_ended)
            return self.report.pages


class Handler(SimpleHTTPRequestHandler):
    """Answers with the page, the progress, the report, or else a file of the sweep."""

    def __init__(self, *arguments: Any, watched: Watched, **options: Any):
        self.watched = watched
        super().__init__(*arguments, **options)

    def parse_request(self) -> bool:
        """Return whether to answer: not to what was asked of another name, in whatever way."""
        if not super().parse_request():
            return False
        name = re.sub(r":\d+$", "", self.headers.get("Host", ""))
        if name.lower() in OWN_NAMES:
            return True
        self.send_error(HTTPStatus.FORBIDDEN, f"Ask for http://{LOOPBACK}")
        return False

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        if path == "":
            name = self.watched.sweep.folder.name
            return self._answer("text/html", render("watch.html.j2", title=name, seconds=LOOK_SECONDS))
        if path == "progress.json":
            return self._answer("application/json", json.dumps(self.watched.progress()))
        if path.endswith(REPORT) and path in (pages := self.watched.pages()):
            return self._answer("text/html", pages[path])
        return super().do_GET()

    def _answer(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing of each request."""


class Server(ThreadingHTTPServer):
    """Answers each request in a thread of its own."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that left before it had its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def watch(folder: Path, port: int, allowed: tuple[str, ...]) -> None:
    """Serve until the process is interrupted. Raise Refused if there is nothing to watch, or the port is taken."""
    lower_priority()
    watched = Watched(folder, allowed)
    if not watched.progress()["runs"]:
        raise Refused(f"{folder} has no runs, begun or planned; pass a sweep, such as outputs/sweep/mine.")
    handler = partial(Handler, watched=watched, directory=str(folder))
    try:
        server = Server((LOOPBACK, port), handler)
    except OSError as error:
        raise Refused(f"--watch {port}: {error.strerror}; pass another port, or none for any that is free.") from None
    print(f"Open http://{LOOPBACK}:{server.server_port} in a browser; Ctrl-C ends this, not the sweep.", flush=True)
    with server:
        server.serve_forever()


def lower_priority() -> None:
    """Leave the cores to the runs, where the system can."""
    if hasattr(os, "nice"):
        os.nice(19)
