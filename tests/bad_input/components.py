"""Wrong arguments of public components, one a row.

A row says the component, its argument, the kind of fault, the value, and what the message must
hold of what is allowed or to do.
"""

import math

import torch
from networks import distiller, wrn

NAN, INF = math.nan, math.inf
MISSING = object()  # as a value: the argument is left out

DIGITS = dict(
    type="mmkd_logit.Digits", split="train", indices=40, pipeline=[dict(type="PackInputs")]
)
LOSS = dict(type="mmkd_logit.LogitMSELoss")
DISTILLER = {key: value for key, value in distiller().items() if key != "type"}
SGD = dict(type="SGD", lr=0.1)
PREPROCESSOR = dict(mean=[0.0], std=[1.0])


def teacher(**options):
    return dict(config=wrn(), checkpoint=None, **options)


def feature(**more):
    return {**dict(student="backbone.norm", teacher="backbone.norm", loss=LOSS), **more}


def parameters():
    return [torch.nn.Parameter(torch.zeros(1))]


# By the component, after which /SOMETHING tells several ways to use it apart.
# Right arguments, to which each row adds one that is wrong. A function is called for its value.
RIGHT = {
    "DISTLoss": {},
    "DKDLoss": {},
    "LogitMSELoss": {},
    "LogitStandardization": dict(loss=LOSS),
    "ScaledKLDivLoss": dict(tau=4),
    "TorchdistillLoss": dict(name="ATLoss"),
    "TorchdistillLoss/FTLoss": dict(name="FTLoss"),
    "TorchdistillLoss/AltActTransferLoss": dict(name="AltActTransferLoss"),
    "BatchPreprocessor": PREPROCESSOR,
    "LogitDistiller": DISTILLER,
    "MobileNetV2CIFAR": {},
    "StudentGroup": dict(students=dict(a=wrn(), b=wrn()), seeds=0),
    "TorchdistillAdapter": dict(
        name="ConvReg",
        num_input_channels=4,
        num_output_channels=4,
        kernel_size=1,
        stride=1,
        padding=0,
    ),
    "TorchdistillAdapter/Paraphraser": dict(
        name="Paraphraser4FactorTransfer", k=0.5, num_input_channels=4
    ),
    "WideResNetCIFAR": dict(depth=10, widen_factor=1),
    "DataSubset": dict(dataset=DIGITS, per_class=0.5),
    "Digits": dict(split="train"),
    "InMemoryDataset": dict(dataset=DIGITS),
    "NoisyLabelDataset": dict(dataset=DIGITS, kind="symmetric", rate=0.4, seed=0),
    "RandomImages": dict(num_samples=4, num_classes=2),
    "SeededDataset": dict(dataset=DIGITS),
    "SeededSampler": dict(dataset=list("abcd"), sampler=dict(type="DefaultSampler", shuffle=True)),
    "batch_collate": dict(data=[dict(inputs=1)]),
    "ChannelsLastHook": {},
    "ClassifierSumHook": {},
    "FiguresHook": {},
    "FinalCheckpointHook": {},
    "FiniteLossHook": {},
    "LabelNoiseHook": {},
    "LazyRuntimeInfoHook": {},
    "LogitOutputsHook": {},
    "OwnBestCheckpointHook": {},
    "ProgressBarHook": {},
    "ResumeStateHook": {},
    "RunCheckHook": {},
    "SameBuffersHook": {},
    "SequentialTeacherHook": dict(stages=[dict(begin=1, alpha=0.5)]),
    "TrainAccuracyHook": {},
    "CleanLabelAccuracy": {},
    "ExpectedCalibrationError": {},
    "LogitDistance": {},
    "LogitDump": dict(out_file="logits.npz"),
    "LogitStatistics": {},
    "NegativeLogLikelihood": {},
    "NoisyLabelAccuracy": {},
    "PerClassAccuracy": {},
    "TeacherAgreement": {},
    "AutocastOptimWrapper": dict(optimizer=lambda: torch.optim.SGD(parameters(), lr=0.1)),
    "StudentGroupOptimConstructor": dict(
        optim_wrapper_cfg=dict(students=dict(a=dict(optimizer=SGD)))
    ),
}

