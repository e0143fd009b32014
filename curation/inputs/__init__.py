"""What a run is given: words on the command line, list files and folders, and the sources that they name."""
