#!/bin/bash
# Jobs of a sweep as an array under PBS. `slidebatch sweep --resume --submit` submits those that are missing.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}

{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

{% if through %}
# The number of a line of the file that lists the jobs to run: an array of PBS is a range, never a list.
{% else %}
# The number of the sweep's job.
{% endif %}
number=$(({{ offset }} + {{ index if array else 0 }}))
command=({{ python }} -m slidebatch sweep-task {{ sweep | quote }} "$number"{% if through %} --through {{ through | quote }}{% endif %})
{% include "parts/engine.sh" %}
