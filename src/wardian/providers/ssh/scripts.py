"""The shell scripts that `marker.py` runs on hosts. They need a POSIX shell, grep, sed, and what any Linux has in /proc."""

from __future__ import annotations

from .command import CACHE

TAKEN, NOT_THERE, FAILED, NO_PROGRAM, NO_RIGHTS, SHAPED, NO_GROUPS, NO_MEMORY = 4, 5, 6, 7, 8, 9, 10, 11
"""Exit codes: another environment is on the host; there is no such node; it could not be done; a program is not there; we are not root, and
sudo asks for a password; its traffic has to be put back first; there are no control groups that limit processor time; none that limit
memory."""

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
cat > .new && sed -n 1p .new > .node && sed 1d .new > .env && rm .new || fail
if [ -e killed ]; then rm .env; else mv .env env; fi && mv .node node.json || fail
{FACTS}"""
"""Environment, folder of the node, "alone" or nothing; reads node.json on one line, then env.

It marks first and looks for others then, so that of two at once none gets the host, and never both.
"""

READ = (
    f'{_MACHINE}; echo "$h"; cd "$HOME/{CACHE}/$1" 2>/dev/null || exit 0; '
    "for n in *; do echo \"$n\"; done; echo; exec grep -sH '' -- */host */node.json */killed */notes/*"
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

_FOUND = """
found() { for e in $(grep -lsF "WARDIAN_ENVIRONMENT=$1" /proc/[0-9]*/environ); do e=${e#/proc/}; echo "${e%/environ}"; done; }
"""
"""Processes of an environment."""

_ROOT = f"""
PATH="$PATH:/usr/sbin:/sbin"
root() {{ if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }}
may() {{ [ "$(id -u)" = 0 ] || sudo -n true </dev/null >/dev/null 2>&1 || exit {NO_RIGHTS}; }}
"""

_RESUME = """
resume() {
  if [ -p paused ]; then mv paused .resumed && : <> .resumed && rm -f .resumed; fi
  p=$(found "$1"); [ -z "$p" ] || kill -18 $p 2>/dev/null
}
"""
"""Commands that begin while a node stands still wait for somebody who opens the other end of `paused`."""

PAUSE = f"""{_FOUND}
cd "$HOME/{CACHE}/$1/$2" 2>/dev/null && [ -r env ] || exit 0
[ -p paused ] || mkfifo -m 600 paused || exit {FAILED}
o=
while p=$(found "$1") && [ "$p" != "$o" ]; do kill -19 $p 2>/dev/null; o=$p; done
exit 0
"""
"""Environment, folder of the node. What is started meanwhile by what has not been stopped yet is stopped in the next round."""

RESUME = f"""{_FOUND}{_RESUME}
cd "$HOME/{CACHE}/$1/$2" 2>/dev/null || exit 0
resume "$1"
exit 0
"""

_GROUPS = """
group() {
  g=
  while read -r x m k o r; do
    case $k,$o, in
      cgroup,*,$1,*) g=$m;;
      cgroup2,*) if grep -qsw "$1" "$m/cgroup.controllers"; then g=$m; fi;;
    esac
  done </proc/self/mounts
  [ -n "$g" ]
}
"""
"""Finds where a controller's groups are: in the hierarchy of version 2, or in that of version 1 which has it."""

CONTROLLERS = f"""{_ROOT}{_GROUPS}
may
for c in cpu memory; do if group $c && root test -w "$g"; then echo $c; fi; done
"""
"""Prints what can be limited here."""

LIMIT = f"""{_FOUND}{_ROOT}{_GROUPS}
cd "$HOME/{CACHE}/$1/$2" 2>/dev/null && [ -r env ] || exit {NOT_THERE}
if [ -z "$3$4$5" ] && [ ! -e cgroup ]; then exit 0; fi
may
put() {{ root sh -c 'echo "$2" > "$1"' sh "$1" "$2" 2>/dev/null; }}
n="wardian-$1-$2"; e=0
# a controller, its files in versions 2 and 1, their values, whether that is a limit
limit() {{
  group "$1" || return
  if [ -e "$g/cgroup.subtree_control" ]; then put "$g/cgroup.subtree_control" "+$1"; f=$2; v=$4; else f=$3; v=$5; fi
  g="$g/$n"
  [ -d "$g" ] || [ -n "$6" ] || return 0
  if ! grep -qsxF "$g" cgroup; then echo "$g" >> cgroup || exit {FAILED}; fi
  [ -d "$g" ] || root mkdir "$g" 2>/dev/null && [ -e "$g/$f" ] || return
  put "$g/$f" "$v" || exit {FAILED}
}}
q=-1; w=max
if [ -n "$3$4" ]; then
  q=$((${{3:-1000}} * ${{4:-$(($(getconf _NPROCESSORS_ONLN) * 1000))}} / 10)); [ $q -ge 1000 ] || q=1000
  w="$q 100000"
fi
limit cpu cpu.max cpu.cfs_quota_us "$w" "$q" "$3$4" || [ -z "$3$4" ] || e={NO_GROUPS}
limit memory memory.max memory.limit_in_bytes "${{5:-max}}" "${{5:--1}}" "$5" || [ -z "$5" ] || [ $e != 0 ] || e={NO_MEMORY}
[ -e cgroup ] || exit $e
o=
while p=$(found "$1") && [ "$p" != "$o" ]; do
  while read -r g; do for x in $p; do put "$g/cgroup.procs" "$x" </dev/null; done; done < cgroup
  o=$p
done
exit $e
"""
"""Environment, folder of the node, thousandths of the processors' time that it otherwise has, thousandths of a processor, bytes of memory;
nothing where there is no such limit.

What begins later enters the groups by itself, see `command.start`.
"""

