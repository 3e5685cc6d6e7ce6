# Starts what follows once on each node of the job, where PBS gives it nothing of this shell's environment: all of it
# goes by way of a file, but for what is a node's own.
(
    unset TMPDIR HOSTNAME CUDA_VISIBLE_DEVICES "${!PBS_@}"
    declare -px > "$meet/environment"
)
spread=(pbsdsh{{ " -u" if scheduler == "torque" else "" }} -- /bin/bash -c 'source "$0" && exec "$@"' "$meet/environment")
