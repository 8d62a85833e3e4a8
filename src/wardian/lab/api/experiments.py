"""Experiment files: which there are, what is wrong with a text, templates, and topologies of other tools."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from tornado import web

from .handler import EXPERIMENT, Handler
from .operation import TEXT, TRUTH, Operation, Route, each, operation, query, ref, shape
from .shapes import PARAMETERS, PATH

RESOURCE = "wardian:experiments"

MOST_FOLDERS, DEEPEST = 5_000, 8
"""How much of the root is walked for experiments."""

_SKIPPED = {"node_modules", "__pycache__", "site-packages"}

LARGEST_TEXT = 4 * 2**20
"""Of an experiment file, bytes."""

_FOUND = shape(
    "Experiment files below a folder; `complete` is false when the folder has too much in it to look at all.",
    {
        "experiments": each(shape("", {"path": TEXT, "name": TEXT, "instances": each(TEXT, description="those that are up")})),
        "complete": TRUTH,
    },
)

_CHECKED = shape(
    "What is wrong with an experiment file, in its order.", {"problems": each(ref("Problem"))}, {"experiment": ref("Experiment")}
)

_WRITTEN = shape("What was written.", {"path": TEXT, "written": each(TEXT)}, {"report": {"type": "object"}})

_REPORT = shape(
    "An experiment made from another tool's topology, and what is otherwise in it.", {"text": TEXT, "report": {"type": "object"}}
)

_KIND = {
    "type": "string",
    "enum": ["containerlab", "kathara", "compose", "mininet"],
    "description": "what the file is, where it does not show",
}

_IMPORT = {
    "source": {**PATH, "description": "the topology: a file, or a folder with one, below the server's root"},
}


class Experiments(Handler):
    """The experiment files of a folder."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "The experiment files below a folder",
            query={"path": {**PATH, "minLength": 0, "default": "", "description": "the folder, below the server's root"}},
            gives={200: _FOUND},
        )
    )
    async def get(self) -> None:
        """Find them."""
        top = self.place(self.query["path"])
        if not top.is_dir():
            raise web.HTTPError(404, f"{self.query['path']!r} is no folder")
        hidden = bool(self.settings["contents_manager"].allow_hidden)
        (found, complete), records = await asyncio.gather(asyncio.to_thread(_find, top, self.root, hidden), self.work(self.desk.records()))
        self.answer(
            {
                "experiments": [
                    {
                        "path": self.relative(file),
                        "name": await asyncio.to_thread(_name, file),
                        "instances": sorted(record.instance for record in records if record.file == str(file)),
                    }
                    for file in found
                ],
                "complete": complete,
            }
        )

    @operation(
        Operation(
            "Write a new experiment into a folder, from a template or from another tool's topology",
            body=shape(
                "Where, and from what: `template` or `source`.",
                {"folder": {**PATH, "minLength": 0, "description": "the folder, made where it is missing"}},
                {
                    "template": {"type": "string", "maxLength": 100},
                    "name": {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"},
                    **_IMPORT,
                    "kind": _KIND,
                    "provider": {"type": "string", "maxLength": 100},
                    "overwrite": TRUTH,
                },
                additionalProperties=False,
                oneOf=[{"required": ["template"]}, {"required": ["source"]}],
            ),
            gives={201: _WRITTEN, 409: ref("Error")},
        )
    )
    async def post(self) -> None:
        """Write it."""
        asked = self.body
        folder = self.place(asked["folder"])
        # a link in its place may lead anywhere
        self.place(f"{asked['folder']}/{EXPERIMENT}")
        source = self.place(asked["source"]) if "source" in asked else None
        made = await asyncio.to_thread(_write, folder, source, asked)
        self.answer({**made, "path": self.relative(folder / EXPERIMENT), "written": [self.relative(path) for path in made["written"]]}, 201)


class Import(Handler):
    """What a topology of another tool would become."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "The experiment that another tool's topology describes; nothing is written, and nothing of it is run",
            query={
                **_IMPORT,
                "kind": {**_KIND, "x-optional": True},
                "provider": query(TEXT, "what shall grow it", **{"x-optional": True}),
            },
            gives={200: _REPORT},
        )
    )
    async def get(self) -> None:
        """Read it."""
        source = self.place(self.query["source"])
        self.answer(await asyncio.to_thread(_imported, source, self.query["kind"], self.query["provider"]))


class Validation(Handler):
    """The text of an editor."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "What is wrong with the text of an experiment file",
            body=shape(
                "The text as it stands in the editor.",
                {"text": TEXT},
                {"path": {**PATH, "description": "what the file is called in problems"}, "parameters": PARAMETERS},
                additionalProperties=False,
            ),
            gives={200: _CHECKED},
            limit=2 * LARGEST_TEXT,
        ),
        action="read",
    )
    async def post(self) -> None:
        """Check it."""
        name = self.body.get("path", EXPERIMENT)
        self.answer(await asyncio.to_thread(_checked, self.body["text"], name, self.body.get("parameters", {})))


