# SPDX-License-Identifier: Apache-2.0
"""The first seeds of every target: small, valid files of each kind. `python tests/fuzz/sow.py [FOLDER]`.

What fuzzing found since lies beside them in `seeds/`, and cannot be made again from here.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import OpenImageIO
import opentimelineio as otio
from PIL import Image
from targets.codec import joined

from keytween.jobs import link
from keytween_wire import codec, messages

SEEDS = Path(__file__).resolve().parent / "seeds"
RGBA = np.random.default_rng(7).integers(0, 256, (4, 6, 4), dtype=np.uint8)
JOB = "ab" * 16
IMAGE = messages.KeyframeImage("cd" * 32, ".png", 7, messages.Colour.SRGB, "walk.png")
DIFFUSION = messages.Diffusion("toon", ("a cat", "a dog"), guidance=2.5, loras=("a.safetensors",))
REQUEST = messages.MorphRequest((IMAGE, IMAGE), ((0.25, 0.5),), engine="flow", seed=3, diffusion=DIFFUSION)
ERROR = messages.ErrorInfo("KT-103", {"name": "walk.png", "detail": "cut"})
INFO = messages.JobInfo(JOB, messages.JobState.FAILED, "flow", "walk", 1.5, 1, 2, error=ERROR)

Seeds = Iterator[tuple[str, bytes]]


def main() -> None:
    """Writes every seed under its target's folder."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else SEEDS
    for name, make in MAKERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for seed, data in make():
            (root / name / seed).write_bytes(data)


# ---- messages


def codec_seeds() -> Seeds:
    """One of every message, with what it can carry, and what worker and daemon say."""
    one = {
        "hello": messages.Hello(1, 1, "blender", "0.1.0"),
        "submit": messages.Submit(JOB, REQUEST, "walk"),
        "watch": messages.Watch(JOB, 3, 64, (0, 2)),
        "unwatch": messages.Unwatch(JOB),
        "cancel": messages.Cancel(JOB),
        "list-jobs": messages.ListJobs(JOB),
        "clear": messages.Clear(JOB),
        "stop": messages.Stop(when_idle=True),
        "welcome": messages.Welcome(
            1,
            "0.1.0",
            engines=(messages.EngineInfo("flow", "Moves.", overshoot=True),),
            checkpoints=(messages.CheckpointInfo("toon", "own", pullable=True),),
            presets=(messages.PresetInfo("final", "", DIFFUSION),),
            limits=messages.Limits(keyframes=8),
        ),
        "accepted": messages.Accepted(INFO, existing=True),
        "jobs": messages.Jobs((INFO, INFO)),
        "done": messages.Done(2),
        "failed": messages.Failed(ERROR),
        "job-changed": messages.JobChanged(JOB, 4, messages.JobState.FAILED, ERROR),
        "progressed": messages.Progressed(JOB, 5, "drawing", 1, 2, 0.5, 1, 2),
        "frame-made": messages.FrameMade(JOB, 6, 0, 0, 0.25, "cd" * 32, ".png", 9, "a note"),
    }
    for name, message in one.items():
        frames = codec.encode(message, number=7)
        yield name, joined(b"d", [*frames, b"blob"] if name in ("submit", "frame-made") else frames)
    yield (
        "newer",
        joined(b"c", [codec.encode(messages.ListJobs())[0], msgpack.packb({"x": [1.5, None, True]})]),
    )
    for said in (
        link.Run(JOB, f"jobs/{JOB}", REQUEST, 100.0),
        link.Found(JOB, (0, 1)),
        link.Working(JOB, "drawing", 1, 2, 0.5),
        link.Ended(JOB, error=ERROR),
    ):
        yield f"link-{type(said).__name__.lower()}", joined(b"w", link.say(said))


