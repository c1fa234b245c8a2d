"""The part of a pod template that a job may set.

A job is created by the operator on its author's behalf, so the template can hold nothing that Pod Security or RBAC
would have to guard afterwards: no host paths, no host namespaces, no container settings of another name.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from dropout_api.model import Wire
from dropout_api.names import RESERVED_ENV_PREFIXES

Quantity = Annotated[
    str | int,
    Field(json_schema_extra={"x-kubernetes-int-or-string": True}),
]
Name = Annotated[str, Field(min_length=1, max_length=253)]
FreeForm = Annotated[dict[str, JsonValue], Field(json_schema_extra={"x-free-form": True})]


GPU_PREFIX = "nvidia.com/"
"""Of the extended resources nvidia.com/gpu and nvidia.com/mig-1g.10gb."""


class ResourceRequirements(Wire):
    """Kubernetes resource quantities by name."""

    requests: Annotated[dict[str, Quantity], Field(max_length=32)] = {}
    limits: Annotated[dict[str, Quantity], Field(max_length=32)] = {}

    @property
    def gpus(self) -> int:
        """Whole GPUs and MIG slices of the limits, each counting as one."""
        return sum(int(count) for name, count in self.limits.items() if name.startswith(GPU_PREFIX) and str(count).isdecimal())


class Toleration(Wire):
    """As in the Pod API."""

    key: Annotated[str, Field(max_length=316)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None


class KeySelector(Wire):
    """A key of a ConfigMap or Secret in the job's namespace."""

    name: Name
    key: Name
    optional: bool | None = None


class EnvSource(Wire):
    """Where a variable's value comes from."""

    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(Wire):
    """A variable of the training container."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=32_768)] | None = None
    value_from: EnvSource | None = None

    @model_validator(mode="after")
    def _not_reserved(self) -> Self:
        if self.name.startswith(RESERVED_ENV_PREFIXES):
            raise ValueError(f"env {self.name}: names that start with {' or '.join(RESERVED_ENV_PREFIXES)} are the platform's")
        return self


class ClaimSource(Wire):
    claim_name: Name
    read_only: bool | None = None


class KeyToPath(Wire):
    key: Name
    path: Annotated[str, Field(max_length=500)]


class ConfigMapSource(Wire):
    name: Name
    items: Annotated[list[KeyToPath], Field(max_length=64)] | None = None
    optional: bool | None = None


class SecretSource(Wire):
    secret_name: Name
    items: Annotated[list[KeyToPath], Field(max_length=64)] | None = None
    optional: bool | None = None


class EmptyDirSource(Wire):
    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class Volume(Wire):
    """A volume of the training pod: a claim, a ConfigMap, a Secret or scratch space."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    persistent_volume_claim: ClaimSource | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    empty_dir: EmptyDirSource | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = (self.persistent_volume_claim, self.config_map, self.secret, self.empty_dir)
        if sum(source is not None for source in sources) != 1:
            raise ValueError(f"volume {self.name}: set exactly one of persistentVolumeClaim, configMap, secret, emptyDir")
        return self


class VolumeMount(Wire):
    """Where the training container sees a volume."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    mount_path: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^/[^:]*$")]
    sub_path: Annotated[str, Field(max_length=500)] | None = None
    read_only: bool | None = None


class Affinity(Wire):
    """As in the Pod API."""

    node_affinity: FreeForm | None = None
    pod_affinity: FreeForm | None = None
    pod_anti_affinity: FreeForm | None = None


class PodTemplate(Wire):
    """Overrides for the training pod. The verifier inherits the tolerations alone."""

    labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    annotations: Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=32)] = {}
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = []
    affinity: Affinity | None = None
    priority_class_name: Name | None = None
    service_account_name: Name | None = None
    """Service account of the training pod; its token is not mounted."""
    env: Annotated[list[EnvVar], Field(max_length=128)] = []
    volumes: Annotated[list[Volume], Field(max_length=32)] = []
    volume_mounts: Annotated[list[VolumeMount], Field(max_length=32)] = []
    shared_memory: Quantity | None = None
    """Size of /dev/shm, as `1Gi`; counted against the memory limit. The runtime's 64 MiB when not set."""
