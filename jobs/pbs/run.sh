#!/bin/bash
# One slidebatch run under PBS (OpenPBS, PBS Pro). The same job again resumes it.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}

{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

{% if nodes > 1 %}
id=${PBS_JOBID%%.*}
{% include "parts/nodes.sh" %}
{% else %}
command=({{ python }} -m slidebatch run {{ config | quote }}{% for value in sets %} --set {{ value | quote }}{% endfor %})
{% endif %}
{% include "parts/engine.sh" %}
