# Starts what follows once on each node of the job. PBS gives it nothing of this shell (its variables, umask and folder):
# all that goes by way of a file, but for what is a node's own.
(
    unset TMPDIR HOSTNAME CUDA_VISIBLE_DEVICES "${!PBS_@}"
    declare -px
    printf 'umask %s\ncd %q\n' "$(umask)" "$PWD"
) > "$meet/environment"
spread=(pbsdsh{{ " -u" if scheduler == "torque" else "" }} -- /bin/bash -c 'source "$0" && exec "$@"' "$meet/environment")
