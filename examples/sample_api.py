"""Sample from a training run or a pipeline folder, loading it once.

python examples/sample_api.py runs/video samples "a red disc" "a blue field" [--lora runs/lora]

The files are named by number; `selects sample` names them by prompt, seed and request.
"""

import argparse
from pathlib import Path

from sampling.files import write_sample
from sampling.model import open_model
from sampling.request import Lora, Options, Request, each_of


def main(model_folder: str, out: str, prompts: list[str], loras: list[str], steps: int) -> int:
    """Sample each prompt into a file of its own."""
    options = Options(loras=tuple(Lora.parse(text) for text in loras))
    model = open_model(Path(model_folder), options)
    jobs = [model.check(request) for request in each_of(Request("", steps=steps, guidance=2.0), prompts)]
    model.prepare(jobs)  # decides about memory by the largest, and encodes all texts at once
    Path(out).mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(jobs):
        sample = model.sample(job)
        write_sample(sample, Path(out) / f"{number}.mp4")
        print(f"{number}.mp4: {sample.frames.shape[0]} frames, {job.request.prompt}")
    for note in model.take_notes():
        print(f"note: {note}")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--lora", action="append", default=[], metavar="PATH[:SCALE]")
    parser.add_argument("--steps", type=int, default=25)
    given = parser.parse_args()
    raise SystemExit(main(given.model, given.output, given.prompts, given.lora, given.steps))
