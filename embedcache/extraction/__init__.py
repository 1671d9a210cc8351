"""Extraction: plan what is missing, decode once, run every backbone, commit whole shards."""
