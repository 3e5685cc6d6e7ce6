#!/bin/bash
# Measures a GPU: megapixels per second of the network alone and of whole runs, and how busy the GPU is.
#
#   benchmarks/gpu.sh
#
# Ends by itself before ten minutes, with status 1 where something is still to be measured: then give it again; what is
# done is kept in build/gpu. Status 0: all is measured, and the tables are printed. Status 2: there is no GPU.
#
# PYTHON names a Python that has slidebatch's packages; without it one is made in build/gpu-venv, from PyPI (5 GB, two to
# four minutes, which count). Real images: SLIDEBATCH_TEST_DATA, shared/data here, or ../shared/data; without them a
# made-up slide is measured. Options go on to benchmarks/gpu.py: --compile, --folder, and --device cpu --quick, which
# tries all of it without a GPU.
set -euo pipefail

export SLIDEBATCH_DEADLINE="${SLIDEBATCH_DEADLINE:-$(($(date +%s) + 570))}"
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

for data in "${SLIDEBATCH_TEST_DATA:-}" "$root/shared/data" "$root/../shared/data"; do
    if [ -n "$data" ] && [ -d "$data" ]; then
        export SLIDEBATCH_TEST_DATA="$data"
        break
    fi
done

if [ -n "${PYTHON:-}" ] && ! command -v "$PYTHON" > /dev/null; then
    echo "error: PYTHON is $PYTHON, and there is no such program; leave it out, and an environment is made" >&2
    exit 2
fi

# Told before gigabytes are fetched; what else may be missing for a GPU the benchmark itself says.
if [[ " $* " != *" cpu "* ]] && ! "${PYTHON:-python3}" -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2> /dev/null; then
    echo "error: no GPU to measure: no NVIDIA driver is installed (libcuda.so.1 is missing); --device cpu --quick tries" \
        "the script" >&2
    exit 2
fi

if [ -z "${PYTHON:-}" ]; then
    venv="$root/build/gpu-venv"
    if [ ! -e "$venv/complete" ]; then
        echo "making an environment in $venv" >&2
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --editable '.[cuda]'
        touch "$venv/complete"
    fi
    PYTHON="$venv/bin/python"
fi

exec "$PYTHON" benchmarks/gpu.py "$@"