_LOSSES = [
    ("DISTLoss", "beta", "negative", -1, "at least 0"),
    ("DISTLoss", "gamma", "not a number", NAN, "finite"),
    ("DISTLoss", "tau", "zero", 0, "above 0"),
    ("DISTLoss", "eps", "text for a number", "1", "at least 0"),
    ("DISTLoss", "alhpa", "letters exchanged", 1, "takes beta, gamma, tau, eps"),
    ("DKDLoss", "tau", "text for a number", "4", "above 0"),
    ("DKDLoss", "alpha", "negative", -1, "at least 0"),
    ("DKDLoss", "beta", "infinite", INF, "finite"),
    ("DKDLoss", "reduction", "unknown word", "batch", "mean"),
    ("LogitMSELoss", "reduction", "unknown word", "avg", "mean"),
    ("LogitMSELoss", "class_dim", "text for a number", "1", "integer"),
    ("LogitMSELoss", "reducton", "letter missing", "sum", "did you mean reduction?"),
    ("LogitStandardization", "loss", "missing", MISSING, "needs loss"),
    (
        "LogitStandardization",
        "loss",
        "unknown type",
        dict(type="mmkd_logit.LogitMESLoss"),
        "did you mean mmkd_logit.LogitMSELoss?",
    ),
    ("LogitStandardization", "loss", "number for a container", 5, "must be a config such as"),
    ("LogitStandardization", "eps", "zero", 0, "above 0"),
    ("ScaledKLDivLoss", "tau", "missing", MISSING, "needs tau"),
    ("ScaledKLDivLoss", "tau", "zero", 0, "take scale='max(tau, tau^2)'"),
    ("ScaledKLDivLoss", "tau", "negative", -4, "from 0 to infinity"),
    ("ScaledKLDivLoss", "tau", "not a number", NAN, "from 0 to infinity"),
    ("ScaledKLDivLoss", "scale", "unknown word", "twice", "tau"),
    ("ScaledKLDivLoss", "reduction", "number for text", 0, "'batchmean'"),
    ("ScaledKLDivLoss", "class_dim", "fraction for a count", 1.5, "integer"),
    ("TorchdistillLoss", "name", "unknown word", "CRDLoss", "ATLoss"),
    ("TorchdistillLoss", "name", "missing", MISSING, "needs name"),
    ("TorchdistillLoss", "mode", "unknown word", "papers", "'paper'"),
    ("TorchdistillLoss", "mdoe", "letters exchanged", "paper", "did you mean mode?"),
]

_LOSSES += [
    ("TorchdistillLoss/FTLoss", "p", "zero", 0, "above 0"),
    ("TorchdistillLoss/FTLoss", "reduction", "unknown word", "avg", "'mean'"),
    ("TorchdistillLoss/AltActTransferLoss", "margin", "infinite", INF, "finite"),
]

