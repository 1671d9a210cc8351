"""Evaluation: splits, metrics with intervals, results, figures. Reads caches, never imports torch or a backbone."""
