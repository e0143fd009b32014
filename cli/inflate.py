"""The `inflate` command: a video model from an image model, and from the parts that V1 is published in."""

import argparse
from pathlib import Path

from cli.common import shown
from cli.places import local
from core.errors import UserError
from core.files import atomic_folder

HELP = "make a video model of V1, V2 or V3 from an image model (PixArt), a personalised checkpoint and a motion module"
FAMILIES = ("v1", "v2", "v3")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "base", metavar="FOLDER", help="image model: config.json and weights; or a video model's folder"
    )
    parser.add_argument("--family", required=True, choices=FAMILIES, help="what the video model shall be")
    parser.add_argument(
        "--output", required=True, metavar="FOLDER", help="transformer, for model.transformer; not there yet"
    )
    parser.add_argument("--personalised", metavar="FILE", help="checkpoint of the image model that was trained further")
    parser.add_argument(
        "--motion-module", metavar="FILE", help="without it: new layers, which change nothing until trained"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the new layers' weights")


def run(parsed: argparse.Namespace) -> int:
    """Put the parts together and write the transformer."""
    import torch

    from models.transformers.easyanimate_v1 import V1
    from models.transformers.easyanimate_v2 import V2
    from models.transformers.easyanimate_v3 import V3
    from models.transformers.inflation import assemble

    output = local(parsed.output, "output")
    if output.exists():
        raise UserError("is there already", field="output", value=output, fix="name a new folder")
    torch.manual_seed(parsed.seed)
    family = {"v1": V1, "v2": V2, "v3": V3}[parsed.family]
    parts = [Path(file) if file else None for file in (parsed.personalised, parsed.motion_module)]
    model = assemble(family, Path(parsed.base), *parts)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(output) as temporary:
        model.save_pretrained(temporary)  # type: ignore[operator]
    print(f"transformer {shown(output)}")
    return 0
