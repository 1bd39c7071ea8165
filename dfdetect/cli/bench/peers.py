"""Other runtimes for the same two models: Keras, onnxruntime, OpenVINO; and MTCNN.

Each is a `chain.Chain` of the models in its own form, except for MTCNN, which is a face
detector of its own before the same classifier.
"""

import os
from collections.abc import Callable
from typing import Any

import cv2
import keras
import numpy as np

from dfdetect.cli.bench import chain
from dfdetect.metrics import calibration

# Maps encoded images to the fake probabilities of the heads of each.
Peer = Callable[[list[bytes]], list[np.ndarray]]

_INSTALL = "pip install dfdetect[bench]"


def build_keras_peer(
    detector: keras.Model, classifier: keras.Model, description: dict[str, Any]
) -> Peer:
    """Builds the peer that calls `keras.Model.predict` of one model after the other."""
    return chain.Chain(
        lambda batch: detector.predict(batch, verbose=0),
        lambda crops: classifier.predict(crops, verbose=0)[:, 0],
        detector.anchors.boxes,
        description,
    )


def build_onnxruntime_peer(
    detector: keras.Model,
    classifier: keras.Model,
    description: dict[str, Any],
    folder: str,
) -> Peer:
    """Builds the peer that runs both models, exported to ONNX, in onnxruntime.

    Raises:
        ImportError: onnxruntime or tf2onnx is missing.
    """
    try:
        import onnxruntime as runtime
        import tf2onnx  # noqa: F401 - Keras exports with it.
    except ImportError as error:
        raise ImportError(f"{error.name} is missing: {_INSTALL}") from error

    def session(model: keras.Model, name: str) -> Callable[[np.ndarray], Any]:
        path = os.path.join(folder, f"{name}.onnx")
        model.export(path, format="onnx", verbose=False)
        opened = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (feed,) = opened.get_inputs()
        return lambda batch: opened.run(None, {feed.name: batch})

    return _build_chain(session, detector, classifier, description)


def build_openvino_peer(
    detector: keras.Model,
    classifier: keras.Model,
    description: dict[str, Any],
    folder: str,
    *,
    precision: str,
) -> Peer:
    """Builds the peer that runs both models, exported and compiled, in OpenVINO.

    Args:
        precision: "f32", or "bf16" where the processor computes in it.

    Raises:
        ImportError: OpenVINO is missing.
    """
    try:
        import openvino as ov
    except ImportError as error:
        raise ImportError(f"openvino is missing: {_INSTALL}") from error
    core = ov.Core()

    def session(model: keras.Model, name: str) -> Callable[[np.ndarray], Any]:
        path = os.path.join(folder, f"{name}.openvino")
        if not os.path.isdir(path):
            model.export(path, verbose=False)
        compiled = core.compile_model(
            ov.convert_model(path),
            "CPU",
            {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"},
        )

        def run(batch: np.ndarray) -> list[np.ndarray]:
            found = compiled([batch])
            return [found[output].copy() for output in compiled.outputs]

        return run

    return _build_chain(session, detector, classifier, description)


def build_mtcnn_peer(classifier: keras.Model, description: dict[str, Any]) -> Peer:
    """Builds the peer that finds faces by mtcnn and classifies them by `predict`.

    Raises:
        ImportError: mtcnn is missing.
    """
    try:
        from mtcnn import MTCNN
    except ImportError as error:
        raise ImportError(f"mtcnn is missing: {_INSTALL}") from error
    find = MTCNN(device="CPU:0")
    described = description["classifier"]
    size = described["image_size"]

    def judge(images: list[bytes]) -> list[np.ndarray]:
        found = []
        for one in images:
            image = chain.decode_image(one)
            crops = []
            for face in find.detect_faces(image):
                x, y, width, height = (max(int(side), 0) for side in face["box"])
                crop = image[y : y + height, x : x + width].astype(np.float32)
                crops.append(cv2.resize(crop, (size, size)))
            logits = np.zeros(0, np.float32)
            if crops:
                logits = classifier.predict(np.stack(crops), verbose=0)[:, 0]
            found.append(calibration.calibrate_logits(logits, described["temperature"]))
        return found

    return judge


def _build_chain(
    session: Callable[[keras.Model, str], Callable[[np.ndarray], Any]],
    detector: keras.Model,
    classifier: keras.Model,
    description: dict[str, Any],
) -> Peer:
    detect = session(detector, "detector")
    judge = session(classifier, "classifier")
    num_anchors = len(detector.anchors.boxes)

    def logits_and_offsets(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = sorted(detect(batch), key=lambda output: output.shape[-1])
        assert [x.shape[1:] for x in found] == [(num_anchors, 1), (num_anchors, 4)]
        return found[0], found[1]

    return chain.Chain(
        logits_and_offsets,
        lambda crops: judge(crops)[0][:, 0],
        detector.anchors.boxes,
        description,
    )
