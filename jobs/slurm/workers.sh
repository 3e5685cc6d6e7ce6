#!/bin/bash
# One slidebatch run on many nodes under SLURM: an array of jobs whose workers meet through a scheduler file.
# The same array again resumes it.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}
{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

id=$SLURM_ARRAY_JOB_ID
member=$SLURM_ARRAY_TASK_ID
{% include "parts/meet.sh" %}
