"""Draws source folders for the dataset builders, and prepares and reads them."""

import importlib.util
import pathlib
import sys

import cv2
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered

ROOT = pathlib.Path(__file__).resolve().parents[2]


def builder_class(name):
    """Loads a builder class by its path, without registering it."""
    module_name = f"{name}_dataset_builder"
    spec = importlib.util.spec_from_file_location(
        module_name, ROOT / "datasets" / name / f"{module_name}.py"
    )
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    # Unregistered, `tfds.builder` has nothing but the prepared folder to read.
    with registered.skip_registration():
        spec.loader.exec_module(module)
    return module.Builder


def prepare(builder, manual_dir, **download_config):
    """Prepares a data set, and opens it from its folder alone."""
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=manual_dir, **download_config
        )
    )
    name, data_dir = builder.info.name, builder._data_dir_root
    if builder.builder_config:
        name = f"{name}/{builder.builder_config.name}"
    builder = tfds.builder(name, data_dir=data_dir)
    assert isinstance(builder, tfds.core.read_only_builder.ReadOnlyBuilder)
    return builder


def records(builder, split):
    """Returns the encoded images by file name."""
    examples = builder.as_dataset(
        split=split, decoders={"image": tfds.decode.SkipDecoding()}
    )
    return {e["image/filename"].decode(): e for e in examples.as_numpy_iterator()}


def snapshot(folder):
    """Returns time and content of all files in a folder."""
    return {
        path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes())
        for path in folder.rglob("*")
    }


def encoded(ending, height, width, seed=0):
    """Encodes an image of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return cv2.imencode(ending, pixels.astype(np.uint8))[1].tobytes()


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def clip(path, num_frames=10, height=48, width=64, rate=25, gray=None):
    """Writes a clip whose frame i has the brightness 20 * i % 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Frames that are each complete, in AVI: what is left of a cut file can be read.
    aside = path.with_name("aside.avi")
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(aside), codec, rate, (width, height))
    for index in range(num_frames):
        value = 20 * index % 256 if gray is None else gray
        writer.write(np.full((height, width, 3), value, np.uint8))
    writer.release()
    aside.rename(path)


