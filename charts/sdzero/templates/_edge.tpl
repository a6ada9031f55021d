{{- /* spec.transformer of a model's InferenceService, which is the edge: (dict "root" $ "model" COMPLETE). */ -}}
{{- define "sdzero.edge" -}}
{{- $root := .root -}}
{{- $model := .model -}}
{{- $edge := $model.edge -}}
{{- $configured := include "sdzero.edgeConfig" . -}}
minReplicas: {{ int $edge.replicas }}
maxReplicas: {{ int $edge.replicas }}
timeout: {{ int $model.predictor.timeoutSeconds }}
labels:
  {{- include "sdzero.labels" (dict "root" $root "component" "edge" "model" $model.name) | nindent 2 }}
  {{- if eq $model.visibility "cluster-local" }}
  networking.knative.dev/visibility: cluster-local
  {{- end }}
  {{- with $edge.labels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  # The activator stays in the path: it holds requests while a lone edge is replaced.
  autoscaling.knative.dev/target-burst-capacity: "-1"
  autoscaling.knative.dev/initial-scale: {{ int $edge.replicas | quote }}
  {{- with $configured }}
  sdzero.dev/config: {{ sha256sum . }}
  {{- end }}
  {{- with $edge.annotations }}{{ toYaml . | nindent 2 }}{{ end }}
serviceAccountName: {{ include "sdzero.fullname" $root }}-edge
{{- if not $edge.watchPods }}
automountServiceAccountToken: false
{{- end }}
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "sdzero.placement" $edge }}
containers:
  - name: kserve-container
    image: {{ include "sdzero.edgeImage" (dict "root" $root "image" $edge.image) | quote }}
    imagePullPolicy: {{ $edge.image.pullPolicy }}
    # With an underscore, as KServe spells it: it would append its own, the name of the InferenceService.
    args: [serve-edge, --model_name, {{ $model.name | quote }}]
    env:
      - name: SDZERO_PREDICTOR_URL
        value: {{ $model.predictorUrl | quote }}
      - name: SDZERO_DATA
        value: /data
      - name: SDZERO_METRICS_PORT
        value: "9464"
      - name: SDZERO_IDLE_SECONDS
        value: {{ $model.derived.idleSeconds | quote }}
      - name: SDZERO_TIMEOUT_SECONDS
        value: {{ $model.derived.requestSeconds | quote }}
      {{- if $edge.watchPods }}
      - name: SDZERO_WATCH_PODS
        value: {{ printf "%s/%s-predictor" $root.Release.Namespace $model.full | quote }}
      {{- end }}
      {{- if or $model.capabilities $model.capabilitiesConfigMap }}
      - name: SDZERO_CAPABILITIES
        value: /etc/sdzero/capabilities.json
      {{- end }}
      {{- if $edge.blocklist }}
      - name: SDZERO_BLOCKLIST
        value: /etc/sdzero/blocklist.txt
      {{- end }}
      {{- $given := $edge.settings }}
      {{- /* Activator and queue-proxy have added themselves to X-Forwarded-For; the gateway only where it is told to. */ -}}
      {{- $derived := dict "images_in_flight" $model.derived.imagesInFlight "grace_seconds" $model.derived.graceSeconds "forwarded_hops" 2 }}
      {{- include "sdzero.settings" (include "sdzero.merged" (dict "under" $derived "over" $given) | fromJson) | trim | nindent 6 }}
      {{- include "sdzero.fromSecret" (dict "name" "SDZERO_SECRET" "secret" (include "sdzero.signingSecret" $root) "key" "secret") | nindent 6 }}
      {{- if $root.Values.firstKey.enabled }}
      {{- include "sdzero.fromSecret" (dict "name" "SDZERO_FIRST_KEY" "secret" (include "sdzero.firstKeySecret" $root) "key" "key") | nindent 6 }}
      {{- end }}
      {{- with $edge.database.existingSecret }}
      {{- include "sdzero.fromSecret" (dict "name" "SDZERO_DATABASE_URL" "secret" . "key" $model.name) | nindent 6 }}
      {{- end }}
      {{- with $edge.redis.existingSecret }}
      {{- include "sdzero.fromSecret" (dict "name" "SDZERO_REDIS_URL" "secret" . "key" $model.name) | nindent 6 }}
      {{- end }}
      {{- with $edge.images.url }}
      - name: SDZERO_IMAGES_URL
        value: {{ printf "%s/%s" (trimSuffix "/" .) $model.name | quote }}
      {{- end }}
      {{- with $edge.env }}{{ toYaml . | nindent 6 }}{{ end }}
    {{- with $edge.images.existingSecret }}
    envFrom:
      - secretRef:
          name: {{ . | quote }}
    {{- end }}
    ports:
      - containerPort: 8080
        protocol: TCP
    livenessProbe:
      httpGet:
        path: /healthz
        port: 8080
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 6
    readinessProbe:
      httpGet:
        path: /readyz
        port: 8080
    resources: {{- toYaml $edge.resources | nindent 6 }}
    securityContext: {{- include "sdzero.securityContext" $root | nindent 6 }}
    volumeMounts:
      - name: data
        mountPath: /data
      - name: tmp
        mountPath: /tmp
      {{- if or $configured $model.capabilitiesConfigMap }}
      - name: config
        mountPath: /etc/sdzero
        readOnly: true
      {{- end }}
volumes:
  - name: data
    {{- if $edge.persistence.enabled }}
    persistentVolumeClaim:
      claimName: {{ $edge.persistence.existingClaim | default (printf "%s-data" $model.full) | quote }}
    {{- else }}
    emptyDir:
      sizeLimit: {{ include "sdzero.text" $edge.scratch }}
    {{- end }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ include "sdzero.text" $edge.scratch }}
  {{- if or $configured $model.capabilitiesConfigMap }}
  - name: config
    projected:
      sources:
        {{- if $configured }}
        - configMap:
            name: {{ $model.full }}-config
        {{- end }}
        {{- with $model.capabilitiesConfigMap }}
        - configMap:
            name: {{ . | quote }}
            items: [{key: capabilities.json, path: capabilities.json}]
        {{- end }}
  {{- end }}
{{- end }}

{{- /* Files of an edge, as data of a ConfigMap, or nothing: (dict "root" $ "model" COMPLETE). */ -}}
{{- define "sdzero.edgeConfig" -}}
{{- if .model.capabilities }}
capabilities.json: {{ include "sdzero.capabilities" . | quote }}
{{- end }}
{{- with .model.edge.blocklist }}
blocklist.txt: {{ . | quote }}
{{- end }}
{{- end }}