_MODELS = [
    ("TorchdistillAdapter", "kernel_size", "fraction for a count", 1.5, "from 1 on"),
    ("TorchdistillAdapter", "stride", "zero", 0, "from 1 on"),
    ("TorchdistillAdapter", "padding", "text for a number", "same", "from 0 on"),
    ("TorchdistillAdapter", "uses_relu", "number for a flag", 1, "True or False"),
    ("TorchdistillAdapter/Paraphraser", "k", "not a number", NAN, "above 0"),
    ("TorchdistillAdapter/Paraphraser", "uses_bn", "number for a flag", 0, "True or False"),
    ("BatchPreprocessor", "channels_last", "text for a flag", "no", "True or False"),
    ("BatchPreprocessor", "mean", "wrong length", [0.0, 0.0], "one number a channel"),
    ("BatchPreprocessor", "mean", "not a number", [NAN], "one number a channel"),
    ("BatchPreprocessor", "std", "zero", [0.0], "above 0"),
    ("BatchPreprocessor", "std", "text for a number", ["1"], "one number a channel"),
    ("BatchPreprocessor", "pad_size_divisor", "zero", 0, "from 1 on"),
    ("BatchPreprocessor", "pad_value", "text for a number", "black", "number"),
    ("BatchPreprocessor", "to_rgb", "text for a flag", "yes", "True or False"),
    ("BatchPreprocessor", "to_onehot", "number for a flag", 1, "True or False"),
    ("BatchPreprocessor", "num_classes", "fraction for a count", 9.5, "from 1 on"),
    ("BatchPreprocessor", "batch_augments", "text for a container", "mixup", "None or a dict"),
    ("LogitDistiller", "student", "number for a container", 5, "config of a classifier"),
    (
        "LogitDistiller",
        "student",
        "unknown type",
        dict(type="mmpretrain.ImageClasifier"),
        "did you mean",
    ),
    ("LogitDistiller", "student", "missing", MISSING, "needs student"),
    ("LogitDistiller", "teacher", "number for a container", 5, "Write a teacher as"),
    ("LogitDistiller", "teacher", "empty", [], "at least one"),
    (
        "LogitDistiller",
        "teacher",
        "letter missing",
        dict(config=wrn(), chekpoint="x"),
        "did you mean checkpoint?",
    ),
    ("LogitDistiller", "teacher", "missing file", dict(config="no.py", checkpoint=None), "no.py"),
    (
        "LogitDistiller",
        "teacher.checkpoint",
        "number for text",
        dict(config=wrn(), checkpoint=7),
        "must be a path",
    ),
    (
        "LogitDistiller",
        "teacher.cache",
        "text for a container",
        teacher(cache="disk"),
        "is a dict of",
    ),
    (
        "LogitDistiller",
        "teacher.cache.storage",
        "unknown word",
        teacher(cache=dict(storage="dsk")),
        "'disk'",
    ),
    (
        "LogitDistiller",
        "teacher.cache.dtype",
        "unknown word",
        teacher(cache=dict(dtype="int8")),
        "float16",
    ),
    (
        "LogitDistiller",
        "teacher.cache.root",
        "number for text",
        teacher(cache=dict(root=3)),
        "name of a folder",
    ),
    ("LogitDistiller", "teacher.cache.max_gib", "zero", teacher(cache=dict(max_gib=0)), "above 0"),
    (
        "LogitDistiller",
        "teacher.channels_last",
        "text for a flag",
        teacher(channels_last="no"),
        "True",
    ),
    ("LogitDistiller", "teacher.autocast", "unknown word", teacher(autocast="float8"), "bfloat16"),
    (
        "LogitDistiller",
        "teacher.compile",
        "letter missing",
        teacher(compile=dict(mod="default")),
        "did you mean mode?",
    ),
    ("LogitDistiller", "teacher.micro_batch", "zero", teacher(micro_batch=0), "positive integer"),
    (
        "LogitDistiller",
        "teacher.config",
        "number for text",
        dict(config=5, checkpoint=None),
        "Write a teacher as",
    ),
    (
        "LogitDistiller",
        "teacher.config",
        "missing part",
        dict(config=dict(), checkpoint=None),
        "needs a model",
    ),
    ("LogitDistiller", "feature_kd.weight", "negative", [feature(weight=-1)], "at least 0"),
    ("LogitDistiller", "feature_kd.student", "number for text", [feature(student=5)], "5"),
    (
        "LogitDistiller",
        "feature_kd.teacher",
        "unknown word",
        [feature(teacher="backbone.x")],
        "stem, groups, norm",
    ),
    (
        "LogitDistiller",
        "feature_kd.loss",
        "missing part",
        [dict(student="backbone.norm", teacher="backbone.norm")],
        "loss=dict(type=",
    ),
    ("LogitDistiller", "loss_kd", "unknown type", dict(type="mmkd_logit.LogitMES"), "did you mean"),
    ("LogitDistiller", "loss_kd", "text for a container", "mse", "must be a config such as"),
    (
        "LogitDistiller",
        "loss_kd",
        "wrong component",
        dict(type="mmpretrain.CrossEntropyLoss"),
        "compares logits with labels",
    ),
    ("LogitDistiller", "alpha", "too large", 1.1, "in [0, 1]"),
    ("LogitDistiller", "alpha", "negative", -0.1, "in [0, 1]"),
    ("LogitDistiller", "alpha", "flag for a number", True, "in [0, 1]"),
    ("LogitDistiller", "alpha", "not a number", NAN, "in [0, 1]"),
    ("LogitDistiller", "ensemble", "unknown word", "sum", "logits"),
    ("LogitDistiller", "data_preprocessor", "number for a container", 5, "must be a dict such as"),
    ("LogitDistiller", "feature_kd", "number for a container", 5, "a list of dicts"),
    (
        "LogitDistiller",
        "feature_kd",
        "letters exchanged",
        [feature(wieght=1)],
        "did you mean weight?",
    ),
    (
        "LogitDistiller",
        "feature_kd",
        "unknown word",
        [feature(student="backbone.nrm")],
        "no module 'backbone.nrm'; the names in backbone are stem, groups, norm, relu",
    ),
    ("MobileNetV2CIFAR", "widen_factor", "zero", 0, "above 0"),
    ("MobileNetV2CIFAR", "widen_factor", "text for a number", "1", "above 0"),
    ("MobileNetV2CIFAR", "out_indices", "too large", (9,), "0 to 7"),
    ("MobileNetV2CIFAR", "frozen_stages", "too large", 9, "0 to 7"),
    ("MobileNetV2CIFAR", "conv_cfg", "number for a container", 5, "dict"),
    ("MobileNetV2CIFAR", "norm_cfg", "unknown type", dict(type="BM"), "take dict(type='BN')"),
    ("MobileNetV2CIFAR", "act_cfg", "unknown type", dict(type="ReLUU"), "dict(type='ReLU6')"),
    ("MobileNetV2CIFAR", "norm_eval", "text for a flag", "no", "True or False"),
    ("MobileNetV2CIFAR", "with_cp", "text for a flag", "no", "True or False"),
    ("MobileNetV2CIFAR", "init_cfg", "text for a container", "Kaiming", "dict"),
    ("StudentGroup", "students", "empty", {}, "dict of configs by name"),
    ("StudentGroup", "students", "container of another kind", [wrn()], "dict of configs by name"),
    ("StudentGroup", "students", "unknown word", {"a.b": wrn()}, "text without dots, got 'a.b'"),
    ("StudentGroup", "seeds", "text for a number", "0", "integer"),
    ("StudentGroup", "seeds", "missing part", dict(a=0), "b"),
    ("StudentGroup", "seeds", "negative", -1, "0"),
    ("StudentGroup", "data_preprocessor", "number for a container", 5, "must be a dict such as"),
    ("TorchdistillAdapter", "name", "unknown word", "Regressor4VID", "ConvReg"),
    ("TorchdistillAdapter", "num_input_channels", "negative", -4, "from 1 on"),
    ("TorchdistillAdapter", "num_output_channels", "missing", MISSING, "needs num_output"),
    ("TorchdistillAdapter", "kernel", "letter missing", 1, "did you mean kernel_size?"),
    ("WideResNetCIFAR", "depth", "out of range", 11, "6n + 4"),
    ("WideResNetCIFAR", "depth", "fraction for a count", 16.0, "6n + 4"),
    ("WideResNetCIFAR", "widen_factor", "zero", 0, "from 1 on"),
    ("WideResNetCIFAR", "in_channels", "negative", -3, "from 1 on"),
    ("WideResNetCIFAR", "stem_channels", "zero", 0, "from 1 on"),
    ("WideResNetCIFAR", "base_channels", "text for a number", "16", "from 1 on"),
    ("WideResNetCIFAR", "strides", "wrong length", (1, 2), "three integers"),
    ("WideResNetCIFAR", "drop_rate", "too large", 1.0, "[0, 1)"),
    ("WideResNetCIFAR", "drop_rate", "not a number", NAN, "finite"),
    ("WideResNetCIFAR", "out_indices", "too large", (3,), "0, 1 and 2"),
    ("WideResNetCIFAR", "out_indices", "repeated", (2, 2), "different"),
    ("WideResNetCIFAR", "frozen_stages", "too large", 4, "-1, 0, 1, 2, 3"),
    ("WideResNetCIFAR", "norm_eval", "text for a flag", "no", "True or False"),
    ("WideResNetCIFAR", "norm_cfg", "unknown type", dict(type="BM"), "dict(type='BN')"),
    ("WideResNetCIFAR", "init_cfg", "text for a container", "Kaiming", "dict"),
]

