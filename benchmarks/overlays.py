"""What the `overlay` operator costs over a bare decode of the same files, in CPU-seconds.

    python -m benchmarks.overlays [--rounds N] VIDEO …

Whole runs of `curate` with the default recipe in the plain loop, without and with the operator, every clip scored and
none cut, in turns with PyAV decoding the same streams to nothing on one thread. Printed in shares of the decode: the
operator itself, and with it the frames that are taken, packed and unpacked for it; the cost of `text_area` beside them.
Written to `.bench/overlays.json`; there is no target, since the operator is off by default.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.engine import curated
from benchmarks.floor import bare_decode
from benchmarks.measure import shown, spread, write_results

CHANGES = ("score_rejected=true", "cut.mode=none")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:1]
    shares: dict[str, list[float]] = {"overlay": [], "overlay and its frames": [], "text_area": []}
    for _ in range(options.rounds):
        decode_s = sum(bare_decode(file) for file in options.files)
        with tempfile.TemporaryDirectory() as folder:
            runs = [
                curated(options.files, "inline", cores, Path(folder) / name, [*CHANGES, *more])
                for name, more in (("without", []), ("with", ["operators.overlay=true"]))
            ]
        without, told = runs[0].told, runs[1].told
        shares["overlay"].append(told["overlay"] / decode_s)
        added_s = told["overlay"] + sum(told[name] - without[name] for name in ("samples", "scale"))
        shares["overlay and its frames"].append(added_s / decode_s)
        shares["text_area"].append(told["text_area"] / decode_s)
    print(f"CPU ÷ bare decode (median, lowest and highest of {options.rounds} rounds)")
    for name, values in shares.items():
        print(f"  {name:24} {shown(values)}")
    print(f"written to {write_results('overlays', {name: spread(values) for name, values in shares.items()})}")


if __name__ == "__main__":
    main()
