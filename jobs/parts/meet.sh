# Jobs of the array meet in a folder of their own. Job 0 starts Dask's scheduler and the engine, every job starts
# workers. When the engine has ended, job 0 ends the scheduler, and with it go the workers, wherever they are.
meet={{ jobs | quote }}/meet-$id

# The certificate of this array alone is what lets a process in: who cannot read the folder cannot join.
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME=tls
export DASK_DISTRIBUTED__COMM__TLS__CA_FILE="$meet/certificate.pem"
for role in SCHEDULER WORKER CLIENT; do
    export DASK_DISTRIBUTED__COMM__TLS__"$role"__CERT="$meet/certificate.pem"
    export DASK_DISTRIBUTED__COMM__TLS__"$role"__KEY="$meet/key.pem"
done
# A dead worker must not fail tasks: the engine itself counts attempts.
export DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=1000000
export DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False
# Workers leave by themselves, one after another, in the last minutes before the job is ended.
left=$((SLIDEBATCH_DEADLINE - $(date +%s) - 90))
export DASK_DISTRIBUTED__WORKER__LIFETIME__DURATION="$((left > 60 ? left : 60)) s"
export DASK_DISTRIBUTED__WORKER__LIFETIME__STAGGER="30 s"

{% if job.gpus %}
workers=({{ python }} -m dask_cuda.cli --nthreads 1)
{% else %}
workers=({{ python }} -m dask worker --nthreads 1 --nworkers {{ job.processes }} --no-dashboard)
{% endif %}
workers+=(--scheduler-file "$meet/scheduler.json" --memory-limit 0 --death-timeout 300 --local-directory "${TMPDIR:-/tmp}")

if [ "$member" != 0 ]; then
    # The first to come: the scheduler file, the end of the run, or the end of patience.
    patience=$(($(date +%s) + {{ job.meet_s }}))
    until [ -s "$meet/scheduler.json" ]; do
        if [ -e "$meet.over" ]; then
            echo "the run has ended: nothing to do"
            exit 0
        elif [ "$(date +%s)" -ge "$patience" ]; then
            echo "no scheduler in $meet after {{ job.meet_s }} seconds: was job 0 of the array started?" >&2
            exit 1
        fi
        sleep 1
    done
    command=("${workers[@]}")
else
    (
        umask 077
        rm -rf "$meet" "$meet.over"
        mkdir "$meet"
        openssl req -x509 -newkey rsa:2048 -nodes -days 60 -subj /CN=slidebatch \
            -keyout "$meet/key.pem" -out "$meet/certificate.pem" 2> "$meet/openssl.log"
    )
    started=()
    leave() {
        touch "$meet.over"
        kill -TERM "${started[@]}" 2> /dev/null || true
        wait "${started[@]}" 2> /dev/null || true
        rm -rf "$meet"
    }
    trap leave EXIT
    {{ python }} -m dask scheduler --scheduler-file "$meet/scheduler.json" --port 0 --dashboard-address 127.0.0.1:0 &
    started+=($!)
    until [ -s "$meet/scheduler.json" ]; do
        kill -0 "${started[0]}"
        sleep 0.2
    done
    "${workers[@]}" &
    started+=($!)
    command=({{ python }} -m slidebatch run {{ config | quote }}{% for value in sets %} --set {{ value | quote }}{% endfor %} --cluster "$meet/scheduler.json")
fi
{% include "parts/engine.sh" %}
