"""`train/convert.py` as a user runs it: a file of FaceForensics++ becomes a model."""

import numpy as np

import numpy_networks
import pytorch_files
from dfdetect.models import model_directory


def _write(path, classes, monkeypatch):
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in numpy_networks.xception_shapes(classes).items():
        if name.endswith("num_batches_tracked"):
            continue
        scale = 1 / np.sqrt(np.prod(shape[1:]))
        values = rng.normal(0, scale, shape)
        values = rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else values
        arrays[f"model.{name}"] = values.astype(np.float32)
    pytorch_files.fake_torch(monkeypatch)
    pytorch_files.write(path, pytorch_files.tensors(arrays))
    return {name.removeprefix("model."): array for name, array in arrays.items()}


def test_a_file_of_faceforensics_becomes_a_model_folder(
    run_script, monkeypatch, tmp_path
):
    path, folder = tmp_path / "full_c23.p", tmp_path / "model"
    arrays = _write(path, 2, monkeypatch)
    flags = (f"--snapshot={path}", f"--model_dir={folder}", "--image_size=71")
    done = run_script("train/convert.py", *flags)
    assert "0 missing; 0 unexpected; 0 mismatched" in done.stdout
    model, described = model_directory.load_classifier(str(folder))
    assert described["converted_from"] == "full_c23.p"
    assert described["data"] == [] and described["temperature"] == 1
    images = np.random.default_rng(1).uniform(0, 255, (2, 71, 71, 3)).astype("float32")
    real, fake = numpy_networks.xception(arrays, images).T
    np.testing.assert_allclose(model(images)[:, 0], fake - real, atol=1e-4)
    again = run_script("train/convert.py", *flags, check=False)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_a_file_without_logits_for_a_head_is_refused(run_script, monkeypatch, tmp_path):
    path, folder = tmp_path / "imagenet.pth", tmp_path / "model"
    _write(path, 1000, monkeypatch)
    done = run_script(
        "train/convert.py",
        f"--snapshot={path}",
        f"--model_dir={folder}",
        "--image_size=71",
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "must have all weights of xception_pytorch" in line
    assert "2 mismatched (logits/kernel, logits/bias)" in line
    assert [x.name for x in tmp_path.iterdir()] == ["imagenet.pth"]