_DATA = [
    ("DataSubset", "dataset", "number for a container", 5, "or its config; got int"),
    ("DataSubset", "dataset", "unknown type", dict(type="CIFAR10O"), "did you mean CIFAR10?"),
    ("DataSubset", "dataset", "missing", MISSING, "needs dataset"),
    ("DataSubset", "per_class", "too large", 1.5, "[0, 1]"),
    ("DataSubset", "per_class", "negative", -0.5, "[0, 1]"),
    ("DataSubset", "per_class", "empty class", 0.13, "keeps no sample of class"),
    ("DataSubset", "classes", "contradiction", 0.5, "one"),
    ("DataSubset", "scores", "contradiction", "scores.npz", "one"),
    ("DataSubset", "by", "contradiction", "entropy", "scores"),
    ("DataSubset", "quantiles", "contradiction", (0, 0.5), "scores"),
    ("DataSubset", "seed", "negative", -1, "seed"),
    ("DataSubset", "seed", "text for a number", "0", "seed"),
    ("DataSubset", "lazy_init", "text for a flag", "no", "True or False"),
    ("Digits", "split", "unknown word", "trian", "'train'"),
    ("Digits", "indices", "too large", 100_000, "from 1 to 901"),
    ("Digits", "indices", "fraction for a count", 0.5, "from 1 to 901"),
    ("Digits", "ann_file", "contradiction", "x", "leave it out"),
    ("Digits", "classes", "number for a container", 5, "list of names"),
    ("RandomImages", "classes", "missing file", "names.txt", "no such file"),
    ("Digits", "pipeline", "text for a container", "PackInputs", "list of transforms"),
    ("Digits", "metainfo", "wrong type", ["a"], "must be a dict"),
    ("Digits", "test_mode", "text for a flag", "no", "True or False"),
    ("Digits", "lazy_init", "text for a flag", "no", "True or False"),
    ("Digits", "serialize_data", "number for a flag", 1, "True or False"),
    ("Digits", "max_refetch", "negative", -1, "from 0 on"),
    ("Digits", "splt", "letter missing", "train", "did you mean split?"),
    ("InMemoryDataset", "dataset", "number for a container", 5, "or its config; got int"),
    ("InMemoryDataset", "dataset", "missing", MISSING, "needs dataset"),
    ("InMemoryDataset", "device", "unknown word", "gpu", "'auto'"),
    ("InMemoryDataset", "lazy_init", "text for a flag", "no", "True or False"),
    ("NoisyLabelDataset", "dataset", "number for a container", 5, "or its config; got int"),
    ("NoisyLabelDataset", "kind", "unknown word", "symetric", "symmetric"),
    ("NoisyLabelDataset", "rate", "too large", 1.4, "[0, 1]"),
    ("NoisyLabelDataset", "rate", "missing", MISSING, "needs"),
    ("NoisyLabelDataset", "seed", "negative", -1, "seed"),
    ("NoisyLabelDataset", "per_class", "text for a flag", "no", "True or False"),
    ("NoisyLabelDataset", "matrix", "contradiction", [[1.0]], "matrix"),
    ("NoisyLabelDataset", "file", "contradiction", "labels.npz", "file"),
    ("NoisyLabelDataset", "key", "contradiction", "noisy", "key"),
    ("NoisyLabelDataset", "clean_key", "contradiction", "clean", "clean_key"),
    ("NoisyLabelDataset", "num_classes", "zero", 0, "positive"),
    ("NoisyLabelDataset", "on_test", "text for a flag", "no", "True or False"),
    ("NoisyLabelDataset", "lazy_init", "text for a flag", "no", "True or False"),
    ("RandomImages", "num_samples", "zero", 0, "from 1 on"),
    ("RandomImages", "num_classes", "fraction for a count", 2.5, "from 1 on"),
    ("RandomImages", "img_shape", "wrong length", (8, 8), "height, width, channels"),
    ("RandomImages", "seed", "negative", -1, "from 0 on"),
    ("RandomImages", "ann_file", "contradiction", "x", "leave it out"),
    ("RandomImages", "indices", "too large", 5, "from 1 to 4"),
    ("RandomImages", "pipeline", "number for a container", 5, "list of transforms"),
    ("RandomImages", "metainfo", "text for a container", "cat", "must be a dict"),
    ("RandomImages", "test_mode", "number for a flag", 1, "True or False"),
    ("RandomImages", "lazy_init", "number for a flag", 1, "True or False"),
    ("RandomImages", "serialize_data", "number for a flag", 0, "True or False"),
    ("RandomImages", "max_refetch", "fraction for a count", 1.5, "from 0 on"),
    ("SeededDataset", "dataset", "text for a container", "CIFAR100", "or its config; str has no"),
    ("SeededDataset", "lazy_init", "number for a flag", 1, "True or False"),
    ("SeededSampler", "dataset", "number for a container", 5, "length"),
    ("SeededSampler", "sampler", "text for a container", "DefaultSampler", "config of one"),
    (
        "SeededSampler",
        "sampler",
        "unknown type",
        dict(type="DefaultSampeler"),
        "did you mean DefaultSampler?",
    ),
    (
        "SeededSampler",
        "sampler",
        "letter wrong",
        dict(type="DefaultSampler", shufle=True),
        "did you mean shuffle?",
    ),
    (
        "SeededSampler",
        "sampler",
        "text for a flag",
        dict(type="DefaultSampler", shuffle="no"),
        "shuffle must be True or False, got 'no'",
    ),
    ("SeededSampler", "seed", "negative", -1, "from 0 on"),
    ("SeededSampler", "seed", "text for a number", "0", "from 0 on"),
    ("batch_collate", "data", "number for a container", 5, "list of samples"),
    ("batch_collate", "data", "empty", [], "list of samples"),
]

