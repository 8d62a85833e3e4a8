"""Environments: which there are, all of one, its topology, its plan, one of its nodes."""

from __future__ import annotations

from typing import Any

from .handler import Handler
from .operation import NUMBER, TEXT, TRUTH, WHOLE, Operation, Route, each, operation, query, ref, shape
from .shapes import ENVIRONMENT_QUERY, INSTANCE, PARAMETERS, PATH

RESOURCE = "wardian:environments"

NODE_QUERY = {**ENVIRONMENT_QUERY, "node": query(TEXT, "the node's name", minLength=1, maxLength=200)}

GROWTH = {
    "parameters": PARAMETERS,
    "provider": {"type": "string", "maxLength": 100, "description": "a provider or site in place of the file's"},
    "strict": {**TRUTH, "description": "refuse what cannot be honoured here exactly as written"},
}

_WHOLE_NODE = shape(
    "One node with what its agent tells: kernels, and the services with their processes. `reachable` is false where there is no agent to "
    "ask; then `trouble` says why.",
    {"name": TEXT, "node": ref("Node"), "reachable": TRUTH},
    {
        "kernels": each(
            shape(
                "A kernel of the node; `attached` tells whether a notebook has it, or it runs on alone.",
                {"id": TEXT, "language": TEXT, "state": TEXT, "attached": TRUTH},
                {"pid": WHOLE},
            )
        ),
        "services": each(
            shape("", {"service": TEXT, "state": TEXT}, {"pid": WHOLE, "exit_code": WHOLE, "restarts": WHOLE, "since": NUMBER}),
        ),
        "trouble": TEXT,
    },
)


class Environments(Handler):
    """The environments that exist."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "The environments that exist of experiments below the server's root",
            gives={200: shape("", {"environments": each(ref("Record"))})},
        )
    )
    async def get(self) -> None:
        """List them."""
        from ...environment.view import record_json

        records = await self.work(self.desk.records())
        self.answer({"environments": [{**record_json(record), "path": self.relative(record.file)} for record in records]})


class One(Handler):
    """An environment in full."""

    auth_resource = RESOURCE

    @operation(Operation("All of one environment, whether it is up or not", query=ENVIRONMENT_QUERY, gives={200: ref("Environment")}))
    async def get(self) -> None:
        """Look at it now."""
        view = await self.work(self.desk.look(self.experiment_file(self.query["path"]), self.query["instance"]))
        self.answer({"path": self.relative(view.file), **view.to_json()})


class Topology(Handler):
    """An environment as a drawing."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "Its topology as a graph that is ready to be drawn",
            query={
                **ENVIRONMENT_QUERY,
                "most": query(WHOLE, "a group with more members than that is one node", minimum=0, maximum=100_000, **{"x-optional": True}),
            },
            gives={200: ref("Graph")},
        )
    )
    async def get(self) -> None:
        """Look at it now."""
        from ...environment.graph import graph

        view = await self.work(self.desk.look(self.experiment_file(self.query["path"]), self.query["instance"]))
        self.answer(graph(view, self.query["most"]))


class Planning(Handler):
    """What `up` would do."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "What `up` would do: the differences between what exists and the file",
            body=shape(
                "Of which environment, and how it would be grown.",
                {"path": PATH},
                {"instance": INSTANCE, **GROWTH},
                additionalProperties=False,
            ),
            gives={200: ref("Plan")},
        ),
        action="read",
    )
    async def post(self) -> None:
        """Plan it now; nothing is changed."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        growth = {key: asked.get(key) for key in ("parameters", "provider")}
        self.answer(await self.work(self.desk.plan(file, instance, strict=asked.get("strict", False), **growth)))


class Node(Handler):
    """One node in full."""

    auth_resource = RESOURCE

    @operation(Operation("One node, with its kernels and services as its agent knows them", query=NODE_QUERY, gives={200: _WHOLE_NODE}))
    async def get(self) -> None:
        """Ask its agent."""
        file = self.experiment_file(self.query["path"])
        self.answer(await self.work(self.desk.nodes.node(file, self.query["instance"], self.query["node"])))


class Log(Handler):
    """What a service printed."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "The last lines of a service's log, or of the node's agent where no service is named",
            query={
                **NODE_QUERY,
                "service": query(TEXT, "the service; that of the agent without one", maxLength=200, **{"x-optional": True}),
                "lines": query(WHOLE, "how many lines, at most", default=200, minimum=1, maximum=5000),
            },
            gives={200: shape("", {"text": TEXT})},
        )
    )
    async def get(self) -> None:
        """Read it on the node."""
        asked: dict[str, Any] = self.query
        file = self.experiment_file(asked["path"])
        text = await self.work(self.desk.nodes.log(file, asked["instance"], asked["node"], asked["service"], asked["lines"]))
        self.answer({"text": text})


ROUTES = [
    Route("environments", Environments),
    Route("environment", One),
    Route("environment/topology", Topology),
    Route("environment/plan", Planning),
    Route("environment/node", Node),
    Route("environment/log", Log),
]
