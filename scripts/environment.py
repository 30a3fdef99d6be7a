"""The Python that has scripts/requirements-evaluate.txt, for scripts that have understood their arguments."""
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ENTERED = "LMQ_ENTERED"


def enter():
    """Starts this program anew in that Python: $LMQ_PYTHON, or of an environment that is made in build/ the first time. There it returns."""
    if os.environ.pop(ENTERED, None):
        return
    made = subprocess.run([os.path.join(HERE, "python-env"), os.path.join(HERE, "requirements-evaluate.txt")],
                          stdout=subprocess.PIPE, text=True, check=False)
    if made.returncode:
        sys.exit(made.returncode)
    python = made.stdout.strip()
    os.environ[ENTERED] = "1"
    os.execvp(python, [python, *sys.argv])