_HOOKS = [
    ("FiguresHook", "always", "text for a flag", "no", "True or False"),
    ("FinalCheckpointHook", "filename", "number for text", 5, "name of a file"),
    ("FinalCheckpointHook", "filename", "folder for a file", "a/final.pth", "name no folder"),
    ("FinalCheckpointHook", "filename", "empty", "", "name of a file"),
    ("FiniteLossHook", "limit", "zero", 0, "from 1 on"),
    ("LabelNoiseHook", "resume_changed", "text for a flag", "no", "True or False"),
    ("LazyRuntimeInfoHook", "limit", "fraction for a count", 0.5, "from 1 on"),
    ("LogitOutputsHook", "teacher", "text for a flag", "yes", "True or False"),
    ("LogitOutputsHook", "prelogits", "unknown word", "none", "'student' or 'all'"),
    ("ProgressBarHook", "always", "number for a flag", 1, "True or False"),
    ("SequentialTeacherHook", "stages", "empty", [], "begin"),
    ("SequentialTeacherHook", "stages", "number for a container", 5, "begin"),
    ("SequentialTeacherHook", "stages", "letter wrong", [dict(begin=1, alfa=0.5)], "alpha"),
    ("SequentialTeacherHook", "stages.begin", "missing part", [dict(alpha=0.5)], "begin"),
    (
        "SequentialTeacherHook",
        "stages.begin",
        "unordered",
        [dict(begin=2, alpha=0.5), dict(begin=1, alpha=0.1)],
        "begin",
    ),
    ("SequentialTeacherHook", "by_epoch", "text for a flag", "no", "True or False"),
]

