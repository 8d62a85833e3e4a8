"""Services of a node that has no Python, and so no agent: a shell there watches over each of them.

A service has a folder on the node, `services/NAME` below `/run/wardian` (or $WARDIAN_RUN_DIR):

    spec    what it was started from, as a digest
    pid     the process that watches over it, and leads its session
    state   ready, starting, restarting, failed or stopped, and the last exit code
    begun, ending   that it has come so far; that it is to be stopped
    log     what it printed; unlike the agent's, it has no bound
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..errors import AgentError, CommandError
from ..providers.base import Channel
from .link import AgentLink, NoPythonError
from .run import Result, run

_LOST = "lost"
_FOLDER = 'd="${WARDIAN_RUN_DIR:-/run/wardian}/services"; '

_STOP = """
stop() {
  read -r p <"$d/$1/pid" || return 0
  : >"$d/$1/ending"
  n=0
  while kill -0 "-$p" && [ $n -lt 40 ]; do
    [ $n = 0 ] && kill -15 "-$p"
    n=$((n + 1)); sleep 0.05 || sleep 1
  done
  kill -9 "-$p"
  rm -f "$d/$1/pid"
  echo "stopped 0" >"$d/$1/state"
} 2>/dev/null
"""

_WATCH = r"""
trap : TERM HUP INT
cd "$1" || exit; name=$2 restart=$3 first=$4 place=$5; shift 5
own=$PWD pause=1
exec 3>>log
echo $$ >pid && : >begun
end() { echo "$1" >"$own/state"; [ -e "$own/ending" ] || rm -f "$own/pid"; exit; }
cd -- "${place:-${HOME:-/}}" 2>&3 || end "failed 127"
while [ ! -e "$own/ending" ]; do
  echo "$first 0" >"$own/state"
  at=$(date +%s)
  ( trap - TERM HUP INT; export WARDIAN_SERVICE="$name"; exec "$@" ) </dev/null >&3 2>&1 3>&- &
  child=$!
  # a signal to this shell ends a `wait`, too
  while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done
  case $restart,$code in
    always,*|on-failure,[1-9]*) ;;
    *,0) end "stopped 0";;
    *) end "failed $code";;
  esac
  [ ! -e "$own/ending" ] || exit
  read -r was x <"$own/state" && [ "$was" != ready ] || first=ready
  echo "restarting $code" >"$own/state"
  [ $(($(date +%s) - at)) -lt 10 ] || pause=1
  sleep $pause
  pause=$((pause < 8 ? pause * 2 : 10))
done
"""

_START = f"""{_FOLDER}{_STOP}
watch=$1 spec=$2; shift 2
umask 077
mkdir -p "$d/$1" || exit
if [ "$(cat "$d/$1/spec" 2>/dev/null)" = "$spec" ] && read -r p <"$d/$1/pid" && kill -0 "$p"; then exit 0; fi 2>/dev/null
stop "$1"
rm -f "$d/$1/log" "$d/$1/ending" "$d/$1/begun"
echo "$spec" >"$d/$1/spec"
echo "$3 0" >"$d/$1/state" || exit
command -v setsid >/dev/null || {{ echo "it has no program setsid" >&2; exit 1; }}
name=$1; shift
umask 022
setsid sh -c "$watch" sh "$d/$name" "$name" "$@" </dev/null >/dev/null 2>&1 &
n=0
until [ -e "$d/$name/begun" ] || [ $n -gt 200 ]; do n=$((n + 1)); sleep 0.02 2>/dev/null || sleep 1; done
"""

_LIST = f"""{_FOLDER}
cd "$d" 2>/dev/null || exit 0
for n in *; do
  [ -e "$n/state" ] || continue
  {{ read -r p <"$n/pid" && kill -0 "$p"; }} 2>/dev/null; a=$?
  read -r s c <"$n/state" && echo "$n $s $c $a"
done
"""

# by the kernel's table as the agent does: to connect would be noise in the logs of servers
_AWAIT = f"""{_FOLDER}
cd "$d/$1" || exit
kind=$2; shift 2
while :; do
  read -r s c <state
  case $s in failed|stopped) exit 3;; esac
  case $kind in
    port) grep -qsE ":$1 [0-9A-F]+:0000 0A " /proc/net/tcp /proc/net/tcp6 && exit 0;;
    command) "$@" </dev/null >>log 2>&1 && exit 0;;
  esac
  sleep 0.1 2>/dev/null || sleep 1
