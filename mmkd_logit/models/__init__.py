"""Networks, frozen teachers and the distiller."""

from .frozen_teacher import FrozenTeacher
from .logit_distiller import LogitDistiller
from .mobilenet_v2_cifar import MobileNetV2CIFAR
from .wide_resnet_cifar import WideResNetCIFAR

__all__ = ["FrozenTeacher", "LogitDistiller", "MobileNetV2CIFAR", "WideResNetCIFAR"]
