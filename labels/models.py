"""What identifies a model: the contents of a local folder, or a Hub name with its revision."""

from pathlib import Path

from labels.errors import EngineError
from labels.files import digest_files

PARTS = ("*.json", "*.safetensors", "*.jinja", "*.model")


def model_identity(model: str, revision: str | None = None) -> str:
    """`name-hash` of a model folder, or `name@revision` of a model on the Hub.

    Raises EngineError where a path is given and no model lies there.
    """
    folder = Path(model)
    if folder.is_dir():
        files = [path for pattern in PARTS for path in folder.glob(pattern)]
        if not any(path.suffix == ".safetensors" for path in files):
            raise EngineError(f"{folder} holds no safetensors; wanted a model folder (config.json, *.safetensors)")
        return f"{folder.name}-{digest_files(files)}"
    if model.startswith((".", "/")) or model.count("/") != 1:
        raise EngineError(
            f"no model at {model}; wanted a folder, or a Hub name such as meta-llama/Llama-3.1-8B-Instruct"
        )
    return f"{model}@{revision or 'main'}"