def connection_seeds() -> Seeds:
    """A connection file, a list of keys, and rows of the store."""
    key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    values = {"endpoint": "tcp://127.0.0.1:40213", "server_key": key, "client_key": key, "client_secret": key}
    yield (
        "file",
        b"c" + json.dumps({**values, "pid": 7, "boot_id": "ab", "protocol": 1, "version": "1"}).encode(),
    )
    yield "keys", b"k" + f"{key} a farm's node\n# no key\n{'0' * 40}\n".encode()
    rows = (
        REQUEST,
        ERROR,
        messages.Progressed(JOB, 5, "drawing", 1, 2, 0.5, 1, 2),
        messages.JobChanged(JOB, 4, messages.JobState.FAILED, ERROR),
        messages.FrameMade(JOB, 6, 0, 0, 0.25, "cd" * 32, ".png", 9, "a note"),
    )
    for number, row in enumerate(rows):
        yield f"row-{type(row).__name__.lower()}", str(number).encode() + codec.pack_dataclass(row)


# ---- pictures


def picture_seeds() -> Seeds:
    """Small pictures of every format, pixel type and compression that is read."""
    rgb = np.ascontiguousarray(RGBA[..., :3])
    yield "rgba.png", pillow(RGBA, "PNG")
    yield "grey.png", pillow(RGBA[..., 0], "PNG")
    yield "palette.png", saved(Image.fromarray(rgb).quantize(4), "PNG", transparency=1)
    yield "bits.png", saved(Image.fromarray(rgb).convert("1"), "PNG")
    yield "deep.png", with_oiio(RGBA.astype(np.uint16) * 257, "uint16", ".png")
    for name, chunk in PNG_CHUNKS.items():
        yield f"{name}.png", png_with(pillow(rgb, "PNG"), *chunk)
    frames = [Image.fromarray(np.ascontiguousarray(RGBA[::step])) for step in (1, -1)]
    yield "two.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:])
    yield "two.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield "lossless.webp", pillow(RGBA, "WEBP", lossless=True)
    yield "lossy.webp", pillow(rgb, "WEBP", quality=20)
    yield "matte.webp", pillow(RGBA, "WEBP", quality=20)
    yield "plain.jpg", pillow(rgb, "JPEG", quality=30)
    yield "progressive.jpg", pillow(rgb, "JPEG", quality=30, progressive=True)
    yield "grey.jpg", pillow(RGBA[..., 0], "JPEG", quality=30)
    yield "cmyk.jpg", saved(Image.fromarray(rgb).convert("CMYK"), "JPEG", quality=30)
    yield "camera.jpg", pillow(rgb, "JPEG", quality=30, exif=b"Exif\0\0" + camera_block())
    yield "profile.jpg", pillow(rgb, "JPEG", quality=30, icc_profile=profile(True))
    yield from tiff_seeds(rgb)
    yield from exr_seeds()


def tiff_seeds(rgb: np.ndarray) -> Seeds:
    """TIFFs."""
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield f"{compression}.tif", pillow(rgb, "TIFF", compression=compression)
    yield "profile.tif", pillow(rgb, "TIFF", icc_profile=profile(False))
    yield "palette.tif", saved(Image.fromarray(rgb).quantize(4), "TIFF")
    yield (
        "pages.tif",
        saved(Image.fromarray(rgb), "TIFF", save_all=True, append_images=[Image.fromarray(rgb)]),
    )
    yield "float.tif", with_oiio(rgb.astype(np.float32) / 255, "float", ".tif")
    yield "planes.tif", with_oiio(RGBA, "uint8", ".tif", planarconfig="separate", compression="none")
    yield "associated.tif", with_oiio(RGBA, "uint8", ".tif", compression="none", Orientation=6)
    yield "big.tif", big_tiff()


def exr_seeds() -> Seeds:
    """OpenEXR."""
    light = RGBA.astype(np.float32) / 255
    for compression in ("none", "rle", "zip", "zips", "piz", "pxr24", "b44", "dwaa", "htj2k"):
        yield f"{compression}.exr", with_oiio(light, "half", ".exr", compression=compression)
    yield (
        "float.exr",
        with_oiio(light[..., :3], "float", ".exr", compression="zip", colorInteropID="srgb_rec709_scene"),
    )
    yield "grey.exr", with_oiio(light[..., :1], "half", ".exr", compression="none")
    yield "tiles.exr", with_oiio(light, "half", ".exr", compression="zip", tile=4)


