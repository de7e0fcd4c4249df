{{/* The configuration: what the mode and the other values need, and over it .Values.config. */}}

{{- define "luminate.config" -}}
{{- $needed := include "luminate.neededConfig" . | fromYaml -}}
{{- with index $needed "Error" }}{{ fail . }}{{ end -}}
{{- toYaml (mergeOverwrite $needed (deepCopy (default dict .Values.config))) -}}
{{- end -}}

{{- define "luminate.neededConfig" -}}
server:
  listen: 0.0.0.0:8080
  admin_listen: 0.0.0.0:8081
  admin_open: true
  limits:
    max_in_flight_bytes: 64MiB
  shutdown:
    grace: {{ .Values.shutdown.graceSeconds }}s
  {{- if .Values.tls.enabled }}
  tls:
    cert_file: /etc/luminate-tls/tls.crt
    key_file: /etc/luminate-tls/tls.key
    {{- if ne .Values.tls.clientAuth "off" }}
    client_auth: {{ .Values.tls.clientAuth }}
    client_ca_file: /etc/luminate-tls/{{ .Values.tls.clientCaKey }}
    {{- end }}
  {{- end }}
auth:
  mode: token
  jwt:
    secret_file: /etc/luminate-secrets/{{ .Values.secrets.jwtSecretKey }}
limits:
  overrides_file: /etc/luminate/overrides.yaml
{{- /* A query that holds this much takes 320 MB; resources.limits.memory is 2Gi by default. */}}
query:
  max_samples: 20000000
  max_concurrency: 10
{{- if .Values.redis.enabled }}
redis:
  rate_limit:
    enabled: {{ .Values.redis.rateLimit }}
  key_store:
    enabled: {{ .Values.redis.keyStore }}
  expected_replicas: {{ include "luminate.replicas" . }}
  {{- $secrets := ternary "/etc/luminate-redis" "/etc/luminate-secrets" (not (empty .Values.redis.existingSecret)) }}
  {{- with include "luminate.redisUrlKey" . }}
  url_file: {{ $secrets }}/{{ . }}
  {{- else }}
  url: {{ toJson .Values.redis.urls }}
  {{- end }}
  {{- with include "luminate.redisPasswordKey" . }}
  password_file: {{ $secrets }}/{{ . }}
  {{- end }}
  {{- with .Values.redis.username }}
  username: {{ quote . }}
  {{- end }}
  {{- if .Values.redis.cluster }}
  cluster: true
  {{- end }}
{{- end }}
storage:
  {{- if eq .Values.mode "standalone" }}
  backend: embedded
  retention:
    default: 30d
  embedded:
    data_dir: /var/lib/luminate
  {{- else }}
  backend: clickhouse
  clickhouse:
    addresses: {{ toJson .Values.clickhouse.addresses }}
    database: {{ quote .Values.clickhouse.database }}
    username: {{ quote .Values.clickhouse.username }}
    password_file: {{ include "luminate.clickhouseFolder" . }}/{{ .Values.secrets.clickhousePasswordKey }}
    {{- with .Values.clickhouse.cluster }}
    cluster: {{ quote . }}
    {{- end }}
    batch:
      queue_bytes: 64MiB
  {{- end }}
log:
  format: json
{{- end -}}

{{/* Where Redis' URL and password are: in a Secret that is there under the keys that are named, in ours under these. */}}
{{- define "luminate.redisUrlKey" -}}
{{- .Values.redis.urlKey | default (ternary "redis-url" "" (not (empty .Values.secrets.redisUrl))) -}}
{{- end -}}
{{- define "luminate.redisPasswordKey" -}}
{{- .Values.redis.passwordKey | default (ternary "redis-password" "" (not (empty .Values.secrets.redisPassword))) -}}
{{- end -}}

{{/* Where pods have the Secret with ClickHouse's password. */}}
{{- define "luminate.clickhouseFolder" -}}
{{- empty .Values.clickhouse.existingSecret | ternary "/etc/luminate-secrets" "/etc/luminate-clickhouse" -}}
{{- end -}}

{{/* The keys of the Secret that the configuration asks for, as JSON. */}}
{{- define "luminate.secretKeys" -}}
{{- $config := include "luminate.config" . | fromYaml -}}
{{- $keys := list -}}
{{- range list (dig "auth" "jwt" "secret_file" "" $config) (dig "storage" "clickhouse" "password_file" "" $config) (dig "redis" "url_file" "" $config) (dig "redis" "password_file" "" $config) -}}
{{- if hasPrefix "/etc/luminate-secrets/" . -}}
{{- $keys = append $keys (trimPrefix "/etc/luminate-secrets/" .) -}}
{{- end -}}
{{- end -}}
{{- toJson $keys -}}
{{- end -}}
