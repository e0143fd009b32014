"""The `sample` command: pictures and videos from prompts, images and videos."""

import argparse
import re
from typing import TYPE_CHECKING

from cli.common import shown, use_weights
from cli.parser import add_weights
from cli.places import Inputs, files_for, inputs, of_model
from core.storage.urls import is_url

if TYPE_CHECKING:
    from sampling.request import Lora, Options, Request

MEDIA = ("image", "end_image", "video", "mask", "control", "reference", "trajectory")
DRAWN = ("canny", "lines", "soft_edges", "trajectory", "gray", "blur", "tile", "depth", "pose", "hed", "mlsd")
HELP = "sample pictures and videos from prompts, images and videos"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", metavar="MODEL", help="a training run, or a pipeline folder in diffusers layout; or a URL"
    )
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="may be given several times")
    parser.add_argument("--prompts", metavar="FILE", help="one prompt a line")
    parser.add_argument(
        "--output", required=True, metavar="DIR|FILE.mp4|FILE.png",
        help="or a URL; the same request again replaces its own files; what another made is never replaced",
    )  # fmt: skip
    parser.add_argument("--negative", default="", metavar="TEXT", help="what guidance leads away from")
    seeding = parser.add_mutually_exclusive_group()
    seeding.add_argument("--seed", type=int, metavar="N", help="of the first prompt, the next has N+1; default 0")
    seeding.add_argument("--seeds", metavar="0..9", help="every prompt with each of these: 0..9 or 1,5,8..10")
    parser.add_argument("--size", type=_size, metavar="WxH", help="default: the image's aspect, or as trained")
    parser.add_argument("--frames", type=int, metavar="N", help="as the VAE takes it, V5: 4n+1; 1 makes a picture")
    parser.add_argument("--fps", type=float)
    parser.add_argument("--image", metavar="FILE", help="the first frame")
    parser.add_argument("--end-image", metavar="FILE", help="the last frame")
    parser.add_argument("--video", metavar="FILE", help="video (or image) to begin from")
    parser.add_argument("--mask", metavar="FILE", help="as large as the video; white is generated")
    parser.add_argument("--strength", type=float, help="0 gives the video back, 1 forgets it; default 0.7, masked 1")
    parser.add_argument("--control", metavar="FILE", help="a control map, or footage that one is made of")
    parser.add_argument(
        "--control-kind", default="as_is", metavar="KIND",
        help=f"the map made of --control: {', '.join(DRAWN)}; default: as_is, it is a map",
    )  # fmt: skip
    parser.add_argument("--control-scale", type=float, default=1.0, metavar="X", help="how strongly it acts; default 1")
    parser.add_argument("--control-start", type=float, default=0.0, metavar="X", help="share of the steps; default 0")
    parser.add_argument("--control-end", type=float, default=1.0, metavar="X", help="share of the steps; default 1")
    parser.add_argument("--reference", metavar="FILE", help="image whose look the video shall have")
    parser.add_argument(
        "--camera", metavar="PRESET|FILE",
        help="pan_left, pan_right, pan_up, pan_down, zoom_in, zoom_out, roll_left, roll_right, static, a path (.txt), "
        "or footage that shows one",
    )  # fmt: skip
    parser.add_argument(
        "--camera-speed", type=float, default=1.0, metavar="X", help="how far the camera goes; default 1"
    )
    parser.add_argument("--trajectory", metavar="FILE", help="points that things follow, as JSON or CSV")
    parser.add_argument("--segments", type=int, metavar="N", help="continue the video to N times the model's frames")
    parser.add_argument("--length", type=int, metavar="N", help="frames in all, in place of --segments")
    parser.add_argument(
        "--part", action="append", default=[], metavar="[FRAMES|]TEXT",
        help="of a long video: what its parts show, one after the other; borders fall between segments",
    )  # fmt: skip
    parser.add_argument("--overlap", type=int, metavar="N", help="frames that segments share; default 5, of V3: 4")
    parser.add_argument("--steps", type=int, metavar="N", help="denoising steps; default: the family's (V5.1: 50)")
    parser.add_argument("--guidance", type=float, metavar="W", help="1 or less: none; default: the family's (V5.1: 6)")
    parser.add_argument("--sampler", metavar="NAME", help="default: the family's, or the first that fits the weights")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="PATH[:SCALE]", help="may be given several times"
    )
    parser.add_argument("--fuse-lora", action="store_true", help="put the LoRAs into the weights")
    parser.add_argument(
        "--memory", default="auto", metavar="MODE",
        help="none, model_cpu_offload, model_cpu_offload_and_qfloat8, sequential_cpu_offload, or auto (default)",
    )  # fmt: skip
    parser.add_argument("--vae-tiling", action="store_true", help="less memory for large pictures")
    parser.add_argument("--cache-threshold", type=float, metavar="X", help="first-block caching; 0.05 is careful")
    add_weights(parser)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; more pay for large models only")


