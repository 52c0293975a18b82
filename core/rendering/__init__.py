"""Contains the renderers: public functions on nouns that choose a backend."""
