"""What changes an environment: growing it, tearing it down, its links, faults and lease."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from .environments import GROWTH
from .environments import RESOURCE as ENVIRONMENTS
from .handler import Handler
from .operation import MOMENT, TEXT, TRUTH, Operation, Route, each, of, operation, query, ref, shape
from .shapes import ENVIRONMENT_QUERY, INSTANCE, PATH

if TYPE_CHECKING:
    from .tasks import PlanChanged

_WHICH = {"path": PATH}
_INSTANCE = {"instance": INSTANCE}
_NAME = {"type": "string", "minLength": 1, "maxLength": 400}
_DURATION = {"type": ["string", "number"], "maxLength": 40, "description": 'seconds, or as in the file, such as "30s"'}

TASK_PART = {"task": {"type": "string", "minLength": 1, "maxLength": 64}}


class Up(Handler):
    """Growing."""

    auth_resource = ENVIRONMENTS

    @operation(
        Operation(
            "Grow an environment as a plan says that was shown; asked again, it joins what runs",
            body=shape(
                "The plan's digest, and what it was asked for with.",
                {**_WHICH, "digest": {**TEXT, "maxLength": 64}},
                {**_INSTANCE, **GROWTH},
                additionalProperties=False,
            ),
            gives={202: ref("Task"), 409: ref("Changed")},
        )
    )
    async def post(self) -> None:
        """Begin, or join."""
        from .tasks import Growth

        asked = self.body
        growth = Growth(asked.get("parameters") or {}, asked.get("provider"), asked.get("strict", False))
        file = self.experiment_file(asked["path"])
        await begun(self, self.desk.tasks.up(file, asked.get("instance", "default"), growth, asked["digest"]))


class Down(Handler):
    """Tearing down."""

    auth_resource = ENVIRONMENTS

    @operation(
        Operation(
            "Collect what the file names, then tear an environment down; asked again, it joins what runs",
            body=shape(
                "force: tear down even if collecting fails. collect: false leaves it out.",
                _WHICH,
                {**_INSTANCE, "force": TRUTH, "collect": TRUTH},
                additionalProperties=False,
            ),
            gives={202: ref("Task")},
        )
    )
    async def post(self) -> None:
        """Begin, or join."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        await begun(self, self.desk.down(file, instance, force=asked.get("force", False), gather=asked.get("collect", True)))


async def begun(handler: Handler, beginning: Coroutine[Any, Any, Any]) -> None:
    """Answer with the task that was begun or joined, or with the plan where it is another now."""
    from .tasks import PlanChanged

    try:
        task = await handler.work(beginning)
    except PlanChanged as error:
        handler.answer(_changed(error), 409)
        return
    handler.answer(task.to_json(), 202)


def _changed(error: PlanChanged) -> dict[str, Any]:
    return {"message": "the plan is another now: look at it, and agree to it", "kind": "PlanChanged", "plan": error.plan}


class Tasks(Handler):
    """The tasks of an environment."""

    auth_resource = ENVIRONMENTS

    @operation(
        Operation(
            "The tasks of an environment, those that have ended too",
            query=ENVIRONMENT_QUERY,
            gives={200: shape("", {"tasks": of(ref("Task"))})},
        )
    )
    async def get(self) -> None:
        """List them."""
        file = self.experiment_file(self.query["path"])
        self.answer({"tasks": self.desk.tasks.of(file, self.query["instance"])})


class Task(Handler):
    """One task."""

    auth_resource = ENVIRONMENTS

    @operation(Operation("Stop a task; `up` finishes what it leaves", gives={200: ref("Task")}))
    async def delete(self, task: str) -> None:
        """Stop it, and return when it has let go."""
        found = self.desk.tasks.get(task)
        await self.work(self.desk.tasks.cancel(found))
        self.answer(found.to_json())


