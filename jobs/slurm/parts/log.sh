{% if own_log %}
# SLURM reads % and \ in the names of logs as its own, in that of the folder too: the script opens its log itself.
exec >> {{ jobs | quote }}/{{ template }}-"{{ "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" if array else "$SLURM_JOB_ID" }}".log 2>&1
{% endif %}
