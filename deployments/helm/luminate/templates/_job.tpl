{{/* Pods beside those that serve: they have labels of their own, so that no Service or budget takes them for one. */}}

{{/* (dict "root" $ "component" NAME) */}}
{{- define "luminate.componentLabels" -}}
{{ include "luminate.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* A container that talks to ClickHouse as somebody who may do more than a gateway.
     (dict "root" $ "command" WORDS "job" VALUES "config" NAME "secret" NAME) */}}
{{- define "luminate.clickhousePod" -}}
{{- $v := .root.Values -}}
{{- $key := include "luminate.clickhouseSecretKey" .root -}}
{{- $gateways := and $key (not .job.existingSecret) -}}
restartPolicy: {{ .restartPolicy | default "Never" }}
{{ include "luminate.podSecurity" .root }}
{{- include "luminate.pullSecrets" .root }}
{{- include "luminate.scheduling" .root }}
containers:
  - name: {{ .name }}
    image: {{ include "luminate.image" .root }}
    imagePullPolicy: {{ $v.image.pullPolicy }}
    args:
      {{- range .command }}
      - {{ quote . }}
      {{- end }}
      - --config.file=/etc/luminate/luminate.yaml
      {{- with .job.username }}
      - --username={{ . }}
      {{- end }}
      {{- if .job.existingSecret }}
      - --password-file=/etc/luminate-job/{{ .job.passwordKey }}
      {{- end }}
    {{- with $v.extraEnv }}
    env:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $v.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    resources:
      {{- toYaml .job.resources | nindent 6 }}
    {{- include "luminate.containerSecurity" .root | nindent 4 }}
    volumeMounts:
      - name: config
        mountPath: /etc/luminate
        readOnly: true
      {{- if $gateways }}
      - name: secrets
        mountPath: {{ include "luminate.clickhouseFolder" .root }}
        readOnly: true
      {{- end }}
      {{- if .job.existingSecret }}
      - name: job
        mountPath: /etc/luminate-job
        readOnly: true
      {{- end }}
      {{- with $v.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: config
    configMap:
      name: {{ .config }}
  {{- if $gateways }}
  - name: secrets
    secret:
      secretName: {{ $v.clickhouse.existingSecret | default .secret }}
      defaultMode: 0440
      items:
        - key: {{ $key }}
          path: {{ $key }}
  {{- end }}
  {{- with .job.existingSecret }}
  - name: job
    secret:
      secretName: {{ . }}
      defaultMode: 0440
      items:
        - key: {{ $.job.passwordKey }}
          path: {{ $.job.passwordKey }}
  {{- end }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The key of the password by which gateways get into ClickHouse, if a Secret of the release has it. */}}
{{- define "luminate.clickhouseSecretKey" -}}
{{- $file := dig "storage" "clickhouse" "password_file" "" (include "luminate.config" . | fromYaml) -}}
{{- $folder := printf "%s/" (include "luminate.clickhouseFolder" .) -}}
{{- if hasPrefix $folder $file -}}
{{- trimPrefix $folder $file -}}
{{- end -}}
{{- end -}}

{{/* Lets a job's pods find and reach what they work on. (dict "root" $ "component" NAME
     ["hook" WHEN] ["toGateways" true] ["scraped" PORT]) */}}
{{- define "luminate.jobNetworkPolicy" }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "luminate.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "luminate.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with .hook }}
  annotations:
    helm.sh/hook: {{ . }}
    helm.sh/hook-weight: "-10"
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- end }}
spec:
  podSelector:
    matchLabels:
      {{- include "luminate.componentLabels" . | nindent 6 }}
  policyTypes:
    - Ingress
    - Egress
  {{- if and .scraped .root.Values.networkPolicy.scrapeNamespaces }}
  ingress:
    - from:
        {{- range .root.Values.networkPolicy.scrapeNamespaces }}
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: {{ . }}
        {{- end }}
      ports:
        - port: {{ .scraped }}
          protocol: TCP
  {{- end }}
  egress:
    {{- include "luminate.dnsEgress" .root | nindent 4 }}
    {{- if .toGateways }}
    - to:
        - podSelector:
            matchLabels:
              {{- include "luminate.selectorLabels" .root | nindent 14 }}
      ports:
        - port: http
          protocol: TCP
    {{- else }}
    {{- with .root.Values.networkPolicy.egressPorts }}
    - ports:
        {{- range . }}
        - port: {{ . }}
          protocol: TCP
        {{- end }}
    {{- end }}
    {{- with .root.Values.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
{{- end -}}

{{- define "luminate.dnsEgress" -}}
# The cluster's DNS; and on each node, where NodeLocal DNSCache runs.
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          k8s-app: kube-dns
    - ipBlock:
        cidr: 169.254.20.10/32
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end -}}

{{/* How a pod of ours asks for the release's server, and what it shows and trusts. */}}
{{- define "luminate.clientArgs" -}}
- --server={{ include "luminate.url" . }}
{{- with .Values.tls }}
{{- if .enabled }}
{{- if .serverCaKey }}
- --tls.ca=/etc/luminate-tls/{{ .serverCaKey }}
{{- else }}
# By the Service's name, which the certificate need not have.
- --tls.insecure
{{- end }}
{{- if .clientSecret }}
- --tls.cert=/etc/luminate-client/tls.crt
- --tls.key=/etc/luminate-client/tls.key
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
{{- define "luminate.clientMounts" -}}
{{- with .Values.tls }}
{{- if and .enabled .serverCaKey }}
- name: tls
  mountPath: /etc/luminate-tls
  readOnly: true
{{- end }}
{{- if and .enabled .clientSecret }}
- name: client
  mountPath: /etc/luminate-client
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}
{{- define "luminate.clientVolumes" -}}
{{- with .Values.tls }}
{{- if and .enabled .serverCaKey }}
- name: tls
  secret:
    secretName: {{ include "luminate.tlsSecretName" $ }}
    defaultMode: 0440
    items:
      - key: {{ .serverCaKey }}
        path: {{ .serverCaKey }}
{{- end }}
{{- if and .enabled .clientSecret }}
- name: client
  secret:
    secretName: {{ .clientSecret }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end -}}
