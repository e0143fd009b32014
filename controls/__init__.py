"""One control map per file; this table is the only list of them."""

from controls.blur import Blur
from controls.camera import Camera
from controls.canny import Canny
from controls.depth import Depth
from controls.gray import Gray
from controls.hed import HedEdges
from controls.lines import Lines
from controls.mlsd import MlsdLines
from controls.pose import Pose
from controls.soft_edges import SoftEdges
from controls.tile import Tile
from controls.trajectory import Trajectory

CONTROLS: dict[str, type] = {
    "canny": Canny,
    "lines": Lines,
    "soft_edges": SoftEdges,
    "trajectory": Trajectory,
    "camera": Camera,
    "gray": Gray,
    "blur": Blur,
    "tile": Tile,
    "depth": Depth,
    "pose": Pose,
    "hed": HedEdges,
    "mlsd": MlsdLines,
}
