{{/* The pod that serves, the same in both modes but for its data. */}}

{{- define "luminate.podMetadata" -}}
labels:
  {{- include "luminate.selectorLabels" . | nindent 2 }}
  {{- with .Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # Not of overrides.yaml, which is read again without a restart.
  checksum/config: {{ include "luminate.config" . | sha256sum }}
  {{- with .Values.secrets }}
  {{- /* Passwords are read when a process starts. The secret that nobody can guess keeps the others from being guessed
         by this. */}}
  {{- if and (not .existingSecret) .jwtSecret }}
  checksum/secrets: {{ toJson . | sha256sum }}
  {{- end }}
  {{- end }}
  {{- if and .Values.metrics.podAnnotations (not .Values.metrics.serviceMonitor.enabled) }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "8081"
  prometheus.io/path: "/metrics"
  {{- if .Values.tls.enabled }}
  prometheus.io/scheme: "https"
  {{- end }}
  {{- end }}
  {{- with .Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What every pod of the release is not allowed. */}}
{{- define "luminate.podSecurity" -}}
automountServiceAccountToken: false
# Variables of Services, like LUMINATE_SVC_PORT, would be taken for configuration.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  {{- if eq .Values.mode "standalone" }}
  # Else each start goes over all files of the disk.
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}
{{- define "luminate.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: ["ALL"]
{{- end -}}
{{- define "luminate.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "luminate.scheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "luminate.affinity" -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" (dict "matchLabels" (include "luminate.selectorLabels" . | fromYaml)) -}}
{{- $anti := dict -}}
{{- if eq .Values.mode "standalone" -}}
{{- /* One pod has nobody to keep away from. */ -}}
{{- else if eq .Values.podAntiAffinity "soft" -}}
{{- $anti = dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 100 "podAffinityTerm" $term)) -}}
{{- else if eq .Values.podAntiAffinity "hard" -}}
{{- $anti = dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term) -}}
{{- end -}}
{{- $affinity := deepCopy (default dict .Values.affinity) -}}
{{- if and $anti (not (hasKey $affinity "podAntiAffinity")) -}}
{{- $_ := set $affinity "podAntiAffinity" $anti -}}
{{- end -}}
{{- with $affinity }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "luminate.podSpec" -}}
{{- $standalone := eq .Values.mode "standalone" -}}
{{- $secrets := include "luminate.secretKeys" . | fromJsonArray -}}
{{- $clickhouse := $standalone | ternary "" .Values.clickhouse.existingSecret -}}
{{- /* Of who has to show a certificate on the public port, the kubelet has none. */ -}}
{{- $probed := eq .Values.tls.clientAuth "required" | ternary "admin" "http" -}}
serviceAccountName: {{ include "luminate.serviceAccountName" . }}
{{ include "luminate.podSecurity" . }}
{{- include "luminate.pullSecrets" . }}
# {{ .Values.shutdown.preStopSeconds }} s for load balancers to look away, {{ .Values.shutdown.graceSeconds }} s for requests to finish, and some to spare.
terminationGracePeriodSeconds: {{ .Values.shutdown.terminationGracePeriodSeconds }}
{{- with include "luminate.affinity" . }}
affinity:
  {{- . | nindent 2 }}
{{- end }}
{{- if and .Values.topologySpread.enabled (not $standalone) }}
topologySpreadConstraints:
  - maxSkew: {{ .Values.topologySpread.maxSkew }}
    topologyKey: {{ .Values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ .Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "luminate.selectorLabels" . | nindent 8 }}
{{- end }}
{{- include "luminate.scheduling" . }}
{{- with .Values.initContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: luminate
    image: {{ include "luminate.image" . }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - serve
      - --config.file=/etc/luminate/luminate.yaml
      {{- range .Values.extraArgs }}
      - {{ quote . }}
      {{- end }}
    {{- with .Values.extraEnv }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with .Values.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      - name: http
        containerPort: 8080
        protocol: TCP
      - name: admin
        containerPort: 8081
        protocol: TCP
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    {{- range $probe, $path := dict "startup" "/health/startup" "liveness" "/health/live" "readiness" "/health/ready" }}
    {{ $probe }}Probe:
      httpGet:
        path: {{ $path }}
        port: {{ $probed }}
        {{- if $.Values.tls.enabled }}
        scheme: HTTPS
        {{- end }}
      {{- $settings := deepCopy (index $.Values.probes $probe) }}
      {{- if kindIs "invalid" $settings.failureThreshold }}
      {{- $_ := set $settings "failureThreshold" (ternary 360 30 $standalone) }}
      {{- end }}
      {{- toYaml $settings | nindent 6 }}
    {{- end }}
    lifecycle:
      preStop:
        exec:
          # The image has no shell, and Kubernetes before 1.29 no sleep of its own.
          command: ["/usr/local/bin/luminate", "sleep", "{{ .Values.shutdown.preStopSeconds }}"]
    {{- include "luminate.containerSecurity" . | nindent 4 }}
    volumeMounts:
      - name: config
        mountPath: /etc/luminate
        readOnly: true
      {{- if $secrets }}
      - name: secrets
        mountPath: /etc/luminate-secrets
        readOnly: true
      {{- end }}
      {{- if $clickhouse }}
      - name: clickhouse
        mountPath: /etc/luminate-clickhouse
        readOnly: true
      {{- end }}
      {{- if and .Values.redis.enabled .Values.redis.existingSecret }}
      - name: redis
        mountPath: /etc/luminate-redis
        readOnly: true
      {{- end }}
      {{- if .Values.tls.enabled }}
      - name: tls
        mountPath: /etc/luminate-tls
        readOnly: true
      {{- end }}
      {{- if $standalone }}
      - name: data
        mountPath: /var/lib/luminate
      {{- end }}
      {{- with .Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- with .Values.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "luminate.fullname" . }}-config
  {{- if $secrets }}
  - name: secrets
    secret:
      secretName: {{ include "luminate.secretName" . }}
      defaultMode: 0440
      {{- if $standalone }}
      items:
        {{- range $secrets }}
        - key: {{ . }}
          path: {{ . }}
        {{- end }}
      {{- end }}
  {{- end }}
  {{- if $clickhouse }}
  - name: clickhouse
    secret:
      secretName: {{ $clickhouse }}
      defaultMode: 0440
      items:
        - key: {{ .Values.secrets.clickhousePasswordKey }}
          path: {{ .Values.secrets.clickhousePasswordKey }}
  {{- end }}
  {{- if and .Values.redis.enabled .Values.redis.existingSecret }}
  - name: redis
    secret:
      secretName: {{ .Values.redis.existingSecret }}
      defaultMode: 0440
  {{- end }}
  {{- if .Values.tls.enabled }}
  - name: tls
    secret:
      secretName: {{ include "luminate.tlsSecretName" . }}
      defaultMode: 0440
  {{- end }}
  {{- if and $standalone .Values.persistence.existingClaim }}
  - name: data
    persistentVolumeClaim:
      claimName: {{ .Values.persistence.existingClaim }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
