"""What every test of a backbone needs first."""

from embedcache.backbones.torchvision_pair import complete_torchvision

complete_torchvision()  # before any of these tests imports a model of transformers
