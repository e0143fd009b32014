"""Train an adapter on curated clips, starting from a pipeline folder.

    python examples/train_lora.py OUT runs/video/model runs/lora [key=value ...]

The base here is tiny, as the demo leaves it (`demo_output/video/model`). For published V5.1 weights on a GPU take
`configs/train_easyanimate_lora.yaml` and the folder of the weights. The same call on a stopped run goes on with it.
"""

import sys
from pathlib import Path

from configs import CONFIGS
from train_bridge.config import load_config
from train_bridge.plan.plan import render_plan
from train_bridge.run import plan_run, train


def main(data: str, base: str, run: str, overrides: list[str]) -> int:
    """Plan, train, and print what there is to load elsewhere."""
    values = {"data.metadata": data, "model.base": base}
    config = load_config(CONFIGS / "train_lora_tiny.yaml", overrides, values)
    print(render_plan(config, plan_run(config)))
    train(config, Path(run), "inline")
    for file in sorted((Path(run) / "lora").iterdir()):
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
