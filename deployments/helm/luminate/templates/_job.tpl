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
     ["hook" WHEN] ["toGateways" true] ["outside" true, beside that] ["scraped" PORT]) */}}
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
    {{- end }}
    {{- if or (not .toGateways) .outside }}
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

{{/* A pod that works on the backups of a standalone Luminate. (dict "root" $ "work" "backup" or "drill")

     Who makes them mounts the volume of the server, which is where the server's pod is. */}}
{{- define "luminate.storeBackupPod" -}}
{{- $v := .root.Values -}}
{{- $makes := eq .work "backup" -}}
{{- $prunes := and $makes (gt (int $v.backup.keep) 0) -}}
restartPolicy: Never
{{ include "luminate.podSecurity" .root }}
{{- include "luminate.pullSecrets" .root }}
{{- include "luminate.scheduling" .root }}
{{- if $makes }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "luminate.selectorLabels" .root | nindent 12 }}
{{- end }}
{{- if $prunes }}
initContainers:
  {{- include "luminate.storeBackupContainer" (dict "root" .root "name" "create") | nindent 2 }}
containers:
  {{- include "luminate.storeBackupContainer" (dict "root" .root "name" "prune") | nindent 2 }}
{{- else }}
containers:
  {{- include "luminate.storeBackupContainer" (dict "root" .root "name" (ternary "create" "drill" $makes)) | nindent 2 }}
{{- end }}
volumes:
  {{- if $makes }}
  - name: data
    persistentVolumeClaim:
      claimName: {{ $v.persistence.existingClaim | default (printf "data-%s-0" (include "luminate.fullname" .root)) }}
  - name: token
    secret:
      secretName: {{ $v.backup.tokenSecret }}
      defaultMode: 0440
      items:
        - key: {{ $v.backup.tokenKey }}
          path: {{ $v.backup.tokenKey }}
  {{- include "luminate.clientVolumes" .root | nindent 2 }}
  {{- else }}
  - name: scratch
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          {{- with $v.backup.drill.storageClass }}
          storageClassName: {{ . }}
          {{- end }}
          resources:
            requests:
              storage: {{ $v.backup.drill.size }}
  {{- end }}
  {{- with $v.backup.s3.existingSecret }}
  - name: s3
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- with $v.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* (dict "root" $ "name" "create", "prune" or "drill") */}}
{{- define "luminate.storeBackupContainer" -}}
{{- $v := .root.Values -}}
- name: {{ .name }}
  image: {{ include "luminate.image" .root }}
  imagePullPolicy: {{ $v.image.pullPolicy }}
  args:
    - backup
    {{- if eq .name "create" }}
    - create
    - --data-dir=/var/lib/luminate
    {{- include "luminate.clientArgs" .root | nindent 4 }}
    - --token.file=/etc/luminate-token/{{ $v.backup.tokenKey }}
    {{- else if eq .name "prune" }}
    - prune
    - --keep={{ $v.backup.keep }}
    {{- else }}
    - verify
    - --drill=/scratch
    {{- end }}
    - --at={{ $v.backup.at }}
    {{- with $v.backup.s3 }}
    {{- with .endpoint }}
    - --s3.endpoint={{ . }}
    {{- end }}
    {{- with .region }}
    - --s3.region={{ . }}
    {{- end }}
    {{- if .existingSecret }}
    - --s3.access-key-file=/etc/luminate-s3/{{ .accessKeyKey }}
    - --s3.secret-key-file=/etc/luminate-s3/{{ .secretKeyKey }}
    {{- end }}
    {{- end }}
  {{- with $v.extraEnv }}
  env:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  resources:
    {{- toYaml $v.backup.resources | nindent 4 }}
  {{- include "luminate.containerSecurity" .root | nindent 2 }}
  volumeMounts:
    {{- if eq .name "create" }}
    - name: data
      mountPath: /var/lib/luminate
    - name: token
      mountPath: /etc/luminate-token
      readOnly: true
    {{- include "luminate.clientMounts" .root | nindent 4 }}
    {{- else if eq .name "drill" }}
    - name: scratch
      mountPath: /scratch
    {{- end }}
    {{- if $v.backup.s3.existingSecret }}
    - name: s3
      mountPath: /etc/luminate-s3
      readOnly: true
    {{- end }}
    {{- with $v.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