def run(parsed: argparse.Namespace) -> int:
    """Sample pictures and videos from prompts, images and videos."""
    from controls import CONTROLS
    from controls.networks import check_network
    from sampling.command import sample
    from sampling.files import sample_files
    from sampling.request import each_of, parse_seeds, read_prompts

    use_weights(parsed.weights)
    if parsed.control is not None and parsed.control_kind in CONTROLS:
        check_network(parsed.control_kind, CONTROLS[parsed.control_kind]())  # before a model is loaded
    seeds = parse_seeds(parsed.seeds) if parsed.seeds is not None else None
    with inputs() as here, files_for(parsed.output, sample_files) as (output, put):
        template = _template(parsed, here)
        prompts = (*parsed.prompt, *(read_prompts(here.at(parsed.prompts)) if parsed.prompts else ()))
        prompts = prompts or tuple(part.prompt for part in template.prompts[:1])
        options, model = _options(parsed, here), here.at(parsed.model, of_model)
        for path in sample(model, each_of(template, prompts, seeds), output, options, parsed.threads, put):
            print(shown(path))
    return 0


def _template(parsed: argparse.Namespace, here: Inputs) -> "Request":
    """Return the request but for prompt and seed, with its media on this machine."""
    from sampling.request import Request, SegmentPrompt

    width, height = parsed.size or (None, None)
    files = {name: None if (given := getattr(parsed, name)) is None else here.at(given) for name in MEDIA}
    is_place = parsed.camera is not None and is_url(parsed.camera)
    return Request(
        prompt="",
        negative=parsed.negative,
        seed=parsed.seed or 0,
        width_px=width,
        height_px=height,
        num_frames=parsed.frames,
        fps=parsed.fps,
        steps=parsed.steps,
        guidance=parsed.guidance,
        sampler=parsed.sampler,
        strength=parsed.strength,
        segments=parsed.segments,
        length=parsed.length,
        prompts=tuple(SegmentPrompt.parse(text) for text in parsed.part),
        overlap=parsed.overlap,
        control_kind=parsed.control_kind,
        camera=str(here.at(parsed.camera)) if is_place else parsed.camera,
        camera_speed=parsed.camera_speed,
        control_scale=parsed.control_scale,
        control_start=parsed.control_start,
        control_end=parsed.control_end,
        **files,
    )


def _options(parsed: argparse.Namespace, here: Inputs) -> "Options":
    from controls import CONTROLS
    from controls.frames import map_makers
    from sampling.request import Options

    return Options(
        loras=tuple(lora_at(here, text) for text in parsed.lora),
        fuse_loras=parsed.fuse_lora,
        memory=parsed.memory,
        vae_tiling=parsed.vae_tiling,
        cache_threshold=parsed.cache_threshold,
        maps=map_makers(CONTROLS),
    )


def lora_at(here: Inputs, text: str) -> "Lora":
    """Return the adapter that `PATH[:SCALE]` names, which may be a URL.

    Raises:
        UserError: there is none.
    """
    from sampling.request import Lora

    if not is_url(text):
        return Lora.parse(text)
    found = re.fullmatch(r"(.+?)(:[\d.eE+-]+)?", text)
    assert found is not None
    return Lora.parse(f"{here.at(found[1], of_model)}{found[2] or ''}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT, such as 672x384")
    return int(match[1]), int(match[2])
