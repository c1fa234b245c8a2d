"""What a manifest says to a cluster alone."""

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from dropout_api.pod import PodTemplate
from dropout_api.spec import JobSpec

OF_A_CLUSTER = (
    "image", "image_pull_policy", "image_pull_secrets", "nodes", "processes_per_node", "restart", "suspend", "start_deadline_seconds",
    "active_deadline_seconds", "ttl_seconds_after_finished",
)
OF_A_POD = (
    "labels", "annotations", "node_selector", "tolerations", "affinity", "priority_class_name", "service_account_name", "shared_memory",
)


def ignored(spec: JobSpec) -> list[str]:
    """Fields that are set and have no effect here, as `spec.image`."""
    fields = [*_set(spec, OF_A_CLUSTER, "spec"), *_set(spec.pod_template, OF_A_POD, "spec.podTemplate")]
    if any(variable.value_from for variable in spec.pod_template.env):
        fields.append("spec.podTemplate.env[].valueFrom")
    return fields


def _set(model: JobSpec | PodTemplate, names: tuple[str, ...], path: str) -> list[str]:
    fields: dict[str, BaseModel] = dict(model)
    defaults = {name: field.get_default(call_default_factory=True) for name, field in type(model).model_fields.items()}
    return [f"{path}.{to_camel(name)}" for name in names if fields[name] != defaults[name]]
