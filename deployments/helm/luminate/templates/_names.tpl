{{/* Names and labels. What selectors are made of must never change in a release that is installed. */}}

{{- define "luminate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "luminate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "luminate.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "luminate.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "luminate.component" -}}
{{- eq .Values.mode "standalone" | ternary "standalone" "gateway" -}}
{{- end -}}

{{/* What all pods of the release have, jobs' too. */}}
{{- define "luminate.instanceLabels" -}}
app.kubernetes.io/name: {{ include "luminate.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What tells the pods that serve. */}}
{{- define "luminate.selectorLabels" -}}
{{ include "luminate.instanceLabels" . }}
app.kubernetes.io/component: {{ include "luminate.component" . }}
{{- end -}}

{{/* Of objects, never of pods: these change with each version. */}}
{{- define "luminate.labels" -}}
{{ include "luminate.instanceLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (replace "+" "_" .Chart.Version) }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "luminate.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "luminate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "luminate.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "luminate.secretName" -}}
{{- .Values.secrets.existingSecret | default (printf "%s-secrets" (include "luminate.fullname" .)) -}}
{{- end -}}

{{- define "luminate.tlsSecretName" -}}
{{- .Values.tls.existingSecret | default (printf "%s-server-tls" (include "luminate.fullname" .)) -}}
{{- end -}}

{{/* Whether something of a name is on, for conditions: "true" or nothing. */}}
{{- define "luminate.autoscaled" -}}
{{- if ne .Values.mode "standalone" -}}
{{- if kindIs "bool" .Values.autoscaling.enabled -}}
{{- if .Values.autoscaling.enabled }}true{{ end -}}
{{- else if not .Values.keda.enabled -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* How many gateways share a Redis, at least. */}}
{{- define "luminate.replicas" -}}
{{- if eq .Values.mode "standalone" -}}
1
{{- else if or (include "luminate.autoscaled" .) .Values.keda.enabled -}}
{{ .Values.autoscaling.minReplicas }}
{{- else if kindIs "invalid" .Values.replicaCount -}}
3
{{- else -}}
{{ .Values.replicaCount }}
{{- end -}}
{{- end -}}

{{/* The URL by which the release is reached inside the cluster. */}}
{{- define "luminate.url" -}}
{{ .Values.tls.enabled | ternary "https" "http" }}://{{ include "luminate.fullname" . }}-svc.{{ .Release.Namespace }}:{{ .Values.service.port }}
{{- end -}}

{{/* The label `job` of the metrics. Whatever the release is called, it says luminate. */}}
{{- define "luminate.job" -}}
{{- $name := include "luminate.fullname" . -}}
{{- contains "luminate" $name | ternary $name (printf "luminate-%s" $name) -}}
{{- end -}}
