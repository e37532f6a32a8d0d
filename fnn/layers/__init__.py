"""One file per family of layers. Each imports the ground floor alone."""
