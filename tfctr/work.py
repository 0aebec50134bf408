"""Where the command keeps its datasets and runs, unless `--work` names another folder."""

from pathlib import Path

DEFAULT_WORK = Path("work")