done
"""

_READY = f"""{_FOLDER}read -r s c <"$d/$1/state" && [ "$s" = starting ] && echo "ready 0" >"$d/$1/state"; exit 0"""
_TAIL = f"""{_FOLDER}tail -n "$2" "$d/$1/log" """
_FOLLOW = f"""{_FOLDER}exec tail -n +1 -f "$d/$1/log" """


# as the Engine reads USER: name or number, and maybe a group; who is not in /etc/passwd has group 0
_AS_USER = """
u=${1%%:*} g=${1#"$u"}; g=${g#:}; shift
name= home=/ own=0
while IFS=: read -r n x i j k h r; do
  if [ "$n" = "$u" ] || [ "$i" = "$u" ]; then name=$n u=$i own=$j home=$h; break; fi
done </etc/passwd
export HOME="$home"
if setpriv --help 2>&1 | grep -q -e --reuid; then
  groups=--clear-groups
  if [ -n "$name" ] && [ -z "$g" ]; then groups=--init-groups; fi
  exec setpriv --reuid "$u" --regid "${g:-$own}" $groups "$@"
fi
for python in python3 python; do
  if command -v $python >/dev/null; then exec $python -c "$PROGRAM" "$name" "$u" "$g" "$own" "$@"; fi
done
[ -n "$name" ] || { echo "no user $u is in /etc/passwd, and there is no setpriv to run the image's command as such" >&2; exit 126; }
exec su -m -s /bin/sh -c 'exec "$0" "$@"' -- "$name" "$@"
"""

_PROGRAM = """
import grp, os, sys
name, user, group, own = sys.argv[1:5]
number = int(group or own) if (group or own).isdigit() else grp.getgrnam(group).gr_gid
os.initgroups(name, number) if name and not group else os.setgroups([])
os.setgid(number)
os.setuid(int(user))
os.execvp(sys.argv[5], sys.argv[5:])
"""


def as_user(user: str, command: Sequence[str]) -> list[str]:
    """A command that runs as a user of the node, as the USER of an image names it; "" and root are who starts it."""
    return (
        list(command)
        if user in ("", "0", "root", "0:0", "root:root")
        else ["/bin/sh", "-c", f"PROGRAM='{_PROGRAM}'{_AS_USER}", "sh", user, *command]
    )


async def services_of(channel: Channel, node: str) -> AgentLink | ShellServices:
    """Who answers requests on the services of a node: its agent, or a shell where there is no Python."""
    try:
        return await AgentLink.open(channel, node)
    except NoPythonError:
        return ShellServices(channel, node)


class ShellServices:
    """Answers what an `AgentLink` is asked about services."""

    def __init__(self, channel: Channel, node: str) -> None:
        self._channel = channel
        self._node = node

    async def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        """As `AgentLink.request`, for start, wait, stop, list and log of services. Raises AgentError, NodeDownError."""
        name = str(arguments.get("service", ""))
        if op == "service.start":
            await self._start(name, arguments)
        elif op == "service.wait":
            await self._wait(name, arguments["ready"], arguments["timeout"])
        elif op == "service.stop":
            await self._run(f'{_FOLDER}{_STOP}stop "$1"', name)
        elif op == "service.log":
            return {"text": await self._run(_TAIL, name, str(arguments.get("lines", 100)))}
        elif op == "service.list":
            return {"services": await self._list()}
        else:
            raise AgentError(self._node, f"there is no agent that knows {op}: the node has no Python")
        return {}

    async def close(self) -> None:
        """Nothing is held."""

    async def _start(self, name: str, spec: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps([name, spec], sort_keys=True).encode()).hexdigest()
        first = "starting" if spec["ready"] else "ready"
        watch = (_WATCH, digest, name, spec["restart"], first, spec["cwd"] or "")
        await self._run(_START, *watch, *spec["command"], env=spec["env"])

    async def _wait(self, name: str, ready: Mapping[str, Any], timeout: float) -> None:
        if "port" in ready:
            check = ["port", f"{ready['port']:04X}"]
        elif "command" in ready:
            check = ["command", *ready["command"]]
        else:
            check = ["nothing"]
        try:
            async with asyncio.timeout(timeout):
                waits = [asyncio.create_task(self._await(name, check))]
                if "log" in ready:
                    waits.append(asyncio.create_task(self._said(name, ready["log"])))
                try:
                    done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in waits:
                        task.cancel()
                    await asyncio.gather(*waits, return_exceptions=True)
        except TimeoutError:
            raise await self._failed(name, f"is not ready after {timeout:g} s") from None
        if not all(task.result() for task in done):
            state = (await self._list()).get(name, {})
            raise await self._failed(name, f"{state.get('state', _LOST)} with exit code {state.get('exit_code')}")
        await self._run(_READY, name)

    async def _await(self, name: str, check: Sequence[str]) -> bool:
        """Wait until a check holds, or the service has ended: False."""
        return (await run(self._channel, self._node, ["/bin/sh", "-c", _AWAIT, "sh", name, *check])).ok

    async def _said(self, name: str, pattern: str) -> bool:
        """Wait until a line of its log matches."""
        wanted, found, rest = re.compile(pattern.encode()), asyncio.Event(), b""

        def hear(node: str, stream: str, data: bytes) -> None:
            nonlocal rest
            *lines, rest = (rest + data).split(b"\n")
            if stream == "stdout" and any(wanted.search(line) for line in [*lines, rest]):
                found.set()

        argv = ["/bin/sh", "-c", _FOLLOW, "sh", name]
        following = asyncio.create_task(run(self._channel, self._node, argv, on_output=hear, keep=0))
        try:
            return await found.wait()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _list(self) -> dict[str, dict[str, Any]]:
        found = {}
        for line in (await self._run(_LIST)).splitlines():
            name, state, code, watched = line.split()
            if watched != "0" and state not in ("failed", "stopped"):
                # who watched over it was killed, and it with that
                state, code = "failed", "137"
            found[name] = {"state": state, "pid": None, "exit_code": int(code)}
        return found

    async def _failed(self, name: str, what: str) -> AgentError:
        log = ""
        with suppress(AgentError):
            log = (await self._run(_TAIL, name, "20")).rstrip()
        return AgentError(self._node, f"service {name} {what}; " + (f"the end of its log:\n{log}" if log else "its log is empty"))

    async def _run(self, script: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        argv = ["/bin/sh", "-c", script, "sh", *arguments]
        try:
            return (await run(self._channel, self._node, argv, env=env, check=True)).stdout
        except CommandError as error:
            said = error.result.stderr.strip() if isinstance(error.result, Result) else ""
            raise AgentError(self._node, f"its shell cannot watch over services: {said or error.message}") from None
