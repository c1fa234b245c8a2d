{{- define "dropout.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "dropout.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "dropout.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "dropout.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: dropout-operator
{{- end -}}

{{- define "dropout.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* "true" when this release brings MLflow itself. */}}
{{- define "dropout.mlflow.bundled" -}}
{{- if not .Values.mlflow.trackingUri -}}true{{- end -}}
{{- end -}}

{{- define "dropout.mlflow.auth" -}}
{{- if or (not .Values.mlflow.trackingUri) .Values.mlflow.auth -}}true{{- end -}}
{{- end -}}

{{- define "dropout.mlflow.name" -}}
{{ include "dropout.fullname" . }}-mlflow
{{- end -}}

{{/* Address of MLflow as pods of every namespace reach it. */}}
{{- define "dropout.mlflow.uri" -}}
{{- if .Values.mlflow.trackingUri -}}
{{ trimSuffix "/" .Values.mlflow.trackingUri }}
{{- else -}}
http://{{ include "dropout.mlflow.name" . }}.{{ .Release.Namespace }}.svc.cluster.local:{{ .Values.mlflow.service.port }}
{{- end -}}
{{- end -}}

{{- define "dropout.mlflow.publicUrl" -}}
{{- if .Values.mlflow.publicUrl -}}
{{ trimSuffix "/" .Values.mlflow.publicUrl }}
{{- else if .Values.mlflow.trackingUri -}}
{{ trimSuffix "/" .Values.mlflow.trackingUri }}
{{- else -}}
http://localhost:5000
{{- end -}}
{{- end -}}

{{/* Name of the Secret of one identity: admin, operator, verifier or server. */}}
{{- define "dropout.secret" -}}
{{- $own := index .root.Values.mlflow.existingSecrets .identity -}}
{{- if $own -}}
{{ $own }}
{{- else if and .root.Values.mlflow.trackingUri .root.Values.mlflow.auth -}}
{{ fail (printf "mlflow.existingSecrets.%s must name a Secret when mlflow.trackingUri is set; for a server without users set mlflow.auth=false" .identity) }}
{{- else -}}
{{ include "dropout.fullname" .root }}-mlflow-{{ .identity }}
{{- end -}}
{{- end -}}

{{/* Off, Report or Enforce. */}}
{{- define "dropout.registry.guard" -}}
{{- .Values.registry.guard | default (ternary "Enforce" "Report" (eq (include "dropout.mlflow.bundled" .) "true")) -}}
{{- end -}}

{{/* "true" when MLflow is to call the operator. */}}
{{- define "dropout.registry.webhook" -}}
{{- if and .Values.registry.webhook.enabled (ne (include "dropout.registry.guard" .) "Off") (or .Values.registry.webhook.url (not .Values.mlflow.trackingUri)) -}}true{{- end -}}
{{- end -}}

{{- define "dropout.registry.webhookSecret" -}}
{{ .Values.registry.webhook.existingSecret | default (printf "%s-webhook" (include "dropout.fullname" .)) }}
{{- end -}}

{{- define "dropout.signing.secret" -}}
{{ .Values.signing.existingSecret | default (printf "%s-signing" (include "dropout.fullname" .)) }}
{{- end -}}

{{/* What checks signatures, without what makes them. */}}
{{- define "dropout.signing.volume" -}}
{{- if .Values.signing.enabled -}}
- name: signing
  secret:
    secretName: {{ include "dropout.signing.secret" . }}
    defaultMode: 0440
    items:
      - {key: verifying-key.pem, path: verify.pem}
{{- end -}}
{{- end -}}

{{/* Every pod of this chart satisfies the Pod Security Standard `restricted`. */}}
{{- define "dropout.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "dropout.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "dropout.scheduling" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