class Schema(Handler):
    """What an editor completes from."""

    auth_resource = RESOURCE

    @operation(Operation("The JSON Schema of the experiment file, for completion and marks in editors", gives={200: {"type": "object"}}))
    async def get(self) -> None:
        """Make it, with the settings of the providers that are here."""
        self.answer(await asyncio.to_thread(_schema))


class Templates(Handler):
    """What `wardian init` can begin with."""

    auth_resource = RESOURCE

    @operation(
        Operation(
            "The templates of `wardian init`, simplest first",
            gives={200: each(shape("", {"name": TEXT, "summary": TEXT, "text": TEXT}))},
        )
    )
    async def get(self) -> None:
        """Read them."""
        self.answer(await asyncio.to_thread(_templates))


ROUTES = [
    Route("experiments", Experiments),
    Route("experiments/import", Import),
    Route("experiments/validate", Validation),
    Route("experiments/schema", Schema),
    Route("experiments/templates", Templates),
]


def _find(top: Path, root: Path, hidden: bool) -> tuple[list[Path], bool]:
    """The experiment files below a folder that is below the root, and whether that is all."""
    found: list[Path] = []
    complete = True
    for count, (folder, folders, names) in enumerate(os.walk(top)):
        if count == MOST_FOLDERS:
            return sorted(found), False
        if EXPERIMENT in names:
            file = (Path(folder) / EXPERIMENT).resolve()
            if file.is_relative_to(root):
                found.append(file)
        kept = [name for name in folders if name not in _SKIPPED and (hidden or not name.startswith(".")) and name != ".wardian"]
        if len(Path(folder).relative_to(top).parts) >= DEEPEST:
            complete, kept = complete and not kept, []
        folders[:] = sorted(kept)
    return sorted(set(found)), complete


def _name(file: Path) -> str:
    """What a file calls its experiment; that of its folder where it cannot be told."""
    from ...environment import sources
    from ...errors import ExperimentFileError

    try:
        return sources.load(file).name
    except ExperimentFileError:
        return file.parent.name


def _checked(text: str, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    from ...environment.view import experiment_json, problem_json
    from ...errors import ExperimentFileError
    from ...experiment import file
    from ...providers import registry

    try:
        experiment = file.loads(text, name, parameters, registry.settings_models())
    except ExperimentFileError as error:
        return {"problems": [problem_json(problem) for problem in error.problems]}
    return {"problems": [], "experiment": experiment_json(experiment)}


def _schema() -> dict[str, Any]:
    from ...experiment.schema import schema
    from ...providers import registry

    return schema(registry.settings_models())


def _templates() -> list[dict[str, str]]:
    from ...experiment import templates

    texts = {name: templates.read(name) for name in templates.ORDER}
    comments = {name: [line[1:].strip() for line in text.splitlines() if line.startswith("#")] for name, text in texts.items()}
    return [{"name": name, "summary": (comments[name] or [name])[0], "text": text} for name, text in texts.items()]


def _imported(source: Path, kind: str | None, provider: str | None) -> dict[str, Any]:
    from ...environment import importing

    imported = importing.import_path(source, kind=kind, provider=provider)
    return {"text": imported.text, "report": imported.report.to_json()}


def _write(folder: Path, source: Path | None, asked: dict[str, Any]) -> dict[str, Any]:
    from ...environment import importing
    from ...experiment import templates
    from ...experiment.fields import NAME

    path = folder / EXPERIMENT
    if path.exists() and not asked.get("overwrite"):
        raise web.HTTPError(409, f"{EXPERIMENT} is there already")
    try:
        if source is None:
            name = asked.get("name") or (folder.name if NAME.fullmatch(folder.name) else None)
            return {"written": templates.write(asked["template"], folder, name)}
        imported = importing.import_path(source, folder, kind=asked.get("kind"), provider=asked.get("provider"), name=asked.get("name"))
        there = importing.in_the_way(imported, source, folder)
        if there and not asked.get("overwrite"):
            raise web.HTTPError(409, f"{there[0].name} is there already, and is another")
        return {"written": importing.write(imported, source, folder), "report": imported.report.to_json()}
    except OSError as error:
        raise web.HTTPError(422, f"the experiment cannot be written: {error.strerror or error}") from error
