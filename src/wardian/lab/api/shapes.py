"""The values that answers are made of, as JSON Schema: the components of the OpenAPI document."""

from __future__ import annotations

from .operation import MOMENT, NUMBER, TEXT, TRUTH, WHOLE, Schema, each, of, ref, shape

STATES = ["absent", "ready", "partial"]
RESOURCE_STATES = ["absent", "ready", "incomplete", "stopped", "unreachable"]
_STATE: Schema = {"type": "string", "enum": RESOURCE_STATES}

PROBLEM = shape(
    "One thing wrong in an experiment file; `text` says it in one line.",
    {"field": TEXT, "message": TEXT, "text": TEXT, "file": TEXT},
    {"line": WHOLE, "column": WHOLE, "expected": TEXT, "got": TEXT, "suggestion": TEXT},
)

ERROR = shape(
    "What went wrong, and where it is known what to do about it. `kind` is the class of the error (wardian.errors).",
    {"message": TEXT},
    {"kind": TEXT, "remedy": TEXT, "problems": each(ref("Problem")), "reason": {"type": ["string", "null"]}},
)

EXPERIMENT = shape(
    "What an experiment file says of itself.",
    {"name": TEXT, "provider": TEXT, "parameters": of({"type": "object"}, "definitions by name, with the values in use as `default`")},
    {"description": TEXT},
)

RECORD = shape(
    "Who an environment is, and the values of the parameters that it was grown with.",
    {"id": TEXT, "name": TEXT, "instance": TEXT, "provider": TEXT, "user": TEXT, "host": TEXT, "created": MOMENT, "parameters": of({})},
    {"path": TEXT},
)

USAGE = shape(
    "What a node uses now: `cpu` in processors since the last look, `cpu_seconds` in all, memory in bytes.",
    {"cpu_seconds": NUMBER, "memory": WHOLE},
    {"cpu": NUMBER},
)

NODE = shape(
    "One node. Addresses by network. `detail` are the provider's own words about its state.",
    {"roles": each(TEXT), "hostname": TEXT, "state": _STATE, "addresses": of(TEXT)},
    {
        **{"group": TEXT, "index": WHOLE, "detail": TEXT, "site": TEXT, "image": TEXT, "cpus": NUMBER, "memory": WHOLE},
        "usage": ref("Usage"),
    },
)

NETWORK = shape("One network.", {"state": _STATE}, {"subnet": TEXT, "gateway": TEXT, "mtu": WHOLE, "detail": TEXT})

LINK = shape(
    "A link between two networks, or the access link of a node, of which something is set. `ways` is what each direction does: delay and "
    "jitter in seconds, loss, duplicate and reorder as fractions, rate in bits a second; `text` the same in words.",
    {"kind": {"enum": ["link", "access"]}, "ends": each(TEXT), "ways": of({"type": "object"}), "text": of(TEXT), "state": _STATE},
    {"mtu": WHOLE},
)

SERVICE = shape("A service on a node.", {"service": TEXT, "node": TEXT, "state": _STATE}, {"detail": TEXT})

FAULT = shape(
    "A fault that is in force; without `until` it is until it is undone.",
    {"kind": TEXT, "targets": each(TEXT), "nodes": each(TEXT), "text": TEXT, "began": MOMENT, "by": TEXT},
    {"until": MOMENT},
)

LEASE = shape(
    "How long the environment is held, and what happens then.",
    {"end": MOMENT, "at_end": {"enum": ["down", "keep"]}, "extendable": TRUTH},
)

ENVIRONMENT = shape(
    "An environment: what exists beside what its file asks for. A key whose value would be null is left out.",
    {
        **{"path": TEXT, "instance": TEXT, "state": {"enum": STATES}, "problems": each(ref("Problem"))},
        **{"nodes": of(ref("Node")), "networks": of(ref("Network")), "links": of(ref("Link")), "services": of(ref("Service"))},
        "faults": of(ref("Fault")),
    },
    {"experiment": ref("Experiment"), "record": ref("Record"), "lease": ref("Lease")},
)

GRAPH = shape(
    "The topology as node-link JSON. Positions are in steps of one from the top left; ids are node:NAME and network:NAME.",
    {
        "nodes": each(
            shape(
                "",
                {"id": TEXT, "kind": {"enum": ["node", "network"]}, "name": TEXT, "state": _STATE, "x": NUMBER, "y": NUMBER},
                {"group": TEXT, "roles": each(TEXT), "count": WHOLE},
            )
        ),
        "links": each(
            shape(
                "",
                {"id": TEXT, "kind": {"enum": ["link", "access"]}, "name": TEXT, "source": TEXT, "target": TEXT, "state": _STATE},
                {"text": of(TEXT)},
            )
        ),
        "groups": each(shape("", {"id": TEXT, "members": each(TEXT), "state": _STATE})),
    },
)

