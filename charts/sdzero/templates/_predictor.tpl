{{- /* spec.predictor of a model's InferenceService: (dict "root" $ "model" COMPLETE). */ -}}
{{- define "sdzero.predictor" -}}
{{- $model := .model -}}
{{- $predictor := $model.predictor -}}
{{- $scaling := $predictor.scaling -}}
{{- $grpc := not $model.hasEdge -}}
minReplicas: {{ int $scaling.minReplicas }}
maxReplicas: {{ int $scaling.maxReplicas }}
containerConcurrency: {{ $model.derived.concurrency }}
timeout: {{ int $predictor.timeoutSeconds }}
{{- if not (kindIs "invalid" $model.canaryTrafficPercent) }}
canaryTrafficPercent: {{ int $model.canaryTrafficPercent }}
{{- end }}
labels:
  {{- include "sdzero.labels" (dict "root" .root "component" "predictor" "model" $model.name) | nindent 2 }}
  {{- if or $model.hasEdge (eq $model.visibility "cluster-local") }}
  networking.knative.dev/visibility: cluster-local
  {{- end }}
  {{- with $predictor.labels }}{{ toYaml . | nindent 2 }}{{ end }}
annotations:
  autoscaling.knative.dev/target-utilization-percentage: "100"
  autoscaling.knative.dev/window: {{ int $scaling.windowSeconds }}s
  autoscaling.knative.dev/scale-to-zero-pod-retention-period: {{ int $scaling.retentionSeconds }}s
  autoscaling.knative.dev/scale-down-delay: {{ int $scaling.scaleDownDelaySeconds }}s
  serving.knative.dev/progress-deadline: {{ int $scaling.progressDeadlineSeconds }}s
  {{- with $predictor.annotations }}{{ toYaml . | nindent 2 }}{{ end }}
serviceAccountName: {{ include "sdzero.fullname" .root }}-predictor
automountServiceAccountToken: false
enableServiceLinks: false
{{- if $predictor.endDrain }}
# The predictor ends queue-proxy by a signal, which takes a common process namespace, and a common user: 65532 unless told.
shareProcessNamespace: true
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "sdzero.placement" $predictor }}
containers:
  - name: kserve-container
    image: {{ include "sdzero.predictorImage" . | quote }}
    imagePullPolicy: {{ $predictor.image.pullPolicy }}
    args: [serve-predictor]
    env:
      # KServe's word for the protocol; it knows no other for gRPC in a custom container.
      - name: PROTOCOL
        value: v2
      - name: SDZERO_MODEL_NAME
        value: {{ $model.name | quote }}
      - name: SDZERO_DEVICE
        value: {{ $predictor.device }}
      {{- with include "sdzero.storageUri" $model }}
      - name: STORAGE_URI
        value: {{ . | quote }}
      - name: SDZERO_{{ eq $model.form "folder" | ternary "MODEL" "BUNDLE" }}
        value: /mnt/models
      {{- end }}
      {{- if not $grpc }}
      # Knative lets one port in; a gRPC server that nobody reaches would only make the start longer.
      - name: SDZERO_GRPC_PORT
        value: "0"
      {{- end }}
      - name: SDZERO_TIMEOUT_SECONDS
        value: {{ $model.derived.requestSeconds | quote }}
      {{- with $predictor.sleepAfterSeconds }}
      - name: SDZERO_SLEEP_AFTER_SECONDS
        value: {{ int . | quote }}
      {{- end }}
      {{- if $predictor.endDrain }}
      - name: SDZERO_END_DRAIN
        value: "true"
      {{- end }}
      {{- $given := $predictor.settings }}
      {{- $derived := dict "queue_images" $model.derived.queueImages "grace_seconds" $model.derived.graceSeconds }}
      {{- include "sdzero.settings" (include "sdzero.merged" (dict "under" $derived "over" $given) | fromJson) | trim | nindent 6 }}
      {{- with $predictor.env }}{{ toYaml . | nindent 6 }}{{ end }}
    ports:
      {{- if $grpc }}
      - name: h2c
        containerPort: 8081
        protocol: TCP
      {{- else }}
      - containerPort: 8080
        protocol: TCP
      {{- end }}
    # No period: queue-proxy then looks every 50 ms. A startup probe would switch the activator's own probing off.
    readinessProbe:
      httpGet:
        path: /v2/health/ready
        port: 8080
    resources:
      {{- $resources := deepCopy $predictor.resources }}
      {{- if $predictor.gpu.count }}
      {{- $_ := set $resources.requests $predictor.gpu.resource (int $predictor.gpu.count) }}
      {{- $_ := set $resources.limits $predictor.gpu.resource (int $predictor.gpu.count) }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    securityContext: {{- include "sdzero.securityContext" .root | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if $predictor.sharedMemory }}
      - name: shm
        mountPath: /dev/shm
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: {{ include "sdzero.text" $predictor.scratch }}
  {{- with $predictor.sharedMemory }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ . }}
  {{- end }}
{{- end }}
