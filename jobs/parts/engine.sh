# The engine runs in the background, because the shell's trap acts only while the shell waits: SIGTERM before the
# time limit must reach the engine at once, so that it leaves a state that can be resumed.
# The trap stands first: a signal that comes while the engine starts is handed on as soon as there is one.
engine=
stopped=0
trap 'stopped=1; [ -z "$engine" ] || kill -TERM "$engine" 2> /dev/null || true' TERM INT
"${command[@]}" &
engine=$!
[ "$stopped" = 0 ] || kill -TERM "$engine" 2> /dev/null || true

# A trap ends `wait` early, with the signal's status: wait again for the engine's own.
status=0
wait "$engine" || status=$?
while [ "$stopped" = 1 ]; do
    stopped=0
    again=0
    wait "$engine" || again=$?
    # 127: the engine had ended, and its status was told, before the signal came.
    [ "$again" = 127 ] || status=$again
done
exit "$status"
