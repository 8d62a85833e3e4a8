"""A run as W3C provenance: a PROV-JSON document (https://www.w3.org/submissions/prov-json/).

Activities are the run, its cells, and the operations that made its environment; entities are the experiment file, the notebook, the
sources of cells, nodes with what they are, lists of packages, outputs and files; agents are who ran it, and Wardian.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from .records import LogEntry, RunRecord

NAMESPACE = "urn:wardian:"

_Attributes = dict[str, Any]


def document(record: RunRecord) -> dict[str, Any]:
    """The PROV-JSON document of a run."""
    return _Document(record).made


class _Document:
    def __init__(self, record: RunRecord) -> None:
        self.made: dict[str, Any] = {"prefix": {"wardian": NAMESPACE}}
        self._record = record
        self._run = f"wardian:run/{record.run.id}"
        self._agents()
        self._asked()
        self._nodes()
        for entry in record.of("operation"):
            activity = self._activity("operation", entry, f"{entry.detail['action']} {entry.detail['kind']}")
            self._relate("wasInformedBy", informed=activity, informant=self._run)
        for entry in record.of("cell"):
            self._cell(entry)
        self._files()

    def _agents(self) -> None:
        run = self._record.run
        user, wardian = f"wardian:user/{run.detail['user']}@{run.detail['host']}", f"wardian:software/{run.detail['wardian']}"
        versions = self._record.fact("versions") or {}
        person = {"prov:type": _name("prov:Person"), "prov:label": run.detail["user"], "wardian:host": run.detail["host"]}
        software = {"prov:type": _name("prov:SoftwareAgent"), "prov:label": "Wardian", "wardian:version": run.detail["wardian"]}
        parts = [f"{name} {version}" for name, version in versions.items()]
        self._put("agent", user, person)
        self._put("agent", wardian, {**software, "wardian:python": run.detail["python"], "wardian:parts": parts})
        parameters = {f"wardian:parameter/{name}": _literal(value) for name, value in run.detail["parameters"].items()}
        about = {"wardian:provider": run.detail["provider"], "wardian:environment": run.environment, **parameters}
        self._activity("run", run, run.detail["notebook"].rpartition("/")[2], about)
        self._relate("wasAssociatedWith", activity=self._run, agent=user)
        self._relate("wasAssociatedWith", activity=self._run, agent=wardian)
        self._relate("actedOnBehalfOf", delegate=wardian, responsible=user, activity=self._run)

    def _asked(self) -> None:
        detail, git = self._record.run.detail, self._record.fact("git") or {}
        commit = {f"wardian:{name}": git.get(name) for name in ("commit", "branch", "remote", "dirty")}
        for name, path in (("experiment", detail["experiment"]), ("notebook", detail["notebook"])):
            known = self._record.fact(name)
            if known:
                self._used(f"wardian:file/{known['sha256']}", path, known["sha256"], name, commit)
        for path, digest in (self._record.fact("read") or {}).items():
            self._used(f"wardian:file/{digest}", path, digest, "file", {})

    def _used(self, identifier: str, path: str, digest: str, role: str, about: _Attributes) -> None:
        self._put("entity", identifier, {"prov:type": role, "prov:label": path, "wardian:sha256": digest, **about})
        self._relate("used", activity=self._run, entity=identifier, **{"prov:role": role})

    def _nodes(self) -> None:
        for node in (None, *self._record.nodes()):
            machine, python, image = (self._record.fact(name, node) or {} for name in ("machine", "python", "image"))
            about = {f"wardian:{name}": value for name, value in (*machine.items(), *((f"python/{k}", v) for k, v in python.items()))}
            self._put("entity", self._node(node), {"prov:type": "node", "prov:label": node or "home", **about})
            if node is not None:
                self._relate("wasGeneratedBy", entity=self._node(node), activity=self._run)
            if image.get("digest"):
                identifier = f"wardian:image/{image['digest']}"
                about = {"prov:type": "image", "prov:label": image.get("name"), "wardian:registry": image.get("registry")}
                self._put("entity", identifier, about)
                self._relate("wasDerivedFrom", generatedEntity=self._node(node), usedEntity=identifier)
        for fact in self._record.facts:
            if fact.name.startswith("packages."):
                identifier = f"wardian:packages/{fact.sha256}"
                listed = [f"{name} {version}" for name, version in fact.value.items()]
                self._put("entity", identifier, {"prov:type": fact.name, "wardian:packages": listed})
                self._relate("wasInfluencedBy", influencee=self._node(fact.node), influencer=identifier)

    def _cell(self, entry: LogEntry) -> None:
        detail = entry.detail
        about = {"wardian:selector": detail["selector"], "wardian:language": detail["language"], "wardian:cell": detail["cell"]}
        activity = self._activity("cell", entry, detail["cell"] or entry.id[-8:], about)
        self._relate("wasInformedBy", informed=activity, informant=self._run)
        source = f"wardian:source/{detail['source_digest']}"
        self._put("entity", source, {"prov:type": "source", "prov:value": detail["source"], "wardian:sha256": detail["source_digest"]})
        self._relate("used", activity=activity, entity=source, **{"prov:role": "source"})
        for node in entry.nodes or (None,):
            self._relate("used", activity=activity, entity=self._node(node), **{"prov:role": "node"})
        for output in self._record.outputs.get(entry.id, ()):
            identifier = f"wardian:output/{entry.id}/{output.sequence}"
            about = {"prov:type": output.message_type, "wardian:sha256": output.sha256, "wardian:node": output.node}
            self._put("entity", identifier, about)
            self._relate("wasGeneratedBy", entity=identifier, activity=activity, **{"prov:time": _time(output.time)})

    def _files(self) -> None:
        for path, digest in (self._record.fact("written") or {}).items():
            self._generated(path, digest)
        for entry in self._record.of("transfer"):
            if entry.detail["direction"] == "get" and entry.detail["sha256"]:
                identifier = self._generated(entry.detail["target"], entry.detail["sha256"])
                self._relate("wasDerivedFrom", generatedEntity=identifier, usedEntity=self._node(entry.nodes[0]))

    def _generated(self, path: str, digest: str) -> str:
        identifier = f"wardian:file/{digest}"
        self._put("entity", identifier, {"prov:type": "file", "prov:label": path, "wardian:sha256": digest})
        self._relate("wasGeneratedBy", entity=identifier, activity=self._run)
        return identifier

    def _node(self, name: str | None) -> str:
        run = self._record.run
        return f"wardian:node/{run.environment or 'none'}/{name}" if name else f"wardian:home/{run.detail['host']}"

    def _activity(self, kind: str, entry: LogEntry, label: str, about: _Attributes | None = None) -> str:
        identifier = f"wardian:{kind}/{entry.id}"
        times = {"prov:startTime": _time(entry.started)} | ({"prov:endTime": _time(entry.ended)} if entry.ended is not None else {})
        said = {"prov:type": kind, "prov:label": label, "wardian:status": entry.status, "wardian:error": entry.error}
        self._put("activity", identifier, {**times, **said, **(about or {})})
        return identifier

    def _put(self, kind: str, identifier: str, attributes: _Attributes) -> None:
        known = {name: value for name, value in attributes.items() if value is not None}
        self.made.setdefault(kind, {}).setdefault(identifier, known)

    def _relate(self, relation: str, **ends: Any) -> None:
        made = {name if ":" in name else f"prov:{name}": value for name, value in ends.items()}
        digest = hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()[:16]
        self.made.setdefault(relation, {})[f"_:{relation}{digest}"] = made


def _name(qualified: str) -> dict[str, str]:
    return {"$": qualified, "type": "prov:QUALIFIED_NAME"}


def _literal(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()
