"""Probes: small models over frozen features, numpy arrays in and out, without any knowledge of a cache."""

from embedcache.registry import Registry

REGISTRY = Registry(
    "probe",
    "embedcache.probes",
    {
        "logistic": "embedcache.probes.logistic:LogisticProbe",
        "linear": "embedcache.probes.linear:LinearProbe",
        "ridge": "embedcache.probes.ridge:RidgeProbe",
        "knn": "embedcache.probes.knn:NearestNeighbourProbe",
    },
)
