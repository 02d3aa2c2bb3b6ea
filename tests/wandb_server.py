"""A server on this machine that speaks as much of W&B's protocol as the tests need, and keeps what it is sent."""

import gzip
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers as much of W&B's protocol as a run needs to begin, to be resumed and to end; if `mute`, to begin only."""

    daemon_threads = True

    def __init__(self, mute: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.mute, self.history, self.received = mute, [], 0
        self.upserted: list[dict] = []  # what runs asked to be known as
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bucket(self, known: bool) -> dict:
        """The run as it is known here, under the id that was asked for."""
        id = self.upserted[-1]["name"] if self.upserted else "run"
        tail = {
            "historyTail": json.dumps(self.history[-1:]),
            "eventsTail": "[]",
            "summaryMetrics": "{}",
            "wandbConfig": '{"t": {}}',
            "logLineCount": 0,
            "eventsLineCount": 0,
            "tags": [],
        }
        project = {"id": "p", "name": "ganbench", "entity": {"id": "e", "name": "me"}}
        it = {"id": "abc", "name": id, "displayName": "run", "config": "{}", "historyLineCount": len(self.history)}
        return it | {"project": project} | (tail if known else {})

    def answer(self, query: str) -> dict:
        if "mutation UpsertBucket" in query:
            return {"upsertBucket": {"bucket": self.bucket(known=False), "inserted": True}}
        if "query RunResumeStatus" in query and self.history:
            entity = {"id": "e", "name": "me"}
            return {"model": {"id": "m", "name": "ganbench", "entity": entity, "bucket": self.bucket(known=True)}}
        if "mutation CreateRunFiles" in query:
            return {"createRunFiles": {"runID": "abc", "uploadHeaders": [], "files": []}}
        return {"model": {"bucket": None}, "serverInfo": {"features": []}}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        asked, reply = json.loads(body or "{}"), {}
        if self.server.mute and "UpsertBucket" not in asked.get("query", ""):
            time.sleep(600)
        if self.path == "/graphql":
            if "mutation UpsertBucket" in asked["query"]:
                self.server.upserted.append(asked["variables"])
            reply = {"data": self.server.answer(asked["query"])}
        elif part := asked.get("files", {}).get("wandb-history.jsonl"):
            self.server.history[part["offset"] :] = part["content"]
            self.server.received += len(part["content"])
        answer = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked has given up by now
            self.wfile.write(answer)
