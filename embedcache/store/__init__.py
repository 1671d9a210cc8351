"""The store: FORMAT.md is its specification; `writer` makes it, `reader` opens it, `verify` doubts it."""
