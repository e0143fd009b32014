"""An output folder and a training config as version 0.7 wrote them: columns and keys added since are missing."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run_pipeline
from cli.common import TABLES
from core.settings import plain
from curation.output.table import read_table
from curation.recipe import load_recipe
from train_bridge.config import TrainConfig, load_config

RECIPE = """\
reader: pyav
shots: {detector: fused, settings: {}, min_s: 3.0, max_s: 10.0, trim_s: 0.0, segment_s: 120.0}
operators:
  motion:
  brightness:
score_rejected: false
rules:
  motion: {min: 0.5}
  brightness: {min: 0.08}
caption: {captioner: template, settings: {}}
cut: {mode: none}
"""
MOVES, RESTS = "00000000-0000-5000-8000-000000000001", "00000000-0000-5000-8000-000000000002"
TEXT = "clip_id type source_path source_root source_id kind codec status error caption caption_model caption_status"
WHOLE = "source_size_bytes source_mtime_ns source_num_frames start_frame num_frames width_px height_px short_side_px"
FLOATS = "source_duration_s shot_start_s shot_end_s start_s end_s duration_s fps motion camera_pan_x camera_pan_y"
SCHEMA = pa.schema([
    *((name, pa.string()) for name in (*TEXT.split(), "clip_path")),
    *((name, pa.int64()) for name in (*WHOLE.split(), "area_px", "clip_width_px", "clip_height_px", "clip_num_frames")),
    *((name, pa.float64()) for name in (*FLOATS.split(), "camera_zoom", "brightness", "clipped", "clip_fps")),
    *((name, pa.int32()) for name in ("source_clips", "shot_index")),
    ("reasons", pa.list_(pa.string())),
])
"""columns that version 0.7 wrote for these operators"""
ROW = {
    "type": "video", "kind": "clip", "source_path": "a.mp4", "source_root": "/footage", "source_id": "s",
    "codec": "h264",
    "source_size_bytes": 1, "source_mtime_ns": 1, "source_clips": 2, "shot_index": 0, "start_s": 0.0, "end_s": 4.0,
    "duration_s": 4.0, "num_frames": 100, "start_frame": 0, "width_px": 64, "height_px": 48, "fps": 25.0,
    "brightness": 0.4, "status": "accepted", "reasons": [],
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An output with a clip that moves and one that hardly does."""
    rows = [ROW | {"clip_id": MOVES, "motion": 9.0}, ROW | {"clip_id": RESTS, "motion": 1.0, "start_s": 4.0}]
    rows = [{name: row.get(name) for name in SCHEMA.names} for row in rows]
    (tmp_path / "clips").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), tmp_path / "clips" / "part-00000.parquet")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_its_table_is_read_with_columns_added_since_as_null(old: Path) -> None:
    recipe, _ = load_recipe(old / "recipe.yaml", [], TABLES)
    table = read_table(old, recipe.writers)
    assert table["clip_id"].to_pylist() == [MOVES, RESTS] and table["motion"].to_pylist() == [9.0, 1.0]
    added = set(table.schema.names) - set(SCHEMA.names)
    assert "transition_kind" in added and all(table[name].null_count == 2 for name in added)


def test_its_clips_are_judged_by_other_rules(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pipeline.main(["select", str(old), "rules.motion.min=5", "--json"]) == 0
    recipe, _ = load_recipe(old / "recipe.yaml", [], TABLES)
    rows = {row["clip_id"]: row for row in read_table(old, recipe.writers).to_pylist()}
    assert rows[MOVES]["status"] == "accepted"
    assert (rows[RESTS]["status"], rows[RESTS]["reasons"]) == ("rejected", ["motion:low"])
    assert json.loads(capsys.readouterr().out)


def test_its_training_config_has_todays_defaults_for_keys_added_since(tmp_path: Path) -> None:
    (tmp_path / "lora.yaml").write_text(
        "method: text_to_video\nbuckets: {sizes_px: [40], frames: [5, 9], tokens_per_micro_batch: 96}\n"
        "lora: {rank: 16}\ntrain: {steps: 600, learning_rate: 0.003, weight_decay: 0.0}\nwatch: {log_every: 20}\n"
    )
    config = load_config(tmp_path / "lora.yaml", [], {})
    assert (config.lora.rank, config.train.steps, config.buckets.frames) == (16, 600, (5, 9))
    assert plain(config)["resume"] == plain(TrainConfig())["resume"]
