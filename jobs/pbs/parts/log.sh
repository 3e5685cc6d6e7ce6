# PBS shows a job's output only when the job has ended: write it where it can be read at once.
exec >> {{ jobs | quote }}/{{ template }}-"$PBS_JOBID".log 2>&1
