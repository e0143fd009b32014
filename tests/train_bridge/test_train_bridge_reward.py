"""Training by rewards: what is refused, what stops a run, and that rewards rise while the base stays."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clips import CLIPS, OTHER_CLIPS
from closeness import close
from export_rows import row as table_row
from hypothesis import given
from hypothesis import strategies as st
from pipelines import write_pipeline
from safetensors.torch import load_file
from training_commands import CONFIGS, said

import run_pipeline
from core.errors import UserError
from curation.schema import table_schema
from models.geometry import MAGVIT
from models.rewards.brightness import Brightness
from models.rewards.table import REWARDS
from models.transformers.conditioning import Conditioning
from train_bridge.config import load_config
from train_bridge.data.prompts import read_prompts
from train_bridge.loop.reward_job import Prompts
from train_bridge.loop.stop_when import check_stop_when, reached
from train_bridge.methods.reward import Term
from train_bridge.plan.prompts import collect_prompts
from train_bridge.types import MicroBatch

torch.set_num_threads(1)
TINY = CONFIGS / "train_reward_tiny.yaml"


@pytest.fixture(scope="module")
def given_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained pipeline, prompts, and held-out ones."""
    folder = tmp_path_factory.mktemp("reward")
    write_pipeline(folder / "pipeline")
    (folder / "prompts.txt").write_text("\n".join(CLIPS) + "\n\n")
    (folder / "held_out.txt").write_text("\n".join(OTHER_CLIPS) + "\n")
    return folder


def words(folder: Path, command: str, *more: str | Path) -> list[str]:
    named = [f"model.base={folder / 'pipeline'}", f"reward.prompts={folder / 'prompts.txt'}"]
    given = [command, TINY, *named, f"reward.held_out={folder / 'held_out.txt'}", *more]
    return [str(word) for word in given]


def trained(folder: Path, out: Path, *more: str | Path) -> int:
    return run_pipeline.main(words(folder, "train", *more, "--output", out, "--runner", "inline"))


def lines(run: Path, what: str = "validation") -> list[dict]:
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in found if line["what"] == what]


# -- parts ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=6), st.floats(0, 3), st.floats(0, 2))
def test_a_terms_loss_is_the_mean_distance_from_the_best(values: list[float], weight: float, scale: float) -> None:
    term = Term(lambda frames, prompts: frames, weight, 5.0, scale, low=-3.0, high=4.0)
    rewards = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    loss = term.loss(rewards)
    expected = weight * scale * sum(abs(min(max(v, -3.0), 4.0) - 5.0) for v in values) / len(values)
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-9)
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    for value, slope in zip(values, gradient[0].tolist(), strict=True):
        if value < -3.0 or value > 4.0:
            assert slope == 0, "beyond its bounds a reward is pulled no further"


def test_prompts_are_read_from_lines_and_json_each_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two \none\n")
    (tmp_path / "b.json").write_text('["one", {"prompt": "two"}, {"text": "one"}]')
    (tmp_path / "c.jsonl").write_text('{"caption": "one"}\n{"prompt": "two"}\n')
    for name in ("a.txt", "b.json", "c.jsonl"):
        assert read_prompts(tmp_path / name, "reward.prompts") == ("one", "two")
    for content, why in (("", "holds no prompt"), ("\n \n", "holds no prompt"), ("[1]", "no text"), ("[", "broken")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=why):
            read_prompts(tmp_path / "bad.json", "reward.prompts")
    with pytest.raises(UserError, match="no such file"):
        read_prompts(tmp_path / "gone.txt", "reward.prompts")


def test_a_condition_tells_its_numbers() -> None:
    numbers = {"motion": 0.2, "motion_base": 1.0, "distance": 3.0}
    assert reached(["distance > 5", "motion < 0.5 * motion_base"], numbers) == (
        "motion < 0.5 * motion_base (motion 0.2, motion_base 1)"
    )
    assert reached(["motion > 1"], numbers) is None and reached([], numbers) is None
    with pytest.raises(UserError, match=r"did you mean 'motion'\?"):
        check_stop_when(["moton < 1"], numbers)
    with pytest.raises(UserError, match="not readable"):
        check_stop_when(["motion <"])


