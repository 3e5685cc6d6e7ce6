#!/bin/bash
# One slidebatch run on one node under SLURM. The same job again resumes it.
{% include "parts/directives.sh" %}

set -euo pipefail

{% include "parts/log.sh" %}
{% include "parts/deadline.sh" %}

{% include "parts/environment.sh" %}

command=({{ python }} -m slidebatch run {{ config | quote }}{% for value in sets %} --set {{ value | quote }}{% endfor %})
{% include "parts/engine.sh" %}
