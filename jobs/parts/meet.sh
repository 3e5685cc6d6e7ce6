# Jobs of the array meet in a folder of their own. Job 0 starts Dask's scheduler and the engine, every job starts
# workers. When the engine has ended, job 0 ends the scheduler, and with it go the workers, wherever they are.
meet={{ jobs | quote }}/meet-$id
{% include "parts/dask.sh" %}

if [ "$member" = 0 ]; then
    over=$meet.over
    begin_scheduler
    "${workers[@]}" &
    started+=($!)
else
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
{% if job.workers > 4 %}
    # Not all at once: a shared file system serves all their imports.
    sleep $((RANDOM % {{ [job.workers // 4, 60] | min }}))
{% endif %}
    command=("${workers[@]}")
fi
{% include "parts/engine.sh" %}
