#!/bin/sh
# Prints the Python to make the venv with: the newest of 3.13, 3.12 and 3.11 that is here and runs,
# or the one that is asked for: find_python.sh [PYTHON]. Says on stderr why there is none.

usable='
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("version " + ".".join(map(str, sys.version_info[:3])))
try:
    import venv, ensurepip
except ImportError:
    sys.exit("no venv")
'
why() { "$1" -c "$usable" 2>&1 > /dev/null | grep . | head -n 1; }

if [ -n "$1" ]; then
    candidates=$1
else
    candidates='python3.13 python3.12 python3.11 python3'
fi
found=''
for candidate in $candidates; do
    if command -v "$candidate" > /dev/null 2>&1; then
        # A shim of pyenv is there and does not run.
        if "$candidate" -c "$usable" > /dev/null 2>&1; then
            echo "$candidate"
            exit 0
        fi
        reason=$(why "$candidate")
        case $reason in
            'no venv')
                reason="has no venv and ensurepip: on Debian and Ubuntu, apt install $(basename "$candidate")-venv" ;;
            version*) reason="is $reason" ;;
            *) reason="does not run: $reason" ;;
        esac
        found="$found
  $candidate $reason"
    elif [ -n "$1" ]; then
        found="
  $candidate is not there"
    fi
done
{
    echo "Orchestrion needs Python 3.11, 3.12 or 3.13 with venv.${found:-
  There is no python3 in PATH.}"
    echo "Install one, for instance with your system's packages, and run make again, or name one:"
    echo "  make install PYTHON=/path/to/python3.12"
} >&2
exit 1
