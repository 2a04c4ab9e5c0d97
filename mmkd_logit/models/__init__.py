"""Networks, frozen teachers and the distiller."""

from .distiller import LogitDistiller
from .feature_kd import FeatureDistilling, TorchdistillAdapter
from .mobilenet_v2 import MobileNetV2CIFAR
from .preprocessor import BatchPreprocessor
from .student_group import (
    StudentGroup,
    StudentGroupDDP,
    StudentGroupOptimConstructor,
    StudentGroupValLoop,
)
from .teacher import FrozenTeacher, TeacherSettings
from .teacher_cache import TeacherCache
from .wide_resnet import WideResNetCIFAR

__all__ = [
    "BatchPreprocessor",
    "FeatureDistilling",
    "FrozenTeacher",
    "LogitDistiller",
    "MobileNetV2CIFAR",
    "StudentGroup",
    "StudentGroupDDP",
    "StudentGroupOptimConstructor",
    "StudentGroupValLoop",
    "TeacherCache",
    "TeacherSettings",
    "TorchdistillAdapter",
    "WideResNetCIFAR",
]
