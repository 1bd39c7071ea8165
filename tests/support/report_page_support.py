"""Results and a report for tests, of drawn images and made-up clips."""

import html.parser

import cv2
import numpy as np

from dfdetect.reports import page

THRESHOLDS = {"real_below": 0.3, "fake_from": 0.7}
NASTY = "<script>document.title='run'</script>\"'><img src=x onerror=alert(1)>&amp;.jpg"


def drawn(height=300, width=400, seed=0):
    """Draws an image `[height, width, 3]` that is neither plain nor noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (height // 20, width // 20, 3)).astype(np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(image):
    return cv2.imencode(".jpg", image[..., ::-1])[1].tobytes()


def image_result(path="a.jpg", probabilities=(0.9, None), verdict="fake", **more):
    """Builds the line of an image of 400 x 300 with a head for each probability."""
    heads = [
        {
            "box": [0.1, 0.1 + 0.3 * i, 0.5, 0.3 + 0.3 * i],
            "score": 0.8,
            "fake_probability": probability,
        }
        for i, probability in enumerate(probabilities)
    ]
    judged = [p for p in probabilities if p is not None]
    return {
        "path": path,
        "kind": "image",
        "status": "ok",
        "width": 400,
        "height": 300,
        "heads": heads,
        "fake_probability": max(judged, default=None),
        "verdict": verdict,
        **more,
    }


def unreadable(path="broken.jpg"):
    return image_result(path, (), None, status="unreadable", width=None, height=None)


def clip_result(path="clip.mp4"):
    """Builds the line of a clip of eight frames; track 2 has no verdict in three."""
    frames = []
    for i in range(8):
        heads = [_clip_head(0.1, 0.8 + 0.02 * i, 1)]
        if i not in (3, 4):
            heads.append(_clip_head(0.6, None if i == 7 else 0.2, 2))
        frames.append({"index": 10 * i, "time": 0.5 + i, "shot": 0, "heads": heads})
    tracks = [
        {
            "track": 1,
            "first_time": 0.5,
            "last_time": 7.5,
            "num_heads": 8,
            "fake_probability": 0.9,
        }
        | {"verdict": "fake"},
        {
            "track": 2,
            "first_time": 0.5,
            "last_time": 7.5,
            "num_heads": 6,
            "fake_probability": 0.2,
        },
    ]
    return {
        "path": path,
        "kind": "video",
        "status": "ok",
        "width": 640,
        "height": 360,
        "duration": 8.0,
        "heads": [
            {**frames[i]["heads"][track - 1], "time": 0.5 + i}
            for i, track in ((7, 1), (2, 2))
        ],
        "frames": frames,
        "tracks": tracks,
        "fake_probability": 0.9,
        "verdict": "fake",
    }


def _clip_head(left, probability, track):
    box = [0.2, left, 0.6, left + 0.25]
    return {"box": box, "score": 0.9, "fake_probability": probability, "track": track}


def report(path, **more):
    """Opens a report with its own thresholds, as a context manager."""
    arguments = {"about": "<section><h2>About</h2></section>", **more}
    return page.ReportPage(str(path), THRESHOLDS, crop_margin=1.3, **arguments)


class Page(html.parser.HTMLParser):
    """The tags and texts of a page; checks that tags close in order.

    Attributes:
        tags: All of them, as they open: name and attributes.
        texts: Between them.
    """

    _VOID = ("meta", "img", "br", "input")

    def __init__(self, path):
        super().__init__()
        self.source = path.read_bytes().decode()
        self.tags, self.texts, self._open = [], [], []
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def all(self, name, **wanted):
        """Returns the attributes of all tags with a name and attributes."""
        return [
            attributes
            for tag, attributes in self.tags
            if tag == name and wanted.items() <= attributes.items()
        ]
