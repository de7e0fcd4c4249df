{{/* What cannot be meant, said where it is asked for rather than by a pod that does not start. All of it at once. */}}

{{- define "luminate.refuse" -}}
{{- $v := .Values -}}
{{- $config := include "luminate.config" . | fromYaml -}}
{{- $standalone := eq $v.mode "standalone" -}}
{{- $wrong := list -}}

{{- /* Mode. */ -}}
{{- if not (has $v.mode (list "scalable" "standalone")) -}}
{{- $wrong = append $wrong (printf "mode: %q is neither scalable nor standalone" $v.mode) -}}
{{- end -}}
{{- $backend := dig "storage" "backend" "" $config -}}
{{- if ne $backend (ternary "embedded" "clickhouse" $standalone) -}}
{{- $wrong = append $wrong (printf "config.storage.backend: %q is not what mode: %s keeps samples in; set mode" $backend $v.mode) -}}
{{- end -}}
{{- if $standalone -}}
{{- if gt (int (default 1 $v.replicaCount)) 1 -}}
{{- $wrong = append $wrong "replicaCount: a standalone Luminate is one pod, whose directory takes one process; for more, mode: scalable" -}}
{{- end -}}
{{- range $name, $on := dict "autoscaling" (default false $v.autoscaling.enabled) "keda" $v.keda.enabled "schemaJob" $v.schemaJob.enabled -}}
{{- if $on -}}
{{- $wrong = append $wrong (printf "%s.enabled: is for mode: scalable" $name) -}}
{{- end -}}
{{- end -}}
{{- if $v.backup.enabled -}}
{{- if not (regexMatch "^(file:///|s3://)." $v.backup.at) -}}
{{- $wrong = append $wrong "backup.at: a standalone Luminate is backed up to s3://BUCKET/PREFIX, or to file:///DIRECTORY of one of extraVolumes" -}}
{{- end -}}
{{- if not $v.backup.tokenSecret -}}
{{- $wrong = append $wrong "backup.tokenSecret: is empty; the server is asked for a snapshot with a token (scope admin), whose Secret it names" -}}
{{- end -}}
{{- if and (has "ReadWriteOncePod" $v.persistence.accessModes) (not $v.persistence.existingClaim) -}}
{{- $wrong = append $wrong "backup.enabled: persistence.accessModes is ReadWriteOncePod, and the backup's pod has to mount the volume, too; take ReadWriteOnce" -}}
{{- end -}}
{{- if $v.backup.username -}}
{{- $wrong = append $wrong "backup.username: is for mode: scalable" -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if and $v.backup.enabled (contains "://" $v.backup.at) -}}
{{- $wrong = append $wrong (printf "backup.at: %s is for mode: standalone; ClickHouse's servers write to disk:NAME, file or s3:COLLECTION" $v.backup.at) -}}
{{- end -}}
{{- if $v.backup.drill.enabled -}}
{{- $wrong = append $wrong "backup.drill.enabled: is for mode: standalone" -}}
{{- end -}}
{{- $addresses := dig "storage" "clickhouse" "addresses" list $config -}}
{{- if not $addresses -}}
{{- $wrong = append $wrong "clickhouse.addresses: is empty; name the HTTP interface of a ClickHouse, such as clickhouse:8123" -}}
{{- end -}}
{{- range $addresses -}}
{{- if regexMatch ":9000/?$" . -}}
{{- $wrong = append $wrong (printf "clickhouse.addresses: %s is ClickHouse's native protocol; its HTTP interface is port 8123, or https:// and 8443" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Scaling. */ -}}
{{- $autoscaled := include "luminate.autoscaled" . -}}
{{- if and $v.keda.enabled (default false $v.autoscaling.enabled) -}}
{{- $wrong = append $wrong "keda.enabled: autoscaling.enabled is set, too, and the two would fight; take one" -}}
{{- end -}}
{{- if or $autoscaled $v.keda.enabled -}}
{{- if and (not $standalone) (not (kindIs "invalid" $v.replicaCount)) -}}
{{- $wrong = append $wrong "replicaCount: autoscaling owns the number of pods; set autoscaling.minReplicas, or autoscaling.enabled: false" -}}
{{- end -}}
{{- if gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas) -}}
{{- $wrong = append $wrong "autoscaling.minReplicas: is more than maxReplicas" -}}
{{- end -}}
{{- end -}}
{{- $resources := or $v.autoscaling.targetCPUUtilizationPercentage $v.autoscaling.targetMemoryUtilizationPercentage -}}
{{- if and $autoscaled (not $resources) -}}
{{- $wrong = append $wrong "autoscaling: neither CPU nor memory is a target, so there is nothing to scale by" -}}
{{- end -}}
{{- if $v.keda.enabled -}}
{{- if not $v.keda.prometheusAddress -}}
{{- $wrong = append $wrong "keda.prometheusAddress: is empty; name the Prometheus that scrapes Luminate, such as http://prometheus-operated.monitoring:9090" -}}
{{- end -}}
{{- if not (or $v.keda.inFlightRequests $v.keda.queueBytes) -}}
{{- $wrong = append $wrong "keda: neither inFlightRequests nor queueBytes is set; for CPU and memory alone, autoscaling" -}}
{{- end -}}
{{- end -}}

