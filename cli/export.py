"""The `export` command: metadata for trainers."""

import argparse
import dataclasses

from cli.buckets import output_at
from cli.common import print_json, shown
from cli.parser import add_json
from cli.places import inputs
from core.errors import UserError
from core.sanitize import printable
from core.storage.place import called
from core.storage.urls import is_url
from curation.export import FILES, FORMATS, export
from curation.export.chosen import Chosen
from curation.export.how import ExportSettings
from curation.folders import CLIPS, CONTROLS, PREVIEWS, RETIRED, SHARDS
from curation.output.folder import output_lock_if_free
from curation.pipeline import need_table

HELP = "write metadata for trainers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("output", metavar="DIR", help="or the URL of an output in a bucket")
    parser.add_argument(
        "--format", metavar="FORMAT", default="internal", help=f"{', '.join(FORMATS)}, or one of a plug-in"
    )
    parser.add_argument("--type", choices=("video", "image"), help="clips of this type alone; default: both")
    parser.add_argument("--absolute", action="store_true", help="absolute instead of relative paths")
    parser.add_argument("--where", metavar="EXPR", help="rows for which it holds: 'motion > 2'; default: all")
    parser.add_argument("--clips", metavar="FILE", help="clips of a selection, as find --write writes it")
    add_json(parser)


def run(parsed: argparse.Namespace) -> int:
    """Write a trainer's metadata format."""
    if parsed.absolute and is_url(parsed.output):
        raise UserError("--absolute names files on this machine, and the output lies in a bucket; leave it out")
    unread = (PREVIEWS, CONTROLS, RETIRED, *((CLIPS, SHARDS) if parsed.format in FILES else ()))
    with inputs() as here, output_at(parsed.output, unread, puts_back=True) as out:
        need_table(out)
        chosen = Chosen(parsed.where, None if parsed.clips is None else here.at(parsed.clips))
        with output_lock_if_free(out):
            result = export(
                out, parsed.format, ExportSettings(absolute=parsed.absolute, kind=parsed.type, chosen=chosen)
            )
    if parsed.json:
        print_json(dataclasses.asdict(result))
        return 0
    place = called(out)
    for path in result.paths:
        print(f"{printable(place)}/{path.relative_to(out)}" if is_url(place) else shown(path))
    print(f"{result.rows} rows", end="")
    left_out = {
        "without file": result.without_file,
        "without caption": result.without_caption,
        "that are no .mp4": result.not_videos,
    }
    print("".join(f", left out {count} {what}" for what, count in left_out.items() if count))
    if 0 < result.images < result.rows:
        print(f"{result.images} of them are images; folder loaders decode one kind: --type video, or --type image")
    return 0
