"""What a study says: its table and its figures, of the results that are there, in its folder."""

from pathlib import Path

from diffussm.analysis.figures.style import write_figure
from diffussm.checkpoint import write_safely
from diffussm.studies.figure import curves_figure, results_figure
from diffussm.studies.result import Place, Result, read_result
from diffussm.studies.running import is_locked, locked
from diffussm.studies.study import Study
from diffussm.studies.table import study_table

TABLE_FILE = "table.md"
ENDINGS = (".png", ".svg")


def write_report(study: Study, folder: Path) -> tuple[str, int, int]:
    """Write table.md and the figures; gives the table, and how many results of how many there are.

    Raises ValueError for a damaged result.
    """
    results = read_results(study, folder)
    text = study_table(study, results)
    with locked(folder / "report.lock", wait=True):
        write_safely(
            folder / TABLE_FILE, lambda temporary: temporary.write_text(text, encoding="utf-8")
        )
        for ending in ENDINGS:
            write_figure(folder / f"results{ending}", results_figure(study, results))
            write_figure(folder / f"curves{ending}", curves_figure(study, results))
    done = sum(len(several) for several in results.values())
    return text, done, len(study.members) * len(study.seeds)


def held_elsewhere(study: Study, folder: Path) -> int:
    """How many results are still to come from a process that is at work on them now."""
    places = [Place(folder, member, seed) for member in study.members for seed in study.seeds]
    return sum(is_locked(place.lock) for place in places if not place.result.exists())


def read_results(study: Study, folder: Path) -> dict[str, list[Result]]:
    """The results that are there, by member, seed after seed."""
    found = {
        member: [read_result(Place(folder, member, seed)) for seed in study.seeds]
        for member in study.members
    }
    return {
        member: [result for result in several if result is not None]
        for member, several in found.items()
    }
