"""How the demo page decodes and turns images, held against the graph's own decoding."""

import base64
import io
import json
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

import chromium_support
import serving_support
from dfdetect.media import decode, headers
from dfdetect.serving import demo_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_support.PATH is None, reason="no Chromium: apt-get install chromium"
    ),
]

HEIGHT, WIDTH = 6, 9
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
TYPES = {"jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
SHORT, LONG, SIGNED_SHORT, SIGNED_LONG, BYTE = 3, 4, 8, 9, 1


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A Chromium at the page of a server."""
    base = tmp_path_factory.mktemp("base")
    serving_support.save(base / "1", serving_support.no_heads)
    with serving_support.in_process(
        model_base_path=str(base), model_name="m", demo=True
    ) as started:
        browser = chromium_support.Browser(tmp_path_factory.mktemp("profile"))
        browser.go(started.client.url + demo_page.PATH)
        yield browser
        browser.close()


def tiff(orientation, order="<", type=SHORT, count=1, before=()):
    """A TIFF structure with an orientation behind other entries (tag, type, value)."""
    entries = b"".join(
        struct.pack(f"{order}HHIHxx", tag, kind, 1, value)
        for tag, kind, value in before
    )
    form = "I" if type in (LONG, SIGNED_LONG) else "Hxx"
    entries += struct.pack(f"{order}HHI{form}", 0x0112, type, count, orientation)
    mark = b"II" if order == "<" else b"MM"
    number = struct.pack(f"{order}H", len(before) + 1)
    return mark + struct.pack(f"{order}HI", 42, 8) + number + entries + bytes(4)


def encode(kind, **options):
    stream = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


def jpeg(exif, *more):
    """A JPEG with segments of EXIF before its others."""
    plain = encode("jpeg", quality=95, subsampling=0)
    segments = [b"Exif\0\0" + content for content in (exif, *more)]
    return plain[:2] + b"".join(map(app1, segments)) + plain[2:]


def app1(content):
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def png(exif, is_behind=False, name=b"eXIf"):
    plain = encode("png")
    body = struct.pack(">I", len(exif)) + name + exif
    body += struct.pack(">I", zlib.crc32(name + exif))
    at = len(plain) - 12 if is_behind else 33
    return plain[:at] + body + plain[at:]


def webp(exif, flags=0x08, is_first=False, **options):
    pixels = encode("webp", lossless=True, **options)[12:]
    exif = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    sides = (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes([flags, 0, 0, 0]) + sides
    body += exif + pixels if is_first else pixels + exif
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(screen, place):
    """A GIF of one frame, with its place (left, top, width, height) on the screen."""
    left, top, width, height = place
    image = PIL.Image.fromarray(PIXELS[:height, :width]).quantize(16)
    stream = io.BytesIO()
    image.save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", *screen)
    at = data.index(b"\x2c" + bytes(4) + struct.pack("<HH", width, height))
    data[at + 1 : at + 5] = struct.pack("<HH", left, top)
    return bytes(data)


def files():
    """Files by name, of all ways in which they say how they are to be turned."""
    found = {}
    for orientation in range(10):
        for order in "<>":
            exif = tiff(orientation, order)
            name = f"{orientation}{order}"
            found[f"{name}.jpeg"] = jpeg(exif)
            found[f"{name}.png"] = png(exif)
            found[f"{name} behind.png"] = png(exif, is_behind=True)
            found[f"{name}.webp"] = webp(exif)
            found[f"{name} prefixed.png"] = png(b"Exif\0\0" + exif)
            found[f"{name} prefixed behind.png"] = png(b"Exif\0\0" + exif, True)
            found[f"{name} prefixed.webp"] = webp(b"Exif\0\0" + exif)
    for type in (SHORT, LONG, SIGNED_SHORT, SIGNED_LONG, BYTE):
        for order in "<>":
            exif = tiff(6, order, type)
            name = f"type {type}{order}"
            found[f"{name}.jpeg"] = jpeg(exif)
            found[f"{name}.png"] = png(exif)
            found[f"{name}.webp"] = webp(exif)
    wrong = [(0x0112, BYTE, 3), (0x0112, SHORT, 9), (0x0110, SHORT, 3)]
    for name, exif in {
        "twice": tiff(6, before=[*wrong, (0x0112, SHORT, 8)]),
        "wrong ones first": tiff(6, before=wrong),
        "count 2": tiff(6, count=2),
        "cut short": tiff(6)[:18],
        "empty": b"",
    }.items():
        found[f"{name}.jpeg"] = jpeg(exif)
        found[f"{name}.png"] = png(exif)
        found[f"{name} behind.png"] = png(exif, True)
        found[f"{name}.webp"] = webp(exif)
    found["two segments.jpeg"] = jpeg(tiff(6), tiff(8))
    found["first without.jpeg"] = jpeg(tiff(9), tiff(8))
    xmp = app1(b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
    found["xmp.jpeg"] = b"\xff\xd8" + xmp + jpeg(tiff(3))[2:]
    found["fill bytes.jpeg"] = b"\xff\xd8\xff\xff\xff" + jpeg(tiff(5))[2:]
    found["behind the image.jpeg"] = encode("jpeg", quality=95) + app1(
        b"Exif\0\0" + tiff(6)
    )
    found["other name.png"] = png(tiff(6), name=b"exIf")
    found["without its flag.webp"] = webp(tiff(6), flags=0)
    found["first.webp"] = webp(tiff(6), is_first=True)
    found["simple.webp"] = encode("webp", lossless=True)
    return found


def test_orientations_are_read_as_the_graph_reads_them(page):
    contents = files()
    # Cut and damaged ones as well, which no reader may fail on.
    random = np.random.default_rng(1)
    for name, content in files().items():
        damaged = np.frombuffer(content, np.uint8).copy()
        places = random.integers(2, min(len(damaged), 120), 3)
        damaged[places] = random.integers(0, 256, 3)
        contents[f"damaged {name}"] = damaged.tobytes()
        contents[f"cut {name}"] = content[: random.integers(4, len(content))]
    texts = [base64.b64encode(content).decode() for content in contents.values()]
    found = page.evaluate(f"""import('./stored_image.js').then(m =>
        {json.dumps(texts)}.map(text => m.readOrientation(
            Uint8Array.from(atob(text), x => x.charCodeAt(0)))))""")
    wanted = headers.read_batch(tf.constant([*contents.values()])).numpy()
    wanted = wanted[:, headers.ORIENTATION].tolist()
    rows = zip(contents, found, wanted, strict=True)
    assert [row for row in rows if row[1] != row[2]] == []
    assert {*found} == {*range(1, 9)}


def painted(page, content, kind, window=None):
    """What the page paints of a file, or of a window (x, y, width, height) in it."""
    text = base64.b64encode(content).decode()
    found = page.evaluate(f"""(async () => {{
        const m = await import('./upright_image.js');
        const bytes = Uint8Array.from(atob({text!r}), x => x.charCodeAt(0));
        const image = await m.decodeUpright(bytes, {kind!r});
        const [x, y, width, height] =
            {json.dumps(window)} ?? [0, 0, image.width, image.height];
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [width, height];
        image.paint(canvas, x, y, width, height);
        const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
        return [image.width, image.height, width, height, [...data]];
    }})()""")
    *size, width, height, values = found
    return size, np.reshape(values, (height, width, 4))[..., :3]


def test_pixels_are_those_of_the_graph(page):
    for name, content in files().items():
        kind = name.split(".")[-1]
        wanted = decode.decode_image(content).numpy().astype(int)
        size, found = painted(page, content, TYPES[kind])
        assert size == [*wanted.shape[1::-1]], name
        # Decoders of JPEG differ a little, by how they round.
        tolerance = 12 if kind == "jpeg" else 0
        assert np.abs(found - wanted).max() <= tolerance, name
        x, y, width, height = 1, 2, 4, 3
        _, found = painted(page, content, TYPES[kind], [x, y, width, height])
        wanted = wanted[y : y + height, x : x + width]
        assert np.abs(found - wanted).max() <= tolerance, name


@pytest.mark.parametrize(
    "screen, place",
    [
        ((9, 6), (0, 0, 9, 6)),
        ((9, 6), (0, 0, 4, 3)),
        ((9, 6), (2, 1, 4, 3)),
        ((3, 3), (0, 0, 9, 6)),
    ],
)
def test_a_gif_has_the_size_of_its_first_frame(page, screen, place):
    content = gif(screen, place)
    wanted = decode.decode_image(content).numpy()
    size, found = painted(page, content, "image/gif")
    assert size == [*wanted.shape[1::-1]] == [*place[2:]]
    np.testing.assert_array_equal(found, wanted)
