"""``python -m bench``: the same as the command ``bench``."""

import os
import sys

if not sys.flags.safe_path:
    # In the project's own folder the working directory on sys.path would make our folder
    # `datasets` shadow Hugging Face's package of that name: start again without it.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "bench", *sys.argv[1:]])

from bench.cli import program

program()
