{% set interface = " --interface " ~ job.interface if job.interface else "" %}
# The certificate of this meeting alone is what lets a process in: who cannot read the folder cannot join.
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME=tls
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$meet/certificate.pem"
for role in SCHEDULER WORKER CLIENT; do
    export DASK_DISTRIBUTED__COMM__TLS__"$role"__CERT="$meet/certificate.pem"
    export DASK_DISTRIBUTED__COMM__TLS__"$role"__KEY="$meet/key.pem"
done
# A dead worker must not fail tasks: the engine itself counts attempts.
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1000000
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# One task at a time; a worker that knows its deadline leaves before it, between two tasks. Each node fills in its own
# folder for what is scratch; that of jobs is of no use to another.
workers=(/bin/bash -c 'exec "$@" --local-directory "${TMPDIR:-/tmp}"' workers)
{% if job.gpus %}
workers+=({{ python }} -m dask cuda worker --nthreads 1)
{% else %}
workers+=({{ python }} -m dask worker --nthreads 1 --nworkers {{ processes }})
{% endif %}
workers+=(--no-dashboard --dashboard-address 127.0.0.1:0)
workers+=(--scheduler-file "$meet/scheduler.json" --memory-limit 0 --death-timeout 300{{ interface }})

started=()
over=
begin_scheduler() {
    (
        umask 077
        rm -rf "$meet" "$meet.over"
        mkdir "$meet"
        openssl req -x509 -newkey rsa:2048 -nodes -days 60 -subj /CN=slidebatch \
            -keyout "$meet/key.pem" -out "$meet/certificate.pem" 2> "$meet/openssl.log"
    )
    trap end_scheduler EXIT
    {{ python }} -m dask scheduler --scheduler-file "$meet/scheduler.json" --port 0 --dashboard-address 127.0.0.1:0{{ interface }} &
    started+=($!)
    until [ -s "$meet/scheduler.json" ]; do
        kill -0 "${started[0]}"
        sleep 0.2
    done
}
# With the scheduler go the workers, wherever they are. Who might come later finds the file `over`, if there is to be one.
end_scheduler() {
    [ -z "$over" ] || touch "$over"
    kill -TERM "${started[@]}" 2> /dev/null || true
    wait "${started[@]}" 2> /dev/null || true
    rm -rf "$meet"
}
command=({{ python }} -m slidebatch run {{ config | quote }}{% for value in sets %} --set {{ value | quote }}{% endfor %} --cluster "$meet/scheduler.json")
