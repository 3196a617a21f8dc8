#!/bin/sh
# ViZDoom runs this in place of the engine, in the engine's scratch folder. It records the engine's
# process id and arguments, and has the engine killed when the thread that started it ends. Its
# owner may have died before that was asked for, so it looks once more.
printf '%s %s\n' "$$" "$*" > engine
exec > /dev/null 2>&1
# shellcheck disable=SC2016 # The inner shell expands them.
start='
{ read -r owner; read -r memory; IFS= read -r engine; } < owner
ulimit -v "$memory"
[ "$PPID" = "$owner" ] && exec "$engine" "$@"
'
if setpriv=$(command -v setpriv); then
    exec "$setpriv" --pdeathsig KILL /bin/sh -c "$start" sh "$@"
fi
exec /bin/sh -c "$start" sh "$@"
