"""Networks, frozen teachers and the distiller."""

from .batch_preprocessor import BatchPreprocessor
from .feature_distilling import FeatureDistilling
from .frozen_teacher import FrozenTeacher
from .logit_distiller import LogitDistiller
from .mobilenet_v2_cifar import MobileNetV2CIFAR
from .student_group import StudentGroup
from .student_group_ddp import StudentGroupDDP
from .student_group_optim_constructor import StudentGroupOptimConstructor
from .teacher_cache import TeacherCache
from .torchdistill_adapter import TorchdistillAdapter
from .wide_resnet_cifar import WideResNetCIFAR

__all__ = [
    "BatchPreprocessor",
    "FeatureDistilling",
    "FrozenTeacher",
    "LogitDistiller",
    "MobileNetV2CIFAR",
    "StudentGroup",
    "StudentGroupDDP",
    "StudentGroupOptimConstructor",
    "TeacherCache",
    "TorchdistillAdapter",
    "WideResNetCIFAR",
]