_METRICS = [
    ("CleanLabelAccuracy", "topk", "zero", 0, "from 1 on"),
    ("CleanLabelAccuracy", "thrs", "text for a number", "0.5", "at least 0"),
    ("CleanLabelAccuracy", "topl", "letter wrong", 1, "did you mean topk?"),
    ("ExpectedCalibrationError", "num_bins", "zero", 0, "from 1 on"),
    ("ExpectedCalibrationError", "of", "unknown word", "techer", "'teacher'"),
    ("ExpectedCalibrationError", "binning", "unknown word", "equal", "'width'"),
    ("LogitDistance", "quantiles", "too large", (0.5, 1.5), "[0, 1]"),
    ("LogitDistance", "quantiles", "repeated", (0.5, 0.5), "different"),
    ("LogitDump", "out_file", "wrong ending", "logits.csv", ".npz"),
    ("LogitDump", "out_file", "missing", MISSING, "needs out_file"),
    ("LogitDump", "identity", "number for a container", 5, "dict"),
    ("LogitDump", "layers", "number for a container", 5, "function"),
    ("LogitStatistics", "label", "unknown word", "noise", "'clean_label'"),
    ("NegativeLogLikelihood", "of", "unknown word", "both", "'teacher'"),
    ("PerClassAccuracy", "out_file", "wrong ending", "classes.csv", ".json"),
    ("TeacherAgreement", "topk", "repeated", (1, 1), "different"),
    ("TeacherAgreement", "topk", "zero", 0, "from 1 on"),
    *(
        (name, "collect_device", "unknown word", "tpu", "'cpu'")
        for name in ("CleanLabelAccuracy", "LogitDump", "LogitDistance")
    ),
    *(
        (name, "collect_device", "number for text", 0, "'cpu'")
        for name in (
            "ExpectedCalibrationError",
            "LogitStatistics",
            "NegativeLogLikelihood",
            "NoisyLabelAccuracy",
            "PerClassAccuracy",
            "TeacherAgreement",
        )
    ),
    *(
        (name, "prefix", "number for text", 3, "text or None")
        for name in (
            "CleanLabelAccuracy",
            "ExpectedCalibrationError",
            "LogitDistance",
            "LogitDump",
            "LogitStatistics",
            "NegativeLogLikelihood",
            "NoisyLabelAccuracy",
            "PerClassAccuracy",
            "TeacherAgreement",
        )
    ),
    *(
        (name, "collect_dir", "empty", "", "name of a folder")
        for name in (
            "ExpectedCalibrationError",
            "LogitDistance",
            "LogitDump",
            "LogitStatistics",
            "NegativeLogLikelihood",
            "NoisyLabelAccuracy",
            "PerClassAccuracy",
            "TeacherAgreement",
        )
    ),
]

