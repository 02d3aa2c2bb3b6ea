"""A server on this machine that speaks as much of W&B's protocol as the tests need, and keeps what it is sent."""

import gzip
import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "f4ce" * 10


class Server(ThreadingHTTPServer):
    """Answers what a run needs to begin, to be resumed and to end, and what saves views; if `mute`, to begin only."""

    daemon_threads = True

    def __init__(self, mute: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.mute, self.history, self.received = mute, [], 0
        self.upserted: list[dict] = []  # what runs asked to be known as
        self.fault = ""  # key, rights, project, old: what is wrong
        self.known_runs = 100  # as many the project has at most
        self.views: dict[str, dict] = {}  # workspaces and reports, by id
        self.created: list[str] = []  # projects
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

    def answer(self, query: str, variables: dict) -> dict:
        if "mutation UpsertBucket" in query:
            self.upserted.append(variables)
            return {"upsertBucket": {"bucket": self.bucket(known=False), "inserted": True}}
        if "query RunResumeStatus" in query and self.history:
            entity = {"id": "e", "name": "me"}
            return {"model": {"id": "m", "name": "ganbench", "entity": entity, "bucket": self.bucket(known=True)}}
        if "mutation CreateRunFiles" in query:
            return {"createRunFiles": {"runID": "abc", "uploadHeaders": [], "files": []}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if "upsertView" in query or "allViews" in query or "view(id" in query:
            return self.answer_about_views(query, variables)
        if "runCount" in query or "ProjectInternalId" in query or "GetProjects" in query or "CreateProject" in query:
            return self.answer_about_projects(query, variables)
        return {"model": {"bucket": None}, "serverInfo": {"features": []}}

    def answer_about_views(self, query: str, variables: dict) -> dict:
        if "upsertView" in query:
            id = variables.get("id") or f"Vmlldzo{len(self.views)}"
            self.views[id] = variables | {"id": id}
            project = {"id": "p", "name": variables["projectName"], "entityName": variables["entityName"]}
            return {"upsertView": {"view": variables | {"id": id, "project": project}, "inserted": True}}
        if "allViews" in query:
            saved = [view for view in self.views.values() if view["name"] == variables["viewName"]]
            return {"project": {"allViews": {"edges": [{"node": view} for view in saved]}}}
        view = self.views.get(variables["reportId"])
        project = {"id": "p", "name": "ganbench", "entityName": "me"}
        return {"view": view and view | {"project": project}}

    def answer_about_projects(self, query: str, variables: dict) -> dict:
        end = {"endCursor": None, "hasNextPage": False, "__typename": "PageInfo"}
        if "CreateProject" in query:
            self.created.append(variables["input"]["name"])
            return {"upsertModel": {"project": None}}
        if "GetProjects" in query:
            node = {"id": "p", "name": "ganbench", "entityName": "me", "createdAt": "2026-01-01", "isBenchmark": False}
            node |= {"__typename": "Project", "user": None}
            return {"models": {"pageInfo": end, "edges": [{"node": node}]}}
        if self.fault == "project":
            return {"project": None}
        ids = json.loads(variables.get("filters", "{}")).get("name", {}).get("$in", [])
        found = {"runCount": min(self.known_runs, len(ids)), "runs": {"edges": [], "pageInfo": end}}
        return {"project": {"id": "p", "internalId": "UHJvamVjdA==", "readOnly": False} | found}

    def errors(self, query: str) -> tuple[int, str]:
        """The HTTP status and the error that this query is answered with; 200 and none if all is well."""
        if self.fault == "key":
            return 401, "invalid API key"
        if self.fault == "rights" and "upsertView" in query:
            return 200, "permission denied"
        if self.fault == "old" and "upsertView" in query:
            return 400, 'Cannot query field "upsertView" on type "Mutation".'
        return 200, ""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        asked, reply, code = json.loads(body or "{}"), {}, 200
        if self.server.mute and "UpsertBucket" not in asked.get("query", ""):
            time.sleep(600)
        if self.path == "/graphql":
            code, error = self.server.errors(asked["query"])
            if error:
                reply = {"errors": [{"message": error}]}
            else:
                reply = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif part := asked.get("files", {}).get("wandb-history.jsonl"):
            self.server.history[part["offset"] :] = part["content"]
            self.server.received += len(part["content"])
        answer = json.dumps(reply).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked has given up by now
            self.wfile.write(answer)
