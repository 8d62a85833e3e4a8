"""What scripts rely on: exit codes, JSON, options, help, completion."""

from __future__ import annotations

import json
import os
import re
import signal

import jsonschema
import pytest
import yaml

from wardian.cli.app import COMMANDS
from wardian.experiment import templates

from ..stage import Stage
from .conftest import TEXT

pytestmark = pytest.mark.root

SMALL = "name: NAME\nnodes: [one]\n"


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(stage: Stage, command: str) -> None:
    """The help of each command says what it does and shows how it is called."""
    text = stage.run(command, "--help").stdout
    examples = [line.strip() for line in text.splitlines()[1:] if line.strip().startswith(f"wardian {command}")]
    assert examples, text
    assert text.index("Options:") > text.index(examples[0])


def test_help_lists_all_commands_and_exit_codes(stage: Stage) -> None:
    """`wardian --help` names every command, says every exit code, and how completion is had."""
    text = stage.run("--help").stdout
    listed = [line.split()[0] for line in text[text.index("Commands:") : text.index("Exit codes")].splitlines()[1:] if line.strip()]
    assert listed == list(COMMANDS)
    codes = text[text.index("Exit codes") :]
    assert re.findall(r"\b(\d+) [a-z]", codes) == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "130"]
    assert "_WARDIAN_COMPLETE=bash_source" in codes


def test_wrong_command_suggests_the_near_one(stage: Stage) -> None:
    """A mistyped command is wrong usage, and the one that was meant is named."""
    said = stage.error("satus", code=2)
    assert "'satus'" in said
    assert "Did you mean 'status'?" in said


def test_plan_exit_codes(stage: Stage) -> None:
    """`plan --exit-code` gives 2 for changes, 0 for nothing to do, 1 for an error; without it, the error's own."""
    stage.write(SMALL)
    assert stage.run("plan", "--exit-code", code=2).stdout.startswith("+ environment")
    stage.run("plan", code=0)
    stage.run("up")
    assert "Nothing to do" in stage.run("plan", "--exit-code", code=0).stdout
    stage.edit("nodes: [one]", "nodes: [one, two]")
    assert re.search(r"^\+ node +two", stage.run("plan", "--exit-code", code=2).stdout, re.M)
    stage.edit("nodes:", "notes:")
    stage.error("plan", "--exit-code", code=1)
    stage.error("plan", code=3)


def test_plan_json(stage: Stage) -> None:
    """`plan --json` is the whole plan: what is done to which targets, why, and what cannot be honoured."""
    stage.write(TEXT)
    plan = stage.json("plan", "--json", "-p", "clients=3")
    nodes = next(item for item in plan["operations"] if item["kind"] == "node")
    assert nodes["action"] == "create"
    assert nodes["reason"]
    assert [target["name"] if isinstance(target, dict) else target for target in nodes["targets"]] == [
        "server",
        "client[0]",
        "client[1]",
        "client[2]",
    ]
    assert isinstance(plan["caveats"], list)


def test_up_without_a_terminal(stage: Stage) -> None:
    """Without a terminal `up` prints the plan and one line for the begin and end of each operation, and no control characters."""
    stage.write(SMALL)
    done = stage.run("up")
    said = lines(done.stderr)
    assert "started  create node (1)" in said
    assert "done     create node (1)" in said
    assert all(re.fullmatch(r"(started|done) +create [a-z]+ \(\d+\)", line) for line in said)
    assert "\x1b" not in done.stderr + done.stdout
    assert lines(done.stdout)[-1].startswith("up in ")
    again = stage.run("up")
    assert "Nothing to do" in again.stdout
    assert not again.stderr


def test_colours_only_where_wanted(stage: Stage) -> None:
    """Output to a file has no colours, with NO_COLOR or without."""
    stage.write(SMALL)
    for value in ("1", ""):
        assert "\x1b" not in stage.run("plan", env={"NO_COLOR": value}).stdout


def test_up_json(stage: Stage) -> None:
    """`up --json` prints the plan that was carried out and nothing else, also when there is nothing to do."""
    stage.write(SMALL)
    assert {item["kind"] for item in stage.json("up", "--json")["operations"]} >= {"environment", "node"}
    assert stage.json("up", "--json")["operations"] == []