# -- the command ------------------------------------------------------------------------------------------


def test_the_plan_accounts_for_prompts(given_parts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_pipeline.main(words(given_parts, "plan")) == 0
    shown = capsys.readouterr().out
    assert "4 prompts to sample from, 2 held out" in shown and "5x32x32" in shown
    held = words(given_parts, "plan", "reward.held_out=null", "data.validation=0.5")
    assert run_pipeline.main(held) == 0
    shown = capsys.readouterr().out
    assert any(f"{4 - n} prompts to sample from, {n} held out" in shown for n in (1, 2, 3))


def table_of(folder: Path) -> Path:
    """Write an output of `curate` of four clips: three of one place, each with a long and a short caption."""
    rows = [
        table_row(i) | {"caption": f"a long text {i}", "caption_en_short": f"short {i}", "place": place}
        for i, place in enumerate(("coast", "coast", "coast", None))
    ]
    (folder / "clips").mkdir(parents=True)
    (folder / "train").mkdir()
    for row in rows:
        (folder / row["clip_path"]).write_bytes(b"x")
    schema = table_schema(("caption_en_short",)).append(pa.field("place", pa.string()))
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "clips" / "part-00000.parquet")
    return folder


def test_captions_and_quotas_of_a_table_hold_for_its_prompts(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("one\ntwo\n")
    (tmp_path / "held_out.txt").write_text("short 2\n")
    values = {
        "data.metadata": str(table_of(tmp_path / "out")),
        "data.captions": {"caption": 0.5, "caption_en_short": 0.5},
        "data.repeat": "2 * quota(place, 0.4)",
        "reward.prompts": str(tmp_path / "prompts.txt"),
        "reward.held_out": str(tmp_path / "held_out.txt"),
    }
    rows = collect_prompts(load_config(TINY, [], values), MAGVIT)
    by_caption = {row.caption: row for row in rows.train}
    assert by_caption.keys() == {"one", "two", "a long text 0", "a long text 1", "a long text 3"}, (
        "a row of which a caption is held out is not trained on"
    )
    assert by_caption["a long text 0"].captions == ("a long text 0", "short 0") and not by_caption["one"].captions
    # Prompts of a file are drawn once, the row without a place twice, and the two of one place share two fifths.
    repeats = {caption: row.repeat for caption, row in by_caption.items()}
    total = sum(repeats.values())
    assert repeats["a long text 0"] + repeats["a long text 1"] == pytest.approx(0.4 * total)
    assert repeats["one"] == repeats["two"] == 1 and repeats["a long text 3"] == 2
    assert any("quota(place, 0.4)" in note for note in rows.notes)
    prompts = Prompts(rows.train, lambda texts: Conditioning(torch.zeros(len(texts), 1, 1)), seed=3)
    bucket, place = rows.train_buckets.buckets[0], [row.caption for row in rows.train].index("a long text 0")
    drawn = {prompts(MicroBatch(bucket, (place,), (1.0,), epoch), (0,)).prompts for epoch in range(40)}
    assert drawn == {("a long text 0",), ("short 0",)}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("reward.terms={}", "no reward with a weight above 0"),
        ("reward.terms={brightness: {weight: 0}}", "no reward with a weight above 0"),
        ("reward.terms={text_area: {}}", "text_area: cannot be differentiated; those that can: brightness"),
        ("reward.terms={brigtness: {}}", "did you mean 'brightness'"),
        ("reward.terms={brightness: {low: 1, high: 0}}", "low 1 must be below high 0"),
        ("reward.gradient_steps=9", "reward.gradient_steps 9: must be 1 to reward.steps, 8"),
        ("reward.decoded_latents=1", "stillness looks at change; set it to 2"),
        ("reward.prompts=null", "names no file, and there are no captions"),
        ("reward.prompts=gone.txt", "no such file"),
        ("reward.num_frames=6", "6 frames are not 4n+1"),
        ("reward.sampler=ddim", "use flow_euler"),
        ("watch.stop_when=[moton < 1]", "did you mean 'motion'"),
        ("reward.held_out=null", "needs held-out prompts"),
    ],
)
def test_what_cannot_be_is_one_line(
    given_parts: Path, capsys: pytest.CaptureFixture[str], change: str, why: str
) -> None:
    assert why in said(capsys, *words(given_parts, "plan", change))


