"""Studies: models that differ in one thing, trained alike, measured, and put side by side."""

from diffussm.studies.result import Result
from diffussm.studies.running import tasks_of, work
from diffussm.studies.study import Study, find_study, read_study
from diffussm.studies.table import study_table

__all__ = ["Result", "Study", "find_study", "read_study", "study_table", "tasks_of", "work"]
