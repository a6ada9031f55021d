{{- /* Values that are each possible and contradict each other. A refusal names the value, what came and what is allowed. */ -}}

{{- define "sdzero.validate" -}}
{{- if and .Values.firstKey.existingSecret (not .Values.firstKey.enabled) -}}
{{- fail (printf "firstKey.enabled: got false, with firstKey.existingSecret %q; allowed: true, or no existingSecret" .Values.firstKey.existingSecret) -}}
{{- end -}}
{{- $seen := dict -}}
{{- $claims := dict -}}
{{- range include "sdzero.models" . | fromJsonArray -}}
{{- if hasKey $seen .name -}}
{{- fail (printf "models: got %q twice; allowed: each name once" .name) -}}
{{- end -}}
{{- $_ := set $seen .name true -}}
{{- include "sdzero.validateName" . -}}
{{- include "sdzero.validateResources" . -}}
{{- include "sdzero.validatePredictor" (dict "root" $ "model" .) -}}
{{- include "sdzero.validateSource" (dict "root" $ "model" .) -}}
{{- include "sdzero.validateAccess" . -}}
{{- if .hasEdge -}}
{{- include "sdzero.validateEdge" (dict "root" $ "model" .) -}}
{{- include "sdzero.validateStores" (dict "root" $ "model" . "claims" $claims) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateName" -}}
{{- if or (gt (len .full) 40) (not (regexMatch "^[a-z]" .full)) -}}
{{- fail (printf "models[%s].name: with the release's in front it is %q, %d characters; allowed: a letter first, and 40, for Knative appends its own" .name .full (len .full)) -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateResources" -}}
{{- $model := . -}}
{{- range $what := .hasEdge | ternary (list "predictor" "edge") (list "predictor") -}}
{{- range $side := list "requests" "limits" -}}
{{- range $resource := list "cpu" "memory" -}}
{{- if not (dig $what "resources" $side $resource "" $model) -}}
{{- fail (printf "%s.resources.%s.%s (model %s): got nothing; allowed: an amount, for KServe would fill in its own" $what $side $resource $model.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateSource" -}}
{{- $model := .model -}}
{{- $kinds := list -}}
{{- range $kind := list "baked" "pvc" "oci" "storageUri" -}}
{{- if index $model.source $kind -}}
{{- $kinds = append $kinds $kind -}}
{{- end -}}
{{- end -}}
{{- if ne (len $kinds) 1 -}}
{{- fail (printf "models[%s].source: got %s; allowed: exactly one of baked, pvc, oci, storageUri" $model.name (join " and " $kinds | default "none of them")) -}}
{{- end -}}
{{- if and $model.source.baked (eq $model.form "bundle") (eq $model.predictor.device "cuda") (not $model.predictor.image.repository) -}}
{{- fail (printf "models[%s].source.baked: got true, with device cuda; allowed: pvc, oci, storageUri, or a predictor.image.repository of yours, for a bundle is baked for one kind of GPU and the image of sdzero has none" $model.name) -}}
{{- end -}}
{{- if and $model.source.storageUri .root.Values.networkPolicy.enabled (not .root.Values.networkPolicy.predictor.egress) -}}
{{- fail (printf "networkPolicy.predictor.egress: got nothing, but models[%s].source.storageUri downloads from within the pod; allowed: rules that let it reach %q, or networkPolicy.enabled false" $model.name $model.source.storageUri) -}}
{{- end -}}
{{- if and $model.capabilities $model.capabilitiesConfigMap -}}
{{- fail (printf "models[%s]: got capabilities and capabilitiesConfigMap; allowed: one of them" $model.name) -}}
{{- end -}}
{{- if $model.capabilities -}}
{{- $text := include "sdzero.capabilities" (dict "root" .root "model" $model) -}}
{{- if not $text -}}
{{- fail (printf "models[%s].capabilities: got %q; allowed: a file of the chart, or the text itself" $model.name $model.capabilities) -}}
{{- else if not (hasKey (fromJson $text) "revision") -}}
{{- fail (printf "models[%s].capabilities: got text that is not JSON of `sdzero capabilities`: %q…; allowed: what it wrote, or a path that begins with files/" $model.name (trunc 60 $text)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validatePredictor" -}}
{{- $name := .model.name -}}
{{- $predictor := .model.predictor -}}
{{- $scaling := $predictor.scaling -}}
{{- $timeout := int $predictor.timeoutSeconds -}}
{{- $longest := int .root.Values.knative.maxTimeoutSeconds -}}
{{- if gt $timeout $longest -}}
{{- fail (printf "predictor.timeoutSeconds (model %s): got %d; allowed: up to %d, which is knative.maxTimeoutSeconds; raise max-revision-timeout-seconds of config-defaults first, and the activator's grace period with it" $name $timeout $longest) -}}
{{- end -}}
{{- range $what := list "minReplicas" "initialScale" -}}
{{- if gt (int (index $scaling $what)) (int $scaling.maxReplicas) -}}
{{- fail (printf "predictor.scaling.%s (model %s): got %d; allowed: up to maxReplicas, %d" $what $name (int (index $scaling $what)) (int $scaling.maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- $retention := int $scaling.retentionSeconds -}}
{{- if and (gt $retention 0) (lt $retention 30) -}}
{{- fail (printf "predictor.scaling.retentionSeconds (model %s): got %d; allowed: 0, or 30 to 3600, for Knative's scale-to-zero-grace-period is 30" $name $retention) -}}
{{- end -}}
{{- if and (eq $predictor.device "cuda") (not $predictor.gpu.count) -}}
{{- fail (printf "predictor.gpu.count (model %s): got 0, with device cuda; allowed: 1 or more, or device cpu" $name) -}}
{{- end -}}
{{- $grace := int (index $predictor.settings "grace_seconds" | default 0) -}}
{{- if and (hasKey $predictor.settings "grace_seconds") (gt $grace (sub $timeout 30 | int)) -}}
{{- fail (printf "predictor.settings.grace_seconds (model %s): got %d; allowed: up to %d, for the pod ends after timeoutSeconds and Knative drains it for 30 of them" $name $grace (sub $timeout 30)) -}}
{{- end -}}
{{- if hasKey $predictor.settings "queue_images" -}}
{{- $queue := int $predictor.settings.queue_images -}}
{{- $least := .model.hasEdge | ternary .model.derived.atOnce .model.derived.concurrency | int -}}
{{- if lt $queue $least -}}
{{- fail (printf "predictor.settings.queue_images (model %s): got %d; allowed: %d or more, which may be sent to one pod at once" $name $queue $least) -}}
{{- end -}}
{{- end -}}
{{- if and $predictor.prewarm.schedule (not .model.hasEdge) -}}
{{- fail (printf "predictor.prewarm.schedule (model %s): got %q, with protocol grpc; allowed: with protocol v2" $name $predictor.prewarm.schedule) -}}
{{- end -}}
{{- range $key := list "target-utilization-percentage" "window" "scale-to-zero-pod-retention-period" "scale-down-delay" "initial-scale" "min-scale" "max-scale" -}}
{{- if hasKey $predictor.annotations (printf "autoscaling.knative.dev/%s" $key) -}}
{{- fail (printf "predictor.annotations (model %s): got autoscaling.knative.dev/%s; allowed: what predictor.scaling does not set" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateAccess" -}}
{{- if and (not .hasEdge) (eq .visibility "public") (not .unauthenticated) -}}
{{- fail (printf "models[%s].visibility: got public, with protocol grpc, where nobody asks for keys; allowed: cluster-local, or unauthenticated true as an acknowledgement" .name) -}}
{{- end -}}
{{- if and .hasEdge (eq (index .edge.settings "auth" | default "keys") "none") (not .unauthenticated) -}}
{{- fail (printf "edge.settings.auth (model %s): got none; allowed: keys, or models[%s].unauthenticated true as an acknowledgement" .name .name) -}}
{{- end -}}
{{- if and .unauthenticated .hasEdge (ne (index .edge.settings "auth" | default "keys") "none") -}}
{{- fail (printf "models[%s].unauthenticated: got true, but its edge asks for keys; allowed: false, or edge.settings.auth none" .name) -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateEdge" -}}
{{- $name := .model.name -}}
{{- $timeout := int .model.predictor.timeoutSeconds -}}
{{- $settings := .model.edge.settings -}}
{{- $grace := int (index $settings "grace_seconds" | default 0) -}}
{{- if and (hasKey $settings "grace_seconds") (gt $grace (sub $timeout 30 | int)) -}}
{{- fail (printf "edge.settings.grace_seconds (model %s): got %d; allowed: up to %d, for the pod ends after timeoutSeconds and Knative drains it for 30 of them" $name $grace (sub $timeout 30)) -}}
{{- end -}}
{{- $cold := int (index $settings "cold_start_seconds" | default 30) -}}
{{- if ge $cold $timeout -}}
{{- fail (printf "edge.settings.cold_start_seconds (model %s): got %d; allowed: below predictor.timeoutSeconds, %d, which has to include it" $name $cold $timeout) -}}
{{- end -}}
{{- range $key := list "target-burst-capacity" "initial-scale" "min-scale" "max-scale" -}}
{{- if hasKey $.model.edge.annotations (printf "autoscaling.knative.dev/%s" $key) -}}
{{- fail (printf "edge.annotations (model %s): got autoscaling.knative.dev/%s; allowed: what the chart does not set" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sdzero.validateStores" -}}
{{- $name := .model.name -}}
{{- $edge := .model.edge -}}
{{- $missing := list -}}
{{- if not $edge.database.existingSecret -}}{{- $missing = append $missing "edge.database.existingSecret" -}}{{- end -}}
{{- if not $edge.redis.existingSecret -}}{{- $missing = append $missing "edge.redis.existingSecret" -}}{{- end -}}
{{- if not $edge.images.url -}}{{- $missing = append $missing "edge.images.url" -}}{{- end -}}
{{- if and (gt (int $edge.replicas) 1) $missing -}}
{{- fail (printf "edge.replicas (model %s): got %d, without %s; allowed: 1 with the embedded stores, more with stores that edges share" $name (int $edge.replicas) (join ", " $missing)) -}}
{{- end -}}
{{- if and $edge.database.existingSecret (not $edge.images.url) -}}
{{- fail (printf "edge.images.url (model %s): got nothing, with edge.database.existingSecret %q; allowed: an object store, for jobs would outlive their pictures" $name $edge.database.existingSecret) -}}
{{- end -}}
{{- if and $edge.images.existingSecret (not $edge.images.url) -}}
{{- fail (printf "edge.images.existingSecret (model %s): got %q, without edge.images.url; allowed: both" $name $edge.images.existingSecret) -}}
{{- end -}}
{{- if and $edge.persistence.enabled $edge.database.existingSecret -}}
{{- fail (printf "edge.persistence.enabled (model %s): got true, with edge.database.existingSecret %q; allowed: false, for the volume is the embedded stores'" $name $edge.database.existingSecret) -}}
{{- end -}}
{{- with $edge.persistence.existingClaim -}}
{{- if not $edge.persistence.enabled -}}
{{- fail (printf "edge.persistence.existingClaim (model %s): got %q, with edge.persistence.enabled false; allowed: with true" $name .) -}}
{{- end -}}
{{- if hasKey $.claims . -}}
{{- fail (printf "edge.persistence.existingClaim: got %q for %s and %s; allowed: one claim for each model, in models[].edge" . (get $.claims .) $name) -}}
{{- end -}}
{{- $_ := set $.claims . $name -}}
{{- end -}}
{{- $outside := or $edge.database.existingSecret $edge.redis.existingSecret -}}
{{- if and $outside .root.Values.networkPolicy.enabled (not .root.Values.networkPolicy.edge.egress) -}}
{{- fail (printf "networkPolicy.edge.egress: got nothing, but the edge of %s keeps things in %q; allowed: rules that let it reach PostgreSQL and Redis, or networkPolicy.enabled false" $name $outside) -}}
{{- end -}}
{{- end }}
