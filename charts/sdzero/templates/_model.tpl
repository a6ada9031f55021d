{{- /* One model, complete: its own values over the defaults, and what follows from them. */ -}}

{{- /* All of `over` in `under`, as JSON: (dict "under" MAP "over" MAP). Sprig's merge takes false and 0 for absent. */ -}}
{{- define "sdzero.merged" -}}
{{- $merged := deepCopy .under -}}
{{- range $key, $value := .over -}}
{{- $below := index $merged $key -}}
{{- if and (kindIs "map" $value) (kindIs "map" $below) -}}
{{- $value = include "sdzero.merged" (dict "under" $below "over" $value) | fromJson -}}
{{- end -}}
{{- $_ := set $merged $key $value -}}
{{- end -}}
{{- toJson $merged -}}
{{- end }}

{{- /* The model as JSON: (dict "root" $ "model" one of .Values.models). */ -}}
{{- define "sdzero.model" -}}
{{- $values := .root.Values -}}
{{- $predictor := include "sdzero.merged" (dict "under" $values.predictor "over" (.model.predictor | default dict)) | fromJson -}}
{{- $edge := include "sdzero.merged" (dict "under" $values.edge "over" (.model.edge | default dict)) | fromJson -}}
{{- $source := .model.source | default (dict "baked" true) -}}
{{- $protocol := .model.protocol | default "v2" -}}
{{- $full := printf "%s-%s" (include "sdzero.fullname" .root) .model.name -}}
{{- $rows := int (index $predictor.settings "max_rows" | default 16) -}}
{{- $inFlight := min 4096 (mul (int $predictor.scaling.maxReplicas) $rows) -}}
{{- /* An edge that has nothing in flight sends up to 64 images whatever its bound, one large request being possible. */ -}}
{{- $atOnce := mul (int $edge.replicas) (max 64 (index $edge.settings "images_in_flight" | default $inFlight | int)) -}}
{{- $timeout := int $predictor.timeoutSeconds -}}
{{- $derived := dict
      "concurrency" (int ($predictor.scaling.containerConcurrency | default $rows))
      "imagesInFlight" $inFlight
      "atOnce" $atOnce
      "queueImages" (min 4096 $atOnce)
      "requestSeconds" (sub $timeout (max 1 (min 10 (div $timeout 10))))
      "graceSeconds" (max 1 (sub $timeout 60))
      "idleSeconds" (add (int $predictor.scaling.windowSeconds) (int $predictor.scaling.retentionSeconds))
-}}
{{- $visibility := .model.visibility | default (eq $protocol "grpc" | ternary "cluster-local" "public") -}}
{{- $origin := printf ".%s.svc.%s" .root.Release.Namespace .root.Values.clusterDomain -}}
{{- dict
      "name" .model.name
      "full" $full
      "protocol" $protocol
      "hasEdge" (eq $protocol "v2")
      "visibility" $visibility
      "unauthenticated" (.model.unauthenticated | default false)
      "canaryTrafficPercent" .model.canaryTrafficPercent
      "source" $source
      "form" ($source.form | default "bundle")
      "capabilities" (.model.capabilities | default "")
      "capabilitiesConfigMap" (.model.capabilitiesConfigMap | default "")
      "predictorUrl" (printf "http://%s-predictor%s" $full $origin)
      "edgeUrl" (printf "http://%s-transformer%s" $full $origin)
      "predictor" $predictor
      "edge" $edge
      "derived" $derived
    | toJson -}}
{{- end }}

{{- /* All models, complete, as JSON. */ -}}
{{- define "sdzero.models" -}}
{{- $models := list -}}
{{- range .Values.models -}}
{{- $models = append $models (include "sdzero.model" (dict "root" $ "model" .) | fromJson) -}}
{{- end -}}
{{- toJson $models -}}
{{- end }}

{{- /* What some model of the release has, as JSON: {edges, watched, prewarmed}. */ -}}
{{- define "sdzero.some" -}}
{{- $some := dict "edges" false "watched" false "prewarmed" false -}}
{{- range include "sdzero.models" . | fromJsonArray -}}
{{- if .hasEdge -}}{{- $_ := set $some "edges" true -}}{{- end -}}
{{- if and .hasEdge .edge.watchPods -}}{{- $_ := set $some "watched" true -}}{{- end -}}
{{- if .predictor.prewarm.schedule -}}{{- $_ := set $some "prewarmed" true -}}{{- end -}}
{{- end -}}
{{- toJson $some -}}
{{- end }}

{{- /* What the model can do, as text, from the values or from a file of the chart, with the limits that the predictor is
told to have: (dict "root" $ "model" COMPLETE). */ -}}
{{- define "sdzero.capabilities" -}}
{{- $text := .model.capabilities -}}
{{- if hasPrefix "files/" $text -}}
{{- $text = .root.Files.Get $text -}}
{{- end -}}
{{- $limits := pick .model.predictor.settings "max_images" "max_steps" "max_prompt_bytes" -}}
{{- if and $text $limits -}}
{{- mergeOverwrite (fromJson $text) $limits | toJson -}}
{{- else -}}
{{- $text -}}
{{- end -}}
{{- end }}

{{- /* Where the pod finds the model, or nothing if it is in the image. */ -}}
{{- define "sdzero.storageUri" -}}
{{- with .source.pvc -}}
{{- printf "pvc://%s/%s" .claim (.path | default "" | trimPrefix "/") | trimSuffix "/" -}}
{{- end -}}
{{- with .source.oci -}}
{{- printf "oci+native://%s" . -}}
{{- end -}}
{{- with .source.storageUri -}}
{{- . -}}
{{- end -}}
{{- end }}

{{- /* Image of a model's predictor: (dict "root" $ "model" COMPLETE). */ -}}
{{- define "sdzero.predictorImage" -}}
{{- $repository := eq .model.form "folder" | ternary "sdzero/predictor-eager" "sdzero/predictor" -}}
{{- $tag := printf "%s-%s" .root.Chart.AppVersion .model.predictor.device -}}
{{- include "sdzero.image" (dict "image" .model.predictor.image "repository" $repository "tag" $tag) -}}
{{- end }}

{{- /* Image of an edge: (dict "root" $ "image" IMAGE). */ -}}
{{- define "sdzero.edgeImage" -}}
{{- include "sdzero.image" (dict "image" .image "repository" "sdzero/edge" "tag" .root.Chart.AppVersion) -}}
{{- end }}