class Retry(Handler):
    """One that failed."""

    auth_resource = ENVIRONMENTS

    @operation(
        Operation(
            "Do again what failed or was stopped, as far as it removes nothing that was not agreed to",
            gives={202: ref("Task"), 409: ref("Changed")},
        )
    )
    async def post(self, task: str) -> None:
        """Begin anew."""
        await begun(self, self.desk.tasks.retry(self.desk.tasks.get(task)))


class Links(Handler):
    """What links do."""

    auth_resource = "wardian:links"

    @operation(
        Operation(
            "Change what links do, in place, until the next `up`",
            body=shape(
                "link: a name (wan, client[0]/west, all/*). way: one direction; both unless given. changes: parts of a shape as in the "
                "experiment file, or null to have a part no more.",
                {
                    **_WHICH,
                    "link": _NAME,
                    "changes": {
                        "type": "object",
                        "minProperties": 1,
                        "additionalProperties": False,
                        "properties": {
                            part: {"type": ["string", "number", "object", "null"], "maxLength": 200}
                            for part in (
                                *("delay", "jitter", "distribution", "loss", "loss_burst", "duplicate", "reorder", "rate", "queue"),
                                "mtu",
                            )
                        },
                    },
                },
                {**_INSTANCE, "way": {"enum": ["there", "back", "up", "down"]}},
                additionalProperties=False,
            ),
            gives={200: ref("Plan")},
        )
    )
    async def post(self) -> None:
        """Do it now."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        self.answer(await self.work(self.desk.set_link(file, instance, asked["link"], asked.get("way"), asked["changes"])))


class Faults(Handler):
    """What is inflicted on an environment."""

    auth_resource = "wardian:faults"

    @operation(
        Operation(
            "Inflict a fault",
            body=shape(
                "targets: selectors of nodes (for a partition each is a side), or a link to flap. for: how long; else until it is undone. "
                "cpu: what a slowed node keeps; every, down: of a link that flaps.",
                {
                    **_WHICH,
                    "kind": {"enum": ["partition", "pause", "slow", "flap", "kill"]},
                    "targets": each(_NAME, minItems=1, maxItems=50),
                },
                {
                    **_INSTANCE,
                    "for": _DURATION,
                    "cpu": {**_DURATION, "description": 'such as "20%"'},
                    "every": _DURATION,
                    "down": _DURATION,
                },
                additionalProperties=False,
            ),
            gives={200: shape("", {"nodes": each(TEXT)}, {"id": TEXT, "fault": ref("Fault")})},
        )
    )
    async def post(self) -> None:
        """Do it now."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        self.answer(await self.work(self.desk.inflict(file, instance, asked)))

    @operation(
        Operation(
            "Undo a fault, or all",
            query={**ENVIRONMENT_QUERY, "id": query(TEXT, "the fault; all without one", maxLength=40, **{"x-optional": True})},
            gives={200: shape("", {"undone": of(ref("Fault"))})},
        )
    )
    async def delete(self) -> None:
        """Do it now."""
        file = self.experiment_file(self.query["path"])
        self.answer({"undone": await self.work(self.desk.undo(file, self.query["instance"], self.query["id"]))})


class Lease(Handler):
    """How long an environment is held."""

    auth_resource = ENVIRONMENTS

    @operation(
        Operation(
            "Hold an environment for longer",
            body=shape("extend: what is added.", {**_WHICH, "extend": _DURATION}, _INSTANCE, additionalProperties=False),
            gives={200: shape("", {"end": MOMENT})},
        )
    )
    async def post(self) -> None:
        """Do it now."""
        asked = self.body
        file, instance = self.experiment_file(asked["path"]), asked.get("instance", "default")
        self.answer({"end": await self.work(self.desk.extend(file, instance, asked["extend"]))})


ROUTES = [
    Route("environment/up", Up),
    Route("environment/down", Down),
    Route("environment/tasks", Tasks),
    Route("tasks/{task}", Task, TASK_PART),
    Route("tasks/{task}/retry", Retry, TASK_PART),
    Route("environment/links", Links),
    Route("environment/faults", Faults),
    Route("environment/lease", Lease),
]
