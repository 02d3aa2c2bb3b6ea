"""A server on this machine that speaks as much of W&B's protocol as the tests need, and keeps what it is sent."""

import gzip
import json
import threading
import time
from collections import defaultdict
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "f4ce" * 10


class Server(ThreadingHTTPServer):
    """Answers what runs, agents, and whoever saves views or artifacts ask for; if `mute`, only that a run may begin."""

    daemon_threads = True

    def __init__(self, mute: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.mute, self.received = mute, 0
        self.histories: dict[str, list[str]] = defaultdict(list)  # by the run's id
        self.summaries: dict[str, dict] = {}
        self.preempted: list[str] = []  # the ids of runs that said they will be
        self.upserted: list[dict] = []  # what runs asked to be known as
        self.fault = ""  # key, rights, project, old: what is wrong
        self.known_runs = 100  # as many the project has at most
        self.views: dict[str, dict] = {}  # workspaces and reports, by id
        self.created: list[str] = []  # projects
        self.files: dict[str, bytes] = {}  # uploaded, by path
        self.artifacts: list[dict] = []
        self.sweep = ""  # its YAML
        self.commands: list[dict] = []  # for the agent: each heartbeat gets the next one, the last one again and again
        self.bodies: list[str] = []  # all that was sent
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def history(self) -> list[str]:
        """What the last run has logged."""
        return self.histories[self.upserted[-1]["name"] if self.upserted else "run"]

    def bucket(self, id: str, known: bool) -> dict:
        """The run as it is known here."""
        tail = {
            "historyTail": json.dumps(self.histories[id][-1:]),
            "eventsTail": "[]",
            "summaryMetrics": "{}",
            "wandbConfig": '{"t": {}}',
            "logLineCount": 0,
            "eventsLineCount": 0,
            "tags": [],
        }
        project = {"id": "p", "name": "ganbench", "entity": {"id": "e", "name": "me"}}
        lines = len(self.histories[id])
        it = {"id": f"id-{id}", "name": id, "displayName": "run", "config": "{}", "historyLineCount": lines}
        return it | {"project": project, "sweepName": None} | (tail if known else {})

    def answer(self, query: str, variables: dict) -> dict:
        if "mutation UpsertBucket" in query:
            self.upserted.append(variables)
            return {"upsertBucket": {"bucket": self.bucket(variables["name"], known=False), "inserted": True}}
        if "query RunResumeStatus" in query and self.histories[variables["name"]]:
            entity, bucket = {"id": "e", "name": "me"}, self.bucket(variables["name"], known=True)
            return {"model": {"id": "m", "name": "ganbench", "entity": entity, "bucket": bucket}}
        if "mutation CreateRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "abc", "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}
        if "upsertView" in query or "allViews" in query or "view(id" in query:
            return self.answer_about_views(query, variables)
        if "runCount" in query or "ProjectInternalId" in query or "GetProjects" in query or "CreateProject" in query:
            return self.answer_about_projects(query, variables)
        if "weep" in query or "agent" in query:
            return self.answer_agent(query, variables)
        if "rtifact" in query:
            return self.answer_about_artifacts(query, variables)
        return {"model": {"bucket": None}, "serverInfo": {"features": []}}

    def answer_agent(self, query: str, variables: dict) -> dict:
        if "UpsertSweep" in query:
            self.sweep = variables["config"]
            project = {"id": "p", "name": "ganbench", "entity": {"id": "e", "name": "me"}}
            return {"upsertSweep": {"sweep": {"name": "sweep1", "project": project}, "configValidationWarnings": []}}
        if "CreateAgent" in query:
            return {"createAgent": {"agent": {"id": "agent1"}}}
        if "agentHeartbeat" in query:
            command = {} if json.loads(variables["runState"]) else self.commands.pop(0)
            commands = json.dumps([command] if command else [])
            return {"agentHeartbeat": {"agent": {"id": "agent1"}, "commands": commands}}
        known = {"id": "s", "name": "sweep1", "state": "RUNNING", "config": self.sweep, "runs": {"edges": []}}
        return {"project": {"sweep": known}}

    def answer_about_artifacts(self, query: str, variables: dict) -> dict:
        if "mutation CreateArtifact " in query or "mutation CreateArtifact(" in query:
            asked = variables["input"]
            self.artifacts.append(asked)
            artifact = {"id": f"artifact{len(self.artifacts)}", "digest": asked["digest"], "state": "PENDING"}
            sequence = {"id": "sequence", "latestArtifact": None}
            return {"createArtifact": {"artifact": artifact | {"artifactSequence": sequence}}}
        if "CreateArtifactFiles" in query:
            nodes = [self.artifact_file(spec) for spec in variables["input"]["artifactFiles"]]
            return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}
        if "ArtifactManifest" in query and "mutation" in query:
            file = {"id": "f", "uploadUrl": f"{self.url}/manifest", "uploadHeaders": []}
            name = "updateArtifactManifest" if "updateArtifactManifest" in query else "createArtifactManifest"
            return {name: {"artifactManifest": {"id": "manifest", "file": file}}}
        if "query ArtifactType" in query:
            return {"project": {"artifact": None}}
        return {"commitArtifact": {"artifact": {"id": variables.get("artifactID"), "digest": "d"}}}

    def artifact_file(self, spec: dict) -> dict:
        url = f"{self.url}/artifact/{spec['name']}"
        artifact = {"id": spec["artifactID"]}
        return {"storagePath": spec["name"], "uploadUrl": url, "uploadHeaders": [], "artifact": artifact} | {
            "uploadMultipartUrls": None
        }

    def receive(self, path: str, asked: dict) -> None:
        """Keep what a run streams: its history and its summary."""
        id = path.split("/")[-2]  # .../ganbench/run/file_stream
        files = asked.get("files", {})
        if part := files.get("wandb-history.jsonl"):
            self.histories[id][part["offset"] :] = part["content"]
            self.received += len(part["content"])
        if part := files.get("wandb-summary.json"):
            self.summaries[id] = json.loads(part["content"][-1])
        if asked.get("preempting"):
            self.preempted.append(id)

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
        body = self.read()
        self.server.bodies.append(body.decode("latin-1"))
        is_json = self.headers.get("Content-Type") != "application/x-protobuf"  # of the library's own measurements
        asked, reply, code = json.loads(body or "{}") if is_json else {}, {}, 200
        if self.server.mute and "UpsertBucket" not in asked.get("query", ""):
            time.sleep(600)
        if self.path == "/graphql":
            code, error = self.server.errors(asked["query"])
            if error:
                reply = {"errors": [{"message": error}]}
            else:
                reply = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        else:
            self.server.receive(self.path, asked)
        self.reply(code, json.dumps(reply).encode())

    def do_PUT(self) -> None:
        self.server.files[self.path.lstrip("/")] = self.read()
        self.reply(200, b"")

    def read(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def reply(self, code: int, answer: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        with suppress(BrokenPipeError):  # whoever asked has given up by now
            self.wfile.write(answer)
