# The nodes of the job meet in a folder of their own: Dask's scheduler and the engine on this one, workers on all.
meet={{ jobs | quote }}/meet-$id
{% include "parts/dask.sh" %}

begin_scheduler
{% include "parts/spread.sh" %}
{% if nodes > 4 %}
# Not all at once: a shared file system serves all their imports.
spread+=(/bin/bash -c 'sleep $((RANDOM % {{ [nodes // 4, 60] | min }})) && exec "$@"' worker)
{% endif %}
"${spread[@]}" "${workers[@]}" &
started+=($!)
