"""A run as OpenTelemetry spans: the run, and within it its operations and cells, sent to a collector as the OTEL_* variables say."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import MissingToolError
from .records import LogEntry, RunRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ASKED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of OpenTelemetry's own that ask for it; WARDIAN_OTEL=1 does so for a collector at the default address, and =0 not to."""

MOST_TEXT = 1000
"""Characters of a text that go along."""


def wanted() -> bool:
    """Whether the variables of this process ask for spans."""
    ours = os.environ.get("WARDIAN_OTEL")
    return ours not in ("0", "false", "no") if ours else any(os.environ.get(name) for name in ASKED)


def export(record: RunRecord) -> int:
    """Send a run that is over; gives the number of spans. Blocking: until the collector has them, or the SDK gives up.

    Raises MissingToolError without the SDK, and OSError where the collector does not take them.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ModuleNotFoundError as error:
        raise MissingToolError(f"Python has no module {error.name}", remedy="pip install 'wardian[otel]'") from error

    gathered = InMemorySpanExporter()
    # what the OTEL_* variables say of the service goes first
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "wardian")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(gathered))
    _spans(record, provider.get_tracer("wardian", metadata.version("wardian")))
    spans = gathered.get_finished_spans()
    exporter = OTLPSpanExporter()
    try:
        if spans and exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise OSError(0, "the collector of traces did not take them")
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
    return len(spans)


def _spans(record: RunRecord, tracer: Tracer) -> None:
    from opentelemetry import trace

    run = record.run
    about = {"wardian.run": run.id, "wardian.notebook": run.detail["notebook"], "wardian.provider": run.detail["provider"]}
    about |= {f"wardian.parameter.{name}": value for name, value in run.detail["parameters"].items()}
    parent = _begin(tracer, f"run {run.detail['notebook'].rpartition('/')[2]}", run, about)
    within = trace.set_span_in_context(parent)
    for entry in record.entries:
        if entry.kind == "event":
            parent.add_event(entry.summary, timestamp=_nanoseconds(entry.started))
        elif entry.kind in _ATTRIBUTES:
            known = {f"wardian.{name}": entry.detail[name] for name in _ATTRIBUTES[entry.kind]}
            _end(_begin(tracer, _title(entry), entry, known, within), entry)
    _end(parent, run)


_ATTRIBUTES = {
    "operation": ("action", "kind", "reason"),
    "cell": ("cell", "selector", "language", "source", "source_digest"),
}
"""What goes along of entries of these kinds."""


def _title(entry: LogEntry) -> str:
    return (
        f"{entry.detail['action']} {entry.detail['kind']}" if entry.kind == "operation" else f"cell {entry.detail['cell'] or entry.id[-8:]}"
    )


def _begin(tracer: Tracer, name: str, entry: LogEntry, about: dict[str, Any], within: Any = None) -> Span:
    known: dict[str, Any] = {"wardian.nodes": list(entry.nodes), "wardian.status": entry.status}
    for key, value in about.items():
        if value is not None:
            known[key] = value[:MOST_TEXT] if isinstance(value, str) else value if isinstance(value, bool | int | float) else str(value)
    return tracer.start_span(name, context=within, attributes=known, start_time=_nanoseconds(entry.started))


def _end(span: Span, entry: LogEntry) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.OK) if entry.status == "ok" else Status(StatusCode.ERROR, entry.error or entry.status))
    # one whose process died has no end: it is shown as it began
    span.end(end_time=_nanoseconds(entry.ended if entry.ended is not None else entry.started))


def _nanoseconds(moment: float) -> int:
    return round(moment * 1e9)