_OPTIM = [
    (
        "AutocastOptimWrapper",
        "optimizer",
        "container of another kind",
        SGD,
        "torch.optim.Optimizer",
    ),
    ("AutocastOptimWrapper", "dtype", "unknown word", "float8", "bfloat16"),
    ("AutocastOptimWrapper", "accumulative_counts", "zero", 0, "from 1 on"),
    (
        "AutocastOptimWrapper",
        "clip_grad",
        "letter too many",
        dict(maxnorm=1),
        "did you mean max_norm?",
    ),
    ("AutocastOptimWrapper", "clip_grad", "negative", dict(max_norm=-1), "above 0"),
    (
        "StudentGroupOptimConstructor",
        "optim_wrapper_cfg",
        "missing part",
        dict(students=dict(a=dict())),
        "the optimizer of a must be dict(optimizer=dict(type=..., lr=...)), got {}",
    ),
    ("StudentGroupOptimConstructor", "optim_wrapper_cfg", "number for a container", 5, "students="),
    (
        "StudentGroupOptimConstructor",
        "paramwise_cfg",
        "contradiction",
        dict(bias_lr_mult=2),
        "students=",
    ),
]

ROWS = [*_LOSSES, *_MODELS, *_DATA, *_HOOKS, *_METRICS, *_OPTIM]
