"""The shell scripts that `marker.py` runs on hosts. They need a POSIX shell, grep, sed, and what any Linux has in /proc."""

from __future__ import annotations

from .command import CACHE

TAKEN, NOT_THERE, FAILED, SHAPED = 4, 5, 6, 9
"""Exit codes: another environment is on the host; there is no such node; it could not be done; its traffic has to be put back first."""

_ENDING_STEPS = 40
"""Twentieths of a second that processes have to end in before they are killed."""

_MACHINE = "read -r h </proc/sys/kernel/hostname"

FACTS = f"""
{_MACHINE}
a=${{SSH_CONNECTION#* }}; a=${{a#* }}
w=; [ -w /etc/hosts ] && w=hosts
echo "$h $(id -u) ${{a%% *}} ${{SHELL:-unknown}} $w"
"""
"""What `marker.Facts` holds, on one line."""

_FAIL = f"""
fail() {{
  df -Pk "$HOME" | {{ read -r x; read -r a b c free e; [ "$free" -lt 64 ] && echo "No space left on device: $HOME" >&2; }}
  exit {FAILED}
}}
"""
"""Some shells say no more than that something went wrong when a disk is full."""

PUT = f"""{_FAIL}
umask 077
d="$HOME/{CACHE}"; {_MACHINE}
mkdir -p "$d/$1/$2/notes" && cd "$d/$1/$2" && printf '%s\\n' "$h" > host || fail
if [ "$3" = alone ]; then
  for o in "$d"/*/*/host; do
    if [ "${{o#"$d/$1/"}}" = "$o" ] && [ -e "$o" ] && [ "$(cat "$o")" = "$h" ]; then
      cat "${{o%/host}}/node.json" 2>/dev/null
      cd "$d"; rm -rf "$1/$2"; rmdir "$1" 2>/dev/null
      exit {TAKEN}
    fi
  done
fi
cat > .new && sed -n 1p .new > .node && sed 1d .new > .env && rm .new && mv .env env && mv .node node.json || fail
{FACTS}"""
"""Environment, folder of the node, "alone" or nothing; reads node.json on one line, then env.

It marks first and looks for others then, so that of two at once none gets the host, and never both.
"""

READ = (
    f'{_MACHINE}; echo "$h"; cd "$HOME/{CACHE}/$1" 2>/dev/null || exit 0; '
    "for n in *; do echo \"$n\"; done; echo; exec grep -sH '' -- */host */node.json */notes/*"
)
"""Environment. On one line and with few processes: it runs whenever anybody looks."""

SCAN = f'{_MACHINE}; echo "$h"; cd "$HOME/{CACHE}" 2>/dev/null || exit 0; exec grep -sH \'\' -- */*/host */*/node.json'

NOTE = f"""{_FAIL}
umask 077
cd "$HOME/{CACHE}/$1/$2/notes" 2>/dev/null || exit {NOT_THERE}
cat > ".$3.$$" && mv ".$3.$$" "$3" || fail
"""
"""Environment, folder of the node, name; reads the note."""

FORGET = f"""
cd "$HOME/{CACHE}/$1/$2/notes" 2>/dev/null || exit {NOT_THERE}
rm -f -- "$3"
"""
"""Environment, folder of the node, name."""

_NAMES = """
names() {
  n="/etc/.wardian-$$"
  { sed "/^# wardian $1 begin$/,/^# wardian $1 end$/d" /etc/hosts && cat; } > "$n" && cat "$n" > /etc/hosts
  c=$?
  rm -f "$n"
  return $c
}
"""
"""Puts what it reads in place of a block of /etc/hosts: into the same file, which may be a mount, once there was room for all of it."""

NAMES = f"""{_NAMES}
[ -w /etc/hosts ] || exit 0
names "$1"
"""
"""Environment; reads the block with its marks."""

CLEAN = f"""{_NAMES}
d="$HOME/{CACHE}"; {_MACHINE}; m="WARDIAN_ENVIRONMENT=$1"
mine() {{ x=$(cat "$1/host" 2>/dev/null); [ "${{x:-$h}}" = "$h" ]; }}
if cd "$d/$1" 2>/dev/null; then
  for n in *; do if [ -d "$n" ] && mine "$n"; then rm -f -- "$n/env"; fi; done
  s=
  for n in *; do if [ -e "$n/shaped" ] && mine "$n"; then echo "$n"; s={SHAPED}; fi; done
  [ -z "$s" ] || exit $s
fi
found() {{ for e in $(grep -lsF "$m" /proc/[0-9]*/environ); do e=${{e#/proc/}}; echo "${{e%/environ}}"; done; }}
p=$(found)
if [ -n "$p" ]; then
  kill -15 $p 2>/dev/null
  i=0
  while [ $i -lt {_ENDING_STEPS} ] && p=$(found) && [ -n "$p" ]; do sleep 0.05; i=$((i + 1)); done
  [ -z "$p" ] || kill -9 $p 2>/dev/null
fi
rm -rf "/tmp/wardian-$(id -u)-$1"
if [ -w /etc/hosts ] && grep -q "^# wardian $1 begin$" /etc/hosts; then names "$1" < /dev/null; fi
if cd "$d/$1" 2>/dev/null; then
  for n in *; do if [ -d "$n" ] && mine "$n"; then rm -rf -- "$n"; fi; done
fi
cd "$HOME" && rmdir "$d/$1" "$d" "${{d%/*}}" 2>/dev/null
exit 0
"""
"""Environment. Without its env file nothing new starts on a node; then what runs is ended; its folder goes last.

Where nodes are shaped it does no more than print their folders.
"""

SETUP = f"""{_FAIL}
umask 077
{_MACHINE}; d="$HOME/{CACHE}/setup"; m="$d/$1@$h"
[ -e "$m" ] && exit 0
mkdir -p "$d" && cat > "$m.sh" || fail
cd "$HOME"; umask 022
WARDIAN_ENVIRONMENT="$2" DEBIAN_FRONTEND=noninteractive /bin/sh -e "$m.sh" > "$m.log" 2>&1 < /dev/null
c=$?
rm -f "$m.sh"
if [ $c = 0 ]; then : > "$m"; else tail -n 5 "$m.log"; fi
exit $c
"""
"""Hash, environment; reads the setup."""