{{- /* Replacing pods. */ -}}
{{- with $v.shutdown -}}
{{- if ge (int (add .preStopSeconds .graceSeconds)) (int .terminationGracePeriodSeconds) -}}
{{- $wrong = append $wrong (printf "shutdown.terminationGracePeriodSeconds: %d does not hold preStopSeconds and graceSeconds (%d and %d) and some to spare; pods would be killed with requests in them" (int .terminationGracePeriodSeconds) (int .preStopSeconds) (int .graceSeconds)) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString $v.rollingUpdate.maxSurge) "0") (eq (toString $v.rollingUpdate.maxUnavailable) "0") -}}
{{- $wrong = append $wrong "rollingUpdate: with maxSurge and maxUnavailable 0 no pod could ever be replaced" -}}
{{- end -}}
{{- with $v.podDisruptionBudget -}}
{{- if .enabled -}}
{{- if and (kindIs "invalid" .minAvailable) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- $wrong = append $wrong "podDisruptionBudget.maxUnavailable: with 0 no node can ever be drained" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .minAvailable)) (not (kindIs "string" .minAvailable)) (ge (int .minAvailable) (include "luminate.replicas" $ | int)) -}}
{{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable: %d of %s pods leave none to spare, so no node could ever be drained" (int .minAvailable) (include "luminate.replicas" $)) -}}
{{- else if eq (toString .minAvailable) "100%" -}}
{{- $wrong = append $wrong "podDisruptionBudget.minAvailable: 100% leaves none to spare, so no node could ever be drained" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey (default dict $v.podLabels) . -}}
{{- $wrong = append $wrong (printf "podLabels: %s is the chart's, which selects pods by it" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $v.commonLabels -}}
{{- if or (has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/managed-by" "helm.sh/chart")) -}}
{{- $wrong = append $wrong (printf "commonLabels: %s is the chart's" $name) -}}
{{- end -}}
{{- end -}}

{{- /* What the configuration must leave to other values. */ -}}
{{- if dig "server" "tls" dict (default dict $v.config) -}}
{{- $wrong = append $wrong "config.server.tls: pods have to be made for it; set tls" -}}
{{- end -}}
{{- range $key, $instead := dict "grace" "graceSeconds" "delay" "preStopSeconds" -}}
{{- if dig "server" "shutdown" $key "" (default dict $v.config) -}}
{{- $wrong = append $wrong (printf "config.server.shutdown.%s: pods have to be made for it; set shutdown.%s" $key $instead) -}}
{{- end -}}
{{- end -}}
{{- range $key, $port := dict "listen" "8080" "admin_listen" "8081" -}}
{{- if not (hasSuffix (printf ":%s" $port) (dig "server" $key "" $config)) -}}
{{- $wrong = append $wrong (printf "config.server.%s: has to be on port %s, where Services and probes look for it" $key $port) -}}
{{- end -}}
{{- end -}}

{{- /* Secrets. */ -}}
{{- $secret := "a ConfigMap is no place for it; put it into a Secret" -}}
{{- if dig "auth" "jwt" "secret" "" $config -}}
{{- $wrong = append $wrong (printf "config.auth.jwt.secret: %s, see secrets" $secret) -}}
{{- end -}}
{{- if dig "storage" "clickhouse" "password" "" $config -}}
{{- $wrong = append $wrong (printf "config.storage.clickhouse.password: %s, see secrets" $secret) -}}
{{- end -}}
{{- if dig "redis" "password" "" $config -}}
{{- $wrong = append $wrong (printf "config.redis.password: %s, see redis.passwordKey" $secret) -}}
{{- end -}}
{{- $servers := dig "storage" "clickhouse" "addresses" list $config -}}
{{- $redis := dig "redis" "url" list $config -}}
{{- if not (kindIs "slice" $redis) -}}
{{- $redis = list $redis | compact -}}
{{- end -}}
{{- range concat $redis $servers -}}
{{- if regexMatch "://[^/]*@" (toString .) -}}
{{- $wrong = append $wrong (printf "redis.urls, clickhouse.addresses: one has a user or password in it; %s" $secret) -}}
{{- end -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if and (hasKey . "value") (.value) (regexMatch "(?i)(password|__secret|token|redis__url|^redis_url|luminate_redis_url)$" .name) -}}
{{- $wrong = append $wrong (printf "extraEnv: %s has its value in the pod, for whoever may look at pods; take it from a Secret by valueFrom, or use the file that has it" .name) -}}
{{- end -}}
{{- end -}}
{{- with $v.secrets -}}
{{- $given := or .jwtSecret .clickhousePassword .redisUrl .redisPassword -}}
{{- if and .existingSecret $given -}}
{{- $wrong = append $wrong (printf "secrets: values for a Secret are given, and existingSecret (%s) names one that is there; to have one made, set existingSecret to \"\"" .existingSecret) -}}
{{- else if not .existingSecret -}}
{{- $needsJwt := dig "auth" "jwt" "secret_file" "" $config | hasPrefix "/etc/luminate-secrets/" -}}
{{- if and $needsJwt (not .jwtSecret) -}}
{{- $wrong = append $wrong "secrets.jwtSecret: is empty, and no existingSecret is named; draw one with `openssl rand -base64 48`" -}}
{{- else if and .jwtSecret (lt (len (trim .jwtSecret)) 32) -}}
{{- $wrong = append $wrong "secrets.jwtSecret: has to be 32 bytes or more that nobody can guess; draw one with `openssl rand -base64 48`" -}}
{{- end -}}
{{- if and $v.clickhouse.existingSecret .clickhousePassword -}}
{{- $wrong = append $wrong "secrets.clickhousePassword: is given, and clickhouse.existingSecret names a Secret that has one; take one" -}}
{{- else if not (or $standalone $v.clickhouse.existingSecret .clickhousePassword) -}}
{{- $wrong = append $wrong "secrets.clickhousePassword: is empty, and no existingSecret is named" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Redis. */ -}}
{{- with $v.redis -}}
{{- if .enabled -}}
{{- $urlKey := include "luminate.redisUrlKey" $ -}}
{{- if and .urls $urlKey -}}
{{- $wrong = append $wrong "redis: both urls and a Secret's key for the URL are given; take one" -}}
{{- else if not (or .urls $urlKey) -}}
{{- $wrong = append $wrong "redis: neither urls nor urlKey says where Redis is" -}}
{{- end -}}
{{- if not (or .rateLimit .keyStore) -}}
{{- $wrong = append $wrong "redis: neither rateLimit nor keyStore is on, so nothing would be kept in it" -}}
{{- end -}}
{{- else if or .urls .urlKey .passwordKey .existingSecret -}}
{{- $wrong = append $wrong "redis: says where Redis is, but enabled is false" -}}
{{- end -}}
{{- end -}}

{{- /* TLS. */ -}}
{{- with $v.tls -}}
{{- $given := or .certificate .key .clientCa -}}
{{- if .enabled -}}
{{- if and .existingSecret $given -}}
{{- $wrong = append $wrong "tls: a certificate is given, and existingSecret names one that is there; take one" -}}
{{- else if and (not .existingSecret) (not (and .certificate .key)) -}}
{{- $wrong = append $wrong "tls: is on without a certificate; name a Secret by existingSecret, or give certificate and key" -}}
{{- end -}}
{{- if and (ne .clientAuth "off") (not .existingSecret) (not .clientCa) -}}
{{- $wrong = append $wrong "tls.clientAuth: needs clientCa, who vouches for clients" -}}
{{- end -}}
{{- if and (eq .clientAuth "required") (or $v.canary.enabled $v.tests.enabled) (not .clientSecret) -}}
{{- $wrong = append $wrong "tls.clientSecret: is empty; with clientAuth: required the canary and the tests need a certificate to show, or set tests.enabled: false" -}}
{{- end -}}
{{- if and .serverCaKey (not .existingSecret) (not (and .clientCa (eq .serverCaKey .clientCaKey))) -}}
{{- $wrong = append $wrong (printf "tls.serverCaKey: the Secret that the chart makes has no %s" .serverCaKey) -}}
{{- end -}}
{{- else if or $given .existingSecret (ne .clientAuth "off") .serverCaKey .clientSecret -}}
{{- $wrong = append $wrong "tls: says with what, but enabled is false" -}}
{{- end -}}
{{- end -}}

{{- range $name, $job := dict "schemaJob" $v.schemaJob "backup" $v.backup -}}
{{- if and $job.enabled $job.username (not $job.existingSecret) -}}
{{- $wrong = append $wrong (printf "%s.username: and its password? name the Secret by %s.existingSecret" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and $v.canary.enabled (not $v.canary.existingSecret) -}}
{{- $wrong = append $wrong "canary.existingSecret: is empty; the canary writes and reads with a token, whose Secret it names" -}}
{{- end -}}

{{- /* Ways out, unless they have a rule of their own. */ -}}
{{- with $v.networkPolicy -}}
{{- if and .enabled (not .extraEgress) -}}
{{- range $server := $servers -}}
{{- $port := regexFind ":[0-9]+/?$" $server | regexFind "[0-9]+" | default (hasPrefix "https://" $server | ternary "8443" "8123") -}}
{{- if not (has $port (toStrings $v.networkPolicy.egressPorts)) -}}
{{- $wrong = append $wrong (printf "networkPolicy.egressPorts: lets nobody out to port %s, where %s is" $port $server) -}}
{{- end -}}
{{- end -}}
{{- range $server := $redis -}}
{{- $port := regexFind ":[0-9]+(/[0-9]*)?$" $server | regexFind "[0-9]+" | default "6379" -}}
{{- if ne (int $port) (int $v.redis.port) -}}
{{- $wrong = append $wrong (printf "redis.port: is %d, and the network policy lets nobody out to port %s, where %s is" (int $v.redis.port) $port $server) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Ways in. */ -}}
{{- if $v.ingress.enabled -}}
{{- if not $v.ingress.hosts -}}
{{- $wrong = append $wrong "ingress.hosts: is empty; an Ingress without a host would answer for all of them" -}}
{{- end -}}
{{- if and $v.ingress.tls.enabled (not $v.ingress.tls.secretName) -}}
{{- $wrong = append $wrong "ingress.tls.secretName: is empty" -}}
{{- end -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.parentRefs: is empty; name the Gateway it is for" -}}
{{- end -}}
{{- with $v.service -}}
{{- if and (ne .type "LoadBalancer") (or .loadBalancerClass .loadBalancerSourceRanges) -}}
{{- $wrong = append $wrong (printf "service: loadBalancerClass and loadBalancerSourceRanges are for type: LoadBalancer, not %s" .type) -}}
{{- end -}}
{{- if and (eq .type "ClusterIP") (or .nodePort .externalTrafficPolicy) -}}
{{- $wrong = append $wrong "service: nodePort and externalTrafficPolicy are not for type: ClusterIP" -}}
{{- end -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nThese values cannot be meant:\n  - %s\n" (join "\n  - " $wrong)) -}}
{{- end -}}
{{- end -}}
