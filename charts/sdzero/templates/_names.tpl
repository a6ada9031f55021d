{{- /* Names and labels. */ -}}

{{- define "sdzero.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "sdzero" .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-sdzero" .Release.Name -}}
{{- end -}}
{{- end }}

{{- /* What selects pods of this release: (dict "root" $ "component" C "model" M); the model may be left out. */ -}}
{{- define "sdzero.selectorLabels" -}}
app.kubernetes.io/name: sdzero
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
sdzero.dev/component: {{ .component }}
{{- with .model }}
sdzero.dev/model: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* Labels of an object: (dict "root" $ "component" C "model" M); component and model may be left out. */ -}}
{{- define "sdzero.labels" -}}
app.kubernetes.io/name: sdzero
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | default "inference" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
app.kubernetes.io/part-of: sdzero
{{- with .component }}
sdzero.dev/component: {{ . }}
{{- end }}
{{- with .model }}
sdzero.dev/model: {{ . | quote }}
{{- end }}
{{- end }}

{{- /* An image's reference: (dict "image" IMAGE "repository" DEFAULT "tag" DEFAULT). */ -}}
{{- define "sdzero.image" -}}
{{- .image.repository | default .repository -}}
{{- if or .image.tag (not .image.digest) }}:{{ .image.tag | default .tag }}{{ end -}}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{- define "sdzero.firstKeySecret" -}}
{{- .Values.firstKey.existingSecret | default (printf "%s-first-key" (include "sdzero.fullname" .)) -}}
{{- end }}

{{- define "sdzero.signingSecret" -}}
{{- .Values.signing.existingSecret | default (printf "%s-secret" (include "sdzero.fullname" .)) -}}
{{- end }}

{{- /* A value as the text of a variable or an annotation; without this, 2097152 would come out as 2.097152e+06. */ -}}
{{- define "sdzero.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}
