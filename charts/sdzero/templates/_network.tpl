{{- /* Who opens connections to pods of Knative: activator and gateway with requests, autoscaler and Prometheus to scrape. */ -}}
{{- define "sdzero.dataPath" -}}
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .root.Values.knative.namespace | quote }}
  ports: [{port: 8012}, {port: 8013}, {port: 8112}, {port: 9090}]
- from:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .root.Values.knative.gatewayNamespace | quote }}
  ports: [{port: 8012}, {port: 8013}, {port: 8112}]
{{- with .root.Values.networkPolicy.metricsFrom }}
- from:
    - namespaceSelector:
        matchLabels: {{- toYaml . | nindent 10 }}
  ports: [{port: 9091}, {port: {{ $.metricsPort }}}]
{{- end }}
{{- end }}

{{- /* The whole cluster may be asked for names: where its DNS runs differs (pods, nodes, link-local addresses). */ -}}
{{- define "sdzero.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}

{{- define "sdzero.toGateway" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.knative.gatewayNamespace | quote }}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ .Values.knative.namespace | quote }}
{{- end }}
