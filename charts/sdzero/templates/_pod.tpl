{{- /* Parts that pods of every kind share. */ -}}

{{- /* Where a pod may run; nothing where nothing is said, for each of these needs a switch of Knative. */ -}}
{{- define "sdzero.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .podSecurityContext }}
securityContext: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The container's security context, without what was set to null. */ -}}
{{- define "sdzero.securityContext" -}}
{{- $kept := dict -}}
{{- range $key, $value := .Values.securityContext -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $key $value -}}
{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end }}

{{- /* Settings as SDZERO_ variables, in the order of their names. */ -}}
{{- define "sdzero.settings" -}}
{{- range $name, $value := . }}
- name: SDZERO_{{ upper $name }}
  value: {{ include "sdzero.text" $value | quote }}
{{- end }}
{{- end }}

{{- /* A variable from a key of a Secret: (dict "name" N "secret" S "key" K). */ -}}
{{- define "sdzero.fromSecret" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret | quote }}
      key: {{ .key | quote }}
{{- end }}
