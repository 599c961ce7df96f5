{{/* The chart's name in the names of objects. */}}
{{- define "ltx2-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* The name of the objects of a release; 52 characters leave room for suffixes. */}}
{{- define "ltx2-operator.fullname" -}}
{{- $name := include "ltx2-operator.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the operator's pods; it can never change, so nothing else belongs here. */}}
{{- define "ltx2-operator.selector" -}}
app.kubernetes.io/name: {{ include "ltx2-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "ltx2-operator.labels" -}}
{{ include "ltx2-operator.selector" . }}
app.kubernetes.io/component: operator
{{ include "ltx2-operator.commonLabels" . }}
{{- end }}

{{/* What selects the pod of `helm test`: not what the operator's Service and budget select. */}}
{{- define "ltx2-operator.testSelector" -}}
app.kubernetes.io/name: {{ include "ltx2-operator.name" . }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ltx2-operator.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ltx2
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ltx2-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "ltx2-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The operator's image: a digest beats a tag, which beats the chart's appVersion. */}}
{{- define "ltx2-operator.image" -}}
{{- with .Values.image.registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* Two releases in one namespace must not wait for each other's Lease. */}}
{{- define "ltx2-operator.leaseName" -}}
{{- default (include "ltx2-operator.fullname" .) .Values.leaderElection.leaseName }}
{{- end }}

{{/* A map without what is not set (empty texts and maps, at any depth), as JSON. An empty list does say something. */}}
{{- define "ltx2-operator.pruned" -}}
{{- $made := dict }}
{{- range $key, $value := . }}
{{- if kindIs "map" $value }}
{{- $value = include "ltx2-operator.pruned" $value | fromJson }}
{{- end }}
{{- if not (or (kindIs "invalid" $value) (and (or (kindIs "string" $value) (kindIs "map" $value)) (empty $value))) }}
{{- $_ := set $made $key $value }}
{{- end }}
{{- end }}
{{- toJson $made }}
{{- end }}

{{/* The operator's settings file: exactly the form of ltx2_operator.settings.Installation. */}}
{{- define "ltx2-operator.settings" -}}
{{- $prefix := "" }}
{{- with .Values.image.registry }}{{ $prefix = printf "%s/" . }}{{ end }}
{{- $images := dict }}
{{- range $flavour := list "cuda" "rocm" "cpu" }}
{{- $default := printf "%sltx2/job-%s:%s" $prefix $flavour $.Chart.AppVersion }}
{{- $_ := set $images $flavour (get $.Values.jobs.images $flavour | default $default) }}
{{- end }}
{{- $jobs := include "ltx2-operator.pruned" .Values.jobs | fromJson }}
{{- $_ := set $jobs "images" $images }}
{{- $election := set (deepCopy .Values.leaderElection) "leaseName" (include "ltx2-operator.leaseName" .) }}
{{- $settings := dict "jobs" $jobs "nodeReader" .Values.rbac.nodeReader "secretReader" .Values.rbac.secretReader "leaderElection" $election }}
{{- range $key := list "watchNamespaces" "api" "workers" "resyncSeconds" "staleSeconds" "port" "logLevel" }}
{{- $_ := set $settings $key (get $.Values $key) }}
{{- end }}
{{- toYaml $settings }}
{{- end }}

{{/* What the operator does in a namespace with trainings. */}}
{{- define "ltx2-operator.rules" -}}
- apiGroups: [ltx2.dev]
  resources: [ltx2trainings]
  verbs: [get, list, watch, delete] # delete: ttlSecondsAfterFinished
- apiGroups: [ltx2.dev]
  resources: [ltx2trainings/status]
  verbs: [patch]
# Where owner references are policed, one that blocks the owner's deletion needs this.
- apiGroups: [ltx2.dev]
  resources: [ltx2trainings/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete] # delete: pods of a lost node
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, create] # never delete: weights outlive the run that made them
- apiGroups: [""]
  resources: [events]
  verbs: [list] # why a Job has no pod
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, get, patch] # get, patch: what is told again is counted
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list] # why a queue holds a run
{{- if .Values.rbac.secretReader }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get] # whether it exists; values are never read into any object
{{- end }}
{{- end }}

{{/* The labels of one alert: its severity and those of the installation. Takes (values of prometheusRule, severity). */}}
{{- define "ltx2-operator.alertLabels" -}}
labels:
  severity: {{ index . 1 }}
  {{- with (index . 0).alertLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "ltx2-operator.runbook" -}}
{{- with (index . 0).runbookUrl }}
runbook_url: {{ printf "%s%s" . (index $ 1) | quote }}
{{- end }}
{{- end }}