def header_seeds() -> Seeds:
    """The same pictures' beginnings, and profiles."""
    for name, data in picture_seeds():
        yield name, data[:700]
    yield "srgb.icc", profile(True)
    yield "other.icc", profile(False)
    yield (
        "para.icc",
        profile(False, curve=b"para\0\0\0\0\0\3\0\0" + struct.pack(">5i", 157286, 62119, 3417, 5072, 2651)),
    )
    yield (
        "table.icc",
        profile(True, curve=b"curv\0\0\0\0" + struct.pack(">I5H", 5, 0, 3000, 14000, 35000, 65535)),
    )


def pillow(array: np.ndarray, kind: str, **options: Any) -> bytes:
    """The bytes that Pillow makes of an array."""
    return saved(Image.fromarray(np.ascontiguousarray(array)), kind, **options)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes that Pillow makes of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def with_oiio(array: np.ndarray, kind: str, suffix: str, *, tile: int = 0, **attributes: Any) -> bytes:
    """The bytes that OpenImageIO makes of an array."""
    spec = OpenImageIO.ImageSpec(array.shape[1], array.shape[0], array.shape[2], kind)
    if array.shape[2] == 1:
        spec.channelnames = ("Y",)
    spec.tile_width = spec.tile_height = tile
    for name, value in attributes.items():
        spec.attribute(name, value)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"any{suffix}"
        writer = OpenImageIO.ImageOutput.create(str(path))
        assert writer.open(str(path), spec), writer.geterror()
        assert writer.write_image(array), writer.geterror()
        writer.close()
        return path.read_bytes()


PNG_CHUNKS = {
    "cicp": ((b"cICP", b"\x01\x0d\x00\x01"),),
    "gamma": ((b"gAMA", struct.pack(">I", 45455)),),
    "srgb": ((b"sRGB", b"\0"),),
    "primaries": ((b"gAMA", struct.pack(">I", 45455)), (b"cHRM", struct.pack(">8I", *range(8)))),
}


def png_with(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with these chunks behind its header."""
    made = (struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:33] + b"".join(made) + data[33:]


def camera_block() -> bytes:
    """An Exif block that names a colour space and an interoperability index."""

    def directory(*entries: bytes) -> bytes:
        return struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"

    exif = directory(struct.pack("<HHIHH", 0xA001, 3, 1, 65535, 0), struct.pack("<HHII", 0xA005, 4, 1, 56))
    interop = directory(struct.pack("<HHI4s", 1, 2, 4, b"R98\0"))
    return b"II*\0\x08\0\0\0" + directory(struct.pack("<HHII", 0x8769, 4, 1, 26)) + exif + interop


def big_tiff() -> bytes:
    """A BigTIFF of one grey pixel."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8 + 8 + 8 + 20 * 9 + 8, 277: 1, 278: 1, 279: 1}
    entries = b"".join(struct.pack("<HHQQ", tag, 4, 1, value) for tag, value in tags.items())
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(tags)) + entries + struct.pack("<Q", 0) + b"\x7f"


