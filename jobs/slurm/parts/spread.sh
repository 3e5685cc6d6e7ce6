# Starts what follows once on each node of the job; a node that fails leaves the others alone.
spread=(srun --nodes={{ nodes }} --ntasks={{ nodes }} --ntasks-per-node=1 --cpus-per-task={{ job.cpus }} --cpu-bind=none)
spread+=(--no-kill --kill-on-bad-exit=0 --wait=0)
