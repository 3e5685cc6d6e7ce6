#SBATCH --job-name={{ name }}
{% if job.queue %}
#SBATCH --partition={{ job.queue }}
{% endif %}
{% if job.account %}
#SBATCH --account={{ job.account }}
{% endif %}
#SBATCH --nodes={{ nodes }}
#SBATCH --ntasks-per-node=1
{% if nodes > 1 %}
#SBATCH --no-kill
{% endif %}
#SBATCH --cpus-per-task={{ job.cpus }}
#SBATCH --mem={{ memory }}
{% if job.gpus %}
#SBATCH --gres=gpu:{{ job.gpu_kind ~ ":" if job.gpu_kind else "" }}{{ job.gpus }}
{% endif %}
#SBATCH --time={{ walltime }}
{% if job.grace_s %}
#SBATCH --signal=B:TERM@{{ job.grace_s }}
{% endif %}
{% if array %}
#SBATCH {{ array }}
{% endif %}
#SBATCH --output={{ "/dev/null" if own_log else template ~ ("-%A_%a.log" if array else "-%j.log") }}
#SBATCH --open-mode=append
{% if job.mail %}
#SBATCH --mail-user={{ job.mail }}
#SBATCH --mail-type={{ job.mail_when | join(",") | upper }}
{% endif %}
{% for line in job.directives %}
#SBATCH {{ line }}
{% endfor %}