def profile(srgb: bool, curve: bytes = b"curv\0\0\0\0\0\0\0\1\x02\x33\0\0") -> bytes:
    """A small ICC profile."""
    red = (28573, 14582, 911) if srgb else (33757, 15808, -72)
    xyz = [b"XYZ \0\0\0\0" + struct.pack(">3i", *v) for v in (red, (25238, 46983, 6363), (9378, 3971, 46786))]
    desc = b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 8, 28) + "Mine".encode("utf-16-be")
    bodies = dict(
        zip(
            (b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC", b"desc"),
            [*xyz] + [curve] * 3 + [desc],
            strict=True,
        )
    )
    table, data = struct.pack(">I", len(bodies)), b""
    for signature, body in bodies.items():
        table += struct.pack(">4sII", signature, 132 + 12 * len(bodies) + len(data), len(body))
        data += body + b"\0" * (-len(body) % 4)
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(table) + len(data), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    return (head + b"\0" * 12 + b"acsp").ljust(128, b"\0") + table + data


# ---- shots


def manifest_seeds() -> Seeds:
    """Shots tables, settings and records."""
    yield (
        "toml",
        b"t"
        + b"""output = "out"
frames = "frames/{shot}/{frame:04d}"
[defaults]
engine = "diffmorpher"
fps = 25.0
[defaults.diffusion]
preset = "draft"
checkpoint = "toon"
[[shot]]
id = "one"
keyframes = ["key.0001.png", "key.0008.png"]
frames = [1, 8]
holds = [2, 1]
ease = "sine-in-out"
[[shot]]
id = "two-{folder}"
folders = "w*"
keyframes = "*%d.png"
in-betweens = 3
exposure = 2
[[shot]]
id = "three"
keyframes = "key.####.png"
frames = "from-names"
seed = 3
film = "mp4"
diffusion = { prompts = ["a", "b"], steps = 5, guidance = 1 }
""",
    )
    yield (
        "csv",
        b"c"
        + b"""id,keyframes,frames,in_betweens,ease,diffusion.preset,diffusion.steps,colour
one,key.0001.png;key.0008.png,1;9,,linear,draft,5,auto
two,key.####.png,,3,sine-in,,,srgb
"three, quoted",key.####.png,from-names,,bezier,,,
""",
    )
    yield (
        "settings",
        b"s" + b'state = "~/here"\nmax_megapixels = 12.5\nmax_attempts = 2\nidle_s = 30\ndevices = "0,1"\n',
    )
    stored = {"file": "frames/one/0001.png", "sha256": "ab" * 32, "bytes": 7, "mtime_ns": 12}
    record = {
        "schema": 1,
        "state": "done",
        "shot": "one",
        "files": [stored["file"]],
        "frames": [{"frame": 1}],
    }
    yield "record", b"r" + json.dumps(record).encode()
    lines = [{"request": "walk"}, {"cel": "d3", **stored}]
    yield "journal", b"r" + "\n".join(json.dumps(line) for line in lines).encode() + b"\n"
    yield "wish", b"r" + json.dumps({"shot": "one", "what": "cancel"}).encode()


def timeline_seeds() -> Seeds:
    """Timelines with what is read of them, and archives of one."""
    plain = timeline()
    text = otio.core.serialize_json_to_string(plain, indent=0).encode()
    yield "show.otio", text
    plain.global_start_time = otio.opentime.RationalTime(86400, 23.976)
    yield "starts.otio", otio.core.serialize_json_to_string(plain, indent=0).encode()
    collection = otio.schema.SerializableCollection(children=[plain])
    yield "collection.otio", otio.core.serialize_json_to_string(collection, indent=0).encode()
    yield "stored.otioz", archive(text, zipfile.ZIP_STORED)
    yield "deflated.otioz", archive(text, zipfile.ZIP_DEFLATED)
    yield "bzip2.otioz", archive(text, zipfile.ZIP_BZIP2)
    yield "lzma.otioz", archive(text, zipfile.ZIP_LZMA)
    yield "astray.otioz", archive(text, zipfile.ZIP_STORED, name="../../astray.png")


def timeline() -> otio.schema.Timeline:
    """Two stills, a sequence, gaps between them, a transition, markers and metadata."""

    def span(start: float, length: float) -> otio.opentime.TimeRange:
        return otio.opentime.TimeRange(
            otio.opentime.RationalTime(start, 24), otio.opentime.RationalTime(length, 24)
        )

    track = otio.schema.Track("V1", kind="Video")
    still = otio.schema.ExternalReference("media/a%20b.png", span(0, 4))
    sequence = otio.schema.ImageSequenceReference(
        "media", "walk.", ".png", 1, 1, 24.0, 4, available_range=span(1, 9)
    )
    gap = otio.schema.Gap(source_range=span(0, 6))
    gap.markers.append(otio.schema.Marker("prompt: a cat\nease: sine-in", span(0, 1)))
    gap.metadata["keytween"] = {"shot": "one", "exposure": 2, "diffusion": {"preset": "draft"}}
    track.append(otio.schema.Clip("a", still, span(0, 4)))
    track.append(gap)
    track.append(otio.schema.Clip("b", sequence, span(2, 3)))
    track.append(otio.schema.Gap(source_range=span(0, 3)))
    track.append(otio.schema.Clip("c", otio.schema.ExternalReference("file:///media/c.png"), span(0, 2)))
    track.append(
        otio.schema.Transition(
            "t", "SMPTE_Dissolve", otio.opentime.RationalTime(1, 24), otio.opentime.RationalTime(1, 24)
        )
    )
    track.append(otio.schema.Clip("d", otio.schema.MissingReference(), span(0, 2)))
    whole = otio.schema.Timeline("show")
    whole.tracks.append(track)
    return whole


def archive(text: bytes, method: int, *, name: str = "media/a b.png") -> bytes:
    """An archive with the timeline and one picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for member, data in (("content.otio", text), (name, pillow(RGBA, "PNG"))):
            file.writestr(zipfile.ZipInfo(member), data, method)
    return buffer.getvalue()


# ---- weights


def weight_seeds() -> Seeds:
    """Safetensors, folders' JSON, lists of names, curves, and a LoRA of each kind."""
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
    for name, halves in {
        "peft": (f"{layer}.to_q.lora_A.weight", f"{layer}.to_q.lora_B.weight"),
        "published": (f"{layer}.processor.to_q_lora.down.weight", f"{layer}.processor.to_q_lora.up.weight"),
    }.items():
        yield f"{name}-lora", b"s" + tensors({halves[0]: (2, 4), halves[1]: (4, 2)})
    scaled = {
        f"{layer}.to_q.lora_A.weight": (2, 4),
        f"{layer}.to_q.lora_B.weight": (4, 2),
        f"{layer}.to_q.alpha": (),
    }
    yield "scaled-lora", b"s" + tensors(scaled)
    fit = {"clean": (1, 4, 1, 1), "noise": (1, 4, 1, 1), "a.to_q|down": (2, 4), "a.to_q|up": (4, 2)}
    yield "fit", b"s" + tensors(fit)
    yield (
        "curve",
        b"p" + json.dumps({"alphas": [0, 0.4, 1], "changed": [0, 0.5, 1], "distance": "lpips"}).encode(),
    )
    files = {"unet/config.json": [12, "ab" * 32]}
    listed = {"mine": {"folder": "/nowhere/mine", "source": "", "revision": "", "files": files}}
    pulled = {"sd15": {"folder": "", "source": "a/b", "revision": "ab", "files": files}}
    yield "list", b"m" + json.dumps({"version": 1, "models": listed | pulled}).encode()
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    yield "index", b"i" + json.dumps({"_class_name": "StableDiffusionPipeline", **parts}).encode()
    shards = {"metadata": {"total_size": 9}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    yield "shards", b"h" + json.dumps(shards).encode()
    schedule = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }
    more = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "trained_betas": None}
    yield "schedule", b"n" + json.dumps(schedule | more).encode()


def tensors(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """A safetensors file of zeros."""
    at, header = 0, {}
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(at)


MAKERS = {
    "codec": codec_seeds,
    "headers": header_seeds,
    "pictures": picture_seeds,
    "manifests": manifest_seeds,
    "timelines": timeline_seeds,
    "weights": weight_seeds,
    "connection": connection_seeds,
}

if __name__ == "__main__":
    main()
