"""The REST interface against those who may not, must not, and cannot: every route, as it describes itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import websocket
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.stage import make_stage
from wardian.lab import api

from .rest import BASE, Rest

pytestmark = pytest.mark.root

OPERATIONS = [(method, route.path) for route in api.ROUTES for method in route.operations()]
"""Every method of every route."""

CHANGING = [(method, path) for method, path in OPERATIONS if method != "get"]


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A Jupyter server beside an experiment that is up, and files that are none of its business."""
    stage = make_stage(tmp_path_factory.mktemp("safety"))
    stage.write("name: NAME\nnetworks: [net]\nnodes: {one: {networks: [net]}}\nlease: {duration: 2h, at_end: keep}\n")
    stage.run("up")
    outside = stage.folder.parent / "outside"
    outside.mkdir()
    (outside / "experiment.yaml").write_text("name: secret\nnodes: [one]\n")
    (stage.folder / "link").symlink_to(outside)
    rest = Rest(stage)
    yield rest
    rest.close()
    stage.close()


def url(rest: Rest, path: str) -> str:
    """A route's address, with something in the place of its parts."""
    return f"{rest.url}/{re.sub('{.*?}', 'x', path)}"


def test_no_handler_is_without_operations() -> None:
    """Every handler but that of the websocket declares what it does, and so is checked by all of these tests."""
    assert [route.path for route in api.ROUTES if not route.operations()] == ["events"]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_who_is_not_known_is_refused(rest: Rest, method: str, path: str) -> None:
    """Without a token, and with a wrong one, each method of each route is refused."""
    for headers in ({}, {"Authorization": "token wrong"}):
        answer = requests.request(method, url(rest, path), headers=headers, allow_redirects=False, timeout=60)
        assert answer.status_code == 403, answer.text


@pytest.mark.parametrize(("method", "path"), CHANGING)
def test_a_login_alone_changes_nothing(rest: Rest, method: str, path: str) -> None:
    """A browser that is logged in, on another site's behalf and so without the XSRF token, is refused."""
    browser = requests.Session()
    browser.get(rest.url.replace("wardian/api", "api/status"), params={"token": rest.token}, timeout=60)
    assert browser.cookies
    answer = browser.request(method, url(rest, path), json={}, timeout=60)
    assert answer.status_code == 403
    assert "_xsrf" in answer.text


@pytest.mark.parametrize("path", ["../outside", "link", "link/experiment.yaml", "a/../../outside", ".wardian"])
def test_no_path_leads_out(rest: Rest, path: str) -> None:
    """What is outside of the server's folder, by dots or by a link, or hidden, is not there for any route."""
    for route in ("environment", "environment/topology", "experiments"):
        answer = rest.session.get(f"{rest.url}/{route}", params={"path": path}, timeout=60)
        assert answer.status_code == 404, answer.text
    for body in ({"folder": path, "template": "single", "overwrite": True}, {"folder": "new", "source": path}):
        answer = rest.session.post(f"{rest.url}/experiments", json=body, timeout=60)
        assert answer.status_code == 404, answer.text
    assert (rest.root.parent / "outside" / "experiment.yaml").read_text().startswith("name: secret")


@pytest.mark.parametrize("path", ["/etc", "~", "%2e%2e"])
def test_a_path_starts_at_the_root(rest: Rest, path: str) -> None:
    """What means another place to a shell is a name below the server's folder."""
    made = rest.post("experiments", code=201, folder=path, template="single")
    assert made["path"] == f"{path.strip('/')}/experiment.yaml"
    assert (rest.root / made["path"]).is_file()


def test_environments_outside_are_not_shown(rest: Rest) -> None:
    """An environment whose experiment is not below the server's folder is in no list."""
    outside = str(rest.stage.folder.parent / "outside" / "experiment.yaml")
    rest.stage.run("up", "-f", outside)
    assert [record["path"] for record in rest.ask("GET", "environments")["environments"]] == ["experiment.yaml"]
    rest.stage.run("down", "-f", outside)


