"""One TOML file and the environment to a LoRAuter. Knows where things are, not how they work.

Every value can be overridden by an environment variable: `LORAUTER_` and the table and key with two
underscores between them, such as `LORAUTER_ROUTING__K=5`. Relative paths are read from the file's folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from lorauter_integrations.errors import ConfigError, OptionError, listing
from lorauter_integrations.generation import GenerationOptions
from lorauter_integrations.locations import resolve_location
from lorauter_integrations.route_text import DEFAULT_ROUTE_ON, RouteOnName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_FILE = "lorauter.toml"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(_Table):
    """`[model]`: the base model."""

    name: str = Field(min_length=1, description="hub name, folder, .gguf file, or package:PACKAGE/path")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    device: str = "auto"
    device_map: Literal["", "auto", "balanced", "balanced_low_0", "sequential"] = Field(
        "", description="spread over devices by accelerate; then device stays auto"
    )
    quantization: Literal["", "4bit", "8bit"] = Field("", description="by bitsandbytes")


class EncoderSettings(_Table):
    """`[encoder]`: places texts among the tasks; loaded by its name, or made by a factory."""

    name: str = Field("sentence-transformers/all-MiniLM-L6-v2", description="hub name, folder, or package:...")
    prefix: str = Field("", description="put before each text, for encoders trained with an instruction")
    device: str | None = None
    long_texts: Literal["ends", "head"] = Field(
        "ends", description="what is read of a text longer than the encoder reads: both ends, or its beginning"
    )
    cache: int = Field(4096, ge=0, description="vectors kept in memory; 0 keeps none")
    factory: str = Field("", description="package.module:function that makes an encoder; then nothing else is set")

    @model_validator(mode="after")
    def _factory_is_alone(self) -> EncoderSettings:
        names = ("name", "prefix", "device", "long_texts")
        others = [name for name in names if getattr(self, name) not in ("", type(self).model_fields[name].default)]
        if self.factory and others:
            raise ValueError(f'factory makes the whole encoder; leave out {listing(others)}, or write ""')
        if not self.factory and not self.name:
            raise ValueError("give a name or a factory")
        return self


class IndexSettings(_Table):
    """`[index]`: the Chroma collection of the tasks: a folder of this process, or a server."""

    path: str = ".lorauter/index"
    url: str = Field("", description="http://HOST:PORT of a Chroma server; then path is not used")
    collection: str = "lorauter"


class PoolSettings(_Table):
    """`[pool]`: the adapters."""

    path: str = "pool"
    budget_mib: int = Field(1024, gt=0, description="memory for adapter weights")
    pin: tuple[str, ...] = Field((), description="adapters that are read at the start and stay in memory")
    allow_bin: bool = Field(False, description="take adapter_model.bin, a pickle, where there are no safetensors")
    strict_base: bool = Field(False, description="refuse adapters that do not name this base model")
    cache: str = Field(".lorauter/pool.json", description="what earlier checks have read; empty keeps nothing")


class EngineSettings(_Table):
    """`[engine]`: how much is done at once."""

    rows: int = Field(32, ge=1, description="requests written in one forward pass")
    queue: int = Field(256, ge=1, description="requests that may wait; one more gets QueueFullError")
    chunk: int = Field(512, ge=1, description="tokens of prompts read between two steps of writing")
    prefix_mib: int = Field(256, ge=0, description="memory for the states of earlier conversations; 0 keeps none")


class RoutingSettings(_Table):
    """`[routing]`: how tasks share a text, and what of a conversation is the text."""

    preset: Literal["default", "paper"] = Field("default", description="what the keys below are when left out")
    space: Literal["whitened", "mean"] | None = None
    shrinkage: float | None = Field(None, gt=0, le=1, description="of the whitening; fitted when left out")
    weights: Literal["softmax", "uniform", "nucleus"] | None = None
    k: int | None = Field(None, ge=1, description="tasks that share a text; with nucleus, at most")
    temperature: Annotated[float, Field(gt=0)] | Literal["fitted"] | None = None
    mass: float = Field(0.9, gt=0, le=1, description="of the softmax, that the tasks of a nucleus hold")
    adapters: Literal["expected", "best"] | None = Field(
        None, description="those that the tasks' scores promise together; each task's best"
    )
    most_adapters: int | None = Field(None, ge=1, description="that share a text, with expected")
    abstain: float | None = Field(
        None, ge=0, le=0.5, description="rate of the tasks' own examples that are left to the base model; 0 is never"
    )
    route_on: RouteOnName = Field(DEFAULT_ROUTE_ON, description="what of a conversation is routed on")
    sticky: bool = Field(False, description="a follow-up stays on its conversation's task")


class GenerationSettings(_Table):
    """`[generation]`: defaults of every answer; a call's own options win."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    timeout: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def options(self) -> GenerationOptions:
        """As the engine takes them. Raises `OptionError`."""
        return GenerationOptions(**self.model_dump())


