"""Flags of the training of a classifier, beside those of every training."""

from typing import Any

from absl import flags

from dfdetect.data import classifier_input, sampling, self_blending
from dfdetect.models import classifier
from dfdetect.training import held_out, run_flags

flags.adopt_module_key_flags(run_flags)
flags.adopt_module_key_flags(held_out)

ORIGINS = ("source", "method")  # Fields that name the origin of records.
flags.DEFINE_list(
    "dataset",
    ["labeled_faces"],
    "Prepared data sets, by commas. Heads of one without labels, such as "
    "hollywood_heads, count as reals; with --self_blended, fakes are made of them.",
)
_WEIGHTS = flags.DEFINE_list(
    "dataset_weights", [], "Weights of the data sets; by default their sizes."
)
_SAMPLING = flags.DEFINE_enum(
    "sampling",
    "natural",
    sampling.MODES,
    "natural: all crops; balanced: as many reals as fakes; pairs: each real with a "
    "fake made of it.",
)
_SAMPLE_BY = flags.DEFINE_enum(
    "sample_by",
    None,
    ORIGINS,
    "Field whose values are drawn equally often in each class, whichever data sets "
    "they are in. Records without one count as a source with the name of their data "
    "set.",
)
flags.DEFINE_multi_string(
    "where",
    [],
    "Train and validate only on records that meet this, FIELD=VALUE|VALUE or "
    "FIELD!=VALUE|VALUE, such as source!=STYLEGAN to leave a maker out. If given more "
    "than once, on those that meet all. Records without the field meet those with !.",
)
flags.DEFINE_float(
    "self_blended",
    0.0,
    "Share of the fakes that are made by blending a real with itself.",
    lower_bound=0.0,
    upper_bound=1.0,
)
_SELF_BLENDING_MASKS = flags.DEFINE_list(
    "self_blending_masks",
    [],
    "Parts of the face that --self_blended replaces, each as often, of "
    f"{', '.join(self_blending.MASKS)}; by default the whole face, one time in five "
    "only its upper or lower part.",
)
_SELF_BLENDING_MISMATCHES = flags.DEFINE_list(
    "self_blending_mismatches",
    [],
    "Further differences between the copies that --self_blended joins, besides color "
    "and sharpness: resolution (one was generated at a small size and compressed), "
    "warp (the inserted face is rotated, sheared and tilted).",
)
flags.DEFINE_enum(
    "augmentation",
    "light",
    classifier_input.AUGMENTATIONS,
    "Random changes of crops. light: cropped, mirrored and colored. forensic: cropped, "
    "then degraded as by cameras, editors and platforms. makers: brought to a random "
    "size and JPEG quality, fakes and reals in the same way, so that these do not "
    "reveal the maker; then as light.",
)
flags.DEFINE_float(
    "level_share",
    1.0,
    "Share of the crops without a head box, from sets of cropped heads, that "
    "--augmentation=makers brings to a random size and quality; images with a head "
    "box, from sets of several sources, always are. Below 1 where the classes of the "
    "sets of crops are alike in size and compression, see audit.py.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "rotated_share",
    0.0,
    "Share of the crops, real and fake alike, that are rotated: by up to 45 degrees, "
    "15 of 100 of them by any angle.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "gamma_share",
    0.0,
    "Share of the crops, real and fake alike, whose gamma is changed by an exponent of "
    "0.4 to 3.5.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "gray_share",
    0.0,
    "Share of the crops, real and fake alike, whose color is taken away.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_integer(
    "cache_megabytes",
    0,
    "Memory for decoded crops, so that each is decoded once; 0 for none. Batches stay "
    "the same.",
    lower_bound=0,
)
flags.DEFINE_enum(
    "model", "xception", classifier.NAMES + classifier.TEACHERS, "Architecture."
)
flags.DEFINE_integer("image_size", 299, "Side of the crops, px.")
flags.DEFINE_integer(
    "training_size",
    None,
    "Side of the crops in training, px; by default --image_size. Smaller ones cost "
    "less; as they are parts, their scale is that of whole ones (Touvron et al., "
    "Fixing the train-test resolution discrepancy, 2019).",
)
flags.DEFINE_float("dropout", 0.5, "Share of pooled features dropped.")
flags.DEFINE_float(
    "drop_connect_rate", 0.2, "Chance to skip an EfficientNet's last residual block."
)
flags.DEFINE_float(
    "crop_margin",
    1.3,
    "Side of a crop over the longer side of its head box. Images with a head box are "
    "cropped so, as the graph will; others must be cropped already.",
)
flags.DEFINE_string(
    "freeze_through",
    None,
    "Layer through which weights and batch-norm statistics are frozen.",
)
flags.DEFINE_bool(
    "balance", False, "Weight real and fake crops so that both classes count the same."
)
flags.DEFINE_float(
    "label_smoothing", 0.0, "Share of a label given to both; .1 makes a fake .95.", 0, 1
)
flags.DEFINE_string(
    "teacher",
    None,
    "Folder of a trained classifier whose feature maps are learned as well.",
)
flags.DEFINE_float(
    "teacher_weight", 1.0, "Weight of the errors of the feature maps beside the labels."
)
flags.DEFINE_integer(
    "projected", 256, "Validation crops in TensorBoard's projector.", lower_bound=0
)
flags.DEFINE_integer(
    "explained", 64, "Validation crops in TensorBoard's heat maps.", lower_bound=0
)
flags.DEFINE_float(
    "bn_momentum", 0.99, "Momentum of the batch norms; lower for short runs."
)
flags.DEFINE_float(
    "max_false_positive_rate",
    0.05,
    "Largest share of the real validation crops of any source that the verdict may "
    "call fake, in [0, 1).",
    lower_bound=0.0,
    upper_bound=0.999,
)
flags.DEFINE_float(
    "max_false_negative_rate",
    0.1,
    "Largest share of the fake validation crops that the verdict may call real, in [0, "
    "1); the mean over their sources.",
    lower_bound=0.0,
    upper_bound=0.999,
)
flags.DEFINE_float(
    "max_source_false_negative_rate",
    None,
    "Largest share of the fake validation crops of any one maker that the verdict may "
    "call real; by default only the mean counts.",
    lower_bound=0.0,
    upper_bound=0.999,
)
for _flag, _known in (
    (_SELF_BLENDING_MASKS, self_blending.MASKS),
    (_SELF_BLENDING_MISMATCHES, self_blending.MISMATCHES),
):
    flags.register_validator(
        _flag,
        lambda names, known=frozenset(_known): known.issuperset(names),
        f"must be of {', '.join(_known)}.",
    )
flags.mark_flags_as_required(["model_dir", "data_dir"])


@flags.multi_flags_validator(
    [_SAMPLE_BY, _WEIGHTS, _SAMPLING],
    "--sample_by excludes --dataset_weights and --sampling=pairs.",
)
def _is_one_way_to_sample(values: dict[str, Any]) -> bool:
    others = values[_WEIGHTS.name] or values[_SAMPLING.name] == "pairs"
    return not (values[_SAMPLE_BY.name] and others)
