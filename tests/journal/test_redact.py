"""Secrets are taken out of texts, and what only looks like one stays."""

import json
import threading

import pytest

from wardian.journal import redact
from wardian.journal.redact import REDACTED, Redactor, redact_text, redact_yaml, secrets_in

TOKEN = "ghp_" + "a1B2" * 9


@pytest.mark.parametrize(
    "text",
    [
        'password = "{}"',
        "os.environ['DB_PASSWORD'] = '{}'",
        "{{'DB_PASSWORD': '{}', 'clients': 3}}",
        'connect(token="{}")',
        'api_key: str = "{}"',
        '{{"apiKey": "{}"}}',
        "PATH=/bin\nAWS_SECRET_ACCESS_KEY={}\nHOME=/root",
        "export GITHUB_TOKEN={}; run",
        "PGPASSWORD={0} SMTP_PASS={0} psql",
        "tool --password {} --verbose",
        "tool --api-key={}",
        "https://me:{}@example.org/x",
        "https://example.org/?user=me&access_token={}",
        "Authorization: Bearer {}0123456789",
    ],
)
def test_values_of_secret_names(text):
    """What is given to a secret name goes, in Python, JSON, shells and addresses; the name and all around it stay."""
    redacted = redact_text(text.format("hunter2!x"))
    assert "hunter2" not in redacted
    assert REDACTED in redacted
    assert redact_text(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "the token bucket holds 20 tokens: tokens=20",
        "sorted(rows, key=lambda row: row[0])",
        '{"key": "bitrate", "keyboard": "us"}',
        "password = getpass.getpass()",
        "export TOKEN=$OTHER",
        "PWD=/root\nOLDPWD=/",
        "client -> server: 30.1 ms",
        "pass = 'second'; bypass='yes'; passes = '3'",
        "http://server:8080/video?rate=5",
    ],
)
def test_what_is_no_secret_stays(text):
    """Code that asks for a password, other keys, folders and addresses without one are kept as they are."""
    assert redact_text(text) == text


def test_documents_stay_documents():
    """A JSON document from which something was taken is one still, with everything else in it, however the secret stood in it."""
    redactor = Redactor(["s3cr3t value"])
    for printed in (f"line\n{TOKEN}\nmore", "-----BEGIN RSA PRIVATE KEY-----\nMIIE", repr({"PASSWORD": "hunter2"}), "a s3cr3t value\n"):
        document = {"name": "stdout", "text": f'"{printed}" ', "n": [1, None]}
        text = redactor.json(json.dumps(document))
        again = json.loads(text)
        assert (again["name"], again["n"]) == ("stdout", [1, None])
        for secret in (TOKEN, "MIIE", "hunter2", "s3cr3t"):
            assert secret not in text
        assert REDACTED in again["text"]
    assert redactor.json('{"text": "nothing"}') == '{"text": "nothing"}'


def test_hidden_values():
    """A value that is hidden goes wherever it occurs, also as JSON and addresses write it; one too short to be told from words does not."""
    redactor = Redactor()
    redactor.hide(['pä$$ "word"', "abc"])
    for text in ('x pä$$ "word" y', json.dumps('pä$$ "word"'), "q=p%C3%A4%24%24%20%22word%22"):
        assert "word" not in redactor(text)
    assert redactor("abc") == "abc"
    assert secrets_in({"API_TOKEN": "a token", "PIN_SECRET": "1234", "PATH": "/usr/bin:/bin", "MY_PWD": "mypwd1"}) == {"a token", "mypwd1"}


def test_yaml_documents():
    """Values under secret names go from a YAML document at any depth, in every style; references, switches and comments stay."""
    text = """
name: study   # a comment
parameters: {api_token: "one1", clients: 3}
nodes:
  server:
    env:
      DB_PASSWORD: two2
      SECRET: |
        three3
        four4
      TOKEN: ${api_token}
      AUTH_TOKEN_REQUIRED: true
  secrets: [five5, {a: six6}]
"""
    redacted = redact_yaml(text)
    for secret in ("one1", "two2", "three3", "four4", "five5", "six6"):
        assert secret not in redacted
    for kept in ("# a comment", "clients: 3", "TOKEN: ${api_token}", "AUTH_TOKEN_REQUIRED: true"):
        assert kept in redacted
    import yaml

    assert yaml.safe_load(redacted)["nodes"]["server"]["env"]["SECRET"] == REDACTED
    assert redact_yaml("a: [") == "a: ["


def test_a_secret_told_while_its_text_is_searched(monkeypatch):
    """A text that was searched while a secret in it became known is not taken for clean afterwards."""
    redactor, searching, told = Redactor(), threading.Event(), threading.Event()

    def held(text):
        searching.set()
        assert told.wait(60)
        return text

    with monkeypatch.context() as patched:
        patched.setattr(redact, "redact_text", held)
        thread = threading.Thread(target=redactor, args=("it is planted",))
        thread.start()
        assert searching.wait(60)
        redactor.hide(["planted"])
        told.set()
        thread.join()
    assert redactor("it is planted") == f"it is {REDACTED}"