def test_down_json_and_again(stage: Stage) -> None:
    """`down` collects what the file names and says where; a second `down` has nothing to do and is no error."""
    stage.write(SMALL + "collect: [/root/out.txt]\n")
    stage.run("up")
    stage.run("exec", "one", "--", "sh", "-c", "echo result > /root/out.txt")
    said = stage.json("down", "--json")
    assert said["existed"] is True
    assert (stage.folder / ".wardian" / "collected").is_dir()
    (file,) = (path for path in (stage.folder / ".wardian" / "collected").rglob("*") if path.is_file())
    assert file.read_text() == "result\n"
    assert said["folder"] in str(file)
    stage.assert_nothing_left()
    assert stage.json("down", "--json") == {"existed": False, "collected": [], "folder": None}
    assert "not up" in stage.run("down").stdout


def test_down_by_identity_from_elsewhere(stage: Stage, tmp_path) -> None:
    """`down ID` works from any folder, and when the experiment file is gone."""
    path = stage.write(SMALL)
    stage.run("up")
    identity = stage.json("ls", "--json")[0]["id"]
    path.unlink()
    stage.run("down", identity, cwd=tmp_path)
    stage.assert_nothing_left()
    said = stage.error("down", identity, code=4, cwd=tmp_path)
    assert identity in said


def test_down_when_the_file_is_gone(stage: Stage) -> None:
    """An environment whose file was removed is torn down by naming that file."""
    path = stage.write(SMALL)
    stage.run("up")
    path.unlink()
    stage.run("down", "-f", str(path))
    stage.assert_nothing_left()


def test_instances_side_by_side(stage: Stage) -> None:
    """-e keeps environments of one file apart: each has nodes of its own, and `down` of one leaves the other."""
    stage.write(SMALL)
    stage.run("up")
    stage.run("up", "-e", "second")
    records = {record["instance"]: record["id"] for record in stage.json("ls", "--json")}
    assert set(records) == {"default", "second"}
    assert stage.pid("one", records["default"]) != stage.pid("one", records["second"])
    stage.run("exec", "-e", "second", "one", "--", "touch", "/root/here")
    stage.run("exec", "one", "--", "test", "-e", "/root/here", code=1)
    stage.run("exec", "one", "--", "test", "-e", "/root/here", code=0, env={"WARDIAN_INSTANCE": "second"})
    stage.run("down")
    assert stage.environments() == [records["second"]]
    stage.run("exec", "-e", "second", "one", "true")
    stage.run("status", code=4)
    stage.run("down", "-e", "second")
    stage.assert_nothing_left()


def test_file_option_and_folders_above(stage: Stage, tmp_path) -> None:
    """-f names the file or its folder; without it the experiment.yaml here or above is meant, or that of $WARDIAN_EXPERIMENT."""
    path = stage.write(SMALL, "study/experiment.yaml")
    inner = stage.folder / "study" / "deep"
    inner.mkdir()
    stage.error("plan", code=4)
    for how in ({"cwd": inner}, {"cwd": tmp_path, "env": {"WARDIAN_EXPERIMENT": str(path)}}):
        assert "+ node" in stage.run("plan", **how).stdout
    for named in (path, path.parent):
        assert "+ node" in stage.run("plan", "-f", str(named)).stdout


def test_parameters(stage: Stage) -> None:
    """-p sets a parameter; one that is no NAME=VALUE is wrong usage, an unknown one or a wrong value a wrong file."""
    stage.write(TEXT)
    assert "client[0:5]" in stage.run("plan", "-p", "clients=5").stdout
    assert "NAME=VALUE" in stage.error("plan", "-p", "clients", code=2)
    assert "did you mean 'clients'" in stage.error("plan", "-p", "client=5", code=3)
    assert "an integer" in stage.error("plan", "-p", "clients=many", code=3)


def test_status(grown: Stage) -> None:
    """`status` shows nodes with addresses, services and links with their shapes; --json has all of it."""
    text = grown.run("status").stdout
    assert re.search(r"^server +ready +10\.\S+ +origin +web$", text, re.M), text
    assert re.search(r"^wan +ready +east - west +delay 5ms, rate 50mbit, queue 100", text, re.M), text
    state = grown.json("status", "--json")
    assert state["id"] == grown.identity()
    assert state["name"] == grown.name
    assert state["lease_end"] is None
    kinds = {(item["kind"], item["name"]): item["state"] for item in state["resources"]}
    assert kinds["node", "client[1]"] == kinds["link", "wan"] == kinds["service", "web@server"] == "ready"


def test_ls(grown: Stage) -> None:
    """`ls` lists the environment with its file; --json has what is needed to find it."""
    assert grown.identity() in grown.run("ls").stdout
    (record,) = grown.json("ls", "--json")
    assert record["file"] == str(grown.folder / "experiment.yaml")
    assert (record["instance"], record["provider"]) == ("default", "local")


