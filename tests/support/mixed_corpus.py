"""Folders of drawn files of all kinds, as whole corpora hold them."""

import cv2
import numpy as np

import tiny_heads


def draw(folder, num_images=6):
    """Draws images with heads, clips, broken files and odd names; returns their number.

    Files that are neither images nor clips are not counted: they are passed over.
    """
    (folder / "sub dir").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    random = np.random.default_rng(7)
    for i in range(num_images):
        left, top = (int(x) for x in random.integers(0, 40, 2))
        color = tiny_heads.RED if i % 2 else tiny_heads.BLUE
        heads = [(left, top, color)] if i % 5 else []
        name = ("sub dir/" if i % 3 == 0 else "") + f"{i:04d}.png"
        write_image(folder / name, tiny_heads.frame(*heads))
    red = tiny_heads.frame((24, 24, tiny_heads.RED))
    write_image(folder / "with space and ümlaut.png", red)
    write_image(folder / "two\nlines.png", red)
    write_image(folder / ".hidden" / "h.png", red)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpeg").write_text("no image\n")
    cut = (folder / "with space and ümlaut.png").read_bytes()[:200]
    (folder / "cut.png").write_bytes(cut)
    (folder / "notes.txt").write_text("a note\n")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    with open(bytes(folder) + b"/not utf-8 \xff.png", "wb") as file:
        file.write((folder / "two\nlines.png").read_bytes())
    tiny_heads.crossing(folder / "crossing.mp4", 6)
    tiny_heads.write_clip(folder / "sub dir" / "still.avi", [red] * 3)
    (folder / "broken.mp4").write_text("a text\n")
    return num_images + 10


def write_image(path, image):
    """Writes an RGB image, whatever its name."""
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