class MappingSettings(_Table):
    """`[mapping]`: how tasks find their adapters."""

    score: Literal["metric", "log_likelihood"] = "metric"
    schedule: Literal["screened", "halving", "uniform"] = Field(
        "screened", description="a shortlist by first-order screening; the paper's on the whole pool; everything"
    )
    shortlist: int = Field(
        24, ge=1, description="adapters a task that a screening leaves; smaller pools are not screened"
    )
    ledger: str = ".lorauter/ledger.jsonl"
    report: str = Field(".lorauter/report", description="folder of mapping.html and mapping.png; empty writes none")
    batch: int = Field(32, ge=1)
    seed: int = 0
    workers: int = Field(0, ge=0, description="processes that measure, each with a model of its own; 0 is this one")
    ray: str = Field("", description='address of a Ray cluster, "auto", or "local" to start one; with workers')
    gpus_per_worker: float = Field(0, ge=0, description="that Ray keeps for each worker")

    @model_validator(mode="after")
    def _gpus_are_rays(self) -> MappingSettings:
        if self.gpus_per_worker and not self.ray:
            raise ValueError("gpus_per_worker is for Ray; set ray, or leave it 0")
        return self


class Settings(BaseSettings):
    """Everything a LoRAuter is made of; see docs/settings.md."""

    model_config = SettingsConfigDict(
        env_prefix="LORAUTER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    model: ModelSettings
    encoder: EncoderSettings = EncoderSettings()
    index: IndexSettings = IndexSettings()
    pool: PoolSettings = PoolSettings()
    engine: EngineSettings = EngineSettings()
    routing: RoutingSettings = RoutingSettings()
    generation: GenerationSettings = GenerationSettings()
    mapping: MappingSettings = MappingSettings()
    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _check_options(self) -> Settings:
        try:
            self.generation.options()
        except OptionError as error:
            raise ValueError(f"generation: {error.message}") from error
        return self

    @classmethod
    def read(cls, file: str | Path = DEFAULT_FILE, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Read a TOML file.

        Args:
            file: its path.
            overrides: tables and keys that win over environment and file, such as {"routing": {"k": 1}}.

        Raises:
            ConfigError: the file is missing, is not TOML, or a value in it or in the environment is wrong.
        """
        file = Path(file)
        values = _read_toml(file)
        _refuse_misspelt(os.environ)

        class FromFile(cls):  # type: ignore[valid-type, misc]
            """The sources in order: code, environment, file."""

            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], init_settings: Any, env_settings: Any, **_: Any
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, env_settings, InitSettingsSource(settings_cls, values)

        try:
            settings = FromFile(**(overrides or {}))
        except ValidationError as error:
            raise ConfigError(
                f"{file}: {_in_words(error)}", hint="see docs/settings.md for every table and key"
            ) from error
        except SettingsError as error:
            raise ConfigError(
                f"an environment variable LORAUTER_... cannot be read: {error}",
                hint="lists and tables are written as JSON, such as LORAUTER_GENERATION__STOP='[\"END\"]'",
            ) from error
        found = cls.model_construct(**{name: getattr(settings, name) for name in cls.model_fields})
        found._folder = file.resolve().parent
        return found

    def locate(self, path: str) -> Path:
        """A path of the settings as an absolute one."""
        return (self._folder / Path(path).expanduser()).resolve()

    def weights(self, name: str) -> str:
        """A model's or encoder's location as a loader takes it. Raises `ConfigError`."""
        return resolve_location(name, relative_to=self._folder)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no settings file {file}",
            hint="give one with --config, or write lorauter.toml (see README)",
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", hint="it must be a TOML file in UTF-8") from error
    return values


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """A key in the file that does not exist is an error; so is one in the environment."""
    tables = {name.upper(): field.annotation for name, field in Settings.model_fields.items()}
    for variable in environment:
        prefix, _, rest = variable.partition("_")
        table, nested, key = rest.partition("__")
        if prefix != "LORAUTER" or not nested:
            continue
        known = getattr(tables.get(table), "model_fields", {})
        if key.lower() not in known:
            names = [f"LORAUTER_{table}__{name.upper()}" for name in known] or [f"LORAUTER_{t}__..." for t in tables]
            raise ConfigError(f"the environment variable {variable} sets nothing", hint=f"known are {listing(names)}")


def _in_words(error: ValidationError) -> str:
    problems = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
    return "; ".join(problems)
