# When this job will be ended, in seconds since 1970: the engine starts nothing that it could not finish by then.
# The time limit counts from now; the server is asked for it, since `qsub -l walltime=` may have changed it.
limit=$(qstat -f "$PBS_JOBID" 2> /dev/null | sed -n 's/^ *Resource_List\.walltime = //p' || true)
case "$limit" in
    *:*:*) IFS=: read -r hours minutes seconds <<< "$limit" ;;
    *) IFS=: read -r hours minutes seconds <<< "{{ walltime }}" ;;
esac
export SLIDEBATCH_DEADLINE=$(($(date +%s) + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))
