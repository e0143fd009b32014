"""Curate a folder of videos and images, and look at what was kept.

    python examples/curate_folder.py VIDEOS OUT [key=value ...]

The same as `selects curate VIDEOS --output OUT`; run again, it does only what is missing.
"""

import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from captioners import CAPTIONERS
from configs import CONFIGS
from curation.engine.runners import InlineRunner
from curation.export import export
from curation.inputs.sources import find_sources
from curation.pipeline import curate
from curation.recipe import Tables, load_recipe
from operators import OPERATORS


def main(videos: str, out: str, overrides: list[str]) -> int:
    """Curate with the default recipe, print the verdicts and the accepted clips, and write a CSV for trainers."""
    recipe, captioner = load_recipe(CONFIGS / "default.yaml", overrides, Tables(OPERATORS, CAPTIONERS))
    outcome = curate(find_sources([videos]), Path(out), recipe, captioner, InlineRunner())

    table = pq.read_table(Path(out) / "clips")
    for verdict in pc.value_counts(table["status"]).to_pylist():
        print(f"{verdict['values']:10}{verdict['counts']:5}")
    kept = table.filter(pc.equal(table["status"], "accepted"))
    for clip in kept.select(["source_path", "start_s", "end_s", "motion", "caption"]).slice(0, 5).to_pylist():
        print(clip)

    result = export(Path(out), "webvid")
    print(f"{result.rows} rows in {', '.join(str(path) for path in result.paths)}")
    return 0 if outcome.is_complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
