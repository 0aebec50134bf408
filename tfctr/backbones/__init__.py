"""CTR models; a method of `tfctr.frameworks` can be put around any of them."""

from tfctr.backbones.backbone import Backbone, create, register, registered
from tfctr.backbones.dcn_v2 import DCNv2
from tfctr.backbones.deepfm import DeepFM
from tfctr.backbones.lr import LR

__all__ = ["LR", "Backbone", "DCNv2", "DeepFM", "create", "register", "registered"]