def test_bodies_are_bounded(rest: Rest) -> None:
    """A body that is too large is refused by what it says of itself, and where it says nothing, once it is too much."""
    answer = rest.session.post(f"{rest.url}/environment/plan", data=b"x" * (1 << 20) + b"x", timeout=60)
    assert answer.status_code == 413
    pieces = (b"x" * 65536 for _ in range(64))
    # it may close before all is sent, which is seen as a broken connection
    with suppress(requests.ConnectionError):
        assert rest.session.post(f"{rest.url}/environment/plan", data=pieces, timeout=60).status_code == 413
    rest.ask("GET", "environments")


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"[]", b'{"path": 1}', b'{"path": "x", "more": 1}', b'{"path": "\\ud800"}', b"[" * 100_000]
)
def test_bodies_that_are_none(rest: Rest, body: bytes) -> None:
    """What is no JSON, or not what is described, is refused with its place."""
    answer = rest.session.post(f"{rest.url}/environment/plan", data=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(("body", "the body"))


def test_the_websocket_knows_its_visitors(rest: Rest) -> None:
    """The websocket is refused without a token, from another site's page, and for what is not there."""
    address = f"{rest.url.replace('http', 'ws', 1)}/events?path=experiment.yaml"
    known = [f"Authorization: token {rest.token}"]
    browser = requests.Session()
    browser.get(rest.url.replace("wardian/api", "api/status"), params={"token": rest.token}, timeout=60)
    logged_in = ["Cookie: " + "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)]
    for headers, origin, path, status in (
        ([], None, address, 403),
        (logged_in, "http://elsewhere.example", address, 403),
        (known, None, address.replace("experiment.yaml", "../outside"), 404),
        (known, None, f"{address}&number=many", 400),
    ):
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(path, header=headers, origin=origin, suppress_origin=origin is None, timeout=60)
        assert refused.value.status_code == status
    own = rest.url.partition("/user")[0]
    websocket.create_connection(address, header=logged_in, origin=own, timeout=60).close()


def test_the_authoriser_is_asked_for_each_resource(tmp_path: Path) -> None:
    """What a server's authoriser forbids by resource and action is refused: reading is one thing, changing another."""
    config = tmp_path / "jupyter_server_config.py"
    config.write_text(
        "from jupyter_server.auth import Authorizer\n"
        "class Readers(Authorizer):\n"
        "    def is_authorized(self, handler, user, action, resource):\n"
        "        return not resource.startswith('wardian:') or (action == 'read' and resource != 'wardian:files')\n"
        "c.ServerApp.authorizer_class = Readers\n"
    )
    stage = make_stage(tmp_path)
    stage.write("name: NAME\nnodes: [one]\n")
    rest = Rest(stage, f"--config={config}")
    try:
        for route in api.ROUTES:
            for method, declared in route.operations().items():
                forbidden = rest.session.request(method, url(rest, route.path), timeout=60).status_code == 403
                reads = method == "get" or declared.summary.startswith("What")
                reads = reads and not route.path.startswith("environment/file")
                assert forbidden is not reads, (method, route.path)
        assert rest.session.put(f"{rest.url}/environment/file", data=b"x", timeout=60).status_code == 403
    finally:
        rest.close()
        stage.close()


def test_the_document_names_where_it_is_served(rest: Rest) -> None:
    """The document describes every operation, below the server's base URL."""
    document = rest.ask("GET", "openapi.json")
    assert document["servers"] == [{"url": f"{BASE}wardian/api"}]
    described = {(method, path.removeprefix("/")) for path, methods in document["paths"].items() for method in methods}
    assert described == set(OPERATIONS)


def test_the_document_in_the_docs_is_this_one() -> None:
    """The document that the documentation has is what the routes declare."""
    root = Path(__file__).parents[2]
    made = subprocess.run([sys.executable, str(root / "scripts" / "openapi")], capture_output=True, text=True, check=True)
    assert json.loads((root / "docs" / "openapi.json").read_text()) == json.loads(made.stdout)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_requests_made_from_the_document(rest: Rest) -> None:
    """Whatever a request holds, right or wrong, the answer is one that the document describes, and never a failure of the server."""
    schema = schemathesis.openapi.from_dict(rest.ask("GET", "openapi.json"))
    checked: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call(base_url=rest.url, headers={"Authorization": f"token {rest.token}"}, timeout=60)
            # what is described rightly may still mean nothing: an unknown parameter, a link's wrong value (422)
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])
            assert answer.status_code != 400 or case.meta.generation.mode is not GenerationMode.POSITIVE, answer.text
            checked.add(f"{case.operation.method} {case.operation.path}")

        ask()
    assert len(checked) == len(OPERATIONS)
