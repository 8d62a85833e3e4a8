"""Every error a user can cause or meet, in one tree.

    WardianError
    ├── ExperimentFileError     the experiment file is wrong; carries every Problem found
    ├── SelectorError           a selector is malformed or names nothing
    ├── PlanError               what is asked for cannot be planned
    ├── EnvironmentError_       about a whole environment
    │   ├── NotUpError          there is no environment; `wardian up` makes it
    │   └── BusyError           another command is working on it
    ├── ProviderError           a provider could not do one thing to one resource
    │   └── MissingToolError    the host lacks a program or a kernel feature
    ├── NodeError               about one node
    │   ├── NodeDownError       the node is not running or cannot be reached
    │   ├── CommandError        a command on a node failed
    │   ├── TransferError       a file copy failed
    │   └── AgentError          the agent on the node could not do what was asked
    ├── JournalError            the journal cannot be read or written
    ├── RunError                a notebook run failed
    ├── BundleError             a bundle cannot be made, read or unpacked
    └── LockError               what is here is not what the lock says

The class decides the exit code of the `wardian` command (`exit_code`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in an experiment file: where, what was expected, what came instead."""

    field: str
    message: str
    file: str = ""
    line: int | None = None
    column: int | None = None
    expected: str | None = None
    got: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        where = self.file
        if self.line is not None:
            where += f":{self.line}:{self.column}"
        parts = [f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        text = "; ".join(parts)
        return f"{text} (did you mean {self.suggestion!r}?)" if self.suggestion else text


class WardianError(Exception):
    """Base of all of them.

    message: what went wrong, one sentence.
    remedy: what the user can do about it, one sentence, or None.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # whatever a class takes to be made: as it is, it goes from one process to another
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: type[WardianError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> WardianError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class ExperimentFileError(WardianError):
    """The experiment file is wrong. `problems` holds everything found, in file order."""

    exit_code = 3

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class SelectorError(WardianError):
    """A selector is malformed, or names a node, group or role that does not exist."""

    exit_code = 3


class PlanError(WardianError):
    """The experiment cannot be planned here (overlapping subnets, `--strict` and a caveat, …)."""

    exit_code = 3


class EnvironmentError_(WardianError):
    """Something about a whole environment."""

    exit_code = 4


class NotUpError(EnvironmentError_):
    """There is no environment for this experiment, or the part that is needed is not there."""


class BusyError(EnvironmentError_):
    """Another command holds the environment."""

    exit_code = 5


class ProviderError(WardianError):
    """A provider could not do what it was asked; `resource` says to what ("node client[0]")."""

    exit_code = 6

    def __init__(self, message: str, *, resource: str = "", remedy: str | None = None) -> None:
        super().__init__(f"{resource}: {message}" if resource else message, remedy=remedy)
        self.resource = resource


class MissingToolError(ProviderError):
    """The host lacks a program, a permission or a kernel feature; the remedy names it."""


class NodeError(WardianError):
    """Something about one node, named in `node`."""

    exit_code = 7

    def __init__(self, node: str, message: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{node}: {message}" if node else message, remedy=remedy)
        self.node = node


class NodeDownError(NodeError):
    """The node is not running, or cannot be reached."""


class CommandError(NodeError):
    """A command on a node could not be started, timed out, or (where asked) exited non-zero.

    result: the `nodes.run.Result` with its output until then, or None when it was never started.
    """

    result: object = None


class TransferError(NodeError):
    """A file copy failed; nothing half-written is left under the target's name."""


class AgentError(NodeError):
    """The agent on the node could not be started or refused a request."""


class JournalError(WardianError):
    """The journal cannot be opened, read or written."""

    exit_code = 8


class RunError(WardianError):
    """A notebook run failed: a cell raised, or the notebook cannot be read. run: its id in the journal, once it has one."""

    exit_code = 9
    run: str | None = None


class BundleError(WardianError):
    """A bundle cannot be made, or is refused; of one that is refused nothing is left on the disk."""

    exit_code = 12


class LockError(WardianError):
    """What is here differs from what the lock says, or there is nothing to lock or no lock."""

    exit_code = 13
