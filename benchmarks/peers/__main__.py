"""What curation costs with other tools: the same task on the same files, in turns.

    python -m benchmarks.peers [--rounds N] [--minutes M] [--size 480p|720p|1080p] [--only NAME …] [--install]

The task (see `task`): PySceneDetect's ContentDetector, then bounds on duration, size and motion, clip by clip. Peers:
Data-Juicer 1.6.1 in its best modes (`data_juicer`), and the orders of EasyAnimate and of Hugging Face's
video-dataset-scripts re-stated (`restated`). Ours is measured with its own flow, with the peers' (Farnebäck's), and as
the default recipe without text, which measures more. Before times are compared, clips and verdicts are: with those
of a reference that decodes the source with OpenCV and cuts nothing.

Prints for each tool CPU-seconds (median, lowest and highest of the rounds) per second of footage: all of it; without
encoding; without encoding and start-up. The last line of each peer is the ratio with encoding if all but our encoder
cost nothing, which is the most that anyone could reach. Encoding is measured apart in every round: the same cuts by the
same ffmpeg program, less the same cuts decoded to nothing. Start-up is the same command on a file of one second.
`.bench/peers.json` holds the same. Ends with status 1 where clips differ or a target is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.corpus import BY_SIDE, FOLDER, corpus
from benchmarks.measure import ROOT, Cost, measured, shown, verdict, write_results
from benchmarks.peers import ours, restated
from benchmarks.peers.data_juicer import data_juicer, ffmpeg_program, install
from benchmarks.peers.task import MIN_S, Agreement, Clip, agreement, is_kept

Method = Callable[[list[str], Path], tuple[Cost, list[Clip]]]
OURS, OURS_CUT, OURS_FLOW = "selects, Ray", "selects, Ray, cutting", "selects, Ray, peers' flow"
JUDGED = ("Data-Juicer, default", "Data-Juicer, Ray", "EasyAnimate's order")
TARGETS = {"without encoding": 6.0, "with encoding": 3.0}
NEAR_SHARE = 0.95
"""of the clips must be the reference's, to a few frames, and judged alike"""


@dataclass
class Measured:
    """What the rounds gave for one tool; seconds of the CPU, but the wall's."""

    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    encoding_s: list[float] = field(default_factory=list)
    startup_s: float = 0.0
    clips: int = 0
    accepted: int = 0
    agreement: Agreement = Agreement(0, 0, 0, 0)

    def without_encoding(self) -> list[float]:
        """Return each round's seconds less what the encoder took."""
        return [all_s - encoding_s for all_s, encoding_s in zip(self.cpu_s, self.encoding_s, strict=True)]


