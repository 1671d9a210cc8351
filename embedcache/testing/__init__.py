"""What tests and authors of extensions need: small real files, weights and stores, and comparisons of them."""

from embedcache.testing.dataset_contract import check_dataset
from embedcache.testing.replicas import make_replica

__all__ = ["check_dataset", "make_replica"]
