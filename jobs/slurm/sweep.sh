#!/bin/bash
# Jobs of a sweep as an array under SLURM. `slidebatch sweep --resume --submit` submits those that are missing.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}
{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

{% if through %}
# The number of a line of the file that lists the jobs to run; an array of SLURM numbers its jobs below MaxArraySize.
{% else %}
# The number of the sweep's job; an array of SLURM numbers its jobs below MaxArraySize.
{% endif %}
number=$(({{ offset }} + {{ index if array else 0 }}))
command=({{ python }} -m slidebatch sweep-task {{ sweep | quote }} "$number"{% if through %} --through {{ through | quote }}{% endif %})
{% include "parts/engine.sh" %}
