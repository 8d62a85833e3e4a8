"""Runs as OpenTelemetry spans, sent to a receiver that takes OTLP over HTTP."""

from __future__ import annotations

import gzip
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from wardian.errors import MissingToolError
from wardian.journal import Journal, otel


class Collector(http.server.ThreadingHTTPServer):
    """Takes what is sent, as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[tuple[str, ExportTraceServiceRequest]] = []
        self.status = 200


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is said."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector on loopback that the variables of this process name."""
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal with one run, of an operation and two cells, of which one failed."""
    with Journal.open(tmp_path / "journal.db") as journal:
        run = journal.run(notebook="/study/qoe.ipynb", parameters={"clients": 2}, provider="local")
        journal.operation(environment="e1", action="create", kind="node", targets=["a"], run=run.id).done()
        journal.event(kind="fault.begun", detail={"summary": "pause a"}, run=run.id)
        journal.cell(source="1", cell="c1", nodes=["a"], run=run.id).done()
        time.sleep(0.01)
        journal.cell(source="1/0", cell="c2", run=run.id).done("failed", "ZeroDivisionError: division by zero")
        run.done("failed", "a cell failed")
        yield journal


def test_a_run_as_spans(collector: Collector, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trace: the run with its operation and cells within, at the times at which they were, with status, nodes and events."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=lab")
    record = journal.show("last")
    assert otel.export(record) == 4
    ((path, request),) = collector.received
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    about = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert (about["service.name"], about["team"]) == ("wardian", "lab")
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"run qoe.ipynb", "create node", "cell c1", "cell c2"}
    run = spans.pop("run qoe.ipynb")
    assert not run.parent_span_id
    assert {(span.trace_id, span.parent_span_id) for span in spans.values()} == {(run.trace_id, run.span_id)}
    assert [event.name for event in run.events] == ["fault.begun: pause a"]
    failed, entry = spans["cell c2"], record.of("cell")[1]
    assert failed.start_time_unix_nano == round(entry.started * 1e9)
    assert failed.end_time_unix_nano == round((entry.ended or 0) * 1e9)
    assert (failed.status.code, failed.status.message) == (2, "ZeroDivisionError: division by zero")
    assert spans["cell c1"].status.code == 1
    nodes = {item.key: item.value for item in spans["cell c1"].attributes}["wardian.nodes"]
    assert [value.string_value for value in nodes.array_value.values] == ["a"]


def test_when_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are sent where OpenTelemetry's variables name a collector, or ours asks for it, and not where ours says no."""
    for name in (*otel.ASKED, "WARDIAN_OTEL"):
        monkeypatch.delenv(name, raising=False)
    assert not otel.wanted()
    monkeypatch.setenv("WARDIAN_OTEL", "1")
    assert otel.wanted()
    monkeypatch.setenv(otel.ASKED[0], "http://127.0.0.1:1")
    monkeypatch.setenv("WARDIAN_OTEL", "0")
    assert not otel.wanted()
    monkeypatch.delenv("WARDIAN_OTEL")
    assert otel.wanted()


def test_a_collector_that_refuses(collector: Collector, journal: Journal) -> None:
    """What a collector does not take is an error that the run's end can tell as a warning."""
    collector.status = 400
    with pytest.raises(OSError, match="did not take"):
        otel.export(journal.show("last"))


def test_without_the_sdk(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenTelemetry's packages it is said what to install."""
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingToolError) as caught:
        otel.export(journal.show("last"))
    assert "wardian[otel]" in str(caught.value.remedy)
