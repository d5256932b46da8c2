"""All tasks by name."""

from __future__ import annotations

from codeformer.tasks.base import Task
from codeformer.tasks.colorize import Colorize
from codeformer.tasks.inpaint import Inpaint
from codeformer.tasks.restore import Restore

#: Each task with its default settings; ``dataclasses.replace`` makes one with the user's.
TASKS: dict[str, Task] = {"restore": Restore(), "colorize": Colorize(), "inpaint": Inpaint()}