def cut(path, share=0.5):
    """Truncates a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


# --- HollywoodHeads ---


def head(ymin, xmin, ymax, xmax, rest="<difficult>0</difficult>"):
    return (
        f"<object><name>head</name><bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin>"
        f"<xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>{rest}</object>"
    )


def film_frame(root, stem, objects, size="<width>80</width><height>40</height>"):
    write(root / "JPEGImages" / f"{stem}.jpeg", encoded(".jpg", 40, 80))
    write(
        root / "Annotations" / f"{stem}.xml",
        f"<annotation><size>{size}</size>{''.join(objects)}</annotation>",
    )


def film_splits(root, **splits):
    for name, stems in splits.items():
        write(root / "Splits" / f"{name}.txt", "".join(f"{s}\n" for s in stems))


# By frame of mov_001.
DAMAGED_FILM_LABELS = {
    80: head(5, 9, 25, 9),  # no width
    82: head(30, 9, 20, 19),  # upside down
    84: head(50, 9, 60, 19),  # below the image
    86: head("", 1, 2, 3),
    88: head("ten", 1, 2, 3),
    90: "<object><name>head</name></object>",
    92: head(1, 1, 9, 9).replace("head", "Head"),
}


def draw_hollywood_heads(root):
    """Draws HollywoodHeads with every known defect: 3 / 1 / 1 usable frames."""
    train = [f"mov_001_{i:06d}" for i in (1, 2, 30, 40, 50, 60, 70)]
    film_frame(
        root,
        train[0],
        [
            head("10.0", "20.0", "30.0", "60.0", "<difficult>1</difficult>"),
            head("4", "8.5", "20", "16", ""),
        ],
    )
    film_frame(root, train[1], ["<object/>"])
    film_frame(
        root,
        train[2],
        [
            head(-4, 60, 20, 100),  # clipped
            head(0, 0, 40, 80),  # the whole image: touches 0, not clipped
            head(1, 1, 9, 9).replace("head", "person"),
        ],
    )
    for number, label in DAMAGED_FILM_LABELS.items():
        film_frame(root, f"mov_001_{number:06d}", [head(1, 1, 9, 9), label])
        train.append(f"mov_001_{number:06d}")
    write(root / "Annotations" / f"{train[3]}.xml", "<annotation/>")
    write(root / "JPEGImages" / f"{train[4]}.jpeg", encoded(".jpg", 40, 80))
    film_frame(root, train[5], [])
    cut(root / "JPEGImages" / f"{train[5]}.jpeg", 0.9)
    film_frame(root, train[6], [])
    write(root / "Annotations" / f"{train[6]}.xml", "<annotation><object>")
    film_frame(root, "PartB_00007", [head(10, 20, 30, 60)], "<width>80</width>")
    film_frame(root, "portrait", [head(10, 20, 30, 60)])
    film_splits(
        root, train=train, val=["PartB_00007"], test=["portrait", "mov_009_000001"]
    )


# --- labeled_heads ---


def draw_labeled_heads(root):
    """Draws a VOC folder with every kind of image: 4 / 1 / 0 usable, four left out."""
    person = head(1, 1, 9, 9).replace("head", "person")
    labels = {
        "a.jpg": [
            head("10.0", "20.0", "30.0", "60.0", "<difficult>1</difficult>"),
            head(-4, 60, 20, 100, ""),  # clipped
            person,
        ],
        "b.PNG": ["<object/>"],
        "c.webp": [head(10, 20, 30, 60), person],
        "d.bmp": ["<group>film</group>", head(10, 20, 30, 60)],
        "e.jpeg": [head(10, 20, 30, 60)],
        "capital.jpg": [head(10, 20, 30, 60).replace("head", "Head")],
        "broken.jpg": [head(10, 20, 30, 60)],
    }
    for name, objects in labels.items():
        stem, ending = name.split(".")
        write(root / "JPEGImages" / name, encoded(f".{ending.lower()}", 40, 80))
        text = f"<annotation>{''.join(objects)}</annotation>"
        write(root / "Annotations" / f"{stem}.xml", text)
    cut(root / "JPEGImages/broken.jpg")
    write(root / "JPEGImages/silent.jpg", encoded(".jpg", 40, 80))
    write(root / "Annotations/lost.xml", "<annotation/>")
    train = [*"abcd", "capital", "broken", "silent", "lost"]
    film_splits(root, train=train, val=["e"], test=[])
    write(root / "groups.csv", "\ufeffpath, group\nJPEGImages/c.webp, film\na.jpg,\n")


# --- labeled_faces ---


def faces(root, lines, header="path,label,split,group"):
    """Writes `labels.csv` and a small image for each path in it that has none."""
    write(root / "labels.csv", "\n".join([header, *lines]) + "\n")
    for seed, line in enumerate(lines):
        path = root / line.split(",")[0].strip('"')
        if not path.exists():
            write(path, encoded(path.suffix, 6, 8, seed))


def draw_labeled_faces(root):
    """Draws every kind of row and file: 2 / 3 / 1 usable images, one broken."""
    write(root / "real/large.jpg", encoded(".jpg", 50, 30))
    write(root / "broken.jpg", encoded(".jpg", 50, 30)[:-100])
    faces(
        root,
        [
            "real/large.jpg,real,train,one",
            "fake/b.png,fake,train,one",
            "c.bmp,0,val,two",
            "d.webp,1,validation,two",
            '"e f.jpg",real,test,',
            "g.png,fake,,two",
            "broken.jpg,fake,train,three",
        ],
        "\ufeffpath,label,split,group",
    )
    write(root / "e f.jpg", encoded(".jpg", 9, 9))


# --- deepfake_challenge ---


def draw_deepfake_challenge(root):
    """Draws two folders and a ZIP file, with a broken image and files of macOS."""
    import zipfile

    for i in range(20):
        write(root / f"0-CelebA/{i:06d}.jpg", encoded(".jpg", 218, 178, i))
        write(root / f"1-STYLEGAN/{i:02d}.PNG", encoded(".png", 32, 32, 100 + i))
    write(root / "0-CelebA/._000000.jpg", b"dirt")
    write(root / "0-CelebA/Thumbs.db", b"dirt")
    write(root / "1-STYLEGAN/broken.png", encoded(".png", 32, 32)[:200])
    with zipfile.ZipFile(root / "1-GDWCT.zip", "w") as file:
        for i in range(20):
            file.writestr(f"1-GDWCT/{i}.png", encoded(".png", 21, 21, 200 + i))
        file.writestr("__MACOSX/1-GDWCT/._1.png", b"dirt")


# --- FaceForensics++ ---

YOUTUBE = "original_sequences/youtube/c23/videos"


def method_folder(method, compression="c23"):
    return f"manipulated_sequences/{method}/{compression}/videos"


def draw_faceforensics(root):
    """Draws clips with all kinds of names, whole and damaged: 4 / 2 / 2 usable.

    The first pairs of the official split are 071_054 (train), 720_672 (validation) and
    953_974 (test).
    """
    for name in ("071", "720", "953"):
        clip(root / YOUTUBE / f"{name}.mp4", 10)
    clip(root / method_folder("Deepfakes") / "071_054.mp4", 10)
    clip(
        root / "manipulated_sequences/Deepfakes/masks/videos/071_054.mp4", 10, gray=255
    )
    clip(root / method_folder("FaceSwap") / "720_672.mp4", 3)
    clip(root / method_folder("FaceShifter") / "974_953.mp4", 10)
    # Actors 01 and 02 train, 05 validates.
    actors = "original_sequences/actors/c23/videos"
    clip(root / actors / "01__exit_phone_room.mp4", 10)
    dfd = method_folder("DeepFakeDetection")
    clip(root / dfd / "01_02__exit_phone_room__YVGY8LOK.mp4", 10)
    clip(root / dfd / "01_05__exit_phone_room__YVGY8LOK.mp4", 10)  # crosses
    # Damage.
    clip(root / YOUTUBE / "054.mp4", 100)
    cut(root / YOUTUBE / "054.mp4")
    write(root / method_folder("Deepfakes") / "054_071.mp4", b"")
    write(root / method_folder("Deepfakes") / "720_672.mp4", b"no clip at all")
    clip(root / method_folder("Deepfakes") / "071_672.mp4", 10)  # no pair of the set
    clip(root / method_folder("Deepfakes") / "071_054 (1).mp4", 10)
