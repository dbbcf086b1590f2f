{{/* The image of a part: (list $ "operator"). */}}
{{- define "cloudmesh.image" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $image := ternary $root.Values.machine.image (index $root.Values.image $part) (eq $part "machine") -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end }}

{{/* Labels that select a part's Pods: (list $ "operator"). They never change, since selectors can't. */}}
{{- define "cloudmesh.selector" -}}
app.kubernetes.io/name: cloudmesh
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of a part: (list $ "operator"). */}}
{{- define "cloudmesh.labels" -}}
{{- $root := index . 0 -}}
{{ include "cloudmesh.selector" . }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Metadata of an object: (list $ "component" "name"), and "keep" if it outlives the release. */}}
{{- define "cloudmesh.metadata" -}}
{{- $root := index . 0 -}}
{{- $keep := gt (len .) 3 -}}
name: {{ index . 2 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "cloudmesh.labels" (list $root (index . 1)) | nindent 2 }}
{{- if or $keep $root.Values.commonAnnotations }}
annotations:
  {{- if $keep }}
  helm.sh/resource-policy: keep
  {{- end }}
  {{- with $root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Metadata of an object without namespace: (list $ "component" "name"). */}}
{{- define "cloudmesh.clusterMetadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 2 }}
labels:
  {{- include "cloudmesh.labels" (list $root (index . 1)) | nindent 2 }}
{{- with $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Metadata of a part's Pods: (list $ "component" .Values.part). */}}
{{- define "cloudmesh.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $part := index . 2 -}}
labels:
  {{- include "cloudmesh.selector" . | nindent 2 }}
  {{- with merge (dict) (default (dict) $part.podLabels) $root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) $part.podAnnotations) $root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where and how a part's Pods are placed: (list $ "component" .Values.part). */}}
{{- define "cloudmesh.placement" -}}
{{- $root := index . 0 -}}
{{- $part := index . 2 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if hasKey $part "topologySpreadConstraints" }}
{{- if $part.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml $part.topologySpreadConstraints | nindent 2 }}
{{- else if gt (int $part.replicas) 1 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "cloudmesh.selector" . | nindent 8 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cloudmesh.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cloudmesh.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Whether the registry of the chart is used: "true" or "". */}}
{{- define "cloudmesh.embedded" -}}
{{- if .Values.registry.embedded.enabled -}}true{{- end -}}
{{- end }}

{{/* The registry as the builder and the operator see it. */}}
{{- define "cloudmesh.registryPush" -}}
{{- if include "cloudmesh.embedded" . -}}
cloudmesh-registry.{{ .Release.Namespace }}.svc:5000
{{- else -}}
{{ .Values.registry.external.push }}
{{- end -}}
{{- end }}

{{/* The registry as nodes see it. */}}
{{- define "cloudmesh.registryPull" -}}
{{- if not (include "cloudmesh.embedded" .) -}}
{{ default .Values.registry.external.push .Values.registry.external.pull }}
{{- else if .Values.registry.embedded.nodeProxy.enabled -}}
localhost:{{ .Values.registry.embedded.nodeProxy.port }}
{{- else -}}
{{ .Values.registry.embedded.pullName }}
{{- end -}}
{{- end }}

{{/* Name of the ConfigMap with certificate authorities, or "". */}}
{{- define "cloudmesh.caConfigMap" -}}
{{- if .Values.builder.caBundle.configMapName -}}
{{ .Values.builder.caBundle.configMapName }}
{{- else if .Values.builder.caBundle.inline -}}
cloudmesh-ca
{{- end -}}
{{- end }}

{{/* The registry's settings, the same for operator and builder. */}}
{{- define "cloudmesh.registryEnv" -}}
- name: CLOUDMESH_REGISTRY_PUSH
  value: {{ include "cloudmesh.registryPush" . | quote }}
- name: CLOUDMESH_REGISTRY_PULL
  value: {{ include "cloudmesh.registryPull" . | quote }}
- name: CLOUDMESH_REGISTRY_INSECURE
  value: {{ if or (include "cloudmesh.embedded" .) .Values.registry.external.insecure }}"true"{{ else }}"false"{{ end }}
{{- if include "cloudmesh.caConfigMap" . }}
- name: CLOUDMESH_CA_BUNDLE
  value: /etc/cloudmesh/ca/ca.crt
{{- end }}
{{- end }}

{{- define "cloudmesh.caVolume" -}}
{{- with include "cloudmesh.caConfigMap" . }}
- name: ca
  configMap:
    name: {{ . }}
    items:
      - key: {{ if $.Values.builder.caBundle.configMapName }}{{ $.Values.builder.caBundle.key }}{{ else }}ca.crt{{ end }}
        path: ca.crt
{{- end }}
{{- end }}

{{- define "cloudmesh.caMount" -}}
{{- if include "cloudmesh.caConfigMap" . }}
- name: ca
  mountPath: /etc/cloudmesh/ca
  readOnly: true
{{- end }}
{{- end }}

{{/* Settings of the embedded registry's two processes. */}}
{{- define "cloudmesh.registryConfig" -}}
push.yml: |
  version: 0.1
  log: {level: warn, accesslog: {disabled: true}}
  storage: {filesystem: {rootdirectory: /data}, delete: {enabled: true}}
  http: {addr: ":5000"}
  auth: {htpasswd: {realm: cloudmesh, path: /var/run/cloudmesh/htpasswd}}
pull.yml: |
  version: 0.1
  log: {level: warn, accesslog: {disabled: true}}
  storage: {filesystem: {rootdirectory: /data}, maintenance: {readonly: {enabled: true}}}
  http: {addr: ":5001"}
{{- end }}

{{/* Environment variables of the operator, without those of operator.env. */}}
{{- define "cloudmesh.operatorEnv" -}}
- name: CLOUDMESH_NAMESPACE
  value: {{ .Release.Namespace }}
- name: CLOUDMESH_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: CLOUDMESH_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: CLOUDMESH_VERSION
  value: {{ .Chart.AppVersion | quote }}
- name: CLOUDMESH_LOG_LEVEL
  value: {{ .Values.operator.logLevel }}
- name: CLOUDMESH_BUILDER_URL
  value: https://cloudmesh-builder.{{ .Release.Namespace }}.svc:8443
{{- include "cloudmesh.registryEnv" . | nindent 0 }}
{{- with .Values.registry.external.pullSecretName }}
- name: CLOUDMESH_REGISTRY_PULL_SECRET
  value: {{ . }}
{{- end }}
- name: CLOUDMESH_MACHINE_IMAGE
  value: {{ include "cloudmesh.image" (list $ "machine") }}
- name: CLOUDMESH_GATEWAY_IMAGE
  value: {{ include "cloudmesh.image" (list $ "operator") }}
- name: CLOUDMESH_POD_HOURLY_PER_VCPU
  value: {{ .Values.machine.prices.hourlyPerVcpu | quote }}
- name: CLOUDMESH_POD_HOURLY_PER_GIB
  value: {{ .Values.machine.prices.hourlyPerGiB | quote }}
- name: CLOUDMESH_POD_CURRENCY
  value: {{ .Values.machine.prices.currency }}
- name: CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS
  value: {{ .Values.accounts.allowPrivateEndpoints | quote }}
{{- with .Values.accounts.workloadIdentity.namespaces }}
- name: CLOUDMESH_IDENTITY_NAMESPACES
  value: {{ join " " . | quote }}
- name: CLOUDMESH_IDENTITY_TOKEN_FILE
  value: /var/run/secrets/cloudmesh.org/identity/token
- name: CLOUDMESH_IDENTITY_AUDIENCE
  value: {{ $.Values.accounts.workloadIdentity.audience | quote }}
{{- end }}
{{- end }}

{{/* Environment variables of the builder, without those of builder.env. */}}
{{- define "cloudmesh.builderEnv" -}}
- name: CLOUDMESH_VERSION
  value: {{ .Chart.AppVersion | quote }}
- name: CLOUDMESH_LOG_LEVEL
  value: {{ .Values.operator.logLevel }}
- name: CLOUDMESH_BUILDER_PORT
  value: "8443"
- name: CLOUDMESH_BUILDER_TLS
  value: /var/run/cloudmesh/builder
- name: CLOUDMESH_SIGNING_KEY
  value: /var/run/cloudmesh/signing/current.pem
- name: CLOUDMESH_LAYOUT
  value: /opt/cloudmesh/layout
- name: CLOUDMESH_CACHE
  value: /var/cache/cloudmesh
{{- include "cloudmesh.registryEnv" . | nindent 0 }}
{{- if or (include "cloudmesh.embedded" .) .Values.registry.external.pushSecretName }}
- name: CLOUDMESH_REGISTRY_CREDENTIALS
  value: /var/run/cloudmesh/registry
{{- end }}
{{- with .Values.builder.index.url }}
- name: CLOUDMESH_INDEX_URL
  value: {{ . | quote }}
{{- end }}
{{- if .Values.builder.index.secretName }}
- name: CLOUDMESH_INDEX_CREDENTIALS
  value: /var/run/cloudmesh/index
{{- end }}
{{- with .Values.builder.proxy.httpProxy }}
- name: HTTP_PROXY
  value: {{ . | quote }}
{{- end }}
{{- with .Values.builder.proxy.httpsProxy }}
- name: HTTPS_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if or .Values.builder.proxy.httpProxy .Values.builder.proxy.httpsProxy }}
- name: NO_PROXY
  value: {{ list "localhost" "127.0.0.1" "::1" ".svc" ".cluster.local" .Values.builder.proxy.noProxy | compact | join "," | quote }}
{{- end }}
{{- end }}
