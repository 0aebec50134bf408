"""CTR models; a method of `tfctr.frameworks` can be put around any of them."""

from tfctr.backbones.autoint import AutoInt
from tfctr.backbones.backbone import Backbone, create, register, registered, registered_class
from tfctr.backbones.bst import BST
from tfctr.backbones.dcn import DCN
from tfctr.backbones.dcn_v2 import DCNv2
from tfctr.backbones.deepfm import DeepFM
from tfctr.backbones.dien import DIEN
from tfctr.backbones.din import DIN
from tfctr.backbones.dnn import DNN
from tfctr.backbones.fibinet import FiBiNET
from tfctr.backbones.finalmlp import FinalMLP
from tfctr.backbones.fm import FM
from tfctr.backbones.gdcn import GDCN
from tfctr.backbones.lr import LR
from tfctr.backbones.masknet import MaskNet
from tfctr.backbones.pnn import PNN
from tfctr.backbones.wide_deep import WideDeep
from tfctr.backbones.xdeepfm import XDeepFM

__all__ = [
    "BST",
    "DCN",
    "DIEN",
    "DIN",
    "DNN",
    "FM",
    "GDCN",
    "LR",
    "PNN",
    "AutoInt",
    "Backbone",
    "DCNv2",
    "DeepFM",
    "FiBiNET",
    "FinalMLP",
    "MaskNet",
    "WideDeep",
    "XDeepFM",
    "create",
    "register",
    "registered",
    "registered_class",
]
