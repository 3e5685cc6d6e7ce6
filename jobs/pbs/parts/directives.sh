#PBS -N {{ name }}
#PBS -S /bin/bash
{% if job.queue %}
#PBS -q {{ job.queue }}
{% endif %}
{% if job.account %}
#PBS -A {{ job.account }}
{% endif %}
{% if scheduler == "torque" %}
#PBS -l nodes={{ nodes }}:ppn={{ job.cpus }}{{ ":gpus=%d" % job.gpus if job.gpus else "" }}
#PBS -l mem={{ memory }}
{% else %}
#PBS -l select={{ nodes }}:ncpus={{ job.cpus }}:mem={{ memory }}{{ ":ngpus=%d" % job.gpus if job.gpus else "" }}{{ ":" ~ job.select if job.select else "" }}
{% if nodes > 1 %}
#PBS -l place=scatter
{% endif %}
{% endif %}
#PBS -l walltime={{ walltime }}
#PBS -j oe
{% if array %}
#PBS {{ array }}
{% endif %}
{% if job.mail %}
#PBS -M {{ job.mail }}
#PBS -m {{ "b" if "begin" in job.mail_when else "" }}{{ "e" if "end" in job.mail_when else "" }}{{ "a" if "fail" in job.mail_when else "" }}
{% endif %}
{% for line in job.directives %}
#PBS {{ line }}
{% endfor %}
