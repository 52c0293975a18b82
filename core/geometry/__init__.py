"""Contains verbs on geometry arrays: transforms, normals, extraction, remeshing, unwrapping."""
