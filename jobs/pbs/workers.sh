#!/bin/bash
# One slidebatch run on many nodes under PBS: an array of jobs whose workers meet through a scheduler file.
# The same array again resumes it.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}

{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

# 17[].server and 17[3].server are both of array 17.
id={{ "${PBS_ARRAY_ID:-$PBS_JOBID}" if array else "$PBS_JOBID" }}
id=${id%%[[.]*}
member={{ "$" ~ index if array else 0 }}
{% include "parts/meet.sh" %}
