{{- /*
Switches of Knative that this release needs and the cluster has not set, as a JSON list of
{config, key, value, why}. Where the cluster cannot be read (`helm template`), all that the release needs.
*/ -}}
{{- define "sdzero.missingSwitches" -}}
{{- $needed := dict -}}
{{- range include "sdzero.models" . | fromJsonArray -}}
{{- $pods := list .predictor -}}
{{- if .hasEdge -}}{{- $pods = append $pods .edge -}}{{- end -}}
{{- range $pod := $pods -}}
{{- range $field := list "nodeSelector" "tolerations" "affinity" "runtimeClassName" "priorityClassName" -}}
{{- if index $pod $field -}}
{{- $_ := set $needed (printf "features kubernetes.podspec-%s" (lower $field)) (list "enabled" (printf "%s is set" $field)) -}}
{{- end -}}
{{- end -}}
{{- if $pod.podSecurityContext -}}
{{- $_ := set $needed "features kubernetes.podspec-securitycontext" (list "enabled" "podSecurityContext is set") -}}
{{- end -}}
{{- end -}}
{{- if .predictor.endDrain -}}
{{- $_ := set $needed "features kubernetes.podspec-shareprocessnamespace" (list "enabled" "endDrain is set") -}}
{{- end -}}
{{- if and .hasEdge .edge.persistence.enabled -}}
{{- $_ := set $needed "features kubernetes.podspec-persistent-volume-claim" (list "enabled" "edge.persistence is enabled") -}}
{{- $_ := set $needed "features kubernetes.podspec-persistent-volume-write" (list "enabled" "edge.persistence is enabled") -}}
{{- end -}}
{{- if not (int .predictor.scaling.initialScale) -}}
{{- $_ := set $needed "autoscaler allow-zero-initial-scale" (list "true" "initialScale is 0; until it is set, each new revision starts one pod first") -}}
{{- end -}}
{{- if .predictor.gpu.count -}}
{{- $_ := set $needed "deployment pod-is-always-schedulable" (list "true" "a pod that waits for a GPU is no failure") -}}
{{- end -}}
{{- $timeout := int .predictor.timeoutSeconds -}}
{{- if gt $timeout (max 600 (index $needed "defaults max-revision-timeout-seconds" | default (list "0") | first | int) | int) -}}
{{- $_ := set $needed "defaults max-revision-timeout-seconds" (list (toString $timeout) (printf "timeoutSeconds is %d; give the activator's Deployment a terminationGracePeriodSeconds of as much" $timeout)) -}}
{{- end -}}
{{- end -}}
{{- $missing := list -}}
{{- range $place, $want := $needed -}}
{{- $config := printf "config-%s" (first (splitList " " $place)) -}}
{{- $key := last (splitList " " $place) -}}
{{- $there := (lookup "v1" "ConfigMap" $.Values.knative.namespace $config).data | default dict -}}
{{- $have := index $there $key | default "" | lower -}}
{{- $enough := or (eq $have (first $want)) (and (eq $have "allowed") (not (contains "persistent" $key))) -}}
{{- if eq $key "max-revision-timeout-seconds" -}}
{{- $enough = ge (int $have) (int (first $want)) -}}
{{- end -}}
{{- if not $enough -}}
{{- $missing = append $missing (dict "config" $config "key" $key "value" (first $want) "why" (last $want)) -}}
{{- end -}}
{{- end -}}
{{- toJson $missing -}}
{{- end }}
