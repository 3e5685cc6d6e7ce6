# When this job will be ended, in seconds since 1970: the engine starts nothing that it could not finish by then.
# SLURM tells the job itself since version 23; before, the queue knows; else the time limit counts from now.
end=${SLURM_JOB_END_TIME:-}
if [ -z "$end" ]; then
    told=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%e 2> /dev/null || true)
    end=$(date --date="${told:-unknown}" +%s 2> /dev/null || echo $(($(date +%s) + {{ walltime_s }})))
fi
export SLIDEBATCH_DEADLINE=$end