def test_exec_prefixes_lines_by_node(grown: Stage) -> None:
    """Output of several nodes is headed by the node, line by line; that of one node is as it is."""
    many = grown.run("exec", "client", "--", "sh", "-c", "echo a; hostname; echo e >&2")
    assert sorted(many.stdout.splitlines()) == sorted(
        f"client[{number}] │ {text}" for number in (0, 1) for text in ("a", f"client-{number}")
    )
    assert sorted(many.stderr.splitlines()) == ["client[0] │ e", "client[1] │ e"]
    assert grown.run("exec", "server", "hostname").stdout == "server\n"


def test_exec_gives_the_commands_code(grown: Stage) -> None:
    """`exec` exits with the command's code, the largest where nodes differ, 124 for a timeout, 127 for what cannot be started."""
    grown.run("exec", "server", "--", "sh", "-c", "exit 42", code=42)
    grown.run("exec", "client", "--", "sh", "-c", '[ "$(hostname)" = client-0 ] && exit 3; exit 5', code=5)
    grown.run("exec", "--timeout", "0.3", "server", "sleep", "30", code=124)
    said = grown.error("exec", "server", "no-such-program", code=127)
    assert "no-such-program" in said
    assert len(said.splitlines()) == 1


def test_exec_json(grown: Stage) -> None:
    """`exec --json` gives one record a node, with argv, exit code, both outputs and times."""
    records = grown.json("exec", "--json", "client", "--", "sh", "-c", "hostname; echo e >&2; exit 4", code=4)
    assert [record["node"] for record in records] == ["client[0]", "client[1]"]
    for number, record in enumerate(records):
        assert record["argv"] == ["sh", "-c", "hostname; echo e >&2; exit 4"]
        assert (record["exit_code"], record["stdout"], record["stderr"]) == (4, f"client-{number}\n", "e\n")
        assert record["seconds"] > 0
        assert record["started"] > 1e9


def test_exec_options(grown: Stage) -> None:
    """Working directory, variables and standard input reach the command; options after the selector are the command's own."""
    assert grown.run("exec", "-w", "/usr", "server", "pwd").stdout == "/usr\n"
    assert grown.run("exec", "--env", "A=b=c", "server", "--", "sh", "-c", "echo $A").stdout == "b=c\n"
    assert grown.run("exec", "-i", "server", "wc", "-c", stdin=None, input="12345").stdout == "5\n"
    assert grown.run("exec", "server", "wc", "-c").stdout == "0\n"
    assert grown.run("exec", "server", "echo", "--json", "-f", "x").stdout == "--json -f x\n"


@pytest.mark.parametrize(
    ("selector", "words"),
    [("nobody", "server"), ("client[7]", "client[7]"), ("client[", "client["), ("sever", "did you mean 'server'")],
)
def test_unknown_selector(grown: Stage, selector: str, words: str) -> None:
    """A selector that names nothing is an error with what exists, never an empty success."""
    assert words.lower() in grown.error("exec", selector, "true", code=3).lower()