def order(videos: list[str], out: Path, name: str, *, full_size: bool) -> tuple[Cost, list[Clip]]:
    """Do the task in one of the re-stated orders, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.peers.restated", name, *videos, "--out", str(out)]
    words += ["--ffmpeg", ffmpeg_program(), *(["--full-size"] if full_size else [])]
    cost = measured(words, out.with_suffix(".log"), env={"PYTHONPATH": str(ROOT)})
    return cost, [Clip(**clip) for clip in json.loads((out / "result.json").read_text())["clips"]]


METHODS: dict[str, Method] = {
    "selects, inline": partial(ours.selects, runner="inline"),
    OURS: partial(ours.selects, runner="ray"),
    OURS_FLOW: partial(ours.selects, runner="ray", changes=ours.PEERS_FLOW),
    "selects, inline, default recipe": partial(ours.selects, runner="inline", changes=ours.DEFAULT, default=True),
    "selects, inline, cutting": partial(ours.selects, runner="inline", changes=ours.CUT),
    OURS_CUT: partial(ours.selects, runner="ray", changes=ours.CUT),
    "Data-Juicer, default": partial(data_juicer, ray=False),
    "Data-Juicer, Ray": partial(data_juicer, ray=True),
    "EasyAnimate's order": partial(order, name="easyanimate", full_size=True),
    "EasyAnimate's, flow at 360 px": partial(order, name="easyanimate", full_size=False),
    "Hugging Face's order": partial(order, name="hugging_face", full_size=False),
}


def reference(videos: list[str], out: Path) -> tuple[list[restated.Scene], list[Clip]]:
    """Return the scenes and verdicts by the plainest way: scene by scene from the source, losslessly cut."""
    scenes = [scene for video in videos for scene in restated.scenes_of(video, "opencv")]
    lossless = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-an")
    clips = []
    for scene in scenes:
        restated.cut_scene(scene, out, ffmpeg_program(), lossless)
        file = scene.file(out)
        kept = is_kept(*restated.facts_of(file), restated.motion_of(file, full_size=False))
        clips.append(Clip(Path(scene.video).stem, scene.start, scene.end, kept))
        file.unlink()
    return scenes, clips


def encoding_s(scenes: list[restated.Scene], out: Path) -> dict[str, float]:
    """Measure what encoding costs each kind of peer: those who cut all, the large ones, or videos of many scenes."""
    many = {scene.video for scene in scenes if scene.number}
    spent: dict[str, float] = defaultdict(float)
    for scene in scenes:
        program = ffmpeg_program()
        seconds = restated.cut_scene(scene, out, program)
        seconds -= restated.cut_scene(scene, out, program, restated.DECODE_ONLY)
        _, width, height = restated.facts_of(Path(scene.video))
        spent["Hugging Face"] += seconds
        if restated.is_large(width, height) and scene.end_s - scene.start_s >= MIN_S:
            spent["EasyAnimate"] += seconds
        if scene.video in many:
            spent["Data-Juicer"] += seconds
    return spent


def in_turns(names: list[str], videos: list[str], rounds: int, folder: Path) -> tuple[dict[str, Measured], list[Clip]]:
    """Run everything in turns."""
    found = {name: Measured() for name in names}
    scenes, truth = reference(videos, folder)
    second = str(folder / "second.mp4")
    first = scenes[0]
    one = restated.Scene(first.video, 0, 0, 0, 0.0, 1.0)
    restated.cut_scene(one, folder, ffmpeg_program())
    one.file(folder).rename(second)
    for number in range(rounds):
        apart = encoding_s(scenes, folder)
        for name in names:
            result, out = found[name], folder / f"{number}_{names.index(name)}"
            if number == 0:
                result.startup_s = METHODS[name]([second], folder / f"start_{names.index(name)}")[0].cpu_s
            cost, clips = METHODS[name](videos, out)
            result.cpu_s.append(cost.cpu_s)
            result.wall_s.append(cost.wall_s)
            result.encoding_s.append(next((s for peer, s in apart.items() if name.startswith(peer)), 0.0))
            result.clips, result.accepted = len(clips), sum(clip.kept for clip in clips)
            result.agreement = agreement(clips, truth)
            print(f"round {number + 1}: {name}: {cost.cpu_s:.1f} CPU-s, {cost.wall_s:.1f} s", flush=True)
    return found, truth


def ratios(found: dict[str, Measured]) -> dict[str, dict[str, list[float]]]:
    """Return each peer over ours, round by round."""
    told: dict[str, dict[str, list[float]]] = {}
    bare, cutting = found.get(OURS), found.get(OURS_CUT)
    for name, peer in found.items():
        if name.startswith("selects") or bare is None or cutting is None:
            continue
        pairs = list(zip(peer.without_encoding(), bare.cpu_s, strict=True))
        told[name] = {
            "without encoding": [(a - peer.startup_s) / (b - bare.startup_s) for a, b in pairs],
            "without encoding, start-up included": [a / b for a, b in pairs],
            **_with_peers_flow(peer, found.get(OURS_FLOW)),
            "with encoding": [
                (a - peer.startup_s) / (b - cutting.startup_s) for a, b in zip(peer.cpu_s, cutting.cpu_s, strict=True)
            ],
            "with encoding, start-up included": [a / b for a, b in zip(peer.cpu_s, cutting.cpu_s, strict=True)],
            "with encoding, did ours nothing but encode": [
                (a - peer.startup_s) / (c - b) for a, b, c in zip(peer.cpu_s, bare.cpu_s, cutting.cpu_s, strict=True)
            ],
        }
    return told


def _with_peers_flow(peer: Measured, same: Measured | None) -> dict[str, list[float]]:
    """Return a peer over ours where ours computes the very flow that the peers do."""
    if same is None:
        return {}
    pairs = zip(peer.without_encoding(), same.cpu_s, strict=True)
    return {"without encoding, ours with their flow": [(a - peer.startup_s) / (b - same.startup_s) for a, b in pairs]}


def report(found: dict[str, Measured], truth: list[Clip], footage_s: float) -> list[str]:
    """Print the tables; return what is amiss."""
    amiss = []
    accepted = sum(clip.kept for clip in truth)
    print(f"\n{footage_s:.0f} s of footage, {len(truth)} clips, {accepted / len(truth):.0%} of them to be accepted")
    print("CPU-seconds per second of footage: all; without encoding; start-up in CPU-seconds; wall seconds")
    for name, one in found.items():
        start, wall_s = one.startup_s, statistics.median(one.wall_s)
        print(
            f"  {name:32} {shown([s / footage_s for s in one.cpu_s]):22} "
            f"{shown([s / footage_s for s in one.without_encoding()]):22} "
            f"{start:5.1f} {wall_s:7.1f}"
        )
    print("clips; of the reference's: the same to the frame, to three frames, rightly judged; rejected rows told why")
    for name, one in found.items():
        same, rejected = one.agreement, one.clips - one.accepted
        why = rejected if name.startswith("selects") else 0
        print(f"  {name:32} {one.clips:4} {same.same_spans:4} {same.near_spans:4} {same.right:4} {why:4} of {rejected}")
        if name != "selects, inline, default recipe" and same.right < NEAR_SHARE * same.clips:
            amiss.append(f"{name}: {same.right} of {same.clips} clips found and judged as the reference does")
    for name, kinds in ratios(found).items():
        print(f"{name} ÷ {OURS}")
        for kind, values in kinds.items():
            target = TARGETS.get(kind) if name in JUDGED else None
            print(f"  {kind:42} {shown(values)}" + (f", target {target:g}" if target else ""))
            if target and statistics.median(values) < target:
                amiss.append(f"{name} ÷ ours {kind}: {statistics.median(values):.2f}, target {target:g}")
    return amiss


def main() -> int:
    """Measure, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--size", choices=list(BY_SIDE), help="footage of this class alone")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="NAME")
    parser.add_argument("--install", action="store_true", help="make Data-Juicer's environment first")
    options = parser.parse_args()
    if options.install:
        install()
    ffmpeg_program()
    footage = corpus(FOLDER, options.minutes, BY_SIDE.get(options.size))
    footage_s = sum(one.duration_s for one in footage)
    with tempfile.TemporaryDirectory() as folder:
        videos = [str(one.path) for one in footage]
        found, truth = in_turns(options.only, videos, options.rounds, Path(folder))
    amiss = report(found, truth, footage_s)
    tables = {"footage_s": footage_s, "tools": {n: asdict(one) for n, one in found.items()}, "ratios": ratios(found)}
    write_results(f"peers_{options.size}" if options.size else "peers", tables)
    return verdict(amiss)


if __name__ == "__main__":
    sys.exit(main())
