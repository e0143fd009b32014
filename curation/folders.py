"""Names of the folders within an output, each once."""

TABLE = "clips"
PARTS = "_parts"
CLIPS = "train"
CONTROLS = "control"
PREVIEWS = "previews"
RETIRED = "_retired"
SHARDS = "webdataset"
