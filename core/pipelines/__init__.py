"""Contains one file per capability: nouns in, nouns out."""
