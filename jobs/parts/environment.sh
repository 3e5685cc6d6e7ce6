cd {{ folder | quote }}
{% for key, value in job.variables.items() %}
export {{ key }}={{ value | quote }}
{% endfor %}
{% if job.modules or job.environment or job.setup %}
# These may name variables that are not set.
set +u
{% if job.modules %}
[ "$(type -t module)" = function ] || source /etc/profile || true
module load {{ job.modules | join(" ") }}
{% endif %}
{% for line in job.setup %}
{{ line }}
{% endfor %}
{% if job.environment %}
source {{ (job.environment ~ "/bin/activate") | quote }}
{% endif %}
set -u
{% endif %}
