"""Models in local folders: config.json beside model.safetensors, nothing that executes on loading."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from torch import nn

__all__ = ["Config", "PretrainedModel"]

_C = TypeVar("_C", bound="Config")
_M = TypeVar("_M", bound="PretrainedModel")


class Config:
    """A dataclass that goes to and from JSON; nested configs become objects."""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_dict(cls: type[_C], values: dict[str, Any]) -> _C:
        hints = get_type_hints(cls)
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        return cls(**{name: _revive(hints[name], value) for name, value in values.items()})


def _revive(hint: Any, value: Any) -> Any:
    if isinstance(value, dict) and isinstance(hint, type) and issubclass(hint, Config):
        return hint.from_dict(value)
    return tuple(value) if isinstance(value, list) else value


class PretrainedModel(nn.Module):
    """A module made from one config, with save_pretrained and from_pretrained."""

    config_class: ClassVar[type[Config]]
    config: Any

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors into `folder`."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        description = {"model": type(self).__name__, "config": self.config.to_dict()}
        (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")
        save_file(
            {name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "model.safetensors"
        )

    @classmethod
    def from_pretrained(cls: type[_M], folder: str | Path) -> _M:
        """The model that save_pretrained wrote into a local folder."""
        from safetensors.torch import load_file

        folder = Path(folder)
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"folder has no {name}: {folder}; give a folder written by save_pretrained")
        description = json.loads((folder / "config.json").read_text())
        if description.get("model") != cls.__name__:
            raise ValueError(
                f"folder holds a {description.get('model')}, not a {cls.__name__}; load it with that class"
            )
        model = cls(cls.config_class.from_dict(description["config"]))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
