"""Contains readers and writers of 3D files, read_*/write_* in pairs."""