OPERATION = shape(
    "One thing to do to a set of like resources, and why. `after`: the ids of those that come before it.",
    {
        **{"id": WHOLE, "action": {"enum": ["create", "update", "delete"]}, "kind": TEXT, "targets": each(TEXT)},
        **{"reason": TEXT, "after": each(WHOLE)},
    },
)

CAVEAT = shape(
    "Something that cannot be honoured here as written, and what is done in its place.",
    {"resource": TEXT, "field": TEXT, "message": TEXT, "stand_in": {"type": ["string", "null"]}},
)

SHARE = shape(
    "How much of what a policy allows is used: nodes, bytes of memory or disk, or seconds of the lease.",
    {"what": {"enum": ["nodes", "memory", "disk", "lease"]}, "used": {"type": "number"}, "most": {"type": "number"}},
)

PLAN = shape(
    "What `up` would do. `digest` is what a request to do it names; `text` is the plan as people read it; `removes` names nodes and "
    "networks that run well now and would not afterwards.",
    {
        **{"digest": TEXT, "text": TEXT, "summary": TEXT, "removes": each(TEXT)},
        **{"operations": each(ref("Operation")), "caveats": each(ref("Caveat")), "quota": each(ref("Share")), "costs": each(TEXT)},
    },
)

ENTRY = shape(
    "One thing that happened. `nodes` are the nodes, or of an operation the resources, that it was about; without `ended` it goes on.",
    {
        **{"id": TEXT, "kind": {"enum": ["operation", "run", "cell", "transfer", "event"]}, "started": MOMENT},
        **{"status": {"enum": ["running", "ok", "failed", "cancelled", "interrupted"]}, "summary": TEXT, "nodes": each(TEXT)},
        "detail": {"type": "object"},
    },
    {"ended": MOMENT, "environment": TEXT, "run": TEXT, "error": TEXT},
)

_STEP = shape(
    "One operation of a task: its state is waiting, started, done, failed (then `error` has the provider's own words) or skipped. "
    "`resources` has the provider's word about each that is not done.",
    {
        **{"action": TEXT, "kind": TEXT, "targets": TEXT, "count": WHOLE, "reason": TEXT, "state": TEXT},
        "resources": of(TEXT),
    },
    {"started": MOMENT, "ended": MOMENT, "error": TEXT},
)

TASK = shape(
    "Growing or tearing down, as a task of the server. `words` has the provider's word about each thing while it is torn down.",
    {
        **{"id": TEXT, "kind": {"enum": ["up", "down"]}, "instance": TEXT, "started": MOMENT},
        **{"state": {"enum": ["running", "done", "failed", "cancelled"]}, "operations": of(_STEP)},
    },
    {"ended": MOMENT, "error": ref("Error"), "words": of(TEXT), "result": {"type": "object"}},
)

CHANGED = shape(
    "What would be done is not what was shown; `plan` is what it would be now.", {"message": TEXT, "kind": TEXT, "plan": ref("Plan")}
)

COMPONENTS: dict[str, Schema] = {
    "Task": TASK,
    "Changed": CHANGED,
    "Error": ERROR,
    "Problem": PROBLEM,
    "Experiment": EXPERIMENT,
    "Record": RECORD,
    "Usage": USAGE,
    "Node": NODE,
    "Network": NETWORK,
    "Link": LINK,
    "Service": SERVICE,
    "Fault": FAULT,
    "Lease": LEASE,
    "Environment": ENVIRONMENT,
    "Graph": GRAPH,
    "Operation": OPERATION,
    "Caveat": CAVEAT,
    "Share": SHARE,
    "Plan": PLAN,
    "Entry": ENTRY,
}

PATH: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 4096,
    "pattern": "^[^\\u0000]*$",
    "description": "the experiment file, or its folder, below the server's root",
}
INSTANCE: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 200,
    "default": "default",
    "description": "the instance name of the environment",
}
PARAMETERS: Schema = {
    "type": "object",
    "maxProperties": 200,
    "additionalProperties": {"type": ["string", "number", "boolean"]},
    "description": "values of the experiment's parameters, in place of their defaults",
}
ENVIRONMENT_QUERY = {"path": PATH, "instance": INSTANCE}