def test_rewards_without_their_weights_are_named_before_training(
    given_parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    terms = "reward.terms={pickscore: {}}"
    train = words(given_parts, "train", terms, "--output", tmp_path, "--runner", "inline")
    line = said(capsys, *train)
    assert not any(tmp_path.iterdir()), "nothing was encoded before"
    assert "pickscore-v1" in line and "3.9 GB" in line and "weights fetch pickscore-v1" in line


# -- runs -------------------------------------------------------------------------------------------------


def rises(values: list[float]) -> bool:
    """Whether values go up in trend: the rank correlation with their place is high, and the last beats the first."""
    places = torch.arange(len(values), dtype=torch.float64)
    ranks = torch.tensor(values, dtype=torch.float64).argsort().argsort().double()
    return float(torch.corrcoef(torch.stack([places, ranks]))[0, 1]) > 0.8 and values[-1] > values[0]


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["brightness", "random_cnn"])
def test_a_reward_rises_on_held_out_prompts_and_the_base_stays(given_parts: Path, tmp_path: Path, reward: str) -> None:
    base = given_parts / "pipeline" / "transformer"
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    out = tmp_path / "run"
    more = ["train.steps=30", "watch.validate_every=5", "watch.stop_when=[]", f"reward.terms={{{reward}: {{}}}}"]
    assert trained(given_parts, out, *more) == 0
    found = lines(out)
    assert [line["step"] for line in found] == [5, 10, 15, 20, 25, 30]
    values = [line[reward] for line in found]
    assert rises(values) and values[-1] > found[0][f"{reward}_base"] + 0.02, values
    assert len({line[f"{reward}_base"] for line in found}) == 1
    assert rises([line["distance"] for line in found]) and found[0]["distance"] > 0
    assert {"sharpness", "contrast", "motion", "stillness", "brightness"} <= found[0].keys(), "the others show hacking"
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    # Both exports are there; the run has read them back and compared, and stops where they differ by anything.
    names = {path.name for path in (out / "lora").iterdir()}
    assert {"pytorch_lora_weights.safetensors", "lora_kohya.safetensors"} <= names
    assert run_pipeline.main(["sample", str(out), "--prompt", "a disc", "--output", str(tmp_path), "--steps", "2"]) == 0


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit(given_parts: Path, tmp_path: Path) -> None:
    more = ["reward.steps=3", "reward.gradient=random", "watch.checkpoint_every=2", "watch.validate_every=0"]
    more += ["watch.stop_when=[]", "train.learning_rate=0.01"]
    assert trained(given_parts, tmp_path / "whole", "train.steps=4", *more) == 0
    for steps in (2, 4):
        assert trained(given_parts, tmp_path / "parts", f"train.steps={steps}", *more) == 0
    file = "checkpoints/step-00000004/transformer/diffusion_pytorch_model.safetensors"
    whole, parts = (load_file(tmp_path / name / file) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_two_workers_learn_what_one_does(given_parts: Path, tmp_path: Path) -> None:
    more = ["buckets.micro_batches_per_step=2", "train.steps=2", "reward.steps=2", "watch.validate_every=2"]
    for workers in (0, 2):
        assert trained(given_parts, tmp_path / str(workers), *more, f"launch.workers={workers}") == 0
    file = "checkpoints/step-00000002/transformer/diffusion_pytorch_model.safetensors"
    one, two = (load_file(tmp_path / str(workers) / file) for workers in (0, 2))
    assert all(close(one[name], two[name], 1e-3) for name in one)
    alone, both = (lines(tmp_path / str(workers))[-1] for workers in (0, 2))
    assert both["brightness"] == pytest.approx(alone["brightness"], rel=1e-4)


@pytest.mark.slow
def test_all_weights_can_be_trained_by_ddim_and_with_guidance(given_parts: Path, tmp_path: Path) -> None:
    more = ["lora.rank=0", "train.steps=4", "watch.validate_every=2", "reward.guidance=2", "reward.steps=3"]
    more += ["watch.stop_when=[]", "model.base=null", "objective.kind=epsilon", "reward.stop_input=true"]
    pipeline = given_parts / "pipeline"
    more += [f"model.{part}={pipeline / part}" for part in ("transformer", "vae")]
    more.append(f"model.text_encoder={pipeline}")
    assert trained(given_parts, tmp_path / "run", *more) == 0
    first, last = lines(tmp_path / "run")
    assert 0 < first["distance"] < last["distance"]


@pytest.mark.slow
def test_the_guard_stops_a_run_that_would_freeze_the_video(
    given_parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = "reward.terms={motion: {best: 0, scale: 1}}"  # what wins by standing still
    more = [still, "train.steps=60", "watch.validate_every=4", "train.learning_rate=0.01"]
    assert trained(given_parts, tmp_path, *more, "watch.stop_when=[motion < 0.7 * motion_base]") == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "watch.stop_when holds: motion < 0.7 * motion_base (motion " in line
    found = lines(tmp_path)
    assert len(found) < 15 and found[-1]["motion"] < 0.7 * found[-1]["motion_base"]
    assert all(one["motion"] >= 0.7 * one["motion_base"] for one in found[:-1])
    assert (tmp_path / "checkpoints" / f"step-{found[-1]['step']:08d}").is_dir()
    # What it had learnt by then is exported, and the run says why it is no more.
    assert f"is in {tmp_path / 'model'}" in line
    assert "stop_when holds" in json.loads((tmp_path / "run.json").read_text())["stopped"]
    exported = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert any(bool(tensor.any()) for name, tensor in exported.items() if "lora_B" in name), "0 in an untrained one"
    made = ["--output", str(tmp_path / "samples"), "--steps", "2"]
    assert run_pipeline.main(["sample", str(tmp_path), "--prompt", "a disc", *made]) == 0


@pytest.mark.slow
def test_rewards_that_are_no_numbers_are_shown_skipped_and_stop_the_third_time(
    given_parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"count": 0}

    class Failing(Brightness):
        def load(self, device, weights):
            judge = super().load(device, weights)

            def broken(frames, prompts):
                calls["count"] += 1
                bad = float("nan") if calls["count"] in (1, 2) or calls["count"] > 3 else 1.0
                return judge(frames, prompts) * torch.tensor([[bad]] + [[1.0]] * (len(frames) - 1))

            return broken

    monkeypatch.setitem(REWARDS, "brightness", Failing())
    more = ["reward.terms={brightness: {}}", "train.steps=20", "reward.steps=2", "watch.validate_every=0"]
    more += ["watch.stop_when=[]", "watch.log_every=1"]
    assert trained(given_parts, tmp_path, *more) == 1
    told = capsys.readouterr()
    skipped = [line for line in told.out.splitlines() if "skipped" in line]
    assert [line.split()[1] for line in skipped] == ["1", "2", "4", "5"] and "prompt-" in skipped[0]
    assert "step 6: the loss or the gradient is not finite" in told.err and "prompt-" in told.err
    assert sorted(path.name for path in (tmp_path / "nonfinite").iterdir()) == [
        f"step-{step:08d}.png" for step in (1, 2, 4, 5, 6)
    ]
    assert [line["skipped_steps"] for line in lines(tmp_path, "train")][-1] >= 4