KILL = f"""{_FOUND}{_RESUME}
cd "$HOME/{CACHE}/$1/$2" 2>/dev/null && [ -r env ] || exit {NOT_THERE}
echo killed > killed && rm -f env || exit {FAILED}
o=
while p=$(found "$1") && [ "$p" != "$o" ]; do
  for n in $p; do
    # the shell that waits for a command would tell how that ended, and a machine without power tells nothing
    s=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$n/status" 2>/dev/null)
    if grep -qsF "/{CACHE}/" "/proc/$s/cmdline" && [ "$s" != $$ ]; then kill -9 "$s" 2>/dev/null; fi
  done
  kill -9 $p 2>/dev/null
  o=$p
done
resume "$1"
exit 0
"""
"""Environment, folder of the node. Without its env file nothing new starts there."""

DEAFEN = f"""{_ROOT}
cd "$HOME/{CACHE}/$1/$2" 2>/dev/null || exit {NOT_THERE}
t=$3; shift 3
if [ "$1" = spared ] && [ ! -e "tables/$t" ]; then exit 0; fi
may
command -v nft >/dev/null 2>&1 || exit {NO_PROGRAM}
mkdir -p tables && : > "tables/$t" || exit {FAILED}
x="add table inet $t
delete table inet $t
"
family() {{ case $1 in *:*) f=ip6;; *) f=ip;; esac; }}
if [ "$1" != spared ]; then
  x="${{x}}add table inet $t
add chain inet $t hear {{ type filter hook prerouting priority -310; }}
"
  y=
  while [ "$1" != spared ]; do
    family "$1"
    # never what SSH says to us, and to those whom we reach through this host
    if [ "${{SSH_CONNECTION%% *}}" = "$1" ]; then
      x="${{x}}add rule inet $t hear $f saddr $1 tcp dport ${{SSH_CONNECTION##* }} accept
"
    fi
    y="${{y}}add rule inet $t hear $f saddr $1 drop
"
    shift
  done
  shift
  for s; do
    family "${{s%=*}}"
    x="${{x}}add rule inet $t hear $f saddr ${{s%=*}} tcp sport ${{s##*=}} accept
"
  done
  x=$x$y
fi
printf '%s' "$x" | root nft -f - || exit {FAILED}
case $x in *drop*) ;; *) rm -f "tables/$t"; rmdir tables 2>/dev/null;; esac
exit 0
"""
"""Environment, folder of the node, name of an nftables table, addresses, "spared", ADDRESS=PORT of SSH servers that we reach from here."""

CLEAN = f"""{_NAMES}{_FOUND}{_ROOT}
d="$HOME/{CACHE}"; {_MACHINE}
mine() {{ x=$(cat "$1/host" 2>/dev/null); [ "${{x:-$h}}" = "$h" ]; }}
if cd "$d/$1" 2>/dev/null; then
  for n in *; do if [ -d "$n" ] && mine "$n"; then rm -f -- "$n/env"; fi; done
  s=
  for n in *; do if [ -e "$n/shaped" ] && mine "$n"; then echo "$n"; s={SHAPED}; fi; done
  [ -z "$s" ] || exit $s
fi
if cd "$d/$1" 2>/dev/null; then
  for t in */tables/*; do
    if [ -e "$t" ] && mine "${{t%%/tables/*}}"; then
      printf 'add table inet %s\ndelete table inet %s\n' "${{t##*/}}" "${{t##*/}}" | root nft -f - || exit {FAILED}
    fi
  done
fi
p=$(found "$1")
if [ -n "$p" ]; then
  kill -15 $p 2>/dev/null
  # what stands still ends no sooner
  kill -18 $p 2>/dev/null
  i=0
  while [ $i -lt {_ENDING_STEPS} ] && p=$(found "$1") && [ -n "$p" ]; do sleep 0.05; i=$((i + 1)); done
  [ -z "$p" ] || kill -9 $p 2>/dev/null
fi
rm -rf "/tmp/wardian-$(id -u)-$1"
if cd "$d/$1" 2>/dev/null; then
  for n in */cgroup; do
    if [ -e "$n" ] && mine "${{n%/cgroup}}"; then
      while read -r g; do
        i=0
        # the kernel lets go of a group a moment after its last process ended
        while [ -d "$g" ] && ! root rmdir "$g" 2>/dev/null </dev/null && [ $i -lt {_ENDING_STEPS} ]; do sleep 0.05; i=$((i + 1)); done
      done < "$n"
    fi
  done
fi
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
