"""Installs the package `dfdetect` and its console command."""

import pathlib
import re

from setuptools import find_packages, setup

_HERE = pathlib.Path(__file__).parent

# Read, not imported: importing the package must not be needed to install it.
_VERSION = re.search(
    r'^__version__ = "([^"]+)"', (_HERE / "dfdetect/__init__.py").read_text(), re.M
).group(1)

_CORE = [
    # scann 1.4.2 is compiled against 2.20 and says so only in an extra of its own.
    # Never beside tensorflow-cpu: both install the same files.
    "tensorflow==2.20.*",
    # With 3.10 and 3.11 parts of keras-cv break.
    "keras>=3.12",
    # The last line of releases; its backbone arguments are ours.
    "keras-cv==0.9.*",
    # Its operations are in the exported graph and are bound to one TensorFlow.
    "scann==1.4.2",
    "tensorflow-datasets",
    # Needs libGL; a server without it takes opencv-python-headless instead, which
    # serve/quickstart.sh sees to.
    "opencv-python",
    # Reads clips. Not OpenCV: 4.13, 4.14 and 5.0 return memory that was never written
    # for interlaced frames, older ones read no AV1, or want an older numpy (4.12), and
    # none knows codec names and pixel aspect. 19 takes other arguments; Python 3.10 has
    # wheels of 17 alone.
    "av>=17,<19",
    # scann's and OpenCV's wheels are built for the second ABI.
    "numpy>=2",
    "tensorboard",
    "absl-py",
    # Plots, and the sample portrait that `dfdetect detect` takes by default.
    "matplotlib",
    # Metrics: ROC, precision and recall.
    "scikit-learn",
    # Limits scikit-learn's threads, and comes with it.
    "threadpoolctl",
    # Calibration: fits the temperature.
    "scipy",
    # Progress bars.
    "tqdm",
    # HTML of reports; nothing from a file's name gets into it unescaped.
    "jinja2>=3.1",
    # HTML of Markdown documents, and of the model card in a report; comes with
    # tensorboard. Older ones unescape what is escaped only after HTML is.
    "markdown>=3.4.2",
]

_BEAM = [
    # Builds data sets and judges corpora on many machines; older ones lack the
    # cloudpickle by which a builder travels to the workers.
    "apache-beam>=2.77",
    # Parquet of serve/batch_detect.py.
    "pyarrow",
]

# Perceptual hashes and, through Pillow, what a file says of itself.
_AUDIT = ["imagehash"]

# COCO's own code for its figures of detection.
_EVALUATE = ["pycocotools"]

# An ffmpeg with x264, for H.264 among the alterations. Apart from the others: it is
# 30 MB under the GPL, which no one should get unasked. One on the PATH does, too.
_ROBUSTNESS = ["imageio-ffmpeg"]

# What train/benchmark_retrieval.py and `dfdetect bench --compare` compare with.
_BENCH = [
    *("faiss-cpu", "hnswlib"),
    "mtcnn",
    "onnxruntime",
    "openvino",
    # Keras exports to ONNX by it; older ones forbid TensorFlow's protobuf.
    "tf2onnx>=1.17",
]

# `dfdetect serve`, and the warm-up requests of serve/export.py.
_SERVE = [
    "grpcio",
    "grpcio-health-checking",
    "prometheus-client",
    # TensorFlow Serving's messages alone, no server; asks for its TensorFlow.
    "tensorflow-serving-api==2.20.*",
    # HTTP, with the limits and deadlines that other servers leave to a proxy.
    "tornado>=6.4",
]

_TEST = [
    *_AUDIT,
    *_BEAM,
    *_EVALUATE,
    *_ROBUSTNESS,
    *_SERVE,
    "build",
    # TFDS's own test of a builder imports it.
    "dill",
    "hypothesis",
    # Holds result lines against the schema in the package.
    "jsonschema",
    "mypy",
    # A client of TensorFlow Serving that is neither ours nor its own.
    "ovmsclient",
    # The yardstick of the decoder's tests; nothing in the package uses it.
    "pillow",
    "pytest",
    # Two processes: one alone leaves half of two cores idle.
    "pytest-xdist",
    # Reads the manifests of Docker and Kubernetes.
    "pyyaml",
    "ruff",
    "setuptools",
    "wheel",
]

setup(
    name="dfdetect",
    version=_VERSION,
    description="Finds human heads and says how likely each one is a deepfake",
    long_description=(_HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # TensorFlow 2.20 has wheels for 3.9 to 3.13, Keras 3.12 begins at 3.10.
    python_requires=">=3.10,<3.14",
    # Only the package: `datasets`, `train`, `serve` are folders of scripts, and a
    # top-level `datasets` would overwrite Hugging Face's.
    packages=find_packages(include=["dfdetect", "dfdetect.*"]),
    package_data={
        "dfdetect": [
            *("default_weights/*/*", "default_weights/*.md"),
            "reports/*.html",
            "reports/page/*.css",
            "reports/page/*.html",
            "reports/page/*.js",
            "schema/*.json",
            "serving/demo/*",
        ]
    },
    install_requires=_CORE,
    extras_require={
        "audit": _AUDIT,
        "beam": _BEAM,
        "bench": _BENCH,
        "evaluate": _EVALUATE,
        "robustness": _ROBUSTNESS,
        "serve": _SERVE,
        "test": _TEST,
    },
    entry_points={"console_scripts": ["dfdetect=dfdetect.cli.main:main"]},
    classifiers=[
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