def test_completion_of_selectors(grown: Stage) -> None:
    """Tab completion offers commands, and the names of nodes, groups and roles of the environment that is up."""

    def offered(words: str) -> list[str]:
        count = len(words.split(" ")) - 1
        env = {"_WARDIAN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        return [line.partition(",")[2] for line in grown.run(env=env).stdout.splitlines()]

    assert offered("wardian sta") == ["status"]
    assert offered("wardian exec cl") == ["client", "client[0]", "client[1]"]
    assert offered("wardian exec or") == ["origin"]
    assert offered("wardian shell se") == ["server"]
    assert offered("wardian cp se") == ["se", "server:"]  # the first stands for the files here


def test_completion_is_quiet_where_nothing_is_up(stage: Stage) -> None:
    """Completion of a selector offers nothing and says nothing without an environment."""
    env = {"_WARDIAN_COMPLETE": "bash_complete", "COMP_WORDS": "wardian exec cl", "COMP_CWORD": "2"}
    done = stage.run(env=env)
    assert done.stdout.strip() == done.stderr == ""


def test_copy_both_ways(grown: Stage) -> None:
    """`cp` brings a file to several nodes and back into a folder for each, and a folder with its modes there and back."""
    (grown.folder / "data.bin").write_bytes(os.urandom(3_000_000))
    tree = grown.folder / "tree" / "inner"
    tree.mkdir(parents=True)
    (tree / "tool.sh").write_text("#!/bin/sh\necho works\n")
    (tree / "tool.sh").chmod(0o755)
    grown.run("cp", "data.bin", "client:/root/data.bin")
    sent = grown.json("cp", "--json", "tree", "server:/root/")
    assert [(item["node"], item["files"]) for item in sent] == [("server", 1)]
    assert grown.run("exec", "server", "/root/tree/inner/tool.sh").stdout == "works\n"
    said = grown.run("cp", "client:/root/data.bin", "back").stdout
    assert said.splitlines() == ["client[0]: 1 file, 3000000 bytes", "client[1]: 1 file, 3000000 bytes"]
    for node in ("client[0]", "client[1]"):
        assert (grown.folder / "back" / node / "data.bin").read_bytes() == (grown.folder / "data.bin").read_bytes()
    grown.run("cp", "server:/root/tree", "copy")
    (tool,) = (grown.folder / "copy").rglob("tool.sh")
    assert os.access(tool, os.X_OK)


def test_copy_errors(grown: Stage) -> None:
    """`cp` without a node, of what does not exist, here or there, is one clear error, and the target is not made."""
    assert "NODE:PATH" in grown.error("cp", "a", "b", code=2)
    assert "nothing-here" in grown.error("cp", "nothing-here", "server:/root/", code=7)
    assert "/nothing" in grown.error("cp", "server:/nothing", "got", code=7)
    assert not (grown.folder / "got").exists()


def test_log(grown: Stage) -> None:
    """`log` shows operations with their outcome, oldest first; --json, --kind and -n do what they say."""
    text = grown.run("log", "-n", "500").stdout
    assert re.search(r"operation +ok +create node server, client\[0\], client\[1\]", text), text
    entries = grown.json("log", "--json", "--kind", "operation", "-n", "500")
    assert {entry["kind"] for entry in entries} == {"operation"}
    assert [entry["started"] for entry in entries] == sorted(entry["started"] for entry in entries)
    assert len(grown.json("log", "--json", "-n", "2")) == 2
    assert grown.json("log", "--json", "-n", "500", "--kind", "cell") == []


def test_schema(stage: Stage) -> None:
    """`schema` prints a valid JSON Schema, which takes a template and refuses a misspelt field and a wrong provider setting."""
    schema = stage.json("schema")
    validator = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    validator(schema).validate(yaml.safe_load(templates.read("single", "study")))
    for wrong in ({"nodes": {"one": {"cont": 3}}}, {"nodes": {"one": {}}, "settings": {"stat": "/x"}}):
        with pytest.raises(jsonschema.ValidationError):
            validator(schema).validate({"name": "x"} | wrong)


def test_doctor(stage: Stage) -> None:
    """`doctor` tries things for real: every finding has a state and words; it exits 1 only when something is missing."""
    done = stage.run("doctor", "--json", code=0)
    (findings,) = [found for name, found in json.loads(done.stdout).items() if name == "local"]
    assert len(findings) >= 3
    assert {item["state"] for item in findings} <= {"ok", "limited"}
    assert all(item["what"] and item["detail"] for item in findings)
    text = stage.run("doctor").stdout
    assert all(item["what"] in text for item in findings)


def test_init_and_again(stage: Stage) -> None:
    """`init` writes a file that can be planned, keeps one that is there, and says so."""
    stage.run("init", "-t", "single", "study")
    assert "+ node" in stage.run("plan", "-f", "study").stdout
    (stage.folder / "study" / "experiment.yaml").write_text("mine")
    assert "--force" in stage.error("init", "study", code=1)
    assert (stage.folder / "study" / "experiment.yaml").read_text() == "mine"
    stage.run("init", "--force", "study")
    assert "nodes:" in (stage.folder / "study" / "experiment.yaml").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("template", templates.ORDER)
def test_templates_go_up_and_down(stage: Stage, template: str) -> None:
    """Every template grows, has nothing left to do, runs a command everywhere, and goes away whole."""
    stage.run("init", "-t", template)
    stage.run("up")
    stage.run("plan", "--exit-code", code=0)
    assert {item["state"] for item in stage.json("status", "--json")["resources"]} == {"ready"}
    stage.run("exec", "all", "true")
    stage.run("down")
    stage.assert_nothing_left()


def test_gc(stage: Stage) -> None:
    """`gc` leaves what is up alone, and removes an environment whose processes all died."""
    stage.write(SMALL)
    stage.run("up")
    identity = stage.identity()
    # other tests at the same time may leave something to collect
    assert not any(identity in line for line in stage.json("gc", "--json"))
    stage.run("exec", "one", "true")
    for pid in stage.processes():
        os.kill(pid, signal.SIGKILL)
    assert any(identity in line for line in stage.json("gc", "--json"))
    stage.assert_nothing_left()
