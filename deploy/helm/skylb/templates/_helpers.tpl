{{- define "skylb.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{- define "skylb.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- else if contains (include "skylb.name" .) .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "skylb.name" .) | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "skylb.selector" -}}
app.kubernetes.io/name: {{ include "skylb.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "skylb.labels" -}}
{{ include "skylb.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "skylb.serviceAccount" -}}
{{- default (ternary (include "skylb.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "skylb.image" -}}
{{- $repository := required "image.repository: name the image that you have built with deploy/Containerfile" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* All addresses of a pod, as a part of HOST:PORT. */}}
{{- define "skylb.anyAddress" -}}
{{- ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}

{{/* The address of a pod, as a part of HOST:PORT. */}}
{{- define "skylb.podAddress" -}}
{{- ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}

{{/* Whether there are peers at all. Templates answer text, and an empty text is false. */}}
{{- define "skylb.meshed" -}}
{{- if .Values.secrets.peerKeys.name -}}true{{- end -}}
{{- end -}}

{{/* Whether the API server is asked for anything. */}}
{{- define "skylb.watches" -}}
{{- if or .Values.discovery.selector (and (include "skylb.meshed" .) (not .Values.peers.name)) -}}true{{- end -}}
{{- end -}}

{{/* Namespaces whose EndpointSlices are watched, as a JSON list. */}}
{{- define "skylb.namespaces" -}}
{{- $found := list -}}
{{- if .Values.discovery.selector -}}
{{- $found = default (list .Release.Namespace) .Values.discovery.namespaces -}}
{{- end -}}
{{- if and (include "skylb.meshed" .) (not .Values.peers.name) -}}
{{- $found = append $found .Release.Namespace -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end -}}

{{- define "skylb.gracePeriod" -}}
{{- add (ceil (addf .Values.drain.delayS .Values.drain.timeoutS)) 15 -}}
{{- end -}}

{{/* Files of Secrets, as a JSON list: the setting, its Secret, and the key in it. */}}
{{- define "skylb.files" -}}
{{- $s := .Values.secrets -}}
{{- $found := list -}}
{{- range $setting, $one := dict "admin_token_file" $s.adminToken "keys_file" $s.clientKeys "replica_key_file" $s.replicaKey "probe_key_file" $s.probeKey "peer_key_file" $s.peerKeys "replica_ca" $s.replicaCa "isolation_key_file" $s.isolationKey -}}
{{- if $one.name -}}
{{- $found = append $found (dict "setting" $setting "secret" $one.name "key" $one.key) -}}
{{- end -}}
{{- end -}}
{{- if $s.tls.name -}}
{{- $found = append $found (dict "setting" "tls_cert" "secret" $s.tls.name "key" "tls.crt") -}}
{{- $found = append $found (dict "setting" "tls_key" "secret" $s.tls.name "key" "tls.key") -}}
{{- if $s.tls.clientCa -}}
{{- $found = append $found (dict "setting" "tls_client_ca" "secret" $s.tls.name "key" "ca.crt") -}}
{{- end -}}
{{- end -}}
{{- if $s.peerTls.name -}}
{{- $found = append $found (dict "setting" "peer_tls_cert" "secret" $s.peerTls.name "key" "tls.crt") -}}
{{- $found = append $found (dict "setting" "peer_tls_key" "secret" $s.peerTls.name "key" "tls.key") -}}
{{- $found = append $found (dict "setting" "peer_tls_ca" "secret" $s.peerTls.name "key" "ca.crt") -}}
{{- end -}}
{{- $found | toJson -}}
{{- end -}}

{{/* Names of the Secrets that are mounted, each once, as a JSON list. */}}
{{- define "skylb.secretNames" -}}
{{- $names := list -}}
{{- range include "skylb.files" . | fromJsonArray -}}
{{- $names = append $names .secret -}}
{{- end -}}
{{- $names | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The file of settings. A JSON string, number, boolean or list of strings is also a TOML value. */}}
{{- define "skylb.config" -}}
{{- include "skylb.check" . -}}
{{- $any := include "skylb.anyAddress" . -}}
{{- $own := dict "listen" (list (printf "%s:8080" $any)) "admin" (printf "%s:8081" $any) "region" .Values.region "drain_delay_s" .Values.drain.delayS "drain_timeout_s" .Values.drain.timeoutS -}}
{{- range include "skylb.files" . | fromJsonArray -}}
{{- $_ := set $own .setting (printf "/etc/skylb/secrets/%s/%s" .secret .key) -}}
{{- end -}}
{{- if .Values.secrets.isolationKey.name -}}{{- $_ := set $own "isolate_tenants" true -}}{{- end -}}
{{- if include "skylb.meshed" . -}}
{{- $_ := set $own "sync_listen" (printf "%s:8090" $any) -}}
{{- with .Values.peers.list -}}{{- $_ := set $own "peer" . -}}{{- end -}}
{{- with .Values.peers.advertise -}}{{- $_ := set $own "advertise" . -}}{{- end -}}
{{- with .Values.peers.name -}}{{- $_ := set $own "name" . -}}{{- end -}}
{{- end -}}
{{- $groups := dict -}}
{{- range $name, $value := .Values.settings -}}
{{- if kindIs "map" $value -}}{{- $_ := set $groups $name $value -}}
{{- else if not (kindIs "invalid" $value) -}}{{- $_ := set $own $name $value -}}{{- end -}}
{{- end -}}
{{- range $name, $value := $own }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- range $group, $values := $groups }}

[{{ $group }}]
{{- range $name, $value := $values }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What cannot be right, however each value is. */}}
{{- define "skylb.check" -}}
{{- $p := .Values.peers -}}
{{- if and (or $p.list $p.name $p.advertise $p.service.enabled) (not (include "skylb.meshed" .)) -}}
{{- fail "peers: expected secrets.peerKeys.name too: without the shared secret no peer is believed" -}}
{{- end -}}
{{- if and .Values.secrets.clientKeys.name (ne (int .Values.replicaCount) 1) (not (include "skylb.meshed" .)) -}}
{{- fail "secrets.clientKeys: expected secrets.peerKeys.name too: balancers that do not know each other allow each limit once each" -}}
{{- end -}}
{{- if and .Values.service.externalTrafficPolicy (eq .Values.service.type "ClusterIP") -}}
{{- fail "service.externalTrafficPolicy: expected service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and $p.advertise (not $p.name) -}}
{{- fail "peers.advertise: expected peers.name too: one address is one balancer" -}}
{{- end -}}
{{- if and .Values.secrets.peerTls.name (not $p.name) -}}
{{- fail "secrets.peerTls: expected peers.name too: pods call each other by address, and no certificate has the addresses of pods" -}}
{{- end -}}
{{- if and $p.list (not (and $p.name $p.advertise)) -}}
{{- fail "peers.list: expected peers.name and peers.advertise too: other clusters must know and reach this balancer" -}}
{{- end -}}
{{- if and $p.name (not (or $p.list .Values.settings.peers_dns .Values.settings.peers_file)) -}}
{{- fail "peers.name: expected peers.list, settings.peers_dns or settings.peers_file too" -}}
{{- end -}}
{{- if and $p.name (ne (int .Values.replicaCount) 1) -}}
{{- fail "peers.name: expected replicaCount 1: one name is one balancer; install a release for each" -}}
{{- end -}}
{{- if and (or .Values.discovery.namespaces .Values.discovery.port) (not .Values.discovery.selector) -}}
{{- fail "discovery: expected discovery.selector too" -}}
{{- end -}}
{{- if not (or .Values.discovery.selector .Values.settings.replica .Values.settings.replicas_dns .Values.settings.replicas_file) -}}
{{- fail "no replicas: expected discovery.selector, settings.replica, settings.replicas_dns or settings.replicas_file" -}}
{{- end -}}
{{- if and (eq .Values.autoscaling.kind "keda") (not .Values.autoscaling.prometheus) -}}
{{- fail "autoscaling.prometheus: expected the URL that KEDA asks" -}}
{{- end -}}
{{- if eq .Values.autoscaling.kind "hpa" -}}
{{- range .Values.autoscaling.engines -}}
{{- if not .metric -}}{{- fail (printf "autoscaling.engines: %s: expected metric, the name of an external metric" .name) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
