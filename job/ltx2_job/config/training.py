"""TrainingConfig: the guide's config.json, typed."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Final, Self

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ltx2_job.config.memory_keys import MemoryKeys, ScaleKeys
from ltx2_job.config.model_keys import AdapterKeys, DataKeys, ModelKeys
from ltx2_job.config.training_keys import ObjectiveKeys, OptimisationKeys, RegulariserKeys
from ltx2_job.config.validation_keys import ValidationKeys

_SOURCES: Final[ContextVar[tuple[PydanticBaseSettingsSource, ...]]] = ContextVar("sources", default=())


class TrainingConfig(
    ValidationKeys,
    ScaleKeys,
    MemoryKeys,
    RegulariserKeys,
    ObjectiveKeys,
    OptimisationKeys,
    DataKeys,
    AdapterKeys,
    ModelKeys,
    BaseSettings,
):
    """Every key of config.json by the name the guide gives it, with our defaults (docs/configuration.md lists them).

    Reads only what it is given: the environment and flags reach it through `resolve`, which names its sources.
    """

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, validate_default=False, protected_namespaces=(), defer_build=False
    )

    @classmethod
    def from_sources(cls, sources: Sequence[PydanticBaseSettingsSource]) -> Self:
        """Build from sources of pydantic-settings, the first one winning; raises pydantic's ValidationError."""
        token = _SOURCES.set(tuple(sources))
        try:
            return cls()
        finally:
            _SOURCES.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What the caller passes and nothing else: an operator's own environment must never leak into a user's run."""
        return (init_settings, *_SOURCES.get())
